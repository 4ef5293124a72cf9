"""Adversarial training: both steps, warm start, both sides in checkpoints, warnings, and two processes that follow one."""

import pytest
import torch
from safetensors.torch import load_file

import srcourse as sr
from conftest import checksums, history, in_two_processes, kill_at_random_moments, one_line, train_words
from srcourse.training.adversarial import Game, frozen, one_sided
from srcourse.training.checkpoints import Checkpoints
from srcourse.training.engine import Engine
from srcourse.training.plan import plan

TINY = [
    "start=null",
    "model.blocks=1",
    "model.channels=8",
    "discriminator.channels=2",
    "data.patch=32",
    "data.batch=4",
    "checkpoint_every=3",
    "validate_every=5",
    "log_every=2",
]


def tiny(steps=12, *more, **fields):
    return sr.training.load_recipe("srgan_small", scale=2, steps=steps, overrides=[*TINY, *more], **fields)


def states(folder, step):
    return [load_file(folder / "checkpoints" / f"step_{step:08d}" / f"{name}.safetensors") for name in ("generator", "discriminator")]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_loop_is_the_algorithm(leaves):
    """The engine's losses against the two steps written out with plain PyTorch (P000 algorithm 1)."""
    recipe = tiny(4, "log_every=1", "loss=mse", "loss_weights={pixel: 2, adversarial: 0.01}", "discriminator.norm=true", "data.hold_out=0")
    run = sr.training.train(recipe, leaves, progress=False)
    engine = Engine(recipe, leaves, progress=False)
    generator = engine.network("generator", "srresnet_small", scale=2, blocks=1, channels=8)
    discriminator = engine.network("discriminator", "patch_discriminator", channels=2, norm=True)
    g_adam = torch.optim.Adam(generator.parameters(), lr=recipe.optimizer.learning_rate)
    d_adam = torch.optim.Adam(discriminator.parameters(), lr=recipe.discriminator.learning_rate)
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    for step in range(4):
        lr, hr = engine.batch(step)
        image = generator(lr)
        real, fake = discriminator(hr), discriminator(image.detach())
        d_loss = bce(real, torch.ones_like(real)) + bce(fake, torch.zeros_like(fake))
        d_adam.zero_grad()
        d_loss.backward()
        d_adam.step()
        judged = discriminator(image)
        pixel, adversarial = ((image - hr) ** 2).mean(), bce(judged, torch.ones_like(judged))
        g_adam.zero_grad()
        (2 * pixel + 0.01 * adversarial).backward()
        g_adam.step()
        row = run.history[step]
        for key, value in (("discriminator_loss", d_loss), ("pixel_loss", pixel), ("adversarial_loss", adversarial)):
            assert row[key] == pytest.approx(value.item(), abs=1e-6)
        assert row["loss"] == pytest.approx((2 * pixel + 0.01 * adversarial).item(), abs=1e-6)
        assert row["real_accuracy"] == pytest.approx((real > 0).float().mean().item())
    assert torch.allclose(run.model.state_dict()["head.0.weight"], generator.state_dict()["head.0.weight"], atol=1e-6)


def test_the_discriminator_learns_and_stays_as_it_is_in_the_generators_step(leaves):
    still = ["loss_weights.adversarial=0", "optimizer.learning_rate=1e-12", "data.batch=8", "discriminator.channels=8", "log_every=10"]
    run = sr.training.train(tiny(100, *still, "discriminator.learning_rate=2e-3"), leaves, progress=False)
    first, last = run.history[0], run.history[-1]
    assert last["discriminator_loss"] < first["discriminator_loss"] - 0.2
    assert last["real_accuracy"] + last["generated_accuracy"] > 1.5 and "adversarial_loss" not in last
    network = sr.models.create("patch_discriminator", channels=2)
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    with frozen(network) as judge:
        judge(image).sum().backward()
    assert image.grad.abs().sum() > 0 and all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.slow
