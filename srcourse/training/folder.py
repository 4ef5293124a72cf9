"""A run's folder: whose it is. One process at a time writes to it, and no run overwrites another."""

import contextlib
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from srcourse.files import PARTIAL
from srcourse.training.checkpoints import Checkpoints


class RunFolder:
    """The folder of a run, locked for this process until `release`.

    Raises
    ------
    ValueError
        If it cannot be made, or another run is using it.
    """

    def __init__(self, path: Path, checkpoints: Checkpoints):
        self.path, self.checkpoints = path, checkpoints
        self._before = {one.name for one in path.iterdir()} if path.is_dir() else None  # None: the run made the folder
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot make the folder {path} ({error.strerror}): choose another") from None
        self._lock = FileLock(path / ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{path} is in use by another training run: wait for it, or choose another folder") from None
        checkpoints.clear_leftovers()
        for leftover in path.glob(f"{PARTIAL}*"):  # of a run that was killed while it wrote a file
            with contextlib.suppress(OSError):
                leftover.unlink()

    def release(self) -> None:
        """Give the folder free for others. What this run wrote before it failed in its first steps goes away again."""
        with contextlib.suppress(OSError):  # whatever went wrong before is what the user must hear of
            self._tidy()
        if os.name != "nt":  # while it is held: later, the file may be the next run's lock
            with contextlib.suppress(OSError):
                (self.path / ".lock").unlink()
        self._lock.release()
        with contextlib.suppress(OSError):
            if os.name == "nt":  # where a file in use cannot be removed, nor one that the next run holds
                (self.path / ".lock").unlink()
            if self._before is None:
                self.path.rmdir()  # only if nothing is in it

    def _tidy(self) -> None:
        history = self.path / "history.jsonl"
        if self.checkpoints.steps() or (history.exists() and history.stat().st_size):
            return  # the run came so far that its files say something
        before = self._before or set()
        for name in {"recipe.json", "history.jsonl"} - before:
            (self.path / name).unlink(missing_ok=True)
        if "tensorboard" not in before:
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
        if "checkpoints" not in before:
            self.checkpoints.folder.rmdir()


def refuse_foreign(path: Path, checkpoints: Checkpoints, resume: bool) -> None:
    """Refuse a folder that holds a run which was not asked to go on, or what is no run; ``ValueError`` says which."""
    saved = checkpoints.steps()
    files = [name for name in ("model.safetensors", "recipe.json", "history.jsonl") if (path / name).exists()]
    problem = None
    if saved and not resume:
        problem = f"already holds a run (step {saved[-1]}): resume it with --resume (resume=True)"
    elif files and not saved and (not resume or files[0] == "model.safetensors" or "recipe.json" not in files):
        # a run that was killed before its first checkpoint leaves a recipe and maybe a history; all else is foreign
        problem = f"already holds {files[0]}, and no checkpoint to go on from: move it away"
    if problem:
        raise ValueError(f"{path} {problem}, or choose another folder")
