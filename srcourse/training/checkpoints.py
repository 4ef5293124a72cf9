"""Checkpoints that are whole or not there: written beside their final name, synced, then renamed.

A checkpoint is a folder ``step_00001000`` with every network as safetensors, every optimizer as a file that loads with
``weights_only=True``, and ``state.json``, which also holds the checksum of each. The last two and the best are kept.
"""

import hashlib
import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from srcourse.files import sync

_STATE = "state.json"


class Checkpoints:
    """The checkpoints of one run, in ``folder``."""

    def __init__(self, folder: Path):
        self.folder = folder

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        names = (path.name for path in self.folder.glob("step_*") if path.is_dir())
        return sorted(int(name.removeprefix("step_")) for name in names if re.fullmatch(r"step_\d{8,}", name))

    def save(self, step: int, networks: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer], state: dict[str, Any]) -> Path:
        """Write a checkpoint; on any error nothing is left but what was there before."""
        final = self._path(step)
        partial = self.folder / f".partial-{final.name}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            for name, network in networks.items():
                tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
                save_file(tensors, partial / f"{name}.safetensors")
            for name, optimizer in optimizers.items():
                values = optimizer.state_dict()
                # in one order, not that of first use, and with one object for each word: the same bytes after resuming
                values["state"] = {
                    index: {sys.intern(word): value for word, value in values["state"][index].items()} for index in sorted(values["state"])
                }
                content = io.BytesIO()  # torch's own writing of files does not tell a full disk from other trouble
                torch.save(values, content)
                (partial / f"{name}.optimizer.pt").write_bytes(content.getbuffer())
            checksums = {path.name: _checksum(path) for path in sorted(partial.iterdir())}
            state = {**state, "step": step, "checksums": checksums}
            (partial / _STATE).write_text(json.dumps({**state, "checksum": _checksum_of(state)}, indent=1), encoding="utf-8")
            for path in [*partial.iterdir(), partial]:
                sync(path)
            if final.exists():  # a run that was resumed at this very step
                _remove(final)
            os.replace(partial, final)
            sync(self.folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return final

    def state(self, step: int) -> dict[str, Any]:
        """The ``state.json`` of a checkpoint."""
        return json.loads((self._path(step) / _STATE).read_text(encoding="utf-8"))

    def newest_intact(self) -> tuple[int | None, list[int]]:
        """The newest checkpoint whose files have their checksums, and the newer ones that are damaged."""
        damaged = []
        for step in reversed(self.steps()):
            if self.intact(step):
                return step, damaged
            damaged.append(step)
        return None, damaged

    def intact(self, step: int) -> bool:
        """Whether a checkpoint is there, complete and unchanged."""
        try:
            state, path = self.state(step), self._path(step)
            if state.pop("checksum", None) not in (None, _checksum_of(state)):  # a checkpoint of an older version has none
                return False
            files, found = state["checksums"], {file.name for file in path.glob("[!.]*") if file.suffix in (".safetensors", ".pt")}
            return _is_complete(state, step) and found == set(files) and all(_checksum(path / name) == files[name] for name in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return False

    def load(self, step: int, networks: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]) -> None:
        """Put a checkpoint's weights and optimizer states into those of the run; ``ValueError`` names the file that does not fit."""
        path = self._path(step)
        file = path
        try:
            for name, network in networks.items():
                file = path / f"{name}.safetensors"
                network.load_state_dict(load_file(file))
            for name, optimizer in optimizers.items():
                file = path / f"{name}.optimizer.pt"
                optimizer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
                _check_shapes(optimizer)
        except Exception as error:  # what torch, safetensors and the unpickler make of it
            reason = " ".join(str(error).split())[:160]
            raise ValueError(
                f"{file.name} of the checkpoint of step {step} in {self.folder.parent} does not fit this run ({reason}): "
                f"move the folder {path.name} away to go on from the checkpoint before, or choose another folder"
            ) from error

    def prune(self, best_step: int | None, newest: int) -> None:
        """Keep the best checkpoint and the last two up to `newest`; clear later ones, which were passed over as damaged, and leftovers."""
        last = [step for step in self.steps() if step <= newest][-2:]
        for step in self.steps():
            if step not in (*last, best_step):
                _remove(self._path(step))
        self.clear_leftovers()

    def clear_leftovers(self) -> None:
        """Remove half-written and half-removed folders."""
        for pattern in (".partial-*", ".removed-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.folder / f"step_{step:08d}"


def _remove(path: Path) -> None:
    """Out of the way under another name first, so that a kill never leaves half a checkpoint under its own."""
    aside = path.with_name(f".removed-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)
    shutil.rmtree(aside, ignore_errors=True)


def _is_complete(state: dict[str, Any], step: int) -> bool:
    best = state["best"]
    return (
        state["step"] == step
        and isinstance(state["recipe"], dict)
        and isinstance(state["data"], str)
        and isinstance(state["seconds"], int | float)
        and len(state["checksums"]) > 0
        and {"step", "waited"} < best.keys()
        and isinstance(best["waited"], int)
        and all(value is None or isinstance(value, int | float) for value in best.values())
    )


def _check_shapes(optimizer: torch.optim.Optimizer) -> None:
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name} has shape {tuple(value.shape)}, its weight {tuple(parameter.shape)}")


def _checksum_of(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else hashlib.sha256(file.read()).hexdigest()
        )
