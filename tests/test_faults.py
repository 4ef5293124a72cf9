"""Faults, tried for real: kills, signals, full disks, spoilt photos and checkpoints, two runs in one folder, NaN.

After each fault stands what the user is told, and the proof that nothing finished was lost: the run goes on, and ends with
the bits of one that nothing happened to. `FAULTS` counts them, as the README's table does. 26 more kills, of processes
that are started anew, are in test_training, test_adversarial, test_recursive and test_multipass; failing servers are in
test_data_scripts, files that lie in test_hostile.

Starting the program costs seconds, so a `Nursery` imports it once, and every run is a fork of that process: a process of
its own with a command line, exit status and output, that can be killed at any moment.
"""

import contextlib
import hashlib
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import srcourse as sr
from conftest import ROOT, checksums, history, in_two_processes, one_line, train_words
from srcourse import cli
from srcourse.training import adversarial, checkpoints, engine
from srcourse.training import history as history_module
from srcourse.training.checkpoints import Checkpoints
from srcourse.training.engine import Engine, TrainingError
from srcourse.training.folder import RunFolder

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forks of one process")]

EVERY = 3  # steps from one checkpoint to the next
WHOLE = 48  # steps of the runs that are killed
SHORT = 12  # and of those with a single fault
STEP = 8  # where that happens: of the rGAN, a step of the second phase
CADENCE = [f"checkpoint_every={EVERY}", "validate_every=5", "log_every=1", "schedule={kind: constant}"]
KINDS = {
    "pixelwise": ("srresnet_small", 2, ["model={blocks: 1, channels: 8}", "data={patch: 16, batch: 4}"]),
    "GAN": (
        "srgan_small",
        2,
        ["start=null", "model={blocks: 1, channels: 8}", "discriminator.channels=2", "data={patch: 32, batch: 4}"],
    ),
    "rGAN": (
        "rgan_small",
        2,
        [
            "model={blocks: 1, channels: 8}",
            "discriminator.channels=2",
            "data={patch: 32, batch: 4}",
            "recursive={first_steps: 4, replay: 0.3}",
        ],
    ),
    "EUSR": ("eusr_small", 4, ["model={blocks: 1, channels: 4}", "data={patch: 32, batch: 4}"]),
}
NETWORKS = {"pixelwise": ["generator"], "GAN": ["generator", "discriminator"]}

# --- what is tried ----------------------------------------------------------------------------------------------

KILLS = {"pixelwise": 13, "GAN": 13, "rGAN": 12, "EUSR": 12}
WRITES = {("pixelwise", 0): 30, ("GAN", 6): 40}  # kind, steps before: at least so many writes to be killed at
SIGNALS = [(kind, number) for kind in KINDS for number in (signal.SIGINT, signal.SIGTERM)]
PLACES = ["step", "validation", "history row", "checkpoint", "checkpoint's last file"]
SIGNALLED = [(place, number) for place in PLACES for number in (signal.SIGINT, signal.SIGTERM)]
TWICE = ["step", "validation", "checkpoint's last file"]
PAIRS = [(0, "step"), (1, "step"), (1, "validation"), (0, "checkpoint's last file")]
FULL = ["recipe.json", "history row", "checkpoint", "checkpoint's last file", "model.safetensors"]
DISKS = [(way, place) for way in ("disk", "limit") for place in FULL]
PAGES = [1, 3, 6, 9, 12]  # of 4 KiB, left for a checkpoint that needs more
PHOTOS = ["deleted", "cut short", "emptied", "replaced", "another one added"]
UNREADABLE = ["cut short", "emptied", "a folder", "text"]
DAMAGES = ["bit 1", "bit 2", "bit 3", "cut 1", "cut 2", "emptied", "deleted"]
STRANGERS = {  # what state.json of a checkpoint should not say, and of which the one before is taken
    "no recipe": lambda state: state.pop("recipe"),
    "no photos' fingerprint": lambda state: state.pop("data"),
    "no best": lambda state: state.pop("best"),
    "an empty best": lambda state: state.update(best={}),
    "a best that is a word": lambda state: state.update(best={"psnr": "high", "step": 5, "waited": 0}),
    "no seconds": lambda state: state.pop("seconds"),
    "seconds in words": lambda state: state.update(seconds="12"),
    "no checksums": lambda state: state.pop("checksums"),
    "no checksum of the network": lambda state: state["checksums"].pop("generator.safetensors"),
    "no checksum of the optimizer": lambda state: state["checksums"].pop("generator.optimizer.pt"),
    "another step": lambda state: state.update(step=6),
}
VERSIONS = {  # recipes in state.json, and what is said of them
    "another seed": (lambda recipe: recipe.update(seed=7), r"another recipe \(seed was 7, now 0\)"),
    "another method": (lambda recipe: recipe.update(method="adversarial"), r"another recipe \(method was adversarial, now pixelwise\)"),
    "a newer version's field": (lambda recipe: recipe.update(quantum=3), r"another version.*quantum"),
    "a newer version's part": (lambda recipe: recipe["data"].update(mixup=0.2), r"another version.*data\.mixup"),
}
FOREIGN = ["an optimizer of another network", "an optimizer with other shapes", "another network", "a pickle that runs a command"]
MOMENTS = ["before the lock's file goes", "after the lock's file went", "after the lock went"]  # when a run ends
POISON = {
    kind: ["pixel loss", "gradient", "weight", "LR patch", "HR patch", *games]
    for kind, games in {
        "pixelwise": [],
        "GAN": ["adversarial loss", "discriminator's loss", "discriminator's weight"],
        "rGAN": ["adversarial loss", "discriminator's loss", "discriminator's weight"],
        "EUSR": [],
    }.items()
}
POISONED = [(kind, place, float("nan")) for kind, places in POISON.items() for place in places]
POISONED += [(kind, place, float("inf")) for kind in ("pixelwise", "GAN") for place in POISON[kind]]
POISONED_OF_TWO = [(0, "pixelwise"), (1, "pixelwise"), (1, "GAN")]

