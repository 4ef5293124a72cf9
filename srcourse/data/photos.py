"""Folders of photos, of LR–HR pairs, and of benchmarks; the sample photos as a collection."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from srcourse import degradation, images
from srcourse.data.dead_leaves import DeadLeaves


class Photos(Sequence):
    """Images that are read when asked for; ``names[i]`` is the name of ``photos[i]``, a (3, H, W) tensor."""

    def __init__(self, names: Sequence[str], readers: Sequence[Callable[[], torch.Tensor]]):
        self.names, self._readers = list(names), list(readers)

    def __len__(self) -> int:
        return len(self._readers)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Photos(self.names[index], self._readers[index])
        return self._readers[index]()

    def __repr__(self) -> str:
        return f"Photos({len(self)}: {', '.join(self.names[:3])}{', ...' if len(self) > 3 else ''})"


def photos(folder: str | os.PathLike) -> Photos:
    """The images of a folder, in name order: ``photos("DIV2K_train_HR")[0]`` is a (3, H, W) tensor.

    Raises ``FileNotFoundError`` without such a folder, ``ValueError`` if it holds no images.
    """
    files = images.find(folder)
    return Photos([f.stem for f in files], [lambda f=f: images.read(f) for f in files])


def samples(names: Sequence[str] = tuple(images.SAMPLES)) -> Photos:
    """Sample photos by name (all of `images.SAMPLES` by default), as `photos` gives those of a folder."""
    unknown = [name for name in names if name not in images.SAMPLES]
    if unknown:
        raise ValueError(f"there is no sample photo {unknown[0]!r}: expected one of {', '.join(images.SAMPLES)}")
    return Photos(names, [lambda n=n: images.sample(n) for n in names])


TRAINING_SAMPLES = ("brick", "camera", "grass", "gravel", "hubble", "ihc", "motorcycle", "retina", "rocket")
TEST_SAMPLES = ("astronaut", "chelsea", "coffee")
"""The sample photos that the course trains on, and those that it keeps for measuring."""


def training_samples(leaves: int = 24, size: int = 192) -> Photos:
    """What the lessons learn from offline: `TRAINING_SAMPLES` and `leaves` dead-leaves images, these first.

    None of `TEST_SAMPLES` is among them.
    """
    synthetic = DeadLeaves(seed=0, size=size, length=max(leaves, 1))
    names = [f"leaves {i}" for i in range(leaves)]
    names += TRAINING_SAMPLES
    readers: list[Callable[[], torch.Tensor]] = [lambda i=i: synthetic[i] for i in range(leaves)]
    readers += [lambda n=n: images.sample(n) for n in TRAINING_SAMPLES]
    return Photos(names, readers)


@dataclass(frozen=True)
class Pair:
    """One image of a benchmark: its name, LR (3, h, w) and HR (3, scale·h, scale·w), both in [0, 1]."""

    name: str
    lr: torch.Tensor
    hr: torch.Tensor


class Benchmark(Sequence[Pair]):
    """A named list of LR–HR pairs at one scale, read when asked for.

    Parameters
    ----------
    name : str
    scale : int
    hr : Photos, or a list of (3, H, W) tensors
        Cropped to a multiple of the scale.
    lr : Photos, optional
        Stored LR images, paired with `hr` by position; without them, LR is made from HR by `degrade`.
    degrade : callable, optional
        (image, index) → LR; by default MATLAB's bicubic. LR is rounded to 8 bits, as a saved file would be.
    """

    def __init__(self, name: str, scale: int, hr: Sequence, lr: Photos | None = None, degrade: Callable | None = None):
        self.name, self.scale, self._hr, self._lr = name, scale, hr, lr
        self._degrade = degrade or degradation.create("bicubic", scale)

    def __repr__(self) -> str:
        return f"Benchmark({self.name}, ×{self.scale}, {len(self)} images)"

    def __len__(self) -> int:
        return len(self._hr)

    def __getitem__(self, index: int) -> Pair:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} images, there is no number {index}")
        index %= len(self)
        name = self._hr.names[index] if isinstance(self._hr, Photos) else str(index)
        try:
            hr = images.crop_to_multiple(images.check(self._hr[index]), self.scale)
        except ValueError as error:
            raise ValueError(f"{name} of {self.name} cannot be used: {error}") from None
        if self._lr is None:
            return Pair(name, images.quantize(self._degrade(hr, index)), hr)
        lr = self._lr[index]
        _check_pair(name, lr, hr, self.scale)
        return Pair(name, lr, hr)

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))


def pairs(lr_folder: str | os.PathLike, hr_folder: str | os.PathLike, scale: int) -> Benchmark:
    """Stored LR and HR images, paired by name; an LR name may end in x2, x3, x4 or x8, as DIV2K's do."""
    hr, found = photos(hr_folder), photos(lr_folder)
    by_name = {name.removesuffix(f"x{scale}"): i for i, name in enumerate(found.names)}
    missing = [name for name in hr.names if name not in by_name]
    if missing:
        raise ValueError(f"{lr_folder} has no LR image for {missing[0]}: expected {missing[0]}.png or {missing[0]}x{scale}.png")
    order = [by_name[name] for name in hr.names]
    lr = Photos([found.names[i] for i in order], [lambda i=i: found[i] for i in order])
    return Benchmark(Path(hr_folder).name, scale, hr, lr)


def benchmarks(folder: str | os.PathLike, scale: int, degrade: Callable | None = None) -> list[Benchmark]:
    """The benchmarks in a folder.

    A folder with a subfolder ``HR`` is one benchmark (LR from ``LRx4`` and the like where it is there, made bicubically
    where not); so is a folder of images, taken as HR; otherwise each subfolder that is one of these counts. With `degrade`, as
    in `Benchmark`, LR is always made from HR.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} does not exist or is a file: expected a folder of images, or of benchmarks with HR and LRx{scale}"
        )
    if (folder / "HR").is_dir():
        stored = folder / f"LRx{scale}"
        if stored.is_dir() and degrade is None:
            benchmark = pairs(stored, folder / "HR", scale)
        else:
            benchmark = Benchmark(folder.name, scale, photos(folder / "HR"), degrade=degrade)
        benchmark.name = folder.name
        return [benchmark]
    if any(f.suffix.lower() in images.SUFFIXES for f in folder.iterdir()):
        return [Benchmark(folder.name, scale, photos(folder), degrade=degrade)]
    found = []
    for child in sorted(f for f in folder.iterdir() if f.is_dir()):
        if (child / "HR").is_dir() or any(f.suffix.lower() in images.SUFFIXES for f in child.iterdir()):
            found += benchmarks(child, scale, degrade)
    if not found:
        raise ValueError(f"{folder} holds no images and no benchmark: expected images, or folders with HR and LRx{scale} inside")
    return found


def _check_pair(name: str, lr: torch.Tensor, hr: torch.Tensor, scale: int) -> None:
    expected = tuple(side // scale for side in hr.shape[-2:])
    if tuple(lr.shape[-2:]) != expected:
        raise ValueError(f"the LR image of {name} is {lr.shape[-2]}×{lr.shape[-1]}: expected {expected[0]}×{expected[1]} at scale {scale}")
