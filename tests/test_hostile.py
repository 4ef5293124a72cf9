"""Files from strangers: weights, recipes and images that lie, explode or run something are refused in one line, and cheaply."""

import io
import json
import os
import pickle
import struct
import time
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import srcourse as sr


class Bomb:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return (os.mkdir, (self.folder,))


def one_line(error, path):
    assert "\n" not in str(error.value) and path.name in str(error.value) and len(str(error.value)) < 700


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "zip.safetensors", "pickle.safetensors"])
def test_pickles_are_refused_and_never_unpickled(tmp_path, name):
    path, mark = tmp_path / name, tmp_path / "unpickled"
    if name == "pickle.safetensors":
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"weight": torch.rand(3), "bomb": Bomb(mark)}, path)
    for read in (sr.models.load, sr.models.card):
        with pytest.raises(ValueError, match="never unpickled") as caught:
            read(path)
        one_line(caught, path)
    with pytest.raises(ValueError, match="holds no VGG"):
        sr.models.weights.fill_features(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3)), path, "VGG")
    assert not mark.exists()


def safetensors(path, tensors=None, *, data=b"", length=None, about=None):
    """A file with this header, whether or not it makes sense."""
    header = dict(tensors or {})
    if about is not None:
        header["__metadata__"] = {"srcourse": about if isinstance(about, str) else json.dumps({"card": {}, **about})}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def tensor(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SMALL = {"name": "srresnet_small", "options": {"scale": 2}}


@pytest.mark.parametrize(
    "content",
    [
        {"length": 2**62},
        {"length": 2**40},
        {"length": 0},
        {"about": SMALL, "tensors": {"a": tensor([10**6, 10**6, 10**6], 0, 4)}, "data": b"\0" * 4},
        {"about": SMALL, "tensors": {"a": tensor([1], 0, 4), "b": tensor([1], 0, 4)}, "data": b"\0" * 4},
        {"about": SMALL, "tensors": {"a": tensor([2], 0, 8)}, "data": b"\0" * 4},
        {"about": SMALL, "tensors": {"a": tensor([-1], 0, 4)}, "data": b"\0" * 4},
    ],
    ids=["giant header", "long header", "empty header", "giant shape", "overlap", "cut short", "negative"],
)
def test_headers_that_lie_are_refused(tmp_path, content):
    path = safetensors(tmp_path / "a.safetensors", **content)
    with pytest.raises(ValueError, match="not a readable safetensors file") as caught:
        sr.models.load(path)
    one_line(caught, path)


@pytest.mark.parametrize(
    "about",
    [
        "{",
        "[" * 10**5,
        "[]",
        '{"name": 3, "options": {}, "card": {}}',
        '{"name": "srresnet", "options": {"blocks": ' + "9" * 5000 + '}, "card": {}}',
    ],
    ids=["cut", "deep", "list", "no name", "too many digits"],
)
def test_cards_that_say_nothing_are_refused(tmp_path, about):
    path = safetensors(tmp_path / "a.safetensors", about=about)
    with pytest.raises(ValueError, match="does not say what network it is for") as caught:
        sr.models.load(path)
    one_line(caught, path)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("srresnet", {"blocks": 10**6}, "far more than the 0 numbers"),
        ("srresnet", {"channels": 10**6}, "far more than the 0 numbers"),
        ("srresnet", {"channels": 3000}, "far more than the 0 numbers"),
        ("srresnet", {"channels": 1, "ends": 10**6 + 1}, "far more than the 0 numbers"),
        ("eusr", {"blocks": 10**6, "channels": 1}, "far more than the 0 numbers"),
        ("msfm", {"channels": 10**9}, "claims a network"),
        ("srgan_discriminator", {"input_size": 10**7}, "far more than the 0 numbers"),
        ("fft_discriminator", {"input_size": 10**5, "hidden": 10**5}, "far more than the 0 numbers"),
        ("srresnet", {"channels": 10**30}, "cannot build srresnet"),
        ("srresnet", {"channels": "x" * 10**5}, "cannot build srresnet"),
        ("eusr", {"scales": [2] * 10**5}, "each once|scales="),
        ("os.system", {}, "there is no model 'os.system'"),
        ("srresnet", {"__class__": 1}, "has no option"),
    ],
)
def test_cards_that_claim_what_cannot_be_are_refused_at_once(tmp_path, name, options, words):
    path = safetensors(tmp_path / "a.safetensors", about={"name": name, "options": options})
    start = time.process_time()
    with pytest.raises(ValueError, match=words) as caught:
        sr.models.load(path)
    one_line(caught, path)
    assert time.process_time() - start < 5  # a million blocks would take more than a minute, and gigabytes


