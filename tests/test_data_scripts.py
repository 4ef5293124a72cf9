"""The scripts in data_scripts/: what they leave after every fault of a server, an archive or a disk, and what they make when all is well.

The servers are real ones on this machine, the archives small ones with the real layout.
"""

import hashlib
import http.server
import importlib
import io
import os
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch
import torchvision

import srcourse as sr
from conftest import ROOT, SHARED

sys.path.append(str(ROOT / "data_scripts"))
NAMES = (
    "downloading",
    "unpacking",
    "fetching",
    "ava",
    "backbones",
    "benchmarks",
    "bsds500",
    "div2k",
    "niqe_official",
    "prepare",
    "tid2013",
)
downloading, unpacking, fetching, ava, backbones, benchmarks, bsds500, div2k, niqe_official, prepare, tid2013 = map(
    importlib.import_module, NAMES
)
COMMANDS = (ava, backbones, benchmarks, bsds500, div2k, niqe_official, prepare, tid2013)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files` by path. ``faults[path]`` is a list of what goes wrong with the next requests for it, one each."""

    daemon_threads = True
    block_on_close = False

    def __init__(self):
        self.files, self.faults, self.asked, self.closing = {}, {}, [], threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}/mirror"

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path = self.path.removeprefix("/mirror/")
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.server.asked.append((path, start))
        fault = (self.server.faults.get(path) or [None]).pop(0)
        body = self.server.files.get(path)
        if fault is None and body is None:
            fault = 404
        if isinstance(fault, int):
            return self.answer(fault, b"", {"Retry-After": "0"})
        if isinstance(fault, str) and "://" in fault:
            return self.answer(302, b"", {"Location": fault})
        if fault == "wrong":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault == "short":
            body = body[: len(body) // 2]
        if fault == "ignores ranges":
            start = 0
        if fault == "claims more":
            return self.answer(200, body, length=len(body) + 7)
        if fault == "packed":
            return self.answer(200, body, {"Content-Encoding": "gzip"})
        total, body = len(body), body[start:]
        headers = {"Content-Range": f"bytes {start}-{total - 1}/{total}"} if start else {}
        if fault == "another range":
            headers = {"Content-Range": f"bytes {start + 3}-{total - 1}/{total}"}
        half = {"drops": len(body) // 2, "drops at once": 0, "stalls": len(body) // 2, "drips": len(body) // 2}.get(fault)
        self.answer(206 if headers else 200, body, headers, send=half)
        if fault == "stalls":
            self.wfile.flush()
            self.server.closing.wait(5)
        if fault == "drips":
            for byte in body[half : half + 100]:
                self.wfile.write(bytes([byte]))
                self.server.closing.wait(0.02)
            self.wfile.write(body[half + 100 :])

    def answer(self, status, body, headers=(), *, length=None, send=None):
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body[:send])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(downloading, "PATIENCE", downloading.Patience(tries=3, wait=0.01, stall=0.25))
    served = Server()
    thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield served
    served.closing.set()
    served.shutdown()
    served.server_close()


@pytest.fixture
def home(tmp_path):
    """The one folder where things may appear; whatever else changed beside it is a leak."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    yield tmp_path / "home"
    assert tree(tmp_path, but="home") == before, "something was written outside of the folder"


def tree(folder, but=None):
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.relative_to(folder).parts[0] not in (but, "table.tsv")
    }


def complete(folder):
    """Files that look complete, by name; what is still in a stage or a .part does not."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(str(n) for n in names if n.suffix != ".part" and not any(part.startswith(".") for part in n.parts))


def write_table(monkeypatch, path, server, folders):
    """A table of sources {folder: {name: bytes}} whose own addresses lead nowhere: only the mirror serves them."""
    lines = ["# a table"]
    for folder, files in folders.items():
        lines.append(f"@\thttps://nowhere.invalid/\t{folder}")
        for name, content in files.items():
            lines.append(f"{len(content)}\t{hashlib.sha256(content).hexdigest()}\t{name}")
            server.files[folder + name] = content
    path.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(fetching, "TABLE", path)


def png(image):
    file = io.BytesIO()
    torchvision.transforms.functional.to_pil_image(sr.images.to_uint8(image)).save(file, "PNG")
    return file.getvalue()


def zipped(files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def small_div2k(monkeypatch, tmp_path, server, leaves):
    """DIV2K with three photos to train on and two to validate on, in archives with the real layout."""
    monkeypatch.setattr(div2k, "NUMBERS", {"train": range(1, 4), "valid": range(801, 803)})
    archives = {}
    for split, numbers in div2k.NUMBERS.items():
        layout = {f"DIV2K_{split}_HR": ("", 1), f"DIV2K_{split}_LR_x8": ("x8", 8)}
        layout |= {f"DIV2K_{split}_LR_{kind}/X{s}": (f"x{s}", s) for kind in ("bicubic", "unknown") for s in (2, 3, 4)}
        for folder, (suffix, scale) in layout.items():
            images = {n: leaves[n % 6] if scale == 1 else torch.rand(3, 64 // scale, 64 // scale) for n in numbers}
            content = {f"{folder}/": b"", **{f"{folder}/{n:04d}{suffix}.png": png(image) for n, image in images.items()}}
            archives[folder.replace("/", "_") + ".zip"] = zipped(content)
    write_table(monkeypatch, tmp_path / "table.tsv", server, {"": archives})
    return archives


def fetch_div2k(server, home, **options):
    return div2k.fetch(home, **{"mirror": server.address, "progress": False, "splits": ("train",), **options})


HR = "DIV2K_train_HR.zip"
PHOTOS = [f"DIV2K_train_HR/000{i}.png" for i in (1, 2, 3)]


# --- a server and its faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "error", "words", "kept"),
    [
        ([404], FileNotFoundError, "answers 404 Not Found", False),
        ([403], ConnectionError, "answers 403", False),
        ([503] * 3, ConnectionError, "answers 503 Service Unavailable, 3 times in a row", False),
        (["drops at once"] * 3, ConnectionError, r"broke off after 0 of [\d,]+ bytes, 3 times in a row", False),
        (
            ["stalls", "drops at once", "drops at once"],
            ConnectionError,
            r"3 times in a row; [\d,]+ bytes are kept, and the same command goes on",
            True,
        ),
        (["drips", "drops at once", "drops at once"], ConnectionError, "3 times in a row", True),
        (["claims more"], ValueError, r"offers [\d,]+ bytes, expected [\d,]+: it is another file", False),
        (["short"], ValueError, r"offers [\d,]+ bytes, expected [\d,]+: it is another file", False),
        (["wrong"], ValueError, "another file than expected, or was damaged on its way .SHA-256 hash", False),
        (["packed"], ValueError, r"comes compressed \(gzip\)", False),
        (["file:///etc/passwd"], ValueError, "sends on to file:///etc/passwd: only http and https are followed", False),
        (["ftp://127.0.0.1/x"], ValueError, "only http and https are followed", False),
        (["drops", "another range", "drops at once"], ConnectionError, "3 times in a row", False),
    ],
)
def test_a_server_that_fails_leaves_nothing_that_looks_complete(small_div2k, server, home, capsys, faults, error, words, kept):
    server.faults[HR] = list(faults)
    with pytest.raises(error, match=words) as caught:
        fetch_div2k(server, home)
    assert "\n" not in str(caught.value) and server.address in str(caught.value)
    assert len(server.asked) == len(faults), "asked more or less often than it should"
    assert complete(home) == [] and not (home / "DIV2K_train_HR").exists()
    part = home / f"{HR}.part"
    assert (part.exists() and part.stat().st_size > 0) == kept
    there = part.stat().st_size if kept else 0
    server.asked.clear()
    assert fetch_div2k(server, home) == [home / "DIV2K_train_HR"]
    assert server.asked == [(HR, there)]  # from where it broke off
    assert complete(home) == PHOTOS and not list(home.glob(".*")) and not list(home.glob("*.part"))


@pytest.mark.parametrize(
    ("faults", "starts"),
    [
        ([503, 500], "000"),
        ([429], "00"),
        (["drops"], "0+"),
        (["drops", "drops", "drops", "drops", "drops"], "0+++++"),  # each brings some: no limit on how often
        (["stalls"], "0+"),
        (["drips"], "0+"),
        (["drops", "ignores ranges"], "0+"),
        (["drops", "another range"], "0+0"),
        (["drops", 416], "0+0"),
    ],
)
def test_what_the_next_try_mends_is_tried_again(small_div2k, server, home, capsys, faults, starts):
    server.faults[HR] = list(faults)
    fetch_div2k(server, home)
    asked = [start for _, start in server.asked]
    assert "".join("+" if start else "0" for start in asked) == starts
    if "+" in starts and 416 not in faults and "another range" not in faults:
        assert asked == sorted(asked)
    assert complete(home) == PHOTOS
    assert "again in 0 s" in capsys.readouterr().err
    assert sr.images.read(home / PHOTOS[0]).shape == (3, 64, 64)


def test_waits_double_and_end(small_div2k, server, home, monkeypatch):
    waits = []
    monkeypatch.setattr(downloading, "PATIENCE", downloading.Patience(tries=6, wait=1, longest=5, stall=1))
    monkeypatch.setattr(threading.Event, "wait", lambda self, timeout=None: waits.append(timeout) and False)
    server.faults[HR] = [500] * 9
    source = fetching.sources()[HR]
    with pytest.raises(ConnectionError, match="6 times in a row"):
        downloading.download(source, home / HR, mirror=server.address)
    assert [wait for wait in waits if wait is not None and wait >= 1] == [1, 2, 4, 5, 5]


def test_redirections_to_http_are_followed_and_loops_are_not(small_div2k, server, home):
    server.files["elsewhere"] = server.files[HR]
    server.faults[HR] = [f"{server.address}/elsewhere"]
    fetch_div2k(server, home)
    assert complete(home) == PHOTOS and [path for path, _ in server.asked] == [HR, "elsewhere"]
    server.faults["DIV2K_valid_HR.zip"] = [f"{server.address}/DIV2K_valid_HR.zip"] * 30
    with pytest.raises(ConnectionError, match="answers 302") as caught:
        fetch_div2k(server, home, splits=("valid",))
    assert "\n" not in str(caught.value)


def test_a_part_that_was_damaged_is_fetched_afresh_once(small_div2k, server, home):
    home.mkdir()
    (home / f"{HR}.part").write_bytes(b"x" * 100)
    fetch_div2k(server, home)
    assert [start for _, start in server.asked] == [100, 0] and complete(home) == PHOTOS
    (home / "DIV2K_valid_HR.zip.part").write_bytes(bytes(10**6))  # longer than the whole
    fetch_div2k(server, home, splits=("valid",))
    assert server.asked[2:] == [("DIV2K_valid_HR.zip", 0)]


def test_only_http_and_https_are_asked(small_div2k, server, home):
    for mirror in ("file:///etc", "ftp://example.org", "somewhere", "https://"):
        with pytest.raises(ValueError, match="is no address to download from: expected one that begins with https"):
            fetch_div2k(server, home, mirror=mirror)
    assert not server.asked and complete(home) == []


def test_nobody_there(small_div2k, server, home):
    with pytest.raises(ConnectionError, match="3 times in a row"):
        fetch_div2k(server, home, mirror="http://127.0.0.1:9")
    source = fetching.sources()[HR]
    with pytest.raises(ConnectionError, match="cannot be found: is there a network"):  # the table's own: nowhere.invalid
        downloading.download(source, home / HR)


def test_a_file_of_unknown_size_has_a_limit(server, home, monkeypatch):
    monkeypatch.setattr(downloading, "_UNSTATED", 1000)
    server.files["big"] = bytes(5000)
    source = downloading.Source("https://nowhere.invalid/", "big", None, "0" * 64)
    with pytest.raises(ValueError, match="offers 5,000 bytes, expected at most 1,000"):
        downloading.download(source, home / "big", mirror=server.address)
    assert complete(home) == []


def test_ctrl_c_leaves_parts_to_go_on_from(small_div2k, server, home, tmp_path):
    server.faults[HR] = ["stalls"]
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a background job has none
        "sys.path.append(sys.argv.pop(1)); import downloading, fetching, div2k; from pathlib import Path\n"
        "fetching.TABLE = Path(sys.argv.pop(1)); div2k.NUMBERS = {'train': range(1, 4), 'valid': range(801, 803)}\n"
        "fetching.run(div2k.main)"
    )
    words = [ROOT / "data_scripts", tmp_path / "table.tsv", "--out", home, "--splits", "train", "--mirror", server.address]
    part = home / f"{HR}.part"
    with subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as one:
        limit = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size) and one.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        one.send_signal(signal.SIGINT)
        message = one.communicate(timeout=30)[1]
    assert one.returncode == 130 and "Traceback" not in message
    assert "stopped; what came is kept in .part files" in message
    assert complete(home) == [] and [p.name for p in home.iterdir()] == [part.name]
    half = part.stat().st_size
    server.asked.clear()
    fetch_div2k(server, home)
    assert server.asked == [(HR, half)] and complete(home) == PHOTOS


# --- plans, twice, and the disk -----------------------------------------------------------------------------------


def test_a_dry_run_says_what_and_how_much_and_asks_nobody(small_div2k, server, home, capsys):
    fetch_div2k(server, home, parts=div2k.PARTS, dry_run=True)
    told = capsys.readouterr().out
    assert not server.asked and not home.exists()
    names = [name for name in small_div2k if name.startswith("DIV2K_train")]
    assert len(names) == 8 and all(f"{server.address}/{name}" in told for name in names)
    total = sum(len(small_div2k[name]) for name in names)
    assert f"{total / 1000:.0f} kB to download" in told and "nothing was downloaded" in told
    assert "licence: for academic research only" in told and "NTIRE 2017" in told


def test_twice_does_nothing_twice(small_div2k, server, home, capsys):
    fetch_div2k(server, home, parts=div2k.PARTS, splits=div2k.SPLITS)
    assert len(server.asked) == 16 and len(complete(home)) == 8 * 3 + 8 * 2
    before = tree(home)
    server.asked.clear()
    fetch_div2k(server, home, parts=div2k.PARTS, splits=div2k.SPLITS)
    assert not server.asked and tree(home) == before and "0 B to download" in capsys.readouterr().out
    (benchmark,) = (sr.data.pairs(home / "DIV2K_valid_LR_bicubic" / "X4", home / "DIV2K_valid_HR", 4),)
    assert [pair.name for pair in benchmark] == ["0801", "0802"]
    assert len(sr.data.pairs(home / "DIV2K_train_LR_x8", home / "DIV2K_train_HR", 8)) == 3
    (home / "DIV2K_train_HR" / "0002.png").unlink()
    fetch_div2k(server, home, parts=div2k.PARTS, splits=div2k.SPLITS)
    assert server.asked == [(HR, 0)] and (home / "DIV2K_train_HR" / "0002.png").is_file()


def test_archives_are_kept_when_asked_and_used_again(small_div2k, server, home):
    fetch_div2k(server, home, keep=True)
    assert complete(home) == sorted([HR, *PHOTOS])
    for file in (home / "DIV2K_train_HR").iterdir():
        file.unlink()
    fetch_div2k(server, home, keep=True)
    assert len(server.asked) == 1 and complete(home) == sorted([HR, *PHOTOS])


Usage = namedtuple("Usage", "total used free")


def test_a_full_disk_is_told_first(small_div2k, server, home, monkeypatch):
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 70 * 2**20 // 10))
    with pytest.raises(OSError, match=r"has 7 MB free, and 67 MB are needed: make room, or choose another --out"):
        fetch_div2k(server, home)
    assert not server.asked and complete(home) == []


def test_a_disk_that_fills_while_unpacking(small_div2k, server, home, monkeypatch):
    free = iter([10**12, 5])
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda path: Usage(10**12, 0, next(free)))
    with pytest.raises(OSError, match=r"unpacks to 0.00 GB, and .* has 0.00 GB free: make room"):
        fetch_div2k(server, home)
    assert complete(home) == [HR]  # the archive is whole; its folder is not there
    monkeypatch.undo()


def test_two_processes_do_not_fetch_into_one_folder(small_div2k, server, home):
    with fetching.locked(home), pytest.raises(OSError, match="another process fetches into"):
        fetch_div2k(server, home)
    assert not server.asked and not list(home.iterdir())


def test_the_cost_counts_archives_that_go_again():
    size = 10**9
    items = [
        fetching.Images(Path("nowhere") / name, downloading.Source("", name, size, "0"), frozenset("a"), Path("nowhere")) for name in "ab"
    ]
    missing = [item.missing() for item in items]
    assert fetching._cost(items, missing) == (2 * size, round(3.1 * size))  # two folders and one archive
    for item in items:
        item.keep = True
    assert fetching._cost(items, missing) == (2 * size, round(4.1 * size))


# --- archives -----------------------------------------------------------------------------------------------------


def evil_zip(path, name="x.png", content=b"x", mode=0, **fields):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", os.urandom(100))
        info = zipfile.ZipInfo(name)
        info.filename, info.external_attr, info.compress_type = name, mode << 16, zipfile.ZIP_DEFLATED
        archive.writestr(info, content)
    return path


def evil_tar(path, name="x.png", kind=tarfile.REGTYPE, link=""):
    with tarfile.open(path, "w") as archive:
        for one, what in (("good.png", tarfile.REGTYPE), (name, kind)):
            info = tarfile.TarInfo(one)
            info.type, info.linkname, info.size = what, link, 4 if what == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"data"))
    return path


def hidden_bomb(path):
    """Among files that do not pack, so that the archive as a whole grows little."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", os.urandom(10**6))
        archive.writestr("x.png", bytes(3 * 10**6))
    return path


EVIL = {
    "../": lambda p: evil_zip(p, "../beside/mine.txt"),
    "inner ../": lambda p: evil_zip(p, "a/../../beside/mine.txt"),
    "absolute": lambda p: evil_zip(p, "/tmp/evil.png"),
    "drive": lambda p: evil_zip(p, "C:/evil.png"),
    "backslash": lambda p: evil_zip(p, "..\\beside\\mine.txt"),
    "symlink": lambda p: evil_zip(p, "link", b"../beside", stat.S_IFLNK | 0o777),
    "device": lambda p: evil_zip(p, "device", b"", stat.S_IFCHR | 0o666),
    "bomb": lambda p: evil_zip(p, content=bytes(10**6)),
    "hidden bomb": hidden_bomb,
    "twice": lambda p: evil_zip(p, "GOOD.png"),
    "tar ../": lambda p: evil_tar(p, "../beside/mine.txt"),
    "tar absolute": lambda p: evil_tar(p, "/tmp/evil.png"),
    "tar symlink": lambda p: evil_tar(p, "link", tarfile.SYMTYPE, "../beside"),
    "tar hard link": lambda p: evil_tar(p, "link", tarfile.LNKTYPE, "../beside/mine.txt"),
    "tar pipe": lambda p: evil_tar(p, "pipe", tarfile.FIFOTYPE),
}
SAID = {
    "bomb": "would grow from",
    "hidden bomb": r"holds x\.png, which grows from",
    "twice": "holds good.png twice",
    "symlink": "a link or a device",
    "device": "a link or a device",
}
SAID |= {"tar symlink": "a link or a device", "tar hard link": "a link or a device", "tar pipe": "a link or a device"}


@pytest.mark.parametrize("kind", EVIL)
def test_an_evil_archive_is_refused_before_a_byte_is_written(kind, home):
    home.mkdir()
    archive = EVIL[kind](home / "archive")
    with (
        pytest.raises(ValueError, match=SAID.get(kind, "leads out of its folder")) as caught,
        unpacking.unpacked(archive, home / "stage", unpacking.Limits(10**7), progress=False),
    ):
        pytest.fail("it was unpacked")
    assert "nothing was unpacked" in str(caught.value) and "\n" not in str(caught.value)
    assert complete(home) == ["archive"] and not (home / "stage").exists()


def test_limits_on_bytes_and_files_and_lies_about_both(home):
    home.mkdir()
    archive = home / "archive"
    archive.write_bytes(zipped({f"{i}.bin": os.urandom(1000) for i in range(10)}))
    for limits, words in (
        (unpacking.Limits(9_999), "would grow from .* to 10,000 bytes, expected at most 9,999"),
        (unpacking.Limits(10**6, files=9), "holds 10 files, expected at most 9"),
        (unpacking.Limits(10**6, files=4), "holds more than the 4 files"),
    ):
        with pytest.raises(ValueError, match=words), unpacking.unpacked(archive, home / "stage", limits, progress=False):
            pass
    with unpacking.unpacked(archive, home / "stage", unpacking.Limits(10_000), progress=False) as stage:
        assert len(list(stage.iterdir())) == 10
    assert not (home / "stage").exists()
    lying = bytearray(zipped({"a.bin": bytes(range(200))}))
    at = lying.rindex(b"PK\x01\x02")
    for position in (at + 24, lying.index(b"PK\x03\x04") + 22):  # the size that the entry says it has
        lying[position : position + 4] = (100).to_bytes(4, "little")
    whole = archive.read_bytes()
    for broken in (bytes(lying), whole[:-30], whole.replace(b"1.bin", b"2.bin", 1), whole[:50], b""):
        archive.write_bytes(broken)
        with pytest.raises(ValueError) as caught, unpacking.unpacked(archive, home / "stage", unpacking.Limits(10**6), progress=False):
            pytest.fail("it was unpacked")
        assert "\n" not in str(caught.value) and not (home / "stage").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda files: {**files, "../beside/mine.txt": b"evil"}, "leads out of its folder"),
        (lambda files: dict(list(files.items())[:-1]), r"has no 0003.png \(1 of 3 images missing\)"),
        (lambda files: {**files, "more.bin": bytes(10**7)}, "would grow from"),
    ],
)
def test_an_archive_with_the_right_checksum_is_not_trusted(small_div2k, server, home, tmp_path, monkeypatch, change, words):
    with zipfile.ZipFile(io.BytesIO(small_div2k[HR])) as archive:
        files = {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
    write_table(monkeypatch, tmp_path / "table.tsv", server, {"": {HR: zipped(change(files))}})
    with pytest.raises(ValueError, match=words):
        fetch_div2k(server, home)
    assert complete(home) == [HR] and not (home / "DIV2K_train_HR").exists()


def test_a_new_folder_appears_at_once(home, monkeypatch):
    (home / "stage" / "HR").mkdir(parents=True)
    (home / "stage" / "HR" / "a.png").write_bytes(b"a")
    with monkeypatch.context() as files:
        files.setattr(Path, "replace", lambda self, target: pytest.fail("file by file, it would be incomplete for a while"))
        fetching.move_in(home / "stage", home / "set")
    assert complete(home) == ["set/HR/a.png"]


def test_what_a_killed_process_left_is_no_hindrance(small_div2k, server, home):
    stale = home / f".{HR}.unpacking" / "chosen"
    stale.mkdir(parents=True)
    (stale / "0001.png").write_bytes(b"half")
    fetch_div2k(server, home)
    assert sr.images.read(home / PHOTOS[0]).shape == (3, 64, 64) and not list(home.glob(".*"))


# --- folders of many files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored_benchmarks():
    """The stored layout of SelfExSR: for each scale HR cropped to its multiple, and LR by the older MATLAB."""
    leaves = sr.data.DeadLeaves(seed=3, size=64)
    source, folders = [leaves[i] for i in range(14)], {}
    counts = {"Set14": (14, (48, 48)), "BSD100": (3, (49, 33)), "Urban100": (2, (40, 56))}
    for name, (count, (height, width)) in counts.items():
        for scale in (2, 4) if name == "Urban100" else (2, 3, 4):
            files = {}
            for i in range(count):
                hr = sr.images.crop_to_multiple(sr.images.quantize(source[i])[:, :height, :width], scale)
                lr = sr.degradation.downscale(hr, scale, border="clamp", round_between=True)
                if (name, scale) == ("Urban100", 2):
                    lr = torch.rand_like(lr)  # no bicubic pair
                files |= {f"img_{i + 1:03d}_SRF_{scale}_{kind}.png": png(image) for kind, image in (("HR", hr), ("LR", lr))}
            folders[f"{benchmarks.FOLDER}{name}/image_SRF_{scale}/"] = files
    return folders


@pytest.fixture
def small_benchmarks(stored_benchmarks, monkeypatch, tmp_path, server):
    """Those, served from a mirror."""
    write_table(monkeypatch, tmp_path / "table.tsv", server, stored_benchmarks)
    return stored_benchmarks


def fetch_benchmarks(server, home, **options):
    return benchmarks.fetch(home, **{"mirror": server.address, "progress": False, **options})


def test_benchmarks_come_as_evaluate_reads_them(small_benchmarks, server, home, command, capfd):
    fetch_benchmarks(server, home, sets=["Set14", "BSD100", "Urban100"])
    assert "Creative Commons" in capfd.readouterr().out
    assert not [path for path, _ in server.asked if "Urban100/image_SRF_2" in path]
    for scale in (2, 3, 4):
        found = {one.name: one for one in sr.data.benchmarks(home, scale)}
        assert [len(found[name]) for name in ("Set14", "BSD100", "Urban100")] == [14, 3, 2]
        assert found["Set14"][0].name == "baboon" and found["Urban100"][1].name == "img_002"
        for one in found.values():
            for pair in one:
                made = sr.degradation.downscale(pair.hr, scale, border="clamp", round_between=True)
                assert torch.equal(pair.lr, sr.images.quantize(made)), (one.name, scale)
    assert found["BSD100"][0].hr.shape == (3, 48, 32) and sr.images.read(home / "BSD100" / "HR" / "img_001.png").shape == (3, 48, 33)
    done = command("evaluate", "bicubic", "--data", home / "BSD100", "--scale", 4)
    assert done.returncode == 0 and "BSD100" in done.stdout
    before = tree(home)
    server.asked.clear()
    fetch_benchmarks(server, home, sets=["Set14", "BSD100", "Urban100"])
    assert not server.asked and tree(home) == before


def test_a_set_appears_when_all_of_it_is_there(small_benchmarks, server, home):
    folder = f"{benchmarks.FOLDER}Set14/image_SRF_4/"
    server.faults[folder + "img_014_SRF_4_LR.png"] = [404, None]
    with pytest.raises(FileNotFoundError, match=r"img_014_SRF_4_LR\.png answers 404"):
        fetch_benchmarks(server, home, sets=["Set14"])
    assert complete(home) == [] and not (home / "Set14").exists()
    whole = {path.name for path in (home / ".Set14.part").rglob("*.png")}
    fetched = len(list((home / ".Set14.part").rglob("*.png")))
    assert whole and fetched < 56
    server.asked.clear()
    fetch_benchmarks(server, home, sets=["Set14"])
    assert len(server.asked) == 56 - fetched and len(complete(home)) == 56 and not list(home.glob(".*"))


def test_more_scales_and_damaged_files_are_added_to_what_is_there(small_benchmarks, server, home):
    fetch_benchmarks(server, home, sets=["Urban100", "Set14"], scales=[4])
    assert len(server.asked) == 2 * 2 + 2 * 14
    server.asked.clear()
    fetch_benchmarks(server, home, sets=["Urban100", "Set14"], scales=[2, 4])
    assert len(server.asked) == 14 and len(list((home / "Urban100" / "LRx2").iterdir())) == 2  # Urban100's are made
    server.asked.clear()
    damaged = home / "Set14" / "HR" / "zebra.png"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (home / "Urban100" / "LRx2" / "img_002.png").unlink()
    fetch_benchmarks(server, home, sets=["Urban100", "Set14"], scales=[2, 4])
    assert [path.rpartition("/")[2] for path, _ in server.asked] == ["img_014_SRF_2_HR.png"]
    assert sr.data.benchmarks(home / "Urban100", 2)[0][1].lr.shape == (3, 20, 28) and not list(home.glob(".*"))


def test_files_that_are_no_pair_are_refused(small_benchmarks, server, home, tmp_path, monkeypatch):
    folder = f"{benchmarks.FOLDER}BSD100/image_SRF_4/"
    changed = {**small_benchmarks[folder], "img_002_SRF_4_LR.png": png(torch.rand(3, 5, 5))}
    write_table(monkeypatch, tmp_path / "table.tsv", server, {**small_benchmarks, folder: changed})
    with pytest.raises(ValueError, match=r"LRx4/img_002.png is 5×5 pixels, and its HR image 48×33: they are no pair at ×4"):
        fetch_benchmarks(server, home, sets=["BSD100"])
    assert complete(home) == []


def test_bsds500_is_one_folder_without_what_is_in_benchmarks(server, home, tmp_path, monkeypatch, leaves):
    folders = {f"{bsds500.FOLDER}{part}/": {} for part in bsds500.PARTS}
    for i, (folder, name) in enumerate(zip([*folders] * 3, ("1.jpg", "2.jpg", "302003.jpg", "4.jpg", "5.jpg", "6.jpg"), strict=True)):
        file = io.BytesIO()
        torchvision.transforms.functional.to_pil_image(leaves[i]).save(file, "JPEG")
        folders[folder][name] = file.getvalue()
    write_table(monkeypatch, tmp_path / "table.tsv", server, folders)
    bsds500.fetch(home / "BSDS500", parts=["train"], mirror=server.address, progress=False)
    assert sr.data.photos(home / "BSDS500").names == ["1", "5"]
    bsds500.fetch(home / "BSDS500", mirror=server.address, progress=False)
    assert sr.data.photos(home / "BSDS500").names == ["1", "2", "4", "5", "6"]
    assert not [path for path, _ in server.asked if "302003" in path] and len(server.asked) == 5


# --- single files -------------------------------------------------------------------------------------------------


def test_the_official_niqe_model_from_a_mirror(server, monkeypatch, home, tmp_path, capsys):
    monkeypatch.setenv("SRCOURSE_CACHE", str(home))
    write_table(monkeypatch, tmp_path / "table.tsv", server, {niqe_official.FOLDER: {"niqe_pris_params.npz": b"model"}})
    for _ in range(2):
        assert niqe_official.fetch(mirror=server.address, progress=False).read_bytes() == b"model"
    assert len(server.asked) == 1 and complete(home) == ["niqe_pris_params.npz"] and "Mittal" in capsys.readouterr().out


@pytest.fixture
def small_backbone(server, monkeypatch, home):
    """MobileNetV2's weights under a name with their own checksum, where torchvision would look for them."""
    monkeypatch.setenv("TORCH_HOME", str(home))
    file = io.BytesIO()
    torch.save(torchvision.models.mobilenet_v2(weights=None).state_dict(), file)
    digits = hashlib.sha256(file.getvalue()).hexdigest()[:8]

    class Weights:
        url = f"https://nowhere.invalid/models/mobilenet_v2-{digits}.pth"
        meta = {"_file_size": round(len(file.getvalue()) / 2**20, 3)}

        def get_state_dict(self, *arguments, **options):
            return torch.hub.load_state_dict_from_url(self.url, *arguments, **options)

    monkeypatch.setattr(backbones, "weights", lambda network: Weights())
    name = Path(Weights.url).name
    server.files[name] = file.getvalue()
    return name


def test_backbones_go_into_torchs_cache(small_backbone, server, home):
    server.faults[small_backbone] = ["drops"]
    for _ in range(2):
        (path,) = backbones.fetch(["mobilenet_v2"], mirror=server.address, progress=False)
    assert path == home / "hub" / "checkpoints" / small_backbone
    assert [start > 0 for _, start in server.asked] == [False, True]
    with pytest.raises(ValueError, match="holds no weights of vgg16 and was removed"):
        backbones.fetch(["vgg16"], mirror=server.address, progress=False)
    assert complete(home) == []
    server.faults[small_backbone] = ["wrong"]
    with pytest.raises(ValueError, match="SHA-256 hash"):
        backbones.fetch(["mobilenet_v2"], mirror=server.address, progress=False)
    assert complete(home) == []


def test_backbones_are_those_that_the_recipes_look_for(monkeypatch, home):
    from srcourse.losses.perceptual import find_weights
    from srcourse.training.scores import find_backbone

    monkeypatch.setenv("TORCH_HOME", str(home))
    cache = home / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    for network in backbones.NETWORKS:
        path = cache / Path(backbones.weights(network).url).name
        path.touch()  # a file of this name is what they find, without a download
        assert path == (find_backbone("imagenet") if network == "mobilenet_v2" else find_weights(network, "imagenet"))


# --- data that the user obtained ----------------------------------------------------------------------------------


@pytest.fixture
def small_tid(tmp_path):
    folder = tmp_path / "beside" / "tid2013"
    names = [f"I{i:02d}_{d:02d}_1.bmp" for i in (1, 2, 4) for d in (1, 2)]
    for i, name in enumerate(names):
        sr.images.write(folder / "distorted_images" / name, torch.full((3, 8, 8), i / 10))
    (folder / "mos_with_names.txt").write_text("".join(f"{i}.2 {name.lower()}\n" for i, name in enumerate(names)))
    (folder / "mos_std.txt").write_text("0.13\n" * 6)
    return folder


def test_tid2013_is_arranged_for_its_recipe(small_tid, tmp_path):
    out = tmp_path / "out"
    packed = tmp_path / "tid2013.zip"
    packed.write_bytes(zipped({f"tid2013/{p.relative_to(small_tid)}": p.read_bytes() for p in small_tid.rglob("*") if p.is_file()}))
    for given in (small_tid, packed):
        for _ in range(2):  # the second time there is nothing to do
            ratings = tid2013.arrange(given, out / given.name, count=6, progress=False)
            assert len(ratings) == 6 and ratings[0].name == "i04_01_1.bmp"
        assert len(sr.data.ratings(out / given.name)) == 6 and not list((out / given.name).glob(".*"))
    assert tid2013.arrange(small_tid, small_tid, count=6, progress=False)[0].image.shape == (3, 8, 8)  # where it is
    before = tree(tmp_path)
    assert tid2013.arrange(small_tid, tmp_path / "new", count=6, dry_run=True, progress=False) is None
    assert tree(tmp_path) == before


def test_what_tid2013_lacks_is_named(small_tid, tmp_path):
    def refused(kind, words, given=small_tid, count=6):
        with pytest.raises(kind, match=words) as caught:
            tid2013.arrange(given, tmp_path / "out", count=count, progress=False)
        assert "\n" not in str(caught.value) and not (tmp_path / "out" / "distorted_images").exists()

    refused(ValueError, "has 6 lines, expected 3000", count=3000)
    image = small_tid / "distorted_images" / "I02_01_1.bmp"
    content = image.read_bytes()
    image.write_bytes(b"no image")
    refused(FileNotFoundError, r"of the 6 images listed, .* has 1 that cannot be read \(the first is .*I02_01_1.bmp\)")
    image.unlink()
    refused(FileNotFoundError, r"has 1 missing \(the first is i02_01_1.bmp\): expected distorted_images with all of them")
    image.write_bytes(content)
    (small_tid / "mos_std.txt").unlink()
    refused(FileNotFoundError, "has no mos_std.txt: expected what the site's archive holds")
    refused(FileNotFoundError, "does not exist: expected the folder or the archive that you obtained", given=tmp_path / "none")
    (tmp_path / "tid2013.rar").write_bytes(b"Rar!")
    refused(ValueError, "is no folder, zip or tar file: unpack it first", given=tmp_path / "tid2013.rar")
    refused(ValueError, "leads out of its folder", given=evil_zip(tmp_path / "evil.zip", "../beside/x"))


def test_ava_is_arranged_for_its_recipe_without_what_cannot_be_read(tmp_path, capsys):
    given, out = tmp_path / "given", tmp_path / "out"
    lines = [f"{i} {1000 + i} " + " ".join(str((i + s) % 7 + 1) for s in range(10)) + " 1 22 1396" for i in range(150)]
    (given / "AVA_dataset").mkdir(parents=True)
    (given / "AVA_dataset" / "AVA.txt").write_text("\n".join(lines))
    for i in range(150):
        sr.images.write(given / "images" / "images" / f"{1000 + i}.jpg", torch.full((3, 8, 8), i / 150))
    (given / "images" / "images" / "1007.jpg").write_bytes(b"")
    for _ in range(2):
        ratings = ava.arrange([given / "AVA_dataset", given / "images"], out, count=150, progress=False)
        assert len(ratings) == 149 and "1007" not in ratings.names
    assert "1 that cannot be read" in capsys.readouterr().out
    assert len(sr.data.ratings(out)) == 149 and (given / "images" / "images" / "1000.jpg").is_file()
    (out / "images" / "1007.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1007.jpg cannot be read, nor can 0 others: training would stop there"):
        ava.arrange([given], out, count=150, progress=False)
    for i in range(2):
        (given / "images" / "images" / f"{1010 + i}.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"has 2 missing \(the first is 1010\), and 1 that cannot be read"):
        ava.arrange([given], tmp_path / "other", count=150, progress=False)
    with pytest.raises(ValueError, match="has 150 lines, expected at least 250,000"):
        ava.arrange([given], tmp_path / "other", progress=False)
    with pytest.raises(FileNotFoundError, match=r"has no AVA\.txt"):
        ava.arrange([given / "images"], tmp_path / "other", progress=False)
    assert not complete(tmp_path / "other")


def test_a_disk_too_small_for_copies_is_told_first(small_tid, tmp_path, monkeypatch):
    real = Path.stat
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda path: Usage(10, 5, 5))

    def elsewhere(self, **options):
        found = real(self, **options)
        return os.stat_result([*found[:2], 0 if "beside" in str(self) else 1, *found[3:]]) if "tid2013" in str(self) else found

    monkeypatch.setattr(Path, "stat", elsewhere)
    with pytest.raises(OSError, match=r"has 0\.00 GB free, and 0\.00 are needed"):
        tid2013.arrange(small_tid, tmp_path / "out", count=6, progress=False)
    assert not (tmp_path / "out" / "distorted_images").exists()


# --- the commands and the table -----------------------------------------------------------------------------------


@pytest.fixture
def run_script(monkeypatch, capsys):
    def run(module, *words):
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            fetching.run(module.main)
        out, err = capsys.readouterr()
        return end.value.code or 0, out, err

    return run


@pytest.mark.parametrize("module", COMMANDS, ids=lambda module: module.__name__)
def test_every_script_explains_itself(module, run_script):
    status, out, _ = run_script(module, "--help")
    assert status == 0 and "--dry-run" in out and module.__doc__.splitlines()[0].endswith((".", ":"))
    if module not in (ava, tid2013, prepare):
        assert "--mirror" in out
    assert f"python data_scripts/{module.__name__}.py" in module.__doc__


def test_errors_are_one_line_and_a_status(small_div2k, server, home, run_script):
    server.faults[HR] = ["wrong"]
    words = ["--out", home, "--splits", "train", "--mirror", server.address]
    status, _, err = run_script(div2k, *words)
    assert status == 1 and err.startswith("div2k: ") and err.count("\n") == 1 and "SHA-256" in err
    status, _, err = run_script(div2k, *words, "--parts", "HR,everything")
    assert status == 1 and err == "div2k: --parts: there is no 'everything': expected some of HR,bicubic,unknown,x8\n"
    status, _, err = run_script(div2k, *words, "--parts", "hr,bicubic", "--scales", "4")
    assert status == 0 and not err and len(complete(home)) == 6 and "X4" in complete(home)[-1]
    assert run_script(ava, home / "none")[0] == 1


def test_the_table_holds_what_the_scripts_ask_for():
    hr = fetching.sources()[HR]
    assert hr.address() == "https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip" and hr.size == 3530603713
    assert hr.address("https://mirror.example/a/") == "https://mirror.example/a/DIV2K_train_HR.zip"
    assert len(fetching.sources()) == 16
    assert [len(benchmarks._files(name, benchmarks.HR_OF_SCALE[name], "HR")) for name in benchmarks.SETS] == [5, 14, 100, 100]
    assert len(fetching.sources(f"{bsds500.FOLDER}train/")) == len(fetching.sources(f"{bsds500.FOLDER}test/")) == 200
    for split in div2k.SPLITS:
        for part in div2k.PARTS:
            for scale in (2, 3, 4) if part in ("bicubic", "unknown") else (8,):
                folder, names = div2k._layout(split, part, scale)
                assert "_".join(folder.parts) + ".zip" in fetching.sources() and len(names) in (800, 100)
    with pytest.raises(KeyError, match="has no folder 'nowhere/'"):
        fetching.sources("nowhere/")


def test_the_table_has_the_checksums_of_the_real_files(benchmarks_folder):
    for name in ("Set5", "Set14"):
        files = benchmarks._files(name, 2, "HR") | {k: v for s in (2, 3, 4) for k, v in benchmarks._files(name, s, "LR").items()}
        assert len(files) == 4 * len(benchmarks.NAMES[name])
        for path, source in files.items():
            assert source.is_whole(benchmarks_folder / name / path), path


def test_the_table_is_a_part_of_the_published_one():
    published = SHARED.parent / "checksums.tsv"
    if not published.is_file():
        pytest.skip(f"no {published}")
    known = {tuple(line.split("\t")[1:]): line.split("\t")[0] for line in published.read_text().splitlines()[1:]}
    count = 0
    for line in fetching.TABLE.read_text().splitlines()[1:]:
        columns = line.split("\t")
        if columns[0] == "@":
            base, folder = columns[1:]
            continue
        origin = known[columns[0], columns[1]]
        address = f"{base}{folder}{columns[2]}"
        if origin.startswith("github:"):
            origin = "https://raw.githubusercontent.com/" + origin[7:].replace("@", "/").replace(":", "/")
        same = {o for key, o in known.items() if key == (columns[0], columns[1])}
        assert address == origin or len(same) == 1
        count += 1
    assert count == 1093
