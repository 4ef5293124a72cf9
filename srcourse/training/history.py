"""The log of a run: losses noted step by step, averaged into rows, kept in memory, in a file and in TensorBoard."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from srcourse.files import write_text


class History:
    """The rows of a run, and the losses since the last one.

    ``history.jsonl`` in `folder` holds one JSON object a row: "step", the mean of each loss since the row before, and
    what the engine adds.
    """

    def __init__(self, accelerator: Accelerator, folder: Path | None):
        self.accelerator, self.folder = accelerator, folder if accelerator.is_main_process else None
        self.rows: list[dict[str, float]] = []
        self._pending: list[tuple[int, dict[str, torch.Tensor]]] = []  # (step, losses), since the last row
        self._tensorboard: Any = None

    def begin(self, step: int) -> None:
        """Start at a step: rows of later ones will be made again, and a row cut short by a kill is dropped."""
        if self.folder is None:
            return
        path, found = self.folder / "history.jsonl", []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    found.append(json.loads(line))
        self.rows = [row for row in found if isinstance(row, dict) and isinstance(row.get("step"), int) and row["step"] <= step]
        write_text(path, "".join(json.dumps(row) + "\n" for row in self.rows))
        with contextlib.suppress(ImportError):  # TensorBoard is optional: the file has the same numbers
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)

    def note(self, step: int, losses: dict[str, torch.Tensor]) -> None:
        """Keep a step's losses, without looking at them: on a GPU, looking costs a wait."""
        self._pending.append((step, {name: loss.detach() for name, loss in losses.items()}))

    def not_finite(self, newest_only: bool = False) -> tuple[int, str, float] | None:
        """(step, name, value) of the first noted loss that is NaN or infinite."""
        pending = self._pending[-1:] if newest_only else self._pending
        noted = [(step, name, loss) for step, losses in pending for name, loss in losses.items()]
        if not noted:
            return None
        values = torch.stack([loss.float() for _, _, loss in noted])
        wrong = (~torch.isfinite(values)).nonzero()
        if len(wrong) == 0:
            return None
        first = wrong[0].item()
        step, name, _ = noted[first]
        return step, name, values[first].item()

    def means(self) -> dict[str, float]:
        """The mean of each loss over the steps since the last row that noted it, and over all processes; begins the next row."""
        if not self._pending:
            return {}
        noted: dict[str, list[torch.Tensor]] = {}
        for _, losses in self._pending:
            for name, loss in losses.items():
                noted.setdefault(name, []).append(loss.float())
        means = torch.stack([torch.stack(losses).mean() for losses in noted.values()])
        self._pending.clear()
        return dict(zip(noted, self.accelerator.reduce(means, "mean").tolist(), strict=True))

    def append(self, row: dict[str, float]) -> None:
        """Add a finished row."""
        self.rows.append(row)
        if self.folder is not None:
            with open(self.folder / "history.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            for key, value in row.items():
                if key != "step":
                    self._tensorboard.add_scalar(key, value, row["step"])
            self._tensorboard.flush()
