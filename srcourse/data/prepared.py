"""Photos prepared once for training: HR and LR pixels at 8 bits in one file that is mapped into memory, not read into it.

For data that does not fit in memory, and for runs that begin at once: a `PatchBank` of a prepared file makes the very
batches that one of the folder makes. The file: 16 magic bytes; a table of HR pixels, photo after photo; one of LR pixels
for each scale; what they are, as JSON; where that begins, and the magic bytes again.
"""

import hashlib
import json
import math
import os
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from srcourse import images
from srcourse.data.photos import Photos
from srcourse.degradation import Bicubic, Degradation, GaussianBlur, Jpeg
from srcourse.files import whole_file

_MAGIC = b"srcourse bank 1\n"
_END = struct.Struct("<QQ16s")  # where the JSON begins, its length, the magic bytes
_PAGE = 4096
_STEADY = (Bicubic, GaussianBlur, Jpeg)  # steps without random choices: the seed does not matter

Degrade = Callable[[torch.Tensor, int], torch.Tensor]


class PreparedPhotos(Photos):
    """The photos of a prepared file, from `prepared`: a sequence like a folder's, that a `PatchBank` need not decode.

    Its photos are the HR pixels, cropped to a multiple of the scales. ``prepared[:n]`` is prepared, too; other slices are
    plain `Photos`, for their LR images may have been made with other random numbers.
    """

    def __init__(self, path: Path, about: dict, count: int | None = None):
        self.path, self._about = path, about
        self._file = open(path, "rb")  # noqa: SIM115 - as long as its pixels are mapped
        self._length = os.fstat(self._file.fileno()).st_size
        count = len(about["names"]) if count is None else count
        self.sizes = [tuple(size) for size in about["sizes"][:count]]  # of the HR images: (height, width)
        ends = np.cumsum([0, *(height * width for height, width in self.sizes)])
        self._hr = self.table(1)
        super().__init__(about["names"][:count], [lambda i=i: self._photo(i, ends) for i in range(count)])

    def __getitem__(self, index):
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if start == 0 and stop > 0 and step == 1:
                return PreparedPhotos(self.path, self._about, stop)
        return super().__getitem__(index)

    @property
    def source(self) -> str:
        """What `prepare` was told of where the photos came from."""
        return self._about.get("source", "")

    @property
    def scales(self) -> list[int]:
        """The scales of its LR images."""
        return [int(scale) for scale in self._about["made"]]

    def _photo(self, index: int, ends: np.ndarray) -> torch.Tensor:
        self.check_length()
        height, width = self.sizes[index]
        return self._hr[ends[index] : ends[index + 1]].reshape(height, width, 3).permute(2, 0, 1).contiguous() / 255

    def table(self, scale: int) -> torch.Tensor:
        """The pixels at 1/scale, photo after photo: (pixels, 3) uint8, mapped from the file; not to be written to."""
        pixels = sum(height * width for height, width in self.sizes) // scale**2
        mapped = np.memmap(self._file, dtype=np.uint8, mode="r", offset=self._about["tables"][str(scale)]["start"], shape=(pixels, 3))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(mapped)

    def check_length(self) -> None:
        """``ValueError`` if the file was cut short since it was mapped: reading beyond its end would kill the process."""
        if os.fstat(self._file.fileno()).st_size < self._length:
            raise ValueError(f"{self.path} was cut short while it was in use: make it again with data_scripts/prepare.py")

    @property
    def digests(self) -> list[str]:
        """For each photo, the short fingerprint of all HR pixels up to its last."""
        return self._about["tables"]["1"]["digests"][: len(self)]

    def digest(self, scale: int) -> str:
        """The short fingerprint of a table, as a bank in memory would compute it."""
        return self._about["tables"][str(scale)]["digests"][len(self) - 1]

    def require(self, degradations: Mapping[int, Degrade]) -> None:
        """``ValueError`` unless the file's LR images are what these degradations make, from photos cropped alike."""
        made, asked = self._about["made"], {str(scale): describe(degrade) for scale, degrade in degradations.items()}
        for scale, what in asked.items():
            if made.get(scale) != what:
                has = f"LR images by {made[scale]}" if scale in made else f"LR images for the scales {', '.join(made)} only"
                raise ValueError(f"{self.path} has {has}, and {what} is asked for: prepare the photos again, for this recipe and scale")
        if math.lcm(*map(int, made)) != math.lcm(*map(int, asked)):
            raise ValueError(
                f"{self.path} was cropped for the scales {', '.join(made)}, not for {', '.join(asked)} alone: prepare the photos again"
            )

    def verify(self) -> None:
        """Read all pixels once; ``ValueError`` if any changed since the file was written."""
        for scale in (1, *self.scales):
            if hashlib.sha256(np.asarray(self.table(scale))).hexdigest()[:8] != self.digest(scale):
                raise ValueError(f"{self.path} is damaged: pixels at 1/{scale} changed; prepare the photos again")