FAULTS = {  # kind of fault: (how many are tried, steps lost at most)
    "SIGKILL at a random moment (pixelwise, GAN, rGAN, EUSR)": (sum(KILLS.values()), "those since the last checkpoint"),
    "SIGKILL before each single write to the run's folder, at least": (sum(WRITES.values()), "those since the last checkpoint"),
    "Ctrl-C or SIGTERM, in a step, a validation, a write": (len(SIGNALS) + len(SIGNALLED) + 2, "0"),
    "a second Ctrl-C, which does not wait": (len(TWICE), "those since the last checkpoint"),
    "one of two processes killed": (len(PAIRS) + 1, "those since the last checkpoint"),
    "disk full, at each file that a run writes": (len(DISKS) + len(PAGES), "those since the last checkpoint"),
    "photos deleted, cut short, replaced, or unreadable": (3 * len(PHOTOS) - 2 + len(UNREADABLE), "0"),
    "a prepared file cut short, replaced, or cut short while in use": (4, "those since the last checkpoint"),
    "a checkpoint's file with a flipped bit, cut, emptied, deleted": (
        len(DAMAGES) * (2 * 3 + 2) + 3,
        "those since the checkpoint before",
    ),
    "a checkpoint of another recipe, version or network": (
        len(STRANGERS) + len(VERSIONS) + len(FOREIGN),
        "those since the checkpoint before",
    ),
    "two runs in one folder, locks that were left": (2 + len(MOMENTS), "0"),
    "NaN or infinity in a loss, gradient, weight or patch": (len(POISONED) + len(POISONED_OF_TWO), "those since the last checkpoint"),
}


def table() -> list[str]:
    """The README's rows."""
    return [f"| {fault} | {tried} | {lost} |" for fault, (tried, lost) in FAULTS.items()]


def test_the_readme_tells_the_counts():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [row for row in table() if row not in text]
    assert not missing, "\n".join(["the README's table of faults lacks:", *missing])


# --- runs that are forked, and faults inside them ----------------------------------------------------------------


def nursery() -> None:
    """Import and use everything once, then fork a run for each line of JSON; alone in its process, without threads."""
    sys.path.insert(0, str(ROOT))
    from tqdm.std import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())  # its own is shared by all forks: one that is killed with it would stop the others
    torch.set_num_threads(1)
    leaf = sr.data.DeadLeaves(seed=1, size=64)[0]
    for kind in ("pixelwise", "GAN"):
        sr.training.train(recipe(kind, 1), [leaf, leaf], progress=False)
    assert len(os.listdir("/proc/self/task")) == 1 if Path("/proc/self/task").is_dir() else True, "threads do not survive a fork"
    for line in sys.stdin:
        request = json.loads(line)
        if "words" in request:
            sys.stdout.flush()
            pid = os.fork()
            if pid == 0:
                forked(request)
            answer = pid
        else:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        print(json.dumps(answer), flush=True)


