"""How good is an upscaled image? Fidelity to the original: PSNR and SSIM."""

from srcourse.metrics.fidelity import psnr, ssim

__all__ = ["psnr", "ssim"]
