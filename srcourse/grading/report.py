"""What grading gives: a result for each exercise, a report for each notebook, a row for each in a table for spreadsheets."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from srcourse.files import write_text

UNHEARD = "its checks never reached the grader"


@dataclass(frozen=True)
class Grade:
    """One exercise of a submission: PASS, FAIL, TODO, or MISSING when no answer came. `remark` says why it is no PASS."""

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
    student: str = ""  # whose it is, as far as the folders say
    sha: str = ""  # the beginning of its content's SHA-256

    @property
    def points(self) -> int:
        return sum(grade.points for grade in self.grades)

    @property
    def of(self) -> int:
        return sum(grade.of for grade in self.grades)

    @property
    def remarks(self) -> str:
        """What went wrong in one line: with the notebook, then with its exercises, those with the same remark together."""
        alike: dict[str, list[str]] = {}
        for grade in self.grades:
            if grade.result in ("FAIL", "MISSING") and grade.remark:
                alike.setdefault(grade.remark, []).append(grade.exercise)
        return " | ".join([*filter(None, [self.problem]), *(f"{', '.join(numbers)}: {remark}" for remark, numbers in alike.items())])

    def __str__(self) -> str:
        lines = [f"{'exercise':10}{'result':9}{'points':>7}  title"]
        lines += [f"{g.exercise:10}{g.result:9}{g.points:>3} / {g.of}  {g.title}" for g in self.grades]
        lines.append(f"{'total':19}{self.points:>3} / {self.of}")
        if self.problem:
            lines.append(f"problem: {self.problem}")
        return "\n".join(lines)

    def to_json(self) -> str:
        """Everything, for a gradebook."""
        values = {key: value for key, value in vars(self).items() if key != "grades"}
        values |= {"points": self.points, "of": self.of, "exercises": [asdict(grade) for grade in self.grades]}
        return json.dumps(values, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """The report that `to_json` wrote."""
        values = json.loads(text)
        rest = {key: values[key] for key in ("problem", "finished", "student", "sha")}
        return cls(values["notebook"], [Grade(**g) for g in values["exercises"]], **rest)


def to_csv(reports: Sequence[Report]) -> str:
    """One row for each submission: student, file, points, points possible, each exercise's result, content, and what to remark."""
    table = Table()
    for report in reports:
        table.add(report)
    return str(table)


_FIRST, _LAST = ["student", "file", "points", "of"], ["sha", "remarks"]
_EARLIER, _LATER = "this file has an earlier row, too", "this file has a later row, too"


@dataclass
class Table:
    """Rows of grades, which may grow from one run to the next."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def exercises(self) -> list[str]:
        """The exercises of which it has results, in their order."""
        named = {key for row in self.rows for key in row} - {*_FIRST, *_LAST}
        return sorted(named, key=lambda number: [int(part) for part in number.split(".")])

    def add(self, report: Report) -> None:
        """A row for a report; of several for the same file, whose content has changed, each says that it is not the only one."""
        row = {"student": report.student, "file": report.notebook, "points": report.points, "of": report.of}
        row |= {grade.exercise: grade.result for grade in report.grades}
        earlier = [one for one in self.rows if one["file"] == _harmless(report.notebook)]
        for one in earlier:
            one["remarks"] = _with(_LATER, one["remarks"])
        row |= {"sha": report.sha, "remarks": _with(_EARLIER, report.remarks) if earlier else report.remarks}
        self.rows.append({key: _harmless(value) for key, value in row.items()})

    def has(self, file: str, sha: str) -> bool:
        """Whether it has a row for this file with this content."""
        return any(row["file"] == _harmless(file) and row["sha"] == sha for row in self.rows)

    def __str__(self) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, [*_FIRST, *self.exercises, *_LAST], restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write it as a file: in UTF-8, with the mark by which spreadsheets know that."""
        write_text(path, f"\ufeff{self}")

    @classmethod
    def read(cls, path: Path) -> "Table":
        """The table that `write` wrote; ``ValueError`` if it is none, as after a spreadsheet saved it in another form."""
        try:
            reader = csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True)
            rows, columns = list(reader), list(reader.fieldnames or [])
        except (UnicodeDecodeError, csv.Error):
            rows, columns = [], []
        exercises = columns[len(_FIRST) : -len(_LAST)]
        ours = columns == [*_FIRST, *exercises, *_LAST] and all(re.fullmatch(r"\d\d\.\d+", number) for number in exercises)
        if not ours or any(None in row or None in row.values() for row in rows):
            columns = ",".join([*_FIRST, "...", *_LAST])
            raise ValueError(f"{path} is no table of grades: expected the columns {columns}, with commas between, in UTF-8")
        return cls(rows)


def _with(note: str, remarks: str) -> str:
    return remarks if note in remarks else " | ".join(filter(None, [note, remarks]))


def _harmless(value: Any) -> Any:
    """A spreadsheet would compute a text that begins like a formula: an apostrophe keeps it a text."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
