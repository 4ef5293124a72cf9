"""Grading strangers' notebooks: no result is forged, no submission harms another, and every limit is kept and told."""

import ast
import csv
import json
import os
import pathlib
import pickle
import re
import shutil
import socket
import struct
import threading

import nbformat
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import ROOT, one_line
from srcourse import exercises, grading
from srcourse.exercises.checking import verdict
from srcourse.grading import folders, judge, kernel, report, running
from srcourse.grading import notebook as reading

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
    monkeypatch.setattr(running.Watch, "grace", 1)
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
    assert stopped == "stopped in cell 14, after 4 s (--cell-timeout)"
    assert others[:2] == ["cell 3 was stopped after 4 s (--cell-timeout)", "cell 4 was stopped after 4 s (--cell-timeout)"]
    assert others[2:] == ["cell 6 asked for more than the 4000 MB of memory that a submission may use"]
    remarks = {g.exercise: g.remark for g in report.grades}
    refused = judge.printable(verdict(ALL["00.4"], float("nan"))[1], 300)
    assert "it raised KeyboardInterrupt" in remarks["00.3"] and remarks["00.4"] == refused and remarks["00.1"] == ""
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

    watch = running.Watch(os.getpid(), ROOT / "tests", "token", running.Limits(10, 10, 2000), threading.Event())
    watch.kernel, watch.seen = Hog(), {Hog()}
    assert watch._beyond(1) == "it used more than 2000 MB of memory"
    watch.limits = running.Limits(10, 10, 4000)
    assert watch._beyond(1) is None
    watch.seen = {Hog() for _ in range(101)}
    watch.limits = running.Limits(10, 10, 10**6)
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
    (folder / "eva").mkdir()
    process = command("grade", folder, "--lesson", "00_welcome", "--csv", tmp_path / "grades.csv", "--json", tmp_path / "grades.json")
    assert process.returncode == 1, process.stderr
    head, *rows = table(tmp_path / "grades.csv")
    assert head == ["student", "file", "points", "of", "00.1", "00.2", "00.3", "00.4", "sha", "remarks"]
    assert [row[0] for row in rows] == ["emil", "anna", "bert", "cora", "dora", "eva"]
    assert [row[1] for row in rows] == [
        "emil.ipynb", "anna/00_welcome.ipynb", "bert/00_welcome.ipynb", "cora/notes.ipynb", "dora/other.ipynb", "eva",
    ]  # fmt: skip
    large, anna, *rest = rows
    assert anna[2:8] == ["1", "6", "PASS", "FAIL", "MISSING", "MISSING"]
    assert re.fullmatch(r"00\.2: 'coffee' is not what happens.* \| 00\.3, 00\.4: its checks never reached the grader", anna[9])
    because = ("of 500 MB", "broken off from within", "is not a Jupyter notebook", "it is lesson 02", "no notebook in this folder")
    for row, words in zip([large, *rest], because, strict=True):
        assert row[2:8] == ["0", "6"] + ["MISSING"] * 4 and words in row[9] and str(tmp_path) not in row[9]
    assert all(re.fullmatch(r"[0-9a-f]{8}", row[8]) for row in rows[:-1]) and rows[-1][8] == ""
    written = json.loads((tmp_path / "grades.json").read_text(encoding="utf-8"))
    assert [r["points"] for r in written] == [0, 1, 0, 0, 0, 0] and written[1]["exercises"][1]["remark"]
    told = process.stderr.splitlines()
    assert told[0] == "1 of 6: emil.ipynb" and re.fullmatch(r"6 of 6, about \d+ min left: eva", told[5])


def test_a_table_computes_nothing():
    made = grading.Report("=cmd()", [grading.Grade("00.1", "", "PASS", 1, 1)], "@SUM(1), as said", student="-1", sha="0a1b2c3d")
    text = "student,file,points,of,00.1,sha,remarks\n'-1,'=cmd(),1,1,PASS,0a1b2c3d,\"'@SUM(1), as said\"\n"
    assert grading.to_csv([made]) == text
    assert grading.Report.from_json(made.to_json()) == made


