"""Colab, simulated: a Python that has what Colab has and nothing else, a notebook alone in a folder, the course from its repository."""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
import torch
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from packaging.requirements import Requirement

import srcourse as sr
from conftest import ROOT
from srcourse import authoring
from srcourse.grading import QUIET_KERNEL

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COLAB = ["torch", "torchvision", "numpy", "matplotlib", "pillow", "ipykernel"]
LESSON = "00_welcome.ipynb"


# --- a Python of its own ------------------------------------------------------------------------------------------


def needed(requirements):
    """{name: distribution} of requirements and of all that they require, as they are installed here."""
    found, asked, waiting = {}, set(), [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        if str(wanted) in asked:
            continue
        asked.add(str(wanted))
        distribution = importlib.metadata.distribution(wanted.name)
        found[distribution.metadata["Name"]] = distribution
        for requirement in map(Requirement, distribution.requires or []):
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *wanted.extras)):
                waiting.append(requirement)
    return found


def wheel(distribution, folder):
    """Pack an installed distribution as the wheel that it came from."""
    files = [file for file in distribution.files if "__pycache__" not in file.parts]
    info = next(file.parts[0] for file in files if file.name == "METADATA" and file.parts[0].endswith(".dist-info"))
    stem, names = info.removesuffix(".dist-info"), []
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:  # stored, not compressed: it is read once
        for file in files:
            inside = file.as_posix()
            if ".." in file.parts:  # beside the packages: bin/ comes back from the entry points, share/ and etc/ are data
                inside = inside.replace("../", "")
                if not inside.startswith(("share/", "etc/")):
                    continue
                inside = f"{stem}.data/data/{inside}"
            if file.name not in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json") or file.parts[0] != info:
                archive.write(file.locate(), inside)
                names.append(inside)
        archive.writestr(f"{info}/RECORD", "".join(f'"{name}",,\n' for name in [*names, f"{info}/RECORD"]))


def expose(distributions, folder):
    """Links to installed distributions in a folder for sys.path, and so without what else is installed beside them."""
    for distribution in distributions:
        for top in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            link = folder / top
            if not link.exists():  # nvidia/ belongs to several
                link.symlink_to(Path(distribution.locate_file(top)).resolve())


