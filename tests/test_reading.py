"""Reading: the glossary's links and functions, one notation in all formulas, notes for those who are stuck, the map's minutes."""

import functools
import re

import nbformat
import pytest

import srcourse as sr
from conftest import ROOT
from srcourse import authoring

LESSONS = {name.split("_")[0]: name for name in authoring.LESSONS}
GLOSSARY = ROOT / "docs" / "glossary.md"

# What formulas are made of besides symbols
OPERATORS = re.compile(
    r"\\(?:frac|tfrac|sqrt|sum|cdot|times|q?quad|left|right|big|Big|le|ge|in|pm|approx|propto|leftarrow|downarrow|partial|dots|underbrace|"
    r"overline|hat|tilde|begin|end|top|mathsf|log|exp|cos|sin|max|min|arg|pi)$"
)
ATOM = re.compile(r"\\(?:text|operatorname|mathrm)\s*(?={)|\\math(?:bf|bb)\s*\{?([A-Za-z])\}?|\\[A-Za-z]+|[A-Za-z]")
INDEX = re.compile(r"\s*_\s*(\\text(?={)|\\?[A-Za-z0-9]+|(?={))")
# Letters that stand for something else in one lesson than in the first table, as the page says
DOUBLE = {("w", "02"), ("w", "06"), ("s", "07")}


@functools.cache
def cells(number, folder="notebooks"):
    return nbformat.read(ROOT / folder / f"{LESSONS[number]}.ipynb", as_version=4).cells


@functools.cache
def prose(number):
    """The lesson's Markdown, without code."""
    text = "\n\n".join(cell.source for cell in cells(number) if cell.cell_type == "markdown")
    return re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)


def formulas(text):
    return [(display or inline).strip() for display, inline in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text, flags=re.DOTALL)]


def group(text, start):
    """The content of the braces that open at `start`, and where it goes on."""
    depth = 0
    for end in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start + 1 : end], end + 1
    raise ValueError(f"a brace is not closed in {text!r}")


def symbols(formula, known=frozenset()):
    r"""The symbols and the words (``\text{...}``) of a formula; a letter with an index counts as one symbol if it is `known` as such."""
    found, words, at = set(), set(), 0
    while at < len(formula):
        match = ATOM.match(formula, at)
        if not match:
            at += 1
            continue
        at, atom = match.end(), match.group()
        if atom.startswith((r"\text", r"\operatorname", r"\mathrm")):
            content, at = group(formula, at)
            words |= set(re.findall(r"[A-Za-z]+", content))
            continue
        if atom in (r"\begin", r"\end"):
            _, at = group(formula, at)
            continue
        if OPERATORS.match(atom) or (atom == "e" and formula[at : at + 1] == "^"):
            if atom == r"\mathsf":
                at += 2  # the T of a transposed matrix
            continue
        if match.group(1):
            atom = rf"\math{'bb' if 'bb' in atom else 'bf'} {match.group(1)}"
        index = INDEX.match(formula, at)
        if atom == r"\sigma" and formula[at : at + 1] == "(":
            atom = r"\sigma(z)"
        elif index:
            if index.group(1) in (r"\text", ""):
                content, end = group(formula, index.end())
                label = rf"\text{{{content}}}" if index.group(1) else f"{{{content}}}"
            else:
                label, end = index.group(1), index.end()
                if not label.startswith("\\"):  # without braces an index is one character
                    label, end = label[0], index.start(1) + 1
            first = re.match(r"\{?(\\text\{\w+\})", label)
            for name in (f"{atom}_{label}", f"{atom}_{first.group(1)}" if first else ""):
                if name in known:
                    atom, at = name, end
                    if "," in label:
                        found |= symbols(label.split(",", 1)[1].rstrip("}"), known)[0]
                    break
            else:
                at = end
                found |= symbols(re.sub(r"\\text\{[^}]*\}", "", label), known)[0]
        found.add(atom)
    return found, words


def tables():
    """Of the glossary: {symbol: lesson of its first use} and [(symbol, lessons)] of the letters of single lessons."""
    core, local = {}, []
    page = GLOSSARY.read_text(encoding="utf-8").split("## Symbols")[1]
    for part, text in enumerate(page.split("### Letters of single lessons")):
        for row in re.findall(r"^\| (?!symbol|---)(.+) \|$", text, re.MULTILINE):
            columns = row.split(" | ")
            assert len(columns) == 4 and all(columns), row
            names = [re.sub(r"\\math(bf|bb)\s*\{?(\w)\}?", r"\\math\1 \2", name) for name in re.findall(r"\$(.+?)\$", columns[0])]
            lessons = re.findall(r"\[(\d\d)\]", columns[3 if part == 0 else 1])
            assert lessons, row
            if part == 0:
                core |= dict.fromkeys(names or columns[0].split(", "), lessons[0])
            else:
                local += [(name, lessons) for name in names]
    return core, local


@functools.cache
def used(number):
    """All symbols and words in a lesson's formulas."""
    core, local = tables()
    known = frozenset(core) | {name for name, lessons in local if number in lessons}
    found, words = set(), set()
    for formula in formulas(prose(number)):
        one, other = symbols(formula, known)
        found |= one
        words |= other
    return found, words


