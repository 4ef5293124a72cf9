"""What a run will cost, before it begins: memory, and time here and on eight A100.

Nothing is guessed that can be measured. The recipe's own method runs for a few steps on random patches, as many as the
machine bears; meanwhile every multiplication that PyTorch does, every operation that it starts and every tensor that it
keeps for the backward pass is counted. What grows with the batch is then scaled to the recipe's.
"""

import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from srcourse import data, images, machine, models
from srcourse.training.engine import Engine
from srcourse.training.multipass import chosen_scale
from srcourse.training.recipe import Recipe
from srcourse.training.run import METHODS

_GPUS = 8
_A100_FLOPS, _A100_SHARE = 312e12, 0.4  # bf16 without sparsity, by NVIDIA's data sheet; what convolutions reach of it
_LAUNCH = 10e-6  # seconds that Python and the driver take to start one operation
_A100_BYTES = 80e9
_PATIENCE = 5.0  # seconds that a timed step may take


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a recipe's training costs; prints as a few lines with their arithmetic.

    Attributes
    ----------
    recipe : Recipe
    parameters : int
        Of the network that the run is for.
    patches : int
        How many of the batch were measured at once.
    flops : float
        Floating-point operations of one step of the whole batch, two for a multiplication with its addition; forward and
        backward, all networks. Counted for matrix products and convolutions, beside which the rest is little.
    operations : float
        Started by one step, backward pass included.
    state_bytes, activation_bytes, photo_bytes : int
        Weights with their gradients and Adam's two moments, and the networks that only judge; what one step (of one of the
        recipe's pieces) keeps for its backward pass, in float32; the bank.
    seconds : float
        Of one step of the whole batch on this machine's device, without validation.
    device : str
    """

    recipe: Recipe
    parameters: int
    patches: int
    flops: float
    operations: float
    state_bytes: int
    activation_bytes: int
    photo_bytes: int
    seconds: float
    device: str

    @property
    def bytes(self) -> int:
        """Memory in all: on a GPU its own, where the bank lies, too. A step works with about as much again as it keeps."""
        return self.state_bytes + 2 * self.activation_bytes + self.photo_bytes

    @property
    def processes(self) -> int:
        """How many of eight GPUs the batch can be cut for."""
        return max(n for n in range(1, _GPUS + 1) if self.recipe.data.batch % (n * self.recipe.optimizer.accumulate) == 0)

    @property
    def a100_seconds(self) -> float:
        """Of one step on that many A100: arithmetic or launching, whichever takes longer."""
        return max(self.flops / self.processes / (_A100_FLOPS * _A100_SHARE), self.operations * _LAUNCH)

    def __str__(self) -> str:
        recipe, n = self.recipe, self.processes
        free = machine.free_device_memory(torch.device(self.device))
        of = f", of {_size(free)} that are free" if free else ""
        warning = "; THIS DOES NOT FIT: set optimizer.accumulate, or lower data.batch" if free and self.bytes > free else ""
        arithmetic = self.flops / n / (_A100_FLOPS * _A100_SHARE)
        longest = f"{recipe.steps:,} steps = {duration(self.a100_seconds * recipe.steps)}"
        on_each = (self.state_bytes + self.activation_bytes / n + self.photo_bytes) / _A100_BYTES
        pieces = f" in {recipe.optimizer.accumulate} pieces" * (recipe.optimizer.accumulate > 1)
        kept = f"{_size(self.activation_bytes)}, as much again to work with"
        lines = [
            f"{recipe.label}: {recipe.method} · {self.parameters:,} parameters",
            f"  a step       {recipe.data.batch} patches of {recipe.data.patch}×{recipe.data.patch}{pieces}: "
            f"{self.flops / 1e12:.3g} TFLOP, forward and backward",
            f"  memory       weights, gradients, Adam {_size(self.state_bytes)} + kept for the backward pass "
            f"{kept} + photos {_size(self.photo_bytes)} = {_size(self.bytes)}{of}{warning}",
            f"  here         {self.seconds:.3g} s a step on {self.device} (timed with {self.patches} patches, without validation) × "
            f"{recipe.steps:,} steps = {duration(self.seconds * recipe.steps)}",
            f"  {n} × A100     arithmetic {self.flops / n / 1e12:.3g} TFLOP each / ({_A100_FLOPS / 1e12:g} TFLOP/s × {_A100_SHARE}) = "
            f"{1e3 * arithmetic:.3g} ms; launching {self.operations:,.0f} operations × {1e6 * _LAUNCH:g} µs = "
            f"{1e3 * self.operations * _LAUNCH:.3g} ms",
            f"               the longer of the two × {longest}; {on_each:.0%} of each one's memory, activations in bf16",
        ]
        return "\n".join(lines)


def estimate(recipe: Recipe, photos: str | os.PathLike | None = None) -> Estimate:
    """Measure a few steps of a recipe on random patches, and reckon the whole run from them; nothing is written.

    Of a training in phases (rGAN, score predictors) it is the second, longer and dearer, whose steps are measured.

    Parameters
    ----------
    recipe : Recipe
    photos : folder or prepared file, optional
        What will be learned from: only its images' sizes are looked at.

    Raises
    ------
    FileNotFoundError, ValueError
        If there are no such photos.
    """
    photo_bytes = _photo_bytes(recipe, photos)  # a wrong folder is told before anything is measured
    whole = recipe.data.batch
    patches = unit = min(2, whole)
    probe = _probe(recipe, patches, steps=1, counting=True)
    room = (machine.free_device_memory(probe.device) or math.inf) / 2
    for count in (min(8 * patches, whole), whole):  # larger batches are timed truer, as far as time and memory allow
        grown = count / patches
        if grown > 1 and probe.seconds * grown < _PATIENCE and probe.activation_bytes * grown < room and count % unit == 0:
            patches, probe = count, _probe(recipe, count, steps=1, counting=True)
    timed = _probe(recipe, patches, steps=3, counting=False)
    factor = whole / patches
    return Estimate(
        recipe=recipe,
        parameters=models.count_parameters(probe.networks[probe.result]),
        patches=patches,
        flops=probe.flops * factor,
        operations=probe.operations * recipe.optimizer.accumulate,
        state_bytes=probe.state_bytes,
        activation_bytes=int(probe.activation_bytes * factor / recipe.optimizer.accumulate),
        photo_bytes=photo_bytes,
        seconds=timed.seconds * factor,
        device=timed.device.type,
    )


class _Probe(Engine):
    """An engine whose steps are few, counted or timed, and leave nothing behind. The first is a warm-up."""

    counting, flops, operations, activation_bytes, seconds = False, 0.0, 0.0, 0, 0.0

    def steps(self) -> Iterator[int]:
        """A warm-up, then as many as were asked for and every path needs, each between two looks at the clock or the counters."""
        by_path: dict[int, list[list[float]]] = {}
        wanted, step = self._paths(), 0
        yield step
        while len(by_path) < len(wanted) or step < self.recipe.steps:
            step += 1
            kept, counted = _Kept(), _Operations()
            start = time.perf_counter()
            if self.counting:
                with FlopCounterMode(display=False) as flops, counted, torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
                    yield step
                row = [float(flops.get_total_flops()), float(counted.count)]
                self.activation_bytes = max(self.activation_bytes, kept.peak)
            else:
                yield step
                row = []
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            by_path.setdefault(self._path(step), []).append([time.perf_counter() - start, *row])
        # each path of an EUSR alike, however often chance took it
        means = (
            torch.tensor([torch.tensor(rows).double().mean(0).tolist() for rows in by_path.values()], dtype=torch.float64).mean(0).tolist()
        )
        self.seconds = means[0]
        if self.counting:
            self.flops, self.operations = means[1:]

    def _paths(self) -> tuple[int, ...]:
        return tuple(self.networks[self.result].scales) if self.recipe.method == "multi-scale" else (self.recipe.scale,)

    def _path(self, step: int) -> int:
        if self.recipe.method == "multi-scale":
            return chosen_scale(self._paths(), self.recipe.seed, step)
        return self.recipe.scale

    @property
    def state_bytes(self) -> int:
        """Four numbers of 4 bytes for what learns (weight, gradient, two moments), one for what only judges."""
        learning = sum(p.numel() for optimizer in self.optimizers.values() for group in optimizer.param_groups for p in group["params"])
        return 16 * learning + 4 * self.judging

    judging = 0

    def place(self, module: torch.nn.Module) -> torch.nn.Module:
        """As the engine does, and count it."""
        self.judging += sum(p.numel() for p in module.parameters())
        return super().place(module)


def _probe(recipe: Recipe, patches: int, *, steps: int, counting: bool) -> Any:
    """Run the recipe's method for a few steps of so many random patches."""
    small = _changed(
        recipe,
        start=None,
        steps=steps,
        minutes=None,
        data=_changed(recipe.data, batch=patches, crops_per_image=1, hold_out=0.0),
        optimizer=_changed(recipe.optimizer, accumulate=1),
        perceptual=_changed(recipe.perceptual, weights="course" if recipe.perceptual.weights == "course" else "random"),
        scores=_changed(recipe.scores, head_steps=0, backbone="random"),
        recursive=_changed(recipe.recursive, first_steps=0, replay=0.0),
    )
    engine_class, method = METHODS[recipe.method]
    side = recipe.data.patch * max([small.enlargement, *small.further_scales()]) // small.enlargement
    random = [torch.rand(3, side, side, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    photos = data.synthetic_ratings(random, 4, size=recipe.data.patch) if recipe.method == "scores" else random
    engine = type("Probe", (_Probe, engine_class), {})(small, photos, progress=False)
    engine.counting = counting
    try:
        method(engine)
    finally:
        engine.release()
    return engine


def _changed(part: Any, **fields: Any) -> Any:
    return part.model_copy(update=fields)


class _Operations(TorchDispatchMode):
    """Counts what PyTorch starts: about one kernel each."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += not function.is_view
        return function(*args, **(kwargs or {}))


class _Kept:
    """Counts the bytes that are kept for the backward pass at the same time; storage that two tensors share counts once."""

    def __init__(self) -> None:
        self.now, self.peak, self.holders = 0, 0, {}

    def pack(self, tensor: torch.Tensor):
        """What autograd keeps in place of a tensor: one that tells when it goes. Weights are counted elsewhere."""
        if isinstance(tensor, torch.nn.Parameter) or not tensor.numel():
            return tensor
        return _Holder(tensor, self)

    @staticmethod
    def unpack(kept):
        """The tensor again."""
        return kept.tensor if isinstance(kept, _Holder) else kept

    def change(self, storage: torch.UntypedStorage, by: int) -> None:
        """One holder more, or one less."""
        key, before = storage.data_ptr(), self.holders.get(storage.data_ptr(), 0)
        self.holders[key] = before + by
        if before == 0:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
        elif before + by == 0:
            self.now -= storage.nbytes()


class _Holder:
    def __init__(self, tensor: torch.Tensor, kept: _Kept):
        self.tensor, self.kept = tensor, kept
        kept.change(tensor.untyped_storage(), 1)

    def __del__(self) -> None:
        self.kept.change(self.tensor.untyped_storage(), -1)


def _photo_bytes(recipe: Recipe, source: str | os.PathLike | None) -> int:
    """Of the bank: three bytes a pixel, of the HR images and of each scale's LR images."""
    if recipe.method == "scores":
        return 0  # rated images are read when their turn comes
    if source is None:
        sizes = [photo.shape[-2:] for photo in data.training_samples()]
    elif data.is_prepared(source):
        sizes = data.prepared(source).sizes
    else:
        sizes = [_size_of(path) for path in images.find(source)]
    scales = [recipe.enlargement, *recipe.further_scales()]
    return int(3 * sum(h * w for h, w in sizes) * (1 + sum(1 / s**2 for s in scales)))


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as file:  # the header alone
            return file.height, file.width
    except (OSError, ValueError, Image.DecompressionBombError):
        images.read(path)  # says what is wrong with it, in one line
        raise


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    """A time in the two units that a person would use: "3 days 4 h", "2 h 5 min", "40 s"."""
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 2:
        return f"{seconds:.0f} s"
    if hours < 2:
        return f"{minutes:.0f} min"
    if days < 2:
        return f"{hours:.1f} h"
    return f"{days:.0f} days"
