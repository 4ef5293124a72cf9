"""In a kernel that is graded: ``exercises.check`` hands answers in, and the judge's questions about them are answered."""

import contextlib
import functools
import io
import json
import os
import pickle
import socket
import struct
import sys
from typing import Any

import numpy as np
import torch
from torch import nn

from srcourse.exercises import all_exercises, checking
from srcourse.grading.judge import DTYPES, NUMBERS, TEXT, Output, Wire


def attend() -> None:
    """In a kernel that grading started: set its limits, and have ``exercises.check`` hand answers in."""
    port, token, memory = os.environ["SRCOURSE_GRADER"].split()
    checking.hand_in = functools.partial(_hand_in, int(port), token)
    all_exercises()  # loaded now, and not on the first cell's time
    if os.name != "nt":
        import resource

        limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 10**9}
        if sys.platform == "linux" and not torch.cuda.is_available():  # CUDA reserves far more than it uses
            limits[resource.RLIMIT_DATA] = int(memory) * 10**6
        for kind, value in limits.items():
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(kind, (value, value))


def _hand_in(port: int, token: str, number: str, answer: Any) -> None:
    desk = Desk()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        wire = Wire(connection)
        wire.send(desk.pack((token, number, answer)))
        while (message := pickle.loads(wire.receive()))["do"] != "end":
            wire.send(desk.reply(message))
    print(f"{number} was handed in")


