"""Data: batches are pure functions of (seed, t), LR and HR stay aligned, folders are read as they are."""

import pytest
import torch

import srcourse as sr
from conftest import one_line
from srcourse.data import PatchBank


def bank(photos, **options):
    return PatchBank(photos, **{"scale": 2, "patch": 16, **options})


def test_batches_depend_on_seed_and_step_alone(leaves):
    one, two = bank(leaves, seed=3), bank(leaves, seed=3)
    later = two.batch(7, 8)
    two.batch(1, 8)
    for a, b, c in zip(one.batch(7, 8), later, two.batch(7, 8), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)
    assert not torch.equal(one.batch(7, 8)[1], one.batch(8, 8)[1])
    assert not torch.equal(one.batch(7, 8)[1], bank(leaves, seed=4).batch(7, 8)[1])


def test_processes_share_one_batch(leaves):
    source = bank(leaves)
    whole = source.batch(5, 12)
    parts = [source.batch(5, 12, rank=r, world=3) for r in range(3)]
    for i in range(2):
        assert torch.equal(whole[i], torch.cat([part[i] for part in parts]))
    with pytest.raises(ValueError, match="multiple of 5"):
        source.batch(0, 12, world=5)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patches_are_cut_from_the_photos_and_lr_belongs_to_hr(leaves, scale):
    """Every HR patch is found in its photo, in one of eight positions, and the LR patch at the same place and turn."""
    patch = 4 * scale
    photos = [sr.images.quantize(sr.images.crop_to_multiple(x, scale)) for x in leaves[:2]]
    small = [sr.images.quantize(sr.degradation.downscale(x, scale)) for x in photos]
    lr, hr = bank(photos, scale=scale, patch=patch).batch(0, 40)
    assert lr.shape == (40, 3, 4, 4) and hr.shape == (40, 3, patch, patch)
    turns = set()
    for lr_patch, hr_patch in zip(lr, hr, strict=True):
        found = None
        for number in range(8):
            candidate = torch.rot90(hr_patch.flip(-1) if number >= 4 else hr_patch, number % 4, (-2, -1))
            for photo, thumb in zip(photos, small, strict=True):
                windows = photo.unfold(1, patch, scale).unfold(2, patch, scale)  # (3, rows, columns, patch, patch)
                equal = (windows == candidate[:, None, None]).all(-1).all(-1).all(0).nonzero()
                if len(equal):
                    y, x = equal[0].tolist()
                    expected = thumb[:, y : y + 4, x : x + 4]
                    turned = torch.rot90(lr_patch.flip(-1) if number >= 4 else lr_patch, number % 4, (-2, -1))
                    assert torch.equal(turned, expected)
                    found = number
        assert found is not None, "the patch is in no photo"
        turns.add(found)
    assert len(turns) == 8


def test_flips_and_turns_come_as_often_as_asked(leaves):
    ramp = torch.linspace(0, 1, 64)[None, None, :].expand(3, 64, 64).contiguous()  # brighter to the right
    straight = bank([ramp], flip=0, turn=0).batch(0, 50)[1]
    assert (straight[..., 0, -1] > straight[..., 0, 0]).all()
    _, hr = bank([ramp], flip=0.2, turn=0.32).batch(0, 4000)
    across = (hr[..., 0, -1] - hr[..., 0, 0]).mean(1)
    down = (hr[..., -1, 0] - hr[..., 0, 0]).mean(1)
    turned = (across.abs() < down.abs()).float().mean().item()
    assert turned == pytest.approx(0.32, abs=0.03)
    mirrored = (across[across.abs() > down.abs()] < 0).float().mean().item()
    assert mirrored == pytest.approx(0.2, abs=0.03)


