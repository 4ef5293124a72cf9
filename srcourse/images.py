"""Images in and out: files, colour, 8-bit rounding, borders, and the sample photos of the course.

Everywhere in this package a colour image is a float32 tensor (3, H, W), sRGB in [0, 1]; a batch is (N, 3, H, W).
"""

import math
import os
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from srcourse.files import whole_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")

# What is read, whatever the suffix says. Pillow knows more: of those, EPS would even start another program.
_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "PPM", "GIF")

SAMPLES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "motorcycle": "motorcycle_left.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
}
"""Names of the sample photos, and their files in scikit-image's wheel."""


# --- files ------------------------------------------------------------------------------------------------------


def read(path: str | os.PathLike, *, alpha: bool = False) -> torch.Tensor:
    """Read an image file as a float32 RGB tensor in [0, 1].

    Grey, palette, CMYK and 16-bit files are converted; the camera's orientation tag is applied. Of an animation or a
    file with several pages, the first one.

    Parameters
    ----------
    alpha : bool
        False (default): transparent pixels are laid over white. True: an image with transparency comes back as
        (4, H, W), RGB and opacity; one without it as (3, H, W).

    Returns
    -------
    (3, H, W) float32 tensor in [0, 1]; (4, H, W) with ``alpha=True`` and a transparent file.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not a readable image (text named .png, truncated, too many pixels ...).
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise FileNotFoundError(f"{path} {what}: expected an image file ({', '.join(SUFFIXES[:3])}, ...)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file's tags is no concern of whoever reads the image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            with Image.open(path, formats=[name for name in _FORMATS if name in Image.OPEN]) as file:
                file.load()
                image = ImageOps.exif_transpose(file)
    except UnidentifiedImageError:
        kinds = "PNG, JPEG, GIF, TIFF, WebP, BMP or PPM (save a telephone's HEIC as JPEG)"
        raise ValueError(f"{path} is not an image that can be read: expected {kinds}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{path} has more than {Image.MAX_IMAGE_PIXELS:,} pixels: crop or split it first") from None
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged or cut short ({reason}): replace it with an intact copy") from None
    try:
        return _from_pil(image, keep_alpha=alpha)
    except Exception as error:  # a mode that Pillow cannot convert, or too little memory
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be used: {reason}") from None


def _from_pil(image: Image.Image, keep_alpha: bool) -> torch.Tensor:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):  # 16-bit grey
        if np.asarray(image).max() > 65535:
            raise ValueError("it holds 32-bit integers: expected at most 16 bits for each pixel")
        grey = torch.from_numpy(np.asarray(image).astype(np.float32) / 65535).clamp(0, 1)
        return grey.expand(3, -1, -1).clone()
    if image.mode == "F":
        grey = torch.from_numpy(np.asarray(image, dtype=np.float32).copy()).clamp(0, 1)
        if grey.isnan().any():
            raise ValueError("it holds NaN: expected brightness from 0 to 1")
        return grey.expand(3, -1, -1).clone()
    transparent = image.has_transparency_data
    image = image.convert("RGBA" if transparent else "RGB")
    array = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3 or 4, H, W)
    if transparent and not keep_alpha:
        colour, opacity = array[:3], array[3:]
        array = colour * opacity + (1 - opacity)
    return array.contiguous()


def write(path: str | os.PathLike, image: torch.Tensor, *, quality: int = 95) -> Path:
    """Write an image, rounded to 8 bits; the file appears whole or not at all.

    Parameters
    ----------
    path : path
        Its suffix chooses the format; the folder is created when missing.
    image : (1, H, W), (3, H, W) or (4, H, W) tensor in [0, 1]
        Grey, RGB or RGB with opacity. Values outside are clipped.
    quality : int
        For JPEG and WebP, 1–100.

    Raises
    ------
    ValueError
        For another shape, NaN or infinite values, or an unknown suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{path} has no image suffix: expected one of {', '.join(SUFFIXES)}")
    if image.ndim != 3 or image.shape[0] not in (1, 3, 4) or image.numel() == 0:
        raise ValueError(f"cannot write a tensor of shape {tuple(image.shape)}: expected (1, 3 or 4, height, width)")
    if not torch.isfinite(image).all():
        raise ValueError("cannot write an image that holds NaN or infinite values: check what produced it")
    array = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    if picture.mode == "RGBA" and path.suffix.lower() in (".jpg", ".jpeg", ".ppm", ".pgm"):
        raise ValueError(f"{path.suffix} cannot hold transparency: write a .png instead")
    with whole_file(path) as partial:
        picture.save(partial, quality=quality)
    return path