def prepare(
    photos: Sequence[torch.Tensor],
    path: str | os.PathLike,
    degradations: Mapping[int, Degrade],
    *,
    smallest: int = 1,
    source: str = "",
    progress: Callable = iter,
) -> PreparedPhotos:
    """Write a file of prepared photos, whole or not at all; one photo at a time is in memory.

    Parameters
    ----------
    photos : sequence of (3, H, W) tensors in [0, 1]
    degradations : mapping of scale to `degradation.Degradation`
        One for each scale that the `PatchBank` will have.
    smallest : int
        Side of the largest HR patch that will be cut.
    source : str
        Kept in the file, to know again what it was made of.

    Raises
    ------
    ValueError
        If there are no photos, one is smaller than `smallest` (named), or a degradation does not describe itself.
    OSError
        If the disk is full: nothing is left.
    """
    path = Path(path)
    made = {scale: describe(degrade) for scale, degrade in degradations.items()}
    hashes = {scale: hashlib.sha256() for scale in (1, *degradations)}
    tables = {scale: {"start": 0, "digests": []} for scale in hashes}
    names, sizes = [], []
    with whole_file(path) as partial, open(partial, "wb") as file:
        small = {scale: tempfile.TemporaryFile(dir=path.parent) for scale in degradations}  # noqa: SIM115
        try:
            _start_table(file, tables[1])
            for name, hr, lrs in degraded(photos, degradations, smallest, progress=progress):
                for scale, image in {1: hr, **lrs}.items():
                    pixels = table_pixels(image).numpy()
                    hashes[scale].update(pixels)
                    tables[scale]["digests"].append(hashes[scale].hexdigest()[:8])
                    (file if scale == 1 else small[scale]).write(pixels)
                names.append(name)
                sizes.append(hr.shape[-2:])
            for scale, part in small.items():
                _start_table(file, tables[scale])
                part.seek(0)
                shutil.copyfileobj(part, file, 2**22)
        finally:
            for part in small.values():
                part.close()
        about = json.dumps({"names": names, "sizes": sizes, "made": made, "tables": tables, "source": source}).encode()
        begin = file.tell()
        file.write(about + _END.pack(begin, len(about), _MAGIC))
    return prepared(path)


