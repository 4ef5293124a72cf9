"""For instructors: a lesson as an assignment of nbgrader, and the tables of docs/instructors.md."""

import copy
import re
from collections.abc import Mapping, Sequence

from nbformat import NotebookNode

NBGRADER_CONFIG = """\
# For nbgrader, written by srcourse.authoring: the lessons' own stubs, and time for their cells (nbgrader's own limit is 30 seconds).
from nbgrader.converters import GenerateAssignment
from nbgrader.preprocessors import ClearSolutions

STUB = "{stub}"


class Stubs(ClearSolutions):
    def preprocess_cell(self, cell, resources, index):
        cell, resources = super().preprocess_cell(cell, resources, index)
        # a function's stub is indented; a value's is the line `answer = ...` above, and needs no other
        cell.source = "\\n".join(line for line in cell.source.split("\\n") if line != STUB).rstrip()
        return cell, resources


c = get_config()  # noqa: F821
c.ClearSolutions.code_stub = {{"python": STUB}}
usual = GenerateAssignment.class_traits()["preprocessors"].default()
c.GenerateAssignment.preprocessors = [Stubs if step is ClearSolutions else step for step in usual]
c.Execute.timeout = 300
"""

_STRICT = """\
import os

from srcourse import exercises

os.environ["SRCOURSE_STRICT"] = "1"  # anything but PASS raises: no points
"""
_CHECK = re.compile(r'exercises\.check\("(\d\d\.\d+)", (\w+)\)')
_HEADING = re.compile(r"### Exercise (\d\d\.\d+) (●{1,3}) \((\d+) min\): (.+)")
_TIME = re.compile(r"\*\*Time:\*\* about (\d+) minutes to read, under (\d+) seconds to run")


def assignment(solved: NotebookNode, points: Mapping[str, int]) -> NotebookNode:
    """A solved lesson as a source notebook of nbgrader.

    The exercises' cells become its solution cells, the checks its test cells, locked, with the exercise's `points`; the
    set-up is locked. Navigation and remarks for instructors are left out, and links to other lessons go to their folders.
    """
    notebook = copy.deepcopy(solved)
    notebook.cells = [cell for cell in notebook.cells if not {"navigation", "solution"} & _tags(cell)]
    for cell in notebook.cells:
        if cell.cell_type != "code":
            cell.source = re.sub(r"\]\((\d\d_\w+)\.ipynb", r"](../\1/\1.ipynb", cell.source)
            continue
        cell.outputs, cell.execution_count = [], None
        if "check" in _tags(cell):
            number = _CHECK.search(cell.source).group(1)
            cell.source = _STRICT + cell.source
            _mark(cell, f"check-{number}", grade=True, locked=True)
            cell.metadata["nbgrader"]["points"] = points[number]
        elif "### BEGIN SOLUTION" in cell.source:
            _mark(cell, f"solution-{cell.id}", solution=True)
        elif "setup" in _tags(cell):
            _mark(cell, "setup", locked=True)
    notebook.metadata.pop("srcourse", None)
    return notebook


def _mark(cell: NotebookNode, grade_id: str, *, grade: bool = False, solution: bool = False, locked: bool = False) -> None:
    name = re.sub(r"[^A-Za-z0-9_-]", "-", grade_id)
    cell.metadata["nbgrader"] = NotebookNode(
        schema_version=3, grade_id=name, grade=grade, solution=solution, locked=locked, task=False, cell_type=cell.cell_type
    )


def tables(lessons: Mapping[str, NotebookNode], exercises: Mapping[str, Sequence]) -> str:
    """Two Markdown tables: how long each lesson takes, and what each of its exercises tests.

    `lessons` and `exercises` go by the lessons' names. Levels and minutes stand in the notebooks, points in the exercises.
    """
    overview = [
        "| lesson | builds on | reading | running, at most | exercises | doing them | points |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    details = [
        "| exercise | it asks | the answer is | what the check says on PASS | level | minutes | points | mistakes it knows |",
        "|---|---|---|---|---|--:|--:|--:|",
    ]
    sums = [0, 0, 0, 0]
    for name, notebook in lessons.items():
        found, answers = dict(_headings(notebook)), dict(_answers(notebook))
        own = {exercise.id: exercise for exercise in exercises[name]}
        text = "\n".join(cell.source for cell in notebook.cells)
        time = _TIME.search(text)
        if time is None or not found.keys() == answers.keys() == own.keys():
            raise ValueError(f"{name}: its **Time:** line or its exercises {', '.join(own)} are not as CONTRIBUTING.md says")
        for number, exercise in own.items():
            level, minutes, asks = found[number]
            cells = [number, asks, answers[number], exercise.title, level, minutes, exercise.points, len(exercise.mistakes)]
            details.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |")
        row = [int(time.group(1)), len(own), sum(int(found[number][1]) for number in own), sum(e.points for e in own.values())]
        sums = [total + value for total, value in zip(sums, row, strict=True)]
        title = " ".join(re.search(r"^# (\d\d) · (.+?):", notebook.cells[1].source).groups())
        before = re.search(r"\*\*Before you start:\*\*.*?\n\n", text, re.DOTALL).group()
        bases = ", ".join(sorted(set(re.findall(r"\]\((\d\d)_\w+\.ipynb\)", before)))) or "–"
        overview.append(
            f"| [{title}](../notebooks/{name}.ipynb) | {bases} | {row[0]} min | {time.group(2)} s | {row[1]} | {row[2]} min | {row[3]} |"
        )
    overview.append(f"| all | | {sums[0] / 60:.0f} h | | {sums[1]} | {sums[2] / 60:.0f} h | {sums[3]} |")
    return "\n".join(overview) + "\n\n" + "\n".join(details)


def _headings(notebook: NotebookNode) -> list[tuple[str, tuple[str, str, str]]]:
    """(exercise, (level, minutes, what it asks)) in their order."""
    matches = [_HEADING.match(cell.source) for cell in notebook.cells if cell.cell_type == "markdown"]
    return [(match.group(1), match.group(2, 3, 4)) for match in matches if match]


def _answers(notebook: NotebookNode) -> list[tuple[str, str]]:
    """(exercise, whether its answer is a function, a class or a value, and what that is called) in their order."""
    found, stub = [], ""
    for cell in notebook.cells:
        if "exercise" in _tags(cell):
            stub = cell.source
        elif "check" in _tags(cell):
            number, answer = _CHECK.search(cell.source).groups()
            kind = {"def": "function", "class": "class"}.get(
                (re.search(rf"^(def|class) {answer}\b", stub, re.MULTILINE) or [0, ""])[1], "value"
            )
            found.append((number, f"{kind} `{answer}`"))
    return found


def _tags(cell: NotebookNode) -> set[str]:
    return set(cell.metadata.get("tags", []))
