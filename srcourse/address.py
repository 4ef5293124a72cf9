"""The repository's address: what it may look like, its link into Colab, and how it gets into files that otherwise stay as they are.

An address may end in ``@`` and a branch or a tag: pip installs that version, and Colab opens it.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

_GITHUB = "https://github.com/"
_VERSION = r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9._-]*(?<!\.lock)(?<!\.)"


def parse(text: str) -> str:
    """The full address for ``OWNER/NAME`` on GitHub, for ``https://HOST/PATH`` or ``file:///FOLDER``; ``ValueError`` for anything else.

    Each may have ``@`` and a branch or a tag at its end.

    >>> parse("ada/srcourse@ws26")
    'https://github.com/ada/srcourse@ws26'
    """
    place, version = split(text)
    if re.fullmatch(_VERSION, version):
        return f"{_place(place, text)}@{version}"
    return _place(text, text)


def split(address: str) -> tuple[str, str]:
    """An address without its branch or tag, and that: "" where there is none."""
    place, _, version = address.rpartition("@")
    return (place, version) if place and "/" not in version else (address, "")


def _place(place: str, text: str) -> str:
    wanted = place.rstrip("/")
    slug = re.sub(r"^https://(www\.)?github\.com/", "", wanted, flags=re.IGNORECASE)
    on_github = slug != wanted or "://" not in wanted
    if on_github and re.fullmatch(r"[A-Za-z0-9](?:[-_]?[A-Za-z0-9])*/[A-Za-z0-9._-]+", slug):
        slug = slug.removesuffix(".git")
        if slug.split("/")[1] not in ("", ".", ".."):
            return _GITHUB + slug
    elif not on_github and re.fullmatch(
        r"https://[A-Za-z0-9.-]+(?::[0-9]+)?(?:/[A-Za-z0-9._~-]+)+|file://(?:localhost)?/[A-Za-z0-9._~/:+-]+", wanted
    ):
        return wanted
    expected = "OWNER/NAME on GitHub, or https://HOST/PATH elsewhere, with neither password nor spaces; @ and a branch or a tag may follow"
    raise ValueError(f"{text!r} is not the address of a repository: expected {expected}")


def colab(address: str, path: str) -> str | None:
    """Where Colab opens a notebook of the repository, on the branch main or what the address says; None off GitHub, which Colab needs."""
    if not address.startswith(_GITHUB):
        return None
    place, version = split(address)
    return f"https://colab.research.google.com/github/{place.removeprefix(_GITHUB)}/blob/{version or 'main'}/{path}"


# --- a notebook's text, with other sources for some of its cells ---------------------------------------------------


def with_sources(text: str, sources: Mapping[int, str]) -> str:
    """The text of a notebook file with new sources for the cells of those indices; everything else stays to the byte.

    Writing a notebook through a library lays the whole file out anew. A fork that saved its notebooks with another editor would see
    every line changed.
    """
    spans = {}
    for key, start, _ in _children(text, text.index("{")):
        if key == "cells":
            for index, cell, _ in _children(text, start):
                spans[index] = next((begin, end) for name, begin, end in _children(text, cell) if name == "source")
    for index in sorted(sources, reverse=True):
        begin, end = spans[index]
        text = text[:begin] + _laid_out_like(text[begin:end], sources[index]) + text[end:]
    return text


def _children(text: str, at: int) -> Iterator[tuple[str | int, int, int]]:
    """(key or index, start, end) of each value in the object or array that starts at `at`, in valid JSON."""
    decode, between = json.JSONDecoder().raw_decode, re.compile(r"[\s,:]*")
    is_object, key = text[at] == "{", -1
    at = between.match(text, at + 1).end()
    while text[at] not in "}]":
        if is_object:
            key, at = decode(text, at)
            at = between.match(text, at).end()
        else:
            key += 1
        start = at
        _, at = decode(text, at)
        yield key, start, at
        at = between.match(text, at).end()


def _laid_out_like(old: str, source: str) -> str:
    """A source as JSON in the layout of the one that it replaces: a string, or lines with the same indentation."""
    escaped = old.isascii()
    if old.startswith('"'):
        return json.dumps(source, ensure_ascii=escaped)
    before, after = re.match(r"\[(\s*)", old).group(1), re.search(r"(\s*)\]$", old).group(1)
    (_, _, end), (_, start, _) = [*_children(old, 0), (0, 0, 0), (0, 0, 0)][:2]  # the first two lines, if there are two
    between = old[end:start] if start else f",{before}"
    lines = [json.dumps(line, ensure_ascii=escaped) for line in source.splitlines(keepends=True)]
    return "[" + before + between.join(lines) + after + "]"


# --- several files, all or none -----------------------------------------------------------------------------------


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Give existing files new contents: all of them or, when anything fails, none."""
    before, partials, replaced = {}, {}, []
    try:
        for path, content in contents.items():
            before[path] = path.read_bytes()
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
            partials[path] = Path(name)
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            shutil.copymode(path, name)
        for path, partial in partials.items():
            replaced.append(path)  # noted first: an interrupt may come between the two
            os.replace(partial, path)
    except BaseException:
        for path in replaced:
            path.write_bytes(before[path])
        raise
    finally:
        for partial in partials.values():
            partial.unlink(missing_ok=True)