def test_another_thread_may_build_what_it_likes_meanwhile():
    import threading

    built = []
    with sr.models.weights._not_far_beyond([1]):
        thread = threading.Thread(target=lambda: built.append(torch.nn.Linear(4000, 4000, device="meta")))
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="far more than the 1 numbers"):
            torch.nn.Linear(4000, 4000, device="meta")
    assert len(built) == 1 and torch.nn.Linear(4000, 4000, device="meta") is not None


# --- recipes ----------------------------------------------------------------------------------------------------

MODEL = "model:\n  name: srresnet\n"
LAUGHS = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.mkdir ['MARK']",
        "model: !!python/object/apply:os.mkdir ['MARK']",
        MODEL + "title: !!python/name:os.system ''\n",
        "a0: &a0 [ha, ha]\n" + LAUGHS + MODEL,  # a billion laughs, if somebody wrote them out
        "&a\nmodel: *a\n",
        "model: &a\n  name: srresnet\n  x: *a\n",
        "a: " + "[" * 3000,
        MODEL + "steps: .inf\n",
        MODEL + "optimizer: {learning_rate: .nan}\n",
        MODEL + "steps: " + "9" * 5000 + "\n",
        MODEL + "  channels: 1" + "0" * 20 + "\n",
        MODEL + "scale: 1000000\n",
        MODEL + "name: ../../etc/passwd\n",
    ],
    ids=["object", "nested", "name", "laughs", "itself", "itself2", "deep", "inf", "nan", "digits", "channels", "scale", "path"],
)
def test_recipes_of_strangers_get_one_line(tmp_path, text):
    path, mark = tmp_path / "a.yaml", tmp_path / "made"
    path.write_text(text.replace("MARK", str(mark)))
    start = time.process_time()
    with pytest.raises(ValueError) as caught:
        sr.training.load_recipe(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700
    assert not mark.exists() and time.process_time() - start < 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modell: {name: msfm}\nsteps: 2\n", "a recipe has no key 'modell': expected one of name, title, method"),
        (MODEL + "steps: 10\nsteps: 1000\n", "is not valid YAML: the key 'steps' stands there twice"),
        (MODEL + "data: {patch: 32, patch: 48}\n", "the key 'patch' stands there twice"),
        ("method: pixelwise\nmodel: msfm\n", "recipe: model: expected keys and values, as in {name: srresnet}, got 'msfm'"),
    ],
)
def test_slips_of_the_pen_in_a_recipe_are_named(tmp_path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        sr.training.load_recipe(tmp_path / "a.yaml")


def test_a_key_given_twice_in_a_change_is_refused():
    with pytest.raises(ValueError, match=r"cannot read the value in 'data=\{patch: 32, patch: 48\}': the key 'patch' stands there twice"):
        sr.training.load_recipe("srresnet_small", overrides=["data={patch: 32, patch: 48}"])


def test_a_recipe_of_very_many_keys_takes_no_longer_than_it_must(tmp_path):
    """Ten times the keys, ten times the time, and no hundred times."""
    seconds = []
    for count in (2_000, 20_000):
        (tmp_path / "a.yaml").write_text(MODEL + "".join(f"key{i}: 1\n" for i in range(count)))
        start = time.process_time()
        with pytest.raises(ValueError, match="a recipe has no key"):
            sr.training.load_recipe(tmp_path / "a.yaml")
        seconds.append(time.process_time() - start)
    assert seconds[1] < 30 * seconds[0]


# --- images -----------------------------------------------------------------------------------------------------


def real_files():
    """Small real files, of each format and kind that people have."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)
    rgb, grey = Image.fromarray(pixels), pixels[..., 0]
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    kinds = [(rgb, name, {}) for name in ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "PPM")]
    kinds += [(rgb, "JPEG", {"exif": exif}), (rgb, "JPEG", {"progressive": True}), (rgb.convert("CMYK"), "JPEG", {})]
    kinds += [(rgb.convert("RGBA"), name, {}) for name in ("PNG", "TIFF", "WEBP")] + [(rgb.quantize(16), "PNG", {"transparency": 0})]
    kinds += [(rgb.quantize(16), "BMP", {}), (rgb.convert("1"), "TIFF", {}), (rgb, "PNG", {"save_all": True, "append_images": [rgb]})]
    kinds += [(Image.fromarray(grey.astype(kind)), "TIFF", {}) for kind in (np.uint16, np.int32, np.float32)]
    kinds += [(rgb, "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
    files = []
    for image, name, options in kinds:
        file = io.BytesIO()
        image.save(file, name, **options)
        files.append(file.getvalue())
    return files


REAL = real_files()
CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "set", "cut", "delete", "insert", "splice"]), st.integers(0, 2000), st.integers(0, 255)),
    min_size=1,
    max_size=8,
)


def changed(data, changes):
    data = bytearray(data)
    for kind, position, value in changes:
        at = position % (len(data) + 1)
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << (value % 8)
        elif kind == "set" and at < len(data):
            data[at] = value
        elif kind == "cut":
            del data[at:]
        elif kind == "delete":
            del data[at : at + value % 9]
        elif kind == "insert":
            data[at:at] = bytes([value]) * (value % 7 + 1)
        elif kind == "splice":
            data[at:at] = REAL[value % len(REAL)][: position % 300]
    return bytes(data)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(REAL) - 1), changes=CHANGES, alpha=st.booleans())
def test_a_damaged_file_is_an_image_or_one_line(tmp_path, capfd, which, changes, alpha):
    path = tmp_path / "fuzzed.png"
    path.write_bytes(changed(REAL[which], changes))
    start = time.process_time()
    try:
        image = sr.images.read(path, alpha=alpha)
    except ValueError as error:
        assert "\n" not in str(error) and "fuzzed.png" in str(error)
    else:
        assert image.dtype == torch.float32 and image.ndim == 3 and image.shape[0] in ((3, 4) if alpha else (3,))
        assert image.numel() and image.min() >= 0 and image.max() <= 1
    assert time.process_time() - start < 10
    capfd.readouterr()  # libtiff writes remarks of its own


def png(width, height, data=b""):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def tiff(width, height):
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1)]
    entries += [(278, 4, 1, height), (279, 4, 1, 1)]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + table + b"\0" * 4


def resized(kind, width, height):
    """A small file of a format, its header rewritten to claim another size."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, kind)
    data = bytearray(file.getvalue())
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


BOMBS = {
    "png": png(60_000, 60_000),
    "png-2": png(2**31 - 1, 2**31 - 1),
    "tiff": tiff(60_000, 60_000),
    "bmp": resized("BMP", 60_000, 60_000),
    "jpeg": resized("JPEG", 60_000, 60_000),
    "ppm": b"P6 60000 60000 255\n",
    "plain-ppm": b"P3 60000 60000 255\n1 2 3",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_what_claims_too_many_pixels_is_refused_before_they_are_made(tmp_path, name):
    path = tmp_path / f"{name}.png"
    path.write_bytes(BOMBS[name])
    start = time.process_time()
    with pytest.raises(ValueError, match=r"more than 89,478,485 pixels: crop or split") as caught:
        sr.images.read(path)
    one_line(caught, path)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(0, 5), "damaged|not an image"),
        (png(9000, 9000), "damaged or cut short"),
        (b"P6 0 0 255\n", "damaged|not an image|cannot be used"),
        (b"P6 " + b"9" * 400 + b" 5 255\n", "damaged|not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "is not an image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "is not an image that can be read"),
        (b"\0" * 1000, "is not an image that can be read"),
    ],
    ids=["no width", "no data", "nothing", "digits", "eps", "svg", "zeros"],
)
def test_odd_files_are_refused(tmp_path, content, words):
    path = tmp_path / "odd.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        sr.images.read(path)
    one_line(caught, path)


