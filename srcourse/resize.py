"""Bicubic resizing as MATLAB's ``imresize`` does it: the operator behind every number in the field.

Keys' cubic kernel with a = -0.5 (R. Keys, 1981), widened by the scale when shrinking (antialiasing), weights that
sum to one, and image edges mirrored. PyTorch's own bicubic differs in two ways that cost up to a decibel: it uses
a = -0.75, and shrinks without antialiasing, unless ``antialias=True``, which switches both.
"""

import torch
import torch.nn.functional as F

from srcourse.images import to_uint8

_KERNEL_RADIUS = 2  # Keys' kernel is zero beyond two (coarse) pixels


def resize_bicubic(
    image: torch.Tensor,
    size: tuple[int, int],
    *,
    border: str = "mirror",
    round_between: bool = False,
) -> torch.Tensor:
    """Resize images to ``size`` = (height, width), each side by an integer factor up or down.

    Parameters
    ----------
    image : (C, H, W) or (N, C, H, W) floating-point tensor
        Computed in float64 (Apple GPUs have none: float32), returned in its own precision: in float32, the positions of
        a large image's pixels would be rounded. Gradients flow, except with `round_between`.
    border : "mirror" or "clamp"
        How the image goes on beyond its edges: mirrored with the edge pixel repeated (MATLAB today), or the edge pixel
        for ever (the older MATLAB that made the benchmark files).
    round_between : bool
        Round to 8 bits after the vertical pass and again after the horizontal one, as that older MATLAB did on
        uint8 images. The result then holds multiples of 1/255.

    Raises
    ------
    ValueError
        If a side is not an integer multiple or fraction of the new one, or `border` is unknown.
    """
    if border not in ("mirror", "clamp"):
        raise ValueError(f"border is {border!r}: expected 'mirror' or 'clamp'")
    batch = image if image.ndim == 4 else image.unsqueeze(0)
    precision = torch.float32 if batch.device.type == "mps" else torch.float64
    working = batch.to(precision)
    if round_between:
        working = to_uint8(working).to(precision)  # whole grey levels: halves then come out exact, and round as they should
        for axis, target in ((2, size[0]), (3, size[1])):
            working = to_uint8(_resize_axis(working, axis, target, border), peak=255).to(precision)
        working = working / 255
    else:
        working = _resize_both(working, size, border)
    resized = working.to(image.dtype)
    return resized if image.ndim == 4 else resized.squeeze(0)


def _resize_both(batch: torch.Tensor, size: tuple[int, int], border: str) -> torch.Tensor:
    """Both axes in one call of F.interpolate, on a copy padded so far that its own edge rule never shows."""
    pads, padded_size = [], []
    for axis, target in ((2, size[0]), (3, size[1])):
        pad, pad_after = _padding(batch.shape[axis], target)
        batch = _extend(batch, axis, pad, border)
        pads.append(pad_after)
        padded_size.append(target + 2 * pad_after)
    out = F.interpolate(batch, size=padded_size, mode="bicubic", align_corners=False, antialias=True)
    return out[..., pads[0] : pads[0] + size[0], pads[1] : pads[1] + size[1]]


def _resize_axis(batch: torch.Tensor, axis: int, target: int, border: str) -> torch.Tensor:
    pad, pad_after = _padding(batch.shape[axis], target)
    batch = _extend(batch, axis, pad, border)
    size = list(batch.shape[2:])
    size[axis - 2] = target + 2 * pad_after
    out = F.interpolate(batch, size=size, mode="bicubic", align_corners=False, antialias=True)
    return out.narrow(axis, pad_after, target)


def _padding(length: int, target: int) -> tuple[int, int]:
    """Pixels to add at each end before resizing, and how many that makes afterwards."""
    if target < 1 or length < 1 or (length % target and target % length):
        raise ValueError(f"cannot resize a side of {length} pixels to {target}: expected an integer factor up or down")
    coarse = _KERNEL_RADIUS + 1
    if length >= target:
        return coarse * (length // target), coarse
    return coarse, coarse * (target // length)


def _extend(batch: torch.Tensor, axis: int, pad: int, border: str) -> torch.Tensor:
    """Lengthen one axis by `pad` at both ends; works for images smaller than the padding too."""
    length = batch.shape[axis]
    if border == "clamp":
        first, last = batch.narrow(axis, 0, 1), batch.narrow(axis, length - 1, 1)
        shape = [pad if i == axis else -1 for i in range(batch.ndim)]
        return torch.cat([first.expand(shape), batch, last.expand(shape)], dim=axis)
    if pad <= length:
        before, after = batch.narrow(axis, 0, pad).flip(axis), batch.narrow(axis, length - pad, pad).flip(axis)
        return torch.cat([before, batch, after], dim=axis)
    index = torch.arange(-pad, length + pad, device=batch.device) % (2 * length)  # ... 1 0 | 0 1 ... n-1 | n-1 n-2 ...
    return batch.index_select(axis, torch.minimum(index, 2 * length - 1 - index))
