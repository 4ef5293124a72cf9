"""rGAN: two phases, a first pass without gradient, replay, repeated upscaling, and scores pass by pass."""

import math

import pytest
import torch
from safetensors.torch import load_file

import srcourse as sr
from conftest import checksums, history, in_two_processes, kill_at_random_moments, train_words
from srcourse.resize import resize_bicubic
from srcourse.training.engine import Engine
from srcourse.training.recursive import own_image, replays, train_recursive

TINY = [
    "model={blocks: 1, channels: 8}",
    "discriminator.channels=2",
    "data={patch: 32, batch: 4}",
    "recursive.replay=0",
    "checkpoint_every=2",
    "validate_every=4",
    "log_every=1",
]


def tiny(steps, first, *more):
    return sr.training.load_recipe("rgan_small", steps=steps, overrides=[*TINY, f"recursive.first_steps={first}", *more])


def words(folder, photos, steps, *more):
    return train_words("rgan_small", folder, photos, steps, *TINY, *more)


def without_psnr(row):
    return {key: value for key, value in row.items() if key not in ("psnr", "seconds")}


def test_phase_a_is_pixelwise_training_on_the_half_sized_photo(leaves):
    """Against plain PyTorch: 1X to 2X, where the shrunk patch is exact, and the discriminator takes no part."""
    recipe = tiny(3, 3, "data.hold_out=0", "data.flip=0", "data.turn=0")
    run = sr.training.train(recipe, leaves, progress=False)
    engine = Engine(recipe, leaves, progress=False)
    generator = engine.network("generator", "srresnet_small", scale=2, blocks=1, channels=8)
    adam = torch.optim.Adam(generator.parameters(), lr=recipe.optimizer.learning_rate)
    for step, row in enumerate(run.history):
        lr, hr = engine.batch(step)
        assert lr.shape[-1] * 4 == hr.shape[-1] == 32
        loss = (generator(lr) - resize_bicubic(hr, (16, 16)))[..., 2:-2, 2:-2].abs().mean()
        assert row["pixel_loss"] == row["loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert "discriminator_loss" not in row
        adam.zero_grad()
        loss.backward()
        adam.step()
    photo = leaves[0]
    whole, patch = sr.degradation.downscale(photo, 2), resize_bicubic(photo[None, :, 16:48, 16:48], (16, 16))[0]
    difference = (whole[:, 8:24, 8:24] - patch).abs()
    assert difference[:, 2:-2, 2:-2].max() < 1e-6 < difference.max()  # why two pixels are left out


def test_phase_b_leaves_no_gradient_in_the_first_pass_and_trains_the_second(leaves, monkeypatch):
    recipe = tiny(1, 0, "data.hold_out=0")
    engine = Engine(recipe, leaves, progress=False)
    seen, batch = [], engine.batch

    def watched(step):
        lr, hr = batch(step)
        lr.requires_grad_()
        engine.networks["generator"].register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output, module.training)))
        seen.append(lr)
        return lr, hr

    monkeypatch.setattr(engine, "batch", watched)
    train_recursive(engine)
    lr, first, second = seen[:3]
    assert first[0] is lr and not first[1].requires_grad and lr.grad is None and not first[2]
    assert torch.equal(second[0], first[1].clamp(0, 1)) and second[1].requires_grad and second[2]
    assert second[1].shape[-1] == 4 * lr.shape[-1]
    generator = engine.networks["generator"]
    assert generator.training and all(p.grad is not None for p in generator.parameters())
    assert generator.tail[0].weight.grad.abs().sum() > 0  # the last one begins at zero, so that those before have none yet
    row = engine.history.rows[0]
    assert {"discriminator_loss", "adversarial_loss", "pixel_loss"} <= row.keys()


def test_own_image_is_what_upscale_makes(leaves):
    torch.manual_seed(0)
    model = sr.models.create("srresnet", scale=2, blocks=1, channels=4)  # with BN: eval mode matters
    model.train()
    lr = torch.rand(2, 3, 8, 8)
    own = own_image(model, lr, 2)
    assert model.training and model.head[0].weight.grad is None
    assert torch.allclose(own, sr.upscale(model, sr.upscale(model, lr)), atol=1e-6)
    assert torch.equal(sr.upscale(model, lr, passes=2), sr.upscale(model, sr.upscale(model, lr)))
    assert own.shape == (2, 3, 32, 32)
    with pytest.raises(ValueError, match="passes is 0: expected a whole number of at least 1"):
        sr.upscale(model, lr, passes=0)


def test_frozen_batch_statistics_stay_frozen():
    model = sr.models.create("srresnet", scale=2, blocks=1, channels=4).train()
    norm = next(m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)).eval()
    sr.upscale(model, torch.rand(3, 8, 8))
    own_image(model, torch.rand(1, 3, 8, 8), 1)
    assert model.training and not norm.training and model.head.training


