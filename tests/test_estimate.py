"""The estimate before a run: its counts against closed forms, every method, and what it refuses."""

import pytest
import torch

import srcourse as sr
from conftest import one_line
from srcourse import machine

SMALL = ["model.blocks=1", "model.channels=8", "data.patch=32", "data.batch=4"]


def test_operations_and_memory_are_those_of_the_closed_form():
    """SRCNN: 9×9×3×64 + 1×1×64×32 + 5×5×32×3 weights, each used once a pixel, by two operations."""
    patch, batch = 48, 4
    recipe = sr.training.load_recipe("srcnn", scale=2, overrides=[f"data.patch={patch}", f"data.batch={batch}"])
    told = sr.training.estimate(recipe)
    first, rest = 9 * 9 * 3 * 64, 64 * 32 + 5 * 5 * 32 * 3
    pixels = patch**2 * batch
    # forward, the weights' gradients, and the layers' inputs' gradients but for the first, whose input is data
    assert told.flops == 2 * pixels * (2 * (first + rest) + rest)
    assert told.parameters == first + rest + 64 + 32 + 3 and told.state_bytes == 16 * told.parameters
    maps = 4 * pixels * (64 + 32)  # what the two hidden layers leave, in float32
    assert maps <= told.activation_bytes <= 1.2 * maps
    assert told.bytes == told.state_bytes + 2 * told.activation_bytes + told.photo_bytes


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("srresnet_small", []),
        ("srgan_small", ["discriminator.channels=2"]),
        ("rgan_small", ["discriminator.channels=2"]),
        ("eusr_small", []),
        ("four_pass_eusr_small", ["model.channels=8", "discriminator.channels=2", "data.batch=2"]),
        ("srgan", ["discriminator.channels=2"]),
        ("nima_small", None),
    ],
)
def test_every_method_can_be_estimated(name, more):
    overrides = ["data.batch=2", "data.patch=32"] if more is None else [*SMALL, *more]
    recipe = sr.training.load_recipe(name, steps=1000, overrides=overrides)
    told = sr.training.estimate(recipe)
    assert told.flops > 0 and told.seconds > 0 and told.operations > 100 and told.activation_bytes > 1000
    text = str(told)
    assert recipe.label in text and "1,000 steps = " in text and "312 TFLOP/s" in text


def test_it_grows_with_the_batch_and_pieces_save_memory_alone():
    whole, twice, pieces = (
        sr.training.estimate(sr.training.load_recipe("srresnet_small", overrides=[*SMALL, *more]))
        for more in ([], ["data.batch=8"], ["optimizer.accumulate=2"])
    )
    assert twice.flops == pytest.approx(2 * whole.flops) and twice.activation_bytes == pytest.approx(2 * whole.activation_bytes, rel=0.02)
    assert pieces.flops == whole.flops and pieces.activation_bytes == pytest.approx(whole.activation_bytes / 2, rel=0.02)
    assert pieces.operations == pytest.approx(2 * whole.operations)
    assert (whole.processes, twice.processes, pieces.processes) == (4, 8, 2)


def test_photos_are_weighed_by_their_headers(photo_folder, tmp_path, monkeypatch):
    recipe = sr.training.load_recipe("srresnet_small", scale=2, overrides=SMALL)
    monkeypatch.setattr(sr.images, "read", lambda path: pytest.fail("a photo was decoded"))
    assert sr.training.estimate(recipe, photo_folder).photo_bytes == 3 * 6 * 64 * 64 * (1 + 1 / 4)


def test_what_does_not_fit_is_told(monkeypatch):
    recipe = sr.training.load_recipe("srresnet_small", overrides=SMALL)
    told = sr.training.estimate(recipe)
    assert "DOES NOT FIT" not in str(told)
    monkeypatch.setattr(machine, "free_device_memory", lambda device: told.bytes - 1)
    assert "THIS DOES NOT FIT: set optimizer.accumulate, or lower data.batch" in str(told)


def test_the_command_trains_nothing(command, photo_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    overrides = [word for text in SMALL for word in ("--set", text)]
    done = command("train", "srresnet_small", "--data", photo_folder, "--steps", 100, "--plan", *overrides)
    assert done.returncode == 0 and "a step       4 patches of 32×32" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert "no-such-folder" in one_line(command("train", "srresnet_small", "--data", "no-such-folder", "--plan"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "broken.png").write_bytes(b"not a photo")
    assert "broken.png" in one_line(command("train", "srresnet_small", "--data", "photos", "--plan"))


def test_weights_are_neither_needed_nor_read():
    """`srgan` starts from a run that may not be there yet, with ImageNet features that may not be there yet."""
    recipe = sr.training.load_recipe("srgan", overrides=[*SMALL, "discriminator.channels=2"])
    assert recipe.start and recipe.perceptual.weights == "imagenet"
    told = sr.training.estimate(recipe)
    vgg = 20_024_384  # VGG19's convolutions, which only judge
    learning = told.parameters + sr.models.count_parameters(sr.models.create(recipe.discriminator.name, **recipe.discriminator_options()))
    assert abs(told.state_bytes - 16 * learning - 4 * vgg) <= 4 * 2_360_000  # up to relu5_4: the last convolution counts
    assert torch.is_grad_enabled()
