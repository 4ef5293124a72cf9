"""The multi-scale feature mapping network of P000 §3.1 and figure 3: a U whose three skips are networks of their own.

Names and order are the figure's: encoder E1…E7, feature mappings M1…M3, decoder D1…D7; h is the LR image's side.
"""

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.resize import resize_bicubic


class MSFM(nn.Module):
    """P000's generator: (N, 3, h, w) in [0, 1] → (N, 3, scale·h, scale·w), not clipped.

    Parameters
    ----------
    scale : 2, 3 or 4
        ×4 enlarges in each mapping by two PixelShuffles of 2, ×2 by (2, 1), ×3 by (3, 1).
    channels : int
        C, the channels of E1; P000: 64.
    bicubic_skip : bool
        Add the bicubic image to the output, as in `SRResNet`; the last convolution then starts at zero. P000: no.

    Notes
    -----
    23 convolutions with ReLU after each but the last, no BN (§3.1.3), MSRA initialisation. Trainable parameters at ×4:
    11,760,515 for C = 64 and 2,949,571 for C = 32; for C = 64 also 9,436,739 at ×2 and 13,309,699 at ×3.
    The first and last kernels are 9×9 here: the paper's text says only that they are not 3×3 (its figure 3 has the sizes).

    Narrow ones do not stand high learning rates: with 8 channels and `bicubic_skip`, Adam at 2e-3 silences the last ReLUs within
    30 steps, and the output stays bicubic.

    Sides that are no multiples of 4 are padded by reflection and cropped after. Tiles of `upscale` should begin at
    multiples of 4 too, or the poolings fall on other pixels: the default overlap and any such tile do.
    """

    def __init__(self, scale: int = 4, channels: int = 64, bicubic_skip: bool = False):
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale is {scale!r}: MSFM is defined for 2, 3 and 4")
        if channels < 1:
            raise ValueError(f"channels is {channels}: expected at least 1")
        self.scale, self.bicubic_skip = scale, bicubic_skip
        c, factors = channels, {2: (2, 1), 3: (3, 1), 4: (2, 2)}[scale]
        self.encoder1 = nn.Sequential(_conv(3, c, 9), _conv(c, c))
        self.encoder2 = nn.Sequential(nn.MaxPool2d(2), _conv(c, 2 * c), _conv(2 * c, 2 * c))
        self.encoder3 = nn.Sequential(nn.MaxPool2d(2), _conv(2 * c, 4 * c), _conv(4 * c, 4 * c), _conv(4 * c, 4 * c))
        self.mapping1, self.mapping2, self.mapping3 = (_mapping(width, factors) for width in (c, 2 * c, 4 * c))
        self.decoder1 = nn.Sequential(_conv(4 * c, 4 * c), _conv(4 * c, 4 * c), _conv(4 * c, 8 * c), nn.PixelShuffle(2))
        self.decoder2 = nn.Sequential(_conv(4 * c, 2 * c), _conv(2 * c, 4 * c), nn.PixelShuffle(2))
        self.decoder3 = nn.Sequential(_conv(2 * c, c), nn.Conv2d(c, 3, 9, padding=4))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):  # "MSRA" (He et al. 2015), P000 §4.1
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)
        if bicubic_skip:
            nn.init.zeros_(self.decoder3[-1].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        padded = _pad_to_multiple_of_4(x)
        skip1 = self.encoder1(padded)  # (N, C, h, w)
        skip2 = self.encoder2(skip1)  # (N, 2C, h/2, w/2)
        skip3 = self.encoder3(skip2)  # (N, 4C, h/4, w/4)
        features = self.decoder1(self.mapping3(skip3))  # (N, 2C, scale·h/2, scale·w/2)
        features = self.decoder2(torch.cat([features, self.mapping2(skip2)], dim=1))  # (N, C, scale·h, scale·w)
        image = self.decoder3(torch.cat([features, self.mapping1(skip1)], dim=1))  # (N, 3, scale·h, scale·w)
        image = image[..., : self.scale * height, : self.scale * width]
        return image + resize_bicubic(x, image.shape[-2:]) if self.bicubic_skip else image


def _conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU())


def _mapping(channels: int, factors: tuple[int, int]) -> nn.Sequential:
    """M: LR features to HR features, one convolution and two sub-pixel convolutions (§3.1.2)."""
    layers = [_conv(channels, channels)]
    for factor in factors:
        layers += [_conv(channels, channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(*layers)


def _pad_to_multiple_of_4(x: torch.Tensor) -> torch.Tensor:
    bottom, right = -x.shape[-2] % 4, -x.shape[-1] % 4
    if not (bottom or right):
        return x
    mirrored = bottom < x.shape[-2] and right < x.shape[-1]  # a mirror needs more pixels than it adds
    return F.pad(x, (0, right, 0, bottom), mode="reflect" if mirrored else "replicate")
