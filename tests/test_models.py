"""Networks: exact parameter counts, any size, gradients everywhere, weights in and out."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.stats import spearmanr
from torch import nn

import srcourse as sr
from conftest import one_line

SCALES = {
    "nearest": range(2, 9),
    "bicubic": range(2, 9),
    "srcnn": range(2, 9),
    "fsrcnn": range(2, 9),
    "srresnet": (2, 3, 4),
    "srresnet_small": (2, 3, 4),
    "msfm": (2, 3, 4),
    "recursive_cascade": (2, 4, 8),
    "eusr": (2, 4, 8),
}
DISCRIMINATORS = ("srgan_discriminator", "patch_discriminator", "fft_discriminator", "eusr_discriminator")
NARROW = {
    "srresnet": {"blocks": 1, "channels": 4},
    "srresnet_small": {"blocks": 1, "channels": 4},
    "msfm": {"channels": 4},
    "recursive_cascade": {"channels": 4, "recursions": 2},
    "eusr": {"channels": 4, "blocks": 1},
}


def test_every_network_is_listed_here():
    assert {*SCALES, *DISCRIMINATORS, "score_predictor"} == set(sr.models.available())


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("srresnet", {"scale": 2}, 1_401_749),  # P001 table 1
        ("srresnet", {"scale": 3}, 1_586_389),
        ("srresnet", {"scale": 4}, 1_549_462),
        ("srresnet_small", {"scale": 4}, 98_005),
        ("srresnet_small", {"scale": 2}, 87_601),
        ("srcnn", {"image_channels": 1}, 8_032 + 97),
        ("srcnn", {}, 20_099),
        ("fsrcnn", {}, 24_683),
        ("bicubic", {}, 0),
        ("srgan_discriminator", {"input_size": 180}, 80_188_609),  # P001 table 1
        ("srgan_discriminator", {"input_size": 96}, 23_565_505),
        ("patch_discriminator", {}, 3_919_873),
        ("fft_discriminator", {}, 3_613_185),
        ("fft_discriminator", {"hidden": 1024}, 14_452_737),
        ("msfm", {}, 11_760_515),
        ("msfm", {"channels": 32}, 2_949_571),
        ("recursive_cascade", {}, 448_390),
        ("recursive_cascade", {"share": True}, 225_091),
        ("recursive_cascade", {"recursions": 1}, 448_390),
        ("eusr", {}, 6_295_689),
        ("eusr_discriminator", {}, 23_588_641),
        ("eusr_discriminator", {"head": "patch"}, 5_238_561),
        ("score_predictor", {}, 2_236_682),
    ],
)
def test_parameter_counts(name, options, count):
    assert sr.models.count_parameters(sr.models.create(name, **options)) == count


@pytest.mark.parametrize(("name", "weights"), [("srcnn", 8_032), ("fsrcnn", 12_464)])
def test_published_weight_counts_of_the_luma_networks(name, weights):
    """Dong et al. count convolution weights, without biases and slopes."""
    model = sr.models.create(name, image_channels=1)
    assert sum(p.numel() for p in model.parameters() if p.ndim == 4) == weights


def test_srresnet_is_the_papers():
    model = sr.models.create("srresnet", scale=4)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 2 * 16 + 1 + 2 + 1
    assert [c.kernel_size[0] for c in (convolutions[0], convolutions[-1])] == [9, 9]
    assert {c.kernel_size[0] for c in convolutions[1:-1]} == {3}
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 2 * 16 + 1
    slopes = [m for m in model.modules() if isinstance(m, nn.PReLU)]
    assert len(slopes) == 1 + 16 + 2 and all(m.num_parameters == 1 for m in slopes)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), height=st.integers(8, 21), width=st.integers(8, 21))
@pytest.mark.parametrize("name", list(SCALES))
def test_any_size_comes_out_exactly_scaled(name, data, height, width):
    scale = data.draw(st.sampled_from(list(SCALES[name])))
    with torch.no_grad():
        assert sr.models.create(name, scale=scale, **NARROW.get(name, {}))(torch.rand(1, 3, height, width)).shape == (
            1,
            3,
            scale * height,
            scale * width,
        )


@pytest.mark.parametrize("upsample", ["shuffle", "deconv", "direct"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gradients_reach_every_parameter(upsample, scale):
    model = sr.models.create("srresnet", scale=scale, blocks=2, channels=8, upsample=upsample)
    sr_image = model(torch.rand(2, 3, 9, 10))
    assert sr_image.shape == (2, 3, 9 * scale, 10 * scale)
    sr_image.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_transposed_convolutions_overlap_evenly(scale):
    """Equal weights on a constant image leave no grid inside: the kernel is a multiple of its stride."""
    for layer in sr.models.create("srresnet", scale=scale, upsample="deconv", blocks=1, channels=1).tail:
        if isinstance(layer, nn.ConvTranspose2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
            inside = layer(torch.ones(1, 1, 9, 9))[..., 6:-6, 6:-6]
            assert inside.std() == 0 and inside.mean() == 4


def test_options_do_what_they_say():
    plain = sr.models.create("srresnet", norm=False, blocks=2)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    x = torch.rand(1, 3, 12, 12)
    for scale in (2, 3, 4):
        for upsample in ("shuffle", "deconv", "direct"):
            model = sr.models.create("srresnet", scale=scale, blocks=1, channels=4, upsample=upsample, bicubic_skip=True)
            assert torch.equal(model(x), sr.degradation.upscale(x, scale))


@pytest.mark.parametrize("name", ["srcnn", "fsrcnn", "srresnet", "srresnet_small", "msfm", "recursive_cascade"])
def test_autocast_stays_close_to_float32(name):
    torch.manual_seed(0)
    model = sr.models.create(name, **{"msfm": {"channels": 16}}.get(name, {})).eval()
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = model(x)
    assert (exact - rough.float()).abs().max() < 0.05 * exact.abs().max() + 0.02


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sr.models.create("vgg"), "no model 'vgg': expected one of nearest"),
        (lambda: sr.models.create("srresnet", scales=4), "no option 'scales'"),
        (lambda: sr.models.create("srresnet", scale=8), "2, 3 and 4"),
        (lambda: sr.models.create("srresnet", upsample="nearest"), "'shuffle', 'deconv' or 'direct'"),
        (lambda: sr.models.create("srresnet", ends=4), "odd"),
        (lambda: sr.models.create("fsrcnn", scale=1), "2 to 8"),
        (lambda: sr.models.create("srcnn", image_channels=4), "1 or 3"),
        (lambda: sr.models.create("bicubic", scale=2.5), "2 to 8"),
        (lambda: sr.models.create("msfm", scale=8), "2, 3 and 4"),
        (lambda: sr.models.create("recursive_cascade", scale=3), "2, 4 or 8, or stages"),
        (lambda: sr.models.create("recursive_cascade", stages=(2, 3)), "growing integers that end at the scale, 4"),
        (lambda: sr.models.create("recursive_cascade", stages=(2, 2, 4)), "growing integers"),
        (lambda: sr.models.create("recursive_cascade", stages=(2, 3, 4), share=True), "must all double, or none"),
        (lambda: sr.models.create("recursive_cascade", stages=4), "cannot build recursive_cascade with stages=4"),
        (lambda: sr.models.create("srgan_discriminator", input_size=8), "at least 16"),
        (lambda: sr.models.create("patch_discriminator", scale=4), "no option 'scale'"),
        (lambda: sr.models.create("srgan_discriminator", input_size=32, channels=4)(torch.rand(1, 3, 32, 40)), "32×40: .* built for 32×32"),
        (lambda: sr.models.create("patch_discriminator", channels=2)(torch.rand(1, 3, 4, 40)), "at least 8 pixels"),
        (lambda: sr.models.create("eusr", scales=4), "^scales=4: expected some of 2, 4 and 8, each once$"),
        (
            lambda: sr.models.create("eusr", scales=range(10**5)),
            r"^scales=\(0, 1, 2, 3, 4, 5, \.\.\.\): expected some of 2, 4 and 8, each once$",
        ),
        (lambda: sr.models.create("recursive_cascade", stages=range(2, 10**5)), r"^stages=\(2, 3, 4, 5, 6, 7, \.\.\.\): expected growing"),
    ],
)
def test_bad_options_get_one_line(call, words):
    with pytest.raises(ValueError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [torch.rand(3, 32, 32), torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.rand(1, 1, 32, 32)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("srgan_discriminator", {"input_size": 32, "channels": 2}),
        ("patch_discriminator", {"channels": 2}),
        ("fft_discriminator", {"input_size": 32, "hidden": 2}),
        ("eusr_discriminator", {"input_size": 32, "channels": 2, "hidden": 2}),
        ("eusr_discriminator", {"head": "patch", "channels": 2, "hidden": 2}),
    ],
)
def test_discriminators_refuse_what_is_no_batch_of_colour_images(name, options, images):
    with pytest.raises(
        ValueError, match=r"^the images are torch\.\w+ \(.*\): expected floating point \(N, 3, height, width\) in \[0, 1\]$"
    ):
        sr.models.create(name, **options)(images)


# --- the adversarial half -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [("msfm", {"scale": s, "channels": 1}) for s in (2, 3, 4)]
    + [
        ("recursive_cascade", {"scale": 4, "channels": 1, "recursions": 1}),
        ("recursive_cascade", {"scale": 4, "channels": 1, "recursions": 1, "stages": (2, 3, 4)}),
    ],
)
def test_every_size_from_8_to_40_comes_out_exactly_scaled(name, options):
    """Every height beside every remainder of the width by 4 (what MSFM pads), and the reverse."""
    model, scale = sr.models.create(name, **options), options["scale"]
    with torch.no_grad():
        for long in range(8, 41):
            for height, width in {(long, long), *((long, short) for short in range(8, 12)), *((short, long) for short in range(8, 12))}:
                assert model(torch.rand(1, 3, height, width)).shape == (1, 3, scale * height, scale * width)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("msfm", {"scale": 2, "channels": 8}),
        ("msfm", {"scale": 3, "channels": 8}),
        ("msfm", {"scale": 4, "channels": 8}),
        ("recursive_cascade", {"channels": 8}),
        ("recursive_cascade", {"channels": 8, "stages": (2, 3, 4)}),
        ("recursive_cascade", {"channels": 8, "share": True}),
        ("srgan_discriminator", {"input_size": 48, "channels": 4}),
        ("srgan_discriminator", {"input_size": 48, "channels": 4, "norm": False}),
        ("patch_discriminator", {"channels": 4}),
        ("patch_discriminator", {"channels": 4, "norm": False}),
        ("fft_discriminator", {"input_size": 48, "hidden": 4}),
        ("eusr_discriminator", {"input_size": 48, "channels": 4, "hidden": 4}),
        ("eusr_discriminator", {"head": "patch", "channels": 4, "hidden": 4}),
    ],
)
def test_gradients_reach_every_parameter_of_the_adversarial_networks(name, options):
    torch.manual_seed(0)
    model = sr.models.create(name, **options)
    model(torch.rand(4, 3, 48, 48)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_msfm_is_the_papers():
    """23 convolutions that run, no BN, k9 at both ends, the side of each as in P000 figure 3."""
    model, ran = sr.models.create("msfm", channels=4), []
    for layer in model.modules():
        assert not isinstance(layer, nn.BatchNorm2d)
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(
                lambda layer, _, out: ran.append((layer.kernel_size[0], layer.in_channels, layer.out_channels, out.shape[-1]))
            )
    model(torch.rand(1, 3, 16, 16))
    c, h = 4, 16
    encoder = [(9, 3, c, h), (3, c, c, h), (3, c, 2 * c, h // 2), (3, 2 * c, 2 * c, h // 2)]
    encoder += [(3, 2 * c, 4 * c, h // 4), (3, 4 * c, 4 * c, h // 4), (3, 4 * c, 4 * c, h // 4)]
    decoder = [(3, 4 * c, 4 * c, h), (3, 4 * c, 4 * c, h), (3, 4 * c, 8 * c, h), (3, 4 * c, 2 * c, 2 * h), (3, 2 * c, 4 * c, 2 * h)]
    decoder += [(3, 2 * c, c, 4 * h), (9, c, 3, 4 * h)]
    mappings = [
        (3, k * c, n * k * c, side)
        for k, first in ((1, h), (2, h // 2), (4, h // 4))
        for n, side in ((1, first), (4, first), (4, 2 * first))
    ]
    assert len(ran) == 23 and sorted(ran) == sorted(encoder + decoder + mappings)


def test_msfm_with_a_skip_starts_at_bicubic():
    x = torch.rand(1, 3, 11, 14)
    assert torch.equal(sr.models.create("msfm", channels=4, bicubic_skip=True)(x), sr.degradation.upscale(x, 4))


def test_receptive_field_and_stride_of_the_patch_discriminator():
    """71×71 pixels, 8 apart, from gradients. Every activation and pooling is made linear, or a maximum would hide three in four."""
    model = sr.models.create("patch_discriminator", channels=2, norm=False).double()
    for i, layer in enumerate(model.layers):
        if isinstance(layer, nn.MaxPool2d):
            model.layers[i] = nn.AvgPool2d(2)
        elif isinstance(layer, nn.LeakyReLU):
            model.layers[i] = nn.Identity()
        else:
            nn.init.ones_(layer.weight)  # no path can cancel another
    x = torch.rand(1, 3, 256, 256, dtype=torch.float64, requires_grad=True)
    logits = model(x)
    assert logits.shape == (1, 1, 32, 32)
    boxes = {}
    for row, column in ((15, 15), (15, 16), (16, 15)):
        (gradient,) = torch.autograd.grad(logits[0, 0, row, column], x, retain_graph=True)
        seen = gradient[0].abs().sum(0).nonzero()
        boxes[row, column] = (*seen.min(0).values.tolist(), *(seen.max(0).values - seen.min(0).values + 1).tolist())
    assert boxes[15, 15][2:] == (71, 71)
    assert boxes[15, 16][:2] == (boxes[15, 15][0], boxes[15, 15][1] + 8)
    assert boxes[16, 15][:2] == (boxes[15, 15][0] + 8, boxes[15, 15][1])


def test_the_srgan_discriminator_halves_four_times():
    model = sr.models.create("srgan_discriminator", input_size=180)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convolutions] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert [c.out_channels for c in convolutions] == [64, 64, 128, 128, 256, 256, 512, 512]
    assert all(c.bias is not None for c in convolutions)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in model.modules()) == 7
    assert model.classifier[1].in_features == 512 * 12 * 12


def test_the_recursive_block_repeats_its_two_convolutions():
    """u_{t+1} = conv2(ReLU(conv1(ReLU(u_t)))) + u_0, written out."""
    from srcourse.models.recursive import RecursiveBlock

    torch.manual_seed(0)
    block = RecursiveBlock(4, 3).double()
    x = torch.randn(1, 4, 6, 6, dtype=torch.float64)
    once = lambda u: block.conv2(torch.relu(block.conv1(torch.relu(u)))) + x  # noqa: E731
    assert torch.equal(block(x), once(once(once(x))))


def test_the_cascade_gives_each_stages_image():
    torch.manual_seed(0)
    x = torch.rand(1, 3, 9, 10)
    model = sr.models.create("recursive_cascade", stages=(2, 3, 4), channels=4, recursions=1)
    images = model(x, return_stages=True)
    assert [tuple(i.shape[-2:]) for i in images] == [(18, 20), (27, 30), (36, 40)]
    assert torch.equal(images[-1], model(x))
    two = sr.models.create("recursive_cascade", channels=4, recursions=1)
    for stage in two.stages:
        nn.init.zeros_(stage.to_image.weight)
        nn.init.zeros_(stage.to_image.bias)
    first, second = two(x, return_stages=True)
    assert torch.equal(first, sr.degradation.upscale(x, 2)) and torch.equal(second, sr.degradation.upscale(first, 2))


def test_the_score_predictor_gives_distributions_and_features():
    torch.manual_seed(0)
    model = sr.models.create("score_predictor").eval()
    images = torch.rand(2, 3, 64, 80)
    with torch.no_grad():
        probabilities, features = model(images, return_features=True)
    assert probabilities.shape == (2, 10) and features.shape == (2, 1280)
    assert torch.allclose(probabilities.sum(1), torch.ones(2)) and (probabilities > 0).all()
    assert torch.equal(model(images), probabilities)
    assert sr.models.mean_score(torch.eye(10)).tolist() == list(range(1, 11))
    with pytest.raises(ValueError, match="16×16: expected at least 32"):
        model(torch.rand(1, 3, 16, 16))
    with pytest.raises(ValueError, match="positive width"):
        sr.models.create("score_predictor", width=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("msfm", {"channels": 8}), ("recursive_cascade", {"channels": 8, "recursions": 2})])
def test_compiled_networks_give_the_same(name, options):
    torch.manual_seed(0)
    model = sr.models.create(name, **options).eval()
    compiled = torch.compile(model)
    for size in ((12, 12), (13, 18)):
        x = torch.rand(1, 3, *size)
        with torch.no_grad():
            assert torch.allclose(compiled(x), model(x), atol=1e-4)


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    model = sr.models.create("srresnet", scale=2, blocks=1, channels=8)
    model(torch.rand(2, 3, 8, 8))  # moves the running statistics of BN
    return model.eval(), sr.models.save(model, tmp_path / "a.safetensors", card={"steps": 3})


def test_weights_survive_a_file(saved):
    model, path = saved
    loaded = sr.models.load(path)
    assert not loaded.training and loaded.name == "srresnet" and loaded.scale == 2
    assert sr.models.card(path) == {"steps": 3}
    x = torch.rand(1, 3, 9, 9)
    assert torch.equal(loaded(x), model(x))


def test_loading_costs_no_random_numbers(saved):
    before = torch.random.get_rng_state()
    for weights in (saved[1], "nima_small"):
        sr.models.load(weights)
        assert torch.equal(torch.random.get_rng_state(), before)


def test_half_precision_files_are_half_the_size_and_close(saved, tmp_path):
    model, path = saved
    half = sr.models.save(model, tmp_path / "half.safetensors", half=True)
    assert half.stat().st_size < 0.6 * path.stat().st_size
    x = torch.rand(1, 3, 9, 9)
    assert torch.allclose(sr.models.load(half)(x), model(x), atol=5e-3)
    assert next(sr.models.load(half).parameters()).dtype == torch.float32


def test_wrong_files_get_one_line(saved, tmp_path, command):
    model, path = saved
    (tmp_path / "text.safetensors").write_text("no")
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:500])
    save_file({"x": torch.zeros(1)}, tmp_path / "stranger.safetensors")
    other = sr.models.create("srresnet", scale=2, blocks=1, channels=16)
    other.options = model.options  # claims to be the narrow one
    sr.models.save(other, tmp_path / "liar.safetensors")
    fewer = sr.models.create("srresnet", scale=2, blocks=2, channels=8)
    fewer.options = model.options
    sr.models.save(fewer, tmp_path / "deeper.safetensors")
    torch.save(model.state_dict(), tmp_path / "pickle.safetensors")
    for name, words in {
        "text": "not a readable safetensors",
        "cut": "not a readable safetensors",
        "pickle": "never unpickled",
        "stranger": "does not say what network",
        "liar": "another network: head.0.weight is",
        "deeper": "lacks weight trunk.1.weight: these are the weights of another network",
    }.items():
        with pytest.raises(ValueError, match=words) as caught:
            sr.models.load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no weights 'srresnet-x9'"):
        sr.models.load("srresnet-x9")
    sr.images.write(tmp_path / "a.png", torch.rand(3, 9, 9))
    assert "another network" in one_line(
        command("upscale", tmp_path / "a.png", "--model", tmp_path / "liar.safetensors", "--out", tmp_path / "out")
    )
    assert not (tmp_path / "out").exists()


def test_saving_refuses_what_cannot_be_loaded(tmp_path):
    with pytest.raises(ValueError, match=r"made by srcourse.models.create"):
        sr.models.save(nn.Conv2d(3, 3, 3), tmp_path / "a.safetensors")
    model = sr.models.create("srcnn")
    with torch.no_grad():
        model.body[0].bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"body\.0\.bias holds NaN"):
        sr.models.save(model, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def _scored(model, name, entry, folder):
    """The row of a card's entry and bicubic's, and each image's PSNR by model."""
    scale, passes = entry.get("scale", model.scale), entry.get("passes", 1)
    benchmark = sr.data.benchmarks(folder / entry["benchmark"], scale)
    path = model.at(scale) if hasattr(model, "at") else model
    ours = sr.evaluation.evaluate({name: path}, benchmark, passes=passes)
    bicubic = sr.evaluation.evaluate({"bicubic": sr.models.create("bicubic", scale=scale)}, benchmark)
    return ours, bicubic


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(sr.models.shipped()) - {"nima_small"}))
def test_shipped_weights_are_what_their_cards_say(name, benchmarks_folder):
    """Those trained for pixels beat bicubic on every image; those of a game look more natural than what they began from."""
    model, card = sr.models.load(name), sr.models.card(name)
    assert {entry["benchmark"] for entry in card["scores"]} == {"Set5", "Set14"}
    for entry in card["scores"]:
        ours, bicubic = _scored(model, name, entry, benchmarks_folder)
        assert ours.scores[0].psnr == pytest.approx(entry["psnr"], abs=0.01)
        assert ours.scores[0].ssim == pytest.approx(entry["ssim"], abs=0.0005)
        assert ours.scores[0].niqe == pytest.approx(entry["niqe"], abs=0.03)
        assert bicubic.scores[0].psnr == pytest.approx(entry["bicubic_psnr"], abs=0.001)
        if card["recipe"]["method"] in ("pixelwise", "multi-scale"):
            assert all(a["psnr"] > b["psnr"] for a, b in zip(ours.images, bicubic.images, strict=True))
        else:
            start = card["recipe"]["start"].replace("{scale}", str(card["recipe"]["scale"]))
            before, _ = _scored(sr.models.load(start), start, entry, benchmarks_folder)
            assert ours.scores[0].niqe < before.scores[0].niqe - 0.5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("recursive_cascade", {"recursions": 2.5}, "recursive_cascade's recursions is 2.5: expected a whole number, such as 9"),
        ("srresnet", {"norm": 2, "blocks": 1}, "norm is 2: expected true or false"),
        ("srresnet", {"upsample": 3, "blocks": 1}, "upsample"),
        ("srresnet", {"channels": float("inf")}, "srresnet's channels is inf: expected a whole number, such as 64"),
        ("srresnet", {"channels": 2.5}, "srresnet's channels is 2.5: expected a whole number, such as 64"),
        ("fsrcnn", {"image_channels": True}, "fsrcnn's image_channels is True: expected a whole number, such as 3"),
        ("eusr", {"channels": float("nan")}, "eusr's channels is nan: expected a whole number, such as 64"),
        ("patch_discriminator", {"norm": float("inf")}, "patch_discriminator's norm is inf: expected true or false, such as True"),
        ("srgan_discriminator", {"norm": None}, "srgan_discriminator's norm is None: expected true or false, such as True"),
        ("score_predictor", {"width": float("nan")}, "score_predictor's width is nan: expected a number, such as 1.0"),
        ("score_predictor", {"width": float("inf")}, "score_predictor's width is inf: expected a number, such as 1.0"),
        ("score_predictor", {"blocks": 18}, "expected 1 to 17 blocks"),
        ("score_predictor", {"features": 0}, "at least one feature"),
    ],
)
def test_options_of_the_wrong_kind_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        sr.models.create(name, **options)
    assert sr.models.create("score_predictor", dropout=0, blocks=1).head[0].p == 0  # a whole number will do for a float


