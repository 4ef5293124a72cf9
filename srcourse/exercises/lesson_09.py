"""Checks of lesson 09: counting what is shared, the local residual block, four phases, halving, the score loss, weights."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse import losses
from srcourse.exercises.blocks import convolutions, draw_weights, same_block
from srcourse.exercises.checking import (
    CUT,
    Exercise,
    Mistake,
    Wrong,
    call,
    close,
    differs,
    one_of,
    require,
    same_function,
    same_gradient,
    show,
    value_near,
)
from srcourse.exercises.comparing import other_layers
from srcourse.models.eusr import LocalResidualBlock

# --- 09.1: the parameters of ×2 and ×4 ----------------------------------------------------------------------------

_HEAD, _FEATURES, _SHARED, _UPSCALING, _IMAGE = 1_792, 409_856, 2_400_320, 443_136, 1_731


def eusr_size(features: int = 2, steps: int = 3, images: int = 2, trunks: int = 1, heads: int = 1) -> int:
    """Parameters of an EUSR with so many of each part; by default with the paths ×2 and ×4."""
    return heads * _HEAD + features * _FEATURES + trunks * _SHARED + steps * _UPSCALING + images * _IMAGE


_SIZES = (
    Mistake(
        eusr_size(trunks=2, heads=2), "That is two networks. What both paths share is there once: the first convolution and the trunk."
    ),
    Mistake(eusr_size(trunks=2), "The shared residual blocks are there once, not once for each path."),
    Mistake(eusr_size(heads=2), "Both paths share the first convolution."),
    Mistake(eusr_size(steps=2), "One module enlarges by 2: ×4 takes two of them, and ×2 has one of its own."),
    Mistake(eusr_size(steps=5), "×4 takes two modules, since 2·2 = 4, not four."),
    Mistake(eusr_size(steps=6), "×4 takes two modules, since 2·2 = 4, not four or five."),
    Mistake(eusr_size(steps=4), "×4 takes two modules, since 2·2 = 4, not three."),
    Mistake(eusr_size(features=1), "Each path has scale-aware features of its own."),
    Mistake(eusr_size(images=1), "Each path has a last convolution of its own."),
    Mistake(eusr_size(trunks=0), "The shared residual blocks are missing."),
    Mistake(eusr_size(heads=0), "The first convolution is missing."),
    Mistake(eusr_size(features=3, steps=6, images=3), "That is the whole network, with the path for ×8."),
)

# --- 09.2: the local residual block -------------------------------------------------------------------------------


def _block(
    order: str = "inside",
    skip: bool = True,
    convolutions: int = 2,
    kernel: int | None = None,
    padding: int | None = None,
    bias: bool = True,
) -> type[nn.Module]:
    """P002's local residual block, or one with a fault."""

    class Block(nn.Module):
        def __init__(self, channels: int, size: int):
            super().__init__()
            size = kernel or size
            pad = size // 2 if padding is None else padding
            self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, size, padding=pad, bias=bias) for _ in range(convolutions))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = F.relu(x) if order == "first" else x
            for i, conv in enumerate(self.convolutions):
                y = conv(y)
                if order != "none" and (i + 1 < len(self.convolutions) or order == "each"):
                    y = F.relu(y)
            y = x + y if skip else y
            return F.relu(y) if order == "after the sum" else y

    return Block


_UNPADDED = "Only a padding of kernel // 2 keeps the size, whatever the kernel: 1 for 3×3, 2 for 5×5."
_BLOCKS = (
    Mistake(_block(order="after the sum"), "No ReLU after the sum: it would cut off the negative half of what the skip carries."),
    Mistake(_block(skip=False), "The input is missing: the block adds to x what its convolutions find."),
    Mistake(_block(order="each"), "No ReLU after the second convolution: the block must be able to subtract from x, too."),
    Mistake(_block(order="first"), "The ReLU stands between the two convolutions alone, not before the first."),
    Mistake(_block(order="none"), "Without a ReLU between them, two convolutions are one."),
    Mistake(_block(convolutions=1), "There are two convolutions in a block."),
    Mistake(_block(convolutions=3), "There are two convolutions in a block."),
    Mistake(_block(kernel=3), "The kernel's size is an argument: the scale-aware features use 5×5."),
    Mistake(_block(padding=1), _UNPADDED),
    Mistake(_block(padding=0), _UNPADDED),
    Mistake(_block(bias=False), "Both convolutions have a bias."),
)


