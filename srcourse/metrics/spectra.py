"""What an image holds at each spatial frequency: detail that PSNR hardly sees, and that MSE-trained networks leave out."""

import numpy as np
import torch

from srcourse import images


def radial_spectrum(image: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The luma power of an image by spatial frequency, averaged over directions.

    Parameters
    ----------
    image : (3, H, W) or (1, H, W) tensor in [0, 1]
        A Hann window is laid over it, so that its edges do not count as detail.

    Returns
    -------
    frequency, power : arrays
        Frequency as a fraction of the Nyquist frequency, in (0, 1]; power in the square of [0, 1] units.
    """
    power, radius = _power(image)
    bins = min(power.shape) // 2
    index = (radius * bins).long()
    inside = (index >= 1) & (index < bins + 1)
    counts = torch.bincount(index[inside], minlength=bins + 1)
    sums = torch.bincount(index[inside], weights=power[inside], minlength=bins + 1)
    return (np.arange(1, bins + 1) / bins), (sums / counts.clamp(min=1)).numpy()[1:]


def high_frequency_share(image: torch.Tensor, above: float = 0.5) -> float:
    """The share of an image's luma energy at frequencies above a fraction of Nyquist: 0 for a smooth image, 0.01 for a photo.

    Parameters
    ----------
    image : (3, H, W) or (1, H, W) tensor in [0, 1]
    above : float
        The boundary, as a fraction of the Nyquist frequency; counted are radii from there up to 1, over all radii up to 1.
        The mean is left out on both sides, and a Hann window is laid over the image.

    Raises
    ------
    ValueError
        If `above` is not between 0 and 1.
    """
    if not 0 < above < 1:
        raise ValueError(f"above is {above}: expected a fraction of the Nyquist frequency between 0 and 1")
    power, radius = _power(image)
    return (power[(radius > above) & (radius <= 1)].sum() / power[radius <= 1].sum().clamp(min=1e-30)).item()


def _power(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Power and distance from zero frequency (1 = Nyquist along an axis), both (H, W)."""
    images.check(image)
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"expected an image (3, H, W) or (1, H, W), got shape {tuple(image.shape)}")
    luma = images.rgb_to_y(image)[0] if image.shape[0] == 3 else image[0]
    luma = luma.detach().cpu().double()
    height, width = luma.shape
    window = torch.hann_window(height, dtype=torch.float64)[:, None] * torch.hann_window(width, dtype=torch.float64)
    power = torch.fft.fft2((luma - luma.mean()) * window, norm="ortho").abs().square() / window.square().mean()
    fy, fx = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.fftfreq(width, dtype=torch.float64)
    return power, 2 * torch.hypot(fy[:, None], fx[None, :])