def without_course():
    """The environment of a process that knows nothing of this checkout, and no package index."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_", "GIT_", "VIRTUAL_ENV"))}
    kept |= {"PYTHONPATH": str(ROOT / "tests" / "offline"), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    return kept | dict.fromkeys(("PIP_NO_INDEX", "PIP_NO_CACHE_DIR", "PIP_DISABLE_PIP_VERSION_CHECK"), "1") | {"PIP_COMPILE": "0"}


@pytest.fixture
def colab(tmp_path):
    """(its Python, the environment in which pip finds what the course needs, as wheels in a folder)."""
    if os.name == "nt":
        pytest.skip("Windows makes links for administrators alone")
    for name, remedy in (("ensurepip", "on Debian: apt install python3-venv"), ("hatchling", "uv sync")):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"this Python has no {name}: {remedy}")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    python = tmp_path / "python" / "bin" / "python"
    site = Path(subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip())
    for old in site.glob("setuptools*"):  # older Pythons bring one, older than torch asks for
        shutil.rmtree(old)
    there = needed(COLAB)
    (tmp_path / "linked").mkdir()
    expose(there.values(), tmp_path / "linked")
    (site / "colab.pth").write_text(f"{tmp_path / 'linked'}\n")
    (tmp_path / "wheels").mkdir()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    builders = needed(project["build-system"]["requires"])  # they work in an environment apart, which has nothing
    required = {name: found for name, found in needed(project["project"]["dependencies"]).items() if name not in there}
    for distribution in (required | builders).values():
        wheel(distribution, tmp_path / "wheels")
    yield python, without_course() | {"PIP_FIND_LINKS": str(tmp_path / "wheels"), "PIP_CONFIG_FILE": os.devnull}
    for folder in ("python", "wheels"):  # large, and pytest keeps its folders
        shutil.rmtree(tmp_path / folder)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """This working tree as a repository with one commit, stamped with its own address."""
    tree = tmp_path / "srcourse"
    unwanted = shutil.ignore_patterns("__pycache__", ".*", "runs", "outputs")
    for name in ("srcourse", "notebooks", "solutions"):
        shutil.copytree(ROOT / name, tree / name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    monkeypatch.setattr(authoring, "_root", lambda: tree)
    assert len(authoring.set_repository(f"file://localhost{tree}")) == 2 * len(authoring.LESSONS) + 1  # older pips want a host
    environment = without_course()
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "."], [*who, "commit", "--quiet", "--message", "the course"]):
        subprocess.run(["git", *words], cwd=tree, env=environment, check=True)
    return tree


def run(notebook, python, environment, folder):
    """The executed notebook and what a last cell says: the working folder and where the course came from."""
    specs = python.parent.parent / "kernels"
    spec = specs / "colab" / "kernel.json"
    spec.parent.mkdir(parents=True, exist_ok=True)
    start = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": start, "display_name": "Colab", "language": "python"}))
    document = nbformat.read(notebook, as_version=4)
    document.cells.append(nbformat.v4.new_code_cell("import os; print(os.getcwd(), sr.__file__)"))
    manager = AsyncKernelManager(kernel_name="colab", kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(specs)]))
    where = {"metadata": {"path": str(folder)}}
    client = NotebookClient(document, km=manager, timeout=200, resources=where, extra_arguments=QUIET_KERNEL)
    client.owns_km = True  # or the kernel outlives it
    client.execute(env=environment)
    return document, document.cells.pop().outputs[0].text.split()


@pytest.mark.slow
def test_a_notebook_alone_installs_the_course_once_and_runs(colab, repository, tmp_path):
    python, environment = colab
    names = ["torch", "torchvision", "numpy", "matplotlib", "PIL", "ipykernel", "srcourse.images", "skimage", "accelerate", "safetensors"]
    probe = f"import importlib.util as u; print([u.find_spec(n) is not None for n in {names}])"
    work = tmp_path / "content"
    work.mkdir()
    (work / "srcourse").mkdir()  # as whoever clones the repository has it: a folder of the package's name, and no package
    there = subprocess.check_output([python, "-c", probe], cwd=work, env=environment, text=True)
    assert there.strip() == str([True] * 6 + [False] * 4), "not what Colab has"

    lesson = shutil.copy(repository / "notebooks" / LESSON, work)
    before = Path(lesson).read_bytes()
    first, (folder, course) = run(lesson, python, environment, work)
    assert folder == str(work) and Path(course).is_relative_to(python.parent.parent)
    assert [cell.outputs[0].text[:4] for cell in first.cells if "check" in cell.metadata.get("tags", [])] == ["TODO"] * 4
    installed = Path(course).stat().st_mtime_ns

    shutil.rmtree(repository)  # another installation has nowhere to come from
    second, (folder, course) = run(lesson, python, environment | {"PIP_FIND_LINKS": ""}, work)
    assert folder == str(work) and Path(course).stat().st_mtime_ns == installed
    assert len(second.cells) == len(first.cells)
    assert {path.name for path in work.rglob("*")} == {LESSON, "srcourse"} and Path(lesson).read_bytes() == before


# --- the accelerator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, False, "cuda"), (False, True, "mps"), (True, True, "cuda"), (False, False, "cpu")]
)
def test_a_lesson_takes_the_accelerator_that_is_there(cuda, mps, expected, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)  # it would wake up a device that is not there
    assert sr.setup(seed=0) == torch.device(expected)
    name = "Tesla T4" if expected == "cuda" else "threads"
    line = capsys.readouterr().out
    assert f"{expected} (" in line and name in line
    assert sr.budget(cpu=3, gpu=50) == (3 if expected == "cpu" else 50)
