"""Score predictors: what people would say of an image, as a distribution over the scores 1 to 10.

P002 §3.4 judges upscaled patches with two of them, trained on opinions about beauty (AVA) and about distortions
(TID2013); the network is NIMA (Talebi and Milanfar 2018) on MobileNetV2.
"""

import torch
import torchvision
from torch import nn

SCORES = 10  # 1, 2, … 10
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the features expect


class ScorePredictor(nn.Module):
    """P002 §3.4 and §4.2: images (N, 3, H, W) in [0, 1] → probabilities (N, 10) of the scores 1 to 10.

    MobileNetV2's features, their average over the image (1280 numbers, P002's "representation"), dropout, one linear
    layer, softmax. Any size; P002 trains it on crops of 192×192, the size of the patches that it will judge.

    Parameters
    ----------
    width : float
        MobileNetV2's width multiplier; P002: 1. Features stay 1280.
    dropout : float
        Share of the averaged features that training leaves out; NIMA: 0.75.

    Notes
    -----
    Trainable parameters: 2,236,682. ImageNet's mean and deviation are subtracted and divided inside.
    """

    def __init__(self, width: float = 1.0, dropout: float = 0.75):
        super().__init__()
        if width <= 0 or not 0 <= dropout < 1:
            raise ValueError(f"width={width}, dropout={dropout}: expected a positive width, and a dropout from 0 to below 1")
        self.features = torchvision.models.mobilenet_v2(weights=None, width_mult=width).features
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(1280, SCORES))
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if min(images.shape[-2:]) < 32:
            raise ValueError(f"the images are {images.shape[-2]}×{images.shape[-1]}: expected at least 32 pixels a side")
        features = self.features((images - self.mean) / self.std).mean((-2, -1))  # (N, 1280)
        probabilities = self.head(features).float().softmax(dim=-1)  # (N, 10)
        return (probabilities, features) if return_features else probabilities


def mean_score(probabilities: torch.Tensor) -> torch.Tensor:
    """The expected score Σ i·p_i of distributions over 1 to 10: (..., 10) → (...,)."""
    return probabilities @ torch.arange(1, SCORES + 1, dtype=probabilities.dtype, device=probabilities.device)
