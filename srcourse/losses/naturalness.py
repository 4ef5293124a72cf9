"""NIQE as a loss: the same features, made so that a gradient can pass (Mittal et al. 2013; P002 §5 measures with NIQE).

The metric finds the shape of each distribution in a table, which has no gradient. Here the shape is the exact root of
the same equation, and its derivative follows from the equation (implicit function theorem). A warning that lesson 06
shows: a generator can lower this number without making a better image.
"""

import os

import torch
import torch.nn.functional as F
from torch import nn

from srcourse import images
from srcourse.metrics.niqe import BLOCK, block_features, load_pristine, local_mean, shape_table

_FLAT = 1e-4  # coefficients below it are rounding noise in float32, and count as zero
_EPSILON = 1e-4  # grey levels squared, under a root whose slope would be infinite at zero


class NaturalnessLoss(nn.Module):
    """NIQE's distance from the pristine model: (N, 3, H, W) in [0, 1] → a number ≥ 0, lower is more natural.

    Parameters
    ----------
    pristine : "course", "official" or path
        As in `metrics.NIQE`.
    block : int
        Side of the blocks in pixels, even; NIQE's is 96. Smaller ones fit small patches, but then the pristine model,
        which was fitted on blocks of 96, is only roughly right.
    pool : "batch" or "image"
        One distance for the blocks of all images together, so that patches of a single block will do; or each image's
        own, averaged, as the metric has it.

    Raises
    ------
    ValueError
        In `forward`, if there are fewer than two blocks to pool.

    Notes
    -----
    Not rounded to 8 bits, and float32 but for the fits, which take float64. For one image it is NIQE up to a few
    per cent.
    """

    def __init__(self, pristine: str | os.PathLike = "course", *, block: int = BLOCK, pool: str = "batch"):
        super().__init__()
        if block < 16 or block % 2:
            raise ValueError(f"block is {block}: expected an even number of pixels, at least 16")
        if pool not in ("batch", "image"):
            raise ValueError(f"pool is {pool!r}: expected 'batch' or 'image'")
        self.block, self.pool = block, pool
        mean, covariance = load_pristine(pristine)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("covariance", covariance, persistent=False)

    def forward(self, sr: torch.Tensor) -> torch.Tensor:
        if sr.ndim != 4 or sr.shape[1] != 3:
            raise ValueError(f"the images have shape {tuple(sr.shape)}: expected (N, 3, H, W)")
        rows, columns = sr.shape[-2] // self.block, sr.shape[-1] // self.block
        if rows * columns * (len(sr) if self.pool == "batch" else 1) < 2:
            raise ValueError(f"{tuple(sr.shape[-2:])} pixels hold fewer than two blocks of {self.block}: enlarge patches or batch")
        exact = sr if sr.dtype == torch.float64 else sr.float()
        luma = images.rgb_to_y(exact)[:, 0, : rows * self.block, : columns * self.block] * 255  # (N, H, W)
        features, _ = block_features(luma, block=self.block, normalise=smooth_mscn, fit=smooth_aggd)  # (N, blocks, 36)
        groups = [features.flatten(0, 1)] if self.pool == "batch" else list(features)
        return torch.stack([self._distance(group) for group in groups]).mean().to(exact.dtype)

    def _distance(self, rows: torch.Tensor) -> torch.Tensor:
        difference = self.mean.to(rows) - rows.mean(dim=0)
        pooled = (self.covariance.to(rows) + torch.cov(rows.T)) / 2  # of full rank, because the pristine one is
        return (difference @ torch.linalg.solve(pooled, difference)).sqrt()


def smooth_mscn(luma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`metrics.niqe.mscn` with a gradient everywhere: (N, H, W) in grey levels → coefficients and deviation."""
    centred = luma - 128  # so that float32 loses little where squares are subtracted
    mean = local_mean(centred)
    deviation = ((local_mean(centred * centred) - mean * mean).clamp(min=0) + _EPSILON).sqrt()
    return F.hardshrink((centred - mean) / (deviation + 1), _FLAT), deviation


def smooth_aggd(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`metrics.niqe.aggd` with a gradient: (..., n) samples → shape, left and right scale, (...,) each, in float64."""
    size, sign = samples.abs(), samples.sign()
    moments = [size.mean(-1), (samples * samples).mean(-1), (samples * size).mean(-1), sign.mean(-1), (sign * sign).mean(-1)]
    if samples.device.type != "mps":  # which has no float64
        moments = [moment.double() for moment in moments]
    size, square, signed, more, count = moments
    tiny = torch.finfo(square.dtype).tiny ** 0.5
    left = ((square - signed).clamp(min=0) / (count - more).clamp(min=tiny) + tiny).sqrt()
    right = ((square + signed).clamp(min=0) / (count + more).clamp(min=tiny) + tiny).sqrt()
    balance = left / right
    ratio = size.square() / (square + tiny) * (balance**3 + 1) * (balance + 1) / (balance**2 + 1).square()
    shape = shape_of_ratio(ratio)
    factor = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, left * factor, right * factor


def shape_of_ratio(ratio: torch.Tensor) -> torch.Tensor:
    """The α with Γ(2/α)²/(Γ(1/α)Γ(3/α)) = ratio, between 0.2 and 10, and its derivative; same shape as `ratio`."""
    table, shapes, _ = (t.to(ratio) for t in shape_table())
    inside = ratio.clamp(table[0], table[-1])
    with torch.no_grad():
        shape = shapes[torch.searchsorted(table, inside.detach().contiguous()).clamp(max=len(table) - 1)]
        for _ in range(3):  # Newton's method, from half a step of the table away at most
            value, slope = _ratio_and_slope(shape)
            shape = (shape - (value - inside) / slope).clamp(0.2, 10)
        value, slope = _ratio_and_slope(shape)
    return shape + (inside - value) / slope  # the last step carries the gradient: dα/dratio = 1/slope


def _ratio_and_slope(shape: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    one, two, three = (torch.lgamma(k / shape) for k in (1, 2, 3))
    value = torch.exp(2 * two - one - three)
    bend = torch.digamma(1 / shape) - 4 * torch.digamma(2 / shape) + 3 * torch.digamma(3 / shape)
    return value, value * bend / shape.square()