def forked(request: dict) -> None:
    """Be ``srcourse`` with these words, with faults prepared."""
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, end in ((1, ".out"), (2, ".err")):
            os.dup2(os.open(request["log"] + end, os.O_WRONLY), number)
            stream = open(number, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115 - as long as the process
            setattr(sys, "stdout" if number == 1 else "stderr", stream)
        os.environ.update(request["environ"])
        for name, *arguments in request["faults"]:
            globals()[name](*arguments)
        sys.argv = ["srcourse", *request["words"]]
        cli.main()
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


class Nursery:
    """The process that forks runs, seen from the tests."""

    def __init__(self, folder: Path):
        self.folder, self.runs = folder, []
        code = "import test_faults; test_faults.nursery()"
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), str(ROOT), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ, cwd=folder
        )

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, words: list[str], *faults: list, **environ: str) -> "Run":
        """Begin a run; each fault is a function of this file and what it takes."""
        log = str(self.folder / f"log{len(self.runs)}")
        pipes = []  # no files: a limit on files would be one on messages
        for end in (".out", ".err"):
            os.mkfifo(log + end)
            pipes.append(os.open(log + end, os.O_RDONLY | os.O_NONBLOCK))
        self.runs.append(Run(self, self.ask(words=words, faults=faults, environ=environ, log=log), words, pipes))
        return self.runs[-1]

    def run(self, words: list[str], *faults: list) -> subprocess.CompletedProcess:
        return self.start(words, *faults).end()

    def pair(self, words: list[str], faults: dict[int, list] | None = None) -> list["Run"]:
        """Begin a run in two processes, as torchrun would, but with nobody to end the one when the other is gone."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [self.start(words, *(faults or {}).get(i, []), RANK=str(i), LOCAL_RANK=str(i), **common) for i in (0, 1)]

    def close(self) -> None:
        for run in self.runs:
            if run.running():
                os.kill(run.pid, signal.SIGKILL)
        self.process.stdin.close()
        self.process.wait(30)


class Run:
    """One forked run."""

    def __init__(self, nursery: Nursery, pid: int, words: list[str], pipes: list[int]):
        self.nursery, self.pid, self.words, self.pipes, self.status, self.said = nursery, pid, words, pipes, None, [b"", b""]

    def running(self) -> bool:
        """Whether it is; takes up what it has said meanwhile."""
        if self.status is None:
            self.status = self.nursery.ask(pid=self.pid)
            for i, pipe in enumerate(self.pipes):
                with contextlib.suppress(BlockingIOError):
                    while part := os.read(pipe, 2**16):
                        self.said[i] += part
                if self.status is not None:
                    os.close(pipe)
        return self.status is None

    def until(self, ready, seconds: float = 300) -> None:
        """Let it come so far, or to its end."""
        limit = time.monotonic() + seconds
        while self.running() and not ready():
            assert time.monotonic() < limit, f"nothing came after {seconds} s: {self.output()}"
            time.sleep(0.002)

    def send(self, number: int) -> None:
        if self.running():  # else the number may be another process's by now
            os.kill(self.pid, number)

    def end(self, seconds: float = 120) -> subprocess.CompletedProcess:
        """Wait for its end."""
        until = time.monotonic() + seconds
        while self.running():
            assert time.monotonic() < until, f"still running after {seconds} s: {self.output()}"
            time.sleep(0.004)
        return subprocess.CompletedProcess(self.words, self.status, *self.output())

    def output(self) -> list[str]:
        return [said.decode() for said in self.said]


def before(owner, name: str, action, when=lambda *arguments: True, patch=setattr) -> None:
    """Have a function do something else first, whenever its arguments say so."""
    original = getattr(owner, name)

    def wrapped(*arguments, **named):
        if when(*arguments):
            action()
        return original(*arguments, **named)

    patch(owner, name, wrapped)


def at(place: str, step: int, action) -> None:
    """In a forked run: do this once, at a place of a step (counted from 1)."""
    left = [action]
    last_file = f".partial-step_{step:08d}"
    places = {
        "step": (Engine, "update", lambda run, *rest: run.step == step - 1),
        "validation": (Engine, "_validate", lambda run: run.step == step),
        "history row": (history_module.History, "append", lambda log, row: row["step"] == step),
        "checkpoint": (Checkpoints, "save", lambda folder, now, *rest: now == step),
        "checkpoint's last file": (checkpoints, "sync", lambda path: path.name == last_file),
        "recipe.json": (engine, "write_text", lambda path, text: path.name == "recipe.json"),
        "model.safetensors": (sr.models, "save", lambda *rest: True),
    }
    owner, name, when = places[place]
    before(owner, name, lambda: left and left.pop()(), when)


def signal_at(place: str, step: int, *numbers: int) -> None:
    at(place, step, lambda: [os.kill(os.getpid(), number) for number in numbers])


def fill_at(place: str, step: int, disk: str, pages: int) -> None:
    """Fill a disk but for some pages, at a place; the history is made to end where a page ends."""
    at(place, step, lambda: fill(Path(disk), pages))


def fill(disk: Path, pages: int) -> None:
    for path in disk.glob("*/history.jsonl"):
        with open(path, "a") as file:
            file.write("\n" * (-path.stat().st_size % 4096))
    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(disk / "ballast", (disk / "ballast").stat().st_size - 4096 * pages)


def limit_at(place: str, step: int, size: int) -> None:
    """From a place on, no file may become larger: the system refuses as a quota would."""
    at(place, step, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))


def die_before_write(folder: str, number: int, count: str) -> None:
    """SIGKILL before write `number` to the folder: creating, opening, syncing, renaming, removing. Keep the count in a file."""
    done = [0]

    def one() -> None:
        done[0] += 1
        if done[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
        elif number == 0:
            os.write(counter, b".")

    def hook(event: str, arguments: tuple) -> None:
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree", "os.truncate"):
            # of rmtree's own removals the path is a name beside an open folder
            inside = str(arguments[0]).startswith(folder) or (event in ("os.remove", "os.rmdir") and not str(arguments[0]).startswith("/"))
        else:
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            inside = writes and str(arguments[0]).startswith(folder)
        if inside:
            one()

    counter = os.open(count, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if number == 0 else None
    before(os, "fsync", one)
    before(checkpoints, "save_file", one)
    before(sr.models.weights, "save_file", one)
    sys.addaudithook(hook)


def poison_at(kind: str, place: str, step: int, value: float) -> None:
    poison(setattr, kind, place, step, value)


def cut_at(step: int, path: str, size: int) -> None:
    at("step", step, lambda: os.truncate(path, size))


# --- what the tests share ---------------------------------------------------------------------------------------


def recipe(kind: str, steps: int, *more: str):
    name, scale, sets = KINDS[kind]
    return sr.training.load_recipe(name, scale=scale, steps=steps, overrides=[*sets, *CADENCE, *more])


def words(kind: str, folder: Path, photos: Path, steps: int = SHORT, *more: str) -> list[str]:
    name, scale, sets = KINDS[kind]
    return train_words(name, folder, photos, steps, *sets, *CADENCE, *more, scale=scale)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = Nursery(tmp_path_factory.mktemp("logs"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def whole(runs, photo_folder, tmp_path_factory):
    """The folder of a run that nothing happens to; made at most once."""
    made, home = {}, tmp_path_factory.mktemp("whole")

    def get(kind: str, steps: int = SHORT, pair: bool = False) -> Path:
        key = f"{kind}{steps}{pair}"
        if key not in made:
            line = words(kind, home / key, photo_folder, steps)
            for run in runs.pair(line) if pair else [runs.start(line)]:
                done = run.end()
                assert done.returncode == 0, done.stderr
            made[key] = home / key
        return made[key]

    return get


@pytest.fixture
def started(runs, photo_folder, tmp_path):
    """A copy of a run's folder as it was after some steps."""

    def make(kind: str, steps: int, photos: Path | None = None) -> Path:
        folder = tmp_path / "run"
        done = runs.run(words(kind, folder, photos or photo_folder, steps))
        assert done.returncode == 0, done.stderr
        (folder / "model.safetensors").unlink()
        return folder

    return make


def newest(folder: Path) -> int:
    return max(Checkpoints(folder / "checkpoints").steps(), default=0)


