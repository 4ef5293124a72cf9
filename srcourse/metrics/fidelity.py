"""PSNR and SSIM as the super-resolution papers measure them (P001 §4.4, P003 eq. 6–8).

The protocol: both images as they would be saved (8 bits), luma of BT.601 in studio range and not rounded, a border of
`scale` pixels cut off, peak 255. Each step moves the result: see lesson 02.
"""

import math

import torch

from srcourse import images

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # for a peak of 1: (0.01·L)² and (0.03·L)²


def psnr(image: torch.Tensor, reference: torch.Tensor, *, border: int = 0, channel: str = "y", quantize: bool = True) -> float:
    """Peak signal-to-noise ratio in decibels; higher is closer, infinite for equal images.

    PSNR = 10·log₁₀(peak² / MSE), with peak 1 on [0, 1] images, which is 255 on 8-bit ones (P003 eq. 6–7).

    Parameters
    ----------
    image, reference : (3, H, W) or (N, 3, H, W) tensors in [0, 1]
        For a batch, the mean of the images' decibels. One-channel images are taken as luma.
    border : int
        Pixels to leave out at each side; the papers use the scale.
    channel : "y" or "rgb"
        Compare luma, or all three colours together.
    quantize : bool
        Round both to 8 bits first, as saved files would be.

    Raises
    ------
    ValueError
        If the shapes differ, values are not finite, or the border leaves nothing.

    Examples
    --------
    >>> psnr(torch.full((3, 8, 8), 0.5), torch.full((3, 8, 8), 0.6), channel="rgb", quantize=False)  # doctest: +ELLIPSIS
    20.0...
    """
    x, y = _prepare(image, reference, border, channel, quantize)
    errors = (x - y).square().flatten(1).mean(1).tolist()  # mean squared error of each image
    return sum(10 * math.log10(1 / e) if e > 0 else math.inf for e in errors) / len(errors)


def ssim(image: torch.Tensor, reference: torch.Tensor, *, border: int = 0, channel: str = "y", quantize: bool = True) -> float:
    """Structural similarity, at most 1 (equal images); higher is better.

    Wang et al. 2004 (P003 eq. 8): an 11×11 Gaussian window of σ = 1.5, population statistics, C₁ = (0.01·255)²,
    C₂ = (0.03·255)², averaged over the positions where the window lies inside the image.

    Parameters, errors: as for `psnr`. With ``channel="rgb"``, the mean over the three colours. Both sides must have at
    least 11 pixels once the border is cut.
    """
    x, y = _prepare(image, reference, border, channel, quantize)
    if min(x.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(
            f"SSIM needs at least {_SSIM_WINDOW}×{_SSIM_WINDOW} pixels, got {x.shape[-2]}×{x.shape[-1]} after the border is cut"
        )
    rows = x.shape[-2] - _SSIM_WINDOW + 1
    # In strips of about 30,000 pixels: they stay in the cache, and below the size at which torch wakes more threads.
    strip = max(32, 30_000 // x.shape[-1] - _SSIM_WINDOW)
    maps = [
        _ssim_map(x[..., top : top + strip + _SSIM_WINDOW - 1, :], y[..., top : top + strip + _SSIM_WINDOW - 1, :])
        for top in range(0, rows, strip)
    ]
    return torch.cat(maps, dim=-2).mean().item()


def _prepare(image, reference, border, channel, quantize) -> tuple[torch.Tensor, torch.Tensor]:
    """Both images as (N, C, H, W) in float64: as saved, in the channels to compare, without the border."""
    if channel not in ("y", "rgb"):
        raise ValueError(f"channel is {channel!r}: expected 'y' or 'rgb'")
    images.check(image)
    images.check(reference, name="reference", margin=0.5)
    if image.shape != reference.shape:
        raise ValueError(f"the image has shape {tuple(image.shape)} and the reference {tuple(reference.shape)}: expected equal shapes")
    if image.ndim > 4 or image.shape[-3] not in (1, 3):
        raise ValueError(f"expected images (3, H, W) or (N, 3, H, W), got shape {tuple(image.shape)}")
    prepared = []
    for one in (image, reference):
        one = images.crop_border(one.detach(), border)
        one = (images.quantize(one.double()) if quantize else one.double()).reshape(-1, *one.shape[-3:])
        prepared.append(images.rgb_to_y(one) if channel == "y" and one.shape[1] == 3 else one)
    return prepared[0], prepared[1]


def _ssim_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """SSIM at every valid window position: (N, C, H, W) → (N, C, H-10, W-10)."""
    mean_x, mean_y = _gaussian_valid(x), _gaussian_valid(y)
    mean_product, mean_squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = _gaussian_valid(x * y) - mean_product
    variances = _gaussian_valid(x.square() + y.square()) - mean_squares  # only their sum is needed
    luminance = (2 * mean_product + _C1) / (mean_squares + _C1)
    structure = (2 * covariance + _C2) / (variances + _C2)
    return luminance * structure


def _gaussian_valid(maps: torch.Tensor) -> torch.Tensor:
    """The window's weighted mean along both axes, as sums of shifted copies: on a CPU far faster than conv2d."""
    radius = _SSIM_WINDOW // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    weights = (weights / weights.sum()).tolist()
    for axis in (-2, -1):
        length = maps.shape[axis] - 2 * radius
        total = maps.narrow(axis, radius, length) * weights[radius]
        for k in range(radius):
            total.add_(maps.narrow(axis, k, length), alpha=weights[k])
            total.add_(maps.narrow(axis, 2 * radius - k, length), alpha=weights[k])
        maps = total
    return maps
