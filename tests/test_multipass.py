"""EUSR's paths and roads, its pre-training at several scales, and the four-pass game with its six losses."""

import copy
import math

import pytest
import torch
from torch import nn

import srcourse as sr
from conftest import checksums, history, in_two_processes, kill_at_random_moments, train_words
from srcourse.models.eusr import ROADS, EnhancedUpscaling, LocalResidualBlock
from srcourse.resize import resize_bicubic
from srcourse.training.engine import Engine
from srcourse.training.multipass import FourPassGame, chosen_scale, train_multi_pass

SMALL = ["model={blocks: 1, channels: 4}", "data={patch: 32, batch: 4}", "checkpoint_every=3", "validate_every=6", "log_every=1"]
GAME = [*SMALL, "start=null", "discriminator={name: eusr_discriminator, head: patch, channels: 2, hidden: 4}", "data.batch=2"]
GAME += ["optimizer.learning_rate=1e-4"]


def small_eusr(**options):
    torch.manual_seed(0)
    return sr.models.create("eusr", **{"blocks": 1, "channels": 4, **options})


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "parameters"),
    [({}, 6_295_689), ({"scale": 2, "scales": [2]}, 3_256_835), ({"scales": [4]}, 3_699_971), ({"scale": 8, "scales": [8]}, 4_143_107)],
)
def test_parameters_are_those_of_the_paper(options, parameters):
    with torch.device("meta"):
        assert sr.models.count_parameters(sr.models.create("eusr", **options)) == parameters


@pytest.mark.parametrize(("head", "parameters"), [("fc", 23_588_641), ("patch", 5_238_561)])
def test_parameters_of_both_discriminators(head, parameters):
    with torch.device("meta"):
        assert sr.models.count_parameters(sr.models.create("eusr_discriminator", head=head)) == parameters


def test_the_four_modules_make_the_four_pixels_of_every_two_by_two():
    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, x):
            return torch.full_like(x, self.value)

    module = EnhancedUpscaling(5, 1)
    for i in range(4):
        module.modules_in_chain[i] = Constant(float(i))
    out = module(torch.rand(2, 5, 3, 4))
    assert out.shape == (2, 5, 6, 8)
    assert torch.equal(out, torch.tensor([[0.0, 1.0], [2.0, 3.0]]).repeat(3, 4).expand(2, 5, 6, 8))


