"""What the scripts of this folder share: the table of sources, a plan that is printed first, and the command line around it.

A script says what it wants as items: a file, a folder of files, the images in an archive. `fetch` prints licence, citation
and plan, looks at the disk, and gets what is missing. What an item promises to be stands under its final name only when
all of it is there and verified; so a second call finds it and does nothing.
"""

import functools
import posixpath
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from downloading import Source, download_all
from filelock import FileLock, Timeout
from unpacking import Limits, unpacked

TABLE = Path(__file__).resolve().parent / "checksums.tsv"
_MARGIN = 64 * 2**20  # bytes of disk to leave free
_UNPACKED = 1.05  # bytes on disk for each byte of an archive of PNG files

Mirror = Annotated[
    str | None, typer.Option(help="Another address in the place of the source's base (the plan shows it); the rest of the path stays.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be downloaded and how much; download nothing.")]


@dataclass(frozen=True)
class Credit:
    """Whose data it is: what it is, what one may do with it, and what to cite."""

    what: str
    licence: str
    citation: str

    def __str__(self) -> str:
        return f"{self.what}\n  licence: {self.licence}\n  cite: {self.citation}"


def sources(folder: str = "") -> dict[str, Source]:
    """The files of one folder in ``checksums.tsv``, by name; ``KeyError`` for a folder that it does not have."""
    found, base, current = {}, "", None
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        columns = line.split("\t")
        if columns[0] == "@":
            base, current = columns[1:]
        elif current == folder and not line.startswith("#"):
            size, digest, name = columns
            found[name] = Source(base, folder + name, int(size), digest)
    if not found:
        raise KeyError(f"{TABLE.name} has no folder {folder!r}")
    return found


# --- what a script can want ---------------------------------------------------------------------------------------


@dataclass
class File:
    """One file."""

    source: Source
    path: Path
    more: int = field(default=0, init=False)  # bytes on disk beside the download

    def missing(self) -> dict[Path, Source]:
        """What is still to be downloaded, and where it goes."""
        return {} if self.source.is_whole(self.path) else {self.path: self.source}

    def ready(self) -> bool:
        """Whether it is all there."""
        return not self.missing()

    def finish(self, progress: bool) -> None:
        """Make of what was downloaded what was promised."""

    def __str__(self) -> str:
        return self.path.name

    @property
    def at(self) -> str:
        """Where it comes from, without the base."""
        return self.source.path


@dataclass
class Folder:
    """Several files, ``files["HR/baby.png"]``: in the folder all at once, at the end; until then in ``.NAME.part`` beside it."""

    path: Path
    files: Mapping[str, Source]
    more: int = 0

    @property
    def stage(self) -> Path:
        return self.path.with_name(f".{self.path.name}.part")

    def missing(self) -> dict[Path, Source]:
        return {self.stage / name: source for name, source in self.files.items() if self._found(name, source) is None}

    def _found(self, name: str, source: Source) -> Path | None:
        return next((folder / name for folder in (self.path, self.stage) if source.is_whole(folder / name)), None)

    def ready(self) -> bool:
        return all(source.is_whole(self.path / name) for name, source in self.files.items())

    def finish(self, progress: bool) -> None:
        self.complete(self.stage)
        move_in(self.stage, self.path)

    def complete(self, stage: Path) -> None:
        """Add to the stage what is made rather than downloaded; here nothing."""

    def __str__(self) -> str:
        return f"{self.path.name}/ ({len(self.files)} files)"

    @property
    def at(self) -> str:
        return posixpath.commonpath([source.path.rpartition("/")[0] for source in self.files.values()]) + "/…"


@dataclass
class Images:
    """The images of a zip file, `names` all of them, in a folder; the archive is removed once they are there."""

    path: Path
    source: Source
    names: frozenset[str]
    archives: Path  # where the archive goes
    keep: bool = False

    @property
    def archive(self) -> Path:
        return self.archives / self.source.name

    @property
    def more(self) -> int:
        return 0 if self.ready() else round(self.source.size * _UNPACKED)

    def missing(self) -> dict[Path, Source]:
        return {} if self.ready() or self.source.is_whole(self.archive) else {self.archive: self.source}

    def ready(self) -> bool:
        there = {path.name for path in self.path.iterdir() if path.stat().st_size} if self.path.is_dir() else set()
        return self.names <= there

    def finish(self, progress: bool) -> None:
        stage = self.archives / f".{self.source.name}.unpacking"
        with unpacked(self.archive, stage, Limits(round(self.source.size * 1.5) + 2**20, 2 * len(self.names)), progress=progress):
            chosen = stage / "chosen"
            chosen.mkdir()
            for path in list(stage.rglob("*")):
                if path.is_file() and path.name in self.names:
                    path.rename(chosen / path.name)
            absent = sorted(self.names - {path.name for path in chosen.iterdir()})
            if absent:
                raise ValueError(
                    f"{self.archive} has no {absent[0]} ({len(absent)} of {len(self.names)} images missing): nothing was unpacked"
                )
            move_in(chosen, self.path)
        if not self.keep:
            self.archive.unlink()

    def __str__(self) -> str:
        return self.source.name

    @property
    def at(self) -> str:
        return self.source.path


