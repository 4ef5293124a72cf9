"""Losses beyond one line of PyTorch: adversarial, perceptual, of naturalness, and over the stages of a cascade."""

from srcourse.losses.adversarial import KINDS, discriminator_accuracy, discriminator_loss, generator_loss, log_mean_sigmoid
from srcourse.losses.naturalness import NaturalnessLoss
from srcourse.losses.perceptual import PerceptualLoss, TextureLoss, gram_matrix
from srcourse.losses.pixelwise import PIXELWISE, multi_stage_loss

__all__ = [
    "KINDS",
    "PIXELWISE",
    "NaturalnessLoss",
    "PerceptualLoss",
    "TextureLoss",
    "discriminator_accuracy",
    "discriminator_loss",
    "generator_loss",
    "gram_matrix",
    "log_mean_sigmoid",
    "multi_stage_loss",
]