def test_the_modules_stand_in_a_chain():
    torch.manual_seed(0)
    module = EnhancedUpscaling(3, 1).double()
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64)
    a = module.modules_in_chain[0](x)
    b = module.modules_in_chain[1](a)
    c = module.modules_in_chain[2](b)
    d = module.modules_in_chain[3](c)
    out = module(x)
    for phase, (row, column) in zip((a, b, c, d), ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        assert torch.equal(out[..., row::2, column::2], phase)


@pytest.mark.parametrize("kernel", [3, 5])
def test_local_residual_blocks_begin_as_identities(kernel):
    torch.manual_seed(0)
    block = LocalResidualBlock(64, kernel)
    x = torch.randn(1, 64, 12, 12)
    assert (block(x) - x).abs().max() < 1e-4
    std = math.sqrt(1.3e-4 / 62 / (64 * kernel**2))
    assert block.conv1.weight.std().item() == pytest.approx(0.88 * std, rel=0.02)  # cut at two deviations
    assert block.conv1.weight.abs().max() <= 2 * std and block.conv1.bias.abs().max() == 0


def test_a_photo_in_its_mean_colour_comes_through_the_head_as_zeros():
    network = small_eusr(scales=[2], scale=2)
    mean = torch.tensor([114.4, 111.5, 103.0]).view(1, 3, 1, 1) / 255
    assert torch.allclose(network(mean.expand(1, 3, 8, 8)), mean.expand(1, 3, 16, 16), atol=1e-6)


@pytest.mark.parametrize("skip", [False, True])
def test_every_path_and_road_has_its_size(skip):
    network = small_eusr(bicubic_skip=skip).eval()
    x = torch.rand(2, 3, 9, 11)
    for scale in (2, 4, 8):
        assert network(x, scale).shape == network.at(scale)(x).shape == (2, 3, 9 * scale, 11 * scale)
    assert torch.equal(network(x), network(x, 4))
    if skip:  # it begins from the bicubic image
        assert torch.allclose(network(x), resize_bicubic(x, (36, 44)), atol=1e-6)
    roads = network.multipass(x)
    assert [road.shape for road in roads] == [(2, 3, 36, 44)] * 3
    assert torch.equal(roads[0], network(x, 4))
    assert torch.equal(roads[1], network(network(x, 2), 2))
    assert torch.equal(roads[2], resize_bicubic(network(x, 8), (36, 44)))
    assert torch.equal(network.multipass(x, decimate=True)[2], network(x, 8)[..., ::2, ::2])
    for (name, road), image in zip(network.roads().items(), roads, strict=True):
        assert torch.equal(road(x), image) and road.scale == 4 and name in ROADS
    assert torch.equal(network.roads(decimate=True)["×8·½"](x), network(x, 8)[..., ::2, ::2])


def test_upscaling_and_scoring_take_a_path_or_a_road():
    network = small_eusr(bicubic_skip=True)
    photo = sr.images.sample("chelsea")[:, :96, :120]
    bicubic = sr.upscale(sr.models.create("bicubic", scale=2), photo)
    assert torch.allclose(sr.upscale(network.at(2), photo, tile=40), bicubic, atol=1e-5)  # what it begins from
    table = sr.evaluation.evaluate(network.roads(), sr.data.Benchmark("photo", 4, [photo]))
    assert [score.model for score in table.scores] == list(ROADS)


def test_the_discriminator_judges_whole_images_or_patches():
    torch.manual_seed(0)
    options = {"channels": 2, "hidden": 4}
    whole = sr.models.create("eusr_discriminator", input_size=64, **options)
    assert whole(torch.rand(2, 3, 64, 64)).shape == (2, 1)
    with pytest.raises(ValueError, match=r"64×96: .* built for 64×64"):
        whole(torch.rand(2, 3, 64, 96))
    patch = sr.models.create("eusr_discriminator", head="patch", **options)
    assert patch(torch.rand(2, 3, 192, 192)).shape == (2, 1, 6, 6) and patch(torch.rand(2, 3, 64, 96)).shape == (2, 1, 2, 3)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        patch(torch.rand(1, 3, 31, 64))
    convolutions = [m for m in whole.modules() if isinstance(m, nn.Conv2d)]
    assert [m.stride[0] for m in convolutions] == [1, 2] * 5 and not any(isinstance(m, nn.BatchNorm2d) for m in whole.modules())
    # the same weights, at every position or on one: a patch discriminator of a single position is a whole one
    single = sr.models.create("eusr_discriminator", input_size=32, **options)
    patch.features.load_state_dict(single.features.state_dict())
    for a, b in ((0, 1), (2, 3)):
        patch.classifier[a].weight.data = single.classifier[b].weight.data[..., None, None]
        patch.classifier[a].bias.data = single.classifier[b].bias.data
    image = torch.rand(2, 3, 32, 32)
    assert torch.allclose(patch(image).flatten(1), single(image), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_fresh_discriminator_sees_something_without_batch_normalisation(seed):
    """From PyTorch's own start, what is sharp and what is soft differ by less than 3e-6 in its verdict, and it does not learn."""
    leaves = sr.data.DeadLeaves(0, 96)
    sharp = torch.stack([leaves[i] for i in range(8)])
    soft = sr.degradation.upscale(sr.degradation.downscale(sharp, 4), 4).clamp(0, 1)
    torch.manual_seed(seed)
    judge = sr.models.create("eusr_discriminator", head="patch", channels=8, hidden=64)
    with torch.no_grad():
        assert (judge(sharp) - judge(soft)).abs().mean() > 1e-4
        for layer in judge.modules():
            if hasattr(layer, "reset_parameters"):
                layer.reset_parameters()
        assert (judge(sharp) - judge(soft)).abs().mean() < 1e-5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": 3}, r"scale is 3: expected one of scales=\(2, 4, 8\)"),
        ({"scales": [2, 3]}, r"scales=\(2, 3\): expected some of 2, 4 and 8"),
        ({"scales": [4, 4]}, "each once"),
        ({"blocks": 0}, "expected at least 1"),
    ],
)
def test_wrong_options_are_told(options, words):
    with pytest.raises(ValueError, match=words):
        sr.models.create("eusr", **options)
    with pytest.raises(ValueError, match=r"no path for scale 8: expected one of \(2, 4\)"):
        small_eusr(scales=[2, 4])(torch.rand(1, 3, 8, 8), 8)
    with pytest.raises(ValueError, match="head is 'both'"):
        sr.models.create("eusr_discriminator", head="both")


