"""One run of a notebook in a kernel of its own: what the kernel inherits, which limits it has, and what remains of it."""

import contextlib
import functools
import os
import re
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from srcourse.grading.judge import Judge, printable
from srcourse.grading.notebook import places

QUIET_KERNEL = ["--IPKernelApp.log_level=40"]  # a kernel's remarks on its own connection are nobody's concern
RUN = "SRCOURSE_GRADING"  # marks the processes of a run, as the next does those of its kernel
_KERNEL_RUN = "SRCOURSE_GRADED"
_SCRATCH_MB, _PROCESSES = 2000, 100  # all that a submission writes, all that it starts


def kill_marked(token: str) -> None:
    """Kill every process that has the token in its environment, which children inherit."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and token in (process.environ().get(name) for name in (RUN, _KERNEL_RUN)):
                process.kill()


def shield() -> None:
    """On Linux, keep a notebook's processes from this one's memory and pipes, as far as the account has no higher rights."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


@dataclass(frozen=True)
class Limits:
    """Seconds for a notebook and for each of its cells, megabytes for all that it starts."""

    timeout: float
    cell_timeout: float
    memory: int  # MB


def run(document: nbformat.NotebookNode, limits: Limits) -> tuple[dict[str, tuple[str, str]], str | None, bool]:
    """({exercise: (its last result, remark)}, what went wrong, whether every cell ran). A failing cell does not stop the others."""
    folder = Path(tempfile.mkdtemp(prefix="srcourse-grade-"))
    judge = Judge()
    try:
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir()
        environment = _environment(folder, judge, limits)
        where = {"metadata": {"path": str(folder / "work")}}
        attend = "--IPKernelApp.exec_lines=__import__('srcourse.grading.kernel').grading.kernel.attend()"
        options = {"timeout": None, "startup_timeout": 180, "allow_errors": True, "resources": where}
        client = _Client(document, extra_arguments=[*QUIET_KERNEL, attend], **options)
        problem, finished = _execute(client, environment, folder, judge, limits)
        judge.close()
        return judge.results, problem, finished
    finally:
        judge.close()
        shutil.rmtree(folder, ignore_errors=True)


_INHERITED = {
    "PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES",
    "LANG", "LANGUAGE", "TZ", "SYSTEMROOT", "SYSTEMDRIVE", "WINDIR", "COMSPEC", "PATHEXT", "NUMBER_OF_PROCESSORS",
}  # fmt: skip
_INHERITED_KINDS = ("LC_", "OMP_", "MKL_", "OPENBLAS_")


def _environment(folder: Path, judge: "Judge", limits: Limits) -> dict[str, str]:
    """What the kernel inherits: where programs are, how many threads to use, and nothing that opens a door."""
    kept = {k: v for k, v in os.environ.items() if k.upper() in _INHERITED or k.upper().startswith(_INHERITED_KINDS)}
    home, temporary = str(folder / "home"), str(folder / "tmp")
    with contextlib.suppress(Exception):  # a list of the fonts takes seconds to make anew
        import matplotlib

        shutil.copytree(matplotlib.get_cachedir(), folder / "matplotlib", ignore=lambda _, names: {n for n in names if "fontlist" not in n})
    return {
        **kept,
        **dict.fromkeys(("HOME", "USERPROFILE", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), home),
        **dict.fromkeys(("TMPDIR", "TEMP", "TMP", "JUPYTER_RUNTIME_DIR"), temporary),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "PYTHONUSERBASE": site.getuserbase(),  # else the new HOME would hide what was installed for this user
        "PYTHONDONTWRITEBYTECODE": "1",
        "SRCOURSE_GRADER": f"{judge.port} {judge.token} {limits.memory}",
        _KERNEL_RUN: judge.token,
        **({RUN: os.environ[RUN]} if RUN in os.environ else {}),
    }


