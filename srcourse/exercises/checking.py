"""How an exercise is checked: tools for the lessons' checks, and the verdict that the learner sees."""

import contextlib
import importlib
import json
import math
import numbers
import os
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import srcourse.exercises


class Wrong(Exception):
    """An answer is wrong: what was tried, got and expected, and a hint."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class Todo(Exception):
    """There is no answer yet."""


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer, and what to tell whoever gives it."""

    answer: Any
    hint: str


@dataclass(frozen=True)
class Exercise:
    """One exercise: `check` takes the answer and raises `Wrong` or `Todo`, or returns.

    `mistakes` are plausible wrong answers that the check must refuse; a test tries each.
    """

    id: str
    title: str
    check: Callable[[Any], None]
    mistakes: Sequence[Mistake] = field(default=())
    points: int = 1


# --- tools for writing checks -----------------------------------------------------------------------------------


def same_function(
    reference: Callable,
    cases: Callable[[], Sequence[tuple]],
    mistakes: Sequence[Mistake] = (),
    *,
    tolerance: float = 1e-5,
) -> Callable[[Any], None]:
    """A check that a function gives what `reference` gives on each of `cases()`, argument tuples, smallest first.

    If it is wrong, and one of `mistakes` gives the same wrong result, that mistake's hint is shown.
    """

    def check_function(answer: Any) -> None:
        require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
        for arguments in cases():
            expected = reference(*arguments)
            got = call(answer, *arguments)
            if close(got, expected, tolerance):
                continue
            shown = ", ".join(show(a) for a in arguments)
            raise Wrong(f"with ({shown}): got {show(got)}, expected {show(expected)}", _hint(mistakes, arguments, got, tolerance))

    return check_function


def value_near(compute: Callable[[], float], mistakes: Sequence[Mistake] = (), *, tolerance: float) -> Callable[[Any], None]:
    """A check that a number is within `tolerance` of ``compute()``; the expected number is not given away."""

    def check_value(answer: Any) -> None:
        answer = _plain(answer)
        require(_is_number(answer), f"expected a number, got {show(answer)}")
        if abs(float(answer) - compute()) <= tolerance:
            return
        for mistake in mistakes:
            if abs(float(answer) - mistake.answer) <= tolerance:
                raise Wrong(f"{show(answer)} is not it", mistake.hint)
        raise Wrong(f"{show(answer)} is not it (a tolerance of {tolerance:g} is allowed)")

    return check_value


def one_of(right: str, others: dict[str, str]) -> Callable[[Any], None]:
    """A check of a prediction: `right`, or one of `others`, each with what to say to whoever chose it."""

    def check_choice(answer: Any) -> None:
        choices = sorted([right, *others])
        given = answer.strip().lower() if isinstance(answer, str) else None
        require(given in choices, f"{show(answer)} is none of {', '.join(map(repr, choices))}")
        if given != right:
            raise Wrong(f"{answer!r} is not what happens", others[given])

    return check_choice


def call(function: Callable, *arguments: Any) -> Any:
    """Call the learner's function on copies; `Todo` for a stub, `Wrong` for an exception or a changed argument."""
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    try:
        result = function(*copies)
    except NotImplementedError:
        raise Todo from None
    except (Exception, SystemExit) as error:
        shown = ", ".join(show(a) for a in arguments)
        raise Wrong(f"with ({shown}): it raised {type(error).__name__}: {error}") from None
    if result is None or result is ...:
        raise Todo
    for copy, argument in zip(copies, arguments, strict=True):
        if isinstance(argument, torch.Tensor) and not torch.equal(copy, argument):
            raise Wrong("it changed its argument in place", "Work on a copy: x = x.clone(), or use x - y in place of x -= y.")
    return result


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(message, hint)


def close(got: Any, expected: Any, tolerance: float = 1e-5) -> bool:
    """Whether two numbers, tensors, strings, or sequences of them are equal up to `tolerance`."""
    if isinstance(expected, torch.Tensor):
        if not isinstance(got, torch.Tensor) or got.shape != expected.shape or got.is_complex():
            return False
        return bool(torch.allclose(got.double(), expected.double(), rtol=tolerance, atol=tolerance))
    if isinstance(expected, str | bool):
        return got == expected
    if isinstance(expected, int | float):
        got = _plain(got)
        if not _is_number(got):
            return False
        return float(got) == float(expected) or math.isclose(got, expected, rel_tol=tolerance, abs_tol=tolerance)
    if isinstance(expected, tuple | list):
        return isinstance(got, tuple | list) and len(got) == len(expected) and all(map(lambda g, e: close(g, e, tolerance), got, expected))
    return got == expected