def test_saved_and_loaded_it_has_all_its_paths(tmp_path):
    network = small_eusr(bicubic_skip=True)
    nn.init.normal_(network.to_image["8"].weight)
    sr.models.save(network, tmp_path / "eusr.safetensors")
    loaded, x = sr.models.load(tmp_path / "eusr.safetensors"), torch.rand(1, 3, 8, 8)
    assert loaded.scale == 4 and torch.equal(loaded(x, 8), network.eval()(x, 8))


# --- the bank of several scales ---------------------------------------------------------------------------------


def test_a_bank_of_several_scales_cuts_what_single_banks_cut(leaves):
    bank = sr.data.PatchBank(
        leaves, scale=4, patch=16, more={2: sr.degradation.create("bicubic", 2), 8: sr.degradation.create("bicubic", 8)}
    )
    for scale in (2, 4, 8):
        alone = sr.data.PatchBank(leaves, scale=scale, patch=4 * scale)
        for step in range(3):
            pair, expected = bank.batch(step, 6, scale=scale), alone.batch(step, 6)
            assert pair[0].shape == (6, 3, 4, 4) and pair[1].shape == (6, 3, 4 * scale, 4 * scale)
            assert torch.equal(pair[0], expected[0]) and torch.equal(pair[1], expected[1])
    assert torch.equal(bank.batch(0, 6)[1], bank.batch(0, 6, scale=4)[1])
    with pytest.raises(ValueError, match="scale is 3: this bank has 4, 2, 8"):
        bank.batch(0, 6, scale=3)
    with pytest.raises(ValueError, match=r"64×64 pixels, smaller than a patch of 128 \(at scale 8\)"):
        sr.data.PatchBank(leaves, scale=4, patch=64, more={8: sr.degradation.create("bicubic", 8)})


# --- pre-training at several scales -----------------------------------------------------------------------------


def multi_scale(steps, *more):
    return sr.training.load_recipe("eusr_small", steps=steps, overrides=[*SMALL, *more])


def test_each_step_trains_one_scale_and_what_all_share(leaves):
    recipe = multi_scale(8, "data.hold_out=0")
    engine = Engine(recipe, leaves, progress=False)
    seen, update = [], engine.update

    def watched(optimizer, loss):
        update(optimizer, loss)
        network = engine.networks["generator"]
        seen.append({name for name, p in network.named_parameters() if p.grad is not None})

    engine.update = watched
    sr.training.multipass.train_multi_scale(engine)
    for step, names in enumerate(seen):
        scale = chosen_scale((2, 4, 8), recipe.seed, step)
        own = {name for name in names if name.startswith(("scale_features", "upscaling", "to_image"))}
        assert own and all(name.split(".")[1] == str(scale) for name in own)
        assert {"head.weight", "shared.body.0.conv1.weight"} <= names
        assert f"loss_x{scale}" in engine.history.rows[step]
    scales = [chosen_scale((2, 4, 8), 0, step) for step in range(3000)]
    assert all(0.3 < scales.count(s) / 3000 < 0.37 for s in (2, 4, 8)) and scales != [chosen_scale((2, 4, 8), 1, t) for t in range(3000)]


def test_multi_scale_resumes_bit_identical(leaves, tmp_path):
    constant = "schedule={kind: constant}"
    sr.training.train(multi_scale(9, constant), leaves, out=tmp_path / "whole", progress=False)
    sr.training.train(multi_scale(4, constant), leaves, out=tmp_path / "parts", progress=False)
    sr.training.train(multi_scale(9, constant), leaves, out=tmp_path / "parts", resume=True, progress=False)
    assert checksums(tmp_path / "whole", 9) == checksums(tmp_path / "parts", 9)


# a judge wider than GAME's: Adam makes steps of noise from the vanishing gradients of one with two channels
WIDER = "discriminator={name: eusr_discriminator, head: patch, channels: 8, hidden: 64, learning_rate: 3.0e-4}"


@pytest.mark.parametrize(("recipe", "sets"), [("eusr_small", SMALL), ("four_pass_eusr_small", [*GAME, WIDER])])
def test_two_processes_follow_one(recipe, sets, process, photo_folder, tmp_path):
    more = [*sets, "precision=float32", "model.bicubic_skip=true"]
    one, two = (train_words(recipe, tmp_path / name, photo_folder, 6, *more, scale=4) for name in ("one", "two"))
    done = process(*one)
    assert done.returncode == 0, done.stderr
    in_two_processes(two)
    rows = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(rows[0]) == len(rows[1]) == 6
    for a, b in zip(*rows, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key] == pytest.approx(b[key], abs=1e-3 if key == "psnr" else 1e-5), (key, a, b)


