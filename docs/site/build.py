"""The course as a web site of plain files, which can be read without a server and without a network.

    python docs/site/build.py --out site

needs the packages of the dependency group "site". It puts a source tree together in a temporary folder (the lessons with their
stored outputs, the README as the front page, the pages of docs/), runs Sphinx on it, and moves the result to `--out`.
"""

import argparse
import base64
import hashlib
import html
import importlib.util
import io
import json
import posixpath
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from srcourse import address

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
NEEDED = ("sphinx", "myst_nb", "sphinx_book_theme", "latex2mathml")
PICTURES = {"image/png": "png", "image/jpeg": "jpg"}

LIVE = """*On this page nothing runs: it shows what the lesson gave when it was made. To change things, and to have your exercises
checked, open it in Colab or in JupyterLab.*"""


def missing() -> list[str]:
    """The packages that this needs and that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


# --- the source tree --------------------------------------------------------------------------------------------


def assemble(source: Path, root: Path = ROOT) -> list[str]:
    """Write all that Sphinx reads to `source`; returns the names of the lessons."""
    shutil.copy(HERE / "conf.py", source / "conf.py")
    shutil.copytree(HERE / "static", source / "static")
    (source / "notebooks").mkdir()
    (source / "docs").mkdir()
    files = Copies(source / "extra" / "files", root)
    lessons = sorted(path.stem for path in (root / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    if not lessons:
        raise SystemExit(f"there are no lessons in {root / 'notebooks'}: expected a checkout of the course")
    titles = {}
    for name in lessons:
        notebook = json.loads((root / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))
        titles[name] = page_of(notebook, name, files)
        (source / "notebooks" / f"{name}.ipynb").write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")
    pages = sorted(path for path in (root / "docs").glob("*.md"))
    for path in pages:
        (source / "docs" / path.name).write_text(links(path.read_text(encoding="utf-8"), "docs", files), encoding="utf-8")
    for picture in (root / "docs").glob("*.jpg"):
        shutil.copy(picture, source / "docs")
    front, contributing = (links((root / name).read_text(encoding="utf-8"), "", files) for name in ("README.md", "CONTRIBUTING.md"))
    (source / "CONTRIBUTING.md").write_text(contributing, encoding="utf-8")
    contents = [("Lessons", [f"{title} <notebooks/{name}>" for name, title in titles.items()])]
    contents.append(("More", [*(f"docs/{path.stem}" for path in pages), "CONTRIBUTING"]))
    for caption, entries in contents:
        front += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(entries) + "\n```\n"
    (source / "index.md").write_text(front, encoding="utf-8")
    return lessons


class Copies:
    """The files that the pages show or offer, besides themselves."""

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root = folder, root

    def take(self, place: str) -> str:
        """Copy a file of the repository; returns its address from the site's front page."""
        suffix = "" if Path(place).suffix not in ("", ".cff") else ".txt"  # so that a browser shows it
        target = self.folder / f"{place}{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.root / place, target)
        return f"files/{place}{suffix}"

    def keep(self, content: bytes, suffix: str) -> str:
        """Write a picture under a name of its own; returns its address."""
        target = self.folder.with_name("figures") / f"{hashlib.sha256(content).hexdigest()[:16]}.{suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return f"figures/{target.name}"


def page_of(notebook: dict, name: str, files: Copies) -> str:
    """Make a lesson into a page, in place: links under the title, figures as described files. Returns its short title."""
    cells = [cell for cell in notebook["cells"] if "navigation" not in _tags(cell)]
    colab = re.search(r"\[Open in Colab\]\(([^)]+)\)", "".join(notebook["cells"][0]["source"]))
    title = re.match(r"# (\d\d) · (.+)", "".join(cells[0]["source"]))
    if not (colab and title):
        raise SystemExit(f"notebooks/{name}.ipynb does not begin as a lesson does: navigation, then '# NN · title'")
    ways = [f"[Open in Colab]({colab.group(1)})"]
    for folder, words in (("notebooks", "Download the notebook"), ("solutions", "Download it solved")):
        ways.append(f'<a href="../{files.take(f"{folder}/{name}.ipynb")}" download>{words}</a>')
    heading, rest = "".join(cells[0]["source"]).split("\n", 1)
    cells[0]["source"] = f"{heading}\n\n{' · '.join(ways)}\n\n{LIVE}\n{rest}"
    for cell in cells:
        if cell["cell_type"] == "markdown":
            cell["source"] = links("".join(cell["source"]), "notebooks", files)
        if "setup" in _tags(cell):
            cell["metadata"]["tags"] = [*_tags(cell), "hide-input"]
        for output in cell.get("outputs", []):
            _describe(output, name, files)
    notebook["cells"] = cells
    number, words = title.groups()
    return f"{number} · {re.split(r': ', words)[0]}"


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def _describe(output: dict, name: str, files: Copies) -> None:
    """A stored picture becomes a file, and an <img> with its description and its size."""
    for mime, suffix in PICTURES.items():
        if mime in output.get("data", {}):
            content = base64.b64decode("".join(output["data"][mime]))
            alt = output["metadata"].get(mime, {}).get("alt", "")
            if not alt:
                raise SystemExit(f"notebooks/{name}.ipynb has a figure without a description: give it describe=")
            width, height = size(content)
            address = f"../{files.keep(content, suffix)}"
            picture = f'<img src="{address}" alt="{html.escape(alt)}" width="{width}" height="{height}" loading="lazy">'
            output["data"], output["metadata"] = {"text/html": f'<div class="figure">{picture}</div>', "text/plain": alt}, {}


