"""Upscaling without learning, in the form of a network: the baselines of every table."""

import torch
from torch import nn

from srcourse.resize import resize_bicubic


class Interpolation(nn.Module):
    """Nearest-neighbour or bicubic enlargement: (…, h, w) → (…, scale·h, scale·w), no parameters.

    Bicubic is MATLAB's, as in `degradation.upscale`.
    """

    def __init__(self, scale: int = 4, method: str = "bicubic"):
        super().__init__()
        if not isinstance(scale, int) or not 2 <= scale <= 8:
            raise ValueError(f"scale is {scale!r}: expected an integer from 2 to 8")
        self.scale, self.method = scale, method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.method == "nearest":
            return x.repeat_interleave(self.scale, dim=-2).repeat_interleave(self.scale, dim=-1)
        return resize_bicubic(x, (x.shape[-2] * self.scale, x.shape[-1] * self.scale))