# --- four passes, six losses ------------------------------------------------------------------------------------


def game(steps, *more):
    return sr.training.load_recipe("four_pass_eusr_small", steps=steps, overrides=[*GAME, *more])


LOSSES = ("pixel", "adversarial", "aesthetic_score", "aesthetic_features", "subjective_score", "subjective_features")


def only(term):
    """The change to a recipe that leaves one loss of the six."""
    return f"loss_weights={{{', '.join(f'{loss}: {int(loss == term)}' for loss in LOSSES)}}}"


@pytest.fixture
def judges(tmp_path):
    """Two judges that are not alike: the course's own, and one of random weights."""
    torch.manual_seed(3)
    sr.models.save(sr.models.create("score_predictor", width=0.35, blocks=3, features=16), tmp_path / "random.safetensors")
    return ["four_pass.aesthetic=nima_small", f"four_pass.subjective={tmp_path / 'random.safetensors'}"]


def measured(recipe, photos, judge_names):
    """What each loss looks at, on a fixed batch, before and after training on that batch alone."""
    engine = Engine(recipe, photos, progress=False)
    batch = engine.batch(0)
    engine.batch = lambda step: batch
    lr, hr = batch
    values = []

    def look():
        model = engine.networks["generator"]
        with torch.no_grad():
            images = torch.cat(model.multipass(lr))
            real = hr.repeat(3, 1, 1, 1)
            found = {"pixel": (images - real).abs().mean().item()}
            fake = engine.networks["discriminator"](images)
            found["adversarial"] = nn.functional.softplus(-fake).mean().item()
            for kind, name in judge_names.items():
                judge = sr.models.load(name)
                opinion, features = judge(images, return_features=True)
                hr_opinion, hr_features = judge(real, return_features=True)
                wanted = 0.8 * (10 - sr.models.mean_score(hr_opinion))
                found[f"{kind}_score"] = (10 - sr.models.mean_score(opinion) - wanted).clamp(min=0).mean().item()
                found[f"{kind}_features"] = (features - hr_features).square().mean().item()
        values.append(found)

    begin = engine._begin
    engine._begin = lambda: (begin(), look())
    train_multi_pass(engine)
    look()
    return values


@pytest.mark.parametrize("term", LOSSES)
def test_each_loss_alone_lowers_what_it_measures(term, leaves, judges):
    """100 steps on one batch; the discriminator stays as it is, so that the adversarial loss has a fixed judge."""
    recipe = game(
        100,
        only(term),
        *judges,
        "optimizer.learning_rate=1e-3",
        "discriminator.learning_rate=1e-12",
        "log_every=50",
        "data.hold_out=0",
        "model.bicubic_skip=true",
        "model.channels=8",
    )
    names = {"aesthetic": recipe.four_pass.aesthetic, "subjective": recipe.four_pass.subjective}
    before, after = measured(recipe, leaves, names)
    assert after[term] < 0.98 * before[term], (before, after)


def test_the_pixel_loss_alone_is_plain_l1_training(leaves):
    recipe = game(3, only("pixel"), "data.hold_out=0")
    run = sr.training.train(recipe, leaves, progress=False)
    engine = Engine(recipe, leaves, progress=False)
    model = engine.network("generator", "eusr", **{"scale": 4, **recipe.model.options})
    adam = torch.optim.Adam(model.parameters(), lr=recipe.optimizer.learning_rate)
    for step in range(3):
        lr, hr = engine.batch(step)
        loss = sum((image - hr).abs().mean() for image in model.multipass(lr)) / 3
        assert run.history[step]["loss"] == pytest.approx(loss.item(), abs=1e-6)
        assert not {"adversarial_loss", "aesthetic_score_loss", "subjective_features_loss"} & run.history[step].keys()
        adam.zero_grad()
        loss.backward()
        adam.step()
    trained, expected = run.model.state_dict(), model.state_dict()
    assert all(torch.allclose(trained[key], expected[key], atol=1e-6) for key in expected)


