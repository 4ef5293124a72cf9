"""Discriminators: networks that judge whether an image is a photograph or was generated.

Each takes images (N, 3, H, W) in [0, 1] and gives logits: positive where it believes in a photograph, and the sigmoid
of a logit is the probability that the papers call D(x). SRGAN's (P001 §3.2.1) gives one logit an image, the PatchGAN
(P000 §3.2, P003 §2.4) one for every patch; fftGAN's (P004 §4.3) looks at the image's spectrum.
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
        check_images(images, size=self.input_size)
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
        check_images(images, least=8)
        return self.layers(images)


class FFTDiscriminator(nn.Module):
    """The discriminator of fftGAN, P004 §4.3: spectra in place of pixels; (N, 3, s, s) → logits (N, 1).

    A Fourier transform without parameters, the magnitude of each frequency in each colour, and two fully connected layers.
    Moving the image, around its edges, changes the phases alone: this judge cannot see where anything is.

    Parameters
    ----------
    input_size : int
        Side of the square images in pixels.
    hidden : int
        Width of the first fully connected layer.
    log : bool
        log(1 + |F|) in place of P004's |F|: spectra fall by four orders of magnitude from the lowest to the highest frequency.
    phase : bool
        Beside the magnitude, its real and imaginary part: the judge then sees where things are, too.

    Raises
    ------
    ValueError
        In `forward`, for images of another size.

    Notes
    -----
    Trainable parameters at 96×96: 3,613,185; 14,452,737 with hidden=1024. Open in the paper: the widths, the transform's
    norm (here orthonormal, so that the numbers do not grow with the size) and that of the magnitudes. The transform is
    float32 within autocast, too: there is none for bf16.
    """

    def __init__(self, input_size: int = 96, hidden: int = 256, log: bool = True, phase: bool = False):
        super().__init__()
        if input_size < 8 or hidden < 1:
            raise ValueError(f"input_size={input_size}, hidden={hidden}: expected at least 8 and 1")
        self.input_size, self.log, self.phase = input_size, log, phase
        numbers = 3 * input_size * (input_size // 2 + 1) * (3 if phase else 1)
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(numbers, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))

    def spectrum(self, images: torch.Tensor) -> torch.Tensor:
        """What the dense layers see: (N, 3, s, s) → (N, 3, s, s/2 + 1), float32; (N, 9, s, s/2 + 1) with phase."""
        with torch.autocast(images.device.type, enabled=False):
            transform = torch.fft.rfft2(images.float(), norm="ortho")  # half of it: real images have symmetric spectra
            magnitude = transform.abs()
            seen = magnitude.log1p() if self.log else magnitude
            if not self.phase:
                return seen
            direction = transform * (seen / magnitude.clamp(min=1e-8))  # the same angle, compressed alike
            return torch.cat([seen, direction.real, direction.imag], dim=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images, size=self.input_size)
        return self.classifier(self.spectrum(images))


class EUSRDiscriminator(nn.Module):
    """The discriminator of P002 §3.3, figure 5: SRGAN's with two convolutions more and without BN.

    Parameters
    ----------
    input_size : int
        Side of the square images in pixels, for ``head="fc"``; P002: 192.
    head : "fc" or "patch"
        "fc", the paper's: two fully connected layers on all positions, (N, 3, s, s) → logits (N, 1). "patch", the
        authors' program: the same two layers at every position, (N, 3, H, W) → (N, 1, H/32, W/32), for any size.
    channels, hidden : int
        Channels of the first convolution, width of the first fully connected layer; P002: 32 and 1024.

    Raises
    ------
    ValueError
        In `forward`, for images of another size.

    Notes
    -----
    Trainable parameters: 23,588,641 with "fc" at 192×192, 5,238,561 with "patch". No BN: two photographs a batch are too
    few for its statistics (P002 §3.3). How its weights begin is open in the paper; here Glorot uniform, as EUSR's. Without BN
    nothing mends a signal that shrinks: from PyTorch's own start, a fresh one's verdicts of a sharp and a soft image are more than
    ten times closer.
    """

    def __init__(self, input_size: int = 192, head: str = "fc", channels: int = 32, hidden: int = 1024):
        super().__init__()
        if head not in ("fc", "patch"):
            raise ValueError(f"head is {head!r}: expected 'fc' or 'patch'")
        if input_size < 32 or channels < 1 or hidden < 1:
            raise ValueError(f"input_size={input_size}, channels={channels}, hidden={hidden}: expected at least 32, 1 and 1")
        self.input_size = input_size if head == "fc" else None
        layers: list[nn.Module] = []
        width, side = 3, input_size
        for doubling in range(5):
            for stride in (1, 2):
                layers += [nn.Conv2d(width, channels * 2**doubling, 3, stride, padding=1), nn.LeakyReLU(0.2)]
                width = channels * 2**doubling
            side = -(-side // 2)  # halves are rounded up
        self.features = nn.Sequential(*layers)
        if head == "fc":
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(width * side**2, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, 1))
        else:
            self.classifier = nn.Sequential(nn.Conv2d(width, hidden, 1), nn.LeakyReLU(0.2), nn.Conv2d(hidden, 1, 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        check_images(images, size=self.input_size, least=32)
        return self.classifier(self.features(images))


def check_images(images: torch.Tensor, *, size: int | None = None, least: int = 1) -> None:
    """Refuse what is not floating point (N, 3, H, W), of `size` × `size` if that is given, and of `least` pixels a side."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(f"the images are {images.dtype} {tuple(images.shape)}: expected floating point (N, 3, height, width) in [0, 1]")
    height, width = images.shape[-2:]
    if size is not None and (height, width) != (size, size):
        raise ValueError(f"the images are {height}×{width}: this discriminator was built for {size}×{size} (input_size={size})")
    if min(height, width) < least:
        raise ValueError(f"the images are {height}×{width}: expected at least {least} pixels a side")
