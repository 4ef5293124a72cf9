"""Perceptual losses: distances between what a VGG network sees in two images (P000 §3.3.2, P001 equation 3, P003 equation 4).

A layer is named by what it is: "conv4_3" is the third convolution before the fourth pooling, "relu4_3" its activation;
P000 takes VGG16's relu4_3, P001 VGG19's relu5_4 ("VGG54", Ledig et al. 2017) and ESRGAN the same before activation, conv5_4.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from srcourse.files import whole_file
from srcourse.models.weights import fill_features, pretrained

NETWORKS = ("vgg16", "vgg19")
_CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # in each block, before its pooling
_CHANNELS = (64, 128, 256, 512, 512)  # of each block
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which all weights expect
_SEED = 0  # of the random weights
_COURSE = Path(__file__).with_name("vgg19_course.safetensors")


def layer_names(network: str = "vgg19") -> list[str]:
    """The names of a VGG's layers in their order: conv1_1, relu1_1, … pool5."""
    if network not in NETWORKS:
        raise ValueError(f"there is no perceptual network {network!r}: expected one of {', '.join(NETWORKS)}")
    names = []
    for block, count in enumerate(_CONVOLUTIONS[network], start=1):
        names += [f"{kind}{block}_{i}" for i in range(1, count + 1) for kind in ("conv", "relu")] + [f"pool{block}"]
    return names


class VGGFeatures(nn.Module):
    """The front of a VGG network up to the last of `layers`: (N, 3, H, W) in [0, 1] → a feature map for each layer.

    Its weights never change: they take no gradient, but pass it on to the images. ImageNet's mean and deviation are
    subtracted and divided inside. Losses that use it cost one forward pass of each image, one backward pass of the
    generated one.

    Parameters
    ----------
    network : "vgg16" or "vgg19"
    layers : sequence of str
        As `layer_names` lists them.
    weights : "imagenet", "course", "random" or a path
        torchvision's, downloaded at the first use; those that come with the course, a VGG19 with an eighth of the channels
        which learned how strong distortions of photographs are (``data_scripts/fit_features.py``), for work offline; a fixed
        random draw (He's initialisation), for controls and tests; or a file of your own (.safetensors, or .pth with plain
        tensors) with torchvision's names. A .safetensors file may hold fewer channels.

    Raises
    ------
    ValueError
        For an unknown network or layer, or a file that does not fit.
    FileNotFoundError
        If the weights are not there; for "imagenet" without a network, the message says what to run.
    """

    def __init__(self, network: str = "vgg19", layers: Sequence[str] = ("relu5_4",), weights: str | os.PathLike = "imagenet"):
        super().__init__()
        names = layer_names(network)
        if isinstance(layers, str):
            raise ValueError(f"layers is {layers!r}: expected a sequence of names, such as [{layers!r}]")
        unknown = next((layer for layer in layers if layer not in names), None)
        if unknown is not None or not layers:
            raise ValueError(f"{network} has no layer {unknown!r}: expected names such as {', '.join(names[:5])}, … {names[-2]}")
        path = find_weights(network, weights)
        self.network, self.layers, self.weights = network, list(layers), str(weights)
        depth = 1 + max(names.index(layer) for layer in layers)
        with torch.device("meta"):
            front = narrow_front(network, _divisor(path))[:depth]
        front.to_empty(device="cpu")
        _fill(front, path)
        self.front = front.requires_grad_(False).to(memory_format=torch.channels_last)
        self._names = names[:depth]
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"the images have shape {tuple(images.shape)}: expected (N, 3, H, W)")
        smallest = 2 ** sum(name.startswith("pool") for name in self._names)
        if min(images.shape[-2:]) < smallest:
            raise ValueError(f"the images are {images.shape[-2]}×{images.shape[-1]}: {self._names[-1]} needs {smallest} pixels a side")
        x, found = (images - self.mean) / self.std, {}
        for name, layer in zip(self._names, self.front, strict=True):
            x = layer(x)
            if name in self.layers:
                found[name] = x
        return found

    def __repr__(self) -> str:
        what = {
            "random": f"random weights (seed {_SEED}), not trained on anything",
            "imagenet": "ImageNet weights",
            "course": "the course's own weights, an eighth of the channels",
        }
        return f"VGGFeatures({self.network}, {', '.join(self.layers)}, {what.get(self.weights, f'weights of {self.weights}')})"


