"""What is made from the lessons for forks, for instructors and for nbgrader."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import types

import nbformat
import pytest
from traitlets.config import Config

from conftest import ROOT
from srcourse import address, authoring, exercises, instructors, shaking

NOTEBOOKS = [f"{folder}/{name}.ipynb" for folder in ("notebooks", "solutions") for name in authoring.LESSONS]
ALL = exercises.all_exercises()


def tags(cell):
    return cell.metadata.get("tags", [])


def nbgrader(folder, *words):
    # it starts programs that lie beside its Python
    environment = {**os.environ, "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])}
    command = [sys.executable, "-m", "nbgrader", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


# --- addresses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("ada/sr-course", "https://github.com/ada/sr-course"),
        ("A-1_corp/my.course_2", "https://github.com/A-1_corp/my.course_2"),
        ("ada/srcourse/", "https://github.com/ada/srcourse"),
        ("https://github.com/ada/srcourse.git", "https://github.com/ada/srcourse"),
        ("https://www.GitHub.com/ada/srcourse/", "https://github.com/ada/srcourse"),
        ("https://git.example.org:8443/group/sub/course.git", "https://git.example.org:8443/group/sub/course.git"),
        ("file:///srv/git/course.git", "file:///srv/git/course.git"),
        ("ada/srcourse@ws26", "https://github.com/ada/srcourse@ws26"),
        ("https://github.com/ada/srcourse.git@v1.2_b-3", "https://github.com/ada/srcourse@v1.2_b-3"),
        ("https://git.example.org/ada/course.git@ws26", "https://git.example.org/ada/course.git@ws26"),
        ("file:///srv/git/course.git@ws26", "file:///srv/git/course.git@ws26"),
    ],
)
def test_an_address_is_completed_and_stays_what_it_is(given, full):
    assert address.parse(given) == full == address.parse(full)


@pytest.mark.parametrize(
    "given",
    [
        "", "/", "srcourse", "ada/", "/srcourse", "ada/..", "ada/.git", "ada/sr course", "ada/sr/course", "-ada/srcourse", "ada-/srcourse",
        'ada/x"; import os', "ada/{repository}", "ada/srcourse\n", "ädä/srcourse", "https://github.com/ada", "https://github.com/",
        "https://github.com/ada/srcourse/tree/main", "http://github.com/ada/srcourse", "git@github.com:ada/srcourse.git", "https://example.org",
        "https://ada:secret@example.org/course", "https://example.org/a?b=c", "https://example.org/a b", "file://server/course", "ssh://h/p",
        "ada/srcourse@", "ada/srcourse@-x", "ada/srcourse@a b", "ada/srcourse@a..b", "ada/srcourse@x.lock", "ada/srcourse@x.", "@ws26",
        "ada@ws26",
        "ada/srcourse@a@b", "ada/srcourse@feature/x", 'ada/srcourse@x"', "https://ada@example.org/course", "ada/srcourse@ws26\n",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(given):
    with pytest.raises(ValueError, match="not the address of a repository: expected OWNER/NAME"):
        address.parse(given)


def test_colab_opens_notebooks_of_github_alone():
    opened = address.colab("https://github.com/ada/course", "notebooks/a.ipynb")
    assert opened == "https://colab.research.google.com/github/ada/course/blob/main/notebooks/a.ipynb"
    assert address.colab("https://git.example.org/ada/course", "notebooks/a.ipynb") is None
    assert address.colab("https://github.com/ada/course@ws26", "notebooks/a.ipynb") == opened.replace("/main/", "/ws26/")


def test_the_address_has_one_home(monkeypatch, tmp_path):
    monkeypatch.setattr(authoring, "_root", lambda: tmp_path)
    for text in ("[project]\n", '[project.urls]\nHome = "a"\n[other]\nRepository = "b"\n', '[x]\nRepository = "a"\n[project.urls]\n'):
        (tmp_path / "pyproject.toml").write_text(text)
        with pytest.raises(ValueError, match=r"no Repository under \[project.urls\]"):
            authoring.repository()
    (tmp_path / "pyproject.toml").write_text('[x]\nRepository = "a"\n[project.urls]\n# a comment\nRepository = "b"\n')
    assert authoring.repository() == "b"


def test_the_address_stands_nowhere_else():
    slug = authoring.repository().removeprefix("https://github.com/").removeprefix("https://")
    files = [p for kind in ("*.py", "*.md", "*.toml", "*.yml", "*.cff", "*.yaml") for p in ROOT.glob(kind)]
    files += [
        p for top in ("srcourse", "docs", "data_scripts", "benchmarks") for kind in ("*.py", "*.md") for p in (ROOT / top).rglob(kind)
    ]
    assert len(files) > 50
    assert [p.name for p in files if slug in p.read_text(encoding="utf-8")] == ["pyproject.toml"]
    for path in NOTEBOOKS:
        cells = nbformat.read(ROOT / path, as_version=4).cells
        assert all({"navigation", "setup"} & set(tags(cell)) for cell in cells if slug in cell.source)


# --- stamping -----------------------------------------------------------------------------------------------------

CELLS = [
    {"cell_type": "markdown", "id": "a", "metadata": {"x": '"cells": [{"source": "no"}]'}, "source": ["one ·\n", 'two "}]\n']},
    {
        "cell_type": "code",
        "id": "b",
        "metadata": {},
        "source": "single",
        "outputs": [{"text": ["source"], "n": -1.5e3}],
        "execution_count": None,
    },
    {"cell_type": "code", "id": "c", "metadata": {}, "source": [], "outputs": [], "execution_count": 3},
]
DOCUMENT = {"metadata": {"cells": [{"source": "not this"}]}, "cells": CELLS, "nbformat": 4, "nbformat_minor": 5}
LAYOUTS = {
    "as Jupyter writes": json.dumps(DOCUMENT, indent=1, ensure_ascii=False) + "\n",
    "on one line": json.dumps(DOCUMENT),
    "without spaces": json.dumps(DOCUMENT, separators=(",", ":"), ensure_ascii=False),
    "four spaces, Windows": json.dumps(DOCUMENT, indent=4).replace("\n", "\r\n"),
    "tabs": "\n" + json.dumps(DOCUMENT, indent="\t"),
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_new_source_leaves_all_else_to_the_byte(text):
    new = address.with_sources(text, {0: 'x\n"y" ·\n\nz', 1: "three\nlines\nhere"})
    expected = json.loads(text)
    expected["cells"][0]["source"], expected["cells"][1]["source"] = ["x\n", '"y" ·\n', "\n", "z"], "three\nlines\nhere"
    assert json.loads(new) == expected
    assert address.with_sources(new, {0: 'one ·\ntwo "}]\n', 1: "single"}) == text
    assert address.with_sources(text, {}) == text
    assert json.loads(address.with_sources(text, {2: "now"}))["cells"][2]["source"] == ["now"]


@pytest.fixture
def fork(tmp_path, monkeypatch):
    """A copy of what an address is stamped into."""
    for path in ("pyproject.toml", *NOTEBOOKS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / path, tmp_path / path)
    monkeypatch.setattr(authoring, "_root", lambda: tmp_path)
    return tmp_path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fork_gets_its_address_everywhere_and_nothing_else_changes(fork):
    before = contents(fork)
    assert len(authoring.set_repository("ada/sr-course")) == len(before) == len(NOTEBOOKS) + 1
    after = contents(fork)
    assert authoring.repository() == "https://github.com/ada/sr-course"
    for path in before:
        old, new = before[path].splitlines(keepends=True), after[path].splitlines(keepends=True)
        changed = [b for a, b in zip(old, new, strict=True) if a != b]
        assert len(changed) == (1 if path == "pyproject.toml" else 3) and all(b"ada/sr-course" in line for line in changed), path
    assert authoring.set_repository("https://github.com/ada/sr-course") == []
    assert contents(fork) == after
    authoring.set_repository(re.search(rb'Repository = "(.+)"', before["pyproject.toml"]).group(1).decode())
    assert contents(fork) == before


def test_a_tag_is_what_the_notebooks_install_and_colab_opens(fork, monkeypatch):
    authoring.set_repository("ada/sr-course")
    before = contents(fork)
    authoring.set_repository("ada/sr-course@ws26")
    after = contents(fork)
    for path, old in before.items():
        stamped = old.replace(b"ada/sr-course/blob/main/", b"ada/sr-course/blob/ws26/").replace(
            b'ada/sr-course\\"]', b'ada/sr-course@ws26\\"]'
        )
        if path == "pyproject.toml":
            stamped = old.replace(b'ada/sr-course"', b'ada/sr-course@ws26"')
        assert after[path] == stamped != old, path
    notebook = nbformat.read(fork / "solutions" / "00_welcome.ipynb", as_version=4)
    authoring.stamp(notebook, "00_welcome", "solutions")  # as build does, from pyproject.toml
    setup = next(cell.source for cell in notebook.cells if "setup" in tags(cell))
    assert '"srcourse @ git+https://github.com/ada/sr-course@ws26"' in setup
    authoring.set_repository("ada/sr-course")
    assert contents(fork) == before


@pytest.mark.parametrize(("seconds", "told"), [(19.6, False), (20.6, True)])
def test_a_lesson_that_takes_longer_than_its_opening_promises_is_told(fork, monkeypatch, capsys, seconds, told):
    monkeypatch.setattr(authoring, "execute", lambda *_, **__: (seconds, 500))
    authoring.build("00_welcome")
    assert ("longer than the 20 s that its opening promises" in capsys.readouterr().out) is told


def test_off_github_there_is_no_colab_link_and_the_set_up_installs_from_there(fork):
    authoring.set_repository("https://git.example.org/ada/course")
    for path in NOTEBOOKS:
        notebook = nbformat.read(fork / path, as_version=4)
        stamped = [cell.source for cell in notebook.cells if {"navigation", "setup"} & set(tags(cell))]
        assert len(stamped) == 3 and not any("colab" in source for source in stamped)
        assert '"srcourse @ git+https://git.example.org/ada/course"]' in stamped[1] and compile(stamped[1], path, "exec")
        assert stamped[0] == stamped[2] and stamped[0].startswith("[")


def test_all_files_change_or_none(fork, monkeypatch):
    before = contents(fork)
    replace, calls = os.replace, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 12:
            raise OSError("no space left")
        replace(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(OSError, match="no space left"):
            authoring.set_repository("ada/sr-course")
    assert len(calls) == 12 and contents(fork) == before

    last = fork / NOTEBOOKS[-1]
    for broken, words in (
        (before[NOTEBOOKS[-1]].replace(b'"setup"', b'"start"'), "needs cells tagged 'setup'"),
        (b"{", "not a Jupyter notebook"),
    ):
        last.write_bytes(broken)
        with pytest.raises(ValueError, match=words):
            authoring.set_repository("ada/sr-course")
        assert contents(fork) == {**before, NOTEBOOKS[-1]: broken}
    last.unlink()
    with pytest.raises(FileNotFoundError):
        authoring.set_repository("ada/sr-course")
    assert contents(fork) == {path: content for path, content in before.items() if path != NOTEBOOKS[-1]}


def test_a_file_keeps_its_mode(fork):
    path = fork / "pyproject.toml"
    path.chmod(0o640)
    authoring.set_repository("ada/sr-course")
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o640


def test_the_command_refuses_in_one_line(fork, monkeypatch, capsys):
    before = contents(fork)
    monkeypatch.setattr(sys, "argv", ["authoring", "set-repository", "ada/sr course"])
    with pytest.raises(SystemExit) as end:
        authoring.main()
    said = capsys.readouterr()
    assert end.value.code == 1 and said.out == "" and contents(fork) == before
    assert said.err.startswith("srcourse.authoring: 'ada/sr course' is not the address") and said.err.count("\n") == 1


# --- nbgrader -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", authoring.LESSONS)
def test_a_lesson_becomes_an_assignment(name, tmp_path):
    path = authoring.nbgrader(name, tmp_path)
    assert path == tmp_path / "source" / name / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    marked = [(cell, cell.metadata["nbgrader"]) for cell in notebook.cells if "nbgrader" in cell.metadata]
    ids = [mark["grade_id"] for _, mark in marked]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[A-Za-z0-9_-]+", i) for i in ids) and ids[0] == "setup"
    assert all({"schema_version", "locked", "solution", "grade"} <= mark.keys() for _, mark in marked)
    graded = {re.search(r'check\("(.+?)"', cell.source).group(1): mark for cell, mark in marked if mark["grade"]}
    assert {i: mark["points"] for i, mark in graded.items()} == {i: e.points for i, e in ALL.items() if i.startswith(name[:2])}
    assert all(mark["locked"] and not mark["solution"] for mark in graded.values())
    for cell in notebook.cells:
        solution = cell.metadata.get("nbgrader", {}).get("solution", False)
        assert solution == ("### BEGIN SOLUTION" in cell.source), "nbgrader would take out a solution's cell whole, or none"
        assert not {"navigation", "solution"} & set(tags(cell)) and not cell.get("outputs")
        for target in re.findall(r"\]\((?!http)([^)#]+\.ipynb)", cell.source):
            assert re.fullmatch(r"\.\./(\d\d_\w+)/\1\.ipynb", target) and target.split("/")[1] in authoring.LESSONS


def test_nbgrader_finds_every_assignment_valid(tmp_path):
    format = pytest.importorskip("nbgrader.nbgraderformat", reason="nbgrader is not installed: pip install nbgrader")
    for name in authoring.LESSONS:
        notebook = nbformat.read(authoring.nbgrader(name, tmp_path), as_version=4)
        format.MetadataValidator().validate_nb(notebook)
        check = next(cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade"))
        del check.metadata["nbgrader"]["points"]
        with pytest.raises(format.ValidationError):
            format.MetadataValidator().validate_nb(notebook)


def test_a_test_cell_raises_unless_the_answer_passes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SRCOURSE_STRICT", "0")
    notebook = nbformat.read(authoring.nbgrader("00_welcome", tmp_path), as_version=4)
    cell = next(cell for cell in notebook.cells if "check" in tags(cell))
    right = {"upscaled_shape": lambda shape, scale: (shape[0], shape[1] * scale, shape[2] * scale)}
    exec(cell.source, right)
    assert capsys.readouterr().out.startswith("PASS 00.1")
    for wrong in (..., lambda shape, scale: shape):
        monkeypatch.setenv("SRCOURSE_STRICT", "0")
        with pytest.raises(AssertionError, match=r"exercise 00\.1: (TODO|FAIL)"):
            exec(cell.source, {"upscaled_shape": wrong})


def test_an_assignment_is_not_replaced_unasked(tmp_path):
    path = authoring.nbgrader("00_welcome", tmp_path)
    made = path.read_bytes()
    path.write_text("my own changes")
    (tmp_path / "nbgrader_config.py").write_text("# my own")
    with pytest.raises(FileExistsError, match="there already: give --overwrite"):
        authoring.nbgrader("00_welcome", tmp_path)
    assert path.read_text() == "my own changes"
    authoring.nbgrader("00_welcome", tmp_path, overwrite=True)
    assert path.read_bytes() == made and (tmp_path / "nbgrader_config.py").read_text() == "# my own"


def test_the_configuration_keeps_one_stub_a_cell(tmp_path, monkeypatch):
    """With nbgrader's own step replaced by one that does the same: put the stub where the solution was."""

    class ClearSolutions:
        def preprocess_cell(self, cell, resources, index):
            region = r"( *)### BEGIN SOLUTION\n.*?### END SOLUTION"
            stub = config.ClearSolutions.code_stub["python"]
            cell.source = re.sub(region, lambda match: match.group(1) + stub, cell.source, flags=re.DOTALL)
            return cell, resources

    trait = types.SimpleNamespace(default=lambda: ["first", ClearSolutions, "last"])
    converter = types.SimpleNamespace(class_traits=lambda: {"preprocessors": trait})
    monkeypatch.setitem(sys.modules, "nbgrader", types.ModuleType("nbgrader"))
    monkeypatch.setitem(sys.modules, "nbgrader.converters", types.SimpleNamespace(GenerateAssignment=converter))
    monkeypatch.setitem(sys.modules, "nbgrader.preprocessors", types.SimpleNamespace(ClearSolutions=ClearSolutions))
    authoring.nbgrader("00_welcome", tmp_path)
    config = Config()
    exec((tmp_path / "nbgrader_config.py").read_text(encoding="utf-8"), {"get_config": lambda: config, "__name__": "configuration"})
    first, step, last = config.GenerateAssignment.preprocessors
    assert (first, last) == ("first", "last") and issubclass(step, ClearSolutions) and config.Execute.timeout == 300
    for name in authoring.LESSONS:
        solved = nbformat.read(ROOT / "solutions" / f"{name}.ipynb", as_version=4)
        for cell in solved.cells:
            if "exercise" in tags(cell):
                expected = authoring.strip_code(cell.source)
                assert step().preprocess_cell(cell, {}, 0)[0].source == expected


