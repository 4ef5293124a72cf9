"""The judge: checks run here, in the grader's process; the answers stay in the kernel, and stand-ins ask for what they return."""

import builtins
import contextlib
import io
import json
import pickle
import secrets
import socket
import struct
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from srcourse.exercises import all_exercises, checking

TEXT, NUMBERS = 4 * 2**20, 256 * 2**20  # bytes of one message from the kernel: its structure, and its tensors


def printable(text: str, length: int) -> str:
    """A stranger's text in one line, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text[: 4 * length].split()))[:length]


class Judge(threading.Thread):
    """Takes answers in and gives verdicts. One at a time; what comes is a stranger's word, and is only ever read as data."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.results: dict[str, tuple[str, str]] = {}
        self.stopped = threading.Event()
        self.token = secrets.token_hex(16)  # keeps other programs of this machine from handing in; it is no secret to the kernel
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(0.2)
        self.port = self._server.getsockname()[1]
        self.start()

    def run(self) -> None:
        """Serve until the end."""
        while not self.stopped.is_set():
            try:
                connection, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with connection, contextlib.suppress(Exception):
                self._judge(Line(Wire(connection, self.stopped)))

    def _judge(self, line: "Line") -> None:
        token, number, answer = line.receive()
        exercise = all_exercises().get(number) if token == self.token and isinstance(number, str) else None
        if exercise is None:
            return
        module = getattr(answer, "__module__", None)
        if isinstance(module, str) and module.startswith("srcourse.exercises."):
            result, remark = "FAIL", "that is the course's own reference, not an answer"
        else:
            result, remark = checking.verdict(exercise, answer)
        self.results[number] = (result, "" if result == "PASS" else printable(remark, 300))
        line.wire.send(pickle.dumps({"do": "end"}))

    def close(self) -> None:
        """Take in nothing more."""
        self.stopped.set()
        self._server.close()
        self.join(timeout=10)


