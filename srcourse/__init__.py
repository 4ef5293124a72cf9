"""srcourse: the tested package behind the image super-resolution course.

``import srcourse as sr`` and reach everything from there: ``sr.images``, ``sr.degradation``, ``sr.metrics``,
``sr.models``, ``sr.data``, ``sr.upscale``, ``sr.training``, ``sr.evaluation``, ``sr.plots``, ``sr.exercises``.
Submodules load on first use, so that importing the package costs next to nothing.
"""

import importlib
import os

# Two OpenMP threads that spin while a neighbour works run slower than one: let them sleep, unless the user chose.
# This is read when torch is loaded, hence before any submodule.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

_SUBMODULES = (
    "data",
    "degradation",
    "evaluation",
    "exercises",
    "images",
    "losses",
    "metrics",
    "models",
    "plots",
    "studio",
    "training",
)
_FUNCTIONS = {
    "upscale": "inference",
    "environment": "machine",
    "setup": "machine",
    "budget": "machine",
}

__all__ = [*_SUBMODULES, *_FUNCTIONS]


def __getattr__(name: str):
    if name in _SUBMODULES:
        return importlib.import_module(f"srcourse.{name}")
    if name in _FUNCTIONS:
        value = getattr(importlib.import_module(f"srcourse.{_FUNCTIONS[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'srcourse' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