@pytest.mark.slow
def test_nbgrader_gives_the_solved_lesson_all_points_and_the_untouched_none(tmp_path):
    pytest.importorskip("nbgrader", reason="nbgrader is not installed: pip install nbgrader")
    lesson = "00_welcome"
    source = authoring.nbgrader(lesson, tmp_path)
    nbgrader(tmp_path, "generate_assignment", lesson)
    release = tmp_path / "release" / lesson / f"{lesson}.ipynb"
    released = nbformat.read(release, as_version=4)
    learners = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", as_version=4)
    stubs = {cell.id: cell.source for cell in released.cells if "exercise" in tags(cell)}
    assert "SOLUTION" not in str(released.cells) and len(stubs) == 4
    assert {cell.id: cell.source for cell in learners.cells if "exercise" in tags(cell)} == stubs
    forged = nbformat.read(release, as_version=4)
    for cell in forged.cells:
        if "check" in tags(cell):
            cell.source = 'print("PASS")'
    for learner, notebook in (("untouched", released), ("solved", nbformat.read(source, as_version=4)), ("forged", forged)):
        target = tmp_path / "submitted" / learner / lesson / f"{lesson}.ipynb"
        target.parent.mkdir(parents=True)
        nbformat.write(notebook, target)
    nbgrader(tmp_path, "autograde", lesson)
    nbgrader(tmp_path, "export")
    with open(tmp_path / "grades.csv", newline="") as file:
        rows = {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in csv.DictReader(file)}
    assert rows == {"untouched": (0, 6), "solved": (6, 6), "forged": (0, 6)}


