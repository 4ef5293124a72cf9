"""Prepared photos: a mapped file gives the very batches and the very training that the folder gives, and refuses what it is not."""

import errno
import importlib
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

import srcourse as sr
from conftest import ROOT
from srcourse.data.prepared import describe

sys.path.append(str(ROOT / "data_scripts"))
prepare = importlib.import_module("prepare")


def options(recipe):
    """What the engine asks of a bank."""
    more = {scale: recipe.degradation(scale) for scale in recipe.further_scales()}
    return {"scale": recipe.enlargement, "patch": recipe.data.patch, "degrade": recipe.degradation(), "more": more, "seed": recipe.seed}


def same_batches(one, two, scales):
    assert one.fingerprint == two.fingerprint and one.nbytes == two.nbytes and len(one) == len(two)
    for step in (0, 7):
        for scale in scales:
            for a, b in zip(one.batch(step, 6, scale=scale), two.batch(step, 6, scale=scale), strict=True):
                assert torch.equal(a, b)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Seven photos of different sizes, none a multiple of 8."""
    folder = tmp_path_factory.mktemp("photos")
    source = sr.data.DeadLeaves(seed=8, size=64)
    for i in range(7):
        sr.images.write(folder / f"{i}.png", source[i][:, : 50 + i, : 63 - i])
    return folder


RECIPES = {
    "bicubic": ("srresnet", ["data.patch=24"]),
    "unknown": ("srresnet_unknown", ["data.patch=24", "seed=5"]),
    "noise": ("srresnet", ["data.patch=24", "data.degradation=realistic"]),
    "three scales": ("eusr", ["data.patch=12"]),
    "all passes": ("four_pass_eusr", ["data.patch=32"]),
}


def recipe_of(kind):
    name, overrides = RECIPES[kind]
    fields = {"scale": 2} if name == "eusr" else {"scale": 4}
    return sr.training.load_recipe(name, overrides=[*overrides, "start=null"], **fields)


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("storage", ["auto", "memory", "disk"])
def test_batches_are_those_of_the_folder(kind, storage, photos, tmp_path):
    recipe = recipe_of(kind)
    file = prepare.prepare(recipe, photos, tmp_path / "photos.bank", progress=False)
    folder = sr.data.photos(photos)
    scales = [recipe.enlargement, *recipe.further_scales()]
    for count in (7, 6):  # all, and those that are left when one is held out
        memory = sr.data.PatchBank(folder[:count], **options(recipe))
        mapped = sr.data.PatchBank(file[:count], storage=storage, **options(recipe))
        same_batches(memory, mapped, scales)
    assert file.names == folder.names and file.scales == scales and len(file) == 7
    for i in (0, 6, -1):
        whole = max(8 if len(scales) > 1 else 4, recipe.enlargement)
        assert torch.equal(file[i], sr.images.crop_to_multiple(folder[i], whole))


def test_parts_that_do_not_begin_at_the_first_are_read_anew(photos, tmp_path):
    """Their LR images would have been made with other random numbers."""
    recipe = recipe_of("unknown")
    file = prepare.prepare(recipe, photos, tmp_path / "photos.bank", progress=False)
    for part in (slice(2, None), slice(None, None, 2), slice(0, 0)):
        assert not isinstance(file[part], sr.data.PreparedPhotos) and len(file[part]) == len(range(7)[part])
    assert isinstance(file[:3][:2], sr.data.PreparedPhotos) and file[:3][:2].names == ["0", "1"]
    cropped = [sr.images.crop_to_multiple(photo, 4) for photo in sr.data.photos(photos)[2:]]
    same_batches(sr.data.PatchBank(cropped, **options(recipe)), sr.data.PatchBank(file[2:], **options(recipe)), [4])


def test_training_ends_with_the_same_bits(photos, tmp_path):
    overrides = ["model.blocks=1", "model.channels=4", "data.patch=24", "data.batch=2", "data.degradation=unknown", "data.hold_out=0.2"]
    recipe = sr.training.load_recipe("srresnet", scale=4, steps=3, overrides=[*overrides, "validate_every=3"])
    file = prepare.prepare(recipe, photos, tmp_path / "photos.bank", progress=False)
    one = sr.training.train(recipe, photos, out=tmp_path / "folder", progress=False)
    two = sr.training.train(recipe, file, out=tmp_path / "file", progress=False)
    for key, weight in one.model.state_dict().items():
        assert torch.equal(weight, two.model.state_dict()[key]), key
    assert one.history[-1]["psnr"] == two.history[-1]["psnr"]
    shutil.copytree(tmp_path / "folder", tmp_path / "moved")  # and one goes on from the other's checkpoint
    longer = recipe.model_copy(update={"steps": 4})
    on = sr.training.train(longer, file, out=tmp_path / "moved", resume=True, progress=False)
    assert on.step == 4


def test_pixels_stay_on_the_disk(photos, tmp_path):
    """A process that may not have as much memory as the file has pixels still cuts batches from it."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc: the limit cannot be set")
    big = tmp_path / "big.bank"
    degradations = {4: sr.degradation.create("bicubic", 4)}
    sr.data.prepare([torch.rand(3, 1024, 1024)] * 12, big, degradations)  # 40 MB
    code = (
        "import resource, sys, torch, srcourse as sr\n"
        "sr.data.PatchBank([torch.rand(3, 64, 64)], scale=4, patch=32).batch(0, 8)\n"  # all that is loaded at first use
        "used = int(next(line for line in open('/proc/self/status') if line.startswith('VmData')).split()[1]) * 1024\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (used + 25_000_000, used + 25_000_000))\n"
        "bank = sr.data.PatchBank(sr.data.prepared(sys.argv[1]), scale=4, patch=32, storage=sys.argv[2])\n"
        "print(sum(bank.batch(t, 8)[1].mean().item() for t in range(5)), bank.nbytes)\n"
        "sr.data.PatchBank(sr.data.prepared(sys.argv[1]), scale=4, patch=32, storage='memory')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(big), "auto"], capture_output=True, text=True, timeout=300)
    assert done.stdout, done.stderr
    mean, size = done.stdout.split()
    assert float(mean) == pytest.approx(2.5, abs=0.05) and int(size) > 37e6
    assert "alloc" in done.stderr.lower() or "memory" in done.stderr.lower()  # reading it all in is what the limit forbids


def test_other_degradations_scales_and_patches_are_refused(photos, tmp_path):
    file = prepare.prepare(recipe_of("unknown"), photos, tmp_path / "photos.bank", progress=False)

    def refused(words, **changed):
        with pytest.raises(ValueError, match=words) as caught:
            sr.data.PatchBank(file, **{**options(recipe_of("unknown")), **changed})
        assert "\n" not in str(caught.value)

    refused("UnknownKernel.* with seed 5, and UnknownKernel.* with seed 6 is asked for", degrade=sr.degradation.create("unknown", 4, 6))
    refused(r"and Bicubic\(scale=4\) at scale 4 is asked for: prepare the photos again", degrade=None)
    refused("has LR images for the scales 4 only, and Bicubic.scale=2. at scale 2", scale=2, degrade=None)
    refused("cannot be told from others", degrade=lambda image, index: image)
    refused("0 is 48×60 pixels, smaller than a patch of 96", patch=96)
    with pytest.raises(ValueError, match="no photos"):
        sr.data.PatchBank(file[7:], **options(recipe_of("unknown")))
    three = prepare.prepare(recipe_of("three scales"), photos, tmp_path / "three.bank", progress=False)
    with pytest.raises(ValueError, match="was cropped for the scales 2, 4, 8, not for 2 alone"):
        sr.data.PatchBank(three, scale=2, patch=12)
    one, other = (sr.degradation.create("bicubic", 4, seed) for seed in (1, 2))
    assert describe(one) == describe(other)  # nothing random in it
    with pytest.raises(ValueError, match="trains on rated images"):
        prepare.prepare(sr.training.load_recipe("nima_small"), photos, tmp_path / "rated.bank")


def test_files_that_are_none_are_refused(photos, tmp_path):
    path = tmp_path / "photos.bank"
    whole = prepare.prepare(recipe_of("bicubic"), photos, path, progress=False)
    whole.verify()
    content = path.read_bytes()
    begin, size = (int.from_bytes(content[-32 + at : -24 + at], "little") for at in (0, 8))
    about = json.loads(content[begin : begin + size])

    def with_about(**changed):
        text = json.dumps({**about, **changed}).encode()
        return content[:begin] + text + begin.to_bytes(8, "little") + len(text).to_bytes(8, "little") + content[-16:]

    tables = about["tables"]
    broken = {
        "cut": content[:-1],
        "short": content[: len(content) // 2],
        "text": b"hello",
        "empty": b"",
        "longer": content + b"x",
        "huge": with_about(sizes=[[10**9, 10**9]] * 7),
        "negative": with_about(sizes=[[-4, -4]] * 7),
        "odd": with_about(sizes=[[51, 60]] * 7),
        "float": with_about(sizes=[[48.0, 60.0]] * 7),
        "fewer": with_about(names=["0"]),
        "no scales": with_about(made={}),
        "scale zero": with_about(made={"0": "x"}),
        "start": with_about(tables={**tables, "4": {**tables["4"], "start": 2**60}}),
        "no JSON": content[:begin] + b"{" * size + content[-32:],
    }
    for kind, damaged in broken.items():
        (tmp_path / kind).write_bytes(damaged)
        with pytest.raises(
            ValueError, match=r"is no file of prepared photos, or was cut short: make it again with data_scripts/prepare\.py"
        ):
            sr.data.prepared(tmp_path / kind)
    with pytest.raises(FileNotFoundError, match="does not exist: expected a file of prepared photos"):
        sr.data.prepared(tmp_path / "nowhere")
    flipped = bytearray(content)
    flipped[5000] ^= 1
    (tmp_path / "flipped").write_bytes(flipped)
    with pytest.raises(ValueError, match="flipped is damaged: pixels at 1/1 changed"):
        sr.data.prepared(tmp_path / "flipped").verify()
    assert sr.data.is_prepared(path) and not sr.data.is_prepared(tmp_path / "text") and not sr.data.is_prepared(tmp_path)


def test_preparing_twice_does_nothing_twice_and_overwrites_nothing(photos, tmp_path, capsys):
    path, mine = tmp_path / "photos.bank", tmp_path / "mine"
    recipe = recipe_of("bicubic")
    assert prepare.prepare(recipe, photos, path, dry_run=True) is None and not path.exists()
    assert "7 photos, LR at ×4" in capsys.readouterr().out
    prepare.prepare(recipe, photos, path, progress=False)
    before = path.stat().st_mtime_ns
    assert len(prepare.prepare(recipe, photos, path, progress=False)) == 7 and path.stat().st_mtime_ns == before
    assert "there already" in capsys.readouterr().out
    shutil.copytree(photos, mine)
    sr.images.write(mine / "0.png", torch.zeros(3, 60, 60))
    for other, folder in ((recipe_of("unknown"), photos), (recipe, mine)):
        with pytest.raises(FileExistsError, match="exists and was not made of these photos for this recipe: remove it"):
            prepare.prepare(other, folder, path, progress=False)
    assert path.stat().st_mtime_ns == before


Usage = namedtuple("Usage", "total used free")


def test_what_fails_leaves_nothing(photos, tmp_path, monkeypatch):
    path, mine = tmp_path / "out" / "photos.bank", tmp_path / "mine"
    shutil.copytree(photos, mine)
    (mine / "3.png").write_bytes((mine / "3.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"3\.png is damaged or cut short"):
        prepare.prepare(recipe_of("bicubic"), mine, path, progress=False)
    sr.images.write(mine / "3.png", torch.rand(3, 16, 70))
    with pytest.raises(ValueError, match=r"3 is 16×70 pixels, smaller than a patch of 24: leave it out or lower data\.patch"):
        prepare.prepare(recipe_of("bicubic"), mine, path, progress=False)
    with monkeypatch.context() as full:
        full.setattr(prepare.shutil, "disk_usage", lambda where: Usage(10, 5, 5))
        with pytest.raises(OSError, match="make room, or choose another --out"):
            prepare.prepare(recipe_of("bicubic"), photos, path, progress=False)

    def fills(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(shutil, "copyfileobj", fills)
        with pytest.raises(OSError, match="No space left"):
            prepare.prepare(recipe_of("bicubic"), photos, path, progress=False)
    assert not path.exists() and not [p for p in tmp_path.rglob("*") if p.is_file() and p.parent != mine]
