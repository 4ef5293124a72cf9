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

import os
from pathlib import Path

from srcourse.grading.folders import Submission, grade_all, submissions
from srcourse.grading.notebook import exercises_of, headings, read
from srcourse.grading.report import UNHEARD, Grade, Report, Table, to_csv
from srcourse.grading.running import QUIET_KERNEL, RUN, Limits, run, shield

__all__ = ["QUIET_KERNEL", "Grade", "Report", "Submission", "Table", "exercises_of", "grade", "grade_all", "submissions", "to_csv"]


def grade(
    notebook: str | os.PathLike, *, lesson: str | None = None, timeout: int = 600, cell_timeout: int = 120, memory: int = 8000
) -> Report:
    """Run a copy of a notebook and judge the answers that its checks hand in; of each exercise, the last one counts.

    Parameters
    ----------
    notebook : path
        A lesson, solved or not. The file is not changed; it runs in a folder of its own, without what lies beside it.
    lesson : str, optional
        The lesson to grade it for, such as "03_srresnet" or "03". By default: every lesson whose checks it holds.
    timeout, cell_timeout : int
        Seconds on the clock for the whole notebook, and for each cell: on a loaded machine give more.
    memory : int
        Megabytes that the kernel may use, with all that it starts.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is no notebook, or it has no exercises, or none of the lesson.
    """
    path = Path(notebook)
    document, wanted = read(path, lesson)
    if RUN in os.environ:
        shield()
    document.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    results, problem, finished = run(document, Limits(timeout, cell_timeout, memory))
    titles = headings(document)  # not the exercises' own titles: those are said on PASS, and give answers away
    grades = []
    for exercise in wanted:
        result, remark = results.get(exercise.id, ("MISSING", UNHEARD))
        points = exercise.points if result == "PASS" else 0
        grades.append(Grade(exercise.id, titles.get(exercise.id, ""), result, points, exercise.points, remark))
    return Report(str(path), grades, problem, finished)
