"""Pixelwise losses, of one image and of all stages of a cascade."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from srcourse.resize import resize_bicubic

PIXELWISE = {
    "l1": F.l1_loss,  # mean |SR - HR|: less averse to single large errors, EDSR's choice
    "mse": F.mse_loss,  # mean (SR - HR)²: what PSNR measures, P001 equation 2, P000 equation 3
}


def multi_stage_loss(
    stages: Sequence[torch.Tensor], hr: torch.Tensor, criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = F.mse_loss
) -> torch.Tensor:
    """The sum over a cascade's stages of `criterion` between its image and HR at its size (P003 §2.3.1 and equation 2).

    Parameters
    ----------
    stages : sequence of (N, 3, h_i, w_i) tensors
        Each stage's image; one of them for a network without stages: then this is ``criterion(sr, hr)``.
    hr : (N, 3, H, W) tensor in [0, 1]
        Shrunk by antialiased bicubic interpolation to each smaller size.
    criterion : function of two (N, 3, h_i, w_i) tensors, giving a number
        P003: the mean squared error.
    """
    total = hr.new_zeros(())
    for image in stages:
        total = total + criterion(image.float(), _shrink(hr, image.shape[-2:]))
    return total


def _shrink(hr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    if hr.shape[-2:] == size:
        return hr
    if hr.shape[-2] % size[0] == 0 and hr.shape[-1] % size[1] == 0:
        return resize_bicubic(hr, size)
    return F.interpolate(hr, size, mode="bicubic", antialias=True)  # three quarters, say: PyTorch's, with the same kernel
