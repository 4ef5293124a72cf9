"""The exercises' checks: every plausible mistake gets FAIL, a stub gets TODO, and nothing a learner does raises."""

import json

import nbformat
import numpy as np
import pytest
import torch

from conftest import ROOT
from srcourse import exercises
from srcourse.exercises.checking import Exercise, Mistake, same_function, verdict

ALL = exercises.all_exercises()
MISTAKES = [(number, index) for number, exercise in ALL.items() for index in range(len(exercise.mistakes))]


@pytest.mark.parametrize("number", list(ALL))
def test_every_exercise_has_a_mistake_to_refuse(number):
    assert ALL[number].mistakes and ALL[number].points >= 1 and ALL[number].title


@pytest.mark.parametrize(("number", "index"), MISTAKES)
def test_every_mistake_fails(number, index):
    result, message = verdict(ALL[number], ALL[number].mistakes[index].answer)
    assert result == "FAIL", message


NONSENSE = {
    "number": 42,
    "word": "yes",
    "negative": -1.5,
    "list": [],
    "tensor": torch.rand(3),
    "other shape": lambda *a, **k: torch.rand(2),
    "raises": lambda *a, **k: 1 / 0,
    "no arguments": lambda: 3,
    "type": int,
    "complex": torch.complex(torch.ones(3), torch.ones(3)),
    "complex function": lambda *a, **k: torch.complex(torch.ones(3), torch.ones(3)),
    "leaves": lambda *a, **k: exit(),
    "huge": 10**400,
    "sparse": torch.eye(3).to_sparse(),
    "no data": torch.empty(3, device="meta"),
}


@pytest.mark.parametrize("number", list(ALL))
@pytest.mark.parametrize("nonsense", list(NONSENSE))
def test_nonsense_never_raises_and_never_passes(number, nonsense):
    assert verdict(ALL[number], NONSENSE[nonsense])[0] in ("FAIL", "TODO")


@pytest.mark.parametrize("number", list(ALL))
def test_nothing_yet_is_todo(number):
    assert verdict(ALL[number], ...)[0] == verdict(ALL[number], None)[0] == "TODO"


def double(x):
    return 2 * x


DOUBLE = Exercise(
    "99.1",
    "doubled",
    same_function(double, lambda: [(torch.tensor([1.0]),), (torch.rand(2, 3),)], [Mistake(lambda x: x * x, "That squares.")]),
    [Mistake(lambda x: x * x, "That squares.")],
)


def in_place(x):
    x *= 2
    return x


def stub(x):
    raise NotImplementedError


@pytest.mark.parametrize(
    ("answer", "result", "words"),
    [
        (double, "PASS", "doubled"),
        (lambda x: x + x, "PASS", "doubled"),
        (stub, "TODO", "replace the stub"),
        (lambda x: None, "TODO", "replace the stub"),
        (lambda x: x * x, "FAIL", "got tensor([1.0], shape (1,)), expected tensor([2.0], shape (1,))\n     Hint: That squares."),
        (lambda x: 2 * x[0], "FAIL", "expected tensor"),
        (lambda x: (2 * x).numpy(), "FAIL", "got array"),
        (lambda x: x + y, "FAIL", "it raised NameError"),  # noqa: F821
        (in_place, "FAIL", "changed its argument in place"),
        (3, "FAIL", "expected a function, got 3"),
    ],
)
def test_verdicts(answer, result, words):
    got, message = verdict(DOUBLE, answer)
    assert got == result and words in message


@pytest.mark.parametrize("kind", [float, np.float32, np.float64, np.array, torch.tensor, lambda x: torch.tensor([x])])
def test_a_number_may_come_in_any_form(kind):
    assert verdict(ALL["00.3"], lambda a, b: kind(sum(a[n] - b[n] for n in a) / len(a)))[0] == "PASS"
    assert verdict(ALL["00.4"], kind(5.0))[0] == "PASS"


