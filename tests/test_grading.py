"""Grading strangers' notebooks: no result is forged, no submission harms another, and every limit is kept and told."""

import ast
import json
import os
import pickle
import re
import socket
import struct
import threading

import nbformat
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT
from srcourse import exercises, grading
from srcourse.exercises.checking import verdict
from srcourse.grading import judge, kernel

ALL = exercises.all_exercises()
SHAPE = "lambda shape, scale: (shape[0], shape[1] * scale, shape[2] * scale)"
START = "import os, sys, math, pathlib\nimport torch\nfrom srcourse import exercises\nfrom srcourse.exercises import checking"


def notebook(path, *sources):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in sources]), path)
    return path


def results(report):
    return {g.exercise: g.result for g in report.grades}


# --- stand-ins --------------------------------------------------------------------------------------------------


def judged_apart(number, answer):
    """The verdict on a stand-in for the answer, as in a graded kernel."""
    here, there = socket.socketpair()

    def answer_questions():
        desk, wire = kernel.Desk(), judge.Wire(there)
        wire.send(desk.pack(answer))
        while (message := pickle.loads(wire.receive()))["do"] != "end":
            wire.send(desk.reply(message))

    thread = threading.Thread(target=answer_questions, daemon=True)
    thread.start()
    with here, there:
        line = judge.Line(judge.Wire(here, threading.Event()))
        found = verdict(ALL[number], line.receive())
        line.wire.send(pickle.dumps({"do": "end"}))
        thread.join(10)
    return found


@pytest.mark.parametrize("number", list(ALL))
def test_a_stand_in_gets_the_verdict_of_the_answer_itself(number):
    for mistake in ALL[number].mistakes[:4]:
        assert judged_apart(number, mistake.answer) == verdict(ALL[number], mistake.answer)


def solved_answers():
    """Right answers of the solutions: functions, classes and choices that their definitions alone make."""
    found = {}
    for path in sorted((ROOT / "solutions").glob("*.ipynb")):
        names = {"__name__": "__main__"}
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "check" in cell.metadata.get("tags", []):
                (number, name), *_ = re.findall(r'check\("([\d.]+)", (\w+)\)', cell.source)
                found[number] = names.get(name, ...)
            elif cell.cell_type == "code" and not cell.source.startswith(("%", "!")):
                tree = ast.parse(cell.source)
                kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
                for statement in tree.body:
                    if isinstance(statement, kinds) or (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant)):
                        try:
                            exec(compile(ast.Module([statement], []), str(path), "exec"), names)
                        except NameError:  # a default that the lesson computes
                            continue
    return found


def test_the_solutions_pass_as_stand_ins():
    answers = solved_answers()
    passing = {number for number, answer in answers.items() if verdict(ALL[number], answer)[0] == "PASS"}
    assert len(passing) >= 45
    # those that are given networks, optimizers or gradients, or are classes of networks
    assert passing >= {"03.2", "04.5", "05.3", "05.5", "06.5", "08.1", "08.4", "09.2", "09.3", "09.5"}
    assert [n for n in sorted(passing) if judged_apart(n, answers[n])[0] != "PASS"] == []


def test_stubs_and_unusual_answers_are_told_apart():
    def stub(shape, scale):
        raise NotImplementedError

    def leaves(shape, scale):
        raise SystemExit

    assert judged_apart("00.1", ...)[0] == judged_apart("00.1", None)[0] == judged_apart("00.1", stub)[0] == "TODO"
    assert judged_apart("00.1", leaves) == ("FAIL", "with ((3, 1, 2), 2): it raised SystemExit: ")
    for answer in (10**400, float("nan"), {1: [2.0]}, object(), int, b"bytes", 1j, [[]]):
        assert judged_apart("00.4", answer)[0] == "FAIL"
    nested = []
    nested.append(nested)
    with pytest.raises(ValueError, match="nested"):
        kernel.Desk().pack(nested)
    with pytest.raises(ValueError, match="too long"):
        kernel.Desk().pack("x" * (2**22 + 1))


@settings(max_examples=150, deadline=None)
@given(
    tree=st.recursive(
        st.none()
        | st.integers()
        | st.text(max_size=9)
        | st.sampled_from(["list", "dict", "tensor", "array", "module", "callable", "error"]),
        lambda inner: st.lists(inner, max_size=5),
        max_leaves=20,
    ),
    sizes=st.lists(st.integers(-5, 50), max_size=3),
    blob=st.binary(max_size=60),
)
def test_whatever_a_kernel_sends_is_data_or_refused(tree, sizes, blob):
    text = json.dumps([tree, sizes]).encode()
    here, there = socket.socketpair()
    with here, there:
        judge.Wire(there).send(struct.pack(">Q", len(text)) + text + blob)
        try:
            judge.Line(judge.Wire(here, threading.Event())).receive()
        except ValueError as error:
            assert "is no answer" in str(error)


# --- a notebook's attempts --------------------------------------------------------------------------------------