def test_a_second_phase_that_never_comes_is_told(leaves):
    for more in (tiny(1, 1), tiny(1, 0, "recursive.replay=1")):
        assert "the second phase never begins" in sr.training.train(more, leaves, progress=False).warnings[0]
    assert not sr.training.train(tiny(1, 0), leaves, progress=False).warnings


def test_replaying_every_step_is_phase_a(leaves, tmp_path):
    sr.training.train(tiny(8, 8), leaves, out=tmp_path / "a", progress=False)
    sr.training.train(tiny(8, 3, "recursive.replay=1"), leaves, out=tmp_path / "b", progress=False)
    a, b = (checksums(tmp_path / name, 8) for name in "ab")
    assert a == b
    assert [without_psnr(row) for row in history(tmp_path / "a")] == [without_psnr(row) for row in history(tmp_path / "b")]


def test_replay_is_a_share_of_steps_that_depends_on_seed_and_step_alone():
    chosen = [replays(3, step, 0.3) for step in range(2000)]
    assert 0.26 < sum(chosen) / 2000 < 0.34 and chosen == [replays(3, step, 0.3) for step in range(2000)]
    assert chosen != [replays(4, step, 0.3) for step in range(2000)]
    assert not any(replays(3, step, 0) for step in range(50)) and all(replays(3, step, 1) for step in range(50))


@pytest.mark.parametrize("stop", [2, 6])
def test_resume_is_bit_identical_in_either_phase(leaves, tmp_path, stop):
    more = "recursive.replay=0.4"
    sr.training.train(tiny(8, 4, more), leaves, out=tmp_path / "whole", progress=False)
    sr.training.train(tiny(stop, 4, more), leaves, out=tmp_path / "parts", progress=False)
    sr.training.train(tiny(8, 4, more), leaves, out=tmp_path / "parts", resume=True, progress=False)
    assert checksums(tmp_path / "whole", 8) == checksums(tmp_path / "parts", 8)


@pytest.mark.slow
def test_killed_in_either_phase_ends_bit_identical(process, photo_folder, tmp_path):
    """Three kills in the first phase's part of the run, the others in the second's."""
    more = ["recursive={first_steps: 100, replay: 0.3}", "validate_every=50", "log_every=10", "checkpoint_every=10"]
    for folder, steps, kills in (("killed", 100, 2), ("killed", 240, 3)):
        line = words(tmp_path / folder, photo_folder, steps, *more)
        kill_at_random_moments(line, tmp_path / folder, kills, seed=steps)
        assert process(*line, timeout=300).returncode == 0
    assert process(*words(tmp_path / "whole", photo_folder, 240, *more), timeout=300).returncode == 0
    assert checksums(tmp_path / "whole", 240) == checksums(tmp_path / "killed", 240)


def test_two_processes_follow_one(process, photo_folder, tmp_path):
    more = ["precision=float32", "discriminator.norm=false", "recursive={first_steps: 3, replay: 0.3}", "loss_weights.adversarial=0.05"]
    assert process(*words(tmp_path / "one", photo_folder, 8, *more)).returncode == 0
    in_two_processes(words(tmp_path / "two", photo_folder, 8, *more))
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(one) == len(two) and any("discriminator_loss" in row for row in one)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], abs=1e-3 if key == "psnr" else 1e-5), (key, a, b)


def test_rows_name_every_loss_of_their_steps_and_the_plan_says_what_happens(leaves, capsys):
    recipe = tiny(8, 2, "recursive.replay=0.5", "log_every=8", "validate_every=8", "checkpoint_every=8")
    (row,) = sr.training.train(recipe, leaves).history
    assert {"pixel_loss", "loss", "discriminator_loss", "real_accuracy"} <= row.keys()
    plan = capsys.readouterr().out
    assert "rgan_small ×2 2 times" in plan and "2 steps of l1 on photographs, then on its own images, 50% of the steps as before" in plan


