"""How good is an upscaled image? Fidelity to the original: PSNR and SSIM; what detail there is: spectra."""

from srcourse.metrics.fidelity import psnr, ssim
from srcourse.metrics.spectra import high_frequency_share, radial_spectrum

__all__ = ["high_frequency_share", "psnr", "radial_spectrum", "ssim"]
