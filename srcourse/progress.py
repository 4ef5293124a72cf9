"""What long work tells while it goes on: a bar on a terminal or in a notebook, now and then a line in a log file."""

import math
import sys
import time
from collections.abc import Iterable, Mapping

from tqdm.auto import tqdm

_SECONDS = 30.0  # between two lines of a log file, at least


def watched() -> bool:
    """Whether a bar can move: a terminal or a notebook shows one picture of it, a file would keep them all."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def bar(items: Iterable, title: str, *, shown: bool = True) -> tqdm:
    """The items, with a bar while they are worked on, where one can move."""
    return tqdm(items, desc=title, disable=not (shown and watched()), leave=False)


class Steps:
    """A run's way from step `done` to step `total`, to be used in a ``with`` statement.

    Where no bar can move, rows become lines on stderr: the first one, the important ones, and one in half a minute of the others.
    With `minutes`, the run ends after so many, whatever is left.
    """

    def __init__(self, title: str, total: int, *, done: int = 0, minutes: float | None = None, shown: bool = True):
        self._lines = shown and not watched()
        self._bar = tqdm(total=total, initial=done, desc=title, disable=not shown or self._lines)
        self._first, self._total = done, total
        self._start, self._limit, self._told = time.monotonic(), math.inf if minutes is None else 60 * minutes, -math.inf

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """One step is made."""
        self._bar.update()

    def tell(self, step: int, row: Mapping[str, float], *, important: bool = False) -> None:
        """Show the losses and qualities of a step."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in row.items()})
        now = time.monotonic()
        if not self._lines or not (important or now - self._told >= _SECONDS):
            return
        self._told, running = now, now - self._start
        left = min(running / max(step - self._first, 1) * (self._total - step), max(self._limit - running, 0.0))
        times = f"{tqdm.format_interval(running)} so far, {tqdm.format_interval(left)} left"
        values = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
        print(f"step {step:,} of {self._total:,}, {times}: {values}", file=sys.stderr, flush=True)
