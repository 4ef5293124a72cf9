"""The perceptual index of the PIRM challenge (Blau et al. 2018): half of what is missing in the SR score, and of NIQE.

The SR score of Ma et al. (2017) is a regression by random forests, whose trained model is not ours to ship: it comes from
the user, as a number, a function, the authors' file, or the optional package pyiqa.
"""

import importlib
import math
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch

from srcourse import images
from srcourse.metrics.niqe import NIQE

_WITHOUT = "install it with pip install pyiqa, or pass sr_score as a number or a function image → number"


def perceptual_index(
    image: torch.Tensor,
    sr_score: float | str | os.PathLike | Callable[[torch.Tensor], float] = "pyiqa",
    *,
    border: int = 0,
    pristine: str | os.PathLike = "course",
    quantize: bool = True,
) -> float:
    """PI = ((10 - SR score) + NIQE) / 2; lower is better. NaN where NIQE is: for an image without structure.

    Parameters
    ----------
    image : (3, H, W) tensor in [0, 1]
    sr_score : number, function, "pyiqa" or path
        Ma et al.'s score of this image, from 0 to 10, higher is better; a function that gives it for the image, rounded
        and without its border; or who computes it: "pyiqa", with a model that it downloads, or the path of that model's .mat.
    border : int
        Pixels to cut on each side; 4 in the challenge.
    pristine : "course", "official" or path
        NIQE's model, as in `NIQE`. Only "official" compares with published numbers.
    quantize : bool
        Round the image to 8 bits first, as it would be saved.

    Raises
    ------
    ValueError
        For an image or a score that is none.
    FileNotFoundError
        If the .mat or the pristine model is not there.
    ImportError
        If pyiqa is asked for and is not installed.

    Examples
    --------
    >>> round(perceptual_index(images.sample("astronaut"), 8.0), 1)
    2.6
    """
    images.check(image)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"expected an image (3, H, W), got shape {tuple(image.shape)}")
    if isinstance(sr_score, str | os.PathLike):
        sr_score = _pyiqa(None if sr_score == "pyiqa" else Path(sr_score))
    if isinstance(sr_score, int | float) and (isinstance(sr_score, bool) or not 0 <= sr_score <= 10):
        raise ValueError(f"the SR score is {sr_score}: expected a number, from 0 to 10")
    niqe = NIQE(pristine)(image, border=border, quantize=quantize)
    if callable(sr_score):
        shown = images.crop_border(images.quantize(image) if quantize else image, border)
        sr_score = sr_score(shown)
    try:
        score = float(sr_score)
    except (TypeError, ValueError, RuntimeError):
        given = " ".join(repr(sr_score).split())[:60]
        raise ValueError(f"the SR score is {given}: expected one number, from 0 to 10") from None
    if not math.isfinite(score):
        raise ValueError(f"the SR score is {score}: expected a number, from 0 to 10")
    return ((10 - score) + niqe) / 2


def _pyiqa(model: Path | None) -> Callable[[torch.Tensor], float]:
    """Ma et al.'s score as pyiqa computes it, imported only here."""
    if model is not None and not model.is_file():
        raise FileNotFoundError(f"there is no SR score model {str(model)!r}: expected 'pyiqa', or the authors' model as a .mat file")
    try:
        pyiqa = importlib.import_module("pyiqa")
    except ImportError as error:
        raise ImportError(f"the SR score needs pyiqa, which is not here ({error}): {_WITHOUT}") from None
    metric = _metric(pyiqa, model)
    return lambda image: metric(image[None].cpu()).item()


@lru_cache(maxsize=4)
def _metric(pyiqa, model: Path | None) -> Callable[[torch.Tensor], torch.Tensor]:
    options = {} if model is None else {"pretrained_model_path": str(model)}
    try:
        return pyiqa.create_metric("nrqm", device="cpu", **options)
    except Exception as error:  # whatever pyiqa makes of a foreign file, or of a network that is not there
        reason = " ".join(str(error).split())[:120]
        if model is None:
            raise ValueError(f"pyiqa cannot fetch its SR score model ({reason}): pass the path of its NRQM_model.mat") from None
        raise ValueError(f"{model} is no SR score model ({reason}): expected the .mat of Ma et al.") from None