# --- the instructors' page ----------------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "instructors.md"


def test_the_pages_tables_are_those_of_the_lessons():
    text = PAGE.read_text(encoding="utf-8")
    shown = re.search(r"<!-- tables.*?-->\n(.*?)\n<!-- /tables -->", text, re.DOTALL).group(1)
    assert shown == authoring.exercise_tables(), "run: python -m srcourse.authoring exercise-table"
    rows = [line.split(" | ") for line in shown.splitlines() if re.match(r"\| \d\d\.\d", line)]
    assert [row[0].lstrip("| ") for row in rows] == list(ALL)
    assert sum(int(row[6]) for row in rows) == sum(e.points for e in ALL.values())


def test_the_command_renews_the_tables_and_touches_no_more(monkeypatch, tmp_path, capsys):
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "instructors.md"
    monkeypatch.setattr(authoring, "_root", lambda: tmp_path)
    monkeypatch.setattr(authoring, "exercise_tables", lambda: "| a |")
    page.write_bytes(b"before\n<!-- tables: x -->\nold\n<!-- /tables -->\nafter\n")
    authoring.exercise_table_command()
    assert page.read_bytes() == b"before\n<!-- tables: x -->\n| a |\n<!-- /tables -->\nafter\n"
    authoring.exercise_table_command()
    assert [line.split(": ")[1] for line in capsys.readouterr().out.splitlines()] == ["renewed", "nothing to change"]
    page.write_text("nothing here")
    with pytest.raises(ValueError, match="two comments around the tables"):
        authoring.exercise_table_command()