def test_no_result_is_forged(tmp_path, monkeypatch):
    monkeypatch.setenv("SRCOURSE_SECRET", "very secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    mark = tmp_path / "unpickled"
    speak = f"""
import pickle, socket, struct, json
port, token, _ = os.environ["SRCOURSE_GRADER"].split()
class Bomb:
    def __reduce__(self):
        return (os.mkdir, ({str(mark)!r},))
def framed(text):
    data = struct.pack(">Q", len(text)) + text
    return struct.pack(">Q", len(data)) + data
for words in (pickle.dumps(Bomb()), framed(json.dumps([["tuple", [token, "00.4", ["PASS", 5]]], []]).encode()),
              framed(json.dumps({{"exercise": "00.4", "result": "PASS"}}).encode()), b"PASS 00.4", b"\\xff" * 30):
    with socket.create_connection(("127.0.0.1", int(port))) as line:
        line.sendall(words)
"""
    path = notebook(
        tmp_path / "a.ipynb",
        START,
        'print(\'PASS 00.1  both sides grow\')\nprint(\'{"exercise": "00.1", "result": "PASS"}\')\nos.write(1, b\'PASS 00.1\\n\')',
        'pathlib.Path(\'checks.jsonl\').write_text(\'{"exercise": "00.1", "result": "PASS"}\')',
        # the answer keeps 00.1 from being MISSING; it is wrong
        "exercises.check('00.1', lambda shape, scale: shape)",
        # the package, its judge's tools and torch replaced
        "checking.verdict = lambda *_: ('PASS', '')\nchecking.close = lambda *_, **__: True\nmath.isclose = lambda *_, **__: True\n"
        "torch.allclose = lambda *_, **__: True\nchecking._results['00.2'] = 'PASS'\n"
        "for exercise in checking.all_exercises().values():\n    object.__setattr__(exercise, 'check', lambda answer: None)",
        "exercises.check('00.2', 'chelsea')",
        "checking.check('00.2', 'chelsea')",
        # the course's own reference, found where it stands
        "from srcourse.exercises import lesson_00\nexercises.check('00.3', lesson_00._mean_gain)",
        speak,
        "exercises.check = checking.check = lambda number, answer: print('PASS', number)\nexercises.check('00.4', 5)",
        "import os\nassert 'very secret' not in os.environ.values()",
    )
    content = path.read_bytes()
    report = grading.grade(path, cell_timeout=60)
    assert report.problem is None and report.finished
    assert results(report) == {"00.1": "FAIL", "00.2": "FAIL", "00.3": "FAIL", "00.4": "FAIL"} and report.points == 0
    remarks = {g.exercise: g.remark for g in report.grades}
    assert "got (3, 1, 2), expected (3, 2, 4)" in remarks["00.1"] and "'chelsea' is not what happens" in remarks["00.2"]
    assert "own reference" in remarks["00.3"] and "expected a number" in remarks["00.4"]
    assert report.problem is None and report.finished
    assert not mark.exists() and path.read_bytes() == content and sorted(tmp_path.iterdir()) == [path]


def test_limits_stop_a_cell_and_then_the_kernel_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr(grading._Watch, "grace", 1)
    children = tmp_path / "children"
    path = notebook(
        tmp_path / "a.ipynb",
        START,
        f"exercises.check('00.1', {SHAPE})",
        "while True: pass",
        "def endless(method, baseline):\n    while True: pass\nexercises.check('00.3', endless)",
        "print('x' * 10**7)\nfor i in range(3000): print('\\x1b[2J', i, 'y' * 1000)",  # a flood
        "hog = [0] * 10**9",
        "import shutil\nshutil.rmtree(pathlib.Path.home())\nshutil.rmtree(os.getcwd(), ignore_errors=True)",
        "sys.exit()",
        "exercises.check('00.2', 'astronaut')\nexercises.check('00.2', 'coffee')",  # the last one counts
        "exercises.check('00.4', float('nan'))",
        "exercises.check('00.1', ...)\nexercises.check('01.4', 3)\nexercises.check('77.7', 3)",
        f"exercises.check('00.1', {SHAPE})",
        "import signal, subprocess\nsleep = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "kin = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]\n"
        f"pathlib.Path({str(children)!r}).write_text(' '.join(str(p.pid) for p in kin) + f' {{os.getpid()}}')",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "exercises.check('00.2', 'astronaut')",
    )
    report = grading.grade(path, lesson="00_welcome", cell_timeout=4, memory=4000)
    assert results(report) == {"00.1": "PASS", "00.2": "FAIL", "00.3": "FAIL", "00.4": "FAIL"}
    assert report.points == 1 and report.of == 6 and not report.finished
    stopped, *others = report.problem.split("; ")
    assert stopped == "stopped in cell 14, after 4 s" and others[:2] == ["cell 3 was stopped after 4 s", "cell 4 was stopped after 4 s"]
    assert others[2:] == ["cell 6 asked for more than the 4000 MB of memory that a submission may use"]
    remarks = {g.exercise: g.remark for g in report.grades}
    assert "it raised KeyboardInterrupt" in remarks["00.3"] and remarks["00.4"].startswith("nan is not it") and remarks["00.1"] == ""
    for pid in map(int, children.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_memory_beyond_the_kernels_own_limit_is_watched():
    """A child, or a system without such limits: the watch from outside."""

    class Hog:
        pid = os.getpid()

        def children(self, recursive):
            return []

        def memory_info(self):
            return type("Info", (), {"rss": 3e9})

    watch = grading._Watch(os.getpid(), ROOT / "tests", "token", grading._Limits(10, 10, 2000), threading.Event())
    watch.kernel, watch.seen = Hog(), {Hog()}
    assert watch._beyond(1) == "it used more than 2000 MB of memory"
    watch.limits = grading._Limits(10, 10, 4000)
    assert watch._beyond(1) is None
    watch.seen = {Hog() for _ in range(101)}
    watch.limits = grading._Limits(10, 10, 10**6)
    assert watch._beyond(1) == "it started more than 100 processes"


# --- folders ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_folder_of_submissions_becomes_a_table(command, tmp_path):
    folder = tmp_path / "handed in"
    notebook(folder / "anna" / "00_welcome.ipynb", START, f"exercises.check('00.1', {SHAPE})\nexercises.check('00.2', 'coffee')")
    notebook(folder / "bert" / "00_welcome.ipynb", START, "exercises.check('00.1', 1)\nos.kill(os.getppid(), 9)")
    (folder / "cora").mkdir()
    (folder / "cora" / "notes.ipynb").write_text("no notebook")
    notebook(folder / "dora" / "other.ipynb", "exercises.check('02.1', 1)")
    with (folder / "emil.ipynb").open("wb") as large:
        large.truncate(500 * 2**20)
    notebook(folder / ".ipynb_checkpoints" / "old.ipynb", "exercises.check('00.1', 1)")
    process = command("grade", folder, "--lesson", "00_welcome", "--csv", tmp_path / "grades.csv", "--json", tmp_path / "grades.json")
    assert process.returncode == 1, process.stderr
    head, *rows = [line.split(",") for line in (tmp_path / "grades.csv").read_text(encoding="utf-8").splitlines()]
    assert head == ["file", "points", "of", "00.1", "00.2", "00.3", "00.4", "remark"]
    assert [row[0].removeprefix(f"{folder}{os.sep}").split(os.sep)[0] for row in rows] == ["anna", "bert", "cora", "dora", "emil.ipynb"]
    assert rows[0][1:7] == ["1", "6", "PASS", "FAIL", "MISSING", "MISSING"] and rows[0][7] == ""
    for row, words in zip(rows[1:], ("broken off from within", "is not a Jupyter notebook", "it is lesson 02", "of 500 MB"), strict=True):
        assert row[1:7] == ["0", "6"] + ["MISSING"] * 4 and words in row[7]
    written = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))
    assert [r["points"] for r in written] == [1, 0, 0, 0, 0] and written[0]["exercises"][1]["remark"]


