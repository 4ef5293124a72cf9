"""Fetch BSDS500's training and test photographs, 481×321, to train on.

    python data_scripts/bsds500.py
    srcourse train srresnet --data data/BSDS500

Its validation photographs ARE the benchmark BSD100 (see benchmarks.py): this script leaves them where they are. So is
302003 of the training set, which is the photograph of Set5's `woman`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching

FOLDER = "BIDS/BSDS500/a04b7c6c3a9f0ace74bf205c72a43d32e1c72722/BSDS500/data/images/"
PARTS = ("train", "test")
IN_A_BENCHMARK = ("302003.jpg",)
CREDIT = fetching.Credit(
    "BSDS500, the Berkeley Segmentation Data Set and Benchmarks",
    "for non-commercial research and education",
    "P. Arbeláez, M. Maire, C. Fowlkes and J. Malik, Contour Detection and Hierarchical Image Segmentation, IEEE TPAMI 33(5), 2011",
)


def fetch(
    out: Path = Path("data/BSDS500"),
    *,
    parts: Sequence[str] = PARTS,
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Fetch the photographs of "train", "test" or both into one folder, as training reads it; see `fetching.fetch`."""
    files = {}
    for part in parts:
        files |= {name: source for name, source in fetching.sources(f"{FOLDER}{part}/").items() if name not in IN_A_BENCHMARK}
    folder = fetching.Folder(out, files)
    return fetching.fetch([folder], out.absolute().parent, credit=[CREDIT], mirror=mirror, dry_run=dry_run, progress=progress)


def main(
    out: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/BSDS500"),
    parts: Annotated[str, typer.Option(help="Some of train,test.")] = "train,test",
    mirror: fetching.Mirror = None,
    dry_run: fetching.DryRun = False,
) -> None:
    """Fetch BSDS500's 399 training and test photographs, 29 MB, without those that are in benchmarks."""
    fetch(out, parts=fetching.chosen(parts, PARTS, "--parts"), mirror=mirror, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