@pytest.mark.parametrize(("width", "blocks", "features", "side"), [(1.4, 17, 1280, 64), (0.35, 1, 7, 32), (0.35, 6, 128, 33)])
def test_predictors_of_other_sizes(width, blocks, features, side):
    model = sr.models.create("score_predictor", width=width, blocks=blocks, features=features).eval()
    probabilities, seen = model(torch.rand(2, 3, side, side), return_features=True)
    assert probabilities.shape == (2, 10) and torch.allclose(probabilities.sum(-1), torch.ones(2))
    assert seen.shape == (2, 1792 if width > 1 else features)  # MobileNetV2 widens its last layer with its width


def test_the_shipped_predictor_ranks_what_it_never_saw_as_its_card_says():
    model, card = sr.models.load("nima_small"), sr.models.card("nima_small")
    photos = [sr.images.sample(name) for name in sr.data.TEST_SAMPLES]
    rated = sr.data.synthetic_ratings(photos, 300, size=96, seed=1)
    with torch.no_grad():
        predicted = sr.models.mean_score(model(torch.stack([one.image for one in rated])))
    given = sr.models.mean_score(rated.distributions)
    assert spearmanr(predicted, given).statistic == pytest.approx(card["scores"][0]["srocc"], abs=0.003)
    for kind in ("blur", "noise", "jpeg", "pixels"):
        of_kind = [i for i, name in enumerate(rated.names) if name.startswith(kind)]
        assert spearmanr(predicted[of_kind], given[of_kind]).statistic > 0.9
    assert sr.models.count_parameters(model) == 17_706 and "nobody was asked" in card["data"]