class PerceptualLoss(nn.Module):
    """The mean squared difference of one layer's features: two (N, 3, H, W) in [0, 1] → a number ≥ 0.

    The mean runs over channels and positions, as P000 equation 4 has it. P001 equation 3 and P003 equation 4 divide by
    the positions only and do not say what they do with the channels.

    Parameters
    ----------
    network, weights
        As in `VGGFeatures`.
    layer : str
        "relu5_4" after the activation, "conv5_4" before it.
    """

    def __init__(self, network: str = "vgg19", layer: str = "relu5_4", weights: str | os.PathLike = "imagenet"):
        super().__init__()
        self.features = VGGFeatures(network, [layer], weights)

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        _same_shape(sr, hr)
        wanted = _detached(self.features, hr)
        return sum(F.mse_loss(found.float(), wanted[layer]) for layer, found in self.features(sr).items())


class TextureLoss(nn.Module):
    """The squared difference of Gram matrices, summed over layers: two (N, 3, H, W) in [0, 1] → a number ≥ 0.

    What features occur together, without where: the texture loss of P001 §2.2 (Gatys et al. 2015).
    """

    def __init__(
        self, network: str = "vgg19", layers: Sequence[str] = ("relu1_1", "relu2_1", "relu3_1"), weights: str | os.PathLike = "imagenet"
    ):
        super().__init__()
        self.features = VGGFeatures(network, layers, weights)

    def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        _same_shape(sr, hr)
        wanted = _detached(self.features, hr)
        return sum(F.mse_loss(gram_matrix(found), gram_matrix(wanted[layer])) for layer, found in self.features(sr).items())


def gram_matrix(features: torch.Tensor) -> torch.Tensor:
    """Inner products of the channels, over their number and that of positions: (N, C, H, W) → (N, C, C)."""
    flat = features.float().flatten(2)  # (N, C, H·W)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


def find_weights(network: str, weights: str | os.PathLike) -> Path | None:
    """The file of a VGG's weights, downloaded where it must be; None for "random".

    ``FileNotFoundError`` says in one line what to do if there is no such file and no network.
    """
    if network not in NETWORKS:
        raise ValueError(f"there is no perceptual network {network!r}: expected one of {', '.join(NETWORKS)}")
    if weights == "random":
        return None
    if weights == "course":
        if network != "vgg19":
            raise ValueError(
                f"the course trained a narrow vgg19, not {network}: take network='vgg19' (in a recipe: --set perceptual.network=vgg19)"
            )
        return _COURSE
    if weights != "imagenet":
        if not Path(weights).is_file():
            raise FileNotFoundError(f"there are no perceptual weights {str(weights)!r}: expected 'imagenet', 'course', 'random' or a file")
        return Path(weights)
    import torchvision  # here, as it takes seconds to load, and few need it

    address = torchvision.models.get_model_weights(network).DEFAULT.url
    otherwise = "take weights='random' (in a recipe: --set perceptual.weights=random), or with network='vgg19' weights='course'"
    return pretrained(address, f"the ImageNet weights of {network}", otherwise)


def narrow_front(network: str = "vgg19", divisor: int = 1) -> nn.Sequential:
    """A VGG's convolutions, activations and poolings, in torchvision's order, with its channels divided by `divisor`."""
    layers, channels = [], 3
    for count, width in zip(_CONVOLUTIONS[network], _CHANNELS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width // divisor, 3, padding=1), nn.ReLU()]
            channels = width // divisor
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


def save_features(front: nn.Sequential, path: str | os.PathLike, card: dict) -> None:
    """Write a front's weights with torchvision's names as float16 safetensors, with a card that says what they learned from."""
    tensors = {f"features.{key}": tensor.detach().cpu().half().contiguous() for key, tensor in front.state_dict().items()}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata={"srcourse": json.dumps(card)})


def _divisor(path: Path | None) -> int:
    """By how much a file's first layer is narrower than VGG's 64 channels; what is no such file is refused where it is read."""
    if path is None or path.suffix != ".safetensors":
        return 1
    try:
        with safe_open(path, framework="pt") as file:
            return max(1, _CHANNELS[0] // file.get_slice("features.0.weight").get_shape()[0])
    except (OSError, SafetensorError, IndexError, ZeroDivisionError):
        return 1


def _fill(front: nn.Sequential, path: Path | None) -> None:
    if path is None:
        generator = torch.Generator().manual_seed(_SEED)
        for layer in front:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                nn.init.zeros_(layer.bias)
        return
    fill_features(front, path, "weights of this VGG")


@torch.no_grad()
def _detached(features: VGGFeatures, hr: torch.Tensor) -> dict[str, torch.Tensor]:
    return {layer: found.float() for layer, found in features(hr).items()}


def _same_shape(sr: torch.Tensor, hr: torch.Tensor) -> None:
    if sr.shape != hr.shape:
        raise ValueError(f"the images differ in shape, {tuple(sr.shape)} and {tuple(hr.shape)}: expected two equal ones (N, 3, H, W)")
