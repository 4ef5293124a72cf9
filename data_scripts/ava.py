"""Check and arrange AVA, 255,000 photographs with the scores that people gave them, for the recipe `nima_aesthetic`.

    python data_scripts/ava.py ~/Downloads/AVA --out data/AVA
    srcourse train nima_aesthetic --data data/AVA

Fetch ``AVA.txt`` and the photographs (32 GB, a 7z archive in 64 parts) as the authors' page says, unpack them, and give
the folder, or several. In every copy some photographs are missing or cannot be read: they are left out, up to one in a hundred.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from srcourse import data

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching
import unpacking

COUNT = 250_000  # photographs at least
MISSING = 0.01
LIMITS = unpacking.Limits(size=50 * 10**9, files=300_000, ratio=20)
CREDIT = fetching.Credit(
    "AVA, photographs of dpchallenge.com with 78 to 549 scores each",
    "for research; each photograph remains its photographer's",
    "N. Murray, L. Marchesotti and F. Perronnin, AVA: A Large-Scale Database for Aesthetic Visual Analysis, CVPR 2012",
)


def arrange(
    given: Sequence[Path],
    out: Path = Path("data/AVA"),
    *,
    count: int = COUNT,
    dry_run: bool = False,
    progress: bool = True,
) -> data.Ratings | None:
    """Bring folders or archives of AVA into the layout of `data.ava`; None with `dry_run`.

    Raises
    ------
    FileNotFoundError
        Without ``AVA.txt``, or if more than one photograph in a hundred is missing or cannot be read.
    ValueError
        If ``AVA.txt`` has fewer than `count` lines.
    OSError
        If the disk is too small.
    """
    print(CREDIT)
    with unpacking.opened(list(given), out, LIMITS, progress=progress) as folders:
        what = ", ".join(map(str, given))
        table = unpacking.find(folders, "AVA.txt")
        if table is None:
            raise FileNotFoundError(f"{what} has no AVA.txt: expected it, and the photographs as ID.jpg")
        identities = [line.split()[1] for line in table.read_text("utf-8", "replace").splitlines() if len(line.split()) > 2]
        if len(identities) < count:
            raise ValueError(f"{table} has {len(identities):,} lines, expected at least {count:,}: fetch it again")
        files = {path.stem: path for folder in folders for path in folder.rglob("*.jp*g")}
        found = unpacking.intact({one: files.get(one) for one in identities}, what, "ID.jpg", progress, share=MISSING)
        spoilt = [path for one in identities if one not in found and (path := out / "images" / f"{one}.jpg").exists()]
        if spoilt:
            raise ValueError(f"{spoilt[0]} cannot be read, nor can {len(spoilt) - 1} others: training would stop there; remove them")
        wanted = {out / "AVA.txt": table} | {out / "images" / f"{one}.jpg": path for one, path in found.items()}
        unpacking.place_all(wanted, out, dry_run=dry_run, progress=progress)
    if dry_run:
        return None
    ratings = data.ava(out)
    print(f"{out}: {len(ratings):,} of {len(identities):,} photographs; next: srcourse train nima_aesthetic --data {out}")
    return ratings


def main(
    given: Annotated[list[Path], typer.Argument(metavar="SOURCE...", help="AVA as you obtained it: folders, or zip or tar files.")],
    out: Annotated[Path, typer.Option(help="The folder to fill; SOURCE itself may be it.")] = Path("data/AVA"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and say what would be done; write nothing but what an archive needs.")
    ] = False,
) -> None:
    """Check and arrange AVA, which you obtained as its authors say, for the recipe nima_aesthetic."""
    arrange(given, out, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
