"""Upscaling: tiles equal the whole, ensembles commute with turns, and every kind of image comes back as it came."""

import pytest
import torch

import srcourse as sr
from conftest import one_line


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return sr.models.create("srresnet", scale=2, blocks=2, channels=8, norm=False).eval()


def radius(model):
    """The receptive radius in LR pixels, measured with gradients."""
    x = torch.zeros(1, 3, 61, 61, requires_grad=True)
    model(x)[..., 60:62, 60:62].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    return max(30 - rows.min().item(), rows.max().item() - 30)


@pytest.mark.parametrize("tile", [8, 13, 32, 200])
def test_tiles_make_the_same_image_from_the_receptive_radius_on(model, tile):
    lr = torch.rand(3, 45, 61)
    whole = sr.upscale(model, lr)
    reach = radius(model)
    assert 4 < reach < 20
    assert torch.allclose(sr.upscale(model, lr, tile=tile, overlap=reach), whole, atol=1e-6)
    if tile < 45:
        assert (sr.upscale(model, lr, tile=tile, overlap=0) - whole).abs().max() > 1e-4  # the seams are there without it


def test_default_overlap_covers_the_published_network():
    model = sr.models.create("srresnet", scale=4, channels=2)
    x = torch.zeros(1, 3, 121, 121, requires_grad=True)
    model.eval()(x)[..., 240:244, 240:244].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert max(60 - rows.min().item(), rows.max().item() - 60) == 40
    lr = torch.rand(3, 60, 110)
    assert torch.allclose(sr.upscale(model, lr, tile=32), sr.upscale(model, lr), atol=1e-6)


def test_ensemble_commutes_with_flips_and_turns(model):
    lr = torch.rand(3, 12, 17)
    whole = sr.upscale(model, lr, ensemble=True)
    for turned in (lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: torch.rot90(x, 1, (-2, -1))):
        assert torch.allclose(sr.upscale(model, turned(lr), ensemble=True), turned(whole), atol=1e-6)
        assert not torch.allclose(sr.upscale(model, turned(lr)), turned(sr.upscale(model, lr)), atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 9, 7), (3, 1, 1), (4, 8, 8), (2, 3, 5, 6), (2, 1, 5, 6)])
def test_every_kind_of_image_comes_back_as_it_came(model, shape):
    lr = torch.rand(shape)
    out = sr.upscale(model, lr)
    assert out.shape == (*shape[:-2], 2 * shape[-2], 2 * shape[-1])
    assert out.min() >= 0 and out.max() <= 1 and out.dtype == torch.float32 and not out.requires_grad
    out.requires_grad_(True).sum().backward()  # an ordinary tensor


def test_transparency_is_enlarged_bicubically(model):
    lr = torch.rand(4, 8, 8)
    assert torch.allclose(sr.upscale(model, lr)[3:], sr.degradation.upscale(lr[3:], 2).clamp(0, 1))
    assert torch.equal(sr.upscale(model, lr)[:3], sr.upscale(model, lr[:3]))


def test_a_grey_image_takes_its_passes_in_colour(model):
    """What the network makes of it goes into the next pass as it is, and becomes grey at the end."""
    lr = torch.rand(1, 8, 9)
    twice = sr.upscale(model, lr, passes=2)
    assert twice.shape == (1, 32, 36)
    assert torch.equal(twice, sr.upscale(model, lr.expand(3, -1, -1), passes=2).mean(0, keepdim=True))
    with pytest.raises(ValueError, match="fsrcnn was built with image_channels=1: expected one for colour images"):
        sr.upscale(sr.models.create("fsrcnn", scale=2, image_channels=1), lr)


def test_the_model_is_left_as_it_was():
    model = sr.models.create("srresnet", scale=2, blocks=1, channels=4).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    sr.upscale(model, torch.rand(3, 8, 8))
    assert model.training and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"lr": torch.rand(2, 8, 8)}, "1, 3 or 4"),
        ({"lr": torch.rand(8, 8)}, "shape"),
        ({"lr": torch.full((3, 8, 8), float("nan"))}, "NaN"),
        ({"lr": torch.rand(3, 8, 8), "tile": 4}, "at least 8"),
        ({"lr": torch.rand(3, 8, 8), "overlap": -1}, "at least 0"),
        ({"lr": torch.zeros(3, 8, 8, dtype=torch.uint8)}, "dtype"),
    ],
)
def test_bad_input_gets_one_line(model, arguments, words):
    with pytest.raises(ValueError, match=words) as caught:
        sr.upscale(model, **arguments)
    assert "\n" not in str(caught.value)


def test_the_command_never_overwrites_an_image(command, tmp_path):
    for folder in "ab":
        sr.images.write(tmp_path / folder / "x.png", torch.rand(3, 5, 7))
    both = command("upscale", tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", "--out", tmp_path / "out")
    assert "would both become" in one_line(both) and not (tmp_path / "out").exists()
    sr.images.write(tmp_path / "a" / "x_x4.png", torch.rand(3, 6, 6))
    itself = command("upscale", tmp_path / "a" / "x.png", tmp_path / "a" / "x_x4.png", "--out", tmp_path / "a")
    assert "would be overwritten" in one_line(itself)
    assert sr.images.read(tmp_path / "a" / "x_x4.png").shape == (3, 6, 6)
    wrong = command("upscale", tmp_path / "a" / "x.png", "--model", "srresnet_small-x4", "--scale", 2, "--out", tmp_path / "out")
    assert "enlarges 4 times: leave out --scale 2" in one_line(wrong)


def test_the_command_upscales_grey_and_transparent_files(command, tmp_path):
    sr.images.write(tmp_path / "grey.png", torch.rand(1, 5, 7))
    sr.images.write(tmp_path / "glass.png", torch.rand(4, 5, 7))
    process = command("upscale", tmp_path / "grey.png", tmp_path / "glass.png", "--scale", 3, "--out", tmp_path / "out")
    assert process.returncode == 0, process.stderr
    assert sr.images.read(tmp_path / "out" / "grey_x3.png").shape == (3, 15, 21)
    assert sr.images.read(tmp_path / "out" / "glass_x3.png", alpha=True).shape == (4, 15, 21)


def test_a_network_that_judges_is_refused():
    for name, options in (("patch_discriminator", {"channels": 2}), ("score_predictor", {"width": 0.1})):
        with pytest.raises(ValueError, match=f"{name} judges images and does not enlarge them"):
            sr.upscale(sr.models.create(name, **options), torch.rand(3, 40, 40))
