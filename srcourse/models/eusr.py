"""EUSR: one network for ×2, ×4 and ×8 (P002 §3.1, figure 3), and three roads to ×4 through it (§3.2, figure 4)."""

import math
import reprlib
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.resize import resize_bicubic

_MEAN = (114.4, 111.5, 103.0)  # of DIV2K's colours, in 8-bit levels
ROADS = ("×4", "×2·×2", "×8·½")


class LocalResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))): (N, C, h, w) → (N, C, h, w), an identity when training begins."""

    def __init__(self, channels: int, kernel: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2)
        for conv in (self.conv1, self.conv2):
            std = math.sqrt(1.3e-4 / 62 / (channels * kernel**2))  # the authors' code
            nn.init.trunc_normal_(conv.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class ResidualModule(nn.Module):
    """`blocks` local residual blocks and a convolution, plus the input: (N, C, h, w) → (N, C, h, w)."""

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.body = nn.Sequential(*[LocalResidualBlock(channels, 3) for _ in range(blocks)], _conv(channels, channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class EnhancedUpscaling(nn.Module):
    """One step of ×2: (N, C, h, w) → (N, C, 2h, 2w), each of four chained residual modules making one pixel of every 2×2.

    The first trap of this network: the modules stand in a chain, each refining the one before, not side by side. The
    second: their outputs are the four phases of each channel, so the channels stay together. A plain concatenation before
    the pixel shuffle would mix channels and phases.
    """

    def __init__(self, channels: int, blocks: int):
        super().__init__()
        self.modules_in_chain = nn.ModuleList(ResidualModule(channels, blocks) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        phases = []
        for module in self.modules_in_chain:
            x = module(x)
            phases.append(x)
        stacked = torch.stack(phases, dim=2).flatten(1, 2)  # (N, C, 4, h, w) → (N, 4C, h, w)
        return F.pixel_shuffle(stacked, 2)  # phase i of channel c goes to pixel (i // 2, i % 2)


class EUSR(nn.Module):
    """P002 §3.1: (N, 3, h, w) in [0, 1] → (N, 3, s·h, s·w), not clipped, for each s of `scales`.

    Every scale has its own first features, its own upscaling and its own last convolution; between them, 32 residual
    blocks are shared by all. The mean colour is subtracted first and added last; no BN, and ReLU within the blocks alone.

    Parameters
    ----------
    scale : int
        The one that ``forward(x)`` takes, and that `upscale` and `evaluate` see; another: ``forward(x, 2)`` or ``at(2)``.
    scales : sequence of int
        From 2, 4, 8.
    channels, blocks, upscaling_blocks : int
        Feature channels; local residual blocks that are shared, and in each residual module of the upscaling. P002: 64, 32, 1.
    bicubic_skip : bool
        Add the bicubic image at the end, instead of the mean colour, and begin from it: a small network then learns within minutes.

    Notes
    -----
    Trainable parameters: 6,295,689; with ×2, ×4 or ×8 alone 3,256,835, 3,699,971 and 4,143,107.
    """

    def __init__(
        self,
        scale: int = 4,
        scales: Sequence[int] = (2, 4, 8),
        channels: int = 64,
        blocks: int = 32,
        upscaling_blocks: int = 1,
        bicubic_skip: bool = False,
    ):
        super().__init__()
        given, scales = scales, tuple(scales) if isinstance(scales, Iterable) else ()
        if not scales or any(type(s) is not int or s not in (2, 4, 8) for s in scales) or len(set(scales)) < len(scales):
            raise ValueError(f"scales={reprlib.repr(scales or given)}: expected some of 2, 4 and 8, each once")
        if scale not in scales:
            raise ValueError(f"scale is {scale!r}: expected one of scales={scales}")
        if min(channels, blocks, upscaling_blocks) < 1:
            raise ValueError(f"channels={channels}, blocks={blocks}, upscaling_blocks={upscaling_blocks}: expected at least 1")
        self.scale, self.scales, self.bicubic_skip = scale, scales, bicubic_skip
        self.head = _conv(3, channels)
        self.scale_features = nn.ModuleDict({str(s): nn.Sequential(*[LocalResidualBlock(channels, 5) for _ in range(2)]) for s in scales})
        self.shared = ResidualModule(channels, blocks)
        self.upscaling = nn.ModuleDict(
            {str(s): nn.Sequential(*[EnhancedUpscaling(channels, upscaling_blocks) for _ in range(s.bit_length() - 1)]) for s in scales}
        )
        self.to_image = nn.ModuleDict({str(s): _conv(channels, 3) for s in scales})
        if bicubic_skip:
            for conv in self.to_image.values():
                nn.init.zeros_(conv.weight)
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1) / 255, persistent=False)

    def forward(
        self, x: torch.Tensor, scale: int | None = None, *, multipass: bool = False, decimate: bool = False
    ) -> torch.Tensor | list[torch.Tensor]:
        if multipass:  # all passes within one call, so that a wrapper for several processes sees each parameter's use
            return [self.take(x, road, decimate) for road in ROADS]
        return self._upscale(x, self.scale if scale is None else scale)

    def multipass(self, x: torch.Tensor, decimate: bool = False) -> list[torch.Tensor]:
        """Three images of (N, 3, 4h, 4w): G(x, 4); G(G(x, 2), 2); and G(x, 8) made half as large (P002 §3.2, figure 4).

        Halving is antialiased bicubic, as the paper says. `decimate` takes every second pixel instead, as the authors'
        program did: it aliases, and moves the image by a quarter of a pixel.
        """
        return self(x, multipass=True, decimate=decimate)

    def at(self, scale: int) -> nn.Module:
        """This network at one of its scales, sharing its weights: what `upscale` and `evaluate` take."""
        self._check(scale)
        return _View(self, scale)

    def roads(self, decimate: bool = False) -> dict[str, nn.Module]:
        """The three ways to ×4, "×4", "×2·×2" and "×8·½", each as a network that shares these weights."""
        return {road: _View(self, 4, road, decimate) for road in ROADS}

    def take(self, x: torch.Tensor, road: str, decimate: bool = False) -> torch.Tensor:
        """One of the `ROADS`: (N, 3, h, w) → (N, 3, 4h, 4w)."""
        if road == "×4":
            return self._upscale(x, 4)
        if road == "×2·×2":
            return self._upscale(self._upscale(x, 2), 2)
        eight = self._upscale(x, 8)
        return eight[..., ::2, ::2] if decimate else resize_bicubic(eight, (4 * x.shape[-2], 4 * x.shape[-1]))

    def _upscale(self, x: torch.Tensor, scale: int) -> torch.Tensor:
        self._check(scale)
        key = str(scale)
        features = self.head(x - self.mean)  # (N, C, h, w)
        features = self.shared(self.scale_features[key](features))
        image = self.to_image[key](self.upscaling[key](features))  # (N, 3, s·h, s·w)
        if self.bicubic_skip:
            return image + resize_bicubic(x, (scale * x.shape[-2], scale * x.shape[-1]))
        return image + self.mean

    def _check(self, scale: int) -> None:
        if type(scale) is not int or scale not in self.scales:
            raise ValueError(f"this EUSR has no path for scale {scale!r}: expected one of {self.scales}")


class _View(nn.Module):
    """One way through an EUSR, as a network of one scale."""

    def __init__(self, network: EUSR, scale: int, road: str | None = None, decimate: bool = False):
        super().__init__()
        self.network, self.scale, self.road, self.decimate = network, scale, road, decimate
        self.training = network.training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x, self.scale) if self.road is None else self.network.take(x, self.road, self.decimate)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.xavier_uniform_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv
