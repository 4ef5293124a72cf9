"""The contract of a lesson: every notebook of notebooks/ and solutions/ is held to it."""

import re

import nbformat
import pytest

from conftest import ROOT
from srcourse import authoring, exercises

LESSONS = list(authoring.LESSONS)
EXERCISES = (4, 6)  # how many the course's own lessons have; a fork that adds one to a lesson raises this
_cache = {}


def load(folder, name):
    key = (folder, name)
    if key not in _cache:
        notebook = nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4)
        nbformat.validate(notebook)
        _cache[key] = notebook
    return _cache[key]


both = pytest.mark.parametrize("folder", ["notebooks", "solutions"])
each = pytest.mark.parametrize("name", LESSONS)


def tags(cell):
    return cell.metadata.get("tags", [])


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_the_lessons_are_those_of_the_list():
    for folder in ("notebooks", "solutions"):
        assert sorted(path.stem for path in (ROOT / folder).glob("*.ipynb")) == LESSONS


@each
@both
def test_opening_says_what_when_and_how_long(folder, name):
    cells = load(folder, name).cells
    assert tags(cells[0]) == tags(cells[-1]) == ["navigation"]
    opening = cells[1].source
    number = name.split("_")[0]
    assert re.match(rf"# {number} · .+: .+\?\n", opening)
    bullets = re.search(r"\*\*You will be able to\*\*\n+((?:- .+(?:\n  .+)*\n?){3,5})", opening)
    assert bullets, "expected three to five bullets under **You will be able to**"
    assert all(re.match(r"[a-z]+", bullet) for bullet in re.findall(r"^- (.+)", bullets.group(1), re.MULTILINE))
    assert "**Before you start:**" in opening
    assert re.search(r"\*\*Time:\*\* about \d+ minutes to read, under \d+ seconds to run on a 2-core CPU", opening)
    seconds = int(re.search(r"under (\d+) seconds", opening).group(1))
    measured = load(folder, name).metadata["srcourse"]
    assert measured["seconds"] <= seconds <= 60, "the time that it took when it was made is not the time it promises"
    assert measured["memory_mb"] <= 4096


@each
@both
def test_navigation_and_setup_are_stamped(folder, name):
    notebook = load(folder, name)
    stamped = nbformat.from_dict(notebook)
    before = [cell.source for cell in notebook.cells]
    authoring.stamp(stamped, name, folder)
    assert [cell.source for cell in stamped.cells] == before, "run: python -m srcourse.authoring build"
    for target in re.findall(r"\]\(((?!http)[^)#]+\.ipynb)\)", text(notebook)):
        assert (ROOT / folder / target).is_file(), f"dead link {target}"