def find(folder: str | os.PathLike) -> list[Path]:
    """The image files directly in a folder, in name order; ``ValueError`` if there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise FileNotFoundError(f"{folder} {what}: expected a folder of images")
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
    if not files:
        raise ValueError(f"{folder} holds no images: expected files ending in {', '.join(SUFFIXES)}")
    return files


def sample(name: str) -> torch.Tensor:
    """A sample photo that ships with scikit-image: (3, H, W) float32 in [0, 1]; `SAMPLES` lists the names."""
    if name not in SAMPLES:
        raise ValueError(f"there is no sample photo {name!r}: expected one of {', '.join(SAMPLES)}")
    import skimage.data

    return read(Path(skimage.data.__file__).parent / SAMPLES[name])


# --- values -----------------------------------------------------------------------------------------------------


def to_uint8(image: torch.Tensor, *, peak: float = 1) -> torch.Tensor:
    """Round an image in [0, peak] to 8 bits, halves up as MATLAB's ``im2uint8``: a uint8 tensor of the same shape.

    The only place in the package where 8-bit rounding happens. Values outside the range are clipped; ``ValueError`` for NaN, which
    no byte can hold.
    """
    if image.isnan().any():
        raise ValueError("the image holds NaN: check what produced it")
    return (image.detach().clamp(0, peak) * (255 / peak) + 0.5).floor().to(torch.uint8)


def quantize(image: torch.Tensor) -> torch.Tensor:
    """The image as it would come back from an 8-bit file: same dtype and shape, multiples of 1/255 (no gradient)."""
    return to_uint8(image).to(image.dtype) / 255


def rgb_to_y(image: torch.Tensor) -> torch.Tensor:
    """Luma of an sRGB image as the field measures it: ITU-R BT.601, studio range, scaled to [0, 1].

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255, so that black is 16/255 and white 235/255: MATLAB's
    ``rgb2ycbcr``, without rounding.

    Parameters
    ----------
    image : (..., 3, H, W) tensor in [0, 1]

    Returns
    -------
    (..., 1, H, W) tensor, same dtype.
    """
    if image.ndim < 3 or image.shape[-3] != 3:
        raise ValueError(f"expected a colour image (..., 3, H, W), got shape {tuple(image.shape)}")
    red, green, blue = image.unbind(-3)
    return ((16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255).unsqueeze(-3)


# --- sizes ------------------------------------------------------------------------------------------------------


def crop_to_multiple(image: torch.Tensor, scale: int) -> torch.Tensor:
    """Cut (..., H, W) at the bottom and right to the largest size that `scale` divides."""
    height, width = image.shape[-2] // scale * scale, image.shape[-1] // scale * scale
    if not (height and width):
        raise ValueError(f"an image of {image.shape[-2]}×{image.shape[-1]} pixels is smaller than the scale {scale}")
    return image[..., :height, :width]


def crop_border(image: torch.Tensor, border: int) -> torch.Tensor:
    """Cut `border` pixels off all four sides of (..., H, W)."""
    height, width = image.shape[-2:]
    if border < 0 or 2 * border >= min(height, width):
        raise ValueError(f"a border of {border} pixels leaves nothing of {height}×{width}: expected 0 to {(min(height, width) - 1) // 2}")
    return image[..., border : height - border, border : width - border]


def check(image: torch.Tensor, *, name: str = "image", margin: float = 1.0) -> torch.Tensor:
    """Refuse what is not a finite floating-point image (..., C, H, W) with one clear line; returns it unchanged.

    Values may lie outside [0, 1] by `margin`, as filters and networks overshoot. The default refuses those of 0…255, one half
    those of −1…1 as well.
    """
    if not isinstance(image, torch.Tensor):
        raise ValueError(f"{name} is a {type(image).__name__}: expected a torch tensor (3, H, W) in [0, 1]; see srcourse.images.read")
    if not image.is_floating_point():
        raise ValueError(f"{name} has dtype {image.dtype}: expected floating point in [0, 1]; divide 8-bit values by 255")
    if image.ndim < 3 or image.numel() == 0:
        raise ValueError(f"{name} has shape {tuple(image.shape)}: expected (channels, height, width), optionally batched")
    lowest, highest = (value.item() for value in image.detach().aminmax())  # NaN where there is one
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise ValueError(f"{name} holds NaN or infinite values: check what produced it")
    if lowest < -margin or highest > 1 + margin:
        raise ValueError(
            f"{name} has values from {lowest:.3g} to {highest:.3g}: expected [0, 1]; divide 0…255 by 255, for −1…1 take (x + 1) / 2"
        )
    return image
