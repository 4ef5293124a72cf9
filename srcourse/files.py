"""Files that are whole or not there: written beside their final name, then renamed."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"  # how the names of unfinished files begin


@contextlib.contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """Give the path of a temporary file to write; it takes the name `path` at the end, and vanishes on an error.

    The folder is created when missing. The temporary file has the same suffix, since writers choose a format by it.
    ``OSError`` for a place that cannot be written to.
    """
    path = Path(path)
    check_place(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=PARTIAL, suffix=path.suffix)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        os.chmod(partial, 0o666 & ~_umask())  # mkstemp makes files for their owner alone
        sync(partial)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def check_place(path: Path) -> None:
    """Refuse the name of a file that cannot be written, before the work that is to be written there: ``OSError`` in one line."""
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; choose another name")
    if not above.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {above} is no folder; choose another place")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"cannot write {path}: {above} is not yours to write to; choose another place")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Have the system put a file or a folder on the disk, before something else relies on it."""
    if path.is_dir() and os.name == "nt":  # Windows cannot sync a folder
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