def test_a_lesson_without_its_headings_has_no_row():
    name = "00_welcome"
    own = [e for i, e in ALL.items() if i.startswith("00")]
    for old, new in (("### Exercise 00.2 ● (2 min)", "### Exercise 00.2"), ("**Time:**", "**Hours:**"), ('check("00.4"', 'check("00.9"')):
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        assert instructors.tables({name: notebook}, {name: own})
        for cell in notebook.cells:
            cell.source = cell.source.replace(old, new)
        with pytest.raises(ValueError, match=r"00_welcome: its .* are not as CONTRIBUTING\.md says"):
            instructors.tables({name: notebook}, {name: own})


def test_the_page_names_what_there_is(process):
    text = PAGE.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (PAGE.parent / target).exists(), f"dead link {target}"
    known = {command.name for command in authoring.app.registered_commands}
    named = set(re.findall(r"-m srcourse\.authoring ([\w-]+)", text))
    assert named == known - {"picture"}
    options = set(re.findall(r"`(--[a-z-]+)`", text)) - {"--overwrite"}
    listed = process("grade", "--help").stdout
    assert {"--json", "--lesson", "--timeout"} <= options and all(option in listed for option in options)


# --- claims that hold on every machine ----------------------------------------------------------------------------

TRAINED = """\
import torch

def train(step):
    weights = torch.nn.Parameter(torch.ones(8))
    optimizer = torch.optim.SGD([weights], lr=step)
    for _ in range(30):
        optimizer.zero_grad()
        (weights**2).sum().backward()
        optimizer.step()
    return weights.detach()

calm, wild = train(0.1), train(1.2)  # every step multiplies the weights by 0.8, or by -1.4
assert torch.equal(train(0.1), calm)
assert calm.abs().max() < 0.01
"""


