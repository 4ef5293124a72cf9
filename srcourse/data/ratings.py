"""Images with what people said of them: AVA and TID2013 as they come from their sites, and pseudo-opinions for offline use.

An opinion is a distribution over the scores 1 to 10, as P002 §4.2 trains its score predictors on (NIMA, Talebi and
Milanfar 2018).
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from srcourse import degradation, images
from srcourse.models.score_predictor import SCORES
from srcourse.seeds import generator

_TID_VALIDATION = 3  # reference images that P002 keeps for validation
_TID_OBSERVERS = 36  # that saw each image: its mean scores are multiples of 1/35, 1/36, 1/37
_AVA_MISSING = 0.01  # share of AVA's images that may be missing: some links died


@dataclass(frozen=True)
class Rating:
    """One image and its opinions: image (3, H, W) in [0, 1], distribution (10,) over the scores 1 to 10."""

    name: str
    image: torch.Tensor
    distribution: torch.Tensor


class Ratings(Sequence[Rating]):
    """Rated images, read when asked for; ``names[i]``, and ``distributions[i]`` of (n, 10), belong to ``ratings[i]``."""

    def __init__(self, names: Sequence[str], distributions: torch.Tensor, readers: Sequence[Callable[[], torch.Tensor]]):
        self.names, self.distributions, self._readers = list(names), distributions, list(readers)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Ratings(self.names[index], self.distributions[index], self._readers[index])
        return Rating(self.names[index], self._readers[index](), self.distributions[index])

    def __repr__(self) -> str:
        return f"Ratings({len(self)}: {', '.join(self.names[:3])}{', ...' if len(self) > 3 else ''})"


def score_distribution(mean: torch.Tensor | float, deviation: torch.Tensor | float) -> torch.Tensor:
    """A Gaussian over the scores 1 to 10: means and deviations (n,) → probabilities (n, 10).

    Score i gets the mass between i - ½ and i + ½; beyond both ends it goes to 1 and to 10. A deviation far below ½ leaves
    nearly all mass on one score: the trap of taking a mean's standard error for the opinions' deviation, see `tid2013`.

    Raises
    ------
    ValueError
        For a mean outside 1 to 10, or a deviation that is not positive.
    """
    mean, deviation = (torch.as_tensor(x, dtype=torch.float64).reshape(-1, 1) for x in (mean, deviation))
    if len(mean) != len(deviation) and 1 not in (len(mean), len(deviation)):
        raise ValueError(f"there are {len(mean)} means and {len(deviation)} deviations: expected as many of both, or one of either")
    mean, deviation = torch.broadcast_tensors(mean, deviation)
    if not ((mean >= 1) & (mean <= SCORES)).all() or not ((deviation > 0) & (deviation < math.inf)).all():
        raise ValueError("expected means from 1 to 10 and positive deviations")
    edges = torch.arange(1, SCORES) + 0.5  # between the scores
    below = 0.5 * (1 + torch.erf((edges - mean) / (deviation * math.sqrt(2))))  # (n, 9)
    zero, one = torch.zeros_like(mean), torch.ones_like(mean)
    return torch.cat([zero, below, one], dim=1).diff(dim=1).float()


def ratings(folder: str | os.PathLike) -> Ratings:
    """AVA or TID2013, whichever the folder holds; ``FileNotFoundError`` if it is neither."""
    folder = Path(folder)
    if (folder / "AVA.txt").is_file():
        return ava(folder)
    if (folder / "mos_with_names.txt").is_file():
        return tid2013(folder)
    raise FileNotFoundError(f"{folder} holds no rated images: expected AVA.txt (AVA) or mos_with_names.txt (TID2013) in it")


def ava(folder: str | os.PathLike) -> Ratings:
    """AVA (Murray et al. 2012), 255,000 photographs and how many people gave each score: ``AVA.txt`` and ``images/ID.jpg``.

    Raises
    ------
    FileNotFoundError
        Without ``AVA.txt``, or if more than one image in a hundred is missing: some are, in every copy.
    ValueError
        For a line that is not of the form: number, image, ten counts, ...
    """
    folder = Path(folder)
    names, counts, readers, missing = [], [], [], 0
    for number, line in enumerate(_lines(folder / "AVA.txt"), start=1):
        try:
            _, identity, *rest = line.split()
            row = [int(value) for value in rest[:SCORES]]
            if len(row) < SCORES or sum(row) <= 0 or min(row) < 0:
                raise ValueError
        except ValueError:
            raise ValueError(f"{folder / 'AVA.txt'}, line {number}: expected a number, an image and ten counts") from None
        file = folder / "images" / f"{identity}.jpg"
        if not file.is_file():
            missing += 1
            continue
        names.append(identity)
        counts.append(row)
        readers.append(lambda file=file: images.read(file))
    if missing > _AVA_MISSING * (missing + len(names)) or not names:
        raise FileNotFoundError(
            f"{missing} of AVA's {missing + len(names)} images are not in {folder / 'images'}: expected ID.jpg for each"
        )
    counts = torch.tensor(counts, dtype=torch.float32)
    return Ratings(names, counts / counts.sum(1, keepdim=True), readers)


def tid2013(folder: str | os.PathLike, *, observers: float = _TID_OBSERVERS) -> Ratings:
    """TID2013 (Ponomarenko et al. 2015), 3,000 distorted images: ``mos_with_names.txt``, ``mos_std.txt``, ``distorted_images/``.

    The mean opinion scores, 0 to 9, become 1 to 10. Images of the first three references come last, for P002 keeps them
    for validation: hold out 0.12.

    Parameters
    ----------
    observers : float
        The file's "std" are standard errors of the means, about 0.13. The deviation of the opinions themselves, which the
        label needs, is √observers times as much; with ``observers=1`` most labels are nearly one score alone.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, the lists do not fit each other, or `observers` is not positive.
    """
    if not 0 < observers < math.inf:
        raise ValueError(f"observers is {observers}: expected how many people saw each image, about {_TID_OBSERVERS}")
    folder = Path(folder)
    means, errors = _lines(folder / "mos_with_names.txt"), _lines(folder / "mos_std.txt")
    if len(means) != len(errors) or not means:
        raise ValueError(f"{folder}: mos_with_names.txt has {len(means)} lines and mos_std.txt {len(errors)}: expected as many")
    present = {file.name.lower(): file for file in (folder / "distorted_images").glob("*")}  # the lists' capitals vary
    found = []
    for line, error in zip(means, errors, strict=True):
        try:
            mean, name = line.split()
            if not (0 <= float(mean) <= 9 and 0 < float(error) < math.inf):
                raise ValueError
            found.append((name.lower(), 1 + float(mean), float(error)))
        except ValueError:
            raise ValueError(
                f"{folder}: cannot read {line!r} and {error!r}: expected a score from 0 to 9 with a name, and a positive standard error"
            ) from None
    absent = next((name for name, _, _ in found if name not in present), None)
    if absent:
        raise FileNotFoundError(f"{folder / 'distorted_images'} has no {absent}: expected every image that mos_with_names.txt lists")
    held_out = {f"i{number:02d}_" for number in range(1, _TID_VALIDATION + 1)}
    found.sort(key=lambda row: row[0][:4] in held_out)
    deviations = torch.tensor([error for _, _, error in found], dtype=torch.float64) * math.sqrt(observers)
    distributions = score_distribution(torch.tensor([mean for _, mean, _ in found]).clamp(1, SCORES), deviations.clamp(min=1e-3))
    return Ratings([name for name, _, _ in found], distributions, [lambda f=present[name]: images.read(f) for name, _, _ in found])


# --- pseudo-opinions ----------------------------------------------------------------------------------------------

DISTORTIONS = ("blur", "noise", "jpeg", "pixels")


def distort(image: torch.Tensor, kind: str, level: float, *, seed: int = 0) -> torch.Tensor:
    """An image (3, H, W) with one of `DISTORTIONS` at a level from 0 (almost none) to 1 (severe).

    "blur": Gaussian, σ from 0.4 to 4 pixels. "noise": white, from 2 to 50 grey levels. "jpeg": quality 95 down to 5.
    "pixels": every k-th pixel, enlarged by bicubic interpolation, k from 1 to 6 (the size stays).
    """
    if kind not in DISTORTIONS or not 0 <= level <= 1:
        raise ValueError(f"kind {kind!r}, level {level}: expected one of {', '.join(DISTORTIONS)}, and a level from 0 to 1")
    if kind == "blur":
        return degradation.blur(image, degradation.gaussian_kernel(0.4 * 10**level)).clamp(0, 1)
    if kind == "noise":
        return degradation.Noise(2 * 25**level)(image, generator(seed)).clamp(0, 1)
    if kind == "jpeg":
        return degradation.Jpeg(round(95 - 90 * level))(image, generator(seed))
    step = 1 + round(5 * level)
    height, width = image.shape[-2:]
    return degradation.upscale(image[..., ::step, ::step], step)[..., :height, :width].clamp(0, 1) if step > 1 else image


def pseudo_opinion(level: float) -> tuple[float, float]:
    """The stated opinion of a distortion's level: mean 9 - 7.5·level^0.8, deviation 1 + 2·level·(1 - level).

    No person was asked. The numbers only say that stronger is worse, and that people agree most at both ends.
    """
    return 9 - 7.5 * level**0.8, 1 + 2 * level * (1 - level)


def synthetic_ratings(photos: Sequence[torch.Tensor], count: int, *, size: int = 96, seed: int = 0) -> Ratings:
    """Pseudo-opinions, to try out without the real data sets: crops of `photos` with known distortions.

    Crop i, its distortion and its level are functions of (seed, i). The label is `pseudo_opinion` of the level: a formula,
    not people.

    Parameters
    ----------
    photos : sequence of (3, H, W) tensors in [0, 1], both sides at least `size`
    count, size : int
        How many crops, and their side in pixels.
    """
    small = next((i for i in range(len(photos)) if min(photos[i].shape[-2:]) < size), None)
    if not len(photos) or small is not None:
        what = f"photo {small} is smaller than {size} pixels" if len(photos) else "there are no photos"
        raise ValueError(f"{what}: expected at least one photo, and none smaller than a crop")
    if count < 1:
        raise ValueError(f"count is {count}: expected at least one crop")
    names, labels, readers = [], [], []
    for i in range(count):
        u = torch.rand(5, generator=generator(seed, i), dtype=torch.float64).tolist()
        kind, level = DISTORTIONS[int(u[1] * len(DISTORTIONS))], u[2]
        names.append(f"{kind} {level:.2f}")
        labels.append(pseudo_opinion(level))

        @cache  # made at first use, then kept as 8 bits
        def made(i: int = i, u: tuple[float, ...] = tuple(u), kind: str = kind, level: float = level) -> torch.Tensor:
            photo = photos[int(u[0] * len(photos))]
            top, left = (int(v * (side - size + 1)) for v, side in zip(u[3:], photo.shape[-2:], strict=True))
            return images.to_uint8(distort(photo[:, top : top + size, left : left + size], kind, level, seed=i))

        readers.append(lambda made=made: made() / 255)
    means, deviations = (torch.tensor(column) for column in zip(*labels, strict=True))
    return Ratings(names, score_distribution(means, deviations), readers)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: expected the data set's folder as it comes from its site")
    return [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
