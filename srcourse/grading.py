"""Grading: run a copy of a notebook in a fresh kernel, under a time limit, and read what its checks said."""

import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import DeadKernelError

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
    problem: str | None = None  # the first error of a cell, or why the run was stopped
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
        nbformat.validate(document)
    except Exception as error:  # nbformat raises its own, json's and Unicode's errors
        raise ValueError(f"{path} is not a Jupyter notebook ({type(error).__name__})") from None
    asked = {number for cell in document.cells if cell.cell_type == "code" for number in _CHECK.findall(cell.source)}
    lessons = {number.split(".")[0] for number in asked}
    wanted = [exercise for number, exercise in all_exercises().items() if number.split(".")[0] in lessons]
    if not wanted:
        raise ValueError(f'{path} has no exercises of this course: expected cells with exercises.check("01.1", ...)')
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    results, problem, finished = _run(document, timeout)
    headings = _headings(document)  # not the exercises' own titles: those are said on PASS, and give answers away
    grades = []
    for exercise in wanted:
        result = results.get(exercise.id, "MISSING")
        grades.append(
            Grade(exercise.id, headings.get(exercise.id, ""), result, exercise.points if result == "PASS" else 0, exercise.points)
        )
    return Report(str(path), grades, problem, finished)


def _headings(document: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise number → what its heading in the notebook calls it."""
    found = {}
    for cell in document.cells:
        if cell.cell_type == "markdown":
            for number, title in re.findall(r"^### Exercise (\d\d\.\d+)[^:\n]*: (.+)$", cell.source, re.MULTILINE):
                found[number] = title
    return found


def _run(document: nbformat.NotebookNode, timeout: int) -> tuple[dict[str, str], str | None, bool]:
    """({exercise: its last verdict}, what went wrong, whether every cell ran). A failing cell does not stop the others."""
    folder = Path(tempfile.mkdtemp(prefix="srcourse-grade-"))
    try:
        (folder / "work").mkdir()
        log = folder / "checks.jsonl"
        environment = {**os.environ, "SRCOURSE_CHECK_LOG": str(log), "SRCOURSE_STRICT": "0", "IPYTHONDIR": str(folder / "ipython")}
        where = {"metadata": {"path": str(folder / "work")}}
        client = NotebookClient(document, timeout=None, allow_errors=True, resources=where, extra_arguments=QUIET_KERNEL)
        problem = _execute(client, environment, timeout)
        return _read_log(log), problem or _first_error(document), problem is None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _execute(client: NotebookClient, environment: dict[str, str], timeout: int) -> str | None:
    """Run all cells; what stopped them, if something did."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        os.kill(client.km.provisioner.pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    try:
        with client.setup_kernel(env=environment):
            timer = threading.Timer(timeout, stop)
            timer.start()
            try:
                for index, cell in enumerate(client.nb.cells):
                    client.execute_cell(cell, index)
            finally:
                timer.cancel()
    except (DeadKernelError, RuntimeError) as error:
        return f"stopped after {timeout} s" if late.is_set() else f"the kernel died ({type(error).__name__})"
    return None


def _read_log(log: Path) -> dict[str, str]:
    results = {}
    if log.is_file():
        for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # a submission may write there too
                entry = json.loads(line)
                if entry["result"] in ("PASS", "FAIL", "TODO"):
                    results[str(entry["exercise"])] = entry["result"]
    return results


def _first_error(document: nbformat.NotebookNode) -> str | None:
    for number, cell in enumerate(document.cells, start=1):
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"cell {number} raised {output.ename}: {' '.join(output.evalue.split())[:100]}"
    return None
