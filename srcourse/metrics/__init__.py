"""How good is an upscaled image? Fidelity to the original: PSNR and SSIM; naturalness: NIQE and PI; what detail there is: spectra."""

from srcourse.metrics.fidelity import psnr, ssim
from srcourse.metrics.niqe import NIQE, niqe
from srcourse.metrics.perceptual import perceptual_index
from srcourse.metrics.spectra import high_frequency_share, radial_spectrum

__all__ = ["NIQE", "high_frequency_share", "niqe", "perceptual_index", "psnr", "radial_spectrum", "ssim"]
