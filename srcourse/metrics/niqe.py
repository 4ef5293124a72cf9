"""NIQE: how natural an image's local statistics are, without an original to compare with (Mittal, Soundararajan and Bovik 2013).

Photographs, locally normalised (MSCN), have histograms of one family. NIQE fits that family (AGGD) to blocks of an
image and measures how far their parameters lie from those of sharp, undistorted photographs, the *pristine model*.
Lower is better; bicubic's blur at ×4 scores about 8 with the published model (P002 table 2).
"""

import json
import math
import os
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from srcourse import images
from srcourse.files import whole_file
from srcourse.resize import resize_bicubic

BLOCK = 96  # pixels a side, half of that at the second scale
_RADIUS, _SIGMA = 3, 7 / 6  # of the Gaussian window, 7×7
_FLAT = 1e-9  # MSCN below this is zero: in flat regions it is rounding noise, whose signs would count
_SHARP = 0.75  # of a photo's sharpest block: what a pristine model is fitted on
_FEATURES = 36  # 18 at each of two scales
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))  # right, below, and the two diagonals


def niqe(image: torch.Tensor, *, border: int = 0, quantize: bool = True) -> float:
    """NIQE with the course's own pristine model; lower is better. For a batch, the mean. See `NIQE` for the parameters.

    Examples
    --------
    >>> round(niqe(images.sample("astronaut")), 1)
    3.3
    """
    return _course()(image, border=border, quantize=quantize)


class NIQE:
    """NIQE with a pristine model of choice.

    Parameters
    ----------
    pristine : "course", "official" or path
        The course's own model, fitted on photographs by ``data_scripts/fit_niqe.py``; the published one, once
        ``data_scripts/niqe_official.py`` has fetched it, for numbers that compare with papers; or a file: .safetensors of
        `save_pristine`, .npz with ``mu_pris_param`` and ``cov_pris_param``, or the authors' .mat.

    Raises
    ------
    FileNotFoundError, ValueError
        If the model is not there, or is none.

    Examples
    --------
    >>> metric = NIQE(pristine="official")  # doctest: +SKIP
    >>> metric(sr, border=4)  # doctest: +SKIP
    """

    def __init__(self, pristine: str | os.PathLike = "course"):
        self.pristine = str(pristine)
        self.mean, self.covariance = load_pristine(pristine)  # (36,) and (36, 36), float64

    def __call__(self, image: torch.Tensor, *, border: int = 0, quantize: bool = True) -> float:
        """The score of an image, or the mean score of a batch; the parameters are those of `scores`."""
        return self.scores(image, border=border, quantize=quantize).mean().item()

    def scores(self, image: torch.Tensor, *, border: int = 0, quantize: bool = True) -> torch.Tensor:
        """The score of each image.

        Parameters
        ----------
        image : (3, H, W) or (N, 3, H, W) tensor in [0, 1], on any device
            One-channel images are taken as luma. At least two blocks of 96×96 must fit in; what is left at the right
            and at the bottom is not looked at.
        border : int
            Pixels to leave out at each side; the papers use the scale.
        quantize : bool
            Round to 8 bits first, as a saved file would be, and luma as well.

        Returns
        -------
        (N,) float64 tensor on the CPU
            NaN for an image without structure in any block.

        Raises
        ------
        ValueError
            If the image is too small, or not such an image.
        """
        batch = _whole_blocks(image, border)
        per_pass = 1 if batch.device.type == "cpu" else len(batch)  # on a CPU an image at a time stays in the cache
        features = torch.cat([block_features(_luma(part, quantize))[0] for part in batch.split(per_pass)]).cpu()  # (N, blocks, 36)
        return torch.stack([_distance(rows, self.mean, self.covariance) for rows in features])

    def __repr__(self) -> str:
        return f"NIQE(pristine={self.pristine!r})"


# --- the features -----------------------------------------------------------------------------------------------


