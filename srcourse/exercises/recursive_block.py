"""Exercise 05.5: the check of P003's recursive block, and the blocks that it refuses."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.exercises.blocks import convolutions, draw_weights, same_block
from srcourse.exercises.checking import Mistake, Wrong, call, require, show
from srcourse.exercises.comparing import other_layers
from srcourse.models.recursive import RecursiveBlock

_ORDERS: dict[str, Callable] = {  # what u becomes on its way through both convolutions
    "before": lambda conv1, conv2, u: conv2(F.relu(conv1(F.relu(u)))),
    "middle": lambda conv1, conv2, u: conv2(F.relu(conv1(u))),
    "after": lambda conv1, conv2, u: F.relu(conv2(F.relu(conv1(u)))),
    "first": lambda conv1, conv2, u: conv2(conv1(F.relu(u))),
    "none": lambda conv1, conv2, u: conv2(conv1(u)),
    "leaky": lambda conv1, conv2, u: conv2(F.leaky_relu(conv1(F.leaky_relu(u, 0.2)), 0.2)),
    "leaky 0.01": lambda conv1, conv2, u: conv2(F.leaky_relu(conv1(F.leaky_relu(u)))),
    "twice": lambda conv1, conv2, u: conv1(F.relu(conv1(F.relu(u)))),
}


def _block(
    own: bool = False, add: str = "always", order: str = "before", padding: int = 1, more: int = 0, bend_sum: bool = False
) -> type[nn.Module]:
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
                y = _ORDERS[order](conv1, conv2, x if add == "same start" else u)
                bent = F.relu(x) if add == "bent" else x
                added = {"never": 0, "end": 0, "last": u, "once": x if t == 0 else 0}.get(add, bent)
                u = F.relu(y + added) if bend_sum else y + added
            return u + x if add == "end" else u

    return Block


_UNPADDED = "A 3×3 convolution keeps the size with padding=1."
BLOCKS = (
    Mistake(_block(own=True), "The same two convolutions serve all recursions: the block has two of them, whatever U is."),
    Mistake(_block(add="never"), "The block's input u₀ is missing: it is added in every round."),
    Mistake(_block(add="once"), "u₀ is added in every round, not in the first alone."),
    Mistake(_block(add="last"), "Every round adds u₀, the block's input, not the u that it began with."),
    Mistake(_block(add="end"), "u₀ is added in every round, not once after the last."),
    Mistake(_block(add="same start"), "Each round goes on from the u of the round before: only what is added is always x."),
    Mistake(_block(add="bent"), "The input is added as it is, without a ReLU: does F.relu overwrite x?"),
    Mistake(_block(bend_sum=True), "No ReLU after the sum: it stands before each convolution."),
    Mistake(_block(bend_sum=True, order="middle"), "No ReLU after the sum: it stands before each convolution."),
    Mistake(_block(order="middle"), "Each of the two convolutions has a ReLU before it, the first one too."),
    Mistake(_block(order="after"), "Each ReLU stands before its convolution, not after it."),
    Mistake(_block(order="first"), "Each of the two convolutions has a ReLU before it, the second one too."),
    Mistake(_block(order="none"), "The ReLUs are missing: one before each of the two convolutions."),
    Mistake(_block(order="leaky"), "A plain ReLU: negative values become 0."),
    Mistake(_block(order="leaky 0.01"), "A plain ReLU: negative values become 0."),
    Mistake(_block(order="twice"), "One convolution is used twice, the other one not at all."),
    Mistake(_block(padding=0), _UNPADDED),
    Mistake(_block(more=1), "U rounds, not U + 1."),
    Mistake(_block(more=-1), "U rounds, not U - 1."),
)


def check_block(answer: Any) -> None:
    """Compare a class of blocks with P003's: layers, values with the learner's own weights, and gradients."""
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
            hint = BLOCKS[0].hint if len(convolutions(block)) > 2 else "Two Conv2d(channels, channels, 3, padding=1) with bias."
            raise Wrong(f"with channels={channels}, recursions={recursions}: {different}", hint)
        count = sum(p.numel() for p in block.parameters())
        expected_count = sum(p.numel() for p in reference.parameters())
        require(
            count == expected_count, f"it has {count} parameters, expected {expected_count}", "Nothing but the two convolutions learns."
        )
        draw_weights(block, random, 0.3)
        x = torch.randn(size[0], channels, *size[1:], generator=random)
        faults = ((m, m.answer(channels, recursions)) for m in BLOCKS[1:] if m.hint != _UNPADDED)  # those without padding add nothing
        same_block(block, reference, x, faults, where=f"with recursions={recursions}", unpadded=_UNPADDED)
