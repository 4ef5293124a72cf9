"""Checks of lesson 05: receptive fields, the discriminator's loss over patches, ablation, recursion, losses of stages."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.exercises.checking import Exercise, Mistake, Wrong, call, close, differs, one_of, require, same_function, show
from srcourse.exercises.comparing import other_layers, with_its_weights
from srcourse.losses import discriminator_loss
from srcourse.models.recursive import RecursiveBlock

# --- predictions ------------------------------------------------------------------------------------------------

_LAST_KERNEL = {
    "a": "Its kernel covers 3 positions of its own map, which are no longer neighbouring pixels: how far apart are they?",
    "b": "8 pixels is the distance between two positions. How many such steps lie between the first and the last of the kernel's three?",
    "d": "A kernel of 3 adds 2 steps, not 3: its middle position is seen already.",
}

_ABLATION = {
    "a": "Can a loss with two further wishes reach a smaller MSE than the MSE alone does?",
    "c": "Which of PA and EPA is told to keep the pixels right?",
    "d": "PSNR is the MSE on another scale: can the run that minimises nothing else come last?",
}

# --- 05.2: receptive fields ---------------------------------------------------------------------------------------


def receptive_field(layers: list[tuple[int, int]]) -> tuple[int, int]:
    """(size, stride) in pixels of a chain of (kernel, stride)."""
    return _field(layers)


def _field(layers: list[tuple[int, int]], start: int = 1, own: bool = False, jumps: bool = True, less: int = 1) -> tuple[int, int]:
    size, jump, product = start, 1, 1
    for kernel, stride in layers:
        product *= stride
        if own:
            jump = product
        size += (kernel - less) * jump
        if jumps:
            jump = product
    return size, product


_FIELDS = (
    Mistake(lambda layers: _field(layers, jumps=False), "After a stride, positions lie further apart: multiply kernel - 1 by the jump."),
    Mistake(lambda layers: _field(layers, own=True), "A layer's own stride moves its outputs: it counts for the layers after it only."),
    Mistake(
        lambda layers: (_field([layer for layer in layers if layer != (2, 2)])[0], _field(layers)[1]),
        "Poolings see too: a kernel of 2 adds one jump.",
    ),
    Mistake(
        lambda layers: _field([layer for layer in layers if layer != (2, 2)]), "Poolings count as layers: their kernel and their stride."
    ),
    Mistake(lambda layers: _field(layers, less=0), "A kernel of k adds k - 1 positions: one of them is seen already."),
    Mistake(lambda layers: _field(layers, start=0), "Begin with 1: without any layer an output sees one pixel."),
    Mistake(lambda layers: _field(layers)[0], "Two numbers are asked for: return size, stride."),
    Mistake(lambda layers: _field(layers)[::-1], "The order is (size, stride)."),
    Mistake(
        lambda layers: (_field(layers)[0], layers[-1][1] if layers else 1), "The stride is the product of all strides, not the last one."
    ),
    Mistake(
        lambda layers: (_field(layers)[0], 1 + sum(stride - 1 for _, stride in layers)), "Strides multiply: two of 2 make 4, three make 8."
    ),
)


def _chains() -> list[tuple]:
    patch = [(5, 2), (3, 1), (2, 2), (3, 1), (2, 2), (3, 1), (3, 1), (3, 1)]
    chains = [[(3, 1)], [(3, 1), (3, 1)], [(3, 2)], [(3, 2), (3, 1)], [(3, 1), (2, 2), (3, 1)], [(4, 3), (3, 2), (5, 2), (1, 1)], patch, []]
    return [(chain,) for chain in chains]


# --- 05.3: the discriminator's loss over patches ------------------------------------------------------------------


def _patch_loss(
    real: torch.Tensor, fake: torch.Tensor, log_mean: Callable[[torch.Tensor], torch.Tensor], flip: bool = True, sign: float = -1.0
) -> torch.Tensor:
    return sign * (log_mean(real).mean() + log_mean(-fake if flip else fake).mean())


def _stable(logits: torch.Tensor) -> torch.Tensor:
    flat = F.logsigmoid(logits).flatten(1)
    return torch.logsumexp(flat, dim=1) - math.log(flat.shape[1])


def _over_batch(logits: torch.Tensor) -> torch.Tensor:
    return _stable(logits.flatten()[None])


def _without_count(logits: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(F.logsigmoid(logits).flatten(1), dim=1)


_NAIVE = (
    "Finite logits gave an infinite loss: the mean of the probabilities was rounded to 0 before its logarithm. "
    "Stay with logarithms: F.logsigmoid, then torch.logsumexp."
)
_PATCH_LOSSES = (
    Mistake(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        "That is the mean of the logarithms (bce); asked for is the logarithm of the mean.",
    ),
    Mistake(lambda real, fake: _patch_loss(real, fake, lambda z: torch.sigmoid(z).flatten(1).mean(1).log()), _NAIVE),
    Mistake(lambda real, fake: _patch_loss(real, fake, _over_batch), "The mean inside the logarithm runs over one image's patches: dim=1."),
    Mistake(
        lambda real, fake: _patch_loss(real, fake, _stable, flip=False), "For generated images it is log(1 - mean): turn the logits' sign."
    ),
    Mistake(lambda real, fake: _patch_loss(real, fake, _stable, sign=1.0), "A loss is what gets smaller: both terms have a minus sign."),
    Mistake(
        lambda real, fake: _patch_loss(real, fake, _without_count), "A sum is no mean: subtract the logarithm of the number of patches."
    ),
    Mistake(lambda real, fake: _patch_loss(real, fake, _stable) / 2, "The two terms are added, not averaged."),
    Mistake(
        lambda real, fake: -_stable(real).sum() - _stable(-fake).sum(),
        "Average over the images of the batch: the loss is no larger for more.",
    ),
)


def _logits() -> list[tuple]:
    random = torch.Generator().manual_seed(53)
    cases = [(torch.zeros(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)), (torch.tensor([[[[-2.0, 3.0]]]]), torch.tensor([[[[1.0, -4.0]]]]))]
    cases += [(torch.randn(3, 1, 4, 5, generator=random) * 3, torch.randn(3, 1, 4, 5, generator=random) * 3 - 1)]
    extreme = torch.full((2, 1, 2, 3), 1e4)
    return [*cases, (-extreme, -extreme), (extreme, extreme), (-extreme, extreme)]


def _check_patch_loss(answer: Any) -> None:
    same_function(lambda real, fake: discriminator_loss(real, fake, "patch-mean"), _logits, _PATCH_LOSSES, tolerance=1e-4)(answer)
    for real, fake in _logits():  # a loss must pass its gradient on, also where it is steep
        inputs = (real.clone().requires_grad_(), fake.clone().requires_grad_())
        require(_has_gradient(answer, inputs), f"with logits of {real.min():.0f} to {real.max():.0f}: no finite gradient", _GRADIENT)


_GRADIENT = "Use tensor operations from the logits to the end (no .item(), .detach() or NumPy on them), and stay with logarithms."


def _has_gradient(loss: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]) -> bool:
    try:
        return all(bool(g.isfinite().all()) for g in torch.autograd.grad(loss(*inputs), inputs))
    except (RuntimeError, TypeError, AttributeError):  # detached on the way, or no tensor at all
        return False


# --- 05.5: the recursive block ------------------------------------------------------------------------------------


def _block(own: bool = False, add: str = "always", order: str = "before", padding: int = 1, more: int = 0) -> type[nn.Module]:
    """P003's block, or one with a fault."""

    class Block(nn.Module):
        def __init__(self, channels: int, recursions: int):
            super().__init__()
            pairs = recursions if own else 1
            self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=padding) for _ in range(2 * pairs))
            self.recursions = recursions

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            u = x
            for t in range(self.recursions + more):
                conv1, conv2 = self.convolutions[2 * t : 2 * t + 2] if own else self.convolutions
                y = conv2(F.relu(conv1(F.relu(u) if order == "before" else u)))
                added = {"always": x, "never": 0, "last": u, "once": x if t == 0 else 0}[add]
                u = F.relu(y + added) if order == "after the sum" else y + added
            return u

    return Block


