"""Names to networks: a plain dict of builders. What a name stands for is one look away."""

import inspect
import math
import reprlib
from collections.abc import Callable
from typing import Any

from torch import nn

from srcourse.models.discriminators import EUSRDiscriminator, FFTDiscriminator, PatchDiscriminator, SRGANDiscriminator
from srcourse.models.eusr import EUSR
from srcourse.models.interpolation import Interpolation
from srcourse.models.msfm import MSFM
from srcourse.models.recursive import RecursiveCascade
from srcourse.models.score_predictor import ScorePredictor
from srcourse.models.srcnn import FSRCNN, SRCNN
from srcourse.models.srresnet import SRResNet, srresnet_small

GENERATORS = {
    "nearest": lambda scale=4: Interpolation(scale, "nearest"),
    "bicubic": lambda scale=4: Interpolation(scale, "bicubic"),
    "srcnn": SRCNN,
    "fsrcnn": FSRCNN,
    "srresnet": SRResNet,
    "srresnet_small": srresnet_small,
    "msfm": MSFM,
    "recursive_cascade": RecursiveCascade,
    "eusr": EUSR,
}
DISCRIMINATORS = {
    "srgan_discriminator": SRGANDiscriminator,
    "patch_discriminator": PatchDiscriminator,
    "fft_discriminator": FFTDiscriminator,
    "eusr_discriminator": EUSRDiscriminator,
}
PREDICTORS = {"score_predictor": ScorePredictor}
BUILDERS = {**GENERATORS, **DISCRIMINATORS, **PREDICTORS}
_REGISTERED: set[str] = set()  # names of networks that are not the course's


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def available() -> list[str]:
    """The names that `create` knows: networks that upscale, discriminators, score predictors."""
    return list(BUILDERS)


def options_of(name: str) -> list[str]:
    """The options of a network, for instance ["scale", "channels", …]; ``ValueError`` for an unknown name."""
    if name not in BUILDERS:
        known = f"{', '.join(BUILDERS)}, or your own, by models.register or srcourse --load FILE.py"
        raise ValueError(f"there is no model {name!r}: expected one of {known}")
    return list(inspect.signature(BUILDERS[name]).parameters)


def create(name: str, **options) -> nn.Module:
    """Build a network with fresh weights, for instance ``create("srresnet", scale=4, blocks=8)``.

    Parameters
    ----------
    name : str
        One of `available()`.
    **options
        Passed to the network's builder: ``scale`` and whatever its docstring lists.

    Returns
    -------
    nn.Module
        It remembers its ``name`` and ``options``, which `save` writes beside the weights; one that enlarges has a ``scale``.

    Raises
    ------
    ValueError
        For an unknown name or option, or a value that the network refuses.
    """
    accepted = options_of(name)
    unknown = [key for key in options if key not in accepted]
    if unknown:
        raise ValueError(f"{name} has no option {unknown[0]!r}: expected one of {', '.join(accepted)}")
    defaults = {key: parameter.default for key, parameter in inspect.signature(BUILDERS[name]).parameters.items()}
    for key, value in options.items():
        if key != "scale" and (isinstance(value, bool | float) or isinstance(defaults[key], bool)):  # else torch refuses, in its words
            _check_kind(name, key, value, defaults[key])
    try:
        model = BUILDERS[name](**options)
    except (TypeError, RuntimeError, OverflowError, MemoryError) as error:  # a word for a number, a size beyond all memory
        given = ", ".join(f"{key}={reprlib.repr(value)}" for key, value in options.items())
        raise ValueError(f"cannot build {name} with {given}: {' '.join(str(error).split())[:120]}") from None
    for key, value in options.items():
        _check_kind(name, key, value, defaults[key])
    model.name, model.options = name, options
    if name in _REGISTERED and not hasattr(model, "scale"):
        model.scale = options.get("scale", defaults["scale"])  # what upscaling and evaluation ask a network for
    return model


def _check_kind(name: str, key: str, value: Any, default: Any) -> None:
    """Whole numbers pass for floats; for all else the kind of the default is what the network can use."""
    expected = type(default)
    fits = type(value) is expected or (expected is float and type(value) is int)
    finite = not isinstance(value, float) or math.isfinite(value)
    if expected in _KINDS and not (fits and finite):
        raise ValueError(f"{name}'s {key} is {reprlib.repr(value)}: expected {_KINDS[expected]}, such as {default!r}")


def register(name: str, builder: Callable[..., nn.Module]) -> None:
    """Give a network of your own a name, for `create`, recipes, `save` and `load`, in this process.

    Parameters
    ----------
    name : str
        A new one; a name that `register` gave may be given again.
    builder : callable
        A class or function that takes ``scale`` and further options, each with a default, and returns a network: (N, 3, h, w) in [0, 1]
        → (N, 3, scale·h, scale·w).

    Raises
    ------
    ValueError
        For a name of the course's own, or a builder that takes no ``scale``.

    Examples
    --------
    >>> register("mine", lambda scale=4, channels=8: nn.Sequential(nn.Conv2d(3, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale)))
    >>> create("mine", scale=2).options
    {'scale': 2}
    """
    if name in BUILDERS and name not in _REGISTERED:
        raise ValueError(f"{name!r} is a network of the course: expected another name")
    if "scale" not in inspect.signature(builder).parameters:
        raise ValueError(f"the builder of {name!r} takes no scale: expected options such as (scale=4, channels=64)")
    _REGISTERED.add(name)
    GENERATORS[name] = BUILDERS[name] = builder


def count_parameters(model: nn.Module) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
