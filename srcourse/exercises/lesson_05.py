"""Checks of lesson 05: receptive fields, the discriminator's loss over patches, ablation, recursion, losses of stages."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from srcourse.exercises.checking import CUT, Exercise, Mistake, one_of, same_function, same_gradient
from srcourse.exercises.recursive_block import BLOCKS, check_block
from srcourse.losses import discriminator_loss

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


def _forwards(layers: list[tuple[int, int]]) -> tuple[int, int]:
    size = 1
    for kernel, stride in layers:
        size = (size - 1) * stride + kernel
    return size, _field(layers)[1]


def _jumping(jump: Callable[[int, int, int], float]) -> Callable:
    """A chain whose jump is found otherwise, from the jump before, the kernel and the stride."""

    def chain(layers: list[tuple[int, int]]) -> tuple[float, float]:
        size, steps = 1, 1
        for kernel, stride in layers:
            size, steps = size + (kernel - 1) * steps, jump(steps, kernel, stride)
        return size, steps

    return chain


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
        lambda layers: (_field(layers, jumps=False)[0], layers[-1][1] if layers else 1),
        "Strides multiply up: size grows by (kernel - 1) times the product of all strides before, and the stride is the product of all.",
    ),
    Mistake(lambda layers: (_field(layers)[0], 1), "The stride is the product of all strides."),
    Mistake(
        lambda layers: (_field(layers, jumps=False)[0], 1),
        "The stride is the product of all strides, and kernel - 1 is multiplied by that of the layers before.",
    ),
    Mistake(
        lambda layers: (_field(layers)[0], _field(layers[:-1])[1]),
        "The stride is the product of all strides: the last layer's counts in it, too.",
    ),
    Mistake(
        lambda layers: (_field(layers)[0], 1 + sum(stride - 1 for _, stride in layers)), "Strides multiply: two of 2 make 4, three make 8."
    ),
    Mistake(_forwards, "(size - 1) · stride + kernel goes from the last layer to the first; from the first on, the jump grows instead."),
    Mistake(_jumping(lambda jump, kernel, stride: jump + stride), "Strides multiply: two of 2 make 4, three make 8."),
    Mistake(_jumping(lambda jump, kernel, stride: jump + stride - 1), "Strides multiply: two of 2 make 4, three make 8."),
    Mistake(_jumping(lambda jump, kernel, stride: jump * kernel), "It is the stride that moves positions apart, not the kernel."),
    Mistake(_jumping(lambda jump, kernel, stride: stride), "A jump is the product of all strides before it, not the last one alone."),
    Mistake(lambda layers: _field([layer[::-1] for layer in layers]), "Each layer is (kernel, stride), in this order."),
    Mistake(lambda layers: _field(layers[:1]), "That is the first layer alone: does the return stand inside the loop?"),
    Mistake(lambda layers: (layers[0], _field(layers))[1], "A chain may be empty: begin with 1 and 1, before the loop."),
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


def _floored(logits: torch.Tensor, floor: float) -> torch.Tensor:
    return (torch.sigmoid(logits).flatten(1).mean(1) + floor).log()


def _over_batch(logits: torch.Tensor) -> torch.Tensor:
    return _stable(logits.flatten()[None])


def _without_count(logits: torch.Tensor) -> torch.Tensor:
    return torch.logsumexp(F.logsigmoid(logits).flatten(1), dim=1)


_NAIVE = (
    "Finite logits gave an infinite loss: the mean of the probabilities was rounded to 0 before its logarithm. "
    "Stay with logarithms: F.logsigmoid, then torch.logsumexp."
)
_COUNTED = "The mean runs over all patches of one image: subtract the logarithm of h · w, the number of its patches."
_DIVIDED = "In logarithms a division is a difference: subtract the logarithm of the number of patches."
_FLOOR = "A floor or a limit hides the infinity, and the gradient with it: F.logsigmoid and torch.logsumexp need none."
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
    Mistake(
        lambda real, fake: _patch_loss(fake, real, _stable), "Real and generated are swapped: a photograph's patches should be trusted."
    ),
    Mistake(
        lambda real, fake: _stable(-fake).mean() - _stable(real).mean(), "Both terms have a minus sign: a mistake on either side costs."
    ),
    Mistake(
        lambda real, fake: _stable(real).mean() - _stable(-fake).mean(), "Both terms have a minus sign: a mistake on either side costs."
    ),
    Mistake(lambda real, fake: -_stable(real).mean(), "Half of it: the generated images count too."),
    Mistake(lambda real, fake: -_stable(-fake).mean(), "Half of it: the photographs count too."),
    Mistake(
        lambda real, fake: _stable(fake).mean() - 1 - _stable(real).mean(),
        "log(1 - mean) is not 1 - log(mean): for generated images, turn the logits' sign.",
    ),
    Mistake(
        lambda real, fake: F.softplus(-real.flatten(1).mean(1)).mean() + F.softplus(fake.flatten(1).mean(1)).mean(),
        "That is the mean of the logits; asked for is the mean of the probabilities, σ of each logit.",
    ),
    Mistake(
        lambda real, fake: _patch_loss(real, fake, lambda z: torch.logsumexp(z.flatten(1), 1) - math.log(z[0].numel())),
        "Those are logits, not log-probabilities: F.logsigmoid comes first.",
    ),
    *(
        Mistake(lambda real, fake, axis=axis: _patch_loss(real, fake, lambda z: _without_count(z) - math.log(z.shape[axis])), _COUNTED)
        for axis in (2, 3)
    ),
    Mistake(lambda real, fake: _patch_loss(real, fake, lambda z: _without_count(z) - math.log(z.numel())), _COUNTED),
    Mistake(lambda real, fake: _patch_loss(real, fake, lambda z: _without_count(z) + math.log(z[0].numel())), "Subtract the logarithm."),
    Mistake(lambda real, fake: _patch_loss(real, fake, lambda z: _without_count(z) / z[0].numel()), _DIVIDED),
    *(Mistake(lambda real, fake, e=e: _patch_loss(real, fake, lambda z: _floored(z, e)), _FLOOR) for e in (1e-6, 1e-7, 1e-8, 1e-10, 1e-12)),
    *(
        Mistake(lambda real, fake, m=m: _patch_loss(real, fake, lambda z: _stable(z.clamp(-m, m))), _FLOOR)
        for m in (10, 20, 30, 50, 80, 100)
    ),
    Mistake(lambda real, fake: _patch_loss(real, fake.detach(), _stable), CUT),
)


def _logits() -> list[tuple]:
    random = torch.Generator().manual_seed(53)
    cases = [(torch.tensor([[[[-2.0, 3.0]]]]), torch.tensor([[[[1.0, -4.0]]]]))]
    cases += [(torch.randn(3, 1, 4, 5, generator=random) * 3, torch.randn(3, 1, 4, 5, generator=random) * 3 - 1)]
    extreme = torch.full((2, 1, 2, 3), 1e4)
    return [*cases, (-extreme, -extreme), (extreme, extreme), (-extreme, extreme)]


def patch_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """P000 equation 1."""
    return discriminator_loss(real, fake, "patch-mean")


def _check_patch_loss(answer: Any) -> None:
    same_function(patch_loss, _logits, _PATCH_LOSSES, tolerance=1e-4)(answer)
    same_gradient(patch_loss, _logits, inputs=2)(answer)


# --- 05.6: the loss of all stages ---------------------------------------------------------------------------------


def _shrink(hr: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(hr, size, mode="bicubic", antialias=True)


def multi_stage_loss(stages: list[torch.Tensor], hr: torch.Tensor) -> torch.Tensor:
    """The sum over the stages of the MSE against HR at the stage's size."""
    return sum(F.mse_loss(image, _shrink(hr, image.shape[-2:])) for image in stages)