def test_shaking_finds_the_assertions_that_rest_on_rounding(tmp_path):
    cells = [TRAINED, "fixed = 5\nassert fixed == 5", "assert fixed == 5 and wild.std() == 0  # all were one"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    assert shaking.failures(notebook, tmp_path, 1) == ["cell 2: AssertionError in assert fixed == 5 and wild.std() == 0  # all were one"]
    assert list(tmp_path.iterdir()) == []


def test_shaking_names_the_lesson_and_ends_with_failure(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(
        shaking, "failures", lambda notebook, folder, number: seen.append(number) or ["cell 9: AssertionError"] * (number == 2)
    )
    monkeypatch.setattr(sys, "argv", ["authoring", "shake", "03_srresnet", "--times", "3"])
    with pytest.raises(SystemExit) as caught:
        authoring.main()
    assert caught.value.code == 1 and seen == [1, 2, 3]
    assert capsys.readouterr().out.splitlines() == [
        "03_srresnet, 1 of 3: all holds",
        "03_srresnet, 2 of 3:",
        "  cell 9: AssertionError",
        "03_srresnet, 3 of 3: all holds",
    ]


def test_a_wrong_name_is_refused_before_the_first_lesson_runs(monkeypatch):
    monkeypatch.setattr(shaking, "failures", lambda *arguments: pytest.fail("it ran a lesson"))
    monkeypatch.setattr(authoring, "build", lambda *arguments, **options: pytest.fail("it built a lesson"))
    for command in ("shake", "build"):
        monkeypatch.setattr(sys, "argv", ["authoring", command, "03_srresnet", "3_srresnet"])
        with pytest.raises(SystemExit) as caught:
            authoring.main()
        assert caught.value.code == 2