@pytest.mark.parametrize("name", ["eusr_small", "srgan_small", "fftgan_small", "four_pass_eusr_small"])
def test_the_recipe_is_the_one_that_its_shipped_weights_came_from(name):
    recipe = sr.training.load_recipe(name, scale=4)
    now, then = recipe.model_dump(mode="json"), sr.models.card(f"{name}-x4")["recipe"]
    for part in ("method", "model", "discriminator", "loss", "loss_weights", "adversarial", "schedule"):
        assert now[part] == then[part], part
    assert recipe.start_weights() == (then["start"] and then["start"].replace("{scale}", "4"))
    for part, key in (("optimizer", "learning_rate"), ("data", "patch"), ("data", "batch"), ("data", "degradation")):
        assert now[part][key] == then[part][key], key


def test_a_network_of_ones_own_is_trained_saved_and_loaded_by_its_name(tmp_path, leaves):
    def mine(scale=4, channels=8):
        return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    sr.models.register("mine", mine)
    try:
        changes = ["model.name=mine", "model.channels=4", "data.patch=32", "data.batch=2"]
        recipe = sr.training.load_recipe("srresnet_small", overrides=changes, steps=2)
        run = sr.training.train(recipe, leaves, validation=leaves[:1], progress=False)
        sr.models.save(run.model, tmp_path / "mine.safetensors")
        again = sr.models.load(tmp_path / "mine.safetensors")
        assert again.options == {"channels": 4, "scale": 4}
        x = torch.rand(1, 3, 8, 10)
        assert torch.equal(again(x), run.model(x)) and sr.upscale(again, x[0]).shape == (3, 32, 40)
        sr.models.register("mine", mine)  # a cell that runs twice
        with pytest.raises(ValueError, match="'msfm' is a network of the course: expected another name"):
            sr.models.register("msfm", mine)
        with pytest.raises(ValueError, match="takes no scale"):
            sr.models.register("other", lambda channels=4: mine())
    finally:
        for names in (sr.models.registry.GENERATORS, sr.models.registry.BUILDERS):
            names.pop("mine", None)
        sr.models.registry._REGISTERED.discard("mine")


