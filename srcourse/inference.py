"""Upscale an image with a network: any size and number of channels, in tiles, with self-ensemble, in repeated passes."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from srcourse import images
from srcourse.models.registry import DISCRIMINATORS, PREDICTORS
from srcourse.resize import resize_bicubic


def upscale(
    model: nn.Module,
    lr: torch.Tensor,
    *,
    tile: int | None = None,
    overlap: int = 48,
    ensemble: bool = False,
    passes: int = 1,
) -> torch.Tensor:
    """Upscale an image, or a batch, with a network.

    Parameters
    ----------
    model : nn.Module
        A network of `models.create` or `models.load`: (N, 3, h, w) → (N, 3, scale·h, scale·w). It runs in ``eval`` mode
        on its own device, and is left as it was.
    lr : (C, h, w) or (N, C, h, w) tensor in [0, 1]
        C = 3: colour. 1: grey, shown to the network as a colour image; what comes of all passes is averaged to grey. 4: RGB and
        opacity (enlarged bicubically).
    tile : int, optional
        Work in tiles of that many LR pixels a side, for images that do not fit in memory.
    overlap : int
        LR pixels that a tile sees beyond each of its edges. From the network's receptive radius on (SRResNet: 42),
        tiles make the same image as one piece does, up to float rounding.
    ensemble : bool
        Average over the eight flips and turns of the input (EDSR's self-ensemble): slower, usually 0.1 dB better.
    passes : int
        Apply the network to its own image, clamped to [0, 1], so often (P004 §4.4): s is then scale^passes.

    Returns
    -------
    (C, s·h, s·w), batched as `lr`, s = scale for one pass; in [0, 1], on `lr`'s device, without gradient.

    Raises
    ------
    ValueError
        If `lr` is not such an image, or `tile`, `overlap` or `passes` is out of range.
    """
    images.check(lr, name="lr", margin=0.5)
    if lr.ndim > 4 or lr.shape[-3] not in (1, 3, 4):
        raise ValueError(f"lr has shape {tuple(lr.shape)}: expected (1, 3 or 4, height, width), optionally batched")
    if getattr(model, "name", None) in (*DISCRIMINATORS, *PREDICTORS):
        raise ValueError(f"{model.name} judges images and does not enlarge them: expected a network such as srresnet")
    options = getattr(model, "options", None)
    if isinstance(options, dict) and options.get("image_channels", 3) != 3:
        raise ValueError(f"{model.name} was built with image_channels={options['image_channels']}: expected one for colour images")
    if tile is not None and tile < 8:
        raise ValueError(f"tile is {tile}: expected at least 8 LR pixels")
    if overlap < 0:
        raise ValueError(f"overlap is {overlap}: expected at least 0 LR pixels")
    if not isinstance(passes, int) or passes < 1:
        raise ValueError(f"passes is {passes!r}: expected a whole number of at least 1")
    batch = lr if lr.ndim == 4 else lr.unsqueeze(0)
    parameter = next(model.parameters(), None)
    where = batch.device if parameter is None else parameter.device
    colour = batch[:, :3].expand(-1, 3, -1, -1).to(where, torch.float32)  # grey becomes three equal channels

    with evaluating(model), torch.inference_mode():
        run = _ensemble if ensemble else _once
        sr = colour
        for _ in range(passes):
            sr = run(model, sr, tile, overlap).clamp(0, 1)
        sr = sr.to(lr.device)
    sr = sr.clone()  # out of inference mode: an ordinary tensor, which a loss may use
    if batch.shape[1] == 1:
        sr = sr.mean(1, keepdim=True)
    elif batch.shape[1] == 4:
        opacity = resize_bicubic(batch[:, 3:].float(), sr.shape[-2:]).clamp(0, 1)
        sr = torch.cat([sr, opacity], dim=1)
    return sr if lr.ndim == 4 else sr.squeeze(0)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``eval`` mode for a while; afterwards each of the network's modules is in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _once(model: nn.Module, lr: torch.Tensor, tile: int | None, overlap: int) -> torch.Tensor:
    height, width = lr.shape[-2:]
    if tile is None or (height <= tile and width <= tile):
        return _images(model, lr)
    sr = None
    for top, bottom in _spans(height, tile):
        for left, right in _spans(width, tile):
            # the tile, and as much around it as there is: image edges stay image edges
            up, low = max(0, top - overlap), min(height, bottom + overlap)
            west, east = max(0, left - overlap), min(width, right + overlap)
            piece = _images(model, lr[..., up:low, west:east])
            scale = piece.shape[-1] // (east - west)
            if sr is None:
                sr = piece.new_empty((*lr.shape[:-2], height * scale, width * scale))
            inner = piece[..., (top - up) * scale : (bottom - up) * scale, (left - west) * scale : (right - west) * scale]
            sr[..., top * scale : bottom * scale, left * scale : right * scale] = inner
    return sr


def _images(model: nn.Module, lr: torch.Tensor) -> torch.Tensor:
    sr = model(lr)
    if not isinstance(sr, torch.Tensor):
        raise ValueError(f"{type(model).__name__} returned a {type(sr).__name__}: expected one tensor of images (N, 3, s·h, s·w)")
    return sr.float()


def _spans(length: int, tile: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, tile):
        yield start, min(start + tile, length)


def _ensemble(model: nn.Module, lr: torch.Tensor, tile: int | None, overlap: int) -> torch.Tensor:
    total = None
    for flip in (False, True):
        for turns in range(4):
            view = torch.rot90(lr.flip(-1) if flip else lr, turns, (-2, -1))
            sr = torch.rot90(_once(model, view, tile, overlap), -turns, (-2, -1))
            sr = sr.flip(-1) if flip else sr
            total = sr if total is None else total + sr
    return total / 8