class Wire:
    """Messages over a socket, each with its length before it."""

    def __init__(self, connection: socket.socket, stopped: threading.Event | None = None):
        self.connection, self.stopped = connection, stopped
        connection.settimeout(None if stopped is None else 0.2)

    def __deepcopy__(self, memo: dict) -> "Wire":
        return self  # whoever copies a stand-in still talks to the one answer

    def send(self, data: bytes) -> None:
        """Send a message."""
        rest = memoryview(struct.pack(">Q", len(data)) + data)
        while rest:
            rest = rest[self._patiently(lambda rest=rest: self.connection.send(rest)) :]

    def receive(self) -> bytes:
        """Receive a message."""
        length = struct.unpack(">Q", self._exactly(8))[0]
        if length > TEXT + NUMBERS:
            raise ValueError(f"a message of {length} bytes: expected at most {TEXT + NUMBERS}")
        return self._exactly(length)

    def _exactly(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            wanted = min(length - len(data), 2**20)
            more = self._patiently(lambda wanted=wanted: self.connection.recv(wanted))
            if not more:
                raise EOFError("the answer's kernel has ended")
            data += more
        return bytes(data)

    def _patiently(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except TimeoutError:
                if self.stopped is not None and self.stopped.is_set():
                    raise EOFError("the answer's kernel was stopped") from None


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128)
DTYPES = {str(dtype): dtype for dtype in (*_FLOATS, torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)}


class Line:
    """The judge's end of a connection: asks the kernel, and makes stand-ins and plain values of what comes back."""

    def __init__(self, wire: Wire):
        self.wire = wire
        self._blobs: list[bytes] = []
        self._outputs: tuple[torch.Tensor, ...] = ()

    def receive(self, into: "_Module | None" = None) -> Any:
        """The next message's value; what it says of a network goes `into` one, where there is one already."""
        message = self.wire.receive()
        try:
            length = struct.unpack(">Q", message[:8])[0]
            if length > TEXT:
                raise ValueError
            tree, sizes = json.loads(message[8 : 8 + length])
            self._blobs, position = [], 8 + length
            for size in sizes:
                self._blobs.append(message[position : position + size])
                position += size
            return self._value(tree, into)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, RecursionError, struct.error) as error:
            raise ValueError(f"the kernel sent what is no answer ({type(error).__name__})") from None

    def ask(self, into: "_Module | None" = None, **message: Any) -> Any:
        """Send a request, and raise what the kernel's side raised, or return what it returned."""
        self.wire.send(pickle.dumps(message))
        reply = self.receive(into)
        if isinstance(reply, _Error):
            raise reply.made()
        return reply

    def call(self, number: int, arguments: tuple, keywords: dict, *, module: "_Module | None" = None, into: "_Module | None" = None) -> Any:
        """Have the kernel call what it keeps under `number`; arguments come back as changed as a call here would leave them."""
        state = [] if module is None else [*module.parameters(), *module.buffers()]
        body = io.BytesIO()
        pickler = _Pickler(body, state)
        pickler.dump((arguments, keywords))
        tensors = pickler.tensors
        networks = [v for v in (*arguments, *keywords.values()) if isinstance(v, nn.Module)]
        optimizers = [v for v in (*arguments, *keywords.values()) if isinstance(v, torch.optim.Optimizer)]
        call, outputs, reply, changed, gradients, modes, states = self.ask(
            into,
            do="call",
            number=number,
            body=body.getvalue(),
            tensors=[
                (t.detach().cpu().clone(), t.requires_grad, isinstance(t, nn.Parameter), t.grad if t.is_leaf else None) for t in tensors
            ],
            state=len(state),
            modes=None if module is None else [m.training for m in module.modules()],
            graph=torch.is_grad_enabled(),
        )
        with torch.no_grad():
            for index, value in changed:
                tensors[index].data = value
            for tensor, value in zip(tensors, gradients, strict=True):
                if tensor.is_leaf:
                    tensor.grad = value
        for network, flags in zip(networks, modes, strict=True):
            for part, training in zip(network.modules(), flags, strict=True):
                part.training = training is True
        for optimizer, values in zip(optimizers, states, strict=True):
            optimizer.load_state_dict(values)
        if outputs:
            outputs = _Pull.apply(self, call, tuple(outputs), *tensors)
        return _put(reply, outputs)

    def _value(self, node: Any, into: "_Module | None" = None) -> Any:
        if node is None or isinstance(node, bool | str | int | float):
            return node
        kind, content = node
        if kind == "...":
            return ...
        if kind == "int":
            return int(content, 16)
        if kind in ("list", "tuple"):
            values = [self._value(v, into) for v in content]
            return values if kind == "list" else tuple(values)
        if kind == "dict":
            return {self._value(k): self._value(v) for k, v in content}
        if kind == "tensor":
            dtype, shape, blob = content
            shape = [_length(n) for n in shape]
            if 0 in shape:
                return torch.empty(shape, dtype=DTYPES[dtype])
            return torch.frombuffer(bytearray(self._blobs[blob]), dtype=DTYPES[dtype]).reshape(shape)
        if kind == "array":
            dtype, shape, blob = content
            dtype = np.dtype(dtype)
            if dtype.kind not in "biufc":
                raise ValueError
            return np.frombuffer(self._blobs[blob], dtype).reshape([_length(n) for n in shape]).copy()
        if kind == "output":
            return Output(_length(content))
        if kind == "module":
            number, parts, tensors = content
            return (_Module.__new__(_Module) if into is None else into)._become(self, _length(number), parts, self._value(tensors))
        if kind == "callable":
            return self._callable(*content)
        if kind == "error":
            return _Error(*(str(text) for text in content))
        return _Other(str(content)[:80])

    def _callable(self, number: int, name: Any, origin: Any, bases: list | None) -> Any:
        own = _ours(origin)
        if own is not None:
            return own  # our own function is better asked here than there
        if bases is None:
            return _Function(self, _length(number), str(name)[:80])
        ours = [base for base in map(_ours, bases) if isinstance(base, type) and issubclass(base, nn.Module)][:1]
        return type("Answer", (_Module, *ours), {"_number": _length(number), "_line": self})


