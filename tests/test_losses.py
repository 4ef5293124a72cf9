"""Losses: against closed forms and independent implementations, finite where the plain formulas are not."""

import importlib.util
import itertools
import json
import math

import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.stats import spearmanr

import srcourse as sr
from conftest import ROOT
from srcourse import losses
from srcourse.data.ratings import DISTORTIONS, distort
from srcourse.losses.perceptual import find_weights, layer_names


def logits(*shape, seed=0, scale=3.0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


# --- adversarial ------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100), rows=st.integers(1, 5))
def test_log_mean_sigmoid_is_the_plain_formula_where_that_is_finite(seed, scale, rows):
    x = logits(3, 1, rows, 4, seed=seed, scale=scale)
    plain = torch.log(torch.sigmoid(x).mean((1, 2, 3)))
    finite = torch.isfinite(plain)
    assert torch.allclose(losses.log_mean_sigmoid(x)[finite], plain[finite], rtol=1e-9, atol=1e-12)


def test_logits_in_a_row_and_whole_numbers_will_do():
    """(N,) is one logit an image; whole numbers stand for themselves."""
    x = logits(5)
    assert torch.equal(losses.log_mean_sigmoid(x), losses.log_mean_sigmoid(x[:, None]))
    assert torch.equal(losses.log_mean_sigmoid(x.round().long()), losses.log_mean_sigmoid(x.round().float()))
    for kind in losses.KINDS:
        assert torch.equal(losses.discriminator_loss(x, -x, kind), losses.discriminator_loss(x[:, None], -x[:, None], kind))
    with pytest.raises(ValueError, match=r"the logits are a single number: expected \(N, \.\.\.\)"):
        losses.log_mean_sigmoid(x[0])


def test_log_mean_sigmoid_is_finite_at_ten_thousand():
    for value in (-1e4, 1e4):
        x = torch.full((2, 1, 4, 4), value, requires_grad=True)
        result = losses.log_mean_sigmoid(x)
        assert torch.isfinite(result).all() and torch.allclose(result, torch.full((2,), min(value, 0.0)), atol=1e-3)
        result.sum().backward()
        assert torch.isfinite(x.grad).all()
    assert torch.log(torch.sigmoid(torch.full((16,), -1e4)).mean()) == -math.inf  # what the plain formula gives
    mixed = torch.tensor([[[[-1e4, 0.0]]]])
    assert losses.log_mean_sigmoid(mixed).item() == pytest.approx(math.log(0.25))


@pytest.mark.parametrize("kind", losses.KINDS)
def test_every_game_is_finite_at_extreme_logits_and_in_half_precision(kind):
    for real, fake in ((1e4, -1e4), (-1e4, 1e4)):
        a, b = (torch.full((2, 1, 3, 3), v, requires_grad=True) for v in (real, fake))
        total = losses.discriminator_loss(a, b, kind) + losses.generator_loss(b, kind, a)
        total.backward()
        assert torch.isfinite(total) and torch.isfinite(a.grad).all() and torch.isfinite(b.grad).all()
    x = logits(2, 1, 3, 3).bfloat16()
    assert losses.discriminator_loss(x, -x, kind).dtype == torch.float32 and losses.generator_loss(x, kind, x).dtype == torch.float32


def test_bce_is_pytorchs():
    real, fake = logits(4, 1, seed=1), logits(4, 1, seed=2)
    ones, zeros = torch.ones_like(real), torch.zeros_like(real)
    expected = F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, zeros)
    assert torch.allclose(losses.discriminator_loss(real, fake), expected)
    assert torch.allclose(losses.generator_loss(fake), F.binary_cross_entropy_with_logits(fake, ones))


def test_patch_mean_is_equation_5_and_equation_1_of_the_mean():
    real, fake = logits(4, 1, 3, 5, seed=1), logits(4, 1, 3, 5, seed=2)
    d = lambda x: torch.sigmoid(x).mean((1, 2, 3))  # noqa: E731 - "averaging the output responses of all the patches"
    assert torch.allclose(losses.generator_loss(fake, "patch-mean"), -torch.log(d(fake)).mean())
    assert torch.allclose(losses.discriminator_loss(real, fake, "patch-mean"), -(torch.log(d(real)) + torch.log(1 - d(fake))).mean())
    single = logits(4, 1)
    assert torch.allclose(losses.generator_loss(single, "patch-mean"), losses.generator_loss(single, "bce"))  # one patch: the same game


