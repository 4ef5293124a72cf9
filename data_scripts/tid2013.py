"""Check and arrange TID2013, 3,000 distorted images with people's scores, for the recipe `nima_subjective`.

    python data_scripts/tid2013.py ~/Downloads/tid2013 --out data/TID2013
    srcourse train nima_subjective --data data/TID2013

Its site, ponomarenko.info/tid2013.htm, hands out a RAR archive: fetch it there, unpack it, and give the folder; a zip or
tar file will do as well. Needed are ``mos_with_names.txt``, ``mos_std.txt`` and ``distorted_images/``.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from srcourse import data, images

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching
import unpacking

LISTS, IMAGES = ("mos_with_names.txt", "mos_std.txt"), 3000
LIMITS = unpacking.Limits(size=4 * 10**9, files=10_000, ratio=200)  # BMP files, of which flat ones pack well
CREDIT = fetching.Credit(
    "TID2013, 3,000 distorted images and the mean scores of 971 observers",
    "free for research, with its citation",
    "N. Ponomarenko et al., Image Database TID2013: Peculiarities, Results and Perspectives, Signal Process. Image Commun. 30, 2015",
)


def arrange(
    given: Path,
    out: Path = Path("data/TID2013"),
    *,
    count: int = IMAGES,
    dry_run: bool = False,
    progress: bool = True,
) -> data.Ratings | None:
    """Bring a folder or an archive of TID2013 into the layout of `data.tid2013`, complete; None with `dry_run`.

    Raises
    ------
    FileNotFoundError
        If a list or an image is missing: the message names it and says how many.
    ValueError
        If the lists have not `count` lines, or an image cannot be read.
    OSError
        If the disk is too small.
    """
    print(CREDIT)
    with unpacking.opened([given], out, LIMITS, progress=progress) as folders:
        lists = {name: unpacking.find(folders, name) for name in LISTS}
        absent = [name for name, path in lists.items() if path is None]
        if absent:
            raise FileNotFoundError(f"{given} has no {' and no '.join(absent)}: expected what the site's archive holds, unpacked")
        lines = {name: [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()] for name, path in lists.items()}
        wrong = next((name for name in LISTS if len(lines[name]) != count), None)
        if wrong:
            raise ValueError(f"{lists[wrong]} has {len(lines[wrong])} lines, expected {count}: fetch it again")
        names = [line.split()[-1].lower() for line in lines[LISTS[0]]]
        files = {path.name.lower(): path for folder in folders for path in folder.rglob("*") if path.name.lower().startswith("i")}
        files = unpacking.intact({name: files.get(name) for name in names}, f"{given}", "distorted_images", progress)
        wanted = {out / name: path for name, path in lists.items()}
        wanted |= {out / "distorted_images" / path.name: path for path in files.values()}
        unpacking.place_all(wanted, out, dry_run=dry_run, progress=progress)
    if dry_run:
        return None
    ratings = data.tid2013(out)
    images.check(ratings[0].image)
    print(f"{out}: {len(ratings):,} images; next: srcourse train nima_subjective --data {out}")
    return ratings


def main(
    given: Annotated[Path, typer.Argument(metavar="SOURCE", help="TID2013 as you obtained it: its folder, or a zip or tar file.")],
    out: Annotated[Path, typer.Option(help="The folder to fill; SOURCE itself may be it.")] = Path("data/TID2013"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and say what would be done; write nothing but what an archive needs.")
    ] = False,
) -> None:
    """Check and arrange TID2013, which you obtained from its site, for the recipe nima_subjective."""
    arrange(given, out, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