@each
@both
def test_outputs_come_from_one_clean_run(folder, name):
    notebook = load(folder, name)
    counts = [cell.execution_count for cell in code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    for cell in code(notebook):
        for output in cell.outputs:
            assert output.output_type != "error" and output.get("name") != "stderr", output
        if "NBVAL_CHECK_OUTPUT" in cell.source or "nbval-check-output" in tags(cell):
            assert cell.outputs, "a checked cell without outputs passes silently"
    assert (ROOT / folder / f"{name}.ipynb").stat().st_size < 1_000_000
    assert not re.search(r"/(?:home|root|work|tmp)/", str([cell.get("outputs") for cell in code(notebook)]))


@each
@both
def test_figures_are_described_and_the_first_comes_at_once(folder, name):
    cells = code(load(folder, name))
    figures = [(i, o) for i, cell in enumerate(cells) for o in cell.outputs if {"image/png", "image/jpeg"} & set(o.get("data", {}))]
    assert figures and figures[0][0] <= 3, "the first figure comes within the first four cells"
    for _, output in figures:
        mime = next(m for m in ("image/png", "image/jpeg") if m in output.data)
        alt = output.metadata.get(mime, {}).get("alt", "")
        assert len(alt) > 20 and alt.endswith((".", "!", "?")), f"no sentence describes a figure: {alt!r}"


@each
@both
def test_predictions_recap_and_references(folder, name):
    words = text(load(folder, name))
    assert words.count("**Predict.**") >= 2 and words.count("**What we saw.**") >= 2
    headings = [line for line in words.splitlines() if line.startswith("## ")]
    assert headings[-2:] == ["## Recap", "## References"]
    assert re.search(r"\bP00[0-4]\b", words.split("## References")[1])
    assert sum("assert" in cell.source for cell in code(load(folder, name))) >= 3


@each
@both
def test_code_cells_are_short(folder, name):
    for cell in code(load(folder, name)):
        if "setup" not in tags(cell):
            lines = [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]
            assert len(lines) <= 30, cell.source


@each
@both
def test_exercises_stand_as_the_contract_says(folder, name):
    notebook = load(folder, name)
    number = name.split("_")[0]
    known = {key: value for key, value in exercises.all_exercises().items() if key.startswith(number)}
    found = []
    for i, cell in enumerate(notebook.cells):
        match = re.match(r"### Exercise (\d\d\.\d+) (●{1,3}) \((\d+) min\): .+", cell.source) if cell.cell_type == "markdown" else None
        if not match:
            assert not cell.source.startswith("### Exercise"), cell.source[:60]
            continue
        found.append(match.group(1))
        assert known[match.group(1)].points == len(match.group(2))  # a point for each dot of difficulty
        rest = notebook.cells[i + 1 :]
        stub = next(c for c in rest if c.cell_type == "code" and "exercise" in tags(c))
        after = rest[rest.index(stub) + 1 :]
        assert tags(after[0]) == ["check"] and re.fullmatch(rf'exercises\.check\("{match.group(1)}", \w+\)', after[0].source.strip()), (
            after[0].source
        )
        assert after[1].source.startswith("<details><summary>Hint</summary>") and after[1].source.rstrip().endswith("</details>")
    fewest, most = EXERCISES if int(number) <= 10 else (1, 20)  # a lesson of your own may have one
    assert found == list(known) and fewest <= len(found) <= most


@each
def test_unsolved_says_todo_and_solved_says_pass(name):
    for folder, verdict in (("notebooks", "TODO"), ("solutions", "PASS")):
        checks = [cell for cell in load(folder, name).cells if "check" in tags(cell)]
        assert checks and all(cell.outputs[0].text.startswith(verdict) for cell in checks)


@each
def test_the_two_folders_are_in_step_and_no_solution_leaks(name):
    solved, lesson = load("solutions", name), load("notebooks", name)
    stripped = authoring.strip(solved)
    authoring.stamp(stripped, name, "notebooks")
    assert [(c.id, c.source) for c in stripped.cells] == [(c.id, c.source) for c in lesson.cells], "run: python -m srcourse.authoring build"
    everything = "\n".join(cell.source for cell in lesson.cells)
    assert "SOLUTION" not in everything
    for cell in solved.cells:
        if "solution" in tags(cell):
            assert cell.source not in everything
        for region in re.findall(r"### BEGIN SOLUTION\n(.*?)\n *### END SOLUTION", cell.source, re.DOTALL):
            stub = next(c for c in lesson.cells if c.id == cell.id)
            for line in region.splitlines():
                if len(line.strip()) > 12:
                    assert line.strip() not in stub.source


@each
def test_every_lesson_teaches_offline_and_imports_only_the_course(name):
    for cell in code(load("notebooks", name)):
        if "setup" not in tags(cell):
            assert not re.search(r"\b(?:urllib|requests|urlopen|wget|curl|!pip|%pip)\b", cell.source)


# --- the generator ----------------------------------------------------------------------------------------------


def test_stripping_takes_solutions_out():
    function = "def f(x):\n    '''Doc.'''\n"
    source = (
        function
        + "    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION\n\nguess = ...\n### BEGIN SOLUTION\nguess = 3\n### END SOLUTION"
    )
    assert (
        authoring.strip_code(source) == function + "    raise NotImplementedError  # your code here, in place of this line\n\nguess = ..."
    )


@pytest.mark.parametrize(
    "source", ["### BEGIN SOLUTION\nx = 1", "x = 1\n### END SOLUTION", "### BEGIN SOLUTION\n### BEGIN SOLUTION\n### END SOLUTION"]
)
def test_a_marker_without_its_partner_is_refused(source):
    with pytest.raises(ValueError, match="without its partner"):
        authoring.strip_code(source)
