"""Checks of lesson 03: SRCNN and SRResNet, residual blocks, pixel shuffle, receptive fields, early stopping."""

import itertools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.exercises.blocks import call_block
from srcourse.exercises.checking import Exercise, Mistake, Wrong, call, close, differs, one_of, require, same_function, same_gradient, show
from srcourse.exercises.comparing import other_layers, with_its_weights
from srcourse.models.srresnet import ResidualBlock

# --- predictions ------------------------------------------------------------------------------------------------

_FIRST_SECONDS = {
    "a": "SRCNN must learn even to pass its own input through, and starts far below it; a few seconds are not enough.",
    "b": "Without the bicubic image to add to, the network begins near black and has to learn the whole image.",
    "d": "SRCNN is given the bicubic image, but does not add to it: its random layers must learn to reproduce it first.",
}

_NORM = {
    "a": "Were both trained with the same 30 steps and `bicubic_skip=True`? Compare the means of the three photos.",
    "b": "Look at the second decimal of both means: is their difference above 0.05 dB?",
}

# --- 03.2: the residual block -------------------------------------------------------------------------------------


def _block(
    skip: str = "before", activation: str = "one slope", norm: bool = True, padding: int = 1, order: str = "body"
) -> type[nn.Module]:
    """The published block, or one with a fault."""

    class Block(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            bend = {"one slope": nn.PReLU(), "slope per channel": nn.PReLU(channels), "relu": nn.ReLU()}[activation]
            normalise = nn.BatchNorm2d if norm else lambda _: nn.Identity()
            conv1 = nn.Conv2d(channels, channels, 3, padding=padding)
            conv2 = nn.Conv2d(channels, channels, 3, padding=padding)
            norm1, norm2 = normalise(channels), normalise(channels)
            self.body = nn.Sequential(conv1, norm1, bend, conv2, norm2)
            self.way = {
                "body": self.body,
                "bent first": nn.Sequential(conv1, bend, norm1, conv2, norm2),
                "bent twice": nn.Sequential(conv1, norm1, bend, conv2, norm2, bend),
                "unbent": nn.Sequential(conv1, norm1, conv2, norm2),
                "one conv": nn.Sequential(conv1, norm1, bend, conv1, norm2),
                "one norm": nn.Sequential(conv1, norm1, bend, conv2, norm1),
                "before": nn.Sequential(norm1, bend, conv1, norm2, bend, conv2),
            }[order]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if skip == "none":
                return self.way(x)
            total = x + self.way(x)
            if skip == "activated":
                return self.body[2](total)
            return total.relu() if skip == "relu after" else total

    return Block


_PADDING = "A 3×3 convolution keeps the size with padding=1."
_BLOCKS = (
    Mistake(_block(skip="none"), "The input is not added: return x + body(x)."),
    Mistake(_block(skip="activated"), "Nothing comes after the sum: an activation there would bend the straight way back."),
    Mistake(_block(skip="relu after"), "Nothing comes after the sum: the first residual networks had a ReLU there, SRResNet has none."),
    Mistake(_block(activation="relu"), "Use nn.PReLU() between the convolutions: its slope for negative inputs is learned."),
    Mistake(_block(activation="slope per channel"), "One slope for all channels: nn.PReLU() without an argument."),
    Mistake(_block(norm=False), "A BatchNorm2d belongs after each of the two convolutions."),
    Mistake(_block(padding=0), _PADDING),
    Mistake(_block(order="bent first"), "Batch normalisation comes before the PReLU, directly after the convolution."),
    Mistake(
        _block(order="bent twice"), "There is one PReLU in the block, between its two halves; none follows the second batch normalisation."
    ),
    Mistake(_block(order="unbent"), "The PReLU is defined but not used: it stands after the first batch normalisation."),
    Mistake(_block(order="one conv"), "One convolution is used twice, the other one not at all."),
    Mistake(_block(order="one norm"), "One batch normalisation is used twice, the other one not at all."),
    Mistake(_block(order="before"), "Convolution first, then batch normalisation: each half begins with its convolution."),
)


_KINDS = (nn.Conv2d, nn.BatchNorm2d, nn.PReLU)


def _check_block(answer: Any) -> None:
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    require(is_class, f"expected a class of modules, got {show(answer)}", "Pass the class itself, without calling it.")
    random = torch.Generator().manual_seed(0)
    for channels, size in ((2, (1, 6, 6)), (6, (3, 5, 8))):
        torch.manual_seed(channels)
        block = call(answer, channels)
        reference = ResidualBlock(channels, norm=True)
        different = other_layers(block, reference, _KINDS)
        if different:
            hint = next(
                (m.hint for m in _BLOCKS if not other_layers(block, m.answer(channels), _KINDS)),
                "Two 3×3 Conv2d with bias, two BatchNorm2d, one PReLU.",
            )
            raise Wrong(f"with channels={channels}: {different}", hint)
        for part in (m for m in block.modules() if isinstance(m, _KINDS)):  # weights that no start would give: a swapped layer shows
            for parameter in part.parameters():
                parameter.data = torch.randn(parameter.shape, generator=random) * 0.3 + 0.2
        references = list(with_its_weights(block, reference, _KINDS))
        faults = [m for m in _BLOCKS if m.hint != _PADDING and not other_layers(block, m.answer(channels), _KINDS)]
        twins = [(m, twin) for m in faults for twin in with_its_weights(block, m.answer(channels), _KINDS)]
        x = torch.randn(size[0], channels, *size[1:], generator=random)
        for mode in (True, False):  # batch statistics, then the running ones
            for module in (block, *references, *(twin for _, twin in twins)):
                module.train(mode)
            with torch.no_grad():
                got, expected = call_block(block, x, _PADDING), [reference(x) for reference in references]
                agree = [close(got, e, 1e-4) for e in expected]
                if not any(agree):
                    hint = next((m.hint for m, twin in twins if close(got, twin(x), 1e-4)), "")
                    raise differs(f"with {show(x)}, train={mode}", got, expected[0], hint, 1e-4)
                references = list(itertools.compress(references, agree))
        same_gradient(references[0], lambda x=x: [(x,)])(block)


# --- 03.3: pixel unshuffle ----------------------------------------------------------------------------------------


def _images() -> list[tuple]:
    random = torch.Generator().manual_seed(3)
    cases: list[tuple] = [(torch.arange(8.0).reshape(1, 1, 2, 4), 2)]
    return cases + [(torch.rand(shape, generator=random), r) for shape, r in (((1, 2, 4, 6), 2), ((2, 3, 6, 9), 3), ((1, 5, 8, 4), 4))]


def _rearranged(x: torch.Tensor, r: int, order: tuple[int, ...]) -> torch.Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, c, h // r, r, w // r, r).permute(order).reshape(n, c * r**2, h // r, w // r)


_UNSHUFFLES = (
    Mistake(
        lambda x, r: _rearranged(x, r, (0, 1, 5, 3, 2, 4)),
        "Rows and columns inside the block are swapped: in channel c·r² + i·r + j, i is the row.",
    ),
    Mistake(
        lambda x, r: _rearranged(x, r, (0, 3, 5, 1, 2, 4)),
        "The r² phases of one channel belong together: c varies slowest in c·r² + i·r + j.",
    ),
    Mistake(
        lambda x, r: x.reshape(x.shape[0], -1, x.shape[2] // r, x.shape[3] // r),
        "A reshape alone cuts rows into pieces; the pixels of a block must be collected.",
    ),
    Mistake(lambda x, r: F.pixel_shuffle(x, r), "That is the shuffle itself; its inverse is asked for."),
    Mistake(lambda x, r: F.pixel_unshuffle(x, 2), "Use `r`: it is not always 2."),
    Mistake(lambda x, r: F.avg_pool2d(x, r), "No value is lost or averaged: all r² pixels of a block become channels."),
    Mistake(lambda x, r: x[:, :, ::r, ::r], "No value is lost: all r² pixels of a block become channels."),
)

# --- 03.4 and 03.5 ------------------------------------------------------------------------------------------------


def receptive_field(layers: list[tuple[int, int]]) -> float:
    """Side in LR pixels of what one output pixel sees."""
    return 1 + sum((kernel - 1) / r for kernel, r in layers)


_FIELDS = (
    Mistake(
        lambda layers: sum(k / r for k, r in layers), "A kernel of k adds k - 1 pixels: its middle one is counted already. Begin with 1."
    ),
    Mistake(lambda layers: sum((k - 1) / r for k, r in layers), "Begin with 1: without any convolution an output pixel sees one pixel."),
    Mistake(lambda layers: 1 + sum(k - 1 for k, _ in layers), "On a grid r times finer, k - 1 pixels are only (k - 1)/r LR pixels."),
    Mistake(lambda layers: 1 + sum((k - 1) // r for k, r in layers), "// cuts off the fraction: divide with /."),
    Mistake(lambda layers: 1 + sum(k // r for k, r in layers), "// cuts off the fraction, and a kernel of k adds k - 1: (k - 1) / r."),
    Mistake(lambda layers: 1 + sum(k / r for k, r in layers), "A kernel of k adds k - 1 pixels: its middle one is counted already."),
    Mistake(lambda layers: 1 + sum(k // 2 / r for k, r in layers), "A kernel of k adds k - 1 pixels, half of them to each side."),
    Mistake(lambda layers: math.prod(k for k, _ in layers), "Layers add up, they do not multiply: two 3×3 convolutions see 5 pixels."),
    Mistake(lambda layers: receptive_field(layers[:1]), "That is the first layer alone: does the return stand inside the loop?"),
    Mistake(lambda layers: 1 + sum((k - 1) / r**2 for k, r in layers), "A side is asked for: divide by r, not by its square."),
    Mistake(lambda layers: 1 + sum((r - 1) / k for k, r in layers), "Each layer is (kernel, r), in this order."),
    *(
        Mistake(lambda layers, whole=whole: whole(receptive_field(layers)), "It is not always a whole number: no rounding.")
        for whole in (int, round, math.ceil)
    ),
    Mistake(lambda layers: 1 + sum((k - 1) * r for k, r in layers), "A finer grid has smaller pixels: divide by r."),
)


def _networks() -> list[tuple]:
    srresnet = [(9, 1)] + [(3, 1)] * 34 + [(3, 2), (9, 4)]
    return [([(3, 1)],), ([(3, 1), (3, 1)],), ([(3, 1), (3, 4)],), ([(9, 1), (1, 1), (5, 1)],), ([(5, 1), (3, 2), (9, 4)],), (srresnet,)]


def early_stopping(psnrs: list[float], patience: int) -> tuple[int, int]:
    """(best, last): the validation whose weights are kept, and the last that is made."""
    return _stop(psnrs, patience)


def _stop(
    psnrs: list[float], patience: int, ties: bool = False, late: int = 0, in_a_row: bool = True, peek: bool = False
) -> tuple[int, int]:
    best, waited = 0, 0
    for index, psnr in enumerate(psnrs):
        if index and (psnr > psnrs[best] or (ties and psnr == psnrs[best])):
            best, waited = index, waited * (not in_a_row)
        else:
            waited += index > 0
        if waited >= patience + late:
            return (max(range(len(psnrs)), key=psnrs.__getitem__) if peek else best), index
    return best, len(psnrs) - 1


def _last_rise(psnrs: list[float], patience: int) -> tuple[int, int]:
    best, waited = 0, 0
    for index in range(1, len(psnrs)):
        best, waited = (index, 0) if psnrs[index] > psnrs[index - 1] else (best, waited + 1)
        if waited >= patience:
            return best, index
    return best, len(psnrs) - 1


_STOPS = (
    Mistake(
        lambda p, n: (p.index(max(p)), len(p) - 1),
        "This looks at all the validations: stop at the first one where `patience` in a row brought no new best.",
    ),
    Mistake(lambda p, n: (p[_stop(p, n)[0]], _stop(p, n)[1]), "`best` is an index, not the PSNR itself."),
    Mistake(lambda p, n: tuple(p[i] for i in _stop(p, n)), "Both are indices, not the PSNRs themselves."),
    Mistake(lambda p, n: _stop(p, n, ties=True), "A value that only equals the best is no new best: compare with >."),
    Mistake(lambda p, n: _stop(p, n, late=1), "One validation too long: stop as soon as `patience` of them brought no new best."),
    Mistake(lambda p, n: _stop(p, n, in_a_row=False), "The waiting starts again from zero with each new best."),
    Mistake(lambda p, n: _stop(p, n, peek=True), "The best among the validations made: those after the stop never happen."),
    Mistake(lambda p, n: _stop(p, n)[::-1], "The order is (best, last)."),
    Mistake(lambda p, n: _stop(p, n, late=-1), "One validation too early: `patience` of them without a new best, no fewer."),
    Mistake(lambda p, n: _stop([-value for value in p], n), "The best PSNR is the largest one."),
    Mistake(lambda p, n: _stop(p, n)[0], "Two indices are asked for: return best, last."),
    Mistake(lambda p, n: (_stop(p, n)[0], _stop(p, n)[1] + 1), "`last` is an index, not a number of validations: the first one is 0."),
    Mistake(lambda p, n: (_stop(p, n)[0], len(p)), "The last index is len(psnrs) - 1, where patience never runs out."),
    Mistake(lambda p, n: tuple(i + 1 for i in _stop(p, n)), "Indices begin with 0."),
    Mistake(_last_rise, "Compare with the best so far, not with the value before."),
)


def _curves() -> list[tuple]:
    random = torch.Generator().manual_seed(5)
    cases: list[tuple] = [([20.0], 3), ([20.0, 21.0, 22.0], 2), ([20.0, 21.0, 20.5, 20.0, 20.0, 20.0], 2), ([20.0, 21.0, 21.0, 20.0], 2)]
    cases += [([21.0, 20.0, 22.0, 21.0, 23.0, 24.0], 2), ([26.0, 27.1, 27.6, 27.5, 27.8, 27.7, 27.8, 27.6, 27.9], 3)]
    for n, patience in ((12, 2), (40, 4), (60, 10)):
        curve = 28 - 3 * torch.exp(-torch.arange(n) / 5) + 0.2 * torch.randn(n, generator=random)
        cases.append(([round(value, 2) for value in curve.tolist()], patience))
    return cases


EXERCISES = [
    Exercise(
        id="03.1",
        title="In the first seconds, learning a correction to bicubic wins.",
        check=one_of("c", _FIRST_SECONDS),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _FIRST_SECONDS.items()),
    ),
    Exercise(id="03.2", title="You have SRResNet's residual block.", check=_check_block, mistakes=_BLOCKS, points=2),
    Exercise(
        id="03.3",
        title="You have pixel unshuffle, the inverse of the network's last step.",
        check=same_function(F.pixel_unshuffle, _images, _UNSHUFFLES),
        mistakes=_UNSHUFFLES,
        points=2,
    ),
    Exercise(
        id="03.4",
        title="You can tell how far any chain of convolutions sees.",
        check=same_function(receptive_field, _networks, _FIELDS),
        mistakes=_FIELDS,
        points=2,
    ),
    Exercise(
        id="03.5",
        title="You have early stopping, as the training engine does it.",
        check=same_function(early_stopping, _curves, _STOPS),
        mistakes=_STOPS,
        points=2,
    ),
    Exercise(
        id="03.6",
        title="In this short run the network learns better without BN, as EDSR's did in long ones.",
        check=one_of("c", _NORM),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _NORM.items()),
        points=3,
    ),
]