def files(folder: Path) -> dict[str, bytes]:
    """Everything in finished checkpoints."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("checkpoints/step_*/*")}


def ends_as(folder: Path, expected: Path, steps: int = SHORT) -> None:
    """Networks, optimizers, history and result are those of the run that nothing happened to, and nothing lies about."""
    assert checksums(folder, steps) == checksums(expected, steps)
    assert history(folder) == history(expected)
    one, two = (load_file(path / "model.safetensors") for path in (folder, expected))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert {path.name for path in folder.iterdir()} - {"tensorboard"} == {
        "checkpoints",
        "history.jsonl",
        "model.safetensors",
        "recipe.json",
    }
    saved = Checkpoints(folder / "checkpoints")
    assert saved.steps() == Checkpoints(expected / "checkpoints").steps() and all(map(saved.intact, saved.steps()))
    assert all(path.name.startswith("step_") for path in saved.folder.iterdir())


def goes_on(runs, line: list[str], folder: Path, expected: Path, steps: int = SHORT) -> str:
    """The same command again ends as if nothing had happened; returns what it says."""
    done = runs.run(line)
    assert done.returncode == 0, done.stderr
    ends_as(folder, expected, steps)
    return done.stdout


def nothing_lost(folder: Path, last: int) -> int:
    """After a kill: every checkpoint is whole, none went back, the best is there; how many finished steps must be made again."""
    saved = Checkpoints(folder / "checkpoints")
    steps = saved.steps()
    assert all(map(saved.intact, steps)) and max(steps, default=0) >= last
    if steps:
        assert saved.state(steps[-1])["best"]["step"] in [*steps, None]
    rows = []
    if (folder / "history.jsonl").exists():
        for row in (folder / "history.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(row)["step"])
    return max(max(rows, default=0) - max(steps, default=0), 0)


# --- SIGKILL ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KILLS)
def test_killed_at_random_moments(kind, runs, whole, photo_folder, tmp_path):
    """In a start, a step, a validation, a row, a checkpoint, at the end; should the run be over first, another one is begun."""
    moments, expected = random.Random(kind), whole(kind, WHOLE)
    pace = json.loads((expected / "history.jsonl").read_text().splitlines()[-1])["seconds"] * EVERY / WHOLE
    killed = begun = 0
    lost = []
    while killed < KILLS[kind]:
        folder = tmp_path / f"run{begun}"
        last = newest(folder)
        run = runs.start(words(kind, folder, photo_folder, WHOLE))
        further = moments.choice((0, 1, 2))
        run.until(lambda folder=folder, enough=last + further * EVERY: newest(folder) >= enough)
        time.sleep(moments.random() * (pace + 0.2 * (not further)))
        run.send(signal.SIGKILL)
        ended = run.end()
        if ended.returncode == 0:
            ends_as(folder, expected, WHOLE)
            begun += 1
            continue
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        lost.append(nothing_lost(folder, last))
        killed += 1
    assert max(lost) <= EVERY
    goes_on(runs, words(kind, tmp_path / f"run{begun}", photo_folder, WHOLE), tmp_path / f"run{begun}", expected, WHOLE)


@pytest.mark.parametrize(("kind", "steps"), WRITES)
def test_killed_before_every_write(kind, steps, runs, started, photo_folder, tmp_path):
    """From the run's first file on; or going on, with a checkpoint for which older ones are cleared away. Both to the result."""
    count, end = tmp_path / "count", steps + EVERY
    start = started(kind, steps).rename(tmp_path / "start") if steps else None

    def tried(number: int) -> tuple[Path, subprocess.CompletedProcess]:
        folder = tmp_path / f"run{number}"
        if start is not None:
            shutil.copytree(start, folder)
        fault = ["die_before_write", str(folder), number, str(count)]
        return folder, runs.run(words(kind, folder, photo_folder, end), fault)

    expected, done = tried(0)
    assert done.returncode == 0, done.stderr
    writes = count.stat().st_size
    assert writes >= WRITES[kind, steps]
    failed = {}
    for number in range(1, writes + 1):
        folder, done = tried(number)
        assert done.returncode == -signal.SIGKILL, (number, done.stderr)
        assert nothing_lost(folder, steps) <= EVERY
        try:
            goes_on(runs, words(kind, folder, photo_folder, end), folder, expected, end)
        except AssertionError as error:
            failed[number] = str(error)[-300:]
        shutil.rmtree(folder)
    assert not failed, failed


# --- SIGTERM and Ctrl-C -----------------------------------------------------------------------------------------


def stopped(done: subprocess.CompletedProcess, folder: Path, steps: int) -> int:
    """What a user reads after Ctrl-C; the step, of which there is a checkpoint."""
    assert done.returncode == 130, done.stderr
    step = history(folder)[-1]["step"]
    assert f"stopped, after step {step} of {steps}; go on with --resume in {folder}" in done.stdout
    assert newest(folder) == step and nothing_lost(folder, step) == 0
    return step


@pytest.mark.parametrize(("kind", "number"), SIGNALS)
def test_a_signal_stops_after_the_step_with_a_checkpoint(kind, number, runs, whole, photo_folder, tmp_path):
    """At some moment in the middle; should the run be over before it, another one is begun."""
    line = [words(kind, tmp_path / f"run{i}", photo_folder, WHOLE) for i in range(10)]
    for i in range(10):
        run = runs.start(line[i])
        run.until(lambda i=i: newest(tmp_path / f"run{i}") > 0)
        run.send(number)
        done = run.end()
        if done.returncode:
            break
    stopped(done, tmp_path / f"run{i}", WHOLE)
    goes_on(runs, line[i], tmp_path / f"run{i}", whole(kind, WHOLE), WHOLE)


@pytest.mark.parametrize(("place", "number"), SIGNALLED)
def test_a_signal_at_any_place_waits_for_the_step(place, number, runs, whole, photo_folder, tmp_path):
    """Within a checkpoint's write, that one is finished, and the stop comes with the next step."""
    folder, step = tmp_path / "run", {"step": STEP, "history row": STEP, "validation": 5}.get(place, 6)
    line = words("pixelwise", folder, photo_folder)
    done = runs.run(line, ["signal_at", place, step, number])
    assert stopped(done, folder, SHORT) == step + (place != "step")
    goes_on(runs, line, folder, whole("pixelwise"))


@pytest.mark.parametrize("place", TWICE)
def test_a_second_ctrl_c_does_not_wait(place, runs, whole, photo_folder, tmp_path):
    folder, step = tmp_path / "run", {"step": STEP, "validation": 10}.get(place, 9)
    line = words("GAN", folder, photo_folder)
    done = runs.run(line, ["signal_at", place, step, signal.SIGINT, signal.SIGINT])
    assert done.returncode == 130 and one_line(done) == "srcourse: stopped"
    assert newest(folder) == {"step": 6, "validation": 9}.get(place, 6)
    assert nothing_lost(folder, 6) <= EVERY
    assert not list((folder / "checkpoints").glob(".*"))
    goes_on(runs, line, folder, whole("GAN"))


# --- two processes ----------------------------------------------------------------------------------------------


def left_alone(done: subprocess.CompletedProcess, step: int) -> None:
    """What is told by a process whose companion is gone."""
    line = one_line(done)
    assert "another process of this run is gone" in line and f"the last good checkpoint is step {step}" in line and "--resume" in line


@pytest.mark.parametrize(("rank", "place"), PAIRS)
def test_one_of_two_processes_killed(rank, place, runs, whole, photo_folder, tmp_path):
    """The other one ends, too, within a minute, though no torchrun looks after it."""
    folder, step = tmp_path / "run", {"step": STEP, "validation": 10}.get(place, 9)
    line = words("GAN", folder, photo_folder)
    both = runs.pair(line, {rank: [["signal_at", place, step, signal.SIGKILL]]})
    assert both[rank].end(60).returncode == -signal.SIGKILL
    other = both[1 - rank].end(60)
    assert other.returncode not in (0, -signal.SIGKILL)
    last = {"step": 6, "validation": 9}.get(place, 6)
    assert newest(folder) == last and nothing_lost(folder, last) <= EVERY
    for run in runs.pair(line):
        assert run.end().returncode == 0
    ends_as(folder, whole("GAN", SHORT, pair=True))
    left_alone(other, last)