def mscn(luma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean-subtracted, contrast-normalised coefficients, (I - μ)/(σ + 1), and the local deviation σ.

    Parameters
    ----------
    luma : (N, H, W) tensor in grey levels, 0 to 255
        μ and σ are weighted by a 7×7 Gaussian with a deviation of 7/6 pixels; edge pixels are repeated beyond the edge.

    Returns
    -------
    two (N, H, W) tensors
        Coefficients below 1e-9 are zero: in flat regions they are rounding noise.
    """
    mean = local_mean(luma)
    deviation = local_mean(luma * luma).addcmul_(mean, mean, value=-1).abs_().sqrt_()  # in place: on a CPU, memory is what takes time
    return F.hardshrink((luma - mean).div_(deviation + 1), _FLAT), deviation


def aggd(samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Fit an asymmetric generalised Gaussian distribution by moments (Lasmar et al. 2009), as NIQE's authors do.

    Parameters
    ----------
    samples : (..., n) tensor
        n samples of each distribution.

    Returns
    -------
    shape, left, right : (...,) tensors
        The exponent α (2 is a Gaussian, 1 a Laplacian), found in a table from 0.2 to 10 in steps of 0.001, and the
        scales β of its two sides. NaN where there are no negative or no positive samples.
    """
    ratio, left, right = _aggd_moments(samples)
    table, shapes, left_factor = shape_table()
    above = torch.searchsorted(table.to(ratio.device), ratio.contiguous()).clamp(1, len(table) - 1)
    table, shapes, left_factor = table.to(ratio), shapes.to(ratio), left_factor.to(ratio)
    nearest = above - ((ratio - table[above - 1]) <= (table[above] - ratio)).long()  # of two equally near, the first
    broken = torch.isnan(ratio)
    shape = torch.where(broken, ratio, shapes[nearest])
    return shape, left * left_factor[nearest], right * left_factor[nearest]


def block_features(
    luma: torch.Tensor, *, block: int = BLOCK, normalise: Callable = mscn, fit: Callable = aggd
) -> tuple[torch.Tensor, torch.Tensor]:
    """NIQE's 36 features of every block, and the blocks' sharpness.

    Parameters
    ----------
    luma : (N, H, W) tensor in grey levels, 0 to 255
        H and W multiples of `block`.
    block : int
        Side of the blocks, even; NIQE's is 96.
    normalise, fit : functions
        `mscn` and `aggd`, or what does their work with a gradient (`losses.NaturalnessLoss`).

    Returns
    -------
    features : (N, blocks, 36) tensor
        18 at full size, 18 at half: the shape and mean scale of the MSCN, then shape, mean, left and right scale of its
        products with four neighbours.
    sharpness : (N, blocks) tensor
        The mean local deviation, at full size.
    """
    found = []
    for size in (block, block // 2):
        if size != block:
            luma = resize_bicubic(luma / 255, (luma.shape[-2] // 2, luma.shape[-1] // 2)) * 255
        normalised, deviation = normalise(luma)
        blocks = _cut(normalised, size)  # (N, blocks, size, size)
        shape, left, right = fit(blocks.flatten(2))
        found += [shape, (left + right) / 2]
        for shift in _NEIGHBOURS:  # around the block's edge, as in the authors' code
            shape, left, right = fit((blocks * torch.roll(blocks, shift, dims=(-2, -1))).flatten(2))
            mean = (right - left) * torch.exp(torch.lgamma(2 / shape) - torch.lgamma(1 / shape))
            found += [shape, mean, left, right]
        if size == block:
            sharpness = _cut(deviation, size).mean((-2, -1))
    return torch.stack(found, dim=-1), sharpness


def _whole_blocks(image: torch.Tensor, border: int) -> torch.Tensor:
    """The image or batch as a batch (N, 1 or 3, H, W), cut to whole blocks."""
    images.check(image)
    batch = image if image.ndim == 4 else image.unsqueeze(0)
    if batch.ndim != 4 or batch.shape[1] not in (1, 3):
        raise ValueError(f"expected an image (3, H, W) or a batch (N, 3, H, W), got shape {tuple(image.shape)}")
    batch = images.crop_border(batch.detach(), border)
    rows, columns = batch.shape[-2] // BLOCK, batch.shape[-1] // BLOCK
    if rows * columns < 2:
        size = f"{batch.shape[-2]}×{batch.shape[-1]} pixels" + f" within a border of {border}" * (border > 0)
        raise ValueError(f"the image has {size}, too small for NIQE: expected at least {BLOCK}×{2 * BLOCK}, two of its blocks")
    batch = batch[..., : rows * BLOCK, : columns * BLOCK]
    return batch.cpu() if batch.device.type == "mps" else batch  # MPS has no float64


def _luma(batch: torch.Tensor, quantize: bool) -> torch.Tensor:
    """(N, H, W) float64 grey levels, 0 to 255."""
    if not quantize:
        return _grey(batch.double()) * 255
    return images.to_uint8(_grey(images.to_uint8(batch).double() / 255)).double()


def _grey(batch: torch.Tensor) -> torch.Tensor:
    return (images.rgb_to_y(batch) if batch.shape[1] == 3 else batch)[:, 0]


def local_mean(x: torch.Tensor) -> torch.Tensor:
    """The weighted mean of (N, H, W) under the Gaussian window, edge pixels repeated beyond the edge; same shape.

    One axis after the other, as shifted sums: on a CPU faster than a float64 convolution.
    """
    offsets = torch.arange(-_RADIUS, _RADIUS + 1, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    weights = (weights / weights.sum()).tolist()
    padded = F.pad(x.unsqueeze(1), (_RADIUS,) * 4, mode="replicate")[:, 0]
    for axis in (-1, -2):
        length = padded.shape[axis] - 2 * _RADIUS
        total = padded.narrow(axis, _RADIUS, length) * weights[_RADIUS]
        for i in range(_RADIUS):  # the window is symmetric
            pair = padded.narrow(axis, i, length) + padded.narrow(axis, 2 * _RADIUS - i, length)
            total.add_(pair, alpha=weights[i])  # in place: the gradient needs none of these sums
        padded = total
    return padded


def _cut(x: torch.Tensor, size: int) -> torch.Tensor:
    """(N, H, W) → (N, blocks, size, size), row by row."""
    return x.unfold(1, size, size).unfold(2, size, size).flatten(1, 2).contiguous()


def _aggd_moments(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the fit matches: the normalised ratio of moments, and the deviations of the negative and positive samples."""
    size, sign = x.abs(), x.sign()
    square, signed = _dot(x, x), _dot(x, size)  # Σx² over both sides; right side minus left
    more, count = sign.sum(-1), _dot(sign, sign)  # how many more positive than negative samples; both
    left = ((square - signed).clamp(min=0) / (count - more)).sqrt()
    right = ((square + signed).clamp(min=0) / (count + more)).sqrt()
    balance = left / right
    ratio = size.mean(-1).square() / (square / x.shape[-1])
    return ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1).square(), left, right


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.einsum("...n,...n->...", a, b)  # as a matrix product: half the time of a product and a sum


_tables: list[torch.Tensor] = []


def shape_table() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each shape α in the table: the ratio of moments that it gives (ascending), α, and √(Γ(1/α)/Γ(3/α))."""
    if not _tables:
        shapes = torch.from_numpy(np.arange(0.2, 10.001, 0.001))
        one, two, three = (torch.lgamma(k / shapes) for k in (1, 2, 3))
        _tables.extend([torch.exp(2 * two - one - three), shapes, torch.exp((one - three) / 2)])
    return tuple(_tables)


def _distance(rows: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """√((μ - μ')ᵀ ((Σ + Σ')/2)⁺ (μ - μ')) between the pristine Gaussian and that of the blocks' features (blocks, 36)."""
    if (~torch.isnan(rows)).any(dim=0).logical_not().any() or (whole := rows[~torch.isnan(rows).any(dim=1)]).shape[0] < 2:
        return torch.tensor(math.nan, dtype=torch.float64)
    difference = mean - rows.nanmean(dim=0)
    pooled = torch.linalg.pinv((covariance + torch.cov(whole.T)) / 2, rtol=_FEATURES * torch.finfo(torch.float64).eps)
    return (difference @ pooled @ difference).sqrt()


# --- pristine models --------------------------------------------------------------------------------------------


def fit_pristine(photos: Iterable[torch.Tensor], *, progress: Callable = iter) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit a pristine model: mean (36,) and covariance (36, 36) of the features of the photos' sharp blocks.

    Parameters
    ----------
    photos : iterable of (3, H, W) tensors in [0, 1]
        Undistorted photographs; those smaller than two blocks are passed over. A block counts if its sharpness is
        above three quarters of the sharpest in its photo.

    Raises
    ------
    ValueError
        If fewer than 100 blocks are found: 36 features and their covariance need many.
    """
    found = []
    for photo in progress(photos):
        try:
            luma = _luma(_whole_blocks(photo, 0), quantize=True)
        except ValueError:
            continue
        features, sharpness = block_features(luma)
        found.append(features[sharpness > _SHARP * sharpness.max()])
    rows = torch.cat(found) if found else torch.empty(0, _FEATURES)
    whole = rows[~torch.isnan(rows).any(dim=1)]
    if len(whole) < 100:
        raise ValueError(
            f"the photos have {len(whole)} sharp blocks: expected at least 100 to fit a pristine model, "
            f"in photos of at least {BLOCK}×{2 * BLOCK} pixels"
        )
    return rows.nanmean(dim=0), torch.cov(whole.T)


def save_pristine(path: str | os.PathLike, mean: torch.Tensor, covariance: torch.Tensor, card: dict) -> None:
    """Write a pristine model as safetensors, with a card that says what it was fitted on."""
    with whole_file(Path(path)) as partial:
        save_file({"mean": mean.contiguous(), "covariance": covariance.contiguous()}, partial, metadata={"srcourse": json.dumps(card)})


def load_pristine(pristine: str | os.PathLike) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean (36,) and covariance (36, 36), float64, of a pristine model: "course", "official" or a file."""
    path = _path(pristine)
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                mean, covariance = torch.from_numpy(file["mu_pris_param"]), torch.from_numpy(file["cov_pris_param"])
        elif path.suffix == ".mat":
            from scipy.io import loadmat

            file = loadmat(path, variable_names=("mu_prisparam", "cov_prisparam"))
            mean, covariance = torch.from_numpy(file["mu_prisparam"]), torch.from_numpy(file["cov_prisparam"])
        else:
            raise ValueError
        mean, covariance = mean.double().flatten(), covariance.double()
        if mean.shape != (_FEATURES,) or covariance.shape != (_FEATURES, _FEATURES):
            raise ValueError
        if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all() and _is_covariance(covariance)):
            raise ValueError
    except Exception:  # whatever a foreign file makes of zipfile, zlib and SciPy
        raise ValueError(f"{path} is no pristine model: expected mean (36) and covariance (36×36) in .safetensors, .npz or .mat") from None
    return mean, covariance


def _is_covariance(matrix: torch.Tensor) -> bool:
    """Symmetric and without a negative eigenvalue, up to rounding."""
    tolerance = 1e-6 * matrix.abs().max()
    return bool((matrix - matrix.T).abs().max() <= tolerance and torch.linalg.eigvalsh(matrix).min() >= -tolerance)


def pristine_card(pristine: str | os.PathLike = "course") -> dict:
    """What a pristine model in safetensors was fitted on."""
    with safe_open(_path(pristine), framework="pt") as file:
        return json.loads(file.metadata()["srcourse"])


def official_path() -> Path:
    """Where ``data_scripts/niqe_official.py`` puts the published model: ~/.cache/srcourse, or $SRCOURSE_CACHE."""
    return Path(os.environ.get("SRCOURSE_CACHE") or Path.home() / ".cache" / "srcourse") / "niqe_pris_params.npz"


def _path(pristine: str | os.PathLike) -> Path:
    if pristine == "course":
        return Path(str(resources.files("srcourse"))) / "metrics" / "niqe_course.safetensors"
    path = official_path() if pristine == "official" else Path(pristine)
    if not path.is_file():
        how = "run data_scripts/niqe_official.py once" if pristine == "official" else "expected 'course', 'official' or a file"
        raise FileNotFoundError(f"the pristine model {str(pristine)!r} is not here ({path}): {how}")
    return path


_loaded: list[NIQE] = []


def _course() -> NIQE:
    if not _loaded:
        _loaded.append(NIQE())
    return _loaded[0]