class _Client(NotebookClient):
    """Runs cells and keeps nothing of what they put out, however much, but the first error of each of the first cells that have one."""

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Note an error; let the client know when a cell is done."""
        if msg["msg_type"] == "error" and len(self.errors) < 20:
            content = msg["content"]
            text = re.sub(r"\((?:\d+\.py|<[^<>]*>), line (\d+)\)", r"(line \1)", str(content["evalue"])[:400])  # a cell is no file
            self.errors.setdefault(cell_index + 1, (printable(str(content["ename"]), 60), printable(text, 100)))
        elif msg["msg_type"] == "status":
            super().process_message(msg, cell, cell_index)

    @functools.cached_property
    def errors(self) -> dict[int, tuple[str, str]]:
        """Number of a cell → name and text of its error."""
        return {}

    @functools.cached_property
    def places(self) -> list[str]:
        """What to call each cell."""
        return places(self.nb)

    def problems(self, interrupted: dict[int, str], memory: int) -> str | None:
        """What went wrong in its cells: all that were interrupted, and the first error of the others."""
        found = list(interrupted.values())
        number = min(self.errors.keys() - interrupted.keys(), default=None)
        if number is not None:
            name, text = self.errors[number]
            greedy = name == "MemoryError" or "can't allocate memory" in text
            beyond = f"asked for more than the {memory} MB of memory that a submission may use"
            found.append(f"{self.places[number - 1]} {beyond if greedy else f'raised {name}: {text}'}")
        return "; ".join(found) or None


def _execute(client: _Client, environment: dict[str, str], folder: Path, judge: "Judge", limits: Limits) -> tuple[str | None, bool]:
    """Run all cells: (what was stopped, whether every cell ran)."""
    watch = None
    try:
        with client.setup_kernel(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            watch = Watch(client.km.provisioner.pid, folder, judge.token, limits, stopped=judge.stopped, places=client.places)
            watch.start()
            try:
                for index, cell in enumerate(client.nb.cells):
                    watch.cell = (index + 1, time.monotonic())
                    client.execute_cell(cell, index)
                    watch.cell = None
            finally:
                watch.end()
    except Exception as error:  # a kernel may send any message
        if watch is None:
            return f"the kernel did not start ({type(error).__name__})", False
        died = isinstance(error, DeadKernelError | RuntimeError)
        reason = watch.reason or f"the kernel {'died' if died else 'sent what makes no sense'} ({type(error).__name__})"
        return "; ".join(filter(None, (reason, client.problems(watch.interrupted, limits.memory)))), False
    return client.problems(watch.interrupted, limits.memory), True


class Watch(threading.Thread):
    """Looks at the kernel and at all that it started, several times a second; kills them when a limit is passed, and at the end."""

    grace = 5  # seconds for an interrupted cell to end

    def __init__(self, pid: int, folder: Path, token: str, limits: Limits, stopped: threading.Event, places: Sequence[str] = ()):
        super().__init__(daemon=True)
        self.kernel, self.folder, self.token, self.limits = psutil.Process(pid), folder, token, limits
        self.cell: tuple[int, float] | None = None  # the cell that runs, and since when
        self.interrupted: dict[int, str] = {}
        self.reason: str | None = None  # why the kernel was killed
        self.seen: set[psutil.Process] = {self.kernel}
        self.stopped, self.places = stopped, places
        self._over = threading.Event()
        self._begin = time.monotonic()

    def run(self) -> None:
        """Look until the end."""
        hinted, looks = None, 0
        while not self._over.wait(0.2):
            now, cell, looks = time.monotonic(), self.cell, looks + 1
            if now - self._begin > self.limits.timeout:
                return self._halt(f"time-out: stopped after {self.limits.timeout:g} s; grade again with a longer --timeout")
            late = now - cell[1] - self.limits.cell_timeout if cell else 0
            if cell and late > 0:
                if os.name == "nt" or (hinted == cell and late > self.grace):
                    self.interrupted.pop(cell[0], None)
                    return self._halt(f"stopped in {self._place(cell)}, after {self.limits.cell_timeout:g} s (--cell-timeout)")
                if hinted != cell:
                    hinted = cell
                    self.interrupted[cell[0]] = f"{self._place(cell)} was stopped after {self.limits.cell_timeout:g} s (--cell-timeout)"
                    with contextlib.suppress(psutil.Error):
                        self.kernel.send_signal(signal.SIGINT)
            beyond = self._beyond(looks)
            if beyond:
                where = f" in {self._place(cell)}" if cell else ""
                return self._halt(f"stopped{where}: {beyond}")

    def _place(self, cell: tuple[int, float]) -> str:
        return self.places[cell[0] - 1] if self.places else f"cell {cell[0]}"

    def _beyond(self, looks: int) -> str | None:
        with contextlib.suppress(psutil.Error):
            self.seen.update(self.kernel.children(recursive=True))
        used = alive = 0
        for process in self.seen:
            with contextlib.suppress(psutil.Error):
                used += process.memory_info().rss
                alive += 1
        if used > self.limits.memory * 1e6:
            return f"it used more than {self.limits.memory} MB of memory"
        if alive > _PROCESSES:
            return f"it started more than {_PROCESSES} processes"
        if looks % 10 == 0 and _size(self.folder) > _SCRATCH_MB * 1e6:
            return f"it wrote more than {_SCRATCH_MB} MB"
        return None

    def _halt(self, reason: str) -> None:
        self.reason = reason
        self.kill()

    def end(self) -> None:
        """Stop watching, and leave nothing of the submission running."""
        self._over.set()
        self.join()
        self.kill()

    def kill(self) -> None:
        """Kill the kernel and its children: those seen, its group, and whoever carries the run's token."""
        self.stopped.set()
        if os.name != "nt":
            with contextlib.suppress(OSError):
                os.killpg(self.kernel.pid, signal.SIGKILL)
        for _ in range(3):  # between two looks a child may have a child
            for process in self.seen:
                with contextlib.suppress(psutil.Error):
                    process.kill()
            kill_marked(self.token)


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
