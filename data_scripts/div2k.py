"""Fetch DIV2K: 800 photographs to train on and 100 to validate on, about 2000 pixels wide, with LR images.

    python data_scripts/div2k.py                                     # HR, train and valid: what the recipes read
    python data_scripts/div2k.py --parts bicubic,unknown --scales 4  # and the stored LR images at ×4
    srcourse train srresnet --scale 4 --data data/DIV2K/DIV2K_train_HR --validation data/DIV2K/DIV2K_valid_HR

Each archive becomes a folder: DIV2K_train_HR/0001.png, DIV2K_train_LR_bicubic/X4/0001x4.png, DIV2K_valid_LR_x8/0801x8.png.
``srcourse.data.pairs(LR folder, HR folder, scale)`` reads stored pairs.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching

PARTS, SPLITS, SCALES = ("HR", "bicubic", "unknown", "x8"), ("train", "valid"), ("2", "3", "4")
NUMBERS = {"train": range(1, 801), "valid": range(801, 901)}
CREDIT = fetching.Credit(
    "DIV2K, 1,000 photographs of diverse contents (the last 100 were never published)",
    "for academic research only; each photograph remains its owner's",
    "E. Agustsson and R. Timofte, NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset and Study, CVPR Workshops 2017",
)


def fetch(
    out: Path = Path("data/DIV2K"),
    *,
    parts: Sequence[str] = ("HR",),
    scales: Sequence[int] = (2, 3, 4),
    splits: Sequence[str] = SPLITS,
    keep: bool = False,
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Fetch parts of DIV2K ("HR", "bicubic", "unknown" at `scales`, "x8"); returns their folders, as in `fetching.fetch`."""
    archives = fetching.sources()
    items = []
    for split in splits:
        for part in parts:
            for scale in scales if part in ("bicubic", "unknown") else (8,):
                folder, names = _layout(split, part, scale)
                source = archives["_".join(folder.parts) + ".zip"]
                items.append(fetching.Images(out / folder, source, frozenset(names), out, keep))
    return fetching.fetch(items, out, credit=[CREDIT], mirror=mirror, dry_run=dry_run, progress=progress)


def _layout(split: str, part: str, scale: int) -> tuple[Path, list[str]]:
    """The folder of an archive, which its name spells too, and the images in it."""
    if part == "HR":
        return Path(f"DIV2K_{split}_HR"), [f"{number:04d}.png" for number in NUMBERS[split]]
    folder = Path(f"DIV2K_{split}_LR_x8") if part == "x8" else Path(f"DIV2K_{split}_LR_{part}", f"X{scale}")
    return folder, [f"{number:04d}x{scale}.png" for number in NUMBERS[split]]


def main(
    out: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/DIV2K"),
    parts: Annotated[str, typer.Option(help="Some of HR,bicubic,unknown,x8: photographs, and LR images of three kinds.")] = "HR",
    scales: Annotated[str, typer.Option(help="Of bicubic and unknown: some of 2,3,4.")] = "2,3,4",
    splits: Annotated[str, typer.Option(help="Some of train,valid.")] = "train,valid",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives once they are unpacked.")] = False,
    mirror: fetching.Mirror = None,
    dry_run: fetching.DryRun = False,
) -> None:
    """Fetch DIV2K: 800 photographs to train on, 100 to validate on, and their LR images; 4.0 GB for HR, 7.3 GB in all."""
    fetch(
        out,
        parts=fetching.chosen(parts, PARTS, "--parts"),
        scales=[int(scale) for scale in fetching.chosen(scales, SCALES, "--scales")],
        splits=fetching.chosen(splits, SPLITS, "--splits"),
        keep=keep,
        mirror=mirror,
        dry_run=dry_run,
    )


if __name__ == "__main__":
    fetching.run(main)
