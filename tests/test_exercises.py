"""The exercises' checks: every plausible mistake gets FAIL, a stub gets TODO, and nothing a learner does raises."""

import json
import re
import warnings

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from conftest import ROOT
from srcourse import degradation, exercises
from srcourse.exercises.checking import Exercise, Mistake, same_function, verdict
from srcourse.exercises.comparing import mismatch, show

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
        (lambda x: None, "FAIL", "your function gave back None\n     Hint: Is the `return` missing?"),
        (lambda x: x * x, "FAIL", "got tensor([1.0], shape (1,)), expected tensor([2.0], shape (1,))\n     Hint: That squares."),
        (lambda x: 2 * x[0], "FAIL", "expected tensor"),
        (lambda x: (2 * x).numpy(), "FAIL", "got array"),
        (lambda x: (2 * x).numpy(), "FAIL", "right, but this is a NumPy array: return a PyTorch tensor."),
        (lambda x: (2 * x).tolist(), "FAIL", "right, but this is a list: return a PyTorch tensor."),
        (lambda x: x * 2 if x > 0.5 else 2 * x, "FAIL", "use torch.where"),
        (lambda x: x + torch.ones(5) if x.ndim > 1 else 2 * x, "FAIL", "print the .shape of both"),
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


def test_numbers_in_an_array_are_called_right_only_if_they_are():
    message = verdict(DOUBLE, lambda x: (3 * x).numpy())[1]
    assert "got array([3.0], shape (1,)), expected tensor([2.0], shape (1,))" in message and "right" not in message
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "NumPy array" in verdict(ALL["01.1"], keys_in_numpy)[1]


def keys_in_numpy(t, a):
    t = np.abs(t)  # a tensor, with a warning of NumPy's about PyTorch
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def test_two_results_that_look_alike_are_told_apart():
    few, many = torch.arange(8.0).reshape(1, 4, 1, 2), torch.arange(24.0).reshape(2, 3, 4)
    assert show(few) == "tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], shape (1, 4, 1, 2))"
    other = many.clone()
    other[1, 0, 2] += 0.5
    assert mismatch(other, many).endswith("they differ first at [1, 0, 2]: got 14.5, expected 14")
    assert mismatch([*range(50), 7], [*range(50), 8]).endswith("they differ first at [50]: got 7, expected 8")
    assert mismatch((1, [few, many]), (1, [few, other])).endswith("they differ first at [1][1][1, 0, 2]: got 14, expected 14.5")
    assert mismatch(1.0000001, 1.0) == "got 1.0000001, expected 1"
    assert mismatch(many, few).endswith(show(few)) and mismatch("a", many).startswith("got 'a', expected tensor of shape (2, 3, 4)")


def keys_with_if(t, a):
    t = t.abs()
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a


