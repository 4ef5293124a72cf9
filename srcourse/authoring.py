"""For authors: from the solved lessons in solutions/ to the learners' notebooks/, both executed.

    python -m srcourse.authoring build [00_welcome ...]

The solved notebook is the source. What stands between ``### BEGIN SOLUTION`` and ``### END SOLUTION`` is taken out:
inside a function it becomes ``raise NotImplementedError``, at the top level nothing. Cells tagged "solution" are
left out whole. The cells tagged "navigation" and "setup" are written here, the same for every lesson.
"""

import copy
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Annotated

import nbformat
import typer
from nbclient import NotebookClient
from nbformat import NotebookNode

from srcourse.grading import QUIET_KERNEL

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

if importlib.util.find_spec("srcourse") is None:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "srcourse @ git+{repository}"], check=True)

import srcourse as sr
from srcourse import exercises

device = sr.setup(seed=0)"""


def repository() -> str:
    """The project's address, from [project.urls] in pyproject.toml: its only home."""
    text = (_root() / "pyproject.toml").read_text(encoding="utf-8")
    match = re.search(r'^Repository = "([^"]+)"', text, re.MULTILINE)
    if not match:
        raise ValueError("pyproject.toml has no Repository under [project.urls]: the notebooks' links are made from it")
    return match.group(1)


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


def stamp(notebook: NotebookNode, name: str, folder: str) -> None:
    """Write the navigation and set-up cells of a lesson in ``notebooks`` or ``solutions``."""
    address = repository()
    names = list(LESSONS)
    here = names.index(name)
    slug = address.removeprefix("https://github.com/")
    # words, not the usual badge: offline, an image from elsewhere is a broken one
    links = [f"[Open in Colab](https://colab.research.google.com/github/{slug}/blob/main/{folder}/{name}.ipynb)"]
    if here > 0:
        links.append(f"[← {LESSONS[names[here - 1]]}]({names[here - 1]}.ipynb)")
    if here + 1 < len(names):
        links.append(f"[{LESSONS[names[here + 1]]} →]({names[here + 1]}.ipynb)")
    if folder == "solutions":
        links.append(f"*Solved; [the lesson itself](../notebooks/{name}.ipynb)*")
    texts = {"navigation": " · ".join(links), "setup": _SETUP.format(repository=address)}
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
    for name in lessons or LESSONS:
        if name not in LESSONS:
            raise typer.BadParameter(f"there is no lesson {name!r}: expected one of {', '.join(LESSONS)}")
        build(name, run=run)


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


if __name__ == "__main__":
    app()