def terms():
    """[(term, other name, words, numbers of lessons, functions)]"""
    rows = re.findall(r'^- <a id="([\w-]+)"></a>\*\*(.+?)\.\*\* (.+)$', GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return [(anchor, name, words, re.findall(r"\[(\d\d)\]", words), re.findall(r"`(sr\.[\w.]+)`", words)) for anchor, name, words in rows]


# --- the glossary -----------------------------------------------------------------------------------------------


def test_terms_are_in_order_linked_and_short():
    rows = terms()
    names = [name.lower() for _, name, *_ in rows]
    assert len(rows) > 80 and names == sorted(names) and len({anchor for anchor, *_ in rows}) == len(rows)
    for target in re.findall(r"\]\(([^)#]+)\)", GLOSSARY.read_text(encoding="utf-8")):
        assert (GLOSSARY.parent / target).is_file(), f"dead link {target}"
    for _, name, words, lessons, functions in rows:
        assert lessons, f"{name} names no lesson"
        said = words.rsplit(" (Lesson", 1)[0]
        assert 1 <= len(re.findall(r"[.!?](?:\s|$)", said)) <= 3, f"{name}: one to three sentences, not {said!r}"
        for function in functions:
            assert functools.reduce(getattr, function.split(".")[1:], sr), function


@pytest.mark.parametrize("number", LESSONS)
def test_terms_come_up_in_the_lesson_that_they_name(number):
    source = "\n".join(cell.source for cell in cells(number)).lower()
    for _, name, _, lessons, _ in terms():
        if number in lessons:
            main, aliases = re.match(r"([^(]+?)(?: \((.+)\))?$", name).groups()
            stems = [re.split(r" of | and ", main.lower())[0], *(aliases or "").lower().split(", ")]
            assert any(stem.rstrip("y") in source for stem in stems if stem), f"{name} is not in lesson {number}"


# --- one notation -----------------------------------------------------------------------------------------------


def test_the_reader_of_formulas_reads():
    known = {r"x_\text{LR}", r"\ell_{as}", "C_1", r"\alpha_r"}
    assert symbols(r"x_\text{LR} = \big((x * k)\downarrow_s\big) + \text{noise}", known) == ({r"x_\text{LR}", "x", "k", "s"}, {"noise"})
    assert symbols(r"G_\theta(x_{\text{LR},i})", known)[0] == {"G", r"\theta", r"x_\text{LR}", "i"}
    assert symbols(r"\ell_{as} + \ell_D + C_1 + C_2 + \alpha_r\beta_{l,r}", known)[0] == {
        r"\ell_{as}", r"\ell", "D", "C_1", "C", r"\alpha_r", r"\beta", "l", "r",
    }  # fmt: skip
    assert symbols(r"\mathbf M_H \, x \, \mathbf{M}_W^{\mathsf T} - 1/(1+e^{-z}) + \sigma(z) + e")[0] == {
        r"\mathbf M", "H", "x", "W", "z", r"\sigma(z)", "e",
    }  # fmt: skip
    assert symbols(r"\frac{1}{N}\sum_{i=1}^{N} (y_i - x_i)^2 = sh \times sw")[0] == {"N", "i", "y", "x", "s", "h", "w"}


@pytest.mark.parametrize("number", LESSONS)
def test_no_formula_uses_a_symbol_that_the_table_lacks(number):
    core, local = tables()
    own = {name for name, lessons in local if number in lessons}
    found, words = used(number)
    assert found <= set(core) | own, f"not in docs/glossary.md: {sorted(found - set(core) - own)}"
    explained = GLOSSARY.read_text(encoding="utf-8")
    for word in words:
        assert word.islower() or re.search(rf"\b{word}\b", explained), f"{word} is explained nowhere"


def test_every_symbol_of_the_table_is_used_where_it_says():
    core, local = tables()
    assert len(core) > 20
    for name, first in core.items():
        lessons = [number for number in LESSONS if name in (set.union(*used(number)))]
        assert lessons and lessons[0] == first, f"{name} is first used in {lessons[:1]}, the table says {first}"
    for name, lessons in local:
        for number in lessons:
            assert name in used(number)[0], f"lesson {number} has no {name}"


def test_letters_of_single_lessons_leave_the_common_ones_alone():
    core, local = tables()
    assert {(name, number) for name, lessons in local for number in lessons if name in core} == DOUBLE


# --- notes for those who are stuck, and the map -----------------------------------------------------------------


@pytest.mark.parametrize("number", LESSONS)
def test_three_notes_help_on(number):
    for folder in ("notebooks", "solutions"):
        found = [(i, cell) for i, cell in enumerate(cells(number, folder)) if "stuck" in cell.metadata.get("tags", [])]
        assert [cell.id for _, cell in found] == ["stuck-1", "stuck-2", "stuck-3"]
        for i, cell in found:
            assert re.match(r"<details><summary><b>I'm stuck:</b> .+\?</summary>\n\n", cell.source), cell.source[:80]
            assert cell.source.endswith("\n\n</details>")
            note = cell.source.split("</summary>")[1].removesuffix("</details>")
            assert 3 <= len([line for line in note.splitlines() if line.strip()]) <= 10 and re.search(r"\d", note)
            assert "check" not in cells(number, folder)[i - 1].metadata.get("tags", []), "a hint follows its check at once"


def test_the_map_tells_minutes_and_difficulty():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for number, name in LESSONS.items():
        row = re.search(rf"^\| \[{number} [^\]]+\]\(notebooks/{name}\.ipynb\) \|.+\|$", readme, re.MULTILINE)
        minutes = re.search(r"about (\d+) minutes to read", cells(number)[1].source).group(1)
        assert row and re.search(rf"\| {minutes} min \| ●{{1,3}} \|", row.group()), (
            f"{name}: expected {minutes} min and ● to ●●● in the map"
        )
