"""Tools that the tests share."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import srcourse as sr
from srcourse import cli
from srcourse.training.checkpoints import Checkpoints
from srcourse.training.engine import Engine

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


# --- training runs as processes of their own --------------------------------------------------------------------


def train_words(recipe: str, folder: Path, photos: Path, steps: int, *overrides: str, scale: int = 2) -> list[str]:
    """The words after ``srcourse`` that begin a run, or go on with it."""
    words = ["train", recipe, "--scale", str(scale), "--data", str(photos), "--out", str(folder), "--steps", str(steps), "--resume"]
    return words + [word for text in overrides for word in ("--set", text)]


def kill_at_random_moments(words: list[str], folder: Path, kills: int, *, seed: int) -> None:
    """Start the run of `folder` so often, let it come beyond its last checkpoint, and kill it: in a step, or in a write."""
    moments, checkpoints = random.Random(seed), Checkpoints(folder / "checkpoints")
    for kill in range(kills):
        before = checkpoints.steps()
        running = subprocess.Popen([sys.executable, "-m", "srcourse", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while running.poll() is None and checkpoints.steps() == before:
            time.sleep(0.002)
        time.sleep(moments.random() * 0.2)
        assert running.poll() is None, f"the run was over after {kill} kills: make it longer"
        running.kill()
        running.wait()


@pytest.fixture
def gradients(monkeypatch) -> list[list[torch.Tensor]]:
    """What each descent of the runs to come goes by: the gradients of the optimizer's parameters."""
    seen, descend = [], Engine._descend

    def watched(engine, optimizer):
        seen.append([parameter.grad.clone() for parameter in optimizer.param_groups[0]["params"]])
        descend(engine, optimizer)

    monkeypatch.setattr(Engine, "_descend", watched)
    return seen


def in_two_processes(words: list[str]) -> subprocess.CompletedProcess:
    """The run in two processes of this machine, as torchrun starts them."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "srcourse"]
    both = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=180)
    assert both.returncode == 0, both.stderr
    assert "2 processes" in both.stdout and "unused" not in both.stderr
    return both


def history(folder: Path) -> list[dict]:
    """The rows of a run without their seconds."""
    rows = [json.loads(line) for line in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def checksums(folder: Path, step: int) -> dict[str, str]:
    """Of every file in the checkpoint of a step: networks and optimizers."""
    return json.loads((folder / "checkpoints" / f"step_{step:08d}" / "state.json").read_text(encoding="utf-8"))["checksums"]