def size(content: bytes) -> tuple[int, int]:
    """Width and height of a PNG or JPEG in pixels."""
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack(">II", content[16:24])
    stream = io.BytesIO(content[2:])
    while True:
        marker, code, length = struct.unpack(">BBH", stream.read(4))
        if marker != 0xFF:
            raise ValueError("expected a PNG or JPEG picture")
        if 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">xHH", stream.read(5))
            return width, height
        stream.seek(length - 2, 1)


def links(text: str, folder: str, files: Copies) -> str:
    """Relative links of a Markdown text that lies in `folder`: pages stay, other files become copies, folders lead to the repository."""

    def rewrite(match: re.Match) -> str:
        words, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return match.group()
        place = posixpath.normpath(posixpath.join(folder, path))
        up = "../" * bool(folder)
        if not (files.root / place).exists():
            raise SystemExit(f"{folder or 'the README'}: the link to {target} leads nowhere")
        if place == "README.md":
            return f"[{words}]({up}index.md{'#' * bool(anchor)}{anchor})"
        if (files.root / place).is_dir():
            return f"[{words}]({repository(files.root)}/tree/main/{place})"
        if re.fullmatch(r"notebooks/\d\d_\w+\.ipynb|docs/[\w-]+\.md|CONTRIBUTING\.md", place):
            return match.group()
        return f'<a href="{up}{files.take(place)}"{" download" * place.endswith(".ipynb")}>{words}</a>'

    parts = re.split(r"(```.*?```|`[^`\n]*`)", text, flags=re.DOTALL)  # code stays as it is
    return "".join(part if i % 2 else re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", rewrite, part) for i, part in enumerate(parts))


def repository(root: Path) -> str:
    """The project's address, from [project.urls], without its branch or tag."""
    whole = re.search(r'^Repository = "([^"]+)"', (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    return address.split(whole)[0]


# --- the site ---------------------------------------------------------------------------------------------------


def build(out: Path, root: Path = ROOT) -> list[str]:
    """Make the site in `out`, replacing an earlier one; returns the names of the lessons. Warnings of Sphinx are errors."""
    lacking = missing()
    if lacking:
        raise SystemExit(f"the site needs {', '.join(lacking)}: install the dependency group site: uv sync, or pip install --group site")
    if out.exists() and any(out.iterdir()) and not (out / "searchindex.js").is_file():
        raise SystemExit(f"{out} holds something else than a site: choose an empty folder, or a new one")
    with tempfile.TemporaryDirectory() as scratch:
        source, made = Path(scratch, "source"), Path(scratch, "site")
        source.mkdir()
        lessons = assemble(source, root)
        words = [
            sys.executable,
            "-m",
            "sphinx",
            "-b",
            "html",
            "-q",
            "-W",
            "--keep-going",
            "-d",
            f"{scratch}/doctrees",
            str(source),
            str(made),
        ]
        finished = subprocess.run(words, capture_output=True, text=True)
        if finished.returncode:
            raise SystemExit(f"Sphinx is not content:\n{finished.stderr.replace(scratch, '')}")
        for leftover in (".buildinfo", "objects.inv"):
            (made / leftover).unlink(missing_ok=True)
        if out.exists():
            shutil.rmtree(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, out)
    return lessons


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the course's web site: plain files that need no server and no network.")
    parser.add_argument("--out", type=Path, default=Path("site"), help="the folder to make (default: site)")
    out = parser.parse_args().out
    lessons = build(out)
    weight = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{len(lessons)} lessons, {weight / 1e6:.0f} MB: open {out / 'index.html'}")


if __name__ == "__main__":
    main()