def test_a_table_computes_nothing():
    report = grading.Report("=cmd()", [grading.Grade("00.1", "", "PASS", 1, 1)], "@SUM(1), as said")
    assert grading.to_csv([report]) == "file,points,of,00.1,remark\n'=cmd(),1,1,PASS,\"'@SUM(1), as said\"\n"
    assert grading.Report.from_json(report.to_json()) == report


def test_what_cannot_be_graded_gets_one_line(command, tmp_path):
    (tmp_path / "empty").mkdir()
    notebook(tmp_path / "a.ipynb", "exercises.check('02.1', 1)")
    (tmp_path / "deep.ipynb").write_text("[" * 100_000)
    (tmp_path / "list.ipynb").write_text("[]")
    (tmp_path / "null.ipynb").write_text('{"cells": null, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    for arguments, words in (
        ([tmp_path / "empty"], "holds no notebooks"),
        ([tmp_path / "a.ipynb", "--lesson", "03_srresnet"], "has no exercises of lesson 03: it is lesson 02"),
        ([tmp_path / "a.ipynb", "--lesson", "srgan"], "there is no lesson 'srgan'"),
        ([tmp_path / "a.ipynb", "--csv", "grades.txt"], "ends in .csv"),
        ([tmp_path / "deep.ipynb"], "is not a Jupyter notebook"),
        ([tmp_path / "list.ipynb"], "is not a Jupyter notebook"),
        ([tmp_path / "null.ipynb"], "is not a Jupyter notebook"),
    ):
        process = command("grade", *arguments)
        assert process.returncode == 1 and words in process.stderr and len(process.stderr.strip().splitlines()) == 1


def test_an_older_notebook_is_read(tmp_path):
    old = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=[nbformat.v3.new_code_cell("exercises.check('00.1', 1)")])])
    (tmp_path / "old.ipynb").write_text(nbformat.v3.writes_json(old))
    document, wanted = grading._read(tmp_path / "old.ipynb", None)
    assert document.nbformat == 4 and [e.id for e in wanted] == ["00.1", "00.2", "00.3", "00.4"]


def test_headings_of_strangers_are_one_harmless_line():
    cell = nbformat.v4.new_markdown_cell("### Exercise 00.1 ● (5 min): \x1b[2Jshape" + "x" * 500)
    (heading,) = grading._headings(nbformat.v4.new_notebook(cells=[cell])).values()
    assert "\x1b" not in heading and len(heading) == 100
