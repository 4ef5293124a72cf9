"""Tools that the tests share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import srcourse as sr
from srcourse import cli

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
def command(monkeypatch, capfd):
    """Run ``srcourse ...`` in this process; returns exit status, stdout and stderr as `process` does."""

    def run(*arguments) -> subprocess.CompletedProcess:
        words = ["srcourse", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", words)
        capfd.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = end.code or 0
        out, err = capfd.readouterr()
        return subprocess.CompletedProcess(words, status, out, err)

    return run


@pytest.fixture
def process():
    """Run ``srcourse ...`` in a process of its own, as a user does."""

    def run(*arguments, timeout=120, **options) -> subprocess.CompletedProcess:
        words = [sys.executable, "-m", "srcourse", *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, timeout=timeout, **options)

    return run


def one_line(finished: subprocess.CompletedProcess) -> str:
    """The one line of a refusal: no traceback, a non-zero exit status."""
    assert finished.returncode != 0, finished.stdout
    assert "Traceback" not in finished.stderr, finished.stderr
    lines = [line for line in finished.stderr.replace("\r", "\n").splitlines() if line.startswith("srcourse: ")]
    assert len(lines) == 1, finished.stderr
    return lines[0]
