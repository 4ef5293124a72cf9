"""SRResNet, which is also SRGAN's generator (P001 §3.1 and table 1; Ledig et al. 2017), and the lessons' small one.

Post-upsampling: all the depth works at low resolution, where a 3×3 convolution sees `scale` times as far and costs
1/scale² of what it would at high resolution; only the tail makes pixels.
"""

import torch
from torch import nn

from srcourse.resize import resize_bicubic


class ResidualBlock(nn.Module):
    """x + conv-BN-PReLU-conv-BN(x): what the block learns is a correction (P001 §3.1.1)."""

    def __init__(self, channels: int, norm: bool = True):
        super().__init__()
        layers = [nn.Conv2d(channels, channels, 3, padding=1), nn.PReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        if norm:
            layers.insert(1, nn.BatchNorm2d(channels))
            layers.append(nn.BatchNorm2d(channels))
        self.body = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SRResNet(nn.Module):
    """The generator of P001 §3.1: (N, 3, h, w) in [0, 1] → (N, 3, scale·h, scale·w), not clipped.

    Parameters
    ----------
    scale : 2, 3 or 4
    blocks, channels : int
        Residual blocks and feature channels; P001: 16 and 64.
    norm : bool
        Batch normalisation inside the blocks. False is EDSR's finding (Lim et al. 2017): faster, and often better.
    upsample : str
        How features become pixels:
        "shuffle" (P001), conv to 4× channels, PixelShuffle, PReLU for each ×2; "deconv" (P004 §4.2), a transposed
        convolution for each ×2; "direct", the last convolution itself gives 3·scale² channels that one PixelShuffle
        arranges, so that no convolution runs at high resolution.
    ends : int
        Kernel size of the first and the last convolution; P001: 9.
    bicubic_skip : bool
        Add the bicubic image to the output, so that the network predicts what bicubic lacks. The last convolution then
        starts at zero: training begins at bicubic's quality.

    Notes
    -----
    Every PReLU has one slope. Trainable parameters with the defaults: 1,401,749 (×2), 1,586,389 (×3) and 1,549,462
    (×4), as P001 table 1.
    """

    def __init__(
        self,
        scale: int = 4,
        blocks: int = 16,
        channels: int = 64,
        norm: bool = True,
        upsample: str = "shuffle",
        ends: int = 9,
        bicubic_skip: bool = False,
    ):
        super().__init__()
        if scale not in (2, 3, 4):
            raise ValueError(f"scale is {scale!r}: SRResNet is defined for 2, 3 and 4")
        if blocks < 1 or channels < 1 or ends < 1 or ends % 2 == 0:
            raise ValueError(f"blocks={blocks}, channels={channels}, ends={ends}: expected positive numbers, and an odd kernel size")
        self.scale, self.bicubic_skip = scale, bicubic_skip
        self.head = nn.Sequential(nn.Conv2d(3, channels, ends, padding=ends // 2), nn.PReLU())
        trunk: list[nn.Module] = [ResidualBlock(channels, norm) for _ in range(blocks)]
        trunk.append(nn.Conv2d(channels, channels, 3, padding=1))
        if norm:
            trunk.append(nn.BatchNorm2d(channels))
        self.trunk = nn.Sequential(*trunk)
        self.tail = nn.Sequential(*_tail(scale, channels, upsample, ends))
        if bicubic_skip:
            last = next(m for m in reversed(self.tail) if isinstance(m, nn.Conv2d))
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.head(x)  # (N, C, h, w)
        features = features + self.trunk(features)  # (N, C, h, w)
        image = self.tail(features)  # (N, 3, scale·h, scale·w)
        if self.bicubic_skip:
            image = image + resize_bicubic(x, image.shape[-2:])
        return image


def _tail(scale: int, channels: int, upsample: str, ends: int) -> list[nn.Module]:
    if upsample == "direct":
        return [nn.Conv2d(channels, 3 * scale**2, ends, padding=ends // 2), nn.PixelShuffle(scale)]
    steps = {2: [2], 3: [3], 4: [2, 2]}[scale]
    layers: list[nn.Module] = []
    for step in steps:
        if upsample == "shuffle":
            layers += [nn.Conv2d(channels, channels * step**2, 3, padding=1), nn.PixelShuffle(step), nn.PReLU()]
        elif upsample == "deconv":  # a kernel of twice the stride: every output pixel mixes two inputs along each axis
            layers.append(nn.ConvTranspose2d(channels, channels, 2 * step, step, padding=(step + 1) // 2, output_padding=step % 2))
            layers.append(nn.PReLU())
        else:
            raise ValueError(f"upsample is {upsample!r}: expected 'shuffle', 'deconv' or 'direct'")
    return [*layers, nn.Conv2d(channels, 3, ends, padding=ends // 2)]


def srresnet_small(scale: int = 4, blocks: int = 4, channels: int = 32) -> SRResNet:
    """The lessons' network: SRResNet without BN, predicting the residual to bicubic, all at low resolution.

    98,005 parameters at ×4. It passes bicubic within seconds of training on a laptop's CPU, which the published network
    does not in an hour: the same idea, made to fit a lesson.
    """
    return SRResNet(scale, blocks, channels, norm=False, upsample="direct", ends=3, bicubic_skip=True)