def _step_by_step(stages: list[torch.Tensor], hr: torch.Tensor) -> torch.Tensor:
    loss = torch.zeros(())
    for image in reversed(stages):
        hr = _shrink(hr, image.shape[-2:])
        loss = loss + F.mse_loss(image, hr)
    return loss


def _check_stages(answer: Any) -> None:
    same_function(multi_stage_loss, _stages, _STAGE_LOSSES)(answer)
    same_gradient(multi_stage_loss, _stages)(answer)


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
    Mistake(
        lambda stages, hr: sum((image - _shrink(hr, image.shape[-2:])).square().sum() for image in stages) / hr.numel(),
        "Each stage has a mean of its own: divide by the number of its pixels, not by that of HR.",
    ),
    Mistake(
        lambda stages, hr: (
            sum((image - _shrink(hr, image.shape[-2:])).square().sum() for image in stages) / sum(image.numel() for image in stages)
        ),
        "Each stage has a mean of its own: all pixels in one mean, large stages would drown the small ones.",
    ),
    Mistake(lambda stages, hr: sum(multi_stage_loss([image], hr).sqrt() for image in stages), "Leave the root: the MSE is asked for."),
    Mistake(
        lambda stages, hr: sum(F.smooth_l1_loss(image, _shrink(hr, image.shape[-2:])) for image in stages),
        "The squared error: F.mse_loss, not smooth L1.",
    ),
    Mistake(lambda stages, hr: 3 * multi_stage_loss(stages, hr), "The mean runs over the colours, too."),
    Mistake(
        lambda stages, hr: multi_stage_loss(stages[:1], hr), "Only the first stage counts here: does the return stand inside the loop?"
    ),
    Mistake(lambda stages, hr: multi_stage_loss(stages[:-1], hr), "The last stage, the image itself, counts too."),
    *(
        Mistake(
            lambda stages, hr, m=m, a=a: sum(F.mse_loss(i, F.interpolate(hr, i.shape[-2:], mode=m, antialias=a)) for i in stages),
            "Shrink with shrink(hr, size), bicubic and antialiased: other ways give other pixels.",
        )
        for m, a in (("bilinear", False), ("bilinear", True), ("area", False))
    ),
    Mistake(_step_by_step, "Shrink HR itself to each size: what was shrunk twice has other pixels."),
    Mistake(lambda stages, hr: multi_stage_loss([image.detach() for image in stages], hr), CUT),
    Mistake(lambda stages, hr: multi_stage_loss([image.detach() for image in stages[:-1]] + stages[-1:], hr), CUT),
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
    Exercise(id="05.5", title="You have P003's recursive residual block.", check=check_block, mistakes=BLOCKS, points=2),
    Exercise(
        id="05.6",
        title="You can supervise a cascade of any number of stages.",
        check=_check_stages,
        mistakes=_STAGE_LOSSES,
        points=2,
    ),
]