def test_four_rotations_come_alike_and_nothing_is_mirrored():
    """P000's augmentation: flip=0, turn=0.5, half_turn=0.5."""
    corner = torch.zeros(3, 16, 16)
    corner[:, :8, :8], corner[:, :8, 8:], corner[:, 8:, 8:], corner[:, 8:, :8] = 0.2, 0.4, 0.6, 0.8  # clockwise
    _, hr = bank([corner], flip=0, turn=0.5, half_turn=0.5).batch(0, 4000)
    clockwise = torch.stack([hr[:, 0, 4, 4], hr[:, 0, 4, 12], hr[:, 0, 12, 12], hr[:, 0, 12, 4]], 1)
    first = (clockwise[:, 0] * 5).round().long()
    for rotation in (1, 2, 3, 4):
        assert (first == rotation).float().mean() == pytest.approx(0.25, abs=0.03)
    steps = (clockwise.roll(-1, 1) - clockwise) * 5
    assert torch.allclose(steps.remainder(4), torch.ones(()), atol=0.05)  # still clockwise, each of them


def test_crops_of_one_photo_go_together(leaves):
    flat = [torch.full((3, 32, 32), i / 10) for i in range(10)]
    _, hr = bank(flat, crops_per_image=4).batch(0, 32)
    values = hr[:, 0, 0, 0].reshape(8, 4)
    assert (values == values[:, :1]).all() and len(values[:, 0].unique()) > 2


def test_a_bank_on_disk_is_the_same(leaves):
    memory, disk = bank(leaves, storage="memory"), bank(leaves, storage="disk")
    assert memory.fingerprint == disk.fingerprint and memory.nbytes == disk.nbytes
    for a, b in zip(memory.batch(3, 8), disk.batch(3, 8), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"photos": []}, "no photos"),
        ({"photos": [torch.rand(3, 10, 40)]}, "photo 0 is 10×40 pixels, smaller than a patch"),
        ({"patch": 15}, "multiple of the scale"),
        ({"storage": "cloud"}, "'auto', 'memory' or 'disk'"),
        ({"crops_per_image": 0}, "crops_per_image is 0: expected a whole number of at least 1"),
        ({"crops_per_image": 1.5}, "crops_per_image is 1.5: expected a whole number of at least 1"),
        ({"turn": 1.5}, "turn is 1.5: expected a probability from 0 to 1"),
        ({"flip": -0.1}, "flip is -0.1: expected a probability from 0 to 1"),
        ({"half_turn": float("nan")}, "half_turn is nan: expected a probability from 0 to 1"),
        ({"photos": [torch.full((3, 20, 20), float("nan"))]}, "photo 0 holds NaN"),
    ],
)
def test_bad_input_gets_one_line(leaves, options, words):
    with pytest.raises(ValueError, match=words) as caught:
        bank(**{"photos": leaves, **options})
    assert "\n" not in str(caught.value)


# --- dead leaves ------------------------------------------------------------------------------------------------


def test_dead_leaves_are_reproducible_and_endless():
    source = sr.data.DeadLeaves(seed=5, size=48, length=10)
    assert torch.equal(source[3], sr.data.DeadLeaves(seed=5, size=48)[3])
    assert not torch.equal(source[3], source[4])
    assert torch.equal(source[-1], source[9]) and len(source) == 10
    assert source[0].shape == (3, 48, 48) and source[0].min() >= 0 and source[0].max() <= 1
    with pytest.raises(IndexError):
        source[10]
    with pytest.raises(ValueError, match="at least 16"):
        sr.data.DeadLeaves(size=8)


def test_dead_leaves_have_the_spectrum_of_photos():
    """Power falls as frequency to about -2, as natural images' does; white noise does not."""
    import numpy as np

    source = sr.data.DeadLeaves(seed=0, size=128)

    def slope(pictures):
        frequency, power = zip(*(sr.plots.radial_spectrum(p) for p in pictures), strict=True)
        mean, f = np.mean(power, axis=0), frequency[0]
        middle = (f > 0.05) & (f < 0.6)
        return np.polyfit(np.log(f[middle]), np.log(mean[middle]), 1)[0]

    assert -2.8 < slope([source[i] for i in range(6)]) < -1.4
    assert -2.9 < slope([sr.images.sample(n)[:, :300, :300] for n in ("astronaut", "coffee", "chelsea")]) < -1.4
    assert abs(slope([torch.rand(3, 128, 128)])) < 0.2


