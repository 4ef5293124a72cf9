"""Fit a pristine model for NIQE on a folder of undistorted photographs.

    python data_scripts/fit_niqe.py PHOTOS --out pristine.safetensors

The course's own model was made so. Use it with ``srcourse.metrics.NIQE(pristine="pristine.safetensors")``.
"""

import datetime
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from tqdm.auto import tqdm

from srcourse import data, degradation, images
from srcourse.metrics.niqe import fit_pristine, save_pristine


def views(photos: Sequence[torch.Tensor], halves: bool) -> Iterator[torch.Tensor]:
    """Every photograph, and every one of more than a pixel shrunk to half (MATLAB's bicubic)."""
    for i in range(len(photos)):
        photo = photos[i]
        yield photo
        if halves and min(photo.shape[-2:]) > 1:
            yield degradation.downscale(images.crop_to_multiple(photo, 2), 2).clamp(0, 1)


def main(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs, as sharp and undistorted as there are.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("pristine.safetensors"),
    halves: Annotated[
        bool, typer.Option(help="Take each photograph at half its size too: more blocks, and clean of JPEG's traces.")
    ] = True,
    description: Annotated[str, typer.Option(help="What the photographs are, for the model's card.")] = "",
) -> None:
    """Fit a pristine model for NIQE on a folder of undistorted photographs."""
    source = data.photos(photos)
    shown = len(source) * (1 + halves)
    mean, covariance = fit_pristine(views(source, halves), progress=lambda photos: tqdm(photos, total=shown, disable=None))
    card = {
        "photos": f"{len(source)}, at full" + (" and half" if halves else "") + " size",
        "description": description or photos.name,
        "date": datetime.date.today().isoformat(),
        "method": "NIQE features (Mittal et al. 2013) of blocks sharper than 0.75 of their photo's sharpest",
    }
    save_pristine(out, mean, covariance, card)
    print(f"{out}: fitted on {len(source)} photos")


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        raise SystemExit(f"fit_niqe: {' '.join(str(error).split())}") from None