MINE = """
import srcourse as sr
from beside import nn

class Mine(nn.Sequential):
    def __init__(self, scale=4, channels=4):
        super().__init__(nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 3 * scale**2, 1), nn.PixelShuffle(scale))

sr.models.register("mine", Mine)
"""


@pytest.mark.slow
def test_a_file_that_registers_a_network_serves_all_commands(tmp_path, photo_folder, process):
    """Also two processes, each of which loads it; and weights of such a network are refused in one line where it is missing."""
    mine = tmp_path / "mine.py"
    mine.write_text(MINE)
    (tmp_path / "beside.py").write_text("from torch import nn")  # a file of its own folder, wherever the command is given
    sets = ["--set", "model={name: mine, channels: 2}", "--set", "data.patch=32", "--set", "data.batch=2"]
    words = ["--load", str(mine), "train", "srresnet_small", "--data", str(photo_folder), "--steps", "2", *sets, "--out"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "srcourse"]
    both = subprocess.run([*launch, *words, str(tmp_path / "two")], capture_output=True, text=True, timeout=180)
    assert both.returncode == 0 and "2 processes" in both.stdout, both.stderr
    assert process(*words, tmp_path / "one").returncode == 0
    one, two = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "two"))
    assert all(torch.allclose(one[key], two[key], atol=1e-5) for key in one)
    photo = next(photo_folder.iterdir())
    enlarge = ["upscale", photo, "--model", tmp_path / "one" / "model.safetensors", "--out", tmp_path / "large"]
    assert process("--load", mine, *enlarge).returncode == 0
    assert sr.images.read(tmp_path / "large" / f"{photo.stem}_x4.png").shape[-1] == 4 * sr.images.read(photo).shape[-1]
    assert "'mine'" in one_line(process(*enlarge))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a Python file"),
        ("import srcourse\nsrcourse.models.register('msfm', print)", "ValueError in line 2: 'msfm' is a network of the course"),
        ("x = 1\n\nif x print()", "SyntaxError in line 3"),
        ("def f():\n    return a\nf()", "NameError in line 2: name 'a' is not defined"),
    ],
)
def test_a_file_that_does_not_run_is_told_with_its_line(tmp_path, command, text, message):
    mine = tmp_path / "mine.py"
    if text is not None:
        mine.write_text(text)
    assert message in one_line(command("--load", mine, "models"))


def test_what_a_network_gives_back_must_be_images():
    class Stages(nn.Module):
        def forward(self, x):
            return [x, x]

    for tile in (None, 8):
        with pytest.raises(ValueError, match="Stages returned a list: expected one tensor of images"):
            sr.upscale(Stages(), torch.rand(3, 16, 16), tile=tile)
    assert sr.upscale(nn.Upsample(scale_factor=4), torch.rand(3, 8, 8)).shape == (3, 32, 32)  # it has a name, and is no judge
