"""Degradations against the truth: MATLAB's files bit for bit, and an independent NumPy reference."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import srcourse as sr


def cubic(x):
    """Keys' kernel with a = -0.5, written from the 1981 paper."""
    x = np.abs(x)
    return np.where(x <= 1, 1.5 * x**3 - 2.5 * x**2 + 1, np.where(x < 2, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2, 0))


def reference_matrix(length, target):
    """(target, length) weights of one axis in float64: each output pixel from its neighbours, mirrored at the ends."""
    factor = length / target
    width = max(factor, 1)
    matrix = np.zeros((target, length))
    for i in range(target):
        centre = (i + 0.5) * factor - 0.5
        taps = np.arange(int(np.floor(centre - 2 * width)) - 1, int(np.ceil(centre + 2 * width)) + 2)
        weights = cubic((taps - centre) / width)
        weights /= weights.sum()
        for tap, weight in zip(taps, weights, strict=True):
            mirrored = tap % (2 * length)
            matrix[i, min(mirrored, 2 * length - 1 - mirrored)] += weight
    return matrix


def reference(image, size):
    rows, columns = reference_matrix(image.shape[-2], size[0]), reference_matrix(image.shape[-1], size[1])
    return rows @ image.double().numpy() @ columns.T


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("size", [(48, 72), (24, 24)])
def test_downscale_equals_the_reference_up_to_the_borders(scale, size):
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(scale))
    small = (size[0] // scale, size[1] // scale)
    for dtype in (torch.float32, torch.float64):
        got = sr.degradation.downscale(image.to(dtype), scale)
        assert got.dtype == dtype
        assert np.abs(got.double().numpy() - reference(image, small)).max() < 1e-6


@pytest.mark.parametrize("scale", range(2, 9))
def test_upscale_equals_the_reference_up_to_the_borders(scale):
    image = torch.rand(3, 9, 13, generator=torch.Generator().manual_seed(scale))
    got = sr.degradation.upscale(image, scale)
    assert np.abs(got.double().numpy() - reference(image, (9 * scale, 13 * scale))).max() < 1e-6


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_the_benchmarks_own_files_bit_for_bit(benchmarks_folder, name, scale):
    files = sr.images.find(benchmarks_folder / name / "HR")
    assert len(files) == {"Set5": 5, "Set14": 14}[name]
    for file in files:
        hr = sr.images.crop_to_multiple(sr.images.read(file), scale)
        made = sr.degradation.downscale(hr, scale, border="clamp", round_between=True)
        stored = sr.images.read(benchmarks_folder / name / f"LRx{scale}" / file.name)
        assert torch.equal(sr.images.to_uint8(made), sr.images.to_uint8(stored)), file.name


@settings(max_examples=30, deadline=None)
@given(scale=st.integers(2, 8), height=st.integers(1, 7), width=st.integers(1, 7), seed=st.integers(0, 99))
def test_resizing_commutes_with_flips_and_keeps_flat_images(scale, height, width, seed):
    image = torch.rand(2, 3, height * scale, width * scale, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    small = sr.degradation.downscale(image, scale)
    assert small.shape == (2, 3, height, width)
    for axis in (-1, -2):
        assert torch.allclose(sr.degradation.downscale(image.flip(axis), scale), small.flip(axis), atol=1e-12)
    flat = torch.full((3, height, width), 0.25, dtype=torch.float64)
    assert torch.allclose(sr.degradation.upscale(flat, scale), torch.tensor(0.25, dtype=torch.float64))


def test_gradients_flow():
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: sr.degradation.downscale(x, 4), image)
    assert torch.autograd.gradcheck(lambda x: sr.degradation.upscale(x, 2), image)


def test_half_precision_comes_back_as_it_came():
    image = torch.rand(3, 16, 16)
    for dtype in (torch.float16, torch.bfloat16):
        got = sr.degradation.downscale(image.to(dtype), 2)
        assert got.dtype == dtype
        assert torch.allclose(got.float(), sr.degradation.downscale(image.to(dtype).float(), 2), atol=0.01)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sr.degradation.downscale(torch.rand(3, 511, 512), 4), "no multiple of scale 4: crop it first"),
        (lambda: sr.degradation.downscale(torch.rand(3, 1, 1), 4), "no multiple"),
        (lambda: sr.degradation.downscale(torch.rand(3, 8, 8), 9), "integer from 2 to 8"),
        (lambda: sr.degradation.downscale(torch.rand(3, 8, 8), 2.0), "integer from 2 to 8"),
        (lambda: sr.degradation.upscale(torch.rand(8, 8), 2), "shape"),
        (lambda: sr.degradation.upscale(torch.full((3, 8, 8), float("nan")), 2), "NaN"),
        (lambda: sr.degradation.upscale((torch.rand(3, 8, 8) * 255).byte(), 2), "dtype"),
        (lambda: sr.degradation.upscale([1, 2], 2), "is a list"),
        (lambda: sr.degradation.downscale(torch.rand(3, 8, 8), 2, border="wrap"), "mirror"),
        (lambda: sr.degradation.create("fog", 4), "no degradation 'fog'"),
        (lambda: sr.degradation.create("jpeg", 4, quality=0), "quality"),
        (lambda: sr.degradation.create("noise", 4, noise=-1), "noise"),
        (lambda: sr.degradation.create("bicubic", 4)(torch.rand(3, 9, 8)), "no multiple"),
        (
            lambda: sr.degradation.downscale(torch.rand(64, 64, 3), 4),
            r"channels come first, \(3, H, W\), and its shape is \(64, 64, 3\): take image\.movedim\(-1, -3\)$",
        ),
        (lambda: sr.degradation.create("noise", 2)(torch.rand(2, 8, 8, 3)), r"channels come first.*\(2, 8, 8, 3\)"),
        (lambda: sr.degradation.downscale(np.zeros((64, 64, 3)), 4), r"is a ndarray: expected a torch tensor \(3, H, W\)"),
    ],
)
def test_bad_input_gets_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- named degradations -----------------------------------------------------------------------------------------