def prepared(path: str | os.PathLike) -> PreparedPhotos:
    """Open a file that `prepare` wrote; nothing of it is read but what it says of itself.

    ``FileNotFoundError`` without such a file, ``ValueError`` if it is another one or was cut short.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a file of prepared photos (see data_scripts/prepare.py)")
    try:
        return PreparedPhotos(path, _read_about(path))
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError, OverflowError):
        raise ValueError(f"{path} is no file of prepared photos, or was cut short: make it again with data_scripts/prepare.py") from None


def is_prepared(path: str | os.PathLike) -> bool:
    """Whether this is a file that begins as `prepare` writes them."""
    path = Path(path)
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def describe(degrade: Degrade) -> str:
    """What a degradation does, in words that are equal for equal ones: its steps, and the seed where one is random."""
    if not isinstance(degrade, Degradation):
        raise ValueError(f"the degradation {degrade!r} cannot be told from others: expected one of srcourse.degradation.create")
    steady = all(isinstance(step, _STEADY) for step in degrade.steps)
    return f"{', '.join(map(repr, degrade.steps))} at scale {degrade.scale}" + (f" with seed {degrade.seed}" if not steady else "")


def degraded(
    photos: Sequence[torch.Tensor],
    degradations: Mapping[int, Degrade],
    largest: int,
    *,
    patch: int | None = None,
    progress: Callable = iter,
) -> Iterator[tuple[str, torch.Tensor, dict[int, torch.Tensor]]]:
    """Read each photo once: its name, HR cropped to a multiple of all scales, and LR at each; what does not fit is named.

    `largest` is the side of the largest HR patch, `patch` that at the bank's own scale.
    """
    if len(photos) == 0:
        raise ValueError("there are no photos to cut patches from: expected at least one")
    whole = math.lcm(*degradations)
    names = getattr(photos, "names", None) or [f"photo {i}" for i in range(len(photos))]
    for i in progress(range(len(photos))):
        photo = images.check(photos[i], name=names[i])
        if photo.ndim != 3 or photo.shape[0] != 3:
            raise ValueError(f"{names[i]} has shape {tuple(photo.shape)}: expected a colour image (3, height, width)")
        check_size(names[i], photo.shape[-2:], degradations, largest, patch)
        photo = images.crop_to_multiple(photo, whole)
        lrs = {}
        for scale, shrink in degradations.items():
            lrs[scale] = lr = shrink(photo, i)
            if lr.shape != (3, photo.shape[-2] // scale, photo.shape[-1] // scale):
                raise ValueError(
                    f"the degradation for scale {scale} made {tuple(lr.shape)} of {tuple(photo.shape)}: expected its sides over {scale}"
                )
        yield names[i], photo, lrs


def check_size(name: str, size: Sequence[int], scales: Mapping[int, object], largest: int, patch: int | None = None) -> None:
    """``ValueError`` if no HR patch of side `largest` fits a photo of this size (height, width), cropped for the scales."""
    whole = math.lcm(*scales)
    if min(size) // whole * whole < max(largest, whole):
        at = f" (at scale {max(scales)})" * (largest > (patch or largest))
        raise ValueError(
            f"{name} is {size[0]}×{size[1]} pixels, smaller than a patch of {max(largest, whole)}{at}: leave it out or lower data.patch"
        )


def table_pixels(image: torch.Tensor) -> torch.Tensor:
    """An image as rows of a table, rounded to 8 bits: (3, H, W) in [0, 1] → (H·W, 3) uint8."""
    return images.to_uint8(image).permute(1, 2, 0).reshape(-1, 3).contiguous().cpu()


def _start_table(file, table: dict) -> None:
    """Pad the file to a whole page, where a table begins."""
    if not file.tell():
        file.write(_MAGIC)
    file.write(bytes(-file.tell() % _PAGE))
    table["start"] = file.tell()


def _read_about(path: Path) -> dict:
    """What the file says of itself, once that agrees with its length; ``ValueError`` or the like if it does not."""
    length = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError
        file.seek(length - _END.size)
        begin, size, magic = _END.unpack(file.read())
        if magic != _MAGIC or begin + size + _END.size != length:
            raise ValueError
        file.seek(begin)
        about = json.loads(file.read(size))
    names, sizes, scales = about["names"], about["sizes"], [int(scale) for scale in about["made"]]
    whole = math.lcm(*scales)
    if not names or len(names) != len(sizes) or not scales or min(scales) < 2:
        raise ValueError
    if any(len(size) != 2 or any(type(side) is not int or side < 1 or side % whole for side in size) for size in sizes):
        raise ValueError
    pixels = sum(height * width for height, width in sizes)
    for scale in (1, *scales):
        table = about["tables"][str(scale)]
        room = range(len(_MAGIC), begin - 3 * pixels // scale**2 + 1)
        if table["start"] not in room or type(table["start"]) is not int or len(table["digests"]) != len(names):
            raise ValueError
    return about