def show(value: Any) -> str:
    """A value in few words."""
    try:
        return _show(value)
    except Exception:  # a learner's object may fail at anything, even at its own repr
        return f"something of type {type(value).__name__}"


def _show(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        if value.numel() <= 4:
            return f"tensor({[round(v, 5) for v in value.flatten().tolist()]}, shape {tuple(value.shape)})"
        number = value.detach().double()
        return f"tensor of shape {tuple(value.shape)}, {number.min():.4g} to {number.max():.4g}, mean {number.mean():.5g}"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)  # NumPy's numbers are Real too


def _plain(value: Any) -> Any:
    """A tensor or array of one number as that number."""
    single = value.numel() == 1 if isinstance(value, torch.Tensor) else getattr(value, "size", 0) == 1
    return value.item() if single else value


def _hint(mistakes: Sequence[Mistake], arguments: tuple, got: Any, tolerance: float) -> str:
    for mistake in mistakes:
        with contextlib.suppress(Exception):
            if close(got, mistake.answer(*arguments), tolerance):
                return mistake.hint
    return ""


# --- the verdict ------------------------------------------------------------------------------------------------

_results: dict[str, str] = {}
hand_in: Callable[[str, Any], None] | None = None  # in a kernel that is graded: the verdict is given elsewhere, see `grading`


def all_exercises() -> dict[str, Exercise]:
    """Every exercise of the course by its number."""
    found = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(srcourse.exercises.__path__) if m.name.startswith("lesson_")):
        for exercise in importlib.import_module(f"srcourse.exercises.{module}").EXERCISES:
            found[exercise.id] = exercise
    return found


def verdict(exercise: Exercise, answer: Any) -> tuple[str, str]:
    """("TODO" | "FAIL" | "PASS", what to tell the learner)."""
    if answer is None or answer is ...:
        return "TODO", "replace the stub by your answer, run its cell, then this one"
    try:
        exercise.check(answer)
    except Todo:
        return "TODO", "replace the stub by your answer, run its cell, then this one"
    except Wrong as wrong:
        return "FAIL", f"{wrong}" + (f"\n     Hint: {wrong.hint}" if wrong.hint else "")
    except (Exception, SystemExit) as error:
        return "FAIL", f"the check can make nothing of {show(answer)} ({type(error).__name__})"
    return "PASS", exercise.title


def check(exercise_id: str, answer: Any) -> None:
    """Check an answer and print TODO, PASS, or FAIL with the smallest case that goes wrong and a hint.

    Raises nothing for wrong answers, unless the environment has ``SRCOURSE_STRICT=1``; ``ValueError`` for an unknown
    exercise.
    """
    exercises = all_exercises()
    if not isinstance(exercise_id, str) or exercise_id not in exercises:
        raise ValueError(f"there is no exercise {exercise_id!r}: expected one of {', '.join(exercises)}")
    if hand_in is not None:
        return hand_in(exercise_id, answer)
    exercise = exercises[exercise_id]
    result, message = verdict(exercise, answer)
    _results[exercise_id] = result
    print(f"{result} {exercise_id}  {message}")
    log = os.environ.get("SRCOURSE_CHECK_LOG")
    if log:
        with open(log, "a", encoding="utf-8") as file:
            file.write(json.dumps({"exercise": exercise_id, "result": result}) + "\n")
    if os.environ.get("SRCOURSE_STRICT") == "1":
        assert result == "PASS", f"exercise {exercise_id}: {result}: {message}"


def progress() -> None:
    """Print what this session has solved, lesson by lesson; an exercise that was not checked yet counts as open."""
    marks = {"PASS": "●", "FAIL": "✗", "TODO": "○"}
    lessons: dict[str, list[str]] = {}
    for exercise_id in all_exercises():
        lessons.setdefault(exercise_id.split(".")[0], []).append(exercise_id)
    for lesson, ids in lessons.items():
        results = [_results.get(i, "TODO") for i in ids]
        if any(i in _results for i in ids):
            print(f"lesson {lesson}  {' '.join(marks[r] for r in results)}  {results.count('PASS')} of {len(ids)} solved")
    if not _results:
        print("no exercise was checked in this session yet")
