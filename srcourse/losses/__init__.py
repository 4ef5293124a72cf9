"""Losses beyond one line of PyTorch: adversarial, perceptual, of naturalness, of predicted opinions, and over stages."""

from srcourse.losses.adversarial import KINDS, discriminator_accuracy, discriminator_loss, generator_loss, log_mean_sigmoid
from srcourse.losses.naturalness import NaturalnessLoss
from srcourse.losses.perceptual import PerceptualLoss, TextureLoss, gram_matrix
from srcourse.losses.pixelwise import PIXELWISE, multi_stage_loss
from srcourse.losses.quality import representation_loss, score_loss, squared_emd

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
    "representation_loss",
    "score_loss",
    "squared_emd",
]