def _check_block(answer: Any) -> None:
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    require(is_class, f"expected a class of modules, got {show(answer)}", "Pass the class itself, without calling it.")
    require(not issubclass(answer, LocalResidualBlock), "that is srcourse's own block", "Write one of yours: two convolutions and a sum.")
    random = torch.Generator().manual_seed(0)
    for channels, kernel, size in ((2, 3, (1, 5, 5)), (2, 5, (1, 6, 6)), (5, 3, (2, 5, 8))):
        where = f"with channels={channels}, kernel={kernel}"
        block, reference = call(answer, channels, kernel), LocalResidualBlock(channels, kernel)
        require(isinstance(block, nn.Module), f"{where}: got {show(block)}, expected a module")
        different = other_layers(block, reference, [nn.Conv2d])
        if different:
            hint = _BLOCKS[5].hint if len(convolutions(block)) != 2 else _BLOCKS[-1 if "bias" in different else 7].hint
            raise Wrong(f"{where}: {different}", hint)
        count, wanted = (sum(p.numel() for p in b.parameters()) for b in (block, reference))
        require(count == wanted, f"{where}: {count} parameters, expected {wanted}", "Nothing but the two convolutions learns.")
        draw_weights(block, random, 0.5)
        x = torch.randn(size[0], channels, *size[1:], generator=random)
        faults = ((m, m.answer(channels, kernel)) for m in _BLOCKS[:5])
        same_block(block, reference, x, faults, where=where, unpadded=_UNPADDED)


# --- 09.3: four phases --------------------------------------------------------------------------------------------


def assemble(phases: list[torch.Tensor]) -> torch.Tensor:
    """Four (N, C, h, w) → (N, C, 2h, 2w): phase i goes to pixel (i // 2, i % 2) of every 2×2."""
    return F.pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), 2)


def _concatenated(phases: list[torch.Tensor]) -> torch.Tensor:
    return F.pixel_shuffle(torch.cat(phases, 1), 2)


