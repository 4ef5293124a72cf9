"""Reading and writing: every kind of file a user may have, and what is said of those that are none."""

import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import srcourse as sr
from conftest import one_line


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def test_an_image_survives_a_file(folder):
    image = sr.images.quantize(torch.rand(3, 7, 11))
    assert torch.equal(sr.images.read(sr.images.write(folder / "deep" / "a.png", image)), image)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_every_mode_becomes_rgb(folder, mode):
    grey = Image.fromarray(np.full((5, 6), 128, np.uint8))
    suffix = {"CMYK": "jpg", "F": "tif"}.get(mode, "png")
    if mode == "I;16":
        picture = Image.fromarray(np.full((5, 6), 128 * 257, np.uint16))
    elif mode == "F":
        picture = Image.fromarray(np.full((5, 6), 128 / 255, np.float32))
    elif mode == "1":
        picture = Image.fromarray(np.full((5, 6), 255, np.uint8)).convert("1")
    else:
        picture = (
            grey.convert("RGB").quantize(4) if mode == "P" else grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
        )
    picture.save(folder / f"a.{suffix}")
    image = sr.images.read(folder / f"a.{suffix}")
    assert image.shape == (3, 5, 6) and image.dtype == torch.float32
    expected = 1.0 if mode == "1" else 128 / 255
    assert torch.allclose(image, torch.tensor(expected), atol=0.02 if mode in ("CMYK", "P") else 1e-6)


def test_sixteen_bits_keep_their_steps(folder):
    Image.fromarray(np.array([[0, 1, 256, 65535]], np.uint16)).save(folder / "a.png")
    assert torch.allclose(sr.images.read(folder / "a.png")[0], torch.tensor([[0, 1, 256, 65535]]) / 65535)


def test_transparency_is_kept_or_laid_over_white(folder):
    image = torch.zeros(4, 4, 4)
    image[3] = 0.5
    sr.images.write(folder / "a.png", image)
    assert sr.images.read(folder / "a.png", alpha=True).shape == (4, 4, 4)
    assert torch.allclose(sr.images.read(folder / "a.png"), torch.tensor(0.5), atol=0.005)
    sr.images.write(folder / "b.png", torch.zeros(3, 4, 4))
    assert sr.images.read(folder / "b.png", alpha=True).shape == (3, 4, 4)


