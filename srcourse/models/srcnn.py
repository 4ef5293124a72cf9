"""SRCNN and FSRCNN (Dong et al. 2014 and 2016): the first networks of the field, small baselines of P000 and P003."""

import torch
from torch import nn

from srcourse.resize import resize_bicubic


class SRCNN(nn.Module):
    """Pre-upsampling (P001 §2.1): bicubic first, then convolutions 9-1-5 with 64 and 32 channels repair it.

    (N, C, h, w) in [0, 1] → (N, C, scale·h, scale·w), not clipped. Zero padding keeps the size, where the authors'
    loses a border (open).

    Parameters
    ----------
    scale : int, 2–8
    image_channels : 3, or 1 for luma alone
        The published network is the one-channel one: 8,032 weights (and 97 biases). In colour: 20,099 parameters.
    """

    def __init__(self, scale: int = 4, image_channels: int = 3):
        super().__init__()
        _check(scale, image_channels)
        self.scale = scale
        self.body = nn.Sequential(
            nn.Conv2d(image_channels, 64, 9, padding=4),  # patches to features
            nn.ReLU(),
            nn.Conv2d(64, 32, 1),  # non-linear mapping
            nn.ReLU(),
            nn.Conv2d(32, image_channels, 5, padding=2),  # reconstruction
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(resize_bicubic(x, (x.shape[-2] * self.scale, x.shape[-1] * self.scale)))


class FSRCNN(nn.Module):
    """Post-upsampling made small: an hourglass at low resolution, then one transposed convolution.

    (N, C, h, w) in [0, 1] → (N, C, scale·h, scale·w), not clipped. Convolution 5 to `features` channels, 1×1 down to
    `shrunk`, `mappings` 3×3 ones, 1×1 up again, transposed convolution 9 with stride `scale`; a PReLU with a slope per
    channel after each but the last.

    Parameters
    ----------
    scale : int, 2–8
    features, shrunk, mappings : int
        d, s and m of the paper: 56, 12 and 4.
    image_channels : 3, or 1 for luma alone
        The published network is the one-channel one, with 12,464 weights.
    """

    def __init__(self, scale: int = 4, features: int = 56, shrunk: int = 12, mappings: int = 4, image_channels: int = 3):
        super().__init__()
        _check(scale, image_channels)
        self.scale = scale
        layers = [nn.Conv2d(image_channels, features, 5, padding=2), nn.PReLU(features)]
        layers += [nn.Conv2d(features, shrunk, 1), nn.PReLU(shrunk)]
        for _ in range(mappings):
            layers += [nn.Conv2d(shrunk, shrunk, 3, padding=1), nn.PReLU(shrunk)]
        layers += [nn.Conv2d(shrunk, features, 1), nn.PReLU(features)]
        self.body = nn.Sequential(*layers)
        # (h-1)·s - 2·4 + 9 + (s-1) = s·h: exactly scale times the input
        self.deconvolution = nn.ConvTranspose2d(features, image_channels, 9, scale, padding=4, output_padding=scale - 1)
        for module in self.modules():  # the authors' start: He for what a PReLU follows, 0.001 for the deconvolution
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.25)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.deconvolution.weight, std=0.001)
        nn.init.zeros_(self.deconvolution.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deconvolution(self.body(x))


def _check(scale: int, image_channels: int) -> None:
    if not isinstance(scale, int) or not 2 <= scale <= 8:
        raise ValueError(f"scale is {scale!r}: expected an integer from 2 to 8")
    if image_channels not in (1, 3):
        raise ValueError(f"image_channels is {image_channels!r}: expected 1 or 3")
