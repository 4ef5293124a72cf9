"""Weights in and out: safetensors files that say what network they are for and how they came to be.

A file's metadata holds the network's name, its options and its card, so that ``load(path)`` needs nothing else, and
nothing in it can run code.
"""

import contextlib
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from srcourse.files import whole_file
from srcourse.models.registry import create

_KEY = "srcourse"


def shipped() -> list[str]:
    """Names of the weights that come with the course, for `load`."""
    return sorted(path.stem for path in _folder().glob("*.safetensors"))


def save(model: nn.Module, path: str | os.PathLike, *, card: dict | None = None, half: bool = False) -> Path:
    """Write a network made by `create` to one safetensors file; it appears whole or not at all.

    Parameters
    ----------
    card : dict, optional
        What a reader should know: recipe, data, steps, hardware, date, scores. Must be JSON.
    half : bool
        Store float16: half the size, and less than 0.01 dB.
    """
    if not hasattr(model, "options"):
        raise ValueError(f"cannot save a {type(model).__name__}: expected a network made by srcourse.models.create")
    path = Path(path)
    tensors = {}
    for key, tensor in model.state_dict().items():
        tensor = tensor.detach().cpu().contiguous()
        if not torch.isfinite(tensor).all():
            raise ValueError(f"cannot save {model.name}: {key} holds NaN or infinite values")
        tensors[key] = tensor.half() if half and tensor.is_floating_point() else tensor
    metadata = {_KEY: json.dumps({"name": model.name, "options": model.options, "card": card or {}})}
    with whole_file(path) as partial:
        save_file(tensors, partial, metadata=metadata)
    return path