NAMES = ["bicubic", "gaussian-bicubic", "unknown", "noise", "jpeg", "realistic"]


@pytest.mark.parametrize("name", NAMES)
def test_every_degradation_is_reproducible_image_by_image(name):
    photo = sr.data.DeadLeaves(0, 64)[0]
    first, again = (sr.degradation.create(name, scale=4, seed=7) for _ in range(2))
    assert first(photo).shape == (3, 16, 16)
    assert first(photo).min() >= 0 and first(photo).max() <= 1
    assert torch.equal(first(photo, 3), again(photo, 3))
    random = name in ("unknown", "noise", "realistic")
    assert torch.equal(first(photo, 3), first(photo, 4)) == (not random)
    assert torch.equal(first(photo), sr.degradation.create(name, scale=4, seed=8)(photo)) == (not random)


def test_gaussian_kernel_has_its_moments():
    kernel = sr.degradation.gaussian_kernel((1.5, 3.0), angle=0.0, shift=(0.3, -0.4), size=41)
    axis = torch.arange(41, dtype=torch.float64) - 20
    assert kernel.sum().item() == pytest.approx(1)
    rows, columns = kernel.sum(1), kernel.sum(0)
    assert (rows * axis).sum().item() == pytest.approx(0.3, abs=1e-6)
    assert (columns * axis).sum().item() == pytest.approx(-0.4, abs=1e-6)
    assert (columns * (axis + 0.4) ** 2).sum().sqrt().item() == pytest.approx(1.5, abs=1e-6)
    assert (rows * (axis - 0.3) ** 2).sum().sqrt().item() == pytest.approx(3.0, abs=1e-6)


def test_a_shifted_kernel_moves_the_image_the_right_way():
    image = torch.zeros(1, 21, 21, dtype=torch.float64)
    image[0, 10, 10] = 1
    moved = sr.degradation.blur(image, sr.degradation.gaussian_kernel(0.5, shift=(2.0, -3.0)))
    assert divmod(moved[0].argmax().item(), 21) == (12, 7)


def test_noise_has_its_strength_and_jpeg_its_quality():
    flat = torch.full((3, 256, 256), 0.5)
    noisy = sr.degradation.create("noise", 2, noise=12.0)(flat)
    assert (noisy - 0.5).std().item() * 255 == pytest.approx(12, rel=0.02)
    photo = sr.data.DeadLeaves(0, 128)[0]
    clean = sr.degradation.downscale(photo, 2)
    errors = [(sr.degradation.create("jpeg", 2, quality=q)(photo) - clean).abs().mean().item() for q in (90, 50, 10)]
    assert errors == sorted(errors) and errors[0] > 0


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_unknown_shifts_are_centred(scale):
    """Over many images the mean LR position is bicubic's: a ramp, whose values are positions, tells."""
    size = 24 * scale
    ramp = torch.linspace(0, 1, size, dtype=torch.float64).expand(3, size, size).contiguous()
    degrade, bicubic = sr.degradation.create("unknown", scale), sr.degradation.downscale(ramp, scale)
    moved = [(degrade(ramp, i) - bicubic)[..., 8:16].mean().item() * (size - 1) / scale for i in range(200)]  # in LR pixels
    assert max(moved) == pytest.approx(0.5, abs=0.03) and min(moved) == pytest.approx(-0.5, abs=0.03)
    assert sum(moved) / 200 == pytest.approx(0, abs=0.06)


def test_unknown_kernels_blur_and_differ():
    operator = sr.degradation.UnknownKernel(4)
    from srcourse.seeds import generator

    kernels = [operator.draw(generator(0, i)) for i in range(5)]
    for kernel in kernels:
        assert kernel.sum().item() == pytest.approx(1) and kernel.min() >= 0
    assert len({kernel.shape for kernel in kernels} | {round(k.max().item(), 6) for k in kernels}) > 3
