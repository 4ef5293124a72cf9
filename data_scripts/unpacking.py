"""Archives unpacked into one folder and nowhere else, within stated limits, whole or not at all.

Refused before a byte is written: names that lead elsewhere (../, /etc, C:), links and devices, a name that comes twice,
more files or bytes than expected, and entries that grow too much (zip bombs). While writing, what really comes is counted.
"""

import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from PIL import Image
from tqdm.auto import tqdm

_GRACE = 2**16  # bytes that an entry may grow to whatever its ratio


@dataclass(frozen=True)
class Limits:
    """What an archive may become: bytes and files in all, and bytes for each byte packed."""

    size: int
    files: int = 10_000
    ratio: float = 20.0


@dataclass(frozen=True)
class _Entry:
    path: PurePosixPath
    size: int
    packed: int | None  # None where the archive is compressed as one
    open: Callable[[], BinaryIO]


def is_archive(path: Path) -> bool:
    """Whether this is a file that `unpacked` can read: zip, or tar with whatever compression Python knows."""
    return path.is_file() and (zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


@contextmanager
def unpacked(archive: Path, stage: Path, limits: Limits, *, progress: bool = True) -> Iterator[Path]:
    """Give a folder, `stage`, with all that the archive holds; it is gone afterwards, so move out of it what you keep.

    Raises
    ------
    ValueError
        If the archive is damaged, leads out of its folder, or is more than the limits allow.
    OSError
        If it does not fit on the disk: nothing is left of it.
    """
    shutil.rmtree(stage, ignore_errors=True)  # of a process that was killed
    stage.mkdir(parents=True)
    try:
        _unpack(archive, stage, limits, progress)
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _unpack(archive: Path, stage: Path, limits: Limits, progress: bool) -> None:
    try:
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as file:
            entries = list(_entries(file, archive, limits))
            total = sum(entry.size for entry in entries)
            _check(entries, total, archive, limits)
            free = shutil.disk_usage(stage).free
            if total > free:
                raise OSError(f"{archive} unpacks to {total / 1e9:.2f} GB, and {stage.parent} has {free / 1e9:.2f} GB free: make room")
            with tqdm(
                total=total, unit="B", unit_scale=True, desc=f"unpacking {archive.name}", disable=not progress or None, leave=False
            ) as bar:
                for entry in entries:
                    _write(entry, stage / entry.path, archive, bar.update)
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__  # RuntimeError: a password is needed
        raise ValueError(f"{archive} cannot be unpacked ({reason}): fetch it again") from None


def _entries(file: zipfile.ZipFile | tarfile.TarFile, archive: Path, limits: Limits) -> Iterator[_Entry]:
    """The files in an archive; what is neither a file nor a folder, or leads elsewhere, is refused."""
    zipped = isinstance(file, zipfile.ZipFile)
    for count, info in enumerate(file.infolist() if zipped else file):
        name = info.filename if zipped else info.name
        if count > 2 * limits.files:
            raise ValueError(f"{archive} holds more than the {limits.files} files expected: nothing was unpacked")
        if zipped:
            mode = info.external_attr >> 16
            plain, folder = stat.S_IFMT(mode) in (0, stat.S_IFREG, stat.S_IFDIR), info.is_dir()
        else:
            plain, folder = info.isreg() or info.isdir(), info.isdir()
        if not plain:
            raise ValueError(f"{archive} holds a link or a device, {name!r}: nothing was unpacked")
        path = _safe(name, archive)
        if folder:
            continue
        if zipped:
            yield _Entry(path, info.file_size, info.compress_size, lambda info=info: file.open(info))
        else:
            yield _Entry(path, info.size, None, lambda info=info: file.extractfile(info))


def _safe(name: str, archive: Path) -> PurePosixPath:
    """The path inside the folder that a name means on every system; ``ValueError`` if it leads out of it."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or re.search(r'[\\\x00-\x1f:*?"<>|]', name):
        raise ValueError(f"{archive} holds {name!r}, which leads out of its folder or is no name for a file: nothing was unpacked")
    return PurePosixPath(*parts)


def _check(entries: list[_Entry], total: int, archive: Path, limits: Limits) -> None:
    packed = archive.stat().st_size
    if len(entries) > limits.files:
        raise ValueError(f"{archive} holds {len(entries)} files, expected at most {limits.files}: nothing was unpacked")
    if total > limits.size or total > limits.ratio * packed + _GRACE * len(entries):
        raise ValueError(f"{archive} would grow from {packed:,} to {total:,} bytes, expected at most {limits.size:,}: nothing was unpacked")
    bomb = next((e for e in entries if e.packed is not None and e.size > limits.ratio * e.packed + _GRACE), None)
    if bomb:
        raise ValueError(f"{archive} holds {bomb.path}, which grows from {bomb.packed:,} to {bomb.size:,} bytes: nothing was unpacked")
    names = [str(entry.path).lower() for entry in entries]
    if len(set(names)) != len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"{archive} holds {twice} twice: nothing was unpacked")


def _write(entry: _Entry, path: Path, archive: Path, advance: Callable[[int], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = entry.size
    with entry.open() as source, open(path, "xb") as target:
        while chunk := source.read(min(2**20, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise ValueError(f"{archive} holds {entry.path}, which is larger than it says: nothing was unpacked")
            target.write(chunk)
            advance(len(chunk))
    if left:
        raise ValueError(f"{archive} holds {entry.path}, which is cut short by {left:,} bytes: fetch it again")


# --- files that the user has ------------------------------------------------------------------------------------


@contextmanager
def opened(given: list[Path], out: Path, limits: Limits, *, progress: bool = True) -> Iterator[list[Path]]:
    """The folders that the user named, and for each archive among them a temporary one in `out` with what it holds."""
    for path in given:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: expected the folder or the archive that you obtained")
        if path.is_file() and not is_archive(path):
            how = (
                "unpack it first (with 7-Zip, unar or bsdtar) and give the folder" if path.suffix.lower() in (".rar", ".7z", ".001") else ""
            )
            raise ValueError(f"{path} is no folder, zip or tar file: {how or 'expected the folder or the archive that you obtained'}")
    folders, stages = [], [out / f".{i}.unpacking" for i in range(len(given))]
    try:
        for path, stage in zip(given, stages, strict=True):
            if path.is_dir():
                folders.append(path)
                continue
            shutil.rmtree(stage, ignore_errors=True)
            stage.mkdir(parents=True)
            _unpack(path, stage, limits, progress)
            folders.append(stage)
        yield folders
    finally:
        for stage in stages:
            shutil.rmtree(stage, ignore_errors=True)


def find(folders: list[Path], name: str) -> Path | None:
    """The one file of this name, in whatever capitals, in the folders or below them; None if there is none."""
    for folder in folders:
        for path in sorted(folder.rglob("*"), key=lambda path: (len(path.parts), path)):
            if path.name.lower() == name.lower() and path.is_file():
                return path
    return None


def place(source: Path, target: Path) -> None:
    """Put a file where it belongs: a second name of the same bytes where the file system can, else a copy; whole either way."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial, follow_symlinks=True)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def intact(files: Mapping[str, Path | None], where: str, expected: str, progress: bool, share: float = 0.0) -> dict[str, Path]:
    """The files that are there and begin as an image does; ``FileNotFoundError`` if more than a `share` of them are not."""
    found, absent, broken = {}, [], []
    for name, path in tqdm(files.items(), desc="looking at the images", disable=not progress or None, leave=False):
        if path is None:
            absent.append(name)
            continue
        try:
            with Image.open(path):
                found[name] = path
        except Exception:  # Pillow's decoders raise OSError, SyntaxError, ValueError ...
            broken.append(path)
    if absent or broken:
        what = [f"{len(absent):,} missing (the first is {absent[0]})"] if absent else []
        what += [f"{len(broken):,} that cannot be read (the first is {broken[0]})"] if broken else []
        text = f"of the {len(files):,} images listed, {where} has {', and '.join(what)}"
        if len(found) < (1 - share) * len(files):
            raise FileNotFoundError(
                f"{text}: expected {expected} with all of them" + (f", but for one in {1 / share:.0f}" if share else "")
            )
        print(f"  {text}; they are left out")
    return found


def place_all(wanted: Mapping[Path, Path], out: Path, *, dry_run: bool, progress: bool) -> None:
    """`place` many files, after a look at the disk; those that are where they belong stay as they are."""
    todo = {target: source for target, source in wanted.items() if not (target.exists() and target.samefile(source))}
    size = sum(source.stat().st_size for source in todo.values())
    near = next(folder for folder in (out, *out.absolute().parents) if folder.is_dir())
    linked = all(source.stat().st_dev == near.stat().st_dev for source in todo.values())
    free = shutil.disk_usage(near).free
    how = f"{size / 1e9:.2f} GB, {'as links' if linked else 'as copies'}; {free / 1e9:.2f} GB free"
    print(f"  {len(todo):,} of {len(wanted):,} files to put into {out}, {how}")
    if dry_run:
        print("nothing was done (--dry-run)")
        return
    if size > free and not linked:
        raise OSError(f"{near} has {free / 1e9:.2f} GB free, and {size / 1e9:.2f} are needed: make room, or choose another --out")
    for target, source in tqdm(todo.items(), desc=f"to {out}", disable=not progress or None, leave=False):
        place(source, target)
