"""How fast is NIQE? A batch of eight 512×512 images, against straightforward NumPy and SciPy, one image after the other.

    python benchmarks/niqe.py

The reference is what one writes from the paper, with its gamma table computed once. Both run in alternation in one
process, since timings from different moments do not compare on a shared machine.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from scipy.ndimage import correlate
from scipy.special import gamma

import srcourse as sr
from srcourse.degradation import downscale

SHAPES = np.arange(0.2, 10.001, 0.001)
RATIOS = gamma(2 / SHAPES) ** 2 / (gamma(1 / SHAPES) * gamma(3 / SHAPES))
AXIS = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
WINDOW = np.outer(AXIS, AXIS) / AXIS.sum() ** 2


def fit(x: np.ndarray) -> tuple[float, float, float]:
    """The asymmetric generalised Gaussian of a block's samples."""
    left, right = np.sqrt(np.mean(x[x < 0] ** 2)), np.sqrt(np.mean(x[x > 0] ** 2))
    balance = left / right
    target = np.mean(np.abs(x)) ** 2 / np.mean(x**2) * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = SHAPES[np.argmin((RATIOS - target) ** 2)]
    factor = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * factor, right * factor


def plain_niqe(rgb: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> float:
    """NIQE of an image (3, H, W) in [0, 1], as the paper says it."""
    red, green, blue = np.floor(255 * rgb.astype(np.float64) + 0.5) / 255
    luma = np.floor(16 + 65.481 * red + 128.553 * green + 24.966 * blue + 0.5)
    rows, columns = luma.shape[0] // 96, luma.shape[1] // 96
    luma = luma[: 96 * rows, : 96 * columns]
    scales = []
    for size in (96, 48):
        if size == 48:
            luma = downscale(torch.from_numpy(luma)[None] / 255, 2)[0].numpy() * 255
        mu = correlate(luma, WINDOW, mode="nearest")
        sigma = np.sqrt(np.abs(correlate(luma**2, WINDOW, mode="nearest") - mu**2))
        mscn = (luma - mu) / (sigma + 1)
        mscn[np.abs(mscn) < 1e-9] = 0
        features = []
        for i in range(rows):
            for j in range(columns):
                block = mscn[i * size : (i + 1) * size, j * size : (j + 1) * size]
                shape, left, right = fit(block)
                row = [shape, (left + right) / 2]
                for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    shape, left, right = fit(block * np.roll(block, shift, axis=(0, 1)))
                    row += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
                features.append(row)
        scales.append(np.array(features))
    features = np.concatenate(scales, axis=1)
    difference = mean - features.mean(0)
    return float(np.sqrt(difference @ np.linalg.pinv((covariance + np.cov(features, rowvar=False)) / 2) @ difference))


def main() -> None:
    """Alternate both, print both times and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    leaves = sr.data.DeadLeaves(seed=0, size=512)
    batch = sr.images.quantize(torch.stack([leaves[i] for i in range(8)]))
    metric = sr.metrics.NIQE()
    pristine = metric.mean.numpy(), metric.covariance.numpy()
    ours, plain = metric.scores(batch).numpy(), np.array([plain_niqe(rgb, *pristine) for rgb in batch.numpy()])
    print(f"largest difference: {np.abs(ours - plain).max():.1e}")
    times = []
    for _ in range(rounds):
        moments = [time.perf_counter()]
        metric.scores(batch)
        moments.append(time.perf_counter())
        for rgb in batch.numpy():
            plain_niqe(rgb, *pristine)
        moments.append(time.perf_counter())
        times.append((moments[1] - moments[0], moments[2] - moments[1]))
    ours, plain = (statistics.median(column) for column in zip(*times, strict=True))
    ratios = sorted(a / b for a, b in times)
    print(f"srcourse {1000 * ours / 8:.1f} ms an image, NumPy and SciPy {1000 * plain / 8:.1f} ms")
    print(f"ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
