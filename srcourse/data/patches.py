"""The patch bank: photos decoded once, batches cut from it as a pure function of (seed, t).

Reading a photo file for each patch keeps a GPU waiting. Here every photo is decoded once to 8-bit pixels, its LR
image made once, and a batch is two gathers from two long tables of pixels, on the GPU where there is one. As batch t
depends on the seed and on t alone, a resumed run, and each of several processes, sees the very same data.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from srcourse import degradation
from srcourse.data.prepared import PreparedPhotos, check_size, degraded, table_pixels
from srcourse.machine import available_memory
from srcourse.seeds import generator


class PatchBank:
    """All training photos as 8-bit pixels, HR and LR, ready to cut batches from.

    Parameters
    ----------
    photos : sequence of (3, H, W) tensors in [0, 1]
        For instance `data.photos(folder)`, a list, or `DeadLeaves`. Read once, in order. Those of a prepared file
        (`data.prepared`) are not read at all, and give the same batches.
    scale : int
    patch : int
        Side of the HR patches, a multiple of `scale`.
    degrade : callable, optional
        (image, index) → LR; by default MATLAB's bicubic.
    more : mapping of int to callable, optional
        Further scales and their degradations: ``batch(t, n, scale=8)`` then has LR patches of the same size, and HR patches
        as large as their scale makes them.
    flip, turn, half_turn : float
        Probability of a horizontal and, independently, of a vertical flip; of a turn by 90° either way; and, independently,
        of one by 180°. ``flip=0, turn=0.5, half_turn=0.5`` are the four rotations alike (P000).
    crops_per_image : int
        How many patches of a batch come from the same photo (P000: 16).
    seed : int
    device : torch.device
        Where the pixels lie and batches are made.
    storage : "auto", "memory" or "disk"
        "disk" keeps the pixels in a temporary memory-mapped file; "auto" does so once they take more than
        half of the memory that was free. A prepared file stays mapped, unless "memory" or a GPU with "auto" wants it whole.
    progress : callable, optional
        Wraps the photos' indices while they are decoded, as ``tqdm`` does.

    Raises
    ------
    ValueError
        If there are no photos, one is smaller than a patch (named), a size or a probability does not fit, or a file was prepared
        for another degradation.
    """

    def __init__(
        self,
        photos: Sequence[torch.Tensor],
        *,
        scale: int,
        patch: int,
        degrade: Callable[[torch.Tensor, int], torch.Tensor] | None = None,
        more: Mapping[int, Callable[[torch.Tensor, int], torch.Tensor]] | None = None,
        flip: float = 0.5,
        turn: float = 0.5,
        half_turn: float = 0.0,
        crops_per_image: int = 1,
        seed: int = 0,
        device: str | torch.device = "cpu",
        storage: str = "auto",
        progress: Callable = iter,
    ):
        if patch % scale or patch < scale:
            raise ValueError(f"patch is {patch}: expected a multiple of the scale {scale}")
        if storage not in ("auto", "memory", "disk"):
            raise ValueError(f"storage is {storage!r}: expected 'auto', 'memory' or 'disk'")
        if len(photos) == 0:
            raise ValueError("there are no photos to cut patches from: expected at least one")
        for name, share in (("flip", flip), ("turn", turn), ("half_turn", half_turn)):
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}: expected a probability from 0 to 1")
        if not isinstance(crops_per_image, int) or crops_per_image < 1:
            raise ValueError(f"crops_per_image is {crops_per_image!r}: expected a whole number of at least 1")
        self.scale, self.patch, self.seed = scale, patch, seed
        self.flip, self.turn, self.half_turn, self.crops_per_image = flip, turn, half_turn, crops_per_image
        self.device = torch.device(device)
        self._mapped: PreparedPhotos | None = None
        degradations = {scale: degrade or degradation.create("bicubic", scale), **(more or {})}
        self.side = patch // scale  # of the LR patches, at every scale
        largest = self.side * max(degradations)
        limit = {"auto": (available_memory() or 2**40) / 4, "memory": float("inf"), "disk": 0}[storage]
        if isinstance(photos, PreparedPhotos):
            photos.require(degradations)
            for name, size in zip(photos.names, photos.sizes, strict=True):
                check_size(name, size, degradations, largest, patch)
            self._mapped, sizes = photos, photos.sizes
            digests, names = photos.digests, photos.names
            self.fingerprint = photos.digest(1) + "".join(photos.digest(s) for s in degradations)
            self._hr, *lr = (_settled(photos.table(s), self.device, limit, storage) for s in (1, *degradations))
            self._lr = dict(zip(degradations, lr, strict=True))
        else:
            hr_table, lr_tables, sizes = _Table(limit), {s: _Table(limit) for s in degradations}, []
            digests, names = [], []
            for name, hr, lrs in degraded(photos, degradations, largest, patch=patch, progress=progress):
                hr_table.append(hr)
                names.append(name)
                digests.append(hr_table.digest())
                for s, lr in lrs.items():
                    lr_tables[s].append(lr)
                sizes.append(hr.shape[-2:])
            self.fingerprint = hr_table.digest() + "".join(table.digest() for table in lr_tables.values())
            self._hr, self._lr = hr_table.finish(self.device), {s: table.finish(self.device) for s, table in lr_tables.items()}
        self.count = len(sizes)
        self.photos = [list(photo) for photo in zip(names, digests, strict=True)]  # a digest is of all pixels up to there
        sizes = torch.tensor(sizes)
        self._heights, self._widths = sizes[:, 0], sizes[:, 1]  # in HR pixels
        areas = self._heights * self._widths
        self._starts = torch.cumsum(areas, 0) - areas  # first HR pixel of each photo; by scale² in an LR table

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of pixels in the bank."""
        return self._hr.numel() + sum(table.numel() for table in self._lr.values())

    def batch(self, step: int, size: int, *, scale: int | None = None, rank: int = 0, world: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Batch number `step`: LR (size, 3, side, side), side = patch/scale, and HR (size, 3, scale·side, scale·side), float32.

        `scale` is the bank's own, or one of `more`. With `world` processes, process `rank` gets its equal slice of the
        same global batch.
        """
        scale = self.scale if scale is None else scale
        if scale not in self._lr:
            raise ValueError(f"scale is {scale}: this bank has {', '.join(map(str, self._lr))}")
        if self._mapped is not None:
            self._mapped.check_length()
        if size % world:
            raise ValueError(f"a batch of {size} cannot be cut into {world} equal slices: choose a multiple of {world}")
        where = self._draw(step, size, scale)
        share = size // world
        where = {key: value[rank * share : (rank + 1) * share].to(self.device) for key, value in where.items()}
        lr = self._gather(self._lr[scale], where, factor=1)
        hr = self._gather(self._hr, where, factor=scale)
        return lr, hr

    def _draw(self, step: int, size: int, scale: int) -> dict[str, torch.Tensor]:
        """Which photo, where in it, and how turned: (size,) tensors, a pure function of (seed, step); in LR pixels."""
        random = generator(self.seed, step)
        u = torch.rand(6, size, generator=random, dtype=torch.float64)
        photo = (u[0] * self.count).long()
        photo = photo[torch.arange(size) // self.crops_per_image * self.crops_per_image]
        width = self._widths[photo] // scale
        top = (u[1] * (self._heights[photo] // scale - self.side + 1)).long()
        left = (u[2] * (width - self.side + 1)).long()
        turn = u[5] < self.turn
        half = torch.rand(size, generator=random, dtype=torch.float64) < self.half_turn
        half ^= u[5] < self.turn / 2  # clockwise: counter-clockwise and half a turn
        # Half a turn is both flips; and counter-clockwise, out[r, c] =
        # in[c, last - r], is a transposition and a left-right flip. So three yes-or-no say it all:
        return {
            "start": self._starts[photo] // scale**2,
            "width": width,
            "top": top,
            "left": left,
            "transposed": turn,
            "mirrored": (u[3] < self.flip) ^ turn ^ half,  # left-right
            "upside_down": (u[4] < self.flip) ^ half,
        }

    def _gather(self, table: torch.Tensor, where: dict[str, torch.Tensor], factor: int) -> torch.Tensor:
        """Cut the patches: in a table of pixels, each is an origin and two strides, whichever way it is turned."""
        side = self.side * factor
        line = where["width"] * factor  # pixels from one image row to the next
        down = torch.where(where["upside_down"], -line, line)
        right = torch.where(where["mirrored"], -1, 1)
        origin = where["start"] * factor**2 + where["top"] * factor * line + where["left"] * factor
        origin = origin + (side - 1) * (where["upside_down"] * line + where["mirrored"])
        row_stride = torch.where(where["transposed"], right, down)[:, None, None]
        column_stride = torch.where(where["transposed"], down, right)[:, None, None]
        ramp = torch.arange(side, device=self.device)
        index = origin[:, None, None] + ramp[:, None] * row_stride + ramp * column_stride  # (N, side, side)
        patches = table[index.to(table.device)].to(self.device)  # (N, side, side, 3) uint8
        return patches.permute(0, 3, 1, 2).float() / 255  # channels last in memory, as the networks like it


class _Table:
    """A growing (pixels, 3) uint8 table that moves to a temporary file once it is larger than `limit` bytes."""

    def __init__(self, limit: float):
        self.limit, self.size, self.parts, self.file = limit, 0, [], None
        self.hash = hashlib.sha256()

    def append(self, image: torch.Tensor) -> None:
        """Add an image's pixels, rounded to 8 bits."""
        pixels = table_pixels(image)  # (H·W, 3)
        self.hash.update(pixels.numpy())
        self.size += pixels.numel()
        self.parts.append(pixels)
        if self.file is None and self.size > self.limit:
            self.file = tempfile.TemporaryFile(prefix="srcourse-bank-")  # noqa: SIM115 - lives as long as the table
        if self.file is not None:
            for part in self.parts:
                self.file.write(part.numpy())
            self.parts.clear()

    def digest(self) -> str:
        """A short fingerprint of all pixels so far."""
        return self.hash.hexdigest()[:8]

    def finish(self, device: torch.device) -> torch.Tensor:
        """The (pixels, 3) table, on the device or mapped from its file."""
        if self.file is None:
            return torch.cat(self.parts).to(device)
        self.file.flush()  # the file has no name any more: it goes away with the table, even after a kill
        return torch.from_numpy(np.memmap(self.file, dtype=np.uint8, mode="r+", shape=(self.size // 3, 3)))


def _settled(table: torch.Tensor, device: torch.device, limit: float, storage: str) -> torch.Tensor:
    """A mapped table where batches are cut from it: mapped as it is, or whole on the device."""
    if storage == "disk" or (storage == "auto" and (device.type == "cpu" or table.numel() > limit)):
        return table
    return table.to(device, copy=True)