def test_the_loss_is_equation_8(leaves, judges):
    recipe = game(1, *judges, "data.hold_out=0")
    (row,) = sr.training.train(recipe, leaves, progress=False).history
    engine = Engine(recipe, leaves, progress=False)
    model = engine.network("generator", "eusr", **{"scale": 4, **recipe.model.options})
    lr, hr = engine.batch(0)
    with torch.no_grad():
        images = model.multipass(lr)
        total = dict.fromkeys(("aesthetic_score", "aesthetic_features", "subjective_score", "subjective_features"), 0.0)
        for kind in ("aesthetic", "subjective"):
            judge = sr.models.load(getattr(recipe.four_pass, kind))
            for image in images:
                (p, f), (q, g) = judge(image, return_features=True), judge(hr, return_features=True)
                score, original = (sum(i * column for i, column in enumerate(x.T, start=1)) for x in (p, q))
                total[f"{kind}_score"] += ((10 - score) - 0.8 * (10 - original)).clamp(min=0).mean().item() / 3
                total[f"{kind}_features"] += (f - g).square().mean().item() / 3
    for name, value in total.items():
        assert row[f"{name}_loss"] == pytest.approx(value, abs=2e-5)
    weights = recipe.loss_weights.model_dump()
    names = {"pixel": "pixel_loss", "adversarial": "adversarial_loss", **{name: f"{name}_loss" for name in total}}
    assert row["loss"] == pytest.approx(sum(weights[key] * row[name] for key, name in names.items()), rel=1e-4)


def test_the_discriminator_sees_each_photo_once_and_all_three_images(leaves):
    engine = Engine(game(1, "data.hold_out=0", only("pixel")), leaves, progress=False)
    seen = []
    place = engine.network

    def watched(name, *arguments, **options):
        network = place(name, *arguments, **options)
        if name == "discriminator":
            network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[0]))
        return network

    engine.network = watched
    train_multi_pass(engine)
    assert seen[:2] == [2, 6]  # P002 §4.3: two ground-truth and six upscaled images


def test_judges_are_frozen_and_not_saved(leaves, tmp_path):
    engine = Engine(game(2, "data.hold_out=0"), leaves, out=tmp_path / "run", progress=False)
    model = engine.network("generator", "eusr", **{"scale": 4, **engine.recipe.model.options})
    played = FourPassGame(engine, engine.optimizer("generator", model))
    assert set(played.judges) == {"aesthetic", "subjective"}
    for judge in played.judges.values():
        assert not judge.training and not any(p.requires_grad for p in judge.parameters())
    assert set(engine.networks) == {"generator", "discriminator"}
    engine.release()


def test_a_judge_that_was_not_trained_is_replaced_and_told(leaves, capsys):
    run = sr.training.train(game(1, "four_pass.aesthetic=runs/nima_aesthetic"), leaves, progress=False)
    assert run.warnings == [
        "runs/nima_aesthetic is not here: nima_small judges in its place, on pseudo-opinions; srcourse train nima_aesthetic makes it"
    ]
    with pytest.raises(FileNotFoundError, match="there are no weights 'nobody'"):
        sr.training.train(game(1, "four_pass.subjective=nobody"), leaves, progress=False)
    with pytest.raises(ValueError, match="is a srresnet_small: expected a score predictor"):
        sr.training.train(game(1, "four_pass.subjective=srresnet_small-x4"), leaves, progress=False)


def test_a_road_that_is_left_out_is_not_decimated():
    with pytest.raises(ValueError, match=r"four_pass.multi_pass: false leaves out: set one of both"):
        game(2, "four_pass.multi_pass=false", "four_pass.decimate=true")


def test_without_multi_pass_only_the_x4_path_learns(leaves):
    recipe = game(2, "four_pass.multi_pass=false", "data.hold_out=0")
    engine = Engine(recipe, leaves, progress=False)
    train_multi_pass(engine)
    grads = {name: p.grad is not None for name, p in engine.networks["generator"].named_parameters()}
    assert all(has == (name.split(".")[1] not in ("2", "8")) for name, has in grads.items() if name.startswith(("upscaling", "to_image")))


