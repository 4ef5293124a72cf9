"""For authors and instructors: from the solved lessons in solutions/ to the learners' notebooks/, and what else is made from them.

    python -m srcourse.authoring build [00_welcome ...]                both folders, executed
    python -m srcourse.authoring set-repository OWNER/NAME[@TAG]       a fork's address, into all links and set-up cells
    python -m srcourse.authoring shake 08_recursive_training           do its assertions hold however a processor rounds?
    python -m srcourse.authoring exercise-table                        the tables of docs/instructors.md
    python -m srcourse.authoring nbgrader 00_welcome --out COURSE      a lesson as an assignment of nbgrader

The solved notebook is the source. What stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` is taken out:
inside a function it becomes ``raise NotImplementedError``, at the top level nothing. Cells tagged "solution" are
left out whole. The cells tagged "navigation" and "setup" are written here, the same for every lesson.
"""

import copy
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient
from nbformat import NotebookNode

from srcourse import address, instructors, shaking
from srcourse.files import write_text
from srcourse.grading import QUIET_KERNEL, exercises_of

LESSONS = {
    "00_welcome": "Welcome",
    "01_degradation": "Degradation",
    "02_psnr_ssim": "PSNR and SSIM",
    "03_srresnet": "SRResNet",
    "04_srgan": "SRGAN",
    "05_patchgan_msfm": "PatchGAN and MSFM",
    "06_perceptual_niqe": "Perceptual losses and NIQE",
    "07_fft_discriminator": "The FFT discriminator",
    "08_recursive_training": "Recursive training",
    "09_multipass_eusr": "EUSR in four passes",
    "10_capstone": "Capstone",
}
"""The lessons in their order, and what links call them."""

_BEGIN, _END = "### BEGIN SOLUTION", "### END SOLUTION"
_STUB = "raise NotImplementedError  # your code here, in place of this line"

_SETUP = """\
# Set-up, the same in every lesson. Where the course is missing (Colab), this installs it.
import importlib.util
import subprocess
import sys

if getattr(importlib.util.find_spec("srcourse"), "origin", None) is None:  # missing, or just a folder of that name
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "srcourse @ git+{repository}"], check=True)

import srcourse as sr
from srcourse import exercises

device = sr.setup(seed=0)"""


def repository() -> str:
    """The project's address, from [project.urls] in pyproject.toml: its only home."""
    return _address_in((_root() / "pyproject.toml").read_text(encoding="utf-8")).group(1)


def _address_in(project: str) -> re.Match:
    match = re.search(r'^\[project\.urls\]\s*\n(?:(?!\[).*\n)*?Repository *= *"([^"]+)"', project, re.MULTILINE)
    if not match:
        raise ValueError("pyproject.toml has no Repository under [project.urls]: the notebooks' links are made from it")
    return match


def set_repository(text: str) -> list[Path]:
    """Write an address into pyproject.toml and every notebook's navigation and set-up cells; returns the files that changed.

    All files change or none, nothing else in them does, and a second time there is nothing to do.

    Parameters
    ----------
    text : str
        ``OWNER/NAME`` on GitHub, or a full address, each with ``@`` and a branch or a tag if wanted; `address.parse` says which.
    """
    wanted, root = address.parse(text), _root()
    project = root / "pyproject.toml"
    found = _address_in(before := _text(project))
    after = {project: (before, before[: found.start(1)] + wanted + before[found.end(1) :])}
    for folder in ("notebooks", "solutions"):
        for name in LESSONS:
            path = root / folder / f"{name}.ipynb"
            notebook = _notebook(path, before := _text(path))
            old = [cell.source for cell in notebook.cells]
            stamp(notebook, name, folder, wanted)
            sources = {i: cell.source for i, cell in enumerate(notebook.cells) if cell.source != old[i]}
            after[path] = (before, address.with_sources(before, sources))
            if nbformat.reads(after[path][1], as_version=4) != notebook:
                raise ValueError(f"{path} is laid out in a way that cannot be kept: save it in JupyterLab, then try again")
    changed = {path: new.encode() for path, (old, new) in after.items() if old != new}
    address.replace_all(changed)
    return list(changed)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")  # read_text would change the ends of lines
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not text in UTF-8") from None


def _notebook(path: Path, text: str | None = None) -> NotebookNode:
    try:
        notebook = nbformat.reads(_text(path) if text is None else text, as_version=4)
        nbformat.validate(notebook)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path} is not a Jupyter notebook ({type(error).__name__})") from None
    return notebook


def strip(solved: NotebookNode) -> NotebookNode:
    """The learner's notebook: the solved one without its solutions; outputs left out."""
    notebook = copy.deepcopy(solved)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = strip_code(cell.source)
            cell.outputs, cell.execution_count = [], None
    return notebook


def strip_code(source: str) -> str:
    """Code without its solution regions; ``ValueError`` for a marker without its partner."""
    kept, indent, inside = [], "", False
    for line in source.split("\n"):
        marker = line.strip()
        if marker in (_BEGIN, _END):
            if (marker == _BEGIN) == inside:
                raise ValueError(f"{marker!r} without its partner in a cell that begins {source[:60]!r}")
            inside = not inside
            indent = line[: len(line) - len(line.lstrip())]
            if inside and indent:
                kept.append(indent + _STUB)
        elif not inside:
            kept.append(line)
    if inside:
        raise ValueError(f"{_BEGIN!r} without its partner in a cell that begins {source[:60]!r}")
    return "\n".join(kept).rstrip()


