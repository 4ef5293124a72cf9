"""PSNR and SSIM against scikit-image, closed forms and the published bicubic rows."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import srcourse as sr
from conftest import one_line


def pair(seed, height, width, dtype=torch.float64, channels=3):
    random = torch.Generator().manual_seed(seed)
    a = torch.rand(channels, height, width, generator=random, dtype=torch.float64)
    b = (a + 0.1 * torch.randn(channels, height, width, generator=random, dtype=torch.float64)).clamp(0, 1)
    return a.to(dtype), b.to(dtype)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), height=st.integers(15, 80), width=st.integers(15, 600), border=st.integers(0, 2), quantize=st.booleans())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_to_scikit_image(dtype, seed, height, width, border, quantize):
    a, b = pair(seed, height, width, dtype)
    y = [sr.images.rgb_to_y(sr.images.quantize(x.double()) if quantize else x.double())[0] for x in (a, b)]
    y = [x[border : height - border, border : width - border].numpy() for x in y]
    got = sr.metrics.psnr(a, b, border=border, quantize=quantize)
    assert got == pytest.approx(peak_signal_noise_ratio(*y, data_range=1), abs=1e-6)
    expected = structural_similarity(*y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1)
    assert sr.metrics.ssim(a, b, border=border, quantize=quantize) == pytest.approx(expected, abs=1e-6)


def test_rgb_is_the_mean_over_colours():
    a, b = pair(0, 32, 40)
    expected = structural_similarity(
        a.numpy(), b.numpy(), channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert sr.metrics.ssim(a, b, channel="rgb", quantize=False) == pytest.approx(expected, abs=1e-6)
    assert sr.metrics.psnr(a, b, channel="rgb", quantize=False) == pytest.approx(
        peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=1)
    )


def test_closed_forms():
    grey = torch.full((3, 16, 16), 100 / 255)
    assert sr.metrics.psnr(grey, grey + 5 / 255, channel="rgb") == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)
    assert sr.metrics.psnr(grey, grey) == math.inf
    assert sr.metrics.ssim(grey, grey) == pytest.approx(1)
    # luma shrinks an equal offset of all colours by 219/255
    expected = 20 * math.log10(255 / (5 * 219 / 255))
    assert sr.metrics.psnr(grey, grey + 5 / 255) == pytest.approx(expected, abs=1e-4)


def test_a_batch_gives_the_mean_of_decibels():
    a, b = pair(1, 20, 24)
    c, d = pair(2, 20, 24)[0], pair(3, 20, 24)[1]
    single = [sr.metrics.psnr(a, b), sr.metrics.psnr(c, d)]
    assert sr.metrics.psnr(torch.stack([a, c]), torch.stack([b, d])) == pytest.approx(sum(single) / 2)


def test_large_images_in_strips_equal_small_ones():
    a, b = pair(4, 300, 400)
    whole = sr.metrics.ssim(a, b, quantize=False)
    from srcourse.metrics.fidelity import _ssim_map

    ya, yb = (sr.images.rgb_to_y(x)[None] for x in (a, b))
    assert whole == pytest.approx(_ssim_map(ya, yb).mean().item(), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "scale", "psnr", "ssim"),
    [
        ("Set5", 2, 33.68, 0.9305),
        ("Set5", 3, 30.41, 0.8690),
        ("Set5", 4, 28.43, 0.8113),
        ("Set14", 2, 30.33, 0.8700),
        ("Set14", 3, 27.63, 0.7760),
        ("Set14", 4, 26.09, 0.7050),
    ],
)
def test_the_published_bicubic_rows(benchmarks_folder, name, scale, psnr, ssim):
    benchmark = sr.data.benchmarks(benchmarks_folder / name, scale)
    table = sr.evaluation.evaluate({"bicubic": sr.models.create("bicubic", scale=scale)}, benchmark)
    assert table.scores[0].psnr == pytest.approx(psnr, abs=0.005)
    assert table.scores[0].ssim == pytest.approx(ssim, abs=0.0003)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sr.metrics.psnr(torch.rand(3, 8, 8), torch.rand(3, 8, 9)), "equal shapes"),
        (lambda: sr.metrics.psnr(torch.rand(3, 8, 8), torch.rand(3, 8, 8), border=4), "leaves nothing"),
        (lambda: sr.metrics.psnr(torch.rand(3, 8, 8), torch.full((3, 8, 8), float("inf"))), "NaN or infinite"),
        (lambda: sr.metrics.psnr(torch.rand(3, 8, 8), torch.rand(3, 8, 8), channel="hsv"), "'y' or 'rgb'"),
        (lambda: sr.metrics.ssim(torch.rand(3, 10, 30), torch.rand(3, 10, 30)), "at least 11"),
        (lambda: sr.metrics.psnr(torch.rand(4, 8, 8), torch.rand(4, 8, 8)), "expected images"),
        (lambda: sr.metrics.psnr("a.png", torch.rand(3, 8, 8)), "is a str"),
    ],
)
def test_bad_input_gets_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_the_command_scores_two_files(command, tmp_path):
    a, b = pair(5, 30, 30)
    sr.images.write(tmp_path / "a.png", a)
    sr.images.write(tmp_path / "b.png", b)
    process = command("score", tmp_path / "a.png", tmp_path / "b.png", "--border", 4)
    assert f"PSNR {sr.metrics.psnr(a, b, border=4):.4f} dB" in process.stdout
    assert f"SSIM {sr.metrics.ssim(a, b, border=4):.5f}" in process.stdout
    sr.images.write(tmp_path / "c.png", a[:, :20])
    assert "expected equal shapes" in one_line(command("score", tmp_path / "a.png", tmp_path / "c.png"))


def test_high_frequency_share_of_known_waves():
    """Two waves of equal amplitude, one on each side of half the Nyquist frequency; then each alone."""
    x = torch.arange(256, dtype=torch.float64)
    low, high = (0.2 * torch.sin(2 * torch.pi * f / 256 * x).expand(1, 256, 256) for f in (32, 96))  # 1/4 and 3/4 of Nyquist
    share = sr.metrics.high_frequency_share
    assert share(0.5 + low + high) == pytest.approx(0.5, abs=1e-3)
    assert share(0.5 + low) < 1e-3 and share(0.5 + high) > 0.999
    assert share(0.5 + low, above=0.2) > 0.999
    assert share(torch.full((3, 16, 16), 0.3)) == pytest.approx(0, abs=1e-6)
    photo = sr.images.sample("astronaut")
    assert share(sr.degradation.upscale(sr.degradation.downscale(photo, 4), 4).clamp(0, 1)) < 0.01 * share(photo)


@pytest.mark.parametrize("above", [0, 1, -0.5])
def test_high_frequency_share_refuses_what_makes_no_sense(above):
    with pytest.raises(ValueError, match="between 0 and 1"):
        sr.metrics.high_frequency_share(torch.rand(3, 16, 16), above)
    with pytest.raises(ValueError, match="expected an image"):
        sr.metrics.high_frequency_share(torch.rand(2, 3, 16, 16))
