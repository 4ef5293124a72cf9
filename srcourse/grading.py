"""Grading: run a copy of a notebook in a fresh kernel, under a time limit, and read what its checks said."""

import json
import os
import re
import shutil
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

from srcourse.exercises import all_exercises

QUIET_KERNEL = ["--IPKernelApp.log_level=40"]  # a kernel's remarks on its own connection are nobody's concern
_CHECK = re.compile(r"""exercises\.check\(\s*["'](\d\d\.\d+)["']""")


@dataclass(frozen=True)
class Grade:
    """One exercise of a submission: PASS, FAIL, TODO, or MISSING when its check never ran."""

    exercise: str
    title: str
    result: str
    points: int
    of: int


@dataclass
class Report:
    """The grades of one notebook, and what kept it from running to its end, if anything did."""

    notebook: str
    grades: list[Grade]
    problem: str | None = None

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
        values = {"notebook": self.notebook, "points": self.points, "of": self.of, "problem": self.problem}
        return json.dumps({**values, "exercises": [asdict(g) for g in self.grades]}, ensure_ascii=False)


def grade(notebook: str | os.PathLike, *, timeout: int = 300) -> Report:
    """Run a copy of a notebook and collect the verdicts of its exercises' checks.

    Parameters
    ----------
    notebook : path
        A lesson, solved or not. The file is not changed; it runs in a folder of its own, without what lies beside it.
    timeout : int
        Seconds for the whole notebook.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is no notebook, or it has no exercises.
    """
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a notebook (.ipynb)")
    try:
        document = nbformat.read(path, as_version=4)
    except Exception as error:  # nbformat raises its own, json's and Unicode's errors
        raise ValueError(f"{path} is not a Jupyter notebook ({type(error).__name__})") from None
    asked = {number for cell in document.cells if cell.cell_type == "code" for number in _CHECK.findall(cell.source)}
    lessons = {number.split(".")[0] for number in asked}
    wanted = [exercise for number, exercise in all_exercises().items() if number.split(".")[0] in lessons]
    if not wanted:
        raise ValueError(f'{path} has no exercises of this course: expected cells with exercises.check("01.1", ...)')
    results, problem = _run(document, timeout)
    grades = []
    for exercise in wanted:
        result = results.get(exercise.id, "MISSING")
        grades.append(Grade(exercise.id, exercise.title, result, exercise.points if result == "PASS" else 0, exercise.points))
    return Report(str(path), grades, problem)


def _run(document: nbformat.NotebookNode, timeout: int) -> tuple[dict[str, str], str | None]:
    """({exercise: its last verdict}, what went wrong). A failing cell does not keep the others from running."""
    folder = tempfile.mkdtemp(prefix="srcourse-grade-")
    log = Path(folder) / "checks.jsonl"
    environment = {**os.environ, "SRCOURSE_CHECK_LOG": str(log), "SRCOURSE_STRICT": "0", "IPYTHONDIR": str(Path(folder) / "ipython")}
    work = Path(folder) / "work"
    work.mkdir()
    where = {"metadata": {"path": str(work)}}
    client = NotebookClient(document, timeout=timeout, allow_errors=True, resources=where, extra_arguments=QUIET_KERNEL)
    problem, late = None, threading.Event()
    try:
        with client.setup_kernel(env=environment):

            def stop() -> None:
                late.set()
                client.km.shutdown_kernel(now=True)

            timer = threading.Timer(timeout, stop)
            timer.start()
            try:
                for index, cell in enumerate(document.cells):
                    client.execute_cell(cell, index)
            finally:
                timer.cancel()
    except (CellTimeoutError, DeadKernelError, CellExecutionError, RuntimeError) as error:
        problem = (
            f"stopped after {timeout} s"
            if late.is_set() or isinstance(error, CellTimeoutError)
            else f"the kernel died ({type(error).__name__})"
        )
    results = {}
    if log.is_file():
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            results[entry["exercise"]] = entry["result"]
    shutil.rmtree(folder, ignore_errors=True)
    return results, problem