def test_one_of_torchruns_processes_killed(runs, whole, photo_folder, tmp_path):
    folder = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "srcourse"]
    line = words("pixelwise", folder, photo_folder, 100_000)
    with open(tmp_path / "log", "w") as log:
        both = subprocess.Popen([*launch, *line], stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while newest(folder) < 9:
            assert both.poll() is None and time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.02)
        last = newest(folder)
        victim = subprocess.run(["pgrep", "-P", str(both.pid)], capture_output=True, text=True).stdout.split()[-1]
        os.kill(int(victim), signal.SIGKILL)
        assert both.wait(90) != 0
    finally:
        both.kill()
        both.wait()
    assert nothing_lost(folder, last) <= EVERY
    steps = newest(folder) + EVERY
    in_two_processes(words("pixelwise", folder, photo_folder, steps))
    ends_as(folder, whole("pixelwise", steps, pair=True), steps)


def test_a_signal_to_one_of_two_processes_stops_both(runs, whole, photo_folder, tmp_path):
    folder = tmp_path / "run"
    line = words("pixelwise", folder, photo_folder)
    first, second = (run.end() for run in runs.pair(line, {1: [["signal_at", "step", STEP, signal.SIGTERM]]}))
    assert second.returncode == 130, second.stderr
    assert stopped(first, folder, SHORT) == STEP
    for run in runs.pair(line):
        assert run.end().returncode == 0
    ends_as(folder, whole("pixelwise", SHORT, pair=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_torchruns_own_end_is_told_to_both(number, runs, whole, photo_folder, tmp_path):
    """A launcher passes a signal on to all processes, each its own: both stop after one step."""
    folder = tmp_path / "run"
    line = words("GAN", folder, photo_folder)
    fault = [["signal_at", "step", STEP, number]]
    first, second = (run.end() for run in runs.pair(line, {0: fault, 1: fault}))
    assert first.returncode == second.returncode == 130, first.stderr + second.stderr
    stopped(first, folder, SHORT)
    for run in runs.pair(line):
        assert run.end().returncode == 0
    ends_as(folder, whole("GAN", SHORT, pair=True))


# --- a full disk ------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A disk of two megabytes, where this process may mount one."""
    home = tmp_path / "disk"
    home.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(home)], capture_output=True, text=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: the limits on files stand in for it")
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


def told_full(done: subprocess.CompletedProcess, folder: Path, name: str) -> None:
    line = one_line(done)
    assert name in line and str(folder) in line and "free some disk space" in line and "--resume" in line


PLACE_NAMES = {
    "history row": "history.jsonl",
    "checkpoint": f"the checkpoint of step {STEP + 1}",
    "checkpoint's last file": f"the checkpoint of step {STEP + 1}",
}


@pytest.mark.parametrize(("way", "place"), DISKS)
def test_a_full_disk_is_told_and_costs_no_checkpoint(way, place, request, runs, whole, photo_folder, tmp_path):
    """At the first file, at a row, at a checkpoint, at the result."""
    folder = (request.getfixturevalue("disk") if way == "disk" else tmp_path) / "run"
    line = words("GAN", folder, photo_folder)
    step = {"history row": STEP}.get(place, STEP + 1)
    place_in_run = "checkpoint" if place == "checkpoint's last file" else place
    if way == "disk":
        # all but the last of a checkpoint's files have room: 4 pages for small files, the rest for two networks and optimizers
        fault = ["fill_at", place_in_run, step, str(folder.parent), 0 if place != "checkpoint's last file" else 14]
    else:
        fault = [
            "limit_at",
            place_in_run,
            step,
            {"recipe.json": 100, "history row": 300, "checkpoint's last file": 20_000}.get(place, 2000),
        ]
    done = runs.run(line, fault)
    told_full(done, folder, PLACE_NAMES.get(place, place))
    expected = {"recipe.json": 0, "model.safetensors": SHORT}.get(place, 6)
    assert newest(folder) == expected and nothing_lost(folder, expected) <= EVERY
    if expected and place != "model.safetensors":
        assert f"the last good checkpoint is step {expected}" in done.stderr or f"the last good one is step {expected}" in done.stderr
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]
    with contextlib.suppress(FileNotFoundError):
        (folder.parent / "ballast").unlink()
    goes_on(runs, line, folder, whole("GAN"))


@pytest.mark.parametrize("pages", PAGES)
def test_a_disk_that_fills_somewhere_in_a_checkpoint(pages, disk, runs, whole, photo_folder):
    folder = disk / "run"
    line = words("GAN", folder, photo_folder)
    done = runs.run(line, ["fill_at", "checkpoint", 9, str(disk), pages])
    told_full(done, folder, "the checkpoint of step 9")
    assert newest(folder) == 6 and nothing_lost(folder, 6) <= EVERY and not list((folder / "checkpoints").glob(".*"))
    told_full(runs.run(line, ["fill_at", "recipe.json", 0, str(disk), 0]), folder, "")  # not freed yet
    (disk / "ballast").unlink()
    goes_on(runs, line, folder, whole("GAN"))


# --- photos -----------------------------------------------------------------------------------------------------


def spoil(folder: Path, name: str, how: str) -> None:
    path = folder / name
    if how == "deleted":
        path.unlink()
    elif how == "cut short":
        os.truncate(path, 300)
    elif how == "emptied":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("a photo of a cat")
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    elif how == "replaced":
        sr.images.write(path, sr.data.DeadLeaves(seed=9, size=64)[0])
    else:
        sr.images.write(path.with_name("2a.png"), sr.data.DeadLeaves(seed=9, size=64)[0])


@pytest.fixture
def album(photo_folder, tmp_path):
    """Six photos, 0.png to 5.png; the last is held out."""
    return Path(shutil.copytree(photo_folder, tmp_path / "photos"))