def test_least_squares_and_relativistic_have_their_closed_forms():
    real, fake = logits(5, 1, seed=1), logits(5, 1, seed=2)
    assert losses.discriminator_loss(torch.ones(3, 1), torch.zeros(3, 1), "least-squares") == 0
    assert losses.generator_loss(torch.ones(3, 1), "least-squares") == 0
    assert torch.allclose(losses.discriminator_loss(real, fake, "least-squares"), ((real - 1) ** 2 + fake**2).mean() / 2)
    # relativistic: adding a constant to all logits changes nothing, and swapping the sides swaps the players
    for shift in (0.0, 7.0):
        assert torch.allclose(
            losses.discriminator_loss(real + shift, fake + shift, "relativistic"), losses.discriminator_loss(real, fake, "relativistic")
        )
    assert torch.allclose(losses.generator_loss(fake, "relativistic", real), losses.discriminator_loss(fake, real, "relativistic"))
    assert losses.discriminator_loss(torch.zeros(3, 1), torch.zeros(3, 1), "relativistic").item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", losses.KINDS)
def test_each_player_descends_towards_its_goal(kind):
    """The discriminator's gradient raises real and lowers generated logits; the generator's raises the generated ones."""
    real, fake = (torch.zeros(4, 1, 2, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    losses.discriminator_loss(real, fake, kind).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all() or (kind == "least-squares" and (fake.grad == 0).all())  # 0 is its goal already
    generated = torch.zeros(4, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    losses.generator_loss(generated, kind, real.detach()).backward()
    assert (generated.grad < 0).all()


def test_accuracy_counts_each_side():
    real, fake = torch.tensor([2.0, -1.0, 0.7, 0.2]), torch.tensor([0.3, -0.5, -3.0, 0.6])
    assert [a.item() for a in losses.discriminator_accuracy(real, fake)] == [0.75, 0.5]
    assert [a.item() for a in losses.discriminator_accuracy(real, fake, "least-squares")] == [0.5, 0.75]
    assert [a.item() for a in losses.discriminator_accuracy(real, fake, "relativistic")] == [0.75, 0.75]


def test_wrong_games_get_one_line():
    x = torch.zeros(1, 1)
    for call in (
        lambda: losses.discriminator_loss(x, x, "wgan"),
        lambda: losses.generator_loss(x, "wgan"),
        lambda: losses.discriminator_accuracy(x, x, ""),
    ):
        with pytest.raises(ValueError, match=r"no adversarial loss .*: expected one of bce"):
            call()
    with pytest.raises(ValueError, match="pass real_logits"):
        losses.generator_loss(x, "relativistic")


# --- stages -----------------------------------------------------------------------------------------------------


def test_multi_stage_loss_compares_each_stage_at_its_size():
    hr = torch.rand(2, 3, 24, 36)
    half = sr.degradation.downscale(hr, 2)
    assert losses.multi_stage_loss([half, hr], hr) == 0
    assert losses.multi_stage_loss([half + 0.1, hr - 0.2], hr).item() == pytest.approx(0.1**2 + 0.2**2, rel=1e-4)
    assert torch.equal(losses.multi_stage_loss([hr * 0.5], hr, F.l1_loss), F.l1_loss(hr * 0.5, hr))
    flat = torch.full((1, 3, 16, 16), 0.4)
    assert losses.multi_stage_loss([torch.full((1, 3, 12, 12), 0.4)], flat).item() == pytest.approx(0, abs=1e-10)  # 3/4: no integer factor


# --- opinions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", range(10))
def test_squared_emd_of_shifted_opinions_has_its_closed_form(shift):
    """All mass `shift` scores away: `shift` steps of the cumulative sums differ by one."""
    one, other = torch.eye(10, dtype=torch.float64)[:1], torch.eye(10, dtype=torch.float64)[shift : shift + 1]
    assert losses.squared_emd(one, other).item() == shift
    assert losses.squared_emd(one, other, root=True).item() == pytest.approx(math.sqrt(shift / 10), abs=1e-6)
    for root in (False, True):  # one-hot in whole numbers, as F.one_hot makes them
        assert losses.squared_emd(one.long(), other.long(), root=root) == losses.squared_emd(one.float(), other.float(), root=root)
    half = (one + other) / 2  # half of the mass: a quarter of the squares
    assert losses.squared_emd(half, other).item() == pytest.approx(shift / 4)


def test_squared_emd_has_a_true_gradient_also_where_the_distributions_are_equal():
    p = torch.rand(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1).requires_grad_(True)
    q = torch.rand(3, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(-1)
    for root in (False, True):
        assert torch.autograd.gradcheck(lambda x, root=root: losses.squared_emd(x, q, root=root), (p,))
        (gradient,) = torch.autograd.grad(losses.squared_emd(p, p.detach(), root=root), p)
        assert torch.isfinite(gradient).all()
    with pytest.raises(ValueError, match=r"shapes \(3, 10\) and \(3, 9\)"):
        losses.squared_emd(p, q[:, :9])


def test_score_and_representation_losses_are_equations_4_and_5():
    hr, sr_ = torch.tensor([5.0, 8.0]), torch.tensor([5.0, 9.0])
    # (10-5) - 0.8·(10-5) = 1; (10-9) - 0.8·(10-8) = -0.6 → 0
    assert losses.score_loss(sr_, hr).item() == pytest.approx(0.5)
    assert losses.score_loss(hr, hr, alpha=1.0) == 0
    a, b = torch.zeros(2, 1280), torch.full((2, 1280), 0.5)
    assert losses.representation_loss(a, b).item() == pytest.approx(0.25)
    assert losses.representation_loss(a, b, reduction="sum").item() == pytest.approx(0.25 * 1280)
    a.requires_grad_(True)
    b.requires_grad_(True)
    losses.representation_loss(a, b).backward()
    assert a.grad.abs().sum() > 0 and b.grad is None  # the original is no player
    with pytest.raises(ValueError, match="'mean' or 'sum'"):
        losses.representation_loss(a, b, reduction="max")


# --- perceptual -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos():
    random = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, 32, 32, generator=random), torch.rand(2, 3, 32, 32, generator=random)


@pytest.mark.parametrize(("network", "count"), [("vgg16", 31), ("vgg19", 37)])
def test_layer_names_are_torchvisions_layers(network, count):
    with torch.device("meta"):
        layers = getattr(torchvision.models, network)(weights=None).features
    names = layer_names(network)
    kinds = {"conv": torch.nn.Conv2d, "relu": torch.nn.ReLU, "pool": torch.nn.MaxPool2d}
    assert len(names) == len(layers) == count
    assert all(isinstance(layer, kinds[name[:4]]) for name, layer in zip(names, layers, strict=True))
    assert names[-4:] == [f"relu5_{2 if network == 'vgg16' else 3}", *names[-3:]] and names[-1] == "pool5"


@pytest.mark.parametrize("layer", ["conv2_2", "relu2_2", "relu4_3"])
def test_perceptual_loss_is_the_distance_of_torchvisions_features(layer, photos, tmp_path):
    """With weights of one's own, against torchvision's network used directly."""
    torch.manual_seed(0)
    vgg = torchvision.models.vgg16(weights=None).features.eval()
    save_file({f"features.{k}": v for k, v in vgg.state_dict().items()}, tmp_path / "own.safetensors")
    torch.save({f"features.{k}": v for k, v in vgg.state_dict().items()}, tmp_path / "own.pth")
    depth = layer_names("vgg16").index(layer) + 1
    mean, std = torch.tensor([0.485, 0.456, 0.406])[:, None, None], torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    for m in vgg:
        m.inplace = False
    with torch.no_grad():
        a, b = (vgg[:depth]((x - mean) / std) for x in photos)
    for file in ("own.safetensors", "own.pth"):
        loss = losses.PerceptualLoss("vgg16", layer, tmp_path / file)
        assert torch.allclose(loss(*photos), (a - b).square().mean(), rtol=1e-4)


def test_perceptual_loss_is_zero_for_equal_images_and_its_gradient_reaches_the_generator_only(photos):
    loss = losses.PerceptualLoss("vgg16", "relu2_2", "random")
    hr = photos[0]
    assert loss(hr, hr) == 0
    generator = sr.models.create("srresnet", scale=2, blocks=1, channels=4)
    for autocast in (False, True):
        generator.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            value = loss(generator(sr.degradation.downscale(hr, 2)), hr)
        assert value.dtype == torch.float32
        value.backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())
        assert all(p.grad is None and not p.requires_grad for p in loss.parameters())


def test_random_weights_are_the_same_each_time_and_say_what_they_are(photos):
    torch.manual_seed(1)
    first = losses.PerceptualLoss("vgg19", "relu1_2", "random")
    state = torch.random.get_rng_state()
    second = losses.PerceptualLoss("vgg19", "relu1_2", "random")
    assert torch.equal(torch.random.get_rng_state(), state)  # building it leaves the global dice alone
    assert first(*photos) == second(*photos) > 0
    assert "random weights (seed 0), not trained" in repr(first)
    assert "weights" not in " ".join(first.state_dict()) and sum(p.numel() for p in first.parameters()) == 38_720  # the front alone


def test_texture_loss_ignores_where(photos):
    """Gram matrices: the same after the image is rolled around (inside, where no padding shows), not after it is flattened."""
    loss = losses.TextureLoss("vgg16", ["relu1_1"], "random")
    hr = photos[0]
    rolled = torch.roll(hr, 7, dims=-1)
    assert loss(hr, hr) == 0
    assert loss(rolled, hr) < 0.02 * loss(hr.mean((2, 3), keepdim=True).expand_as(hr), hr)
    assert losses.PerceptualLoss("vgg16", "relu1_1", "random")(rolled, hr) > 0.05
    features = torch.rand(2, 5, 4, 6)
    expected = torch.einsum("nchw,ndhw->ncd", features, features) / (5 * 4 * 6)
    assert torch.allclose(losses.gram_matrix(features), expected, atol=1e-6)


def test_absent_weights_say_what_to_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    with pytest.raises(
        FileNotFoundError, match=r"cannot be downloaded .*run curl -o .*vgg19-.*\.pth http.*; or take weights='random'"
    ) as caught:
        losses.PerceptualLoss("vgg19", "relu5_4", "imagenet")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.pth*"))


def test_imagenet_weights_are_taken_from_the_cache(tmp_path, monkeypatch, photos):
    """A file of that name in torch's cache is used as it is; here a drawn one, as the real one needs a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    own = losses.PerceptualLoss("vgg16", "relu1_2", "random")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    name = torchvision.models.get_model_weights("vgg16").DEFAULT.url.rpartition("/")[2]
    torch.save({f"features.{k}": v for k, v in own.features.front.state_dict().items()}, folder / name)
    cached = losses.PerceptualLoss("vgg16", "relu1_2", "imagenet")
    assert cached(*photos) == own(*photos) and "ImageNet weights" in repr(cached)


def test_wrong_perceptual_networks_get_one_line(tmp_path, photos):
    (tmp_path / "text.pth").write_text("no")
    (tmp_path / "text.safetensors").write_text("no")
    save_file({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "short.safetensors")
    save_file({"features.0.weight": torch.zeros(1), "features.0.bias": torch.zeros(64)}, tmp_path / "odd.safetensors")
    broken = {"features.0.weight": torch.full((64, 3, 3, 3), float("nan")), "features.0.bias": torch.zeros(64)}
    save_file(broken, tmp_path / "nan.safetensors")
    for arguments, words in {
        ("vgg11", "relu1_1", "random"): "no perceptual network 'vgg11': expected one of vgg16, vgg19",
        ("vgg16", "relu4_4", "random"): "vgg16 has no layer 'relu4_4'",
        ("vgg16", "relu1_1", tmp_path / "text.pth"): "holds no weights of this VGG",
        ("vgg16", "relu1_1", tmp_path / "text.safetensors"): "holds no weights of this VGG",
        ("vgg16", "relu1_1", tmp_path / "short.safetensors"): "has no weight features.0.bias",
        ("vgg16", "relu1_1", tmp_path / "nan.safetensors"): "holds no weights of this VGG",
        ("vgg16", "relu1_1", tmp_path / "odd.safetensors"): "holds no weights of this VGG",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            losses.PerceptualLoss(*arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match=r"no perceptual weights 'nope\.pth'"):
        losses.PerceptualLoss("vgg16", "relu1_1", "nope.pth")
    loss = losses.PerceptualLoss("vgg16", "relu3_1", "random")
    with pytest.raises(ValueError, match="differ in shape"):
        loss(photos[0], photos[1][:, :, :16])
    with pytest.raises(ValueError, match="2×2: relu3_1 needs 4 pixels"):
        loss(photos[0][..., :2, :2], photos[0][..., :2, :2])
    with pytest.raises(ValueError, match=r"expected \(N, 3, H, W\)"):
        loss(photos[0][0], photos[0][0])


def test_nothing_is_broadcast_in_the_losses_of_opinions():
    with pytest.raises(ValueError, match=r"the scores have shapes \(4,\) and \(1,\)"):
        sr.losses.score_loss(torch.rand(4), torch.rand(1))
    with pytest.raises(ValueError, match=r"the features have shapes \(4, 8\) and \(8,\)"):
        sr.losses.representation_loss(torch.rand(4, 8), torch.rand(8))
    half = torch.eye(10)[:1].half()
    assert sr.losses.squared_emd(half, half, root=True).item() < 1e-6
    with pytest.raises(ValueError, match=r"expected a sequence of names, such as \['relu1_1'\]"):
        sr.losses.perceptual.VGGFeatures(layers="relu1_1", weights="random")


def test_a_narrow_vgg_of_ones_own_is_trained_and_taken(tmp_path):
    """`data_scripts/fit_features.py` writes it; two steps show that it runs, not that it learns."""
    for i in range(3):
        sr.images.write(tmp_path / "photos" / f"{i}.png", sr.data.DeadLeaves(seed=1, size=64)[i])
    spec = importlib.util.spec_from_file_location("fit_features", ROOT / "data_scripts" / "fit_features.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    words = {"out": tmp_path / "small.safetensors", "steps": 2, "divisor": 8, "held_out": 1, "description": "leaves", "seed": 0}
    script.main(tmp_path / "photos", **words)
    loss = losses.PerceptualLoss(weights=tmp_path / "small.safetensors")
    widths = [layer.out_channels for layer in loss.features.front if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [8] * 2 + [16] * 2 + [32] * 4 + [64] * 8
    one = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert loss(one, one) == 0 < loss(one.flip(-1), one)
    with pytest.raises(ValueError, match=r"holds no weights of this VGG|has no weight"):
        losses.PerceptualLoss("vgg16", "relu5_3", tmp_path / "small.safetensors")
    with pytest.raises(ValueError, match="3 are kept to measure on: expected more"):
        script.main(tmp_path / "photos", **{**words, "held_out": 3})


def test_the_courses_features_rank_what_random_ones_mix_up():
    """On photos that they never saw: further away the stronger each distortion is, and that over all kinds at once."""
    photos = [sr.images.sample(name)[:, 100:228, 150:278] for name in sr.data.TEST_SAMPLES]
    levels = [0.2, 0.4, 0.6, 0.8, 1.0]  # whole steps of "pixels"
    ranked = {}
    for weights in ("course", "random"):
        loss, distances = losses.PerceptualLoss(weights=weights), []
        with torch.no_grad():
            for kind in DISTORTIONS:
                damaged = [[distort(photo, kind, level, seed=i) for i, photo in enumerate(photos)] for level in levels]
                row = [loss(torch.stack(some), torch.stack(photos)).item() for some in damaged]
                assert weights == "random" or all(a < b for a, b in itertools.pairwise(row)), (kind, row)
                distances += row
        ranked[weights] = spearmanr(distances, levels * len(DISTORTIONS)).statistic
    assert ranked["course"] > 0.9 > ranked["random"] + 0.1


def test_the_courses_features_are_a_narrow_vgg19():
    loss = losses.PerceptualLoss(weights="course")
    widths = [layer.out_channels for layer in loss.features.front if isinstance(layer, torch.nn.Conv2d)]
    assert widths == [8] * 2 + [16] * 2 + [32] * 4 + [64] * 8
    assert "course's own weights" in repr(loss.features)
    with pytest.raises(ValueError, match="the course trained a narrow vgg19, not vgg16"):
        losses.PerceptualLoss("vgg16", "relu4_3", "course")
    file = find_weights("vgg19", "course")
    assert file.stat().st_size < 4e6
    with safe_open(file, framework="pt") as opened:
        card = json.loads(opened.metadata()["srcourse"])
    assert all(card["rank_correlation"][layer] > card["rank_correlation_untrained"][layer] + 0.1 for layer in card["rank_correlation"])