def _quadrants(phases: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([torch.cat(phases[:2], 3), torch.cat(phases[2:], 3)], 2)


_ASSEMBLIES = (
    Mistake(
        _concatenated,
        "pixel_shuffle takes four neighbouring channels for one pixel block. After cat these are four channels of one phase; they "
        "must be the four phases of one channel: stack along a new axis after the channels, then flatten.",
    ),
    Mistake(lambda phases: assemble([phases[i] for i in (0, 2, 1, 3)]), "Phase 1 stands to the right of phase 0, phase 2 below it."),
    Mistake(lambda phases: assemble(phases[::-1]), "The order is turned round: phase 0 is at the top left of every 2×2."),
    Mistake(_quadrants, "Phases interleave: each fills one pixel of every 2×2, not one quarter of the image."),
    Mistake(
        lambda phases: F.pixel_shuffle(torch.stack(phases, 2), 2),
        "One dimension too many: flatten channels and phases into one before the shuffle.",
    ),
    Mistake(lambda phases: torch.cat(phases, 1), "Channels are not pixels yet: pixel_shuffle moves them."),
    Mistake(lambda phases: F.interpolate(sum(phases) / 4, scale_factor=2), "The four phases are four different pixels, not an average."),
    Mistake(lambda phases: assemble([p.detach() for p in phases]), CUT),
)


def _phases() -> list[list[torch.Tensor]]:
    random = torch.Generator().manual_seed(93)
    counted = [torch.arange(2.0).view(1, 2, 1, 1) * 10 + i for i in range(4)]  # channel 0: 0 1 2 3, channel 1: 10 11 12 13
    shapes = ((1, 3, 2, 2), (2, 4, 3, 5))
    return [
        [torch.full((1, 1, 1, 1), float(i)) for i in range(4)],
        counted,
        *([torch.randn(s, generator=random) for _ in range(4)] for s in shapes),
    ]


def _check_assemble(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    for phases in _phases():
        shape = tuple(phases[0].shape)
        expected, got = assemble(phases), call(answer, [p.clone() for p in phases])
        if close(got, expected):
            continue
        hint = next((m.hint for m in _ASSEMBLIES if close(got, m.answer(phases))), "")
        if shape == (1, 2, 1, 1) and isinstance(got, torch.Tensor) and got.numel() == 8:
            got, expected = got.flatten().tolist(), expected.flatten().tolist()
            raise Wrong(f"with phases (0, 10), (1, 11), (2, 12), (3, 13) of two channels: got {got}, expected {expected}", hint)
        raise differs(f"with four phases of shape {shape}", got, expected, hint)
    same_gradient(assemble, lambda: [(_phases()[-1],)])(answer)


# --- 09.4: where a pixel lies -------------------------------------------------------------------------------------


def decimation_shift(factor: int, start: int) -> float:
    """How far to the right the image lies, in pixels of the small one, if every factor-th pixel from `start` on is kept."""
    return ((factor - 1) / 2 - start) / factor


_SHIFTS = (
    Mistake(lambda k, s: -decimation_shift(k, s), "The sign: what is kept from the left of its block is shown too far to the right."),
    Mistake(lambda k, s: (k - 1) / 2 - s, "That is in pixels of the large image; one of the small ones is as wide as `factor` of those."),
    Mistake(lambda k, s: s - (k - 1) / 2, "That is in pixels of the large image, and its sign is turned."),
    Mistake(lambda k, s: (k / 2 - s) / k, "The middle of k pixels numbered 0 … k - 1 is at (k - 1)/2: for two of them at ½, not at 1."),
    Mistake(lambda k, s: (k - 1) / 2 / k, "`start` counts: it says which pixel of the block is kept."),
    Mistake(lambda k, s: decimation_shift(k, s) * k**2, "One small pixel is as wide as `factor` large ones: divide by `factor`."),
    Mistake(
        lambda k, s: (s + 0.5) / k, "That is where the kept pixel lies in its block: how far is the block's middle, at ½, to its right?"
    ),
    Mistake(lambda k, s: decimation_shift(k, s) * k / 2, "Divide by `factor`: it is not always 2."),
    Mistake(lambda k, s: (k // 2 - 0.5 - s) / k, "// cuts off the half of an odd factor: (factor - 1) / 2, with /."),
    Mistake(lambda k, s: ((k - 1) // 2 - s) / k, "// cuts off the half: divide with /."),
    Mistake(lambda k, s: ((k - 1) / 2 - s) // k, "// cuts off the decimals: divide with /."),
    Mistake(lambda k, s: s / k, "Compare the pixel that is kept with the middle of its block, not with the block's edge."),
    Mistake(lambda k, s: abs(decimation_shift(k, s)), "It has a sign: keeping the last pixel of each block moves the image the other way."),
)

# --- 09.5: the score loss -----------------------------------------------------------------------------------------


def score_loss(sr_scores: torch.Tensor, hr_scores: torch.Tensor, alpha: float) -> torch.Tensor:
    """P002 equations 4 and 6."""
    return losses.score_loss(sr_scores, hr_scores, alpha=alpha)


_SCORE_LOSSES = (
    Mistake(lambda s, h, a: F.relu(a * (10 - h) - (10 - s)).mean(), "The sign: the loss grows when the upscaled image's score falls."),
    Mistake(lambda s, h, a: ((10 - s) - a * (10 - h)).mean(), "max(0, …) is missing: an image that is good enough costs nothing."),
    Mistake(
        lambda s, h, a: F.relu(a * (10 - s) - (10 - h)).mean(), "α multiplies the original's distance from a perfect score, not the other."
    ),
    Mistake(lambda s, h, a: F.relu(((10 - s) - a * (10 - h)).mean()), "max(0, …) is taken for each image, then the mean."),
    Mistake(lambda s, h, a: F.relu((10 - s) - a * (10 - h)).sum(), "The mean over the images, not the sum."),
    Mistake(lambda s, h, a: F.relu(a * h - s).mean(), "α multiplies the distance from 10, not the score itself."),
    Mistake(lambda s, h, a: F.relu((10 - s) - 0.8 * (10 - h)).mean(), "Use `alpha`: it is not always 0.8."),
    Mistake(lambda s, h, a: F.softplus((10 - s) - a * (10 - h)).mean(), "F.relu is max(0, …); softplus only comes close to it."),
    Mistake(lambda s, h, a: score_loss(h, s, a), "The two scores are exchanged: the upscaled image's comes first."),
    Mistake(lambda s, h, a: F.relu(h - s).mean(), "α is missing: below 1 it asks for more than the original has."),
    Mistake(lambda s, h, a: F.relu((9 - s) - a * (9 - h)).mean(), "The best score is 10."),
    Mistake(lambda s, h, a: ((10 - s) - a * (10 - h)).abs().mean(), "max(0, …), not the absolute value: being better costs nothing."),
    Mistake(lambda s, h, a: F.relu((10 - s) - a * (10 - h)).square().mean(), "It is not squared."),
    Mistake(lambda s, h, a: score_loss(s.detach(), h, a), CUT),
)


def _scores() -> list[tuple]:
    random = torch.Generator().manual_seed(95)
    cases = [(torch.tensor([5.0]), torch.tensor([8.0]), 0.8), (torch.tensor([9.0]), torch.tensor([5.0]), 0.8)]
    cases += [(torch.tensor([3.0, 9.5]), torch.tensor([6.0, 4.0]), 0.8), (torch.tensor([7.0]), torch.tensor([6.0]), 0.5)]
    return [*cases, *((1 + 9 * torch.rand(5, generator=random), 1 + 9 * torch.rand(5, generator=random), a) for a in (0.8, 1.0, 0.3))]


def _check_score_loss(answer: Any) -> None:
    require(answer is not losses.score_loss, "that is the package's function", "Write it yourself: one line is enough.")
    same_function(score_loss, _scores, _SCORE_LOSSES)(answer)
    same_gradient(score_loss, _scores)(answer)


# --- 09.6: no pixel loss at all -----------------------------------------------------------------------------------

_NO_PIXELS = {
    "a": "Compare the PSNR of your run with bicubic's, not only with that before: so few small steps do not undo a long training.",
    "b": "Compare the fine detail with the originals': by which factor has it grown, and by which factor is it still smaller?",
    "d": "The other losses go on pushing: compare PSNR, fine detail and the judge's score with those before the game.",
}


EXERCISES = [
    Exercise(
        id="09.1",
        title="You can say what a further scale costs, and what it gets for nothing.",
        check=value_near(eusr_size, _SIZES, tolerance=0),
        mistakes=_SIZES,
    ),
    Exercise(
        id="09.2",
        title="You have the block that EUSR is made of.",
        check=_check_block,
        mistakes=_BLOCKS,
        points=2,
    ),
    Exercise(
        id="09.3",
        title="Every phase is in its place, and no channel among the others.",
        check=_check_assemble,
        mistakes=_ASSEMBLIES,
        points=2,
    ),
    Exercise(
        id="09.4",
        title="You know where a pixel lies: a quarter of one is a shift, too.",
        check=same_function(decimation_shift, lambda: [(2, 0), (2, 1), (3, 1), (4, 0), (4, 2), (8, 3)], _SHIFTS, tolerance=1e-6),
        mistakes=_SHIFTS,
        points=2,
    ),
    Exercise(
        id="09.5",
        title="You have the loss that asks for more than the original.",
        check=_check_score_loss,
        mistakes=_SCORE_LOSSES,
        points=2,
    ),
    Exercise(
        id="09.6",
        title="You took the brake off, and measured it.",
        check=one_of("c", _NO_PIXELS),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _NO_PIXELS.items()),
        points=2,
    ),
]