_UNPADDED = "A 3×3 convolution keeps the size with padding=1."
_BLOCKS = (
    Mistake(_block(own=True), "The same two convolutions serve all recursions: the block has two of them, whatever U is."),
    Mistake(_block(add="never"), "The block's input u₀ is missing: it is added in every round."),
    Mistake(_block(add="once"), "u₀ is added in every round, not in the first alone."),
    Mistake(_block(add="last"), "Every round adds u₀, the block's input, not the u that it began with."),
    Mistake(_block(order="after the sum"), "No ReLU after the sum: it stands before each convolution."),
    Mistake(_block(order="none"), "Each of the two convolutions has a ReLU before it, the first one too."),
    Mistake(_block(padding=0), _UNPADDED),
    Mistake(_block(more=1), "U rounds, not U + 1."),
)


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def _check_block(answer: Any) -> None:
    is_class = isinstance(answer, type) and issubclass(answer, nn.Module)
    require(is_class, f"expected a class of modules, got {show(answer)}", "Pass the class itself, without calling it.")
    require(answer is not RecursiveBlock, "that is srcourse's own block", "Write one of yours: two convolutions and a loop.")
    random = torch.Generator().manual_seed(0)
    for channels, recursions, size in ((2, 1, (1, 6, 6)), (2, 2, (1, 6, 6)), (5, 4, (2, 5, 8))):
        torch.manual_seed(channels)
        block = call(answer, channels, recursions)
        reference = RecursiveBlock(channels, recursions)
        different = other_layers(block, reference, [nn.Conv2d])
        if different:
            hint = _BLOCKS[0].hint if len(_convolutions(block)) > 2 else "Two Conv2d(channels, channels, 3, padding=1) with bias."
            raise Wrong(f"with channels={channels}, recursions={recursions}: {different}", hint)
        count = sum(p.numel() for p in block.parameters())
        expected_count = sum(p.numel() for p in reference.parameters())
        require(
            count == expected_count, f"it has {count} parameters, expected {expected_count}", "Nothing but the two convolutions learns."
        )
        for layer in _convolutions(block):
            for parameter in layer.parameters():
                parameter.data = torch.randn(parameter.shape, generator=random) * 0.3
        x = torch.randn(size[0], channels, *size[1:], generator=random)
        with torch.no_grad():
            got = _call(block, x)
            expected = [twin(x) for twin in with_its_weights(block, reference, [nn.Conv2d])]
            if not any(close(got, e, 1e-4) for e in expected):
                padded = [m for m in _BLOCKS[1:] if m.hint != _UNPADDED]  # without padding nothing can be added at all
                twins = ((m, twin) for m in padded for twin in with_its_weights(block, m.answer(channels, recursions), [nn.Conv2d]))
                hint = next((m.hint for m, twin in twins if close(got, twin(x), 1e-4)), "")
                raise differs(f"with recursions={recursions} and {show(x)}", got, expected[0], hint, 1e-4)