# --- folders ----------------------------------------------------------------------------------------------------


def test_photos_of_a_folder_in_name_order(photo_folder, leaves):
    found = sr.data.photos(photo_folder)
    assert found.names == [str(i) for i in range(6)] and len(found[1:3]) == 2
    assert torch.equal(found[2], sr.images.quantize(leaves[2]))


def test_training_and_test_samples_do_not_meet():
    training = sr.data.training_samples(leaves=2)
    assert not set(sr.data.TEST_SAMPLES) & set(training.names) and len(training) == 2 + len(sr.data.TRAINING_SAMPLES)
    assert set(sr.data.TEST_SAMPLES) | set(sr.data.TRAINING_SAMPLES) == set(sr.images.SAMPLES)
    with pytest.raises(ValueError, match="no sample photo 'lena'"):
        sr.data.samples(["lena"])


def test_benchmarks_of_every_layout(tmp_path, leaves):
    for i in range(3):
        sr.images.write(tmp_path / "sets" / "Set3" / "HR" / f"{i}.png", leaves[i])
        sr.images.write(tmp_path / "sets" / "Set3" / "LRx2" / f"{i}x2.png", sr.degradation.downscale(leaves[i], 2))
        sr.images.write(tmp_path / "sets" / "plain" / f"{i}.png", leaves[i][:, :63, :61])
    stored, made = sr.data.benchmarks(tmp_path / "sets", 2)
    assert (stored.name, made.name, len(stored)) == ("Set3", "plain", 3)
    assert stored[1].name == "1" and torch.equal(stored[1].lr, sr.images.quantize(sr.degradation.downscale(leaves[1], 2)))
    assert made[0].hr.shape == (3, 62, 60) and made[0].lr.shape == (3, 31, 30)
    assert sr.data.benchmarks(tmp_path / "sets" / "Set3", 4)[0][0].lr.shape == (3, 16, 16)  # no LRx4: made
    assert len(sr.data.benchmarks(tmp_path / "sets" / "plain", 2)[0]) == 3


def test_folders_that_do_not_fit_get_one_line(tmp_path, leaves, command):
    (tmp_path / "empty").mkdir()
    for call, words in (
        (lambda: sr.data.photos(tmp_path / "empty"), "holds no images"),
        (lambda: sr.data.photos(tmp_path / "none"), "does not exist"),
        (lambda: sr.data.benchmarks(tmp_path / "empty", 4), "no images and no benchmark"),
        (lambda: sr.data.benchmarks(tmp_path / "none", 4), "does not exist"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert "holds no images" in one_line(command("train", "srresnet_small", "--data", tmp_path / "empty", "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert "no images and no benchmark" in one_line(command("evaluate", "bicubic", "--data", tmp_path / "empty"))
    sr.images.write(tmp_path / "b" / "HR" / "a.png", leaves[0])
    sr.images.write(tmp_path / "b" / "LRx2" / "a.png", leaves[0])
    with pytest.raises(ValueError, match="LR image of a is 64×64: expected 32×32"):
        sr.data.benchmarks(tmp_path / "b", 2)[0][0]
    (tmp_path / "b" / "LRx2" / "a.png").rename(tmp_path / "b" / "LRx2" / "c.png")
    with pytest.raises(ValueError, match="no LR image for a"):
        sr.data.benchmarks(tmp_path / "b", 2)


def test_a_bank_refuses_photos_and_degradations_that_do_not_fit_its_scales():
    with pytest.raises(ValueError, match=r"33×33 pixels, smaller than a patch of 32 \(at scale 4\)"):
        PatchBank([torch.rand(3, 33, 33)], scale=3, patch=24, more={4: sr.degradation.create("bicubic", 4)})
    with pytest.raises(ValueError, match=r"scale 8 made \(3, 16, 16\) of \(3, 64, 64\)"):
        PatchBank([torch.rand(3, 64, 64)], scale=4, patch=32, more={8: sr.degradation.create("bicubic", 4)})
