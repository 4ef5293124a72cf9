"""How a low-resolution image comes to be: the degradations of P000 §4.1 and P001 §4.1, and their baseline inverse.

``downscale`` and ``upscale`` are MATLAB's bicubic ``imresize``. ``create`` builds the named degradations; each is a
callable from a high-resolution image to a low-resolution one, reproducible image by image from its seed.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from srcourse import images
from srcourse.resize import resize_bicubic
from srcourse.seeds import generator

SCALES = range(2, 9)


def downscale(image: torch.Tensor, scale: int, *, border: str = "mirror", round_between: bool = False) -> torch.Tensor:
    """Shrink by an integer factor with MATLAB's antialiased bicubic: the field's standard degradation.

    Parameters
    ----------
    image : (..., C, H, W) tensor in [0, 1], H and W multiples of `scale`
    scale : int, 2–8
    border, round_between
        The defaults are MATLAB's of today. ``border="clamp", round_between=True`` is the older MATLAB that made the
        LR files of Set5, Set14, BSD100 and Urban100, bit for bit (see `resize.resize_bicubic`).

    Returns
    -------
    (..., C, H/scale, W/scale) tensor, not clipped: bicubic overshoots a little at edges. Differentiable.

    Raises
    ------
    ValueError
        If a side is no multiple of `scale` (crop with `images.crop_to_multiple`), or the scale is not 2–8.
    """
    _check_scale(scale)
    images.check(image)
    _check_multiple(image, scale)
    height, width = image.shape[-2:]
    return _resize(image, (height // scale, width // scale), border=border, round_between=round_between)


def upscale(image: torch.Tensor, scale: int, *, border: str = "mirror") -> torch.Tensor:
    """Enlarge by an integer factor with MATLAB's bicubic: the baseline that every method has to beat.

    Parameters
    ----------
    image : (..., C, h, w) tensor in [0, 1]
    scale : int, 2–8

    Returns
    -------
    (..., C, scale·h, scale·w) tensor, not clipped. Differentiable.
    """
    _check_scale(scale)
    images.check(image)
    return _resize(image, (image.shape[-2] * scale, image.shape[-1] * scale), border=border)


def _resize(image: torch.Tensor, size: tuple[int, int], **options) -> torch.Tensor:
    flat = image.reshape(-1, *image.shape[-3:])  # (N, C, H, W), whatever comes before
    return resize_bicubic(flat, size, **options).reshape(*image.shape[:-2], *size)


def _check_scale(scale: int) -> None:
    if not isinstance(scale, int) or isinstance(scale, bool) or scale not in SCALES:
        raise ValueError(f"scale is {scale!r}: expected an integer from {SCALES[0]} to {SCALES[-1]}")


def _check_multiple(image: torch.Tensor, scale: int) -> None:
    channels, height, width = image.shape[-3:]
    if height % scale or width % scale:
        advice = f"crop it first with images.crop_to_multiple(image, {scale})"
        if width in (1, 3, 4) and channels not in (1, 3, 4):
            advice = f"channels come first, (3, H, W), and its shape is {tuple(image.shape)}: take image.movedim(-1, -3)"
        raise ValueError(f"an image of {height}×{width} pixels is no multiple of scale {scale}: {advice}")


# --- kernels ----------------------------------------------------------------------------------------------------


def gaussian_kernel(
    sigma: float | tuple[float, float], *, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), size: int | None = None
) -> torch.Tensor:
    """A sampled Gaussian blur kernel that sums to one: (size, size) float64, size odd.

    Parameters
    ----------
    sigma : float, or (across, along)
        Standard deviation in pixels; a pair makes it anisotropic.
    angle : float
        Direction of the second axis in radians.
    shift : (dy, dx)
        Where the kernel's centre lies, in pixels from the middle sample: a fraction moves the image by it.
    size : int, odd, optional
        By default wide enough for three standard deviations and the shift.
    """
    across, along = (sigma, sigma) if isinstance(sigma, int | float) else sigma
    if min(across, along) <= 0:
        raise ValueError(f"sigma is {sigma}: expected positive standard deviations in pixels")
    if size is None:
        size = 2 * math.ceil(3 * max(across, along) + max(abs(s) for s in shift)) + 1
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = torch.meshgrid(axis - shift[0], axis - shift[1], indexing="ij")
    u = math.cos(angle) * x - math.sin(angle) * y
    v = math.sin(angle) * x + math.cos(angle) * y
    kernel = torch.exp(-0.5 * ((u / across) ** 2 + (v / along) ** 2))
    return kernel / kernel.sum()


def blur(image: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Convolve every channel of (..., C, H, W) with one (k, k) kernel, edges replicated; same size."""
    pad = kernel.shape[-1] // 2
    flat = image.reshape(-1, 1, *image.shape[-2:])
    flat = F.pad(flat, (pad, pad, pad, pad), mode="replicate")
    weight = kernel.flip(0, 1).to(flat)[None, None]  # conv2d correlates; a convolution flips
    return F.conv2d(flat, weight).reshape(image.shape)


# --- degradations -----------------------------------------------------------------------------------------------
# A step maps (image, generator) to an image. A Degradation is a chain of steps with a seed.

Step = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