def test_validation_is_of_all_passes(leaves):
    run = sr.training.train(tiny(2, 2, "validate_every=2"), leaves[:5], validation=leaves[5:], progress=False)
    lr = sr.images.quantize(sr.degradation.downscale(leaves[5], 4))
    expected = sr.metrics.psnr(sr.upscale(run.model, lr, passes=2), leaves[5], border=4)
    assert run.history[-1]["psnr"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["recursive.passes=4"], "recursive.passes: "),
        (["scale=4"], "2 passes at scale 4 enlarge 16 times: expected at most 8"),
        (["data.patch=38"], "data.patch is 38: expected a multiple of the scale 4, that of 2 passes"),
        (["recursive.replay=1.5"], "recursive.replay: "),
        (["discriminator=null"], "method: recursive needs a discriminator"),
        (["stages=true"], "within one pass"),
        (["loss_weights={pixel: 0, adversarial: 0}"], "all loss_weights are 0"),
        (["model.name=patch_discriminator"], "method recursive expects one of nearest"),
    ],
)
def test_wrong_recursive_recipes_get_one_line(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        sr.training.load_recipe("rgan_small", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_the_papers_recipes():
    rgan, fftgan, srgan = (sr.training.load_recipe(name) for name in ("rgan", "fftgan", "srgan_mse"))
    assert rgan.model == fftgan.model == srgan.model and rgan.scale == 2 and rgan.enlargement == 4
    assert rgan.recursive.replay == 0 and 0 < rgan.recursive.first_steps < rgan.steps
    assert fftgan.discriminator.name == "fft_discriminator" and fftgan.discriminator_options() == {"input_size": 96}
    assert fftgan.loss_weights.adversarial == pytest.approx(100 / 255**2, rel=0.03)
    assert (fftgan.data, fftgan.optimizer, fftgan.start) == (srgan.data, srgan.optimizer, srgan.start)


def test_both_lessons_recipes_run(leaves):
    for name in ("fftgan_small", "rgan_small"):
        recipe = sr.training.load_recipe(
            name, scale=2, steps=3, overrides=["start=null", "data.patch=32", "model={blocks: 1, channels: 8}"]
        )
        run = sr.training.train(recipe, leaves, progress=False)
        assert run.step == 3 and all(math.isfinite(value) for value in run.history[-1].values())


# --- scores pass by pass ----------------------------------------------------------------------------------------


def test_scores_of_every_pass_are_those_of_its_image():
    photo = sr.images.sample("chelsea")[:, :180, :448]
    bicubic = sr.models.create("bicubic", scale=2)
    table = sr.evaluation.evaluate_passes({"bicubic": bicubic}, [photo], passes=2)
    truth = sr.images.crop_to_multiple(photo, 4)
    first = sr.upscale(bicubic, sr.images.quantize(sr.degradation.downscale(truth, 4)))
    second = sr.upscale(bicubic, first)
    half = sr.degradation.downscale(truth, 2)
    for row, image, hr, k in ((table.scores[0], first, half, 1), (table.scores[1], second, truth, 2)):
        image, hr = sr.images.quantize(image), sr.images.quantize(hr)  # as they would be saved
        assert (row.benchmark, row.scale) == (f"pass {k}", 2**k)
        assert row.psnr == pytest.approx(sr.metrics.psnr(image, hr, border=2**k), abs=1e-9)
        assert row.ssim == pytest.approx(sr.metrics.ssim(image, hr, border=2**k), abs=1e-9)
        cut = [sr.images.crop_border(x, 2**k) for x in (image, hr)]
        shares = [sr.metrics.high_frequency_share(x) for x in cut]
        assert row.detail == pytest.approx(shares[0] / shares[1])
    assert math.isnan(table.scores[0].niqe) and table.scores[1].niqe == pytest.approx(sr.metrics.niqe(second, border=4))
    assert "–" in str(table) and "pass 2" in str(table)
    whole = sr.evaluation.evaluate({"bicubic": bicubic}, sr.data.Benchmark("b", 4, [photo]), passes=2).scores[0]
    last = table.scores[1]
    assert (whole.psnr, whole.ssim, whole.niqe, whole.detail) == (last.psnr, last.ssim, last.niqe, last.detail)


def test_wrong_passes_are_told():
    photo = torch.rand(3, 64, 64)
    bicubic = {"bicubic": sr.models.create("bicubic", scale=4)}
    with pytest.raises(ValueError, match="4 passes at scale 2 enlarge 16 times: expected 2 to 8"):
        sr.evaluation.evaluate_passes(bicubic, [photo], passes=4)
    with pytest.raises(ValueError, match=r"passes=2\.0, scale=2: expected whole numbers"):
        sr.evaluation.evaluate_passes(bicubic, [photo], passes=2.0)
    with pytest.raises(ValueError, match="bicubic is no model for scale 2"):
        sr.evaluation.evaluate_passes(bicubic, [photo], passes=2)
    with pytest.raises(ValueError, match="photo 0 after pass 1 cannot be scored"):
        sr.evaluation.evaluate_passes({"b": sr.models.create("bicubic", scale=2)}, [torch.rand(3, 16, 16)], passes=2)
    tiny = sr.data.Photos(["speck"], [lambda: torch.rand(3, 16, 16)])
    with pytest.raises(ValueError, match="speck after pass 1 cannot be scored"):
        sr.evaluation.evaluate_passes({"b": sr.models.create("bicubic", scale=2)}, tiny, passes=2)


def test_the_command_enlarges_in_passes(command, photo_folder, tmp_path):
    done = command("upscale", photo_folder / "0.png", "--model", "bicubic", "--scale", 2, "--passes", 2, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    image = sr.images.read(tmp_path / "0_x4.png")
    lr = sr.images.read(photo_folder / "0.png")
    assert torch.equal(image, sr.images.quantize(sr.upscale(sr.models.create("bicubic", scale=2), lr, passes=2)))
    refused = command("upscale", photo_folder / "0.png", "--passes", 9, "--out", tmp_path)
    assert refused.returncode == 2 and "Invalid value for '--passes'" in refused.stderr


# --- the discriminator of spectra -------------------------------------------------------------------------------


def fft(**options):
    torch.manual_seed(0)
    return sr.models.create("fft_discriminator", **{"input_size": 24, "hidden": 16, **options})


@pytest.mark.parametrize("log", [True, False])
def test_its_input_is_numpys_spectrum(log):
    import numpy as np

    images = torch.rand(2, 3, 24, 24, dtype=torch.float64)
    expected = np.abs(np.fft.rfft2(images.numpy(), norm="ortho"))
    seen = fft(log=log).spectrum(images)
    assert seen.dtype == torch.float32 and seen.shape == (2, 3, 24, 13)
    assert np.allclose(seen.numpy(), np.log1p(expected) if log else expected, atol=1e-5)
    both = fft(log=log, phase=True).spectrum(images)
    assert both.shape == (2, 9, 24, 13) and torch.equal(both[:, :3], seen)
    angle = np.angle(np.fft.rfft2(images.numpy(), norm="ortho"))
    assert np.allclose((both[:, 3:6] + 1j * both[:, 6:]).numpy(), seen.numpy() * np.exp(1j * angle), atol=1e-4)


def test_a_circular_shift_changes_its_mind_only_with_phase():
    images = torch.rand(4, 3, 24, 24)
    shifted = images.roll((5, -3), dims=(-2, -1))
    blind, seeing = fft(), fft(phase=True)
    assert torch.allclose(blind(images), blind(shifted), atol=1e-5)
    assert (seeing(images) - seeing(shifted)).abs().min() > 1e-3
    assert (blind(images) - blind(images.flip(-1).transpose(-1, -2))).abs().min() > 1e-4  # nor is it blind to everything


def test_autocast_does_not_reach_the_transform():
    network = fft()
    images = torch.rand(2, 3, 24, 24)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spectrum, logits = network.spectrum(images), network(images)
        from_bf16 = network.spectrum(images.bfloat16())  # what a network in bf16 hands over
    assert spectrum.dtype == from_bf16.dtype == torch.float32 and torch.equal(spectrum, network.spectrum(images))
    assert logits.dtype == torch.bfloat16 and torch.allclose(logits.float(), network(images), atol=0.05)


@pytest.mark.parametrize("phase", [False, True])
def test_its_gradient_is_finite_where_the_spectrum_is_zero(phase):
    image = torch.full((1, 3, 24, 24), 0.5, requires_grad=True)
    fft(phase=phase)(image).sum().backward()
    assert torch.isfinite(image.grad).all() and image.grad.abs().sum() > 0
    exact = fft(phase=phase, input_size=8, hidden=3).double()
    spectrum, exact.spectrum = exact.spectrum, lambda x: spectrum(x).double()
    x = torch.rand(1, 3, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(exact(x.double()).sum(), x)
    step = torch.zeros_like(x)
    step[0, 1, 2, 3] = 1e-2
    numeric = (exact((x + step).double()) - exact((x - step).double())).item() / 2e-2
    assert gradient[0, 1, 2, 3].item() == pytest.approx(numeric, rel=0.02, abs=1e-4)


@pytest.mark.parametrize("size", [8, 9, 15])
def test_any_square_size_and_no_other(size):
    network = fft(input_size=size)
    assert network(torch.rand(2, 3, size, size)).shape == (2, 1)
    with pytest.raises(ValueError, match=f"{size}×{size + 1}: .* built for {size}×{size}"):
        network(torch.rand(2, 3, size, size + 1))
    with pytest.raises(ValueError, match="expected at least 8 and 1"):
        fft(input_size=4)


def test_saved_and_loaded_it_judges_alike(tmp_path):
    network = fft(phase=True, log=False)
    sr.models.save(network, tmp_path / "d.safetensors")
    images = torch.rand(1, 3, 24, 24)
    assert torch.equal(sr.models.load(tmp_path / "d.safetensors")(images), network(images))
    assert len(load_file(tmp_path / "d.safetensors")) == 4
