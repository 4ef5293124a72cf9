"""How fast is SSIM beside scikit-image's? Run by hand: python benchmarks/ssim.py"""

import statistics
import time

import torch
from skimage.metrics import structural_similarity

import srcourse as sr

ROUNDS, CALLS = 15, 5


def timed(function) -> float:
    """Seconds for one call, the mean of a few."""
    start = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - start) / CALLS


def main() -> None:
    """Print the ratio of the two times on a 512×512 luma image, alternating."""
    y = sr.images.rgb_to_y(sr.images.sample("astronaut").double())  # (1, 512, 512)
    noisy = (y + 0.02 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).clamp(0, 1)
    a, b = y[0].numpy(), noisy[0].numpy()

    def ours() -> float:
        return sr.metrics.ssim(y, noisy, quantize=False)

    def theirs() -> float:
        return structural_similarity(a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)

    assert abs(ours() - theirs()) < 1e-9
    rows = [(timed(ours), timed(theirs)) for _ in range(ROUNDS)]
    ratios = [x / z for x, z in rows]
    print(f"ssim / scikit-image's: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"{statistics.median(r[0] for r in rows) * 1e3:.1f} ms and {statistics.median(r[1] for r in rows) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
