"""Grading: run a copy of a stranger's notebook in a kernel of its own, and judge its answers out of that kernel's reach.

What decides is never said by the notebook. Its ``exercises.check`` hands an answer in, and no verdict comes out of the kernel: the
check runs here, in the grader's process, with a stand-in for the answer. Calling the stand-in sends the arguments to the kernel,
which runs the learner's function and sends plain numbers back; networks come back as the shapes and values of their parts, gradients
on request. Nothing that a kernel sends is unpickled or run here. So the expected values never enter the kernel, and printing "PASS",
replacing ``exercises.check`` or `srcourse`'s functions, and writing to any file or channel change no result: whoever speaks for the
kernel can only hand in answers.

What remains possible. The references can be read, as the solutions can, since the course is public: whoever hands in a copy of them
passes. The kernel runs with your account's rights: it can read your files, use the network, and stop this process (then there is no
result, not a better one). It gets a scratch folder, a new HOME, and an environment without your secrets; against more than mischief,
grade in a container or under an account of its own, with the submissions copied there, and without network.

Limits. Time for each cell and for the notebook, memory, files and processes are watched from here on every system: what goes beyond
is killed with its children. On Linux and macOS a cell that takes too long is interrupted first, so that the next ones still run, and
no file grows beyond 1 GB. On Linux without CUDA, a cell that asks for too much memory gets a MemoryError, before the watch would kill
the kernel. An administrator's process can lift these limits for itself, and one that leaves its parents, its group and its
environment behind is not found again: both are cases for a container.
"""

import contextlib
import functools
import io
import json
import os
import re
import secrets
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

from srcourse.exercises import all_exercises, checking
from srcourse.grading.judge import Judge, printable

QUIET_KERNEL = ["--IPKernelApp.log_level=40"]  # a kernel's remarks on its own connection are nobody's concern
_CHECK = re.compile(r"""exercises\.check\(\s*["'](\d\d\.\d+)["']""")
_FILE_MB, _SCRATCH_MB, _PROCESSES = 50, 2000, 100  # a submission's file, all that it writes, all that it starts
_RUN, _KERNEL_RUN = "SRCOURSE_GRADING", "SRCOURSE_GRADED"  # these two mark the processes of a run


# --- the report -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grade:
    """One exercise of a submission: PASS, FAIL, TODO, or MISSING when its check never ran. `remark` says why it failed."""

    exercise: str
    title: str
    result: str
    points: int
    of: int
    remark: str = ""


@dataclass
class Report:
    """The grades of one notebook, and what kept it from running to its end, if anything did."""

    notebook: str
    grades: list[Grade]
    problem: str | None = None  # the first error of a cell, or why something was stopped or not graded
    finished: bool = True  # whether every cell was run

    @property
    def points(self) -> int:
        return sum(grade.points for grade in self.grades)

    @property
    def of(self) -> int:
        return sum(grade.of for grade in self.grades)

    def __str__(self) -> str:
        lines = [f"{'exercise':10}{'result':9}{'points':>7}  title"]
        lines += [f"{g.exercise:10}{g.result:9}{g.points:>3} / {g.of}  {g.title}" for g in self.grades]
        lines.append(f"{'total':19}{self.points:>3} / {self.of}")
        if self.problem:
            lines.append(f"problem: {self.problem}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything, for a gradebook."""
        values = {"notebook": self.notebook, "points": self.points, "of": self.of, "problem": self.problem, "finished": self.finished}
        return json.dumps({**values, "exercises": [asdict(g) for g in self.grades]}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote."""
        values = json.loads(text)
        return cls(values["notebook"], [Grade(**g) for g in values["exercises"]], values["problem"], values["finished"])


def to_csv(reports: Sequence[Report]) -> str:
    """One row for each submission: file, points, points possible, each exercise's result, and what there is to remark."""
    import csv

    exercises = sorted({grade.exercise for report in reports for grade in report.grades})
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "points", "of", *exercises, "remark"])
    for report in reports:
        results = {grade.exercise: grade.result for grade in report.grades}
        row = [report.notebook, report.points, report.of, *(results.get(e, "") for e in exercises), report.problem or ""]
        writer.writerow([_harmless(value) for value in row])
    return table.getvalue()


