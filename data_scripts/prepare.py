"""Prepare a folder of photos for training: one memory-mapped file of 8-bit HR and LR pixels, for data beyond the memory.

    python data_scripts/prepare.py srresnet data/DIV2K/DIV2K_train_HR --scale 4 --out data/div2k_srresnet_x4.bank
    srcourse train srresnet --scale 4 --data data/div2k_srresnet_x4.bank

The recipe says what LR images are needed. They are made once, in the photos' order; training then gets the same batches as
from the folder, to the last bit, while the pixels stay on the disk and in the system's cache, which processes share.
"""

import hashlib
import json
import math
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image
from tqdm.auto import tqdm

from srcourse import data, images, training
from srcourse.data.prepared import describe

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching


def prepare(
    recipe: training.Recipe, photos: Path, out: Path, *, dry_run: bool = False, progress: bool = True
) -> data.PreparedPhotos | None:
    """Prepare the photos of a folder as a recipe trains on them; does nothing if `out` is that already; None with `dry_run`.

    Raises
    ------
    FileExistsError
        If `out` is something else already.
    FileNotFoundError, ValueError
        If the photos cannot be used, or the recipe does not train on LR images.
    OSError
        If the disk is too small, or full: nothing is left.
    """
    if recipe.method == "scores":
        raise ValueError(f"{recipe.name} trains on rated images, not on pairs of LR and HR: expected another recipe")
    degradations = {scale: recipe.degradation(scale) for scale in [recipe.enlargement, *recipe.further_scales()]}
    files = images.find(photos)
    source = _fingerprint(files, {scale: describe(degrade) for scale, degrade in degradations.items()})
    if out.exists():
        there = data.prepared(out) if data.is_prepared(out) else None
        if there is None or there.source != source:
            raise FileExistsError(f"{out} exists and was not made of these photos for this recipe: remove it, or choose another --out")
        print(f"{out}: there already, {len(there)} photos")
        return there
    size = _estimate(files, list(degradations))
    near = next(folder for folder in out.absolute().parents if folder.is_dir())
    free = shutil.disk_usage(near).free
    print(f"{len(files)} photos, LR at ×{', ×'.join(map(str, degradations))}: {size / 1e9:.2f} GB; {free / 1e9:.2f} GB free in {near}")
    if dry_run:
        print("nothing was written (--dry-run)")
        return None
    if 1.35 * size > free:  # LR tables are written twice: beside HR while that grows, then behind it
        raise OSError(f"{near} has {free / 1e9:.2f} GB free, and {1.35 * size / 1e9:.2f} are needed: make room, or choose another --out")
    largest = recipe.data.patch // recipe.enlargement * max(degradations)

    def bar(indices: Sequence[int]) -> tqdm:
        return tqdm(indices, desc="preparing", disable=not progress or None, leave=False)

    made = data.prepare(data.photos(photos), out, degradations, smallest=largest, source=source, progress=bar)
    print(f"{out}: {len(made)} photos, {out.stat().st_size / 1e9:.2f} GB")
    return made


def _fingerprint(files: Sequence[Path], made: dict[int, str]) -> str:
    """Of what a file would be made of: the photos' names, sizes and times, and the degradations."""
    about = [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([about, made]).encode()).hexdigest()


def _estimate(files: Sequence[Path], scales: Sequence[int]) -> int:
    """Bytes of all pixels, by the images' headers; `images.read` names the file that has none."""
    pixels, whole = 0, math.lcm(*scales)
    for file in files:
        try:
            with Image.open(file) as image:
                pixels += math.prod(side // whole * whole for side in image.size)
        except Exception:
            images.read(file)
    return round(3 * pixels * (1 + sum(1 / scale**2 for scale in scales)))


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: srcourse recipes) or a YAML file.")],
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("photos.bank"),
    scale: Annotated[int | None, typer.Option(help="Upscaling factor, as for srcourse train.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="As for srcourse train.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how large the file would be; write nothing.")] = False,
) -> None:
    """Prepare a folder of photos for training by a recipe, as one memory-mapped file."""
    fields = {"scale": scale} if scale is not None else {}
    prepare(training.load_recipe(recipe, overrides=overrides, **fields), photos, out, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
