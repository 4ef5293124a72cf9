"""How a learner's result is compared with the expected one, and how both are shown in few words."""

import itertools
import math
import numbers
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

FEW = 16  # a tensor of so many numbers is shown whole


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Whether two numbers, tensors, strings, or sequences of them are equal up to `tolerance`."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.shape != expected.shape or got.is_complex():
            return False
        return bool(torch.allclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance))
    if isinstance(expected, np.ndarray):
        return isinstance(got, np.ndarray) and got.shape == expected.shape and np.allclose(got, expected, tolerance, tolerance)
    if isinstance(expected, str | bool):
        return got == expected
    if isinstance(expected, int | float):
        got = plain(got)
        if not is_number(got):
            return False
        return float(got) == float(expected) or math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, tuple | list):
        return isinstance(got, tuple | list) and len(got) == len(expected) and all(map(lambda g, e: close(g, e, tolerance), got, expected))
    return got == expected


def is_number(value: Any) -> bool:
    """Whether it is a real number; NumPy's are, True and False are not."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """A tensor or array of one number as that number."""
    single = value.numel() == 1 if isinstance(value, torch.Tensor) else getattr(value, "size", 0) == 1
    return value.item() if single else value


def in_its_form(got: Any, expected: Any) -> Any:
    """The result with tensors in place of arrays, lists and numbers where tensors are expected, and a list in place of a tensor."""
    if isinstance(expected, torch.Tensor) and (isinstance(got, np.ndarray | list | tuple) or is_number(got)):
        try:
            return torch.from_numpy(np.array(got))
        except (TypeError, ValueError, RuntimeError):  # no numbers, or rows of different lengths
            return got
    if isinstance(expected, tuple | list) and isinstance(got, torch.Tensor | np.ndarray):
        return got.tolist()
    if isinstance(expected, tuple | list) and isinstance(got, tuple | list) and len(got) == len(expected):
        return [in_its_form(g, e) for g, e in zip(got, expected, strict=True)]
    return got


# --- in few words -----------------------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value in few words."""
    try:
        return _show(value)
    except Exception:  # a learner's object may fail at anything, even at its own repr
        return f"something of type {type(value).__name__}"


def _show(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "tensor" if isinstance(value, torch.Tensor) else "array"
        number = value.detach() if kind == "tensor" else torch.from_numpy(np.array(value))
        if number.numel() <= FEW:
            digits = 5 if number.numel() <= 4 else 4
            return f"{kind}({[round(v, digits) for v in number.flatten().tolist()]}, shape {tuple(number.shape)})"
        number = number.double()
        return f"{kind} of shape {tuple(number.shape)}, {number.min():.4g} to {number.max():.4g}, mean {number.mean():.5g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and any(isinstance(one, torch.Tensor) for one in value):
        return f"[{', '.join(map(show, value))}]"
    with np.printoptions(legacy="1.21"):  # 1 in place of np.int64(1)
        text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def mismatch(got: Any, expected: Any, tolerance: float = 1e-5) -> str:
    """ "got …, expected …", and the first place where they differ, unless one can see it."""
    seen = (show(got), show(expected))
    if seen[0] == seen[1]:
        seen = (_exact(got), _exact(expected))
    text = f"got {seen[0]}, expected {seen[1]}"
    cut = seen[0] == seen[1] or any(s.endswith("...") or s.startswith(("tensor of", "array of")) for s in seen)
    try:
        place = _first_difference(got, expected, tolerance) if cut else None
    except Exception:  # as in `show`
        return text
    return text if place is None else f"{text}; they differ first at {place[0]}: got {_exact(place[1])}, expected {_exact(place[2])}"


def _first_difference(got: Any, expected: Any, tolerance: float) -> tuple[str, Any, Any] | None:
    """(place, got, expected), or None where they can't be compared part by part."""
    if isinstance(expected, torch.Tensor) and isinstance(got, torch.Tensor) and got.shape == expected.shape and expected.ndim:
        wrong = ~torch.isclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance)
        index = wrong.nonzero()[0].tolist()
        return str(index), got[tuple(index)].item(), expected[tuple(index)].item()
    if isinstance(expected, list | tuple) and isinstance(got, list | tuple) and len(got) == len(expected):
        i = next(i for i in range(len(expected)) if not close(got[i], expected[i], tolerance))
        within = _first_difference(got[i], expected[i], tolerance)
        return (f"[{i}]", got[i], expected[i]) if within is None else (f"[{i}]{within[0]}", *within[1:])
    return None


def _exact(value: Any) -> str:
    return f"{value:.9g}" if isinstance(value, float) else show(value)


# --- losses -----------------------------------------------------------------------------------------------------


def gradients(function: Callable[..., torch.Tensor], arguments: Sequence[Any], inputs: int = 1) -> list[torch.Tensor] | None:
    """The gradients that a loss, or the sum of squares of a larger result, sends to its first `inputs` arguments; None if it can't."""
    leaves: list[torch.Tensor] = []

    def leaf(value: Any) -> Any:
        if isinstance(value, list):
            return [leaf(one) for one in value]
        leaves.append(value.detach().clone().requires_grad_())
        return leaves[-1]

    given = [leaf(value) for value in arguments[:inputs]]
    try:
        result = function(*given, *arguments[inputs:])
        return list(torch.autograd.grad(result.square().sum() if result.ndim else result, leaves))
    except (RuntimeError, TypeError, AttributeError):  # detached on the way, or no tensor at all
        return None


# --- networks ---------------------------------------------------------------------------------------------------


def other_layers(got: nn.Module, expected: nn.Module, kinds: Sequence[type[nn.Module]]) -> str:
    """The first difference in number or shapes of the layers of these kinds; "" where there is none."""
    for kind in kinds:
        mine, theirs = _layers(got, kind), _layers(expected, kind)
        if len(mine) != len(theirs):
            return f"got {len(mine)} {kind.__name__}, expected {len(theirs)}"
        for (name, layer), (_, other) in zip(mine, theirs, strict=True):
            state, wanted = layer.state_dict(), other.state_dict()
            for key in [*wanted, *state]:
                shapes = [tuple(s[key].shape) if key in s else "none" for s in (state, wanted)]
                if shapes[0] != shapes[1]:
                    return f"the {key} of {kind.__name__} {name!r}: got {shapes[0]}, expected {shapes[1]}"
    return ""


def with_its_weights(source: nn.Module, target: nn.Module, kinds: Sequence[type[nn.Module]]) -> Iterator[nn.Module]:
    """Copies of `target` with the weights of `source`, in the order of definition, then in every other one.

    In which order a block defines its layers is its own affair: what counts is that one of these copies does the same as it.
    """
    for orders in itertools.product(*(itertools.permutations(_layers(source, kind)) for kind in kinds)):
        made = deepcopy(target)
        for kind, order in zip(kinds, orders, strict=True):
            for (_, mine), (_, other) in zip(order, _layers(made, kind), strict=True):
                other.load_state_dict(mine.state_dict())
        yield made


def _layers(module: nn.Module, kind: type[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(name, m) for name, m in module.named_modules() if isinstance(m, kind)]
