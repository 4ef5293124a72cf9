"""Score predictors: two phases that freeze what they should, crops that depend on (seed, t) alone, resuming."""

import json

import pytest
import torch
import torchvision
from scipy.stats import spearmanr

import srcourse as sr
from conftest import one_line
from srcourse.training.scores import RatedCrops, ScoreEngine, load_backbone, spearman, train_scores

TINY = [
    "model={width: 0.1, blocks: 17, features: 1280, dropout: 0.2}",
    "data={patch: 32, batch: 4}",
    "scores.head_batch=6",
    "log_every=1",
    "validate_every=4",
    "checkpoint_every=2",
]


def tiny(steps=6, head_steps=3, *more):
    return sr.training.load_recipe("nima_small", steps=steps, overrides=[*TINY, f"scores.head_steps={head_steps}", *more])


@pytest.fixture(scope="module")
def rated(leaves):
    return sr.data.synthetic_ratings(leaves, 16, size=48)


def test_each_phase_trains_what_it_should(rated):
    """In the head's phase no gradient reaches the features and their statistics stay; afterwards everything learns."""
    recipe = tiny(4, 2)
    engine = ScoreEngine(recipe, rated[:12], rated[12:], progress=False)
    updates, states, batch, update = [], [], engine.batch, engine.update

    def watched_batch(step):
        states.append({key: value.clone() for key, value in engine.networks["predictor"].state_dict().items()})
        return batch(step)

    def watched_update(optimizer, loss):
        update(optimizer, loss)
        gradients = engine.networks["predictor"].named_parameters()
        updates.append({key: p.grad is not None and bool(p.grad.abs().sum() > 0) for key, p in gradients})

    engine.batch, engine.update = watched_batch, watched_update
    train_scores(engine)
    states.append(engine.networks["predictor"].state_dict())
    for step, learned in enumerate(updates):
        head_only = step < 2
        assert all(got for key, got in learned.items() if key.startswith("head."))
        moved = {key for key in states[step] if not torch.equal(states[step][key], states[step + 1][key])}
        if head_only:
            assert not any(got for key, got in learned.items() if key.startswith("features."))
            assert moved == {"head.1.weight", "head.1.bias"}  # nor do BN's running statistics
        else:
            assert sum(key.startswith("features.") for key in moved) > 100


def test_batches_depend_on_seed_and_step_alone_and_are_cut_among_processes(rated):
    crops = [RatedCrops(rated, crop=32, flip=0.5, seed=3, device=torch.device("cpu")) for _ in range(2)]
    images, labels = crops[0].batch(5, 8)
    crops[1].batch(2, 8)
    again = crops[1].batch(5, 8)
    assert images.shape == (8, 3, 32, 32) and labels.shape == (8, 10)
    assert torch.equal(images, again[0]) and torch.equal(labels, again[1])
    halves = [crops[1].batch(5, 8, rank=rank, world=2)[0] for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), images)
    assert not torch.equal(crops[0].batch(6, 8)[0], images)


def test_resume_is_bit_identical_in_either_phase(rated, tmp_path):
    constant = "schedule={kind: constant}"
    for name, stop in (("head", 2), ("all", 4)):
        whole, parts = tmp_path / name / "whole", tmp_path / name / "parts"
        sr.training.train(tiny(6, 3, constant), rated, out=whole, progress=False)
        sr.training.train(tiny(stop, 3, constant), rated, out=parts, progress=False)
        sr.training.train(tiny(6, 3, constant), rated, out=parts, resume=True, progress=False)
        sums = [json.loads((folder / "checkpoints" / "step_00000006" / "state.json").read_text())["checksums"] for folder in (whole, parts)]
        assert sums[0] == sums[1]


def test_the_result_can_be_trained_on_and_needs_no_validation(rated):
    model = sr.training.train(tiny(2, 5), rated, validation=[], progress=False).model  # it ended in the head's phase
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_clipping_reaches_both_phases(rated):
    for head_steps in (0, 2):
        weights = [
            sr.training.train(tiny(2, head_steps, f"optimizer.clip={clip}"), rated, progress=False).model.state_dict()["head.1.weight"]
            for clip in ("null", "1e-12")
        ]
        assert not torch.equal(*weights)


def test_it_learns_and_its_file_loads(rated, tmp_path):
    recipe = tiny(
        60, 0, "validate_every=60", "data.batch=8", "data.patch=48", "model={width: 0.35, dropout: 0}", "optimizer.learning_rate=1e-3"
    )
    run = sr.training.train(recipe, rated[:4], validation=rated[4:], out=tmp_path, progress=False)  # four images: by heart
    first, last = (sum(row["loss"] for row in rows) / 5 for rows in (run.history[:5], run.history[-5:]))
    assert last < 0.5 * first
    model = sr.models.load(tmp_path)
    assert model.name == "score_predictor" and sr.models.card(tmp_path)["validation_srocc"] == run.history[-1]["srocc"]
    assert model(rated[0].image[None]).shape == (1, 10)