def test_check_prints_logs_and_is_strict_when_asked(monkeypatch, capsys, tmp_path):
    log = tmp_path / "log.jsonl"
    monkeypatch.setenv("SRCOURSE_CHECK_LOG", str(log))
    exercises.check("00.1", lambda shape, scale: (shape[0], shape[1] * scale, shape[2] * scale))
    exercises.check("00.1", ...)
    exercises.check("00.3", lambda a, b: 0.0)
    out = capsys.readouterr().out
    assert out.startswith("PASS 00.1") and "TODO 00.1" in out and "FAIL 00.3" in out
    assert [json.loads(line)["result"] for line in log.open()] == ["PASS", "TODO", "FAIL"]
    exercises.progress()
    assert "lesson 00  ○ ○ ✗ ○  0 of 4 solved" in capsys.readouterr().out
    monkeypatch.setenv("SRCOURSE_STRICT", "1")
    with pytest.raises(AssertionError, match=r"exercise 00.3: FAIL"):
        exercises.check("00.3", lambda a, b: 0.0)
    for odd in ("77.7", ["00.1"], None):
        with pytest.raises(ValueError, match="there is no exercise"):
            exercises.check(odd, 1)


# --- grading ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_grade_runs_a_copy_and_prints_table_and_json(command, tmp_path):
    solved = nbformat.read(ROOT / "solutions" / "00_welcome.ipynb", as_version=4)
    for cell in solved.cells:
        if "def mean_gain" in cell.source:
            cell.source = "def mean_gain(method, baseline):\n    return 1.0"
        if 'check("00.2"' in cell.source:
            cell.source = ""  # its check is gone
    submission = tmp_path / "submission.ipynb"
    nbformat.write(solved, submission)
    content = submission.read_bytes()
    process = command("grade", submission, "--timeout", 200)
    assert process.returncode == 0, process.stderr
    assert submission.read_bytes() == content and [p.name for p in tmp_path.iterdir()] == ["submission.ipynb"]
    report = json.loads(process.stdout.splitlines()[-1])
    assert {e["exercise"]: e["result"] for e in report["exercises"]} == {"00.1": "PASS", "00.2": "MISSING", "00.3": "FAIL", "00.4": "PASS"}
    assert (report["points"], report["of"]) == (3, 6) and report["problem"] is None
    assert "00.3      FAIL" in process.stdout and "the mean gain" in process.stdout
    assert not any(ALL[e["exercise"]].title in process.stdout for e in report["exercises"])  # a title gives its answer away


def tiny_notebook(path, *sources):
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources]), path)
    return path


def test_grade_stops_an_endless_submission_and_keeps_what_it_had(command, tmp_path):
    check = "from srcourse import exercises\nexercises.check('00.1', lambda s, k: (s[0], s[1] * k, s[2] * k))"
    process = command(
        "grade", tiny_notebook(tmp_path / "a.ipynb", check, "while True: pass"), "--timeout", 30, "--json", tmp_path / "a.json"
    )
    assert process.returncode == 1 and "stopped after 30 s" in process.stdout
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["exercises"][0]["result"] == "PASS" and report["exercises"][1]["result"] == "MISSING"


def test_grade_survives_errors_dead_kernels_and_a_scribbled_log(command, tmp_path):
    check = "from srcourse import exercises\nexercises.check('00.1', lambda s, k: (s[0], s[1] * k, s[2] * k))"
    scribble = "import os; open(os.environ['SRCOURSE_CHECK_LOG'], 'ab').write(b'garbage\\n[1]\\n\\xff\\n')"
    process = command("grade", tiny_notebook(tmp_path / "a.ipynb", "this is no Python", scribble, check, "import os; os._exit(0)"))
    report = json.loads(process.stdout.splitlines()[-1])
    assert process.returncode == 1 and "kernel died" in report["problem"] and report["exercises"][0]["result"] == "PASS"
    process = command("grade", tiny_notebook(tmp_path / "b.ipynb", "this is no Python", check))
    report = json.loads(process.stdout.splitlines()[-1])
    assert process.returncode == 0 and "cell 1 raised SyntaxError" in report["problem"] and report["finished"]


def test_grade_refuses_what_is_no_lesson(command, tmp_path):
    (tmp_path / "text.ipynb").write_text("hello")
    for arguments, words in (
        (tmp_path / "none.ipynb", "does not exist"),
        (tmp_path / "text.ipynb", "is not a Jupyter notebook"),
        (tiny_notebook(tmp_path / "plain.ipynb", "1 + 1"), "has no exercises of this course"),
    ):
        process = command("grade", arguments)
        assert process.returncode == 1 and words in process.stderr and len(process.stderr.strip().splitlines()) == 1