@pytest.mark.slow
def test_both_trainings_killed_end_bit_identical(process, photo_folder, tmp_path):
    for recipe, sets in (("eusr_small", [*SMALL, "schedule={kind: constant}"]), ("four_pass_eusr_small", GAME)):
        more = [*sets, "checkpoint_every=5", "log_every=10", "validate_every=40"]
        lines = {name: train_words(recipe, tmp_path / recipe / name, photo_folder, 120, *more, scale=4) for name in ("whole", "killed")}
        kill_at_random_moments(lines["killed"], tmp_path / recipe / "killed", 3, seed=5)
        for line in lines.values():
            assert process(*line, timeout=300).returncode == 0
        whole, killed = (checksums(tmp_path / recipe / name, 120) for name in ("whole", "killed"))
        assert whole == killed


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("eusr_small", ["model.name=srresnet_small"], "trains several paths, srresnet_small has one: expected eusr"),
        ("eusr_small", ["scale=3"], "scale is 3: expected one of scales"),
        ("eusr_small", ["loss_weights.adversarial=1"], "belong to method: adversarial, this recipe's is multi-scale"),
        ("four_pass_eusr_small", ["scale=2"], "needs scale: 4"),
        ("four_pass_eusr_small", ["model.scales=[2, 4]"], r"an eusr with scales: \[2, 4, 8\]"),
        ("four_pass_eusr_small", ["discriminator=null"], "method: multi-pass needs a discriminator"),
        ("four_pass_eusr_small", ["four_pass.alpha=-1"], "four_pass.alpha: "),
        ("srgan_small", ["loss_weights.aesthetic_score=1"], "loss_weights.aesthetic_score belongs to method: multi-pass"),
    ],
)
def test_wrong_recipes_get_one_line(recipe, overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        sr.training.load_recipe(recipe, overrides=overrides)
    assert "\n" not in str(caught.value)


def test_the_papers_recipes():
    eusr, four = (sr.training.load_recipe(name) for name in ("eusr", "four_pass_eusr"))
    assert (eusr.data.patch // eusr.scale, eusr.data.batch, eusr.steps) == (48, 16, 1_000_000)
    assert [eusr.learning_rate(t) for t in (199_999, 200_000, 400_000)] == pytest.approx([1e-4, 5e-5, 2.5e-5])
    assert four.loss_weights.pixel == pytest.approx(0.05 * 255)
    assert list(four.loss_weights.model_dump().values())[1:] == [0.0, 0.1, 0.01, 0.1, 0.01, 0.1]
    assert (four.data.patch, four.data.batch, four.steps, four.four_pass.alpha) == (192, 2, 400_000, 0.8)
    assert (four.optimizer.learning_rate, four.discriminator.learning_rate) == (1e-5, 2e-5)
    assert four.discriminator_options() == {"input_size": 192} and four.start_weights() == "runs/eusr-x4"


def test_lr_patches_stay_as_large_at_another_scale_and_do_as_asked():
    assert [sr.training.load_recipe("eusr", scale=scale).data.patch for scale in (2, 4, 8)] == [96, 192, 384]
    assert sr.training.load_recipe("eusr", scale=8, overrides=["data.patch=96"]).data.patch == 96
    for wrong in (2.0, 4.0):
        with pytest.raises(ValueError, match="no path for scale"):
            small_eusr()(torch.rand(1, 3, 8, 8), wrong)
    with pytest.raises(ValueError, match="expected some of 2, 4 and 8"):
        sr.models.create("eusr", scales=[2.0, 4.0, 8.0])


def test_another_judge_does_not_go_on_with_the_run(leaves, tmp_path):
    judge = tmp_path / "judge.safetensors"
    for seed in (0, 1):
        torch.manual_seed(seed)
        sr.models.save(sr.models.create("score_predictor", width=0.1, blocks=2, features=8), judge)
        recipe = game(2 + 2 * seed, f"four_pass.aesthetic={judge}")
        if seed == 0:
            sr.training.train(recipe, leaves, out=tmp_path / "run", progress=False)
        else:
            with pytest.raises(ValueError, match="was trained with another judge or feature network"):
                sr.training.train(recipe, leaves, out=tmp_path / "run", resume=True, progress=False)
    with pytest.raises(FileNotFoundError, match="runs/nima_asthetic"):  # a slip of the pen gets no stand-in
        sr.training.train(game(1, "four_pass.aesthetic=runs/nima_asthetic"), leaves, progress=False)


def test_views_leave_the_network_as_it_was_and_can_be_copied():
    network = small_eusr().eval()
    x = torch.rand(1, 3, 9, 9)
    sr.upscale(network.at(2), x)
    sr.evaluation.evaluate(network.roads(), sr.data.Benchmark("p", 4, [torch.rand(3, 48, 48)]))
    assert not any(module.training for module in network.modules())
    view = network.at(2)
    other = copy.deepcopy(view)
    with torch.no_grad():
        for parameter in other.network.parameters():
            parameter.zero_()
    assert not torch.equal(other(x), view(x)) and torch.equal(view(x), network(x, 2))
