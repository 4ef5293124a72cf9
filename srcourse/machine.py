"""The machine at hand: the set-up of a lesson, a check of the installation, and how much training fits here."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass

import torch

import srcourse

_REQUIRED = ("torch", "torchvision", "numpy", "matplotlib", "pillow", "scikit-image", "jupyterlab", "ipywidgets")
_OPTIONAL = {
    "tensorboard": "curves of long trainings in a browser",
    "pyiqa": "the SR score of Ma et al.",
}


def device() -> torch.device:
    """The fastest device here: an NVIDIA or AMD GPU, Apple's GPU, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def cpu_has_fast_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AMX); without it, bf16 is up to 12 times slower."""
    probe = getattr(torch.cpu, "_is_amx_tile_supported", None) or getattr(torch.cpu, "is_amx_tile_supported", None)
    return bool(probe and probe())


def setup(seed: int = 0) -> torch.device:
    """Begin a lesson: seed the global generators, print versions and device in one line, return the device."""
    torch.manual_seed(seed)
    where = device()
    name = torch.cuda.get_device_name() if where.type == "cuda" else f"{torch.get_num_threads()} threads"
    versions = f"srcourse {srcourse.__version__} · Python {platform.python_version()} · torch {torch.__version__.split('+')[0]}"
    print(f"{versions} · {where.type} ({name}) · seed {seed}")
    return where


def budget(cpu: int, gpu: int) -> int:
    """Training steps that fit a lesson here: `cpu` of them without a GPU, `gpu` with one."""
    return cpu if device().type == "cpu" else gpu


@dataclass
class Check:
    """One line of `environment`: what was looked at, whether it is fine, and what was found or what to do."""

    name: str
    ok: bool
    found: str
    optional: bool = False


class Environment(list[Check]):
    """The list of checks; prints as a table, and ``ok`` is True when all that is needed is there."""

    @property
    def ok(self) -> bool:
        return all(check.ok or check.optional for check in self)

    def __str__(self) -> str:
        marks = {(True, False): "OK", (True, True): "OK", (False, False): "FAIL", (False, True): "–"}
        return "\n".join(f"{marks[check.ok, check.optional]:5}{check.name:14}{check.found}" for check in self)

    __repr__ = __str__


def environment() -> Environment:
    """Check this installation: Python, packages, device, memory, disk and optional pieces, one OK or FAIL each."""
    checks = [Check("python", sys.version_info >= (3, 10), f"{platform.python_version()} (3.10 or newer)")]
    for name in _REQUIRED:
        try:
            checks.append(Check(name, True, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(name, False, "missing: pip install srcourse"))
    where = device()
    if where.type == "cuda":
        free, total = torch.cuda.mem_get_info()
        detail = f"{torch.cuda.get_device_name()}, {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    else:
        bf16 = "bf16 in hardware" if cpu_has_fast_bf16() else "float32"
        detail = f"{where.type}, {torch.get_num_threads()} threads, {bf16}"
    checks.append(Check("device", True, detail))
    memory = available_memory()
    if memory is not None:
        checks.append(Check("memory", memory >= 4 * 2**30, f"{memory / 2**30:.1f} GiB available (4 needed)"))
    disk = shutil.disk_usage(os.getcwd()).free
    checks.append(Check("disk", disk >= 2**30, f"{disk / 2**30:.0f} GiB free here (1 needed)"))
    for name, use in _OPTIONAL.items():
        there = importlib.util.find_spec(name) is not None
        checks.append(Check(name, there, "installed" if there else f"not installed (optional: {use})", optional=True))
    return Environment(checks)


def available_memory() -> int | None:
    """Bytes of main memory that can still be used, or None where the system does not say."""
    import psutil

    return psutil.virtual_memory().available


def free_device_memory(where: torch.device) -> int | None:
    """Bytes that can still be used on a device: a GPU's own, main memory elsewhere; None where nobody says."""
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0]
    return available_memory()