def stamp(notebook: NotebookNode, name: str, folder: str, home: str | None = None) -> None:
    """Write the navigation and set-up cells of a lesson in ``notebooks`` or ``solutions``; `home` is `repository()` if not given."""
    home = repository() if home is None else home
    names = list(LESSONS)
    here = names.index(name)
    # words, not the usual badge: offline, an image from elsewhere is a broken one
    colab = address.colab(home, f"{folder}/{name}.ipynb")
    links = [f"[Open in Colab]({colab})"] if colab else []
    if here > 0:
        links.append(f"[← {LESSONS[names[here - 1]]}]({names[here - 1]}.ipynb)")
    if here + 1 < len(names):
        links.append(f"[{LESSONS[names[here + 1]]} →]({names[here + 1]}.ipynb)")
    links.append("[Glossary](../docs/glossary.md)")
    if folder == "solutions":
        links.append(f"*Solved; [the lesson itself](../notebooks/{name}.ipynb)*")
    texts = {"navigation": " · ".join(links), "setup": _SETUP.format(repository=home)}
    for tag, text in texts.items():
        cells = [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]
        if not cells or len([c for c in cells if c.cell_type == "code"]) != (tag == "setup"):
            raise ValueError(f"{name} needs cells tagged {tag!r}: one code cell for setup, Markdown for navigation")
        for cell in cells:
            cell.source = text


def execute(notebook: NotebookNode, folder: Path, *, strict: bool) -> tuple[float, float]:
    """Run all cells in a fresh kernel with `folder` as its own; returns seconds and peak memory in MB."""
    environment = {**os.environ, "SRCOURSE_STRICT": "1" if strict else "0"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    client = NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(folder)}}, record_timing=False, extra_arguments=QUIET_KERNEL
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, client.setup_kernel(env={**environment, "IPYTHONDIR": scratch}):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index, execution_count=None)
        seconds = time.perf_counter() - start
        probe = nbformat.v4.new_code_cell("import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)")
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1, store_history=False)
        memory = int(notebook.cells.pop().outputs[0].text) / 1024
    _clean(notebook)
    return seconds, memory


def _clean(notebook: NotebookNode) -> None:
    """Outputs that read well without a kernel: no progress bars, no widgets, no machine's names."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = [o for o in cell.outputs if "application/vnd.jupyter.widget-view+json" not in o.get("data", {})]
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                raise ValueError(f"a cell wrote to stderr: {output.text[:200]!r}; a lesson shows no warnings")
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )


def build(name: str, *, run: bool = True) -> None:
    """Stamp, strip, execute and write one lesson, in both folders; nothing is written if anything fails."""
    root = _root()
    solved = nbformat.read(root / "solutions" / f"{name}.ipynb", as_version=4)
    stamp(solved, name, "solutions")
    lesson = strip(solved)
    stamp(lesson, name, "notebooks")
    measured = {}
    for folder, notebook in (("solutions", solved), ("notebooks", lesson)):
        if run:
            seconds, memory = execute(notebook, root / folder, strict=folder == "solutions")
            measured[folder] = (seconds, memory)
            notebook.metadata["srcourse"] = {"seconds": round(seconds), "memory_mb": round(memory)}
    for folder, notebook in (("solutions", solved), ("notebooks", lesson)):
        path = root / folder / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".partial")
        nbformat.write(notebook, partial)
        partial.replace(path)
        if folder in measured:
            seconds, memory = measured[folder]
            print(f"{folder}/{name}: {seconds:.0f} s, {memory:.0f} MB, file {path.stat().st_size / 1e6:.2f} MB")
            promise = re.search(r"under (\d+) seconds", notebook.cells[1].source)
            if promise and round(seconds) > int(promise.group(1)):
                advice = "build it again on a machine with nothing else to do, or promise more"
                print(f"  longer than the {promise.group(1)} s that its opening promises: {advice}")


def exercise_tables() -> str:
    """How long each lesson takes, and what each exercise tests: the tables of docs/instructors.md."""
    lessons = {name: _notebook(_root() / "notebooks" / f"{name}.ipynb") for name in LESSONS}
    return instructors.tables(lessons, {name: exercises_of(name) for name in LESSONS})


def nbgrader(name: str, out: Path, *, overwrite: bool = False) -> Path:
    """Write a lesson as a source assignment into a course folder of nbgrader; returns the notebook's path.

    The folder gets an nbgrader_config.py if it has none. An assignment that is there already is kept unless `overwrite`.
    """
    path = out / "source" / name / f"{name}.ipynb"
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: give --overwrite to replace it, with what was changed in it by hand")
    solved = _notebook(_root() / "solutions" / f"{name}.ipynb")
    notebook = instructors.assignment(solved, {exercise.id: exercise.points for exercise in exercises_of(name)})
    write_text(path, nbformat.writes(notebook) + "\n")
    config = out / "nbgrader_config.py"
    if not config.exists():
        write_text(config, instructors.NBGRADER_CONFIG.format(stub=_STUB))
    return path


def _root() -> Path:
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        raise ValueError("authoring works in a checkout of the course: install it with pip install -e .")
    return root


app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Make the learners' notebooks from the solved ones."
)


@app.callback()
def _commands() -> None:
    """Make the learners' notebooks from the solved ones."""