def test_adversarial_fine_tuning_adds_detail_and_the_control_does_not():
    """From the shipped pixelwise network: PSNR falls a little, the share of high frequencies rises towards the photos'."""
    photos, test = list(sr.data.training_samples()), sr.data.samples(sr.data.TEST_SAMPLES)
    pairs = list(sr.data.Benchmark("test", 4, test))
    start = sr.models.load("srresnet_small-x4")

    def measure(model):
        images = [sr.upscale(model, pair.lr) for pair in pairs]
        psnr = [sr.metrics.psnr(image, pair.hr, border=4) for image, pair in zip(images, pairs, strict=True)]
        share = [sr.metrics.high_frequency_share(image) for image in images]
        return torch.tensor(psnr), torch.tensor(share)

    before, real = measure(start), torch.tensor([sr.metrics.high_frequency_share(pair.hr) for pair in pairs])
    results = {}
    for weight in (0.0, 0.005):
        recipe = sr.training.load_recipe("srgan_small", steps=80, overrides=[f"loss_weights.adversarial={weight}", "data.hold_out=0"])
        results[weight] = measure(sr.training.train(recipe, photos, progress=False).model)
    psnr, share = results[0.005]
    assert ((before[0] - psnr) > 0.05).all() and ((before[0] - psnr) < 1.5).all()
    assert (share > 1.4 * before[1]).all() and (share < real).all()
    control_psnr, control_share = results[0.0]
    assert ((control_psnr - before[0]).abs() < 0.15).all() and ((control_share / before[1] - 1).abs() < 0.25).all()


@pytest.mark.parametrize("kind", sr.losses.KINDS)
def test_every_game_and_network_trains(kind, leaves):
    run = sr.training.train(
        tiny(2, f"adversarial={kind}", "discriminator.name=srgan_discriminator", "discriminator.hidden=8"), leaves, progress=False
    )
    assert run.step == 2 and all(value == value for value in run.history[-1].values())
    assert run.model.name == "srresnet_small"


def test_a_cascade_is_supervised_at_every_stage(leaves):
    recipe = sr.training.load_recipe(
        "recursive_gan",
        steps=2,
        overrides=[
            "model.channels=4",
            "model.recursions=2",
            "discriminator.channels=2",
            "perceptual={weights: random, layer: relu1_2}",
            *TINY[4:],
        ],
    )
    run = sr.training.train(recipe, leaves, progress=False)
    row = run.history[-1]
    assert row["loss"] == pytest.approx(row["pixel_loss"] + row["perceptual_loss"] + 1e-3 * row["adversarial_loss"], rel=1e-4)
    # at the start every stage is bicubic plus little: the sum over two stages is more than the last one's error alone
    single = sr.training.train(recipe.model_copy(update={"stages": False}), leaves, progress=False).history[-1]
    assert row["pixel_loss"] > 1.2 * single["pixel_loss"]


def test_the_result_is_the_last_generator_not_the_one_of_best_psnr(leaves, tmp_path):
    run = sr.training.train(tiny(12, "loss_weights={pixel: 0, adversarial: 1}", "validate_every=2"), leaves, out=tmp_path, progress=False)
    validated = [row["psnr"] for row in run.history if "psnr" in row]
    assert max(validated) > validated[-1]
    assert same(run.model.state_dict(), states(tmp_path, 12)[0])
    card = sr.models.card(tmp_path)  # a run's folder names its result
    assert card["step"] == 12 and card["validation_psnr"] == validated[-1]


def test_each_side_has_its_learning_rate(leaves):
    recipe = tiny(1, "optimizer.learning_rate=1e-3", "discriminator.learning_rate=4e-3", "schedule={kind: step, every: 10, factor: 0.1}")
    engine = Engine(recipe, leaves, progress=False)
    for name in ("generator", "discriminator"):
        rate = recipe.discriminator.learning_rate if name == "discriminator" else None
        engine.optimizer(name, engine.network(name, "patch_discriminator", channels=2), learning_rate=rate)
    engine.step = 0
    next(engine.steps())
    assert [o.param_groups[0]["lr"] for o in engine.optimizers.values()] == pytest.approx([1e-3, 4e-3])


# --- warm start -------------------------------------------------------------------------------------------------