class Desk:
    """The kernel's end of a connection: keeps the answer, and does with it what the judge asks."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.calls: list[tuple[list, list]] = []  # differentiable outputs and the tensors they came from

    def reply(self, message: dict) -> bytes:
        """What a request gives, or which error."""
        try:
            return self.pack(self._call(**message) if message.pop("do") == "call" else self._pull(**message))
        except BaseException as error:  # an interrupt, too: then a time limit has passed
            base = next((c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"), "Exception")
            return _framed(["error", [type(error).__name__, base, str(error)[:500]]], [])

    def _call(self, number: int, body: bytes, tensors: list, state: int, modes: list | None, graph: bool) -> tuple:
        leaves: list[Any] = []
        for value, learns, parameter, gradient in tensors:
            leaf = nn.Parameter(value, requires_grad=learns) if parameter else value.requires_grad_(learns)
            leaf.grad = gradient
            leaves.append(leaf)
        target = self.kept[number]
        if modes is not None:
            for index, (mine, sent) in enumerate(zip([*target.parameters(), *target.buffers()], leaves[:state], strict=True)):
                mine.data, mine.grad, leaves[index] = sent.data, None, mine
            for part, training in zip(target.modules(), modes, strict=True):
                part.training = training
        unpickler = pickle.Unpickler(io.BytesIO(body))
        unpickler.persistent_load = lambda key: (leaves if key[0] == "tensor" else self.kept)[key[1]]
        arguments, keywords = unpickler.load()
        before = [leaf.detach().clone() for leaf in leaves]
        with torch.set_grad_enabled(graph):
            result = target(*arguments, **keywords)
        changed = [(i, a.detach()) for i, (a, b) in enumerate(zip(leaves, before, strict=True)) if not _same(a, b)]
        gradients = [leaf.grad for leaf in leaves]
        given = [*arguments, *keywords.values()]
        modes = [[m.training for m in v.modules()] for v in given if isinstance(v, nn.Module)]
        states = [v.state_dict() for v in given if isinstance(v, torch.optim.Optimizer)]
        outputs: list[torch.Tensor] = []
        result = _take(result, outputs)
        self.calls.append((outputs, leaves))
        return len(self.calls) - 1, [output.detach() for output in outputs], result, changed, gradients, modes, states

    def _pull(self, call: int, gradients: list) -> list:
        outputs, leaves = self.calls[call]
        learning = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(outputs, learning, gradients, retain_graph=True, allow_unused=True))
        return [next(found) if leaf.requires_grad else None for leaf in leaves]

    def pack(self, value: Any) -> bytes:
        """A value as data: numbers, texts and tensors themselves, functions and networks by what can be said of them."""
        blobs: list[bytes] = []
        return _framed(self._node(value, blobs), blobs)

    def _node(self, value: Any, blobs: list[bytes], depth: int = 0) -> Any:
        if depth > 50:
            raise ValueError("an answer that is nested more than 50 times")
        if value is None or isinstance(value, bool):
            return value
        if value is ...:
            return ["...", 0]
        if isinstance(value, np.generic):
            return self._node(value.item(), blobs, depth + 1)
        if isinstance(value, int):
            return int(value) if abs(value) < 2**63 else ["int", hex(value)]
        if isinstance(value, float | str):
            return float(value) if isinstance(value, float) else str(value)
        if isinstance(value, list | tuple):
            kind = "list" if isinstance(value, list) else "tuple"
            return [kind, [self._node(v, blobs, depth + 1) for v in value]]
        if isinstance(value, dict):
            return ["dict", [[self._node(k, blobs, depth + 1), self._node(v, blobs, depth + 1)] for k, v in value.items()]]
        if isinstance(value, Output):
            return ["output", value.index]
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and str(value.dtype) in DTYPES and value.device.type != "meta":
            _fits(value.numel() * value.element_size(), blobs)
            plain = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
            blobs.append(plain.reshape(-1).view(torch.uint8).numpy().tobytes())
            return ["tensor", [str(value.dtype), list(value.shape), len(blobs) - 1]]
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            _fits(value.nbytes, blobs)
            blobs.append(value.tobytes())
            return ["array", [value.dtype.str, list(value.shape), len(blobs) - 1]]
        if isinstance(value, nn.Module):
            return ["module", self._module(value, blobs)]
        if callable(value):
            return ["callable", self._callable(value)]
        return ["other", checking.show(value)[:80]]

    def _keep(self, value: Any) -> int:
        self.kept.append(value)
        return len(self.kept) - 1

    def _callable(self, value: Any) -> list:
        bases = [_origin(base) for base in value.__mro__] if isinstance(value, type) and issubclass(value, nn.Module) else None
        return [self._keep(value), checking.show(value)[:80], _origin(value), bases]

    def _module(self, module: nn.Module, blobs: list[bytes]) -> list:
        tensors: list[torch.Tensor] = []

        def index(tensor: torch.Tensor | None) -> int | None:
            if tensor is None:
                return None
            for i, known in enumerate(tensors):
                if known is tensor:
                    return i
            tensors.append(tensor)
            return len(tensors) - 1

        parts = []
        for path, part in module.named_modules():
            kind = type(part).__name__ if getattr(nn, type(part).__name__, None) is type(part) else ""
            plain = {k: v for k, v in vars(part).items() if not k.startswith("_") and _is_plain(v)} if path else {}
            parameters = [[name, index(p), p is not None and p.requires_grad] for name, p in part._parameters.items()]
            buffers = [[name, index(b)] for name, b in part._buffers.items()]
            parts.append([path, kind, self._node(plain, blobs), parameters, buffers, part.training])
        return [self._keep(module), parts, self._node(tensors, blobs)]


def _framed(tree: Any, blobs: list[bytes]) -> bytes:
    text = json.dumps([tree, [len(blob) for blob in blobs]]).encode()
    if len(text) > TEXT:
        raise ValueError(f"an answer of {len(text):,} letters is too long: expected at most {TEXT:,}")
    return b"".join([struct.pack(">Q", len(text)), text, *blobs])


def _fits(size: int, blobs: list[bytes]) -> None:
    if size + sum(map(len, blobs)) > NUMBERS:
        raise ValueError(f"an answer of {size:,} bytes is too large: expected at most {NUMBERS:,}")


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.detach(), b)


def _take(value: Any, outputs: list[torch.Tensor]) -> Any:
    """The value with places for its tensors that carry a gradient, which are put into `outputs`."""
    if isinstance(value, torch.Tensor) and value.requires_grad and not isinstance(value, nn.Parameter):
        outputs.append(value)
        return Output(len(outputs) - 1)
    if type(value) in (list, tuple):
        return type(value)(_take(v, outputs) for v in value)
    return value


def _origin(value: Any) -> str:
    module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    return f"{module}:{name}" if str(module).partition(".")[0] == "srcourse" else ""


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or (isinstance(value, tuple) and all(map(_is_plain, value)))