@app.command("build")
def build_command(
    lessons: Annotated[list[str] | None, typer.Argument(help="Names such as 00_welcome; all by default.")] = None,
    run: Annotated[bool, typer.Option(help="Execute the notebooks, so that they store outputs.")] = True,
) -> None:
    """Regenerate notebooks/ from solutions/, and execute both."""
    for name in _named(lessons):
        build(name, run=run)


@app.command("shake")
def shake_command(
    lessons: Annotated[list[str] | None, typer.Argument(help="Names such as 08_recursive_training; all by default.")] = None,
    times: Annotated[int, typer.Option(min=1, help="How often, each time with other factors.")] = 5,
) -> None:
    """Run solved lessons with every training's start changed by a millionth, and name the assertions that fail. Writes nothing."""
    failed = 0
    for name in _named(lessons):
        for number in range(1, times + 1):
            found = shaking.failures(_notebook(_root() / "solutions" / f"{name}.ipynb"), _root() / "solutions", number)
            print(f"{name}, {number} of {times}:" + ("\n  ".join(["", *found]) if found else " all holds"), flush=True)
            failed += bool(found)
    if failed:
        raise typer.Exit(1)


def _named(lessons: list[str] | None) -> list[str]:
    """These lessons, or all: a wrong name is refused before the first one runs."""
    for name in lessons or []:
        _known(name)
    return lessons or list(LESSONS)


def _known(name: str) -> None:
    if name not in LESSONS:
        raise typer.BadParameter(f"there is no lesson {name!r}: expected one of {', '.join(LESSONS)}")


@app.command("set-repository")
def set_repository_command(
    repository: Annotated[
        str, typer.Argument(metavar="OWNER/NAME[@TAG]", help="On GitHub; or a full https address elsewhere. A tag or a branch may follow.")
    ],
) -> None:
    """Make the course a fork's: write its address into pyproject.toml and all notebooks, whose outputs stay."""
    changed = set_repository(repository)
    print(f"{address.parse(repository)}: " + (f"{len(changed)} files changed" if changed else "nothing to change"))


@app.command("exercise-table")
def exercise_table_command() -> None:
    """Renew the tables in docs/instructors.md, from the lessons and their exercises."""
    page = _root() / "docs" / "instructors.md"
    text = _text(page)
    parts = _TABLES.split(text)
    if len(parts) != 3:
        raise ValueError(f"{page.name} has not its two comments around the tables, of the form <!-- tables ... --> and <!-- /tables -->")
    begin, end = _TABLES.findall(text)
    new = f"{parts[0]}{begin}\n{exercise_tables()}\n{end}{parts[2]}"
    if new != text:
        write_text(page, new)
    print(f"docs/{page.name}: " + ("renewed" if new != text else "nothing to change"))


_TABLES = re.compile(r"<!-- /?tables.*?-->")


@app.command("nbgrader")
def nbgrader_command(
    lesson: Annotated[str, typer.Argument(help="A name such as 00_welcome.")],
    out: Annotated[Path, typer.Option(help="The course folder of nbgrader; the assignment comes into its source/.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an assignment that is there.")] = False,
) -> None:
    """Write a solved lesson as a source assignment of nbgrader: its checks become tests with the exercises' points."""
    _known(lesson)
    print(f"{nbgrader(lesson, out, overwrite=overwrite)}: next, nbgrader generate_assignment {lesson}")


@app.command("picture")
def picture_command() -> None:
    """Make the README's picture, docs/welcome.jpg, with the shipped weights."""
    from srcourse import data, models, plots, upscale

    pair = data.Benchmark("samples", 4, data.samples(["astronaut"]))[0]
    methods = {
        "nearest": models.create("nearest", scale=4),
        "bicubic": models.create("bicubic", scale=4),
        "SRResNet (small), lesson 03": models.load("srresnet_small-x4"),
    }
    picture = plots.compare(
        {**{name: upscale(model, pair.lr) for name, model in methods.items()}, "original": pair.hr},
        zoom=(60, 180, 110, 110),
        reference="original",
        border=4,
        title="Four times larger: from 128×128 to 512×512 pixels",
        describe="A face enlarged four times: blocks, a blur, then clear eyes and mouth from a network of 98,005 parameters.",
    )
    target = _root() / "docs" / "welcome.jpg"
    target.parent.mkdir(exist_ok=True)
    picture.save(target)
    print(f"{target.name}: {target.stat().st_size / 1e3:.0f} kB")


def main() -> None:
    """Run the command; what the author can mend is told in one line, with exit status 1."""
    try:
        app()
    except (ValueError, OSError) as error:
        print(f"srcourse.authoring: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