def test_it_starts_from_a_pixelwise_run(leaves, tmp_path, monkeypatch, command, photo_folder):
    pixelwise = sr.training.load_recipe("srresnet_small", scale=2, steps=3, overrides=["model.blocks=1", "model.channels=8", *TINY[4:]])
    trained = sr.training.train(pixelwise, leaves, out=tmp_path / "runs" / "first-x2", progress=False)
    monkeypatch.chdir(tmp_path)
    frozen_rate = "optimizer.learning_rate=1e-30"
    run = sr.training.train(tiny(1, "start=runs/first-x{scale}", frozen_rate), leaves, progress=False)
    assert same(run.model.state_dict(), trained.model.state_dict())
    message = "srgan starts from runs/srresnet-x4, which is not here: train them with: srcourse train srresnet --scale 4; name others"
    assert message in one_line(command("train", "srgan", "--data", photo_folder, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(FileNotFoundError, match=r"starts from nope\.safetensors, which is not here: name others with --set start="):
        sr.training.train(tiny(1, "start=nope.safetensors"), leaves, progress=False)
    with pytest.raises(FileNotFoundError, match="train them with: srcourse train msfm_mse --scale 3, and start from them with"):
        sr.training.train(sr.training.load_recipe("srgan_small", scale=3, steps=1, start="msfm_mse-x{scale}"), leaves, progress=False)
    wide = sr.training.load_recipe("srgan", steps=1, overrides=["start=srresnet_small-x4", "perceptual.weights=random"])
    with pytest.raises(ValueError, match=r"only 1 of this network's 25\d tensors are in .*srresnet_small-x4"):
        sr.training.train(wide, [torch.rand(3, 192, 192)] * 2, progress=False)
    # what it started from is not needed to go on
    sr.training.train(tiny(3, "start=runs/first-x2"), leaves, out=tmp_path / "gan", progress=False)
    (tmp_path / "runs" / "first-x2" / "model.safetensors").unlink()
    assert sr.training.train(tiny(5, "start=runs/first-x2"), leaves, out=tmp_path / "gan", resume=True, progress=False).step == 5


def test_absent_perceptual_weights_are_told_before_anything_is_read(tmp_path, monkeypatch, command):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    line = one_line(command("train", "msfm_epa", "--data", tmp_path / "no_such_folder", "--out", tmp_path / "run"))
    assert "ImageNet weights of vgg16" in line and "perceptual.weights=random" in line


# --- resuming and processes -------------------------------------------------------------------------------------


def test_resume_is_bit_identical_for_both_sides(leaves, tmp_path):
    sr.training.train(tiny(12), leaves, out=tmp_path / "a", progress=False)
    sr.training.train(tiny(7), leaves, out=tmp_path / "b", progress=False)
    sr.training.train(tiny(12), leaves, out=tmp_path / "b", resume=True, progress=False)
    sums = [checksums(tmp_path / n, 12) for n in "ab"]
    assert sums[0] == sums[1]
    assert set(sums[0]) == {f"{side}{ending}" for side in ("generator", "discriminator") for ending in (".safetensors", ".optimizer.pt")}


def words(folder, photos, steps, *more):
    return train_words("srgan_small", folder, photos, steps, *TINY, *more)


@pytest.mark.slow
def test_killed_at_random_moments_ends_bit_identical(process, photo_folder, tmp_path):
    steps = 200
    assert process(*words(tmp_path / "whole", photo_folder, steps), timeout=300).returncode == 0
    kill_at_random_moments(words(tmp_path / "killed", photo_folder, steps), tmp_path / "killed", 5, seed=7)
    assert process(*words(tmp_path / "killed", photo_folder, steps), timeout=300).returncode == 0
    for a, b in zip(states(tmp_path / "whole", steps), states(tmp_path / "killed", steps), strict=True):
        assert same(a, b)


@pytest.mark.parametrize("norm", [False, True])
def test_two_processes_follow_one(norm, process, photo_folder, tmp_path):
    """Without BN in the discriminator to 1e-5. With it, each CPU process has the statistics of its own half: it only has to run."""
    more = ["precision=float32", f"discriminator.norm={str(norm).lower()}", "loss_weights.adversarial=0.05"]
    assert process(*words(tmp_path / "one", photo_folder, 10, *more)).returncode == 0
    in_two_processes(words(tmp_path / "two", photo_folder, 10, *more))
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if key != "step":
                assert a[key] == pytest.approx(b[key], abs=1e-3 if key == "psnr" else 1e-5) or norm, (key, a, b)


def test_a_broken_weight_stops_the_run_before_it_is_saved(leaves, tmp_path):
    """A step of finite losses whose update breaks a weight: the last good checkpoint stays the last."""
    from srcourse.training.adversarial import train_adversarial

    engine = Engine(tiny(9, "checkpoint_every=1", "log_every=1"), leaves[:4], out=tmp_path, progress=False)
    update = engine.update

    def breaking(optimizer, loss):
        update(optimizer, loss)
        if engine.step == 3:
            engine.networks["generator"].head[0].bias.data[0] = float("nan")

    engine.update = breaking
    try:
        with pytest.raises(sr.training.TrainingError, match="step 4: training stopped, the last good checkpoint is step 3"):
            train_adversarial(engine)
    finally:
        engine.release()
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 3
    assert all(torch.isfinite(tensor).all() for tensor in states(tmp_path, 3)[0].values())


def test_of_terms_that_are_not_finite_the_culprit_is_named(leaves, monkeypatch):
    from srcourse.training import adversarial

    monkeypatch.setattr(adversarial, "discriminator_loss", lambda real, fake, kind: (real - fake).mean() * float("nan"))
    with pytest.raises(sr.training.TrainingError, match="discriminator_loss is nan at step 1"):
        sr.training.train(tiny(3), leaves, progress=False)


# --- balance ----------------------------------------------------------------------------------------------------


def rows(real, generated, steps=400, every=20):
    return [{"step": s, "real_accuracy": real, "generated_accuracy": generated} for s in range(every, steps + 1, every)]


def test_a_won_game_is_noticed_after_long():
    assert one_sided(rows(0.999, 0.995)) == "discriminator"
    assert one_sided(rows(0.9, 0.001)) == "generator"
    for open_game in (rows(0.7, 0.6), rows(0.999, 0.9), rows(0.999, 0.995, steps=180), [], rows(0.7, 0.6) + rows(0.999, 0.999, steps=0)):
        assert one_sided(open_game) is None
    late = rows(0.6, 0.6, steps=400) + [{**row, "step": row["step"] + 400} for row in rows(1.0, 1.0, steps=180)]
    assert one_sided(late) is None and one_sided(late, steps=100) == "discriminator"


def test_the_user_is_warned_once_that_one_side_has_won(leaves, capsys):
    """A generator that hardly moves and a discriminator that learns fast: it must win, and say so."""
    recipe = tiny(
        600, "optimizer.learning_rate=1e-9", "discriminator={name: patch_discriminator, channels: 8, learning_rate: 2e-3}", "log_every=20"
    )
    run = sr.training.train(recipe, leaves, progress=True)
    assert (
        len(run.warnings) == 1 and "the discriminator has won" in run.warnings[0] and "lower discriminator.learning_rate" in run.warnings[0]
    )
    assert capsys.readouterr().out.count("warning: the discriminator has won") == 1


# --- recipes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["discriminator=null"], "needs a discriminator"),
        (["discriminator.name=msfm"], "discriminator.name is 'msfm': expected one of srgan_discriminator"),
        (["discriminator.chanels=4"], "patch_discriminator has no option 'chanels'"),
        (["discriminator.learning_rate=0"], "discriminator.learning_rate: .*greater than 0"),
        (["discriminator={name: srgan_discriminator, input_size: 96}"], "is data.patch"),
        (["model.name=patch_discriminator"], "method adversarial expects one of nearest"),
        (["loss_weights={pixel: 0, adversarial: 0}"], "all loss_weights are 0"),
        (["loss_weights.adversarial=-1"], "loss_weights.adversarial: .*greater than or equal to 0"),
        (["loss_weights.style=1"], "no key 'loss_weights.style': expected one of pixel, perceptual, adversarial"),
        (["perceptual.layer=relu9_9"], "perceptual.layer is 'relu9_9'"),
        (["perceptual.network=alexnet"], "perceptual.network: "),
        (["adversarial=wgan"], "adversarial: "),
        (["stages=true"], "srresnet_small has none: expected recursive_cascade"),
        (["method=pixelwise"], "belong to method: adversarial"),
        (["keep=first"], "keep: "),
    ],
)
def test_wrong_adversarial_recipes_get_one_line(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        sr.training.load_recipe("srgan_small", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_another_networks_name_forgets_the_recipes_options_of_the_first():
    recipe = sr.training.load_recipe("srgan_mse", overrides=["model.blocks=2", "model.name=srresnet_small"])
    assert recipe.model.options == {"blocks": 2}
    assert sr.training.load_recipe("srgan_mse", overrides=["model.blocks=2"]).model.options == {"blocks": 2, "upsample": "deconv"}


def weights(recipe):
    """The λ of these papers; those of P002's four further losses must be 0."""
    found = recipe.loss_weights.model_dump()
    assert not any(found.pop(f"{judge}_{kind}") for judge in ("aesthetic", "subjective") for kind in ("score", "features"))
    return found


def test_the_papers_adversarial_recipes():
    load = sr.training.load_recipe
    for track in ("", "_unknown"):
        srgan, before = load(f"srgan{track}"), load(f"srresnet{track}")
        assert weights(srgan) == {"pixel": 2, "perceptual": 1, "adversarial": 0.005}
        assert (srgan.model, srgan.data) == (before.model, before.data) and srgan.start_weights() == f"runs/srresnet{track}-x4"
        assert srgan.discriminator_options() == {"input_size": 180}
        assert [srgan.learning_rate(t) for t in (14_999, 15_000)] == pytest.approx([1e-4, 1e-5])
    assert load("srgan_mse").loss_weights.adversarial == pytest.approx(10 / 255**2, rel=0.03)
    epa, pa, mse = load("msfm_epa"), load("msfm_pa"), load("msfm_mse")
    assert weights(epa) == {"pixel": 1, "perceptual": 0.1, "adversarial": 0.001}
    assert weights(pa) == {"pixel": 0, "perceptual": 0.1, "adversarial": 0.001}
    assert epa.data == pa.data == mse.data and epa.steps == pa.steps == mse.steps == 200_000
    assert (epa.data.batch, epa.data.crops_per_image, epa.data.patch, epa.data.half_turn) == (128, 16, 128, 0.5)
    assert (epa.perceptual.network, epa.perceptual.layer, epa.adversarial) == ("vgg16", "relu4_3", "patch-mean")
    assert epa.learning_rate(20_000) == pytest.approx(0.8e-4) and mse.method == "pixelwise"
    assert load("recursive_gan").stages and load("recursive_gan").loss_weights.adversarial == 1e-3
    for name in ("srgan", "srgan_unknown"):
        for scale in (2, 3, 4):
            assert load(name, scale=scale).start_weights().endswith(f"-x{scale}")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["discriminator.norm=true"], "alone in the discriminator (SyncBatchNorm"),
        (["model={name: srresnet, blocks: 1, channels: 8}", "discriminator.norm=true"], "alone in the generator and the discriminator (S"),
        (["discriminator.norm=false"], None),
    ],
)
def test_the_plan_tells_whose_batch_statistics_the_processes_do_not_share(overrides, told, leaves):
    engine = Engine(tiny(1, *overrides, device="cpu"), leaves, progress=False)
    engine.network("generator", engine.recipe.model.name, scale=2, **engine.recipe.model.options)
    Game(engine, engine.optimizer("generator", engine.networks["generator"]))
    assert "batch statistics" not in plan(engine)
    engine.world = 2
    assert told in plan(engine) if told else "batch statistics" not in plan(engine)


def test_in_pieces_both_sides_move_at_the_end_from_the_whole_batchs_gradients(leaves, gradients):
    alone = "discriminator.norm=false"  # batch statistics would be a piece's
    sr.training.train(tiny(1, alone, "optimizer.accumulate=2"), leaves, progress=False)
    assert len(gradients) == 2  # the discriminator's descent, then the generator's
    sr.training.train(tiny(1, alone, "discriminator.learning_rate=1e-30"), leaves, progress=False)  # whole, judged by one that stays
    for pieces, whole in zip(gradients[:2], gradients[2:], strict=True):
        for a, b in zip(pieces, whole, strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