@dataclass(frozen=True)
class Bicubic:
    """MATLAB's bicubic reduction by `scale`."""

    scale: int

    def __call__(self, image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        return downscale(image, self.scale)


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with an isotropic Gaussian of `sigma` HR pixels (P000 §4.1: 1)."""

    sigma: float

    def __call__(self, image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        return blur(image, gaussian_kernel(self.sigma))


@dataclass(frozen=True)
class UnknownKernel:
    """A random anisotropic blur with a sub-pixel shift, then every `scale`-th pixel.

    NTIRE 2017 never published the operator of its "unknown" track (P001 §4.1), only that it blurs and decimates; ours
    draws, for each image, both standard deviations from [0.2, 0.6]·scale HR pixels, any direction, and a shift of up
    to half an LR pixel either way from where bicubic reduction would place it. (open)
    """

    scale: int

    def draw(self, random: torch.Generator) -> torch.Tensor:
        """The kernel that the generator's next numbers stand for: (k, k) float64."""
        u = torch.rand(5, generator=random, dtype=torch.float64).tolist()
        across, along = (self.scale * (0.2 + 0.4 * value) for value in u[:2])
        # pixel scale // 2 of a block is kept, and the block's middle lies at (scale - 1) / 2
        centre = self.scale // 2 - (self.scale - 1) / 2
        shift = (centre + (u[3] - 0.5) * self.scale, centre + (u[4] - 0.5) * self.scale)
        return gaussian_kernel((across, along), angle=math.pi * u[2], shift=shift)

    def __call__(self, image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        blurred = blur(image, self.draw(random))
        start = self.scale // 2
        return blurred[..., start :: self.scale, start :: self.scale]


@dataclass(frozen=True)
class Noise:
    """Additive white Gaussian noise of standard deviation `sigma`, in 8-bit grey levels (10 means 10/255)."""

    sigma: float

    def __call__(self, image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        noise = torch.randn(image.shape, generator=random, dtype=torch.float32)  # drawn on the CPU: the same everywhere
        return image + self.sigma / 255 * noise.to(image)


@dataclass(frozen=True)
class Jpeg:
    """A trip through a JPEG file of the given quality (1–95), chroma at half resolution as cameras do; no gradient."""

    quality: int

    def __call__(self, image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        if image.ndim > 3:
            return torch.stack([self(one, random) for one in image])
        buffer = io.BytesIO()
        pixels = images.to_uint8(image).permute(1, 2, 0).cpu().numpy()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=self.quality, subsampling="4:2:0")
        decoded = np.array(Image.open(buffer))
        return torch.from_numpy(decoded).permute(2, 0, 1).to(image) / 255


@dataclass(frozen=True)
class Degradation:
    """A chain of steps from HR to LR whose random choices are a function of (seed, index).

    Calling it with an image (..., 3, H, W) in [0, 1] gives the LR image, clipped to [0, 1]. `index` is the
    image's number in its collection: the same (seed, index) makes the same kernel and noise, another one others.
    """

    steps: Sequence[Step]
    scale: int
    seed: int = 0
    name: str = "custom"

    def __call__(self, image: torch.Tensor, index: int = 0) -> torch.Tensor:
        images.check(image)
        _check_multiple(image, self.scale)
        random = generator(self.seed, index)
        for step in self.steps:
            image = step(image, random)
        return image.clamp(0, 1)


def create(name: str, scale: int, seed: int = 0, *, sigma: float = 1.0, noise: float = 10.0, quality: int = 60) -> Degradation:
    """Build a named degradation.

    Parameters
    ----------
    name : str
        - "bicubic": the standard one;
        - "gaussian-bicubic": a Gaussian blur of `sigma` HR pixels first (P000 §4.1);
        - "unknown": a random blur and shift for each image, then decimation (P001 §4.1);
        - "noise", "jpeg": bicubic, then sensor noise or a JPEG file;
        - "realistic": blur, bicubic, noise and JPEG, in the order in which a camera does them.
    scale : int, 2–8
    seed : int
        Makes the random choices, with the image's index.
    sigma : float
        Blur in HR pixels, for "gaussian-bicubic" and "realistic".
    noise : float
        Standard deviation in 8-bit grey levels, for "noise" and "realistic".
    quality : int
        JPEG quality, 1–95, for "jpeg" and "realistic".

    Returns
    -------
    Degradation
        ``d(image, index=0)`` maps (..., 3, H, W) to (..., 3, H/scale, W/scale) in [0, 1]. For a chain of your own,
        compose the steps: ``Degradation([GaussianBlur(2), Bicubic(4), Jpeg(30)], scale=4)``.
    """
    _check_scale(scale)
    if noise < 0:
        raise ValueError(f"noise is {noise}: expected a standard deviation of at least 0 grey levels")
    if not 1 <= quality <= 95:
        raise ValueError(f"JPEG quality is {quality}: expected 1 to 95")
    bicubic = Bicubic(scale)
    chains = {
        "bicubic": [bicubic],
        "gaussian-bicubic": [GaussianBlur(sigma), bicubic],
        "unknown": [UnknownKernel(scale)],
        "noise": [bicubic, Noise(noise)],
        "jpeg": [bicubic, Jpeg(quality)],
        "realistic": [GaussianBlur(sigma), bicubic, Noise(noise), Jpeg(quality)],
    }
    if name not in chains:
        raise ValueError(f"there is no degradation {name!r}: expected one of {', '.join(chains)}")
    return Degradation(chains[name], scale=scale, seed=seed, name=name)