def _call(block: nn.Module, x: torch.Tensor) -> Any:
    try:
        return call(block, x)
    except Wrong as wrong:
        unpadded = any(m.padding == (0, 0) for m in _convolutions(block))
        raise Wrong(str(wrong), _UNPADDED if unpadded else wrong.hint) from None


# --- 05.6: the loss of all stages ---------------------------------------------------------------------------------


def _shrink(hr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(hr, size, mode="bicubic", antialias=True)


def multi_stage_loss(stages: list[torch.Tensor], hr: torch.Tensor) -> torch.Tensor:
    """The sum over the stages of the MSE against HR at the stage's size."""
    return sum(F.mse_loss(image, _shrink(hr, image.shape[-2:])) for image in stages)


_STAGE_LOSSES = (
    Mistake(lambda stages, hr: multi_stage_loss(stages[-1:], hr), "Every stage is told the truth at its size, not the last one alone."),
    Mistake(
        lambda stages, hr: sum(F.mse_loss(_shrink(image, hr.shape[-2:]), hr) for image in stages),
        "HR is brought to the stage's size, not the stage's image to HR's.",
    ),
    Mistake(
        lambda stages, hr: sum(F.mse_loss(image, F.interpolate(hr, image.shape[-2:], mode="nearest")) for image in stages),
        "Picking single pixels aliases (lesson 01): shrink with shrink(hr, size), bicubic and antialiased.",
    ),
    Mistake(
        lambda stages, hr: sum(F.mse_loss(image, F.interpolate(hr, image.shape[-2:], mode="bicubic")) for image in stages),
        "Without antialias=True the shrunk HR is aliased (lesson 01): use shrink(hr, size).",
    ),
    Mistake(lambda stages, hr: multi_stage_loss(stages, hr) / len(stages), "The stages' losses are added, not averaged."),
    Mistake(
        lambda stages, hr: sum(F.l1_loss(image, _shrink(hr, image.shape[-2:])) for image in stages),
        "The squared error: F.mse_loss, not L1.",
    ),
    Mistake(
        lambda stages, hr: sum(F.mse_loss(image, _shrink(hr, image.shape[-2:]), reduction="sum") for image in stages),
        "The mean over pixels: with sums, large stages would drown the small ones.",
    ),
)


def _stages() -> list[tuple]:
    random = torch.Generator().manual_seed(56)
    hr = torch.rand(2, 3, 24, 36, generator=random)
    pyramid = [torch.rand(2, 3, 6 * k, 9 * k, generator=random) for k in (2, 3, 4)]
    return [([pyramid[2]], hr), ([pyramid[0], pyramid[2]], hr), (pyramid, hr)]


EXERCISES = [
    Exercise(
        id="05.1",
        title="A kernel deep in the network takes long steps: 2 of 8 pixels.",
        check=one_of("c", _LAST_KERNEL),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _LAST_KERNEL.items()),
    ),
    Exercise(
        id="05.2",
        title="You can tell how far any chain of convolutions and poolings sees.",
        check=same_function(receptive_field, _chains, _FIELDS),
        mistakes=_FIELDS,
        points=2,
    ),
    Exercise(
        id="05.3",
        title="You have P000's game, from the discriminator's side, and it never overflows.",
        check=_check_patch_loss,
        mistakes=_PATCH_LOSSES,
        points=2,
    ),
    Exercise(
        id="05.4",
        title="The more a loss insists on pixels, the higher the PSNR and the poorer the detail.",
        check=one_of("b", _ABLATION),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _ABLATION.items()),
    ),
    Exercise(id="05.5", title="You have P003's recursive residual block.", check=_check_block, mistakes=_BLOCKS, points=2),
    Exercise(
        id="05.6",
        title="You can supervise a cascade of any number of stages.",
        check=same_function(multi_stage_loss, _stages, _STAGE_LOSSES),
        mistakes=_STAGE_LOSSES,
        points=2,
    ),
]