Item = File | Folder | Images


def move_in(stage: Path, folder: Path) -> None:
    """Give a finished stage its name; where the folder is there already, add to it what it lacks."""
    if not stage.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        stage.rename(folder)
        return
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(stage)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    shutil.rmtree(stage)


# --- doing it -----------------------------------------------------------------------------------------------------


def fetch(
    items: Sequence[Item],
    out: Path,
    *,
    credit: Iterable[Credit] = (),
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Print licence, citation and plan; check the disk; get what is missing. Returns the items' paths.

    Raises
    ------
    OSError
        If the disk is too small, a source cannot be reached, or another process fetches to the same folder.
    ValueError
        If a file or an archive is not what it should be; nothing is left that looks as if it were.
    """
    for one in credit:
        print(one)
    with nullcontext() if dry_run else locked(out):
        ready = [item.ready() for item in items]
        missing = [{} if whole else item.missing() for item, whole in zip(items, ready, strict=True)]
        for item, whole, files in zip(items, ready, missing, strict=True):
            state = "there" if whole else "to fetch" if files else "to finish"
            where = next(iter(files.values())).address(mirror).removesuffix(next(iter(files.values())).path) + item.at if files else ""
            print(f"  {state:10}{item!s:34}{_bytes(_left(files)) if files else '':>9}  {where}".rstrip())
        downloads, needed = _cost(items, missing)
        free = shutil.disk_usage(next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())).free
        print(f"{_bytes(downloads)} to download; {_bytes(needed)} of disk needed, {_bytes(free)} free in {out}")
        if dry_run:
            print("nothing was downloaded (--dry-run)")
            return [item.path for item in items]
        if needed and needed + _MARGIN > free:
            raise OSError(f"{out} has {_bytes(free)} free, and {_bytes(needed + _MARGIN)} are needed: make room, or choose another --out")
        for item, whole, files in zip(items, ready, missing, strict=True):
            if not whole:
                download_all(files, mirror=mirror, title=str(item), progress=progress)
                item.finish(progress)
    return [item.path for item in items]


def _cost(items: Sequence[Item], missing: Sequence[Mapping[Path, Source]]) -> tuple[int, int]:
    """Bytes to download, and bytes of disk at the worst moment: archives come, and mostly go, one after the other."""
    used = worst = 0
    for item, files in zip(items, missing, strict=True):
        left = _left(files)
        worst = max(worst, used + left + item.more)
        used += item.more + (left if not isinstance(item, Images) or item.keep else 0)
    return sum(_left(files) for files in missing), max(worst, used)


def _left(files: Mapping[Path, Source]) -> int:
    parts = {path: path.with_name(path.name + ".part") for path in files}
    return sum(max((source.size or 0) - (parts[path].stat().st_size if parts[path].is_file() else 0), 0) for path, source in files.items())


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder; ``OSError`` if one is there."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".fetching.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OSError(f"another process fetches into {folder}: wait until it is done, or choose another --out") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)


# --- the command line ---------------------------------------------------------------------------------------------


def chosen(text: str, allowed: Sequence[str], what: str) -> list[str]:
    """The parts of "a,b" in the order of `allowed`; ``ValueError`` for one that is not among them."""
    wanted = [part.strip().lower() for part in text.split(",") if part.strip()]
    known = {name.lower(): name for name in allowed}
    wrong = next((part for part in wanted if part not in known), None)
    if wrong is not None or not wanted:
        raise ValueError(f"{what}: there is no {wrong!r}: expected some of {','.join(allowed)}")
    return [name for name in allowed if name.lower() in wanted]


def run(main: Callable[..., object]) -> None:
    """Run a script's `main` with its options; what the user can mend is told in one line, with exit status 1."""
    name = Path(sys.argv[0]).stem

    def stop(message: str, status: int) -> None:
        print(f"{name}: {' '.join(message.split())}", file=sys.stderr)
        raise typer.Exit(status)

    @functools.wraps(main)
    def careful(*arguments, **options):
        try:
            main(*arguments, **options)
        except KeyboardInterrupt:
            stop("stopped; what came is kept in .part files, and the same command goes on from there", 130)
        except (ValueError, OSError) as error:
            stop(str(error) or type(error).__name__, 1)

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    typer.run(careful)
