"""A stranger's notebook before it runs: read as data, with the exercises that it is graded for and the names of its places."""

import re
import warnings
from pathlib import Path

import nbformat

from srcourse.exercises import all_exercises, checking
from srcourse.grading.judge import printable

FILE_MB = 50  # of a submission's file
_CHECK = re.compile(r"""exercises\.check\(\s*["'](\d\d\.\d+)["']""")


def read(path: Path, lesson: str | None) -> tuple[nbformat.NotebookNode, list[checking.Exercise]]:
    """The notebook, and the exercises that it is graded for; ``FileNotFoundError`` or ``ValueError`` if there are none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a notebook (.ipynb)")
    size = path.stat().st_size
    if size > FILE_MB * 2**20:
        raise ValueError(f"{path} is a file of {size / 2**20:.0f} MB: expected at most {FILE_MB}; clear its outputs")
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


def headings(document: nbformat.NotebookNode) -> dict[str, str]:
    """Exercise number → what its heading in the notebook calls it."""
    found = {}
    for cell in document.cells:
        if cell.cell_type == "markdown":
            for number, title in re.findall(r"^### Exercise (\d\d\.\d+)[^:\n]*: (.+)$", cell.source, re.MULTILINE):
                found[number] = printable(title, 100)
    return found


def places(document: nbformat.NotebookNode) -> list[str]:
    """What to call each cell: JupyterLab numbers none, so by the exercise or the heading above, and the code cells since."""
    found, above, code = [], "", 0
    for number, cell in enumerate(document.cells, 1):
        if cell.cell_type == "markdown":
            titles = re.findall(r"^#{1,6} +(.+)$", cell.source, re.MULTILINE)
            if titles:
                exercise = re.match(r"Exercise \d\d\.\d+", titles[-1])
                above, code = exercise.group() if exercise else printable(titles[-1], 60), 0
        code += cell.cell_type == "code"
        found.append(f'code cell {code} below "{above}"' if above else f"cell {number}")
    return found
