"""Submissions in folders: whose they are, and their grades one after the other, each by a process of its own."""

import hashlib
import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from srcourse.exercises import checking
from srcourse.grading.judge import printable
from srcourse.grading.notebook import exercises_of, read
from srcourse.grading.report import Grade, Report
from srcourse.grading.running import RUN, kill_marked

_MOODLE = re.compile(r"((.+)_\d+)_assignsubmission_.*")
_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")


@dataclass(frozen=True)
class Submission:
    """A notebook, or a learner's folder that holds none. `name` is its path below the folder that was given."""

    student: str
    name: str
    path: Path
    learner: Path  # the student's folder, or the file itself where there is none

    @property
    def sha(self) -> str:
        """Eight letters for the content, "" where there is nothing to read."""
        digest = hashlib.sha256()
        try:
            with self.path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError:
            return ""
        return digest.hexdigest()[:8]


def submissions(*given: str | os.PathLike) -> list[Submission]:
    """The notebooks in folders of submissions, in the order of their names; links and hidden files are left out.

    The student is called as the first folder below, or as the file where it lies loose; of a folder as Moodle names it, only
    the student's name counts. A student's folder without a notebook is a submission, too, as is a loose archive. Of several
    folders, as a shell makes of ``submissions/*``, those that hold a notebook themselves, or none at all, are students' folders.

    Raises
    ------
    FileNotFoundError, ValueError
        If something does not exist, or there are no notebooks at all.
    """
    paths = [Path(path) for path in given]
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected a notebook (.ipynb) or a folder of submissions; nothing was graded")
    several = len(paths) > 1
    top = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    stems = [path.stem for path in paths if path.is_file()]
    found = []
    for path in paths:
        base = top if several else path.absolute()
        if path.is_file():
            by_folder = stems.count(path.stem) > 1  # anna/03.ipynb bert/03.ipynb
            found += _of_learner(path.absolute().parent, [path], top) if by_folder else [_loose(path, top)]
            continue
        notebooks = _notebooks(path)
        if several and (not notebooks or any(notebook.parent == path for notebook in notebooks)):
            found += _of_learner(path, notebooks, base)
            continue
        found += [_loose(notebook, base) for notebook in notebooks if notebook.parent == path]
        found += [_loose(archive, base) for archive in _archives(path)]
        for learner in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith((".", "__"))):
            found += _of_learner(learner, [p for p in notebooks if learner in p.parents], base)
    if not any(submission.path.suffix == ".ipynb" and submission.path.is_file() for submission in found):
        folders = ", ".join(map(str, paths))
        raise ValueError(f"{folders} holds no notebooks: expected .ipynb files, possibly in a folder for each student")
    return list({submission.path.resolve(): submission for submission in found}.values())  # each once


def _notebooks(folder: Path) -> list[Path]:
    found = [p for p in folder.rglob("*.ipynb") if not any(part.startswith((".", "__")) for part in p.relative_to(folder).parts)]
    return sorted(p for p in found if p.is_file() and not p.is_symlink())


def _archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _ARCHIVES and path.is_file())


def _of_learner(folder: Path, notebooks: Sequence[Path], base: Path) -> list[Submission]:
    student = _student(folder.absolute().name)
    return [Submission(student, p.absolute().relative_to(base).as_posix(), p, folder) for p in notebooks or [folder]]


def _loose(notebook: Path, base: Path) -> Submission:
    moodle = _MOODLE.fullmatch(notebook.stem)  # without folders, Moodle puts the same before each file's name
    learner = notebook.with_name(moodle.group(1)) if moodle else notebook
    return Submission(_student(notebook.stem), notebook.absolute().relative_to(base).as_posix(), notebook, learner)


def _student(name: str) -> str:
    """Moodle calls folders ``Lovelace Ada_1200324_assignsubmission_file_``."""
    moodle = _MOODLE.fullmatch(name)
    return moodle.group(2) if moodle else name


def grade_all(
    given: Sequence[Submission],
    *,
    lesson: str | None = None,
    timeout: int = 600,
    cell_timeout: int = 120,
    memory: int = 8000,
    skip: Callable[[Submission], bool] = lambda submission: False,
    begin: Callable[[int, int, Submission], None] = lambda number, count, submission: None,
) -> Iterator[Report]:
    """Grade submissions one after the other, each by a process of its own, so that none can harm another's grade.

    Yields a report for each that is not to `skip`, in their order. One that cannot be graded gets no points, and a problem that says why.
    Before each, `begin` is called with its number, how many there are, and the submission.
    """
    words = ["--timeout", timeout, "--cell-timeout", cell_timeout, "--memory", memory, *(["--lesson", lesson] if lesson else [])]
    read_before = {submission: _exercises(submission, lesson) for submission in given}
    wanted = exercises_of(lesson) if lesson else _common([found for found in read_before.values() if not isinstance(found, str)])
    todo = [submission for submission in given if not skip(submission)]
    for number, submission in enumerate(todo, 1):
        begin(number, len(todo), submission)
        found, sha = read_before[submission], submission.sha
        if not isinstance(found, str):
            try:
                report = _apart([str(submission.path.resolve()), *map(str, words)], timeout + 300)
                report.problem = "; ".join(filter(None, [report.problem, _others(submission, read_before)])) or None
            except (ValueError, OSError) as error:
                found = printable(str(error), 300)
        if isinstance(found, str):
            none = [Grade(e.id, "", "MISSING", 0, e.points) for e in wanted]
            report = Report("", none, found, finished=not submission.path.is_file())
        yield replace(report, notebook=submission.name, student=submission.student, sha=sha)


def _exercises(submission: Submission, lesson: str | None) -> list[checking.Exercise] | str:
    """What it is graded for, or why it is not graded."""
    if not submission.path.is_file():
        packed = ", ".join(archive.name for archive in _archives(submission.path)) if submission.path.is_dir() else ""
        return "no notebook in this folder" + f": unpack {packed}" * bool(packed)
    if submission.path.suffix.lower() in _ARCHIVES:
        return "an archive: unpack it into a folder of this name"
    try:
        return read(submission.path, lesson)[1]
    except (ValueError, OSError) as error:
        return printable(str(error).replace(str(submission.path), submission.path.name), 300)


def _common(found: list[list[checking.Exercise]]) -> list[checking.Exercise]:
    """The exercises of all submissions, if those are the same."""
    return found[0] if found and all(exercises == found[0] for exercises in found) else []


def _others(submission: Submission, found: dict[Submission, list[checking.Exercise] | str]) -> str:
    """A remark for a learner's notebook that is not the only one of its lesson."""
    mine = found[submission]
    alike = [other for other, theirs in found.items() if other.learner == submission.learner and theirs == mine]
    return f"one of {len(alike)} notebooks of this learner" if len(alike) > 1 else ""


def _apart(words: list[str], timeout: float) -> Report:
    """The report of ``srcourse grade ...`` as a process; what a submission leaves behind of processes and files is removed."""
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="srcourse-grade-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), folder), RUN: token}
        command = [sys.executable, "-m", "srcourse", "grade", *words]
        try:
            ended = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", errors="replace", timeout=timeout)
            return Report.from_json(ended.stdout.splitlines()[-1])
        except (ValueError, KeyError, TypeError, IndexError, subprocess.TimeoutExpired):
            raise ValueError("the grading was broken off from within the notebook") from None
        finally:
            kill_marked(token)
