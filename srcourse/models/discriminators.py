"""Discriminators: networks that judge whether an image is a photograph or was generated.

Each takes images (N, 3, H, W) in [0, 1] and gives logits: positive where it believes in a photograph, and the sigmoid
of a logit is the probability that the papers call D(x). SRGAN's (P001 §3.2.1) gives one logit an image, the PatchGAN
(P000 §3.2, P003 §2.4) one for every patch.
"""

import torch
from torch import nn


class SRGANDiscriminator(nn.Module):
    """The discriminator of P001 §3.2.1 and P004 §2.1 (Ledig et al. 2017): (N, 3, s, s) → logits (N, 1).

    Eight 3×3 convolutions, every second with stride 2, double the channels as they halve the sides; two fully connected
    layers look at everything at once, which is why the input's size is fixed, and why most parameters are there.

    Parameters
    ----------
    input_size : int
        Side of the square images in pixels; P001: 180.
    channels, hidden : int
        Channels of the first convolution, width of the first fully connected layer; P001: 64 and 1024.
    norm : bool
        Batch normalisation after every convolution but the first.

    Raises
    ------
    ValueError
        In `forward`, for images of another size.

    Notes
    -----
    Trainable parameters: 80,188,609 at 180×180, as P001 table 1; 23,565,505 at 96×96.
    """

    def __init__(self, input_size: int = 96, channels: int = 64, hidden: int = 1024, norm: bool = True):
        super().__init__()
        if input_size < 16 or channels < 1 or hidden < 1:
            raise ValueError(f"input_size={input_size}, channels={channels}, hidden={hidden}: expected at least 16, 1 and 1")
        self.input_size = input_size
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, padding=1), nn.LeakyReLU(0.2)]
        width, side = channels, input_size
        for out, stride in [(1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2)]:
            layers.append(nn.Conv2d(width, channels * out, 3, stride, padding=1))
            layers += [nn.BatchNorm2d(channels * out)] * norm + [nn.LeakyReLU(0.2)]
            width = channels * out
            side = -(-side // stride)  # halves are rounded up
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(width * side**2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        size = self.input_size
        if images.shape[-2:] != (size, size):
            height, width = images.shape[-2:]
            raise ValueError(f"the images are {height}×{width}: this discriminator was built for {size}×{size} (input_size={size})")
        return self.classifier(self.features(images))  # (N, 8C, s/16, s/16) → (N, 1)


class PatchDiscriminator(nn.Module):
    """The PatchGAN of P000 §3.2, figure 4, also P003's (§2.4): (N, 3, H, W) → logits (N, 1, H/8, W/8), any size.

    Every logit judges the 71×71 pixels around its position (measured from gradients in the tests), 8 pixels from the
    next: an image is a crowd of patches, and only what shows within one can be told apart (Isola et al. 2017).

    Parameters
    ----------
    channels : int
        Channels of the first convolution; P000: 64.
    norm : bool
        Batch normalisation after the four middle convolutions, which then have no bias.

    Notes
    -----
    Trainable parameters: 3,919,873. P003 writes that convolutions and poolings all have stride 2; taken literally, its
    six convolutions and as many poolings would shrink an image 4096 times, to less than a pixel. We take P000's strides.
    """

    def __init__(self, channels: int = 64, norm: bool = True):
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels is {channels}: expected at least 1")
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 5, stride=2, padding=2), nn.LeakyReLU(0.2)]
        width = channels
        for out, pool in [(2, True), (4, True), (8, False), (8, False)]:
            layers.append(nn.Conv2d(width, channels * out, 3, padding=1, bias=not norm))
            layers += [nn.BatchNorm2d(channels * out)] * norm + [nn.LeakyReLU(0.2)] + [nn.MaxPool2d(2)] * pool
            width = channels * out
        layers.append(nn.Conv2d(width, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if min(images.shape[-2:]) < 8:
            raise ValueError(f"the images are {images.shape[-2]}×{images.shape[-1]}: expected at least 8 pixels a side")
        return self.layers(images)
