"""How an exercise is checked: tools for the lessons' checks, and the verdict that the learner sees."""

import contextlib
import importlib
import json
import os
import pkgutil
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import srcourse.exercises
from srcourse.exercises.comparing import close, in_its_form, is_number, mismatch, plain, show


class Wrong(Exception):
    """An answer is wrong: what was tried, got and expected, and a hint."""

    def __init__(self, message: str, hint: str = "", error: str = ""):
        super().__init__(message)
        self.hint, self.error = hint, error  # `error`: the exception that the learner's function raised, if it did


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

    If it is wrong, and one of `mistakes` gives the same wrong result, or raises the same error, that mistake's hint is shown.
    """

    def check_function(answer: Any) -> None:
        require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
        for arguments in cases():
            expected = reference(*arguments)
            try:
                got = call(answer, *arguments)
            except Wrong as wrong:
                raise Wrong(str(wrong), _hint_to_error(mistakes, arguments, wrong.error) or wrong.hint) from None
            if not close(got, expected, tolerance):
                where = f"with ({', '.join(map(show, arguments))})"
                raise differs(where, got, expected, _hint(mistakes, arguments, got, tolerance), tolerance)

    return check_function


def value_near(
    compute: Callable[[], float], mistakes: Sequence[Mistake] = (), *, tolerance: float, below: str = "", above: str = ""
) -> Callable[[Any], None]:
    """A check that a number is within `tolerance` of ``compute()``; the expected number is not given away.

    With a tolerance of 0 a whole number is asked for. `below` and `above` are hints to whoever gives too little or too much.
    """

    def check_value(answer: Any) -> None:
        answer = plain(answer)
        require(is_number(answer), f"expected a number, got {show(answer)}")
        require(tolerance > 0 or answer % 1 == 0, f"expected a whole number, got {show(answer)}")
        answer, right = (int(answer), round(compute())) if tolerance == 0 else (float(answer), compute())
        if abs(answer - right) <= tolerance:
            return
        hint = next((m.hint for m in mistakes if abs(answer - m.answer) <= tolerance), below if answer < right else above)
        allowed = f" (a tolerance of {tolerance:g} is allowed)" if tolerance and not hint else ""
        raise Wrong(f"{show(answer)} is not it{allowed}", hint)

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


_ERRORS = {  # what the commonest errors want to say
    "Boolean value of Tensor with more than one value": (
        "`if`, `and` and `or` decide once, but a tensor holds many values: use torch.where(condition, this, that), or masks, & and |."
    ),
    "The truth value of an array with more than one element": (
        "`if`, `and` and `or` decide once, but an array holds many values: use np.where(condition, this, that), or masks, & and |."
    ),
    "must match the size of tensor": "Two tensors of different sizes meet: print the .shape of both.",
}


def call(function: Callable, *arguments: Any) -> Any:
    """Call the learner's function on copies; `Todo` for a stub, `Wrong` for an exception, a changed argument or no result."""
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in arguments]
    where = f"with ({', '.join(map(show, arguments))})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # between libraries: nothing that a learner can mend
            result = function(*copies)
    except NotImplementedError:
        raise Todo from None
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        hint = next((hint for words, hint in _ERRORS.items() if words in text), "")
        raise Wrong(f"{where}: it raised {text}", hint, text) from None
    if result is ...:
        raise Todo
    require(result is not None, f"{where}: your function gave back None", "Is the `return` missing? print() only shows a value.")
    for copy, argument in zip(copies, arguments, strict=True):
        if isinstance(argument, torch.Tensor) and not torch.equal(copy, argument):
            raise Wrong("it changed its argument in place", "Work on a copy: x = x.clone(), or use x - y in place of x -= y.")
    return result


def differs(where: str, got: Any, expected: Any, hint: str = "", tolerance: float = 1e-5) -> Wrong:
    """The exception for a result that is not the expected one."""
    if not hint and close(in_its_form(got, expected), expected, tolerance):
        form = "a NumPy array" if isinstance(got, np.ndarray) else f"a {type(got).__name__}"
        wanted = "a PyTorch tensor" if isinstance(expected, torch.Tensor) else "PyTorch tensors in it"
        hint = f"The numbers are right, but this is {form}: return {wanted}."
    return Wrong(f"{where}: {mismatch(got, expected, tolerance)}", hint)


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(message, hint)


def _hint(mistakes: Sequence[Mistake], arguments: tuple, got: Any, tolerance: float) -> str:
    for mistake in mistakes:
        with contextlib.suppress(Exception):
            if close(got, mistake.answer(*arguments), tolerance):
                return mistake.hint
    return ""


def _hint_to_error(mistakes: Sequence[Mistake], arguments: tuple, error: str) -> str:
    """The hint of a mistake that raises this error, whatever numbers stand in it."""
    for mistake in mistakes if error else ():
        try:
            mistake.answer(*arguments)
        except Exception as same:
            if re.sub(r"\d+", "", f"{type(same).__name__}: {same}") == re.sub(r"\d+", "", error):
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
