"""Score predictors: what people would say of an image, as a distribution over the scores 1 to 10.

P002 §3.4 judges upscaled patches with two of them, trained on opinions about beauty (AVA) and about distortions
(TID2013); the network is NIMA (Talebi and Milanfar 2018) on MobileNetV2.
"""

import torch
from torch import nn

SCORES = 10  # 1, 2, … 10
_BLOCKS, _FEATURES = 17, 1280  # of MobileNetV2
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which the features expect


class ScorePredictor(nn.Module):
    """P002 §3.4 and §4.2: images (N, 3, H, W) in [0, 1] → probabilities (N, 10) of the scores 1 to 10.

    MobileNetV2's features, their average over the image (1280 numbers, P002's "representation"), dropout, one linear
    layer, softmax. Any size; P002 trains it on crops of 192×192, the size of the patches that it will judge.

    Parameters
    ----------
    width : float
        MobileNetV2's width multiplier; P002: 1.
    blocks, features : int
        How many of MobileNetV2's 17 inverted residual blocks, and how many averaged features; P002: all, and 1280. Few
        blocks see only fine detail, and learn it in a minute: the lessons' predictor.
    dropout : float
        Share of the averaged features that training leaves out; NIMA: 0.75.

    Raises
    ------
    ValueError
        For such an option out of range; in `forward`, for images of less than 32 pixels a side.

    Notes
    -----
    Trainable parameters: 2,236,682. ImageNet's mean and deviation are subtracted and divided inside.
    """

    def __init__(self, width: float = 1.0, blocks: int = _BLOCKS, features: int = _FEATURES, dropout: float = 0.75):
        super().__init__()
        if width <= 0 or not 0 <= dropout < 1:
            raise ValueError(f"width={width}, dropout={dropout}: expected a positive width, and a dropout from 0 to below 1")
        if not 1 <= blocks <= _BLOCKS or features < 1:
            raise ValueError(f"blocks={blocks}, features={features}: expected 1 to {_BLOCKS} blocks, and at least one feature")
        import torchvision  # here, as it takes seconds to load: lesson 00's first figure does without

        layers = torchvision.models.mobilenet_v2(weights=None, width_mult=width).features  # the stem, the blocks, a 1×1 convolution
        if (blocks, features) != (_BLOCKS, _FEATURES):
            last = torchvision.ops.Conv2dNormActivation(layers[blocks].out_channels, features, 1, activation_layer=nn.ReLU6)
            layers = nn.Sequential(*layers[: blocks + 1], last)
        self.features = layers
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(layers[-1].out_channels, SCORES))
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1), persistent=False)

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if min(images.shape[-2:]) < 32:
            raise ValueError(f"the images are {images.shape[-2]}×{images.shape[-1]}: expected at least 32 pixels a side")
        features = self.features((images - self.mean) / self.std).mean((-2, -1))  # (N, F): 1280 as published
        probabilities = self.head(features).float().softmax(dim=-1)  # (N, 10)
        return (probabilities, features) if return_features else probabilities


def mean_score(probabilities: torch.Tensor) -> torch.Tensor:
    """The expected score Σ i·p_i of distributions over 1 to 10: (..., 10) → (...,)."""
    return probabilities @ torch.arange(1, SCORES + 1, dtype=probabilities.dtype, device=probabilities.device)