def _harmless(value: Any) -> Any:
    """A spreadsheet would compute a text that begins like a formula: an apostrophe keeps it a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


# --- one notebook -----------------------------------------------------------------------------------------------


def grade(
    notebook: str | os.PathLike, *, lesson: str | None = None, timeout: int = 300, cell_timeout: int = 120, memory: int = 8000
) -> Report:
    """Run a copy of a notebook and judge the answers that its checks hand in; of each exercise, the last one counts.

    Parameters
    ----------
    notebook : path
        A lesson, solved or not. The file is not changed; it runs in a folder of its own, without what lies beside it.
    lesson : str, optional
        The lesson to grade it for, such as "03_srresnet" or "03". By default: every lesson whose checks it holds.
    timeout, cell_timeout : int
        Seconds for the whole notebook, and for each cell.
    memory : int
        Megabytes that the kernel may use, with all that it starts.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is no notebook, or it has no exercises, or none of the lesson.
    """
    path = Path(notebook)
    document, wanted = _read(path, lesson)
    if _RUN in os.environ:
        _shield()
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    results, problem, finished = _run(document, _Limits(timeout, cell_timeout, memory))
    headings = _headings(document)  # not the exercises' own titles: those are said on PASS, and give answers away
    grades = []
    for exercise in wanted:
        result, remark = results.get(exercise.id, ("MISSING", ""))
        points = exercise.points if result == "PASS" else 0
        grades.append(Grade(exercise.id, headings.get(exercise.id, ""), result, points, exercise.points, remark))
    return Report(str(path), grades, problem, finished)


def _read(path: Path, lesson: str | None) -> tuple[nbformat.NotebookNode, list[checking.Exercise]]:
    """The notebook, and the exercises that it is graded for."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a notebook (.ipynb)")
    size = path.stat().st_size
    if size > _FILE_MB * 2**20:
        raise ValueError(f"{path} is a file of {size / 2**20:.0f} MB: expected at most {_FILE_MB}; clear its outputs")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older formats lack what newer ones expect
            document = nbformat.read(path, as_version=4)
            nbformat.validate(document)
    except Exception as error:  # nbformat raises its own, json's and Unicode's errors
        raise ValueError(f"{path} is not a Jupyter notebook ({type(error).__name__})") from None
    asked = {number for cell in document.cells if cell.cell_type == "code" for number in _CHECK.findall(cell.source)}
    lessons = {number.split(".")[0] for number in asked}
    wanted = [exercise for number, exercise in all_exercises().items() if number.split(".")[0] in lessons]
    if not wanted:
        raise ValueError(f'{path} has no exercises of this course: expected cells with exercises.check("01.1", ...)')
    if lesson is not None:
        own = exercises_of(lesson)
        if not any(exercise in wanted for exercise in own):
            others = ", ".join(sorted({exercise.id.split(".")[0] for exercise in wanted}))
            raise ValueError(f"{path} has no exercises of lesson {own[0].id.split('.')[0]}: it is lesson {others}")
        wanted = own
    for cell in document.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    return document, wanted


def exercises_of(lesson: str) -> list[checking.Exercise]:
    """The exercises of a lesson by its number, or by a name that begins with it; ``ValueError`` if there are none."""
    found = [exercise for number, exercise in all_exercises().items() if number.split(".")[0] == lesson[:2]]
    if not found:
        numbers = sorted({number.split(".")[0] for number in all_exercises()})
        raise ValueError(f"there is no lesson {lesson!r} with exercises: expected one of {', '.join(numbers)}, such as 03_srresnet")
    return found


def _headings(document: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise number → what its heading in the notebook calls it."""
    found = {}
    for cell in document.cells:
        if cell.cell_type == "markdown":
            for number, title in re.findall(r"^### Exercise (\d\d\.\d+)[^:\n]*: (.+)$", cell.source, re.MULTILINE):
                found[number] = printable(title, 100)
    return found


# --- many notebooks ---------------------------------------------------------------------------------------------


def submissions(folder: str | os.PathLike) -> list[Path]:
    """The notebooks in a folder and in its sub-folders, in the order of their names; links and hidden files are left out."""
    folder = Path(folder)
    found = [p for p in folder.rglob("*.ipynb") if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    found = sorted(p for p in found if p.is_file() and not p.is_symlink())
    if not found:
        raise ValueError(f"{folder} holds no notebooks: expected .ipynb files, possibly in a folder for each student")
    return found


def grade_all(
    notebooks: Sequence[Path], *, lesson: str | None = None, timeout: int = 300, cell_timeout: int = 120, memory: int = 8000
) -> Iterator[Report]:
    """Grade notebooks one after the other, each by a process of its own, so that none can harm another's grade.

    Yields a report for each, in their order. One that cannot be graded gets no points, and a problem that says why.
    """
    for path in notebooks:
        try:
            _read(path, lesson)
            words = ["--timeout", timeout, "--cell-timeout", cell_timeout, "--memory", memory, *(["--lesson", lesson] if lesson else [])]
            report = _apart([str(path.resolve()), *map(str, words)], timeout + 300)
            report.notebook = str(path)
        except (ValueError, OSError) as error:
            none = [Grade(e.id, "", "MISSING", 0, e.points) for e in (exercises_of(lesson) if lesson else [])]
            report = Report(str(path), none, printable(str(error), 300), finished=False)
        yield report


def _apart(words: list[str], timeout: float) -> Report:
    """The report of ``srcourse grade ...`` as a process; what a submission leaves behind of processes and files is removed."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="srcourse-grade-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder), _RUN: token}
        command = [sys.executable, "-m", "srcourse", "grade", *words]
        try:
            ended = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout)
            return Report.from_json(ended.stdout.splitlines()[-1])
        except (ValueError, KeyError, TypeError, IndexError, subprocess.TimeoutExpired):
            raise ValueError("the grading was broken off from within the notebook") from None
        finally:
            _kill_marked(token)


