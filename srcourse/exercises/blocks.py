"""How a learner's block is checked: a class of modules of a few convolutions, which may be defined in any order."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from srcourse.exercises.checking import Mistake, Wrong, call, close, differs, same_gradient, show
from srcourse.exercises.comparing import with_its_weights


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """All of a module's convolutions."""
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def draw_weights(block: nn.Module, random: torch.Generator, spread: float) -> None:
    """Give the convolutions weights and biases that no start would give: then a forgotten one shows."""
    for layer in convolutions(block):
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=random) * spread


def call_block(block: nn.Module, x: torch.Tensor, unpadded: str) -> Any:
    """As `checking.call`; for an error of a block that does not keep the size, the hint is `unpadded`."""
    try:
        return call(block, x)
    except Wrong as wrong:
        padded = [layer for layer in convolutions(block) if isinstance(layer.padding, tuple)]  # "same" is right as well
        kept = all(layer.padding == tuple(k // 2 for k in layer.kernel_size) for layer in padded)
        raise Wrong(str(wrong), wrong.hint if kept else unpadded) from None


def same_block(
    block: nn.Module, reference: nn.Module, x: torch.Tensor, faults: Iterable[tuple[Mistake, nn.Module]], *, where: str, unpadded: str
) -> None:
    """Refuse a block that makes of `x` something else than `reference` with the block's own weights, or cuts its gradient.

    `faults` are mistakes, each with a block that has it, to find the hint by.
    """
    with torch.no_grad():
        got = call_block(block, x, unpadded)
        alike = list(with_its_weights(block, reference, [nn.Conv2d]))
        twin = next((twin for twin in alike if close(got, twin(x), 1e-4)), None)
        if twin is None:
            faulty = ((mistake.hint, other) for mistake, fault in faults for other in with_its_weights(block, fault, [nn.Conv2d]))
            hint = next((hint for hint, other in faulty if close(got, other(x), 1e-4)), "")
            raise differs(f"{where} and {show(x)}", got, alike[0](x), hint, 1e-4)
    same_gradient(twin, lambda: [(x,)])(block)