def _length(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _put(value: Any, outputs: Sequence[torch.Tensor]) -> Any:
    """The value with the outputs in their places."""
    if isinstance(value, Output):
        return outputs[value.index]
    if isinstance(value, list | tuple):
        return type(value)(_put(v, outputs) for v in value)
    return {k: _put(v, outputs) for k, v in value.items()} if isinstance(value, dict) else value


def _ours(origin: Any) -> Any:
    """What "module:name" stands for in this package, as far as it is loaded; None for anything else."""
    module, _, name = str(origin).partition(":")
    found = sys.modules.get(module) if module.partition(".")[0] == "srcourse" else None
    for part in name.split("."):
        found = getattr(found, part, None)
    return found if callable(found) and getattr(found, "__module__", None) == module else None


@dataclass
class Output:
    """A place in a message where the tensor with this number belongs: one that carries a gradient."""

    index: int


@dataclass
class _Error:
    name: str
    base: str
    text: str

    def made(self) -> Exception:
        """An exception of the kind that was raised there."""
        base = getattr(builtins, self.base, Exception)
        if not (isinstance(base, type) and issubclass(base, Exception)):
            base = Exception
        try:
            return (base if base.__name__ == self.name else type(self.name[:60], (base,), {}))(printable(self.text, 300))
        except (TypeError, ValueError):  # some take more than a text
            return Exception(printable(self.text, 300))


class _Other:
    """Stands for a value that is neither numbers, text nor a function."""

    def __init__(self, text: str):
        self.text = printable(text, 80)

    def __repr__(self) -> str:
        return self.text


class _Function(_Other):
    """Stands for a learner's function."""

    def __init__(self, line: Line, number: int, text: str):
        super().__init__(text)
        self.line, self.number = line, number

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self.line.call(self.number, arguments, keywords)


class _Module(nn.Module):
    """Stands for a learner's network: parts and weights are here, as data; `forward` is there. Subclassed for a class of them."""

    _line: Line
    _number = -1

    def __init__(self, *arguments: Any, **keywords: Any):
        made = self._line.call(type(self)._number, arguments, keywords, into=self)
        if made is not self:
            raise TypeError(f"expected a network, got {made!r:.80}")

    def _become(self, line: Line, number: int, parts: list, tensors: list[torch.Tensor]) -> "_Module":
        nn.Module.__init__(self)
        self._line, self._number = line, number
        table = {}
        for path, kind, attributes, parameters, buffers, training in parts:
            part: nn.Module = self
            if path:
                known = getattr(nn, str(kind), None)
                known = known if isinstance(known, type) and issubclass(known, nn.Module) else nn.Module
                part = known.__new__(known)
                nn.Module.__init__(part)
                above, _, name = path.rpartition(".")
                self.get_submodule(above).add_module(name, part)
                for key, value in line._value(attributes).items():
                    if key.isidentifier() and not key.startswith("_") and not hasattr(known, key):
                        part.__dict__[key] = value
            for name, index, learns in parameters:
                if index is not None and index not in table:
                    table[index] = nn.Parameter(tensors[index], requires_grad=learns is True)
                part.register_parameter(name, None if index is None else table[index])
            for name, index in buffers:
                part.register_buffer(name, None if index is None else tensors[index])
            part.training = training is True
        return self

    def forward(self, *arguments: Any, **keywords: Any) -> Any:
        return self._line.call(self._number, arguments, keywords, module=self)


class _Pickler(pickle.Pickler):
    """Arguments on their way to the kernel; tensors go beside them, so that their changes can come back."""

    def __init__(self, file: io.BytesIO, first: list[torch.Tensor]):
        super().__init__(file)
        self.tensors = list(first)

    def persistent_id(self, thing: Any) -> Any:
        """Tensors by their place in the list, the kernel's own functions by their number there."""
        if isinstance(thing, _Function):
            return ("kept", thing.number)
        if not isinstance(thing, torch.Tensor):
            return None
        for index, known in enumerate(self.tensors):
            if known is thing:
                return ("tensor", index)
        self.tensors.append(thing)
        return ("tensor", len(self.tensors) - 1)


class _Pull(torch.autograd.Function):
    """What the kernel computed, differentiable here: the way back is asked for there."""

    @staticmethod
    def forward(ctx: Any, line: Line, call: int, outputs: tuple, *tensors: torch.Tensor) -> tuple:
        ctx.line, ctx.call, ctx.wanted = line, call, [t.requires_grad for t in tensors]
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple:
        """The gradients of the tensors, as the kernel's graph gives them."""
        found = ctx.line.ask(do="pull", call=ctx.call, gradients=[g.detach().clone() for g in gradients])
        return (None, None, None, *(g if wanted else None for g, wanted in zip(found, ctx.wanted, strict=True)))