def test_brightness_that_is_no_number_is_refused(tmp_path):
    pixels = np.full((4, 5), 0.5, np.float32)
    Image.fromarray(pixels).save(tmp_path / "good.tif")
    pixels[1, 2] = np.nan
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    assert sr.images.read(tmp_path / "good.tif").max() == 0.5
    with pytest.raises(ValueError, match="holds NaN") as caught:
        sr.images.read(tmp_path / "a.tif")
    one_line(caught, tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", sr.images.SUFFIXES)
def test_suffixes_in_capitals_are_the_same(tmp_path, suffix):
    image = torch.full((3, 6, 8), 0.5)
    path = sr.images.write(tmp_path / f"A{suffix.upper()}", image)
    assert path.name == f"A{suffix.upper()}" and torch.allclose(sr.images.read(path), image, atol=0.02)
    assert sr.images.find(tmp_path) == [path]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "srresnet", "blocks": 10**6}}, r"blocks is 1000000: expected a size that a network can have, at most 10,000"),
        ({"model": {"name": "srresnet", "channels": 10**30}}, r"channels is 1000.*: expected a size"),
        ({"seed": 10**40}, r"seed: Input should be less than"),
        ({"steps": list(range(1000))}, r"steps: .* got \[0, 1, 2, 3, 4, 5, \.\.\.\]"),
    ],
)
def test_numbers_beyond_reason_in_a_recipe_are_refused_in_one_short_line(changes, message):
    with pytest.raises(ValueError, match=message) as raised:
        sr.training.load_recipe("srresnet_small", **changes)
    assert len(str(raised.value)) < 300 and "\n" not in str(raised.value)


def test_a_cascade_of_endless_rounds_is_refused():
    with pytest.raises(ValueError, match=r"at most 1000 recursions"):
        sr.models.create("recursive_cascade", recursions=10**9)