def row_of_weights(sigma, size):
    row = torch.exp(-((torch.arange(size) - size // 2) ** 2) / (2 * sigma**2))
    return row / row.sum()


def many_steps(estimate, lr, scale):
    for _ in range(60):
        estimate = estimate + degradation.upscale(lr - degradation.downscale(estimate, scale), scale)
    return estimate


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("00.1", lambda shape, scale: (3, shape[1] * scale, shape[2] * scale), "Take the number of channels from `shape`"),
        ("00.1", lambda shape, scale: (shape[0], 4 * shape[1], 4 * shape[2]), "Multiply by `scale`"),
        ("00.1", lambda shape, scale: tuple(scale * n for n in shape), "The colours are not upscaled"),
        ("00.1", lambda shape, scale: print(shape), "Is the `return` missing?"),
        ("00.3", lambda m, b: sum(m[n] - b[n] for n in m) / 3, "it is not always 3"),
        ("00.3", lambda m, b: sum(m[n] - b[n] for n in m) / 2, "it is not always 2"),
        ("00.4", 4.5, "expected a whole number, got 4.5"),
        ("00.4", 4, "4 is not it\n     Hint: Up to there the network still wins"),
        ("00.4", 7.0, "7 is not it\n     Hint: A smaller level will do."),
        ("00.4", 10, "At 10 bicubic wins already"),
        ("01.1", keys_with_if, "use torch.where"),
        ("01.4", row_of_weights, "the kernel is a square"),
        ("01.6", lambda e, lr, s: (lr - degradation.downscale(e, s)) + e, "enlarge the difference before it is added"),
        ("01.6", lambda e, lr, s: e + degradation.upscale(lr - e, s), "shrink the estimate before"),
        ("01.6", many_steps, "One step is asked for"),
        ("03.3", lambda x, r: F.pixel_unshuffle(x.flip(-1), r), "tensor([3.0, 1.0, 2.0, 0.0, 7.0, 5.0, 6.0, 4.0], shape (1, 4, 1, 2))"),
        ("03.4", lambda layers: 1 + sum((k - 1) // r for k, r in layers), "divide with /"),
        ("03.4", lambda layers: 1 + sum(k // r for k, r in layers), "(k - 1) / r"),
        ("03.5", lambda p, n: (max(p), len(p) - 1), "an index, not the PSNR"),
        ("03.5", lambda p, n: (np.argmax(p), len(p) - 1), "got (1, 5), expected (1, 3)\n     Hint: This looks at all the validations"),
        ("09.1", 100.5, "expected a whole number, got 100.5"),
    ],
)
def test_honest_mistakes_get_a_hint_that_fits(number, answer, hint):
    result, message = verdict(ALL[number], answer)
    assert result == "FAIL" and hint in message


@pytest.mark.parametrize("number", ["03.2", "05.5", "09.2"])
def test_a_block_passes_its_gradient_on(number):
    result, message = verdict(ALL[number], a_block(number, fault="cut"))
    assert result == "FAIL" and "The gradient is cut" in message


def test_a_class_without_forward_is_told_so():
    result, message = verdict(ALL["05.5"], type("Block", (a_block("05.5"),), {"forward": nn.Module.forward}))
    assert result == "FAIL" and "Does `def forward` stand inside the class" in message


def test_one_run_is_not_sold_as_a_finding():
    assert "In this short run" in ALL["03.6"].title


def a_block(number, *, backwards=True, fault="", kernel=3):
    """A right block of exercise 03.2, 05.5 or 09.2 whose layers are defined in the other order, or one with a fault."""

    class Block(nn.Module):
        def __init__(self, channels, *rest):
            super().__init__()
            size = rest[0] if number == "09.2" else kernel
            self.rounds = rest[0] if number == "05.5" else 1
            for i in (2, 1) if backwards else (1, 2):
                setattr(self, f"c{i}", nn.Conv2d(channels, channels, size, padding=size // 2, bias=fault != "no bias"))
            if number == "03.2":
                self.b2, self.b1, self.bend = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels), nn.PReLU()

        def forward(self, x):
            u = x
            for _ in range(self.rounds):
                if number == "03.2":
                    y = self.b2(self.c2(self.bend(self.b1(self.c1(u)))))
                elif number == "05.5":
                    y = self.c2(F.relu(self.c1(F.relu(u))))
                else:
                    y = (self.c1 if fault == "one twice" else self.c2)(F.relu(self.c1(u)))
                u = y if fault == "no skip" else (x.detach() if fault == "cut" else x) + y
            return u

    return Block


@pytest.mark.parametrize("number", ["03.2", "05.5", "09.2"])
def test_layers_may_be_defined_in_any_order(number):
    assert verdict(ALL[number], a_block(number))[0] == verdict(ALL[number], a_block(number, backwards=False))[0] == "PASS"
    result, message = verdict(ALL[number], a_block(number, fault="no skip"))
    assert result == "FAIL" and re.search(r"The input is (not added|missing)|block's input", message)
    assert verdict(ALL["09.2"], a_block("09.2", fault="one twice"))[0] == "FAIL"


@pytest.mark.parametrize("number", ["03.2", "05.5", "09.2"])
def test_the_first_layer_that_differs_is_named(number):
    message = verdict(ALL[number], a_block(number, fault="no bias", backwards=False))[1]
    assert "the bias of Conv2d 'c1': got none, expected (2,)" in message
    if number != "09.2":
        message = verdict(ALL[number], a_block(number, kernel=5, backwards=False))[1]
        assert "the weight of Conv2d 'c1': got (2, 2, 5, 5), expected (2, 2, 3, 3)" in message
    assert (
        "got 0 Conv2d, expected 2"
        in verdict(ALL[number], type("Empty", (nn.Module,), {"__init__": lambda s, *_: nn.Module.__init__(s)}))[1]
    )


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
    with pytest.raises(ValueError, match=r"there is no exercise '1\.1': did you mean '01\.1'\?"):
        exercises.check("1.1", 1)


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
