"""Downloads over http and https that end whole and verified, or go on later from where they broke off.

A file grows as NAME.part and takes its name once its size and its SHA-256 are right. A connection that breaks, stalls or
gets a 5xx answer is tried again, after waits that double, from the bytes that are there if the server can do that (HTTP
Range, RFC 9110 §14). What asking again would not mend (404, another size, another checksum) is refused at once.
"""

import functools
import hashlib
import http.client
import queue
import re
import socket
import ssl
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from srcourse.files import sync

_CHUNK = 2**18
_UNSTATED = 64 * 2**20  # bytes that a file of unknown size may have


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server: failures in a row, counted anew after one that brought something; waits in seconds."""

    tries: int = 5
    wait: float = 1.0  # before the second try; it doubles
    longest: float = 60.0
    stall: float = 30.0  # without any bytes, or with fewer than `slowest` a second
    slowest: float = 256.0  # bytes a second


PATIENCE = Patience()


@dataclass(frozen=True)
class Source:
    """A file to download, at ``base + path``.

    Parameters
    ----------
    base, path : str
        A mirror replaces the base; the path stays.
    size : int or None
        Bytes; a server that offers another number is refused. None where it is not known: then 64 MiB at most.
    sha256 : str
        Hexadecimal; the first digits do where no more are known.
    rough : bool
        The size is right to a percent only.
    """

    base: str
    path: str
    size: int | None
    sha256: str
    rough: bool = False

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def address(self, mirror: str | None = None) -> str:
        """Where to get it; ``ValueError`` unless that is http or https."""
        address = (mirror.rstrip("/") + "/" if mirror else self.base) + urllib.parse.quote(self.path)
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            what = f"the mirror {mirror!r}" if mirror else repr(address)
            raise ValueError(f"{what} is no address to download from: expected one that begins with https:// or http://")
        return address

    def is_whole(self, path: Path) -> bool:
        """Whether a file is this one: its size, then its checksum."""
        if not path.is_file() or (self.size is not None and not self.rough and path.stat().st_size != self.size):
            return False
        return sha256(path)[: len(self.sha256)] == self.sha256

    @property
    def _exact(self) -> int | None:
        return None if self.rough else self.size

    @property
    def _most(self) -> int:
        return _UNSTATED if self.size is None else round(self.size * 1.02) if self.rough else self.size


class Broken(OSError):
    """A try that failed in a way that the next one may not; `after` is how long the server asks to wait, in seconds."""

    def __init__(self, message: str, after: float = 0.0):
        super().__init__(message)
        self.after = after


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def download(
    source: Source,
    path: Path,
    *,
    mirror: str | None = None,
    advance: Callable[[int], object] = lambda count: None,
    stop: threading.Event | None = None,
) -> Path:
    """Fetch one file to `path`; it appears there whole and verified, or not at all.

    Parameters
    ----------
    advance : callable
        Told how many bytes more there are; fewer when a server starts over.
    stop : threading.Event
        Once set, the download ends with ``KeyboardInterrupt``; the ``.part`` stays to go on from.

    Raises
    ------
    ConnectionError
        If the server cannot be reached, or breaks off again and again; what came is kept for the next call.
    FileNotFoundError
        If there is no such file at the address.
    ValueError
        If the file there is another one, by its size or checksum: nothing is kept of it.
    """
    address, stop = source.address(mirror), stop or threading.Event()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    started = _size(part) > 0
    while True:
        if not (started and source.is_whole(part)):  # killed just before it took its name
            _receive_all(source, address, part, advance, stop)
        found = sha256(part)
        if found[: len(source.sha256)] == source.sha256:
            break
        advance(-_size(part))
        part.unlink()
        if not started:
            raise ValueError(
                f"{address} is another file than expected, or was damaged on its way (SHA-256 hash {found[:12]}… "
                f"instead of {source.sha256[:12]}…): nothing of it was kept; try again later, or another --mirror"
            )
        started = False  # what was there from an earlier run may have been damaged: once more, from the beginning
    sync(part)
    part.replace(path)
    return path


def download_all(
    wanted: Mapping[Path, Source], *, mirror: str | None = None, jobs: int = 8, title: str = "", progress: bool = True
) -> None:
    """Fetch several files, a few at a time, with one progress bar; the first that fails ends all, and keeps what came."""
    if not wanted:
        return
    left, failures, stop, lock = queue.SimpleQueue(), [], threading.Event(), threading.Lock()
    for path, source in wanted.items():
        left.put((source, path))
    total = sum(source.size or 0 for source in wanted.values())
    there = sum(_size(path.with_name(path.name + ".part")) for path in wanted)
    bar = tqdm(total=total, initial=there, unit="B", unit_scale=True, desc=title, disable=not progress or None, leave=False)

    def advance(count: int) -> None:
        with lock:
            bar.update(count)

    def work() -> None:
        with suppress(queue.Empty):
            while not stop.is_set():
                source, path = left.get_nowait()
                try:
                    download(source, path, mirror=mirror, advance=advance, stop=stop)
                except BaseException as error:
                    failures.append(error)
                    stop.set()

    # daemons: one that waits for a silent server does not hold up Ctrl-C
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, len(wanted)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.1)
                if failures:
                    break
    finally:
        stop.set()
        for thread in threads:
            thread.join(1.0)
        bar.close()
    if failures:
        raise failures[0]


# --- one try ------------------------------------------------------------------------------------------------------


def _receive_all(source: Source, address: str, part: Path, advance: Callable, stop: threading.Event) -> None:
    """Bring `part` to its full length, over as many connections as that takes."""
    failures, farthest, patience = 0, _size(part), PATIENCE
    while source._exact is None or _size(part) != source._exact:
        try:
            _receive(source, address, part, advance, stop)
            return
        except Broken as error:
            came = _size(part)
            failures = 1 if came > farthest else failures + 1
            farthest = max(farthest, came)
            if failures >= patience.tries:
                kept = f"; {came:,} bytes are kept, and the same command goes on from them" if came else "; try later, or another --mirror"
                raise ConnectionError(f"{address} {error}, {failures} times in a row{kept}") from None
            wait = max(min(patience.wait * 2 ** (failures - 1), patience.longest), min(error.after, patience.longest))
            tqdm.write(f"{source.name}: {error}; again in {wait:.0f} s", file=sys.stderr)
            if stop.wait(wait):
                raise KeyboardInterrupt from None


def _receive(source: Source, address: str, part: Path, advance: Callable, stop: threading.Event) -> None:
    """One connection: add to `part` what it brings. `Broken` if that is not all, ``ValueError`` if it cannot be right."""
    have, limit = _size(part), source._most
    if have > limit:
        have = _restart(part, advance)
    headers = {"User-Agent": "srcourse-data-scripts", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with _open(address, headers, part, advance) as response:
        if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
            raise ValueError(
                f"{address} comes compressed ({response.headers['Content-Encoding']}), which was not asked for: try another --mirror"
            )
        if have and response.status == 206:
            first, total = _content_range(response)
            if first != have or (total is not None and source._exact not in (None, total)):
                _restart(part, advance)
                raise Broken("does not go on from where the file broke off")
        elif response.status == 200:
            have = _restart(part, advance) if have else 0  # the server knows no ranges
        else:
            raise ValueError(f"{address} answers {response.status} {response.reason}: expected the file")
        stated = response.headers.get("Content-Length", "")
        end = have + int(stated) if stated.isdecimal() else None
        if end is not None and (end > limit or source._exact not in (None, end)):
            expected = f"{source.size:,}" if source.size and not source.rough else f"at most {limit:,}"
            raise ValueError(f"{address} offers {end:,} bytes, expected {expected}: it is another file; try another --mirror")
        end = source._exact or end
        have = _copy(response, part, have, end, limit, address, advance, stop)
    if end is not None and have < end:
        raise Broken(f"broke off after {have:,} of {end:,} bytes")


def _copy(response, part: Path, have: int, end: int | None, limit: int, address: str, advance: Callable, stop: threading.Event) -> int:
    """Write what comes, until the end; returns how many bytes there are now."""
    since, then = time.monotonic(), have
    with open(part, "ab") as file:
        while end is None or have < end:
            try:
                chunk = response.read1(_CHUNK if end is None else min(_CHUNK, end - have))
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise Broken(f"{_reason(error)} after {have:,} bytes") from None
            if stop.is_set():
                raise KeyboardInterrupt
            if not chunk:
                break
            have += len(chunk)
            if have > limit:
                file.close()
                _restart(part, advance)
                raise ValueError(f"{address} sends more than the {limit:,} bytes expected: it is another file; try another --mirror")
            file.write(chunk)
            advance(len(chunk))
            now = time.monotonic()
            if now - since > PATIENCE.stall:
                if have - then < PATIENCE.slowest * PATIENCE.stall:
                    raise Broken(f"sends hardly anything after {have:,} bytes")
                since, then = now, have
    return have


def _open(address: str, headers: dict[str, str], part: Path, advance: Callable):
    request = urllib.request.Request(address, headers=headers)
    try:
        return _opener().open(request, timeout=PATIENCE.stall)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and "Range" in headers:
            _restart(part, advance)
            raise Broken("has nothing from where the file broke off") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            after = error.headers.get("Retry-After", "")
            raise Broken(f"answers {error.code} {error.reason}", float(after) if after.isdecimal() else 0.0) from None
        kind = FileNotFoundError if error.code in (404, 410) else ConnectionError
        raise kind(
            f"{address} answers {error.code} {' '.join(str(error.reason).split())}: the source may have moved; try another --mirror"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        cause = getattr(error, "reason", error)
        if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
            raise ConnectionError(f"{address} cannot be found: is there a network? A --mirror may be nearer") from None
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise ConnectionError(f"{address} has no valid certificate ({cause.verify_message}): nothing was downloaded") from None
        raise Broken(_reason(cause)) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections to http and https, and to nothing else."""

    def http_error_302(self, request, file, code, message, headers):
        target = urllib.parse.urljoin(request.full_url, headers.get("Location", ""))
        if urllib.parse.urlsplit(target).scheme not in ("http", "https"):
            file.close()
            raise ValueError(f"{request.full_url} sends on to {target[:100]}: only http and https are followed")
        return super().http_error_302(request, file, code, message, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, request, file, code, message, headers, target):
        return urllib.request.Request(target, headers=request.headers, origin_req_host=request.origin_req_host, unverifiable=True)


@functools.cache
def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https, through the environment's proxies, and no file: or ftp: address."""
    context = ssl.create_default_context()
    with suppress(ImportError):  # comes with pooch; some systems' Python has no certificates of its own
        import certifi

        context.load_verify_locations(certifi.where())
    opener = urllib.request.OpenerDirector()
    kinds = (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPDefaultErrorHandler)
    for handler in (
        *(kind() for kind in kinds),
        urllib.request.HTTPSHandler(context=context),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _content_range(response) -> tuple[int | None, int | None]:
    """First byte and total length of "bytes 5-9/10"; None for what it does not say."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
    return (int(found[1]), None if found[2] == "*" else int(found[2])) if found else (None, None)


def _restart(part: Path, advance: Callable) -> int:
    advance(-_size(part))
    part.unlink(missing_ok=True)
    return 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"was silent for {PATIENCE.stall:g} s"
    return "breaks off (" + (" ".join(str(error).split()) or type(error).__name__) + ")"