def _kill_marked(token: str) -> None:
    """Kill every process that has the token in its environment, which children inherit."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and token in (process.environ().get(name) for name in (_RUN, _KERNEL_RUN)):
                process.kill()


def _shield() -> None:
    """On Linux, keep a notebook's processes from this one's memory and pipes, as far as the account has no higher rights."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE


# --- the run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Limits:
    timeout: float
    cell_timeout: float
    memory: int  # MB


def _run(document: nbformat.NotebookNode, limits: _Limits) -> tuple[dict[str, tuple[str, str]], str | None, bool]:
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


def _environment(folder: Path, judge: "Judge", limits: _Limits) -> dict[str, str]:
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
        **({_RUN: os.environ[_RUN]} if _RUN in os.environ else {}),
    }


class _Client(NotebookClient):
    """Runs cells and keeps nothing of what they put out, however much, but the first error of each of the first cells that have one."""

    def process_message(self, msg: dict[str, Any], cell: nbformat.NotebookNode, cell_index: int) -> None:
        """Note an error; let the client know when a cell is done."""
        if msg["msg_type"] == "error" and len(self.errors) < 20:
            content = msg["content"]
            self.errors.setdefault(cell_index + 1, (printable(str(content["ename"]), 60), printable(str(content["evalue"]), 100)))
        elif msg["msg_type"] == "status":
            super().process_message(msg, cell, cell_index)

    @functools.cached_property
    def errors(self) -> dict[int, tuple[str, str]]:
        """Number of a cell → name and text of its error."""
        return {}

    def problems(self, interrupted: dict[int, str], memory: int) -> str | None:
        """What went wrong in its cells: all that were interrupted, and the first error of the others."""
        found = list(interrupted.values())
        number = min(self.errors.keys() - interrupted.keys(), default=None)
        if number is not None:
            name, text = self.errors[number]
            greedy = name == "MemoryError" or "can't allocate memory" in text
            beyond = f"asked for more than the {memory} MB of memory that a submission may use"
            found.append(f"cell {number} {beyond if greedy else f'raised {name}: {text}'}")
        return "; ".join(found) or None


def _execute(client: _Client, environment: dict[str, str], folder: Path, judge: "Judge", limits: _Limits) -> tuple[str | None, bool]:
    """Run all cells: (what was stopped, whether every cell ran)."""
    watch = None
    try:
        with client.setup_kernel(env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
            watch = _Watch(client.km.provisioner.pid, folder, judge.token, limits, stopped=judge.stopped)
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


class _Watch(threading.Thread):
    """Looks at the kernel and at all that it started, several times a second; kills them when a limit is passed, and at the end."""

    grace = 5  # seconds for an interrupted cell to end

    def __init__(self, pid: int, folder: Path, token: str, limits: _Limits, stopped: threading.Event):
        super().__init__(daemon=True)
        self.kernel, self.folder, self.token, self.limits = psutil.Process(pid), folder, token, limits
        self.cell: tuple[int, float] | None = None  # the cell that runs, and since when
        self.interrupted: dict[int, str] = {}
        self.reason: str | None = None  # why the kernel was killed
        self.seen: set[psutil.Process] = {self.kernel}
        self.stopped = stopped
        self._over = threading.Event()
        self._begin = time.monotonic()

    def run(self) -> None:
        """Look until the end."""
        hinted, looks = None, 0
        while not self._over.wait(0.2):
            now, cell, looks = time.monotonic(), self.cell, looks + 1
            if now - self._begin > self.limits.timeout:
                return self._halt(f"stopped after {self.limits.timeout:g} s")
            late = now - cell[1] - self.limits.cell_timeout if cell else 0
            if cell and late > 0:
                if os.name == "nt" or (hinted == cell and late > self.grace):
                    self.interrupted.pop(cell[0], None)
                    return self._halt(f"stopped in cell {cell[0]}, after {self.limits.cell_timeout:g} s")
                if hinted != cell:
                    hinted = cell
                    self.interrupted[cell[0]] = f"cell {cell[0]} was stopped after {self.limits.cell_timeout:g} s"
                    with contextlib.suppress(psutil.Error):
                        self.kernel.send_signal(signal.SIGINT)
            beyond = self._beyond(looks)
            if beyond:
                where = f" in cell {cell[0]}" if cell else ""
                return self._halt(f"stopped{where}: {beyond}")

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
            _kill_marked(self.token)


def _size(folder: Path) -> int:
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total