@pytest.mark.parametrize("how", PHOTOS)
def test_a_photo_spoilt_while_a_run_uses_it(how, album, whole, tmp_path, monkeypatch):
    """It was read at the start: the run does not notice. Resuming does, and says which one it is."""
    with monkeypatch.context() as patch:
        before(Engine, "batch", lambda: spoil(album, "2.png", how), lambda run, step, *rest: step == 4, patch.setattr)
        sr.training.train(recipe("pixelwise", SHORT), album, out=tmp_path / "run", progress=False)
    ends_as(tmp_path / "run", whole("pixelwise"))
    kept = files(tmp_path / "run")
    name = "2a" if how == "another one added" else "2"
    with pytest.raises((ValueError, FileNotFoundError), match=rf"\b{name}(\.png)?\b") as caught:
        sr.training.train(recipe("pixelwise", SHORT + 3), album, out=tmp_path / "run", resume=True, progress=False)
    assert "\n" not in str(caught.value) and kept == files(tmp_path / "run")


@pytest.mark.parametrize("how", PHOTOS[:4])
def test_a_held_out_photo_spoilt_before_a_validation(how, album, whole, photo_folder, tmp_path, monkeypatch):
    """It is read at each validation. The run either has it already, or stops in one line that names it and can go on."""
    with monkeypatch.context() as patch:
        before(Engine, "batch", lambda: spoil(album, "5.png", how), lambda run, step, *rest: step == STEP - 1, patch.setattr)
        try:
            sr.training.train(recipe("pixelwise", SHORT), album, out=tmp_path / "run", progress=False)
        except TrainingError as error:
            message = str(error)
            assert re.search(r"\b5(\.png)?\b", message) and "at step 10" in message and "\n" not in message
            assert f"last good checkpoint is step 9 in {tmp_path}" in message and "--resume" in message
    assert nothing_lost(tmp_path / "run", 9) <= EVERY
    (album / "5.png").write_bytes((photo_folder / "5.png").read_bytes())
    sr.training.train(recipe("pixelwise", SHORT), album, out=tmp_path / "run", resume=True, progress=False)
    ends_as(tmp_path / "run", whole("pixelwise"))


@pytest.mark.parametrize("how", PHOTOS[:4])
def test_a_held_out_photo_spoilt_before_a_resume(how, album, tmp_path):
    """What validation measures would not be comparable: it is told, like a photo of the training."""
    sr.training.train(recipe("pixelwise", 6), album, out=tmp_path / "run", progress=False)
    kept = files(tmp_path / "run")
    spoil(album, "5.png", how)
    with pytest.raises((ValueError, FileNotFoundError), match=r"\b5(\.png)?\b"):
        sr.training.train(recipe("pixelwise", SHORT), album, out=tmp_path / "run", resume=True, progress=False)
    assert kept == files(tmp_path / "run")


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_photo_that_cannot_be_read_at_the_start(how, album, command, tmp_path):
    spoil(album, "2.png", how)
    done = command(*words("pixelwise", tmp_path / "run", album))
    assert "2.png" in one_line(done) and not (tmp_path / "run").exists()


@pytest.fixture
def bank(album, tmp_path):
    one = recipe("pixelwise", 1)
    return sr.data.prepare(sr.data.photos(album), tmp_path / "photos.bank", {2: one.degradation()}, smallest=16).path


def test_a_prepared_file_cut_short_between_start_and_resume(bank, command, whole, tmp_path):
    content = bank.read_bytes()
    assert command(*words("pixelwise", tmp_path / "run", bank, 6)).returncode == 0
    (tmp_path / "run" / "model.safetensors").unlink()
    kept = files(tmp_path / "run")
    os.truncate(bank, len(content) // 2)
    assert "photos.bank is no file of prepared photos, or was cut short" in one_line(command(*words("pixelwise", tmp_path / "run", bank)))
    assert kept == files(tmp_path / "run")
    bank.write_bytes(content)
    assert command(*words("pixelwise", tmp_path / "run", bank)).returncode == 0
    assert checksums(tmp_path / "run", SHORT) == checksums(whole("pixelwise"), SHORT)


def test_a_prepared_file_replaced_between_start_and_resume(bank, album, command, tmp_path):
    assert command(*words("pixelwise", tmp_path / "run", bank, 6)).returncode == 0
    kept = files(tmp_path / "run")
    spoil(album, "2.png", "replaced")
    sr.data.prepare(sr.data.photos(album), tmp_path / "other.bank", {2: recipe("pixelwise", 1).degradation()}, smallest=16)
    os.replace(tmp_path / "other.bank", bank)
    assert "was trained on other photos than these" in one_line(command(*words("pixelwise", tmp_path / "run", bank)))
    assert kept == files(tmp_path / "run")


def test_a_prepared_file_replaced_while_a_run_uses_it(bank, album, whole, tmp_path, monkeypatch):
    """The run keeps the file that it mapped, which has no name any more."""
    with monkeypatch.context() as patch:
        before(Engine, "batch", lambda: os.replace(album / "0.png", bank), lambda run, step, *rest: step == 4, patch.setattr)
        sr.training.train(recipe("pixelwise", SHORT), sr.data.prepared(bank), out=tmp_path / "run", progress=False)
    ends_as(tmp_path / "run", whole("pixelwise"))


def test_a_prepared_file_cut_short_while_a_run_uses_it(bank, runs, whole, tmp_path):
    """Reading beyond a mapped file's end kills a process: it must look before it reads."""
    content = bank.read_bytes()
    line = words("pixelwise", tmp_path / "run", bank)
    done = runs.run(line, ["cut_at", STEP, str(bank), 4096])
    assert done.returncode != -signal.SIGBUS, "the process was killed by SIGBUS, without a word"
    message = one_line(done)
    assert "photos.bank" in message and "last good checkpoint is step 6" in message
    assert newest(tmp_path / "run") == 6 and nothing_lost(tmp_path / "run", 6) <= EVERY
    bank.write_bytes(content)
    goes_on(runs, line, tmp_path / "run", whole("pixelwise"))


# --- damaged checkpoints ----------------------------------------------------------------------------------------


def damage(path: Path, how: str, seed: object) -> None:
    chance, content = random.Random(f"{how} {seed}"), bytearray(path.read_bytes())
    if how.startswith("bit"):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(ValueError):
            if path.suffix == ".json" and json.loads(content) == json.loads(path.read_bytes()):
                return damage(path, how, f"{seed} again")  # an escape's digit in capitals says the same
        path.write_bytes(content)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[: 0 if how == "emptied" else chance.randrange(1, len(content))])


