"""Tools that the tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import srcourse as sr

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def benchmarks_folder() -> Path:
    """Set5 and Set14 with their stored LR images; skipped where they were not downloaded."""
    folder = Path(os.environ.get("SRCOURSE_BENCHMARKS", SHARED / "benchmarks"))
    if not (folder / "Set5" / "HR").is_dir():
        pytest.skip(f"no benchmark images in {folder}: set SRCOURSE_BENCHMARKS to a folder with Set5 and Set14")
    return folder


@pytest.fixture(scope="session")
def leaves() -> list[torch.Tensor]:
    """Six small synthetic photos."""
    source = sr.data.DeadLeaves(seed=1, size=64)
    return [source[i] for i in range(6)]


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory, leaves) -> Path:
    """A folder with those photos as PNG."""
    folder = tmp_path_factory.mktemp("photos")
    for i, leaf in enumerate(leaves):
        sr.images.write(folder / f"{i}.png", leaf)
    return folder


@pytest.fixture
def command():
    """Run ``srcourse ...`` as a user does; returns the finished process with stdout and stderr as text."""

    def run(*arguments, timeout=120, **options) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "srcourse", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)

    return run


def one_line(process: subprocess.CompletedProcess) -> str:
    """The one line of a refusal: no traceback, a non-zero exit status."""
    assert process.returncode != 0, process.stdout
    assert "Traceback" not in process.stderr, process.stderr
    lines = [line for line in process.stderr.replace("\r", "\n").splitlines() if line.startswith("srcourse: ")]
    assert len(lines) == 1, process.stderr
    return lines[0]