@pytest.mark.slow
def test_a_minute_on_pseudo_opinions_ranks_distortions_it_did_not_see():
    """The lessons' recipe: 500 steps, about a minute on one core. The held-out crops have distortions of their own."""
    recipe = sr.training.load_recipe("nima_small", steps=500, overrides=["scores.ratings=1500", "validate_every=500"])
    (row,) = (row for row in sr.training.train(recipe, progress=False).history if "srocc" in row)
    assert row["srocc"] > 0.7
    untrained = sr.models.create(recipe.model.name, **recipe.model.options).eval()
    rated = sr.data.synthetic_ratings(list(sr.data.training_samples()), 1500, size=96)[-150:]
    with torch.no_grad():
        predicted = sr.models.mean_score(untrained(torch.stack([one.image for one in rated])))
    assert spearman(predicted, sr.models.mean_score(rated.distributions)) < 0.6  # it had to be learned


def test_spearman_is_scipys():
    random = torch.Generator().manual_seed(0)
    for _ in range(5):
        a, b = torch.randint(0, 8, (2, 30), generator=random).double()
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert spearman(torch.ones(4), torch.arange(4)) == 0


def test_a_backbone_with_torchvisions_names_is_taken(tmp_path):
    torch.manual_seed(0)
    own = torchvision.models.mobilenet_v2(weights=None, width_mult=0.1)
    torch.save(own.state_dict(), tmp_path / "own.pth")
    model = sr.models.create("score_predictor", width=0.1)
    load_backbone(model, str(tmp_path / "own.pth"))
    assert torch.equal(model.features[0][0].weight, own.features[0][0].weight)
    (tmp_path / "text.pth").write_text("no")
    for file, network in (("own.pth", sr.models.create("score_predictor", width=0.35)), ("text.pth", model)):
        with pytest.raises(ValueError, match="holds no MobileNetV2 of this width"):
            load_backbone(network, str(tmp_path / file))


def test_the_papers_recipes_and_what_is_missing_is_told_first(tmp_path, monkeypatch, command):
    for name, head, steps in (("nima_aesthetic", 5, 5), ("nima_subjective", 100, 100)):
        recipe = sr.training.load_recipe(name)
        images = 250_000 if name == "nima_aesthetic" else 2_640
        assert recipe.scores.head_steps == pytest.approx(head * images / 128, rel=0.02)
        assert recipe.steps - recipe.scores.head_steps == pytest.approx(steps * images / 32, rel=0.02)
        assert (recipe.data.patch, recipe.optimizer.learning_rate, recipe.scores.head_learning_rate) == (192, 1e-5, 1e-3)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert "ImageNet weights of mobilenet_v2" in one_line(
        command("train", "nima_subjective", "--data", tmp_path, "--out", tmp_path / "run")
    )
    random = ("--set", "scores.backbone=random", "--out", tmp_path / "run")
    assert "holds no rated images: expected AVA.txt" in one_line(command("train", "nima_subjective", "--data", tmp_path, *random))
    assert "expects one of score_predictor" in one_line(command("train", "nima_small", "--set", "model.name=srresnet"))
    with pytest.raises(ValueError, match=r"expected data\.ava, data\.tid2013 or data\.synthetic_ratings"):
        sr.training.train(tiny(), [torch.rand(3, 64, 64)] * 3, progress=False)
    small = sr.data.synthetic_ratings([torch.rand(3, 48, 48)], 4, size=48)
    assert sr.training.train(tiny(2, 0, "data.patch=64"), small, progress=False).step == 2  # mirrored beyond its edges
    with pytest.raises(ValueError, match=r"48×48 pixels, less than half a crop of 128: leave it out or lower data\.patch"):
        sr.training.train(tiny(2, 0, "data.patch=128"), small, progress=False)


def test_an_unreadable_image_of_ava_is_named(tmp_path):
    (tmp_path / "AVA.txt").write_text("".join(f"{i} {i} 0 1 5 17 38 36 15 6 5 1\n" for i in range(4)))
    for i in range(4):
        sr.images.write(tmp_path / "images" / f"{i}.jpg", torch.rand(3, 48, 48))
    ratings, images = sr.data.ava(tmp_path), tmp_path / "images"
    for i in range(3):
        (images / f"{i}.jpg").write_bytes((images / f"{i}.jpg").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"images/\d\.jpg is damaged or cut short \(.*\): replace it with an intact copy$"):
        sr.training.train(tiny(2), ratings[:3], validation=[], progress=False)  # in the first step
    with pytest.raises(
        sr.training.TrainingError, match=r"images/2\.jpg is damaged .*: replace it with .* found at step 2: .*then --resume"
    ):
        sr.training.train(tiny(4, 0, "validate_every=2"), ratings[3:], validation=ratings[2:3], progress=False)


def test_batches_in_pieces_are_decoded_once_and_ahead(rated, monkeypatch):
    started, start = [], RatedCrops._start
    monkeypatch.setattr(RatedCrops, "_start", lambda crops, *wanted: (started.append(wanted), start(crops, *wanted))[1])
    recipe = sr.training.load_recipe("nima_small", steps=2, overrides=[*TINY, "optimizer.accumulate=2"])
    sr.training.train(recipe, rated, progress=False)
    assert [(step, rank, world) for step, _, rank, world in started] == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2), (2, 0, 2)]