@pytest.mark.parametrize(
    ("kind", "name", "how"),
    [
        (kind, name, how)
        for kind in NETWORKS
        for name in [*(f"{n}{end}" for n in NETWORKS[kind] for end in (".safetensors", ".optimizer.pt")), "state.json"]
        for how in DAMAGES
    ],
)
def test_a_damaged_checkpoint_is_passed_over(kind, name, how, whole, photo_folder, tmp_path, capsys):
    """The one before it is taken, and what comes of it is the same."""
    folder = tmp_path / "run"
    shutil.copytree(whole(kind, 9), folder)
    (folder / "model.safetensors").unlink()
    damage(folder / "checkpoints" / "step_00000009" / name, how, name)
    sr.training.train(recipe(kind, SHORT), photo_folder, out=folder, resume=True, progress=False)
    assert "checkpoint 9 is damaged and was passed over: going on from step 6" in capsys.readouterr().out
    ends_as(folder, whole(kind))


@pytest.fixture
def two_damaged(photo_folder, tmp_path):
    """Recipe and folder of a run with checkpoints 2 (the best), 6 and 9, of which two are damaged, and one that went well."""
    more = ["optimizer.learning_rate=1e-30", "validate_every=2"]  # the first validation stays the best
    for name, steps in (("whole", SHORT), ("run", 9)):
        sr.training.train(recipe("pixelwise", steps, *more), photo_folder, out=tmp_path / name, progress=False)
    assert Checkpoints(tmp_path / "run" / "checkpoints").steps() == [2, 6, 9]
    for step in (6, 9):
        damage(tmp_path / "run" / "checkpoints" / f"step_{step:08d}" / "generator.safetensors", "bit 1", step)
    return more, tmp_path / "run", tmp_path / "whole"


def test_two_damaged_checkpoints_are_passed_over(two_damaged, photo_folder, capsys):
    """What is saved before the run comes as far again is older than what is damaged, and must not be cleared away for it."""
    more, folder, expected = two_damaged
    sr.training.train(recipe("pixelwise", 4, *more), photo_folder, out=folder, resume=True, progress=False)
    assert "going on from step 2" in capsys.readouterr().out
    assert Checkpoints(folder / "checkpoints").newest_intact()[0] == 4
    sr.training.train(recipe("pixelwise", SHORT, *more), photo_folder, out=folder, resume=True, progress=False)
    ends_as(folder, expected)


def test_stopped_after_damaged_checkpoints_were_passed_over(two_damaged, runs, photo_folder):
    more, folder, expected = two_damaged
    line = words("pixelwise", folder, photo_folder, SHORT, *more)
    done = runs.run(line, ["signal_at", "step", 4, signal.SIGINT])
    assert done.returncode == 130 and Checkpoints(folder / "checkpoints").newest_intact()[0] == 4, done.stdout + done.stderr
    goes_on(runs, line, folder, expected)


def test_all_checkpoints_damaged(whole, command, photo_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole("pixelwise", 9), folder)
    for path in folder.glob("checkpoints/step_*/generator.optimizer.pt"):
        damage(path, "cut 1", path)
    kept = files(folder)
    assert "every checkpoint in" in one_line(command(*words("pixelwise", folder, photo_folder)))
    assert kept == files(folder)


# --- checkpoints of others --------------------------------------------------------------------------------------


def edit(folder: Path, step: int, change) -> None:
    """Change state.json as somebody would who keeps its checksums right."""
    path = folder / "checkpoints" / f"step_{step:08d}" / "state.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    state.pop("checksum", None)  # of the file itself, which older versions do not have
    change(state)
    path.write_text(json.dumps(state), encoding="utf-8")


