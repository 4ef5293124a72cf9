"""docs/pytorch.md: its code runs from top to bottom, prints what its comments promise, and is found by those who need it."""

import contextlib
import io
import re

import nbformat
import pytest
import torch

from conftest import ROOT
from srcourse import exercises

PAGE = ROOT / "docs" / "pytorch.md"


def blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def promises(code):
    """What the comments after its prints say, one for each line that it prints."""
    printing = [line for line in code.splitlines() if line.lstrip().startswith("print(")]
    found = [re.fullmatch(r"\s*print\(.+\)  # (.+)", line) for line in printing]
    assert all(found), f"a print without its result as a comment: {printing}"
    return [match.group(1) for match in found]


def run(text):
    """Execute the blocks in one namespace, and compare what each prints; returns the namespace and the number of promises kept."""
    namespace, kept = {}, 0
    with torch.random.fork_rng(devices=[]):
        for code in blocks(text):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(code, PAGE.name, "exec"), namespace)
            assert printed.getvalue().splitlines() == promises(code), code
            kept += len(promises(code))
    return namespace, kept


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text(encoding="utf-8")


def test_the_page_runs_and_prints_what_it_promises(page):
    _, kept = run(page)
    assert len(blocks(page)) == page.count("```") // 2, "every fence is a block of Python"
    assert kept >= len(blocks(page)) >= 7, "every block shows a result"


@pytest.mark.parametrize("code", ["print(1 + 1)  # 3", "print(2)", "for i in range(2):\n    print(i)  # 0", "x = 1 +"])
def test_a_false_promise_is_found(code):
    with pytest.raises((AssertionError, SyntaxError)):
        run(f"```python\n{code}\n```\n")


def test_the_page_is_short_and_shows_what_the_lessons_ask_for(page):
    assert len(page.splitlines()) <= 120 and max(map(len, "".join(blocks(page)).splitlines())) <= 140
    code = "\n".join(blocks(page))
    for word in (
        "dim=",
        "torch.where",
        "from_numpy",
        ".backward()",
        "zero_grad",
        ".step()",
        "super().__init__()",
        "no_grad",
        ".train()",
        ".eval()",
    ):
        assert word in code, word


def test_its_block_is_a_module_and_does_not_give_exercise_03_2_away(page, capsys):
    namespace, _ = run(page)
    block = namespace["OneConvolution"](channels=4)
    x = torch.zeros(1, 4, 6, 6)
    x[0, 0, 3, 3] = 1
    seen = (block(x) - block(torch.zeros_like(x))).detach().abs().sum((0, 1)) > 1e-6
    assert seen.sum() == 9 and seen[2:5, 2:5].all()  # one 3×3 convolution, and the input
    capsys.readouterr()
    exercises.check("03.2", namespace["OneConvolution"])
    assert capsys.readouterr().out.startswith("FAIL")


def test_those_who_need_it_find_it(page):
    assert "](docs/pytorch.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "](pytorch.md)" in (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    for folder in ("notebooks", "solutions"):
        for name in ("01_degradation", "03_srresnet"):
            opening = nbformat.read(ROOT / folder / f"{name}.ipynb", as_version=4).cells[1].source
            before = re.search(r"\*\*Before you start:\*\*.*?\n\n", opening, re.DOTALL).group()
            assert "](../docs/pytorch.md)" in before, f"{folder}/{name}"
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", page):
        assert (PAGE.parent / target).is_file(), f"dead link {target}"