def table(path):
    """The rows of a table, as a spreadsheet reads them."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def handed_in(folder, *names):
    """Submissions of lesson 00 that need no kernel: somebody else grades them."""
    for name in names:
        notebook(folder / name, f"exercises.check('00.1', '{name}')")
    return folder


@pytest.fixture
def graded(monkeypatch):
    """The notebooks that a fast stand-in for a kernel has graded."""
    seen = []

    def apart(words, timeout):
        seen.append(pathlib.PurePath(words[0]))
        return grading.Report(words[0], [grading.Grade("00.1", "", "PASS", 1, 1)])

    monkeypatch.setattr(folders, "_apart", apart)
    return seen


def whose(*given):
    return [(s.student, s.name) for s in grading.submissions(*given)]


def test_a_row_is_called_after_its_learner(tmp_path):
    moodle = "Müller-Lüdenscheidt Eva Maria_1200324_assignsubmission_file_"
    folder = handed_in(tmp_path / "in", f"{moodle}/a.ipynb", "ada/03/b.ipynb", "zoe.ipynb", "__MACOSX/x.ipynb", ".git/y.ipynb")
    (folder / "bob_12_notes").mkdir()
    expected = [
        ("zoe", "zoe.ipynb"),
        ("Müller-Lüdenscheidt Eva Maria", f"{moodle}/a.ipynb"),
        ("ada", "ada/03/b.ipynb"),
        ("bob_12_notes", "bob_12_notes"),
    ]
    assert whose(folder) == expected
    assert whose(folder / moodle) == [("a", "a.ipynb")]  # a folder of loose files


def test_moodles_files_without_folders_are_called_after_their_learner(tmp_path, graded):
    name = "Lovelace Ada_12_assignsubmission_file_"
    folder = handed_in(tmp_path, f"{name}my 03-final.ipynb", f"{name}old.ipynb", "Lovelace Ada_13_assignsubmission_file_old.ipynb")
    assert [student for student, _ in whose(folder)] == ["Lovelace Ada"] * 3
    remarks = [report.problem for report in grading.grade_all(grading.submissions(folder))]
    assert remarks == ["one of 2 notebooks of this learner"] * 2 + [None]


def test_what_a_shell_expands_is_called_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(
        handed_in(tmp_path, "in/ada/03.ipynb", "in/bob/03.ipynb", "in/bob/old.ipynb", "in/cy_7_assignsubmission_file_/03.ipynb")
    )
    (tmp_path / "in" / "dan").mkdir()
    rows = [("ada", "ada/03.ipynb"), ("bob", "bob/03.ipynb"), ("bob", "bob/old.ipynb"), ("cy", "cy_7_assignsubmission_file_/03.ipynb")]
    assert whose(*sorted(pathlib.Path("in").iterdir())) == [*rows, ("dan", "dan")]
    assert whose(*sorted(pathlib.Path("in").glob("*/03.ipynb"))) == [rows[0], rows[1], rows[3]]
    assert whose("in/ada/03.ipynb", "in/bob/old.ipynb") == [("03", "ada/03.ipynb"), ("old", "bob/old.ipynb")]
    handed_in(tmp_path, "late/eva/03.ipynb")
    assert whose("in", "late")[-1] == ("eva", "late/eva/03.ipynb") and whose("in", "in/ada") == whose("in", "in")


def test_two_notebooks_of_one_learner_are_both_kept_and_told(command, tmp_path, graded):
    handed_in(tmp_path / "in", "ada/one.ipynb", "ada/two.ipynb", "bob/one.ipynb")
    notebook(tmp_path / "in" / "bob" / "other.ipynb", "exercises.check('02.1', 1)")
    assert command("grade", tmp_path / "in", "--lesson", "00", "--csv", tmp_path / "g.csv").returncode == 1  # bob's other one
    rows = {row[1]: row[-1] for row in table(tmp_path / "g.csv")[1:]}
    assert rows["ada/one.ipynb"] == rows["ada/two.ipynb"] == "one of 2 notebooks of this learner"
    assert rows["bob/one.ipynb"] == "" and "it is lesson 02" in rows["bob/other.ipynb"]


def test_archives_are_neither_lost_nor_unpacked(command, tmp_path, graded):
    folder = handed_in(tmp_path / "in", "ada/one.ipynb")
    (folder / "cy").mkdir()
    for name in ("bob.zip", "cy/all.ZIP", "notes.pdf"):
        (folder / name).write_bytes(b"PK")
    assert whose(folder) == [("bob", "bob.zip"), ("ada", "ada/one.ipynb"), ("cy", "cy")]
    assert command("grade", folder, "--lesson", "00", "--csv", tmp_path / "g.csv").returncode == 1
    rows = {row[0]: (row[2], row[-1]) for row in table(tmp_path / "g.csv")[1:]}
    assert rows["ada"] == ("1", "") and rows["bob"] == ("0", "an archive: unpack it into a folder of this name")
    assert rows["cy"] == ("0", "no notebook in this folder: unpack all.ZIP")
    (folder / "ada" / "one.ipynb").unlink()
    assert "holds no notebooks" in one_line(command("grade", folder))


def test_a_file_that_has_changed_gets_a_second_row_and_both_say_so(command, tmp_path, graded):
    words = ["grade", handed_in(tmp_path / "in", "ada/one.ipynb", "bob/one.ipynb"), "--csv", tmp_path / "g.csv", "--append"]
    assert command(*words).returncode == 0
    for version in (2, 3):
        notebook(tmp_path / "in" / "ada" / "one.ipynb", f"exercises.check('00.1', {version})")
        assert command(*words).returncode == 0
    remarks = [(row[0], row[-1]) for row in table(tmp_path / "g.csv")[1:]]
    later, earlier = "this file has a later row, too", "this file has an earlier row, too"
    assert remarks == [("ada", later), ("bob", ""), ("ada", f"{later} | {earlier}"), ("ada", earlier)]


def test_without_a_lesson_a_missing_notebook_counts_for_the_one_that_all_are_of(tmp_path, graded):
    (handed_in(tmp_path / "in", "ada/a.ipynb") / "eva").mkdir()
    *_, eva = grading.grade_all(grading.submissions(tmp_path / "in"))
    assert eva.points == 0 and eva.of == 6 and {g.result for g in eva.grades} == {"MISSING"} and eva.finished


def test_a_path_that_does_not_exist_stops_all_before_it_begins(command, tmp_path, graded):
    handed_in(tmp_path / "in", "ada/a.ipynb")
    done = command("grade", tmp_path / "in", tmp_path / "Zimmer*", "--csv", tmp_path / "g.csv")
    assert done.returncode == 1 and "Zimmer* does not exist: expected a notebook" in one_line(done)
    assert graded == [] and done.stdout == "" and not (tmp_path / "g.csv").exists()
    assert command("grade", tmp_path / "nothing.ipynb").returncode == 1


def test_a_table_is_neither_replaced_nor_begun_anew_unasked(command, tmp_path, graded):
    folder, grades = handed_in(tmp_path / "in", "ada/a.ipynb"), tmp_path / "g.csv"
    grades.write_text("my own")
    done = command("grade", folder, "--csv", grades)
    assert done.returncode == 1 and "there already: give --append to keep its rows" in one_line(done)
    for words in (["--append"], ["--csv", grades, "--append", "--overwrite"]):
        done = command("grade", folder, *words)
        assert done.returncode == 1 and "--append keeps the rows of a table" in one_line(done)
    done = command("grade", folder, "--csv", grades, "--append")
    assert done.returncode == 1 and "is no table of grades: expected the columns student,file," in one_line(done)
    assert grades.read_text() == "my own" and graded == []
    assert command("grade", folder, "--csv", grades, "--overwrite").returncode == 0
    assert grades.read_bytes().startswith(b"\xef\xbb\xbfstudent,file,points,of,00.1,sha,remarks\nada,ada/a.ipynb,1,1,PASS,")
    done = command("grade", folder, "--csv", grades, "--append", "--lesson", "03")
    assert done.returncode == 1 and "is a table of lesson 00: choose another --csv for lesson 03" in one_line(done)


def test_after_an_interrupt_the_same_command_goes_on(command, tmp_path, monkeypatch, graded):
    folder, grades = handed_in(tmp_path / "in", "ada/=1.ipynb", "bob/a.ipynb", "cy/a.ipynb"), tmp_path / "g.csv"
    words = ["grade", folder, "--csv", grades, "--append"]
    apart = folders._apart

    def interrupted(words, timeout):
        if len(graded) == 2:
            raise KeyboardInterrupt
        return apart(words, timeout)

    with monkeypatch.context() as patch:
        patch.setattr(folders, "_apart", interrupted)
        assert command(*words).returncode == 130
    first = table(grades)
    assert [row[0] for row in first[1:]] == ["ada", "bob"]
    done = command(*words)
    assert done.returncode == 0 and done.stderr.splitlines() == ["2 of 3 have their row already", "1 of 1: cy/a.ipynb"]
    assert table(grades)[:3] == first and [row[0] for row in table(grades)[1:]] == ["ada", "bob", "cy"]
    assert [path.parent.name for path in graded] == ["ada", "bob", "cy"]
    handed_in(folder, "dan/a.ipynb")
    notebook(folder / "bob" / "a.ipynb", "exercises.check('00.1', 'a second try')")  # its content counts, not its name
    shutil.copyfile(folder / "cy" / "a.ipynb", folder / "dan" / "b.ipynb")  # and whose it is
    assert command(*words).returncode == 0
    assert [row[1] for row in table(grades)[4:]] == ["bob/a.ipynb", "dan/a.ipynb", "dan/b.ipynb"]
    assert command(*words).returncode == 0 and len(graded) == 6
    single = command("grade", folder / "cy" / "a.ipynb", "--csv", tmp_path / "one.csv", "--append")
    assert single.returncode == 0 and table(tmp_path / "one.csv")[1][:2] == ["a", "a.ipynb"]


def test_remarks_on_the_notebook_come_before_those_on_its_exercises():
    grades = [
        grading.Grade("01.5", "", "FAIL", 0, 3, "a hint"),
        grading.Grade("01.6", "", "TODO", 0, 2, "replace the stub"),
        *(grading.Grade(f"02.{i}", "", "MISSING", 0, 2, report.UNHEARD) for i in (1, 2)),
        grading.Grade("02.3", "", "PASS", 1, 1),
    ]
    expected = "it stopped | 01.5: a hint | 02.1, 02.2: its checks never reached the grader"
    assert grading.Report("a", grades, "it stopped").remarks == expected
    assert grading.Report("a", grades[3:4]).remarks == "02.2: its checks never reached the grader"


def test_a_notebook_that_takes_too_long_and_a_check_that_is_replaced_are_told(tmp_path):
    path = notebook(
        tmp_path / "a.ipynb",
        START,
        f"exercises.check('00.1', {SHAPE})",
        "exercises.check = lambda *_: None",
        "exercises.check('00.2', 'astronaut')",
        "import time\nwhile True: time.sleep(1)",
        "exercises.check('00.4', 5)",
    )
    found = grading.grade(path, timeout=20)
    assert results(found) == {"00.1": "PASS", "00.2": "MISSING", "00.3": "MISSING", "00.4": "MISSING"} and not found.finished
    words = "time-out: stopped after 20 s; grade again with a longer --timeout | 00.2, 00.3, 00.4: its checks never reached the grader"
    assert found.remarks == words


def test_a_broken_cell_is_called_by_its_place(tmp_path):
    cells = [
        nbformat.v4.new_code_cell(START),
        nbformat.v4.new_markdown_cell("## Stripes\n\ntext\n\n### Exercise 00.2 ● (2 min): predict"),
        nbformat.v4.new_code_cell("exercises.check('00.2', 'astronaut')"),
        nbformat.v4.new_markdown_cell("no heading: #1"),
        nbformat.v4.new_code_cell("guess = = 1"),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    found = grading.grade(tmp_path / "a.ipynb")
    assert found.problem == 'code cell 2 below "Exercise 00.2" raised SyntaxError: invalid syntax (line 1)'
    document = nbformat.v4.new_notebook(cells=[cells[0], nbformat.v4.new_markdown_cell("# \x1b[2JA *title*"), cells[4], *cells[1:3]])
    assert reading.places(document)[::2] == ["cell 1", 'code cell 1 below " [2JA *title*"', 'code cell 1 below "Exercise 00.2"']


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
    document, wanted = reading.read(tmp_path / "old.ipynb", None)
    assert document.nbformat == 4 and [e.id for e in wanted] == ["00.1", "00.2", "00.3", "00.4"]


def test_headings_of_strangers_are_one_harmless_line():
    cell = nbformat.v4.new_markdown_cell("### Exercise 00.1 ● (5 min): \x1b[2Jshape" + "x" * 500)
    (heading,) = reading.headings(nbformat.v4.new_notebook(cells=[cell])).values()
    assert "\x1b" not in heading and len(heading) == 100