@pytest.mark.parametrize("what", STRANGERS)
def test_a_state_that_lacks_something_is_a_damaged_one(what, whole, photo_folder, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(whole("pixelwise", 9), folder)
    (folder / "model.safetensors").unlink()
    edit(folder, 9, STRANGERS[what])
    sr.training.train(recipe("pixelwise", SHORT), photo_folder, out=folder, resume=True, progress=False)
    assert "checkpoint 9 is damaged" in capsys.readouterr().out
    ends_as(folder, whole("pixelwise"))


@pytest.mark.parametrize("what", VERSIONS)
def test_a_checkpoint_of_another_recipe_or_version_is_refused(what, whole, command, photo_folder, tmp_path):
    folder, (change, message) = tmp_path / "run", VERSIONS[what]
    shutil.copytree(whole("pixelwise", 9), folder)
    edit(folder, 9, lambda state: change(state["recipe"]))
    kept = files(folder)
    assert re.search(message, one_line(command(*words("pixelwise", folder, photo_folder))))
    assert kept == files(folder)


class Command:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


@pytest.mark.parametrize("what", FOREIGN)
def test_a_checkpoint_with_foreign_files_is_refused(what, whole, command, photo_folder, tmp_path):
    """Their checksums are right: nothing but their content tells. Nothing in them is run."""
    folder, mark = tmp_path / "run", tmp_path / "mark"
    shutil.copytree(whole("pixelwise", 9), folder)
    home = folder / "checkpoints" / "step_00000009"
    path = home / ("generator.safetensors" if what == "another network" else "generator.optimizer.pt")
    if what == "a pickle that runs a command":
        torch.save({"state": {}, "param_groups": [Command(mark)]}, path)
    elif what == "another network":
        save_file({name: torch.cat([tensor, tensor]) for name, tensor in load_file(path).items()}, path)
    else:
        values = torch.load(path, weights_only=True)
        if what.endswith("other shapes"):
            for state in values["state"].values():
                state.update({key: torch.zeros(3, 5) for key in ("exp_avg", "exp_avg_sq")})
        else:
            values["param_groups"][0]["params"].append(len(values["state"]))
        torch.save(values, path)
    edit(folder, 9, lambda state: state["checksums"].update({path.name: hashlib.sha256(path.read_bytes()).hexdigest()}))
    kept = files(folder)
    message = one_line(command(*words("pixelwise", folder, photo_folder)))
    assert "step 9" in message and str(folder) in message and path.name in message
    assert kept == files(folder) and not mark.exists()


# --- two runs in one folder -------------------------------------------------------------------------------------


def test_two_runs_in_one_folder(runs, whole, command, photo_folder, tmp_path):
    """The second is refused in one line; the first does not notice."""
    folder = tmp_path / "run"
    line = words("GAN", folder, photo_folder, WHOLE)
    first = runs.start(line)
    first.until(lambda: newest(folder) > 0)
    first.send(signal.SIGSTOP)  # so that it is there still when the second comes, however slow that is
    try:
        assert "is in use by another training run" in one_line(command(*line))
        assert "is in use by another training run" in one_line(runs.run(line))
    finally:
        first.send(signal.SIGCONT)
    assert first.end().returncode == 0
    ends_as(folder, whole("GAN", WHOLE), WHOLE)


def test_a_lock_left_by_a_killed_run_is_no_hindrance(runs, whole, photo_folder, tmp_path):
    folder = tmp_path / "run"
    line = words("pixelwise", folder, photo_folder)
    assert runs.run(line, ["signal_at", "step", STEP, signal.SIGKILL]).returncode == -signal.SIGKILL
    assert (folder / ".lock").exists()
    goes_on(runs, line, folder, whole("pixelwise"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_run_that_ends_does_not_unlock_the_folder_of_the_next(moment, tmp_path, monkeypatch):
    """The next comes while the first is letting go; a third one must be refused while the next is there."""
    saved, taken = Checkpoints(tmp_path / "run" / "checkpoints"), []
    first, unlink = RunFolder(tmp_path / "run", saved), Path.unlink
    release = first._lock.release

    def come() -> None:
        with contextlib.suppress(ValueError):
            taken.append(RunFolder(tmp_path / "run", saved))

    def removing(path: Path, **options) -> None:
        if moment == "before the lock's file goes":
            come()
        unlink(path, **options)
        if moment == "after the lock's file went":
            come()

    def releasing() -> None:
        release()
        if moment == "after the lock went":
            come()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", removing)
        patch.setattr(first._lock, "release", releasing)
        first.release()
    if not taken:
        come()
    with pytest.raises(ValueError, match="is in use by another training run"):
        RunFolder(tmp_path / "run", saved)
    taken[0].release()


# --- NaN --------------------------------------------------------------------------------------------------------


def poison(patch, kind: str, place: str, step: int, value: float) -> None:
    """Put a value that is not finite somewhere in a step (counted from 1)."""
    now = {}
    batch, share = Engine.batch, Engine._share_gradients

    def batched(run, number, *rest):
        now["step"] = number + 1
        lr, hr = batch(run, number, *rest)
        if number + 1 == step:
            if place in ("weight", "discriminator's weight"):
                network = run.networks["generator" if place == "weight" else "discriminator"]
                weight = next(network.parameters()).data
                weight[(0,) * weight.ndim] = value
            if place.endswith("patch"):
                (lr if place == "LR patch" else hr)[0, 0, 2, 2] = value
        return lr, hr

    def shared(run, parameters):
        if place == "gradient" and now["step"] == step and parameters[0] is next(run.networks["generator"].parameters()):
            parameters[0].grad[(0,) * parameters[0].ndim] = value
        share(run, parameters)

    def spoilt(function):
        return lambda *arguments: function(*arguments) + (value if now["step"] == step else 0)

    patch(Engine, "batch", batched)
    patch(Engine, "_share_gradients", shared)
    if place == "pixel loss":
        patch(sr.losses, "PIXELWISE", sr.losses.PIXELWISE)
        l1 = sr.losses.PIXELWISE["l1"]
        for module in (sr.training.pixelwise, adversarial, sr.training.recursive, sr.training.multipass):
            patch(module, "PIXELWISE", {**sr.losses.PIXELWISE, "l1": spoilt(l1)})
    if place == "adversarial loss":
        patch(adversarial, "generator_loss", spoilt(adversarial.generator_loss))
    if place == "discriminator's loss":
        patch(adversarial, "discriminator_loss", spoilt(adversarial.discriminator_loss))


def culprit(kind: str, place: str) -> str:
    """What the message must begin with."""
    named = {
        "pixel loss": {"pixelwise": "loss", "EUSR": r"loss_x[248]"}.get(kind, "pixel_loss"),
        "adversarial loss": "adversarial_loss",
        "discriminator's loss": "discriminator_loss",
        "gradient": "a weight of the generator",
    }
    term = named.get(place, r"[a-z_]*loss(_x[248])?")
    return rf"{term} is (nan|inf) at step {STEP}: training stopped, the last good checkpoint is step 6 in "


@pytest.mark.parametrize(("kind", "place", "value"), POISONED)
def test_what_is_not_finite_stops_the_run_before_it_is_saved(kind, place, value, whole, photo_folder, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch.setattr, kind, place, STEP, value)
        with pytest.raises(TrainingError, match=culprit(kind, place)) as caught:
            sr.training.train(recipe(kind, SHORT), photo_folder, out=folder, progress=False)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert nothing_lost(folder, 6) <= EVERY
    for path in folder.glob("checkpoints/step_*/*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values()), path
    sr.training.train(recipe(kind, SHORT), photo_folder, out=folder, resume=True, progress=False)
    ends_as(folder, whole(kind))


@pytest.mark.parametrize(("rank", "kind"), POISONED_OF_TWO)
def test_what_is_not_finite_in_one_of_two_processes_stops_both(rank, kind, runs, whole, photo_folder, tmp_path):
    folder = tmp_path / "run"
    line = words(kind, folder, photo_folder)
    both = [run.end(60) for run in runs.pair(line, {rank: [["poison_at", kind, "pixel loss", STEP, float("nan")]]})]
    assert re.search(culprit(kind, "pixel loss"), one_line(both[rank]))
    assert both[1 - rank].returncode != 0 and newest(folder) == 6 and nothing_lost(folder, 6) <= EVERY
    for run in runs.pair(line):
        assert run.end().returncode == 0
    ends_as(folder, whole(kind, SHORT, pair=True))
    left_alone(both[1 - rank], 6)


def test_a_photo_with_nan_is_named_at_the_start(leaves, tmp_path):
    photos = [leaf.clone() for leaf in leaves]
    for number, expected in ((2, "photo 2 holds NaN"), (5, "0 of validation cannot be used: .*holds NaN")):
        photos[number][0, 3, 3] = float("inf")
        with pytest.raises(ValueError, match=expected):
            sr.training.train(recipe("pixelwise", SHORT), photos, out=tmp_path / "run", progress=False)
        assert not (tmp_path / "run").exists()
        photos[number] = leaves[number]
