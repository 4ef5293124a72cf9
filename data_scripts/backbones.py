"""Fetch torchvision's ImageNet weights of VGG16, VGG19 and MobileNetV2 into torch's cache, where the recipes look for them.

    python data_scripts/backbones.py --networks vgg19      # perceptual losses; mobilenet_v2: score predictors

Addresses, sizes and the cache are torchvision's and torch's own; the file's name holds the first digits of its SHA-256.
Training downloads what it misses by itself; with this script, that can be done where there is a network, and with resume.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torchvision
import typer

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching
from downloading import Source

NETWORKS = ("vgg16", "vgg19", "mobilenet_v2")
CREDIT = fetching.Credit(
    "Networks trained on ImageNet, torchvision's weights IMAGENET1K_V1",
    "torchvision: BSD 3-Clause; ImageNet's photographs: for non-commercial research and education",
    "K. Simonyan and A. Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015; "
    "M. Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, CVPR 2018",
)


def weights(network: str) -> torchvision.models.WeightsEnum:
    """The weights of a network that the course's recipes take."""
    return torchvision.models.get_model_weights(network)["IMAGENET1K_V1"]


def fetch(
    networks: Sequence[str] = NETWORKS,
    *,
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> list[Path]:
    """Fetch the weights of some of `NETWORKS` into torch's cache (``TORCH_HOME``), and load each once to see that it fits."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    items = []
    for network in networks:
        about = weights(network)
        base, _, name = about.url.rpartition("/")
        digits = Path(name).stem.rpartition("-")[2]
        items.append(fetching.File(Source(base + "/", name, round(about.meta["_file_size"] * 2**20), digits, rough=True), cache / name))
    paths = fetching.fetch(items, cache, credit=[CREDIT], mirror=mirror, dry_run=dry_run, progress=progress)
    for network, path in zip(networks, paths, strict=True):
        if not dry_run:
            _check(network, path)
    return paths


def _check(network: str, path: Path) -> None:
    """Load the file as torchvision does, nothing but tensors; one that does not fit the network is removed."""
    with torch.device("meta"):
        wanted = torchvision.models.get_model(network, weights=None).state_dict()
    try:
        found = weights(network).get_state_dict(progress=False, check_hash=True, weights_only=True)
        fits = {key: tensor.shape for key, tensor in found.items()} == {key: tensor.shape for key, tensor in wanted.items()}
    except Exception:  # whatever a foreign file makes of torch.load
        fits = False
    if not fits:
        path.unlink()
        raise ValueError(f"{path} holds no weights of {network} and was removed: fetch it again, from torchvision's own address")
    print(f"{path}: {network}")


def main(
    networks: Annotated[str, typer.Option(help="Some of vgg16,vgg19,mobilenet_v2.")] = ",".join(NETWORKS),
    mirror: fetching.Mirror = None,
    dry_run: fetching.DryRun = False,
) -> None:
    """Fetch torchvision's VGG16, VGG19 and MobileNetV2 weights (0.55, 0.57 and 0.01 GB) into torch's cache."""
    fetch(fetching.chosen(networks, NETWORKS, "--networks"), mirror=mirror, dry_run=dry_run)


if __name__ == "__main__":
    fetching.run(main)