def test_the_cameras_orientation_is_applied(folder):
    picture = Image.fromarray(np.zeros((4, 6, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(folder / "a.jpg", exif=exif)
    assert sr.images.read(folder / "a.jpg").shape == (3, 6, 4)


def bomb(path):
    """A PNG header that promises a gigapixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def test_what_is_no_image_gets_one_clear_line(folder, command):
    (folder / "text.png").write_text("hello")
    (folder / "empty.png").write_bytes(b"")
    sr.images.write(folder / "whole.png", torch.rand(3, 40, 40))
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    bomb(folder / "bomb.png")
    for name, words in {
        "text.png": "is not an image",
        "empty.png": "is not an image",
        "cut.png": "damaged or cut short",
        "bomb.png": "pixels: crop or split",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            sr.images.read(folder / name)
        assert "\n" not in str(caught.value) and name in str(caught.value)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        sr.images.read(folder / "none.png")
    with pytest.raises(FileNotFoundError, match="is a folder"):
        sr.images.read(folder)
    # the command: the good one still comes, the bad one is named, the status says so
    process = command("upscale", folder / "text.png", folder / "whole.png", "--out", folder / "out")
    assert "text.png is not an image" in one_line(process)
    assert [p.name for p in (folder / "out").iterdir()] == ["whole_x4.png"]


@settings(max_examples=60, deadline=None)
@given(position=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(1, 500))
def test_a_corrupted_file_is_read_or_refused_but_never_crashes(tmp_path_factory, position, value, cut):
    path = tmp_path_factory.mktemp("fuzz") / "a.png"
    sr.images.write(path, torch.rand(3, 9, 9, generator=torch.Generator().manual_seed(0)))
    content = bytearray(path.read_bytes())[:cut]
    if position < len(content):
        content[position] = value
    path.write_bytes(bytes(content))
    try:
        image = sr.images.read(path)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert image.shape[0] == 3 and torch.isfinite(image).all()


def test_writing_bad_tensors_leaves_no_file(folder):
    for image, words in (
        (torch.full((3, 4, 4), float("nan")), "NaN"),
        (torch.rand(2, 4, 4), "shape"),
        (torch.rand(3, 4), "shape"),
        (torch.rand(3, 0, 4), "shape"),
    ):
        with pytest.raises(ValueError, match=words):
            sr.images.write(folder / "a.png", image)
    with pytest.raises(ValueError, match="no image suffix"):
        sr.images.write(folder / "a.txt", torch.rand(3, 4, 4))
    with pytest.raises(ValueError, match="transparency"):
        sr.images.write(folder / "a.jpg", torch.rand(4, 4, 4))
    assert list(folder.iterdir()) == []


def test_rounding_goes_half_up_and_clips():
    values = torch.tensor([-1.0, 0.0, 0.5, 1.5, 2.5, 254.5, 255.0, 300.0], dtype=torch.float64)
    assert sr.images.to_uint8(values, peak=255).tolist() == [0, 0, 1, 2, 3, 255, 255, 255]


def test_luma_is_matlabs():
    white, black, red = torch.ones(3, 1, 1), torch.zeros(3, 1, 1), torch.tensor([1.0, 0, 0])[:, None, None]
    assert sr.images.rgb_to_y(white).item() * 255 == pytest.approx(235, abs=1e-4)
    assert sr.images.rgb_to_y(black).item() * 255 == pytest.approx(16, abs=1e-4)
    assert sr.images.rgb_to_y(red).item() * 255 == pytest.approx(81.481, abs=1e-4)
    assert sr.images.rgb_to_y(torch.rand(2, 5, 3, 4, 4)).shape == (2, 5, 1, 4, 4)


@pytest.mark.parametrize("name", sr.images.SAMPLES)
def test_every_sample_photo_is_there(name):
    photo = sr.images.sample(name)
    assert photo.shape[0] == 3 and min(photo.shape[1:]) >= 256 and 0 <= photo.min() < photo.max() <= 1


def test_crops():
    image = torch.rand(2, 3, 10, 11)
    assert sr.images.crop_to_multiple(image, 4).shape == (2, 3, 8, 8)
    assert sr.images.crop_border(image, 2).shape == (2, 3, 6, 7)
    with pytest.raises(ValueError, match="leaves nothing"):
        sr.images.crop_border(image, 5)
    with pytest.raises(ValueError, match="smaller than the scale"):
        sr.images.crop_to_multiple(torch.rand(3, 1, 1), 2)


def test_images_of_another_range_are_refused():
    """As 0…255 or −1…1 they would score, and wrongly: 47 dB in place of 22."""
    image, bicubic = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)), sr.models.create("bicubic")
    for wrong in (255 * image, 2 * image - 1):
        for call in (lambda x: sr.metrics.psnr(image, x), lambda x: sr.metrics.ssim(image, x), lambda x: sr.upscale(bicubic, x)):
            with pytest.raises(ValueError, match=r"has values from .* expected \[0, 1\]; divide 0…255 by 255, for −1…1 take") as caught:
                call(wrong)
            assert "\n" not in str(caught.value)
    for call in (sr.metrics.niqe, lambda x: sr.degradation.downscale(x, 4), lambda x: sr.metrics.psnr(x, image)):
        with pytest.raises(ValueError, match=r"image has values from 0\.\d+ to 25\d: expected \[0, 1\]"):
            call(255 * image)
    assert sr.metrics.psnr(1.2 * image, image) < sr.metrics.psnr(1.1 * image, image)  # what overshoots counts as it is