def load(weights: str | os.PathLike, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load a network with its weights, ready to use (``eval`` mode, float32).

    Parameters
    ----------
    weights : str or path
        A name from `shipped()`, such as "srresnet_small-x4", the path of a .safetensors file, or a training run's folder.

    Raises
    ------
    FileNotFoundError
        If there is neither such a name nor such a file.
    ValueError
        If the file is damaged, or its weights are not those of the network that it names. A network far larger than its file
        is refused before it takes memory.
    """
    path = resolve(weights)
    with torch.random.fork_rng(devices=[]):  # the fresh weights, which are replaced, cost the caller no random numbers
        claimed = _claimed(path)
        model = create(claimed.name, **claimed.options)  # again: without memory, buffers that are in no file would have no values
    load_state(model, path)
    return model.to(device).eval()


def _claimed(path: Path) -> nn.Module:
    """The network that a file names, built without weights or memory: a stranger's file may claim any size."""
    about = _about(path)
    with _open(path) as file:
        sizes = [math.prod(file.get_slice(key).get_shape()) for key in file.keys()]  # noqa: SIM118 - safe_open is no dict
    try:
        with torch.device("meta"), _not_far_beyond(sizes):
            return create(about["name"], **about["options"])
    except ValueError as error:
        raise ValueError(f"{path} claims a network that cannot be: {_shortened(error)}") from None


def load_state(model: nn.Module, path: Path) -> None:
    """Put the file's weights into a network of the same shape; ``ValueError`` names the first that does not fit."""
    with _open(path) as file:
        found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - safe_open is no dict
    wanted = model.state_dict()
    for key in [*wanted, *found]:
        if key not in found or key not in wanted:
            side = "lacks" if key not in found else "has an unknown"
            raise ValueError(f"{path} {side} weight {key}: these are the weights of another network than {type(model).__name__} as built")
        if found[key].shape != wanted[key].shape:
            raise ValueError(
                f"{path} holds the weights of another network: {key} is {tuple(found[key].shape)}, expected {tuple(wanted[key].shape)}"
            )
    broken = next((key for key, tensor in found.items() if not torch.isfinite(tensor).all()), None)
    if broken is not None:
        raise ValueError(f"{path} is damaged: {broken} holds NaN or infinite values")
    model.load_state_dict({key: tensor.to(wanted[key].dtype) for key, tensor in found.items()})


def fingerprint(module: nn.Module) -> str:
    """Sixteen letters that change with any of a network's weights."""
    digest = hashlib.sha256()
    for key, tensor in module.state_dict().items():
        digest.update(key.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def matching_state(model: nn.Module, weights: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The model's state with every tensor of the weights that has its name and shape: a warm start across scales.

    ``ValueError`` if fewer than half of the network's tensors are found: then the weights are another network's; and if just one of
    both networks adds the bicubic image, which the same tensors cannot serve.
    """
    path = resolve(weights)
    state = model.state_dict()
    taken = 0
    with _open(path) as file:
        for key in file.keys():  # noqa: SIM118 - safe_open is no dict
            if key in state and tuple(file.get_slice(key).get_shape()) == tuple(state[key].shape):
                state[key] = file.get_tensor(key).to(state[key].dtype)
                taken += 1
    if 2 * taken < len(state):
        raise ValueError(
            f"only {taken} of this network's {len(state)} tensors are in {path}: expected weights of the same family, width and depth"
        )
    skip, there = getattr(model, "bicubic_skip", None), None
    with contextlib.suppress(ValueError):  # a checkpoint's file does not say what network it is of
        there = getattr(_claimed(path), "bicubic_skip", None)
    if None not in (skip, there) and skip != there:
        raise ValueError(
            f"{path} was trained with bicubic_skip={there}, and this network has bicubic_skip={skip}: "
            f"set model.bicubic_skip={str(there).lower()}, or start from other weights"
        )
    return state


def card(weights: str | os.PathLike) -> dict:
    """The card of shipped weights or of a file: how they were trained, and their scores."""
    return _about(resolve(weights))["card"]


def pretrained(address: str, what: str, otherwise: str) -> Path:
    """The file of torchvision's weights at `address`, in torch's cache, downloaded where it must be.

    `what` names them and `otherwise` says what to do without them, in the ``FileNotFoundError`` when there is no network.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(address).name
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            checksum = path.stem.rpartition("-")[2]  # the name ends with the first digits of the file's SHA-256
            torch.hub.download_url_to_file(address, str(path), hash_prefix=checksum, progress=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise FileNotFoundError(
                f"{what} are not here and cannot be downloaded ({reason}): with a network, run curl -o {path} {address}; or {otherwise}"
            ) from None
    return path


def fill_features(features: nn.Module, path: Path, what: str) -> None:
    """Put a file's weights with torchvision's names ("features.0.weight", …) into a network's `features`, or its front.

    ``ValueError`` if the file is none of `what`, lacks one of them, or holds NaN; nothing in it is run.
    """
    expected = "expected a state dict with torchvision's names, as .safetensors, or .pth with nothing but tensors"
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
        missing = next((key for key in features.state_dict() if f"features.{key}" not in state), None)
        found = {} if missing else {key: state[f"features.{key}"] for key in features.state_dict()}
        if not all(torch.isfinite(tensor).all() for tensor in found.values()):
            raise ValueError
        features.load_state_dict(found, strict=not missing)
    except Exception:  # whatever a foreign file makes of it: pickles, text, another network
        raise ValueError(f"{path} holds no {what}: {expected}") from None
    if missing:
        raise ValueError(f"{path} has no weight features.{missing}: {expected}")


def resolve(weights: str | os.PathLike) -> Path:
    """The file of shipped weights by name, of a path, or of a training run's folder; ``FileNotFoundError`` if there is none."""
    path = Path(weights)
    if path.is_dir() and (path / "model.safetensors").is_file():
        return path / "model.safetensors"
    if path.is_file():
        return path
    named = _folder() / f"{weights}.safetensors"
    if named.is_file():
        return named
    raise FileNotFoundError(
        f"there are no weights {str(weights)!r}: "
        f"expected a .safetensors file, a run's folder, or one of {', '.join(shipped()) or '(none shipped)'}"
    )


@contextlib.contextmanager
def _not_far_beyond(sizes: list[int]) -> Iterator[None]:
    """``ValueError`` as soon as the modules built within need far more parameters than a file with tensors of these sizes holds.

    A builder may begin with more than it keeps, as the score predictors do with torchvision's backbones.
    """
    most, numbers = max(4 * len(sizes), 5000), max(2 * sum(sizes), 10**7)
    thread, count, built = threading.get_ident(), 0, 0

    def add(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal count, built
        if parameter is not None and threading.get_ident() == thread:
            count, built = count + 1, built + parameter.numel()
            if count > most or built > numbers:
                raise ValueError(f"it needs far more than the {sum(sizes):,} numbers in the file; expected one that srcourse has written")

    hook = register_module_parameter_registration_hook(add)
    try:
        yield
    finally:
        hook.remove()


def _shortened(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:300] + " ..."


def _about(path: Path) -> dict:
    with _open(path) as file:
        text = (file.metadata() or {}).get(_KEY)
    try:
        about = json.loads(text)
        if not isinstance(about["name"], str):
            raise TypeError
        return {"name": about["name"], "options": dict(about["options"]), "card": dict(about["card"])}
    except (TypeError, KeyError, ValueError, RecursionError):
        raise ValueError(f"{path} does not say what network it is for: expected a file written by srcourse.models.save") from None


def _open(path: Path):
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file ({error}): weights are never unpickled") from None


def _folder() -> Path:
    return Path(str(resources.files("srcourse"))) / "weights"
