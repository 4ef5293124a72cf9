"""What does a second process bring? Run by hand on an idle machine: python benchmarks/scaling.py

Weak scaling, alternating in one run: one process with a batch of 8 patches; two of this machine that train together with
a batch of 16, 8 each; and two that know nothing of each other, which is all that the machine can give: where two "cores"
are the two threads of one, that is far from 2. Patches a second, from the history's own clock, which leaves out starting
and reading. Each process has one thread (on GPUs: one GPU).
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS, STEPS, PATCHES = 5, 60, 8
_RECIPE = ["train", "srresnet_small", "--set", "data.hold_out=0", "--set", "data.patch=96", "--set", "log_every=10"]


def started(out: Path, processes: int = 1) -> subprocess.Popen:
    """A run of so many processes that train together."""
    words = [*_RECIPE, "--steps", str(STEPS), "--set", f"data.batch={PATCHES * processes}", "--out", str(out)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "srcourse", *words]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, **silent)


def throughput(runs: int, processes: int) -> float:
    """Patches a second of so many runs at once, of so many processes each, after the first ten steps."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder) / str(run) for run in range(runs)]
        for run in [started(out, processes) for out in folders]:
            if run.wait():
                raise SystemExit("a run failed: try its command by hand")
        total = 0.0
        for out in folders:
            rows = [json.loads(line) for line in (out / "history.jsonl").read_text(encoding="utf-8").splitlines()]
            total += PATCHES * processes * (rows[-1]["step"] - rows[0]["step"]) / (rows[-1]["seconds"] - rows[0]["seconds"])
    return total


def main() -> None:
    """Print the throughputs, and their ratios with their ranges."""
    rows = [(throughput(1, 1), throughput(1, 2), throughput(2, 1)) for _ in range(ROUNDS)]
    one, two, apart = (statistics.median(column) for column in zip(*rows, strict=True))
    print(f"{os.cpu_count()} cores; medians of {ROUNDS} alternating rounds, patches a second:")
    print(f"one process {one:.0f}, two that train together {two:.0f}, two on their own {apart:.0f}")
    for name, ratios in (
        ("two together / one", [row[1] / row[0] for row in rows]),
        ("two on their own / one: the machine's ceiling", [row[2] / row[0] for row in rows]),
        ("two together / two on their own", [row[1] / row[2] for row in rows]),
    ):
        print(f"{name:48}{statistics.median(ratios):6.2f}   ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
