"""Fetch the benchmarks Set5, Set14, BSD100 and Urban100 in the layout that ``srcourse evaluate`` reads.

    python data_scripts/benchmarks.py
    srcourse evaluate bicubic srresnet_small-x4 --data data/benchmarks --scale 4

Each becomes NAME/HR, NAME/LRx2, NAME/LRx3 and NAME/LRx4. The files are those of Huang et al.'s SelfExSR. There each scale
has HR images of its own, cropped to its multiple; one of them contains the others, and is taken: ×2's for Set5 and Set14,
×3's for BSD100. Urban100 is stored at ×2 and ×4, and its ×2 pair is no bicubic one; so its LR images at ×2 and ×3 are
made of ×4's HR, by the same older MATLAB reduction that made the stored files.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from srcourse import degradation, images

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching

FOLDER = "jbhuang0604/SelfExSR/8f6dd8c1d20cb7e8792a7177b4f6fd677633f598/data/"
SETS, SCALES = ("Set5", "Set14", "BSD100", "Urban100"), ("2", "3", "4")
HR_OF_SCALE = {"Set5": 2, "Set14": 2, "BSD100": 3, "Urban100": 4}
MADE = {"Urban100": (2, 3)}  # scales whose LR images are not downloaded
NAMES = {
    "Set5": ["baby", "bird", "butterfly", "head", "woman"],
    "Set14": [
        "baboon",
        "barbara",
        "bridge",
        "coastguard",
        "comic",
        "face",
        "flowers",
        "foreman",
        "lenna",
        "man",
        "monarch",
        "pepper",
        "ppt3",
        "zebra",
    ],
}
CREDITS = {
    "Set5": fetching.Credit(
        "Set5, five images",
        "none is stated; used in research since 2012",
        "M. Bevilacqua et al., Low-Complexity Single-Image Super-Resolution based on Nonnegative Neighbor Embedding, BMVC 2012",
    ),
    "Set14": fetching.Credit(
        "Set14, fourteen images",
        "none is stated; used in research since 2010",
        "R. Zeyde, M. Elad and M. Protter, On Single Image Scale-Up using Sparse-Representations, Curves and Surfaces 2010",
    ),
    "BSD100": fetching.Credit(
        "BSD100, the validation photographs of BSDS500",
        "for non-commercial research and education",
        "D. Martin et al., A Database of Human Segmented Natural Images and its Application, ICCV 2001",
    ),
    "Urban100": fetching.Credit(
        "Urban100, a hundred photographs of buildings from Flickr; all LR files here are of the same paper",
        "Creative Commons, each as its photographer chose",
        "J.-B. Huang, A. Singh and N. Ahuja, Single Image Super-Resolution from Transformed Self-Exemplars, CVPR 2015",
    ),
}


class Benchmark(fetching.Folder):
    """A benchmark's folder: HR and LR files to download, LR files to make, and a look whether they fit each other."""

    made: Sequence[int] = ()

    def ready(self) -> bool:
        return super().ready() and all((self.path / name).is_file() for name in self._made_names())

    def complete(self, stage: Path) -> None:
        for name in self._made_names():
            scale, file = int(name[3]), name.partition("/")[2]
            if not (self.path / name).is_file():
                hr = images.crop_to_multiple(images.read(self._found(f"HR/{file}", self.files[f"HR/{file}"])), scale)
                images.write(stage / name, degradation.downscale(hr, scale, border="clamp", round_between=True))
        for name, source in self.files.items():
            folder, _, file = name.partition("/")
            if folder != "HR":
                scale = int(folder[3])
                lr, hr = (_size(self._found(n, s)) for n, s in ((name, source), (f"HR/{file}", self.files[f"HR/{file}"])))
                if lr != tuple(side // scale for side in hr):
                    raise ValueError(
                        f"{stage / name} is {lr[0]}×{lr[1]} pixels, and its HR image {hr[0]}×{hr[1]}: they are no pair at ×{scale}"
                    )

    def _made_names(self) -> list[str]:
        return [f"LRx{scale}/{name[3:]}" for scale in self.made for name in self.files if name.startswith("HR/")]


def fetch(
    out: Path = Path("data/benchmarks"),
    *,
    sets: Sequence[str] = SETS,
    scales: Sequence[int] = (2, 3, 4),
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Fetch benchmarks, with LR images at `scales`; returns their folders, as in `fetching.fetch`."""
    items = []
    for name in sets:
        made = [scale for scale in scales if scale in MADE.get(name, ())]
        files = _files(name, HR_OF_SCALE[name], "HR")
        for scale in scales:
            files |= {} if scale in made else _files(name, scale, "LR")
        item = Benchmark(out / name, files, more=sum(s.size for n, s in files.items() if n.startswith("HR/")) // 2 if made else 0)
        item.made = made
        items.append(item)
    credits = [CREDITS[name] for name in sets]
    return fetching.fetch(items, out, credit=credits, mirror=mirror, dry_run=dry_run, progress=progress)


def _files(name: str, scale: int, kind: str) -> dict[str, "fetching.Source"]:
    """The stored files of a benchmark: "HR/baby.png" or "LRx4/baby.png" → where it comes from."""
    found = fetching.sources(f"{FOLDER}{name}/image_SRF_{scale}/")
    stored = sorted(file for file in found if file.endswith(f"_{kind}.png"))
    names = NAMES.get(name, [f"img_{i:03d}" for i in range(1, len(stored) + 1)])
    folder = "HR" if kind == "HR" else f"LRx{scale}"
    return {f"{folder}/{new}.png": found[file] for new, file in zip(names, stored, strict=True)}


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.height, image.width


def main(
    out: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/benchmarks"),
    sets: Annotated[str, typer.Option(help="Some of Set5,Set14,BSD100,Urban100.")] = ",".join(SETS),
    scales: Annotated[str, typer.Option(help="Of the LR images: some of 2,3,4.")] = "2,3,4",
    mirror: fetching.Mirror = None,
    dry_run: fetching.DryRun = False,
) -> None:
    """Fetch the benchmarks Set5, Set14, BSD100 and Urban100 as srcourse evaluate --data reads them; 0.2 GB in all."""
    chosen = fetching.chosen(sets, SETS, "--sets")
    fetch(out, sets=chosen, scales=[int(s) for s in fetching.chosen(scales, SCALES, "--scales")], mirror=mirror, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
