"""The recursive residual cascade of P003 §2.3: enlarged stage by stage, with few weights used many times."""

import reprlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.resize import resize_bicubic


class RecursiveBlock(nn.Module):
    """u₀ = x, u_{t+1} = conv(ReLU(conv(ReLU(u_t)))) + u₀ with the same two convolutions each time (P003 §2.3.2, figure 4 (4)).

    (N, C, h, w) → (N, C, h, w). Depth grows with `recursions`, parameters do not.
    """

    def __init__(self, channels: int, recursions: int):
        super().__init__()
        self.recursions = recursions
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = x
        for _ in range(self.recursions):
            u = self.conv2(F.relu(self.conv1(F.relu(u)))) + x
        return u


class Stage(nn.Module):
    """One stage: features and image of the previous one → enlarged features, and their image as a correction.

    A step of 2 convolves and shuffles pixels, and adds to the bicubic image; any other step (P003's 1.5 and 4/3) resizes
    features and image bilinearly, then convolves.
    """

    def __init__(self, channels: int, recursions: int, twice: bool):
        super().__init__()
        self.body = RecursiveBlock(channels, recursions)
        self.enlarge = nn.Conv2d(channels, 4 * channels if twice else channels, 3, padding=1)
        self.to_image = nn.Conv2d(channels, 3, 3, padding=1)
        self.twice = twice

    def forward(self, features: torch.Tensor, image: torch.Tensor, size: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.body(features)
        if self.twice:
            features = F.pixel_shuffle(self.enlarge(features), 2)
            image = resize_bicubic(image, size)
        else:
            features = self.enlarge(F.interpolate(features, size, mode="bilinear", align_corners=False))
            image = F.interpolate(image, size, mode="bilinear", align_corners=False)
        return features, image + self.to_image(features)


class RecursiveCascade(nn.Module):
    """P003's generator: (N, 3, h, w) in [0, 1] → (N, 3, scale·h, scale·w), not clipped; every stage's image on request.

    Parameters
    ----------
    scale : int
        A power of two without `stages`: 2, 4 or 8, a stage for each doubling.
    channels, recursions : int
        Feature channels, and U, how often each stage's block is applied. Open in the paper: 64 and 9.
    stages : sequence of int, optional
        The enlargement after each stage, increasing up to `scale`; P003's example of three: (2, 3, 4).
    share : bool
        All stages use the same weights; their steps must then be of one kind.

    Notes
    -----
    No BN. Trainable parameters at ×4: 448,390; 225,091 with shared weights. Open in the paper: the width, U, what passes
    between stages (here features and image), and whether stages share weights.
    """

    def __init__(self, scale: int = 4, channels: int = 64, recursions: int = 9, stages: Sequence[int] | None = None, share: bool = False):
        super().__init__()
        if stages is None and scale not in (2, 4, 8):
            raise ValueError(f"scale is {scale!r}: expected 2, 4 or 8, or stages=(…) that lead to it")
        stages = tuple(s for s in (2, 4, 8) if s <= scale) if stages is None else tuple(stages)
        before = (1, *stages[:-1])
        if not stages or stages[-1] != scale or any(not isinstance(s, int) or s <= b for s, b in zip(stages, before, strict=True)):
            raise ValueError(f"stages={reprlib.repr(stages)}: expected growing integers that end at the scale, {scale}")
        if channels < 1 or not 1 <= recursions <= 1000:
            raise ValueError(f"channels={channels}, recursions={recursions}: expected at least 1, and at most 1000 recursions")
        doubling = [s == 2 * b for s, b in zip(stages, before, strict=True)]
        if share and len(set(doubling)) > 1:
            raise ValueError(f"stages={stages} with share=True: stages that share weights must all double, or none")
        self.scale, self.enlargements = scale, stages
        self.head = nn.Conv2d(3, channels, 3, padding=1)
        self.stages = nn.ModuleList(Stage(channels, recursions, twice) for twice in (doubling[:1] if share else doubling))

    def forward(self, x: torch.Tensor, return_stages: bool = False) -> torch.Tensor | list[torch.Tensor]:
        height, width = x.shape[-2:]
        features, image, images = self.head(x), x, []
        for i, enlargement in enumerate(self.enlargements):
            stage = self.stages[i % len(self.stages)]  # the only one, where weights are shared
            features, image = stage(features, image, (enlargement * height, enlargement * width))
            images.append(image)
        return images if return_stages else image
