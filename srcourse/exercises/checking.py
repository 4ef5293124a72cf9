"""How an exercise is checked: tools for the lessons' checks, and the verdict that the learner sees."""

import contextlib
import copy
import difflib
import importlib
import json
import math
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
from srcourse.exercises.comparing import close, gradients, in_its_form, is_number, mismatch, plain, show


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

    If it is wrong, and one of `mistakes` gives the same wrong result, or raises the same error, that mistake's hint is shown;
    of several, the one that agrees with the answer in most cases.
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
                numbers = in_its_form(got, expected)
                fitting = _fitting(mistakes, arguments, got, tolerance)
                if not fitting and not close(numbers, expected, tolerance):
                    fitting = _fitting(mistakes, arguments, numbers, tolerance)
                hint = max(fitting, key=lambda m: _agreement(m, answer, cases(), tolerance)).hint if fitting else ""
                raise differs(where, got, expected, hint, tolerance)

    return check_function


def same_gradient(reference: Callable, cases: Callable[[], Sequence[tuple]], inputs: int = 1) -> Callable[[Any], None]:
    """A check that a loss with the right values passes on the gradients of `reference`, to its first `inputs` arguments."""

    def check_gradient(answer: Any) -> None:
        for arguments in cases():
            where = f"with ({', '.join(map(show, arguments))}): the value is right, "
            expected, got = (gradients(loss, arguments, inputs) for loss in (reference, answer))
            require(got is not None, where + "but it passes no gradient on", CUT)
            require(all(bool(g.isfinite().all()) for g in got), where + "but its gradient is not finite", _NOT_FINITE)
            require(close(got, expected, 1e-4), where + "its gradient is not", CUT)

    return check_gradient


CUT = "The gradient is cut on the way: no .detach(), .item(), torch.no_grad() or NumPy between what comes in and the result."
_NOT_FINITE = "Something overflows on the way, perhaps in the branch that torch.where does not choose: its gradient counts all the same."


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
    "expected equal shapes": "Two images of different shapes meet: print the .shape of both. Of a batch (1, 3, h, w), the image is [0].",
    "must match the size of tensor": "Two tensors of different sizes meet: print the .shape of both.",
    "before Module.__init__() call": "super().__init__() comes first in __init__, before any layer.",
    "positional argument": "A function got more or fewer arguments than it takes: is your `def` line still the exercise's?",
}


def call(function: Callable, *arguments: Any) -> Any:
    """Call the learner's function on copies; `Todo` for a stub, `Wrong` for an exception, a changed argument or no result."""
    copies = [a.clone() if isinstance(a, torch.Tensor) else copy.deepcopy(a) if isinstance(a, _DATA) else a for a in arguments]
    where = f"with ({', '.join(map(show, arguments))})"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # between libraries: nothing that a learner can mend
            result = function(*copies)
    except NotImplementedError as error:
        if "missing the required" in str(error):
            raise Wrong(
                "the module has no `forward`", "Does `def forward` stand inside the class, as far to the right as __init__?"
            ) from None
        raise Todo from None
    except (Exception, SystemExit) as error:
        text = f"{type(error).__name__}: {error}"
        hint = next((hint for words, hint in _ERRORS.items() if words in text), "")
        raise Wrong(f"{where}: it raised {text}", hint, text) from None
    if result is ...:
        raise Todo
    require(result is not None, f"{where}: your function gave back None", "Is the `return` missing? print() only shows a value.")
    for given, argument in zip(copies, arguments, strict=True):
        if isinstance(argument, _DATA) and not _unchanged(given, argument):
            raise Wrong("it changed its argument in place", _IN_PLACE)
    return result


_DATA = (torch.Tensor, np.ndarray, list, dict)  # a network and its optimizer are there to be changed
_IN_PLACE = "Work on a copy: x = x.clone(), or use x - y in place of x -= y, and no inplace=True."


def _unchanged(now: Any, before: Any) -> bool:
    if isinstance(before, torch.Tensor):
        return torch.equal(now, before)
    if isinstance(before, np.ndarray):
        return np.array_equal(now, before)
    if isinstance(before, list | tuple):
        return len(now) == len(before) and all(map(_unchanged, now, before))
    return now == before


def differs(where: str, got: Any, expected: Any, hint: str = "", tolerance: float = 1e-5) -> Wrong:
    """The exception for a result that is not the expected one."""
    return Wrong(f"{where}: {mismatch(got, expected, tolerance)}", hint or _form(got, expected, tolerance))


def _form(got: Any, expected: Any, tolerance: float) -> str:
    """What to say about the form of a result: its type and shape."""
    mine, single = in_its_form(got, expected), isinstance(expected, torch.Tensor) and not expected.ndim
    form = "a NumPy array" if isinstance(got, np.ndarray) else f"a {type(got).__name__}"
    if isinstance(expected, tuple | list):
        wanted = f"a {type(expected).__name__}" if isinstance(got, np.ndarray | torch.Tensor) else "PyTorch tensors in it"
    else:
        wanted = "a PyTorch tensor, without .item()" if single and is_number(got) else "a PyTorch tensor"
    if close(mine, expected, tolerance):
        return f"The numbers are right, but this is {form}: return {wanted}."
    if isinstance(mine, float) and isinstance(expected, float) and math.isnan(mine):
        return f"{_NAN} Or is it the mean of nothing: of a slice with no pixel in it?"
    if not isinstance(mine, torch.Tensor) or not isinstance(expected, torch.Tensor):
        return ""
    if mine.isnan().any() and not expected.isnan().any():
        return _NAN
    if mine is not got:
        return f"This is {form}, and its numbers differ too: return {wanted}."
    if mine.numel() == expected.numel() and close(mine.reshape(expected.shape), expected, tolerance):
        return f"The numbers are right, but not their shape: {tuple(mine.shape)}, where {tuple(expected.shape)} is asked for."
    return "One number is asked for, not one for each value: is a mean or a sum missing?" if single and mine.numel() > 1 else ""


_NAN = "NaN comes from a root or a logarithm of a negative number (rounding can make a zero negative), from 0/0, 0 · ∞ or ∞ - ∞."


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `Wrong` unless the condition holds."""
    if not condition:
        raise Wrong(message, hint)


def _fitting(mistakes: Sequence[Mistake], arguments: tuple, got: Any, tolerance: float) -> list[Mistake]:
    """The mistakes that give this result."""
    return [mistake for mistake in mistakes if _gives(mistake, arguments, got, tolerance)]


def _gives(mistake: Mistake, arguments: tuple, got: Any, tolerance: float) -> bool:
    try:
        given = mistake.answer(*arguments)
        if isinstance(got, torch.Tensor) and isinstance(given, torch.Tensor) and got.shape == given.shape:
            both = got.isnan() & given.isnan()
            got, given = got.masked_fill(both, 0), given.masked_fill(both, 0)
        return bool(close(got, given, tolerance))
    except Exception:  # this mistake is none here
        return False


def _agreement(mistake: Mistake, answer: Callable, cases: Sequence[tuple], tolerance: float) -> int:
    """In how many cases an answer gives what this mistake gives."""
    found = 0
    for arguments in cases:
        with contextlib.suppress(Exception, SystemExit, Todo):
            got = call(answer, *arguments)
            found += _gives(mistake, arguments, in_its_form(got, mistake.answer(*arguments)), tolerance)
    return found


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
        alike = difflib.get_close_matches(str(exercise_id).zfill(4), exercises, 1)
        advice = f"did you mean {alike[0]!r}?" if alike else "expected one such as '01.1'"
        raise ValueError(f"there is no exercise {exercise_id!r}: {advice}")
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
