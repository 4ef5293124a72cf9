"""The engine: it learns, stops, resumes to the last bit, follows itself over two processes, and fails clearly."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

import srcourse as sr
from conftest import history, in_two_processes, kill_at_random_moments, one_line, train_words
from srcourse.models.weights import matching_state
from srcourse.training.checkpoints import Checkpoints
from srcourse.training.engine import Engine

TINY = ["model.blocks=1", "model.channels=8", "data.patch=16", "data.batch=4", "checkpoint_every=3", "validate_every=5", "log_every=2"]


def tiny(steps=12, *more, **fields):
    return sr.training.load_recipe("srresnet_small", scale=2, steps=steps, overrides=[*TINY, *more], **fields)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_learns_and_beats_bicubic(leaves):
    """Better than bicubic by a margin: a bug that only slows learning would show."""
    recipe = sr.training.load_recipe("srresnet_small", scale=2, steps=150, overrides=["data.patch=32", "data.batch=8", "validate_every=50"])
    photos = [sr.images.sample(name) for name in ("motorcycle", "rocket")]
    held_out = sr.images.sample("chelsea")[:, :200, :200]
    run = sr.training.train(recipe, photos, validation=[held_out], progress=False)
    pair = sr.data.Benchmark("cat", 2, [held_out])[0]
    bicubic = sr.metrics.psnr(sr.degradation.upscale(pair.lr, 2), pair.hr, border=2)
    learned = sr.metrics.psnr(sr.upscale(run.model, pair.lr), pair.hr, border=2)
    assert learned > bicubic + 0.5, (learned, bicubic)
    assert run.history[-1]["psnr"] == pytest.approx(learned)
    validated = [row["psnr"] for row in run.history if "psnr" in row]
    assert validated == sorted(validated)


@pytest.mark.parametrize("watched", [False, True])
def test_a_log_file_gets_lines_and_a_terminal_a_bar(leaves, capsys, monkeypatch, watched):
    monkeypatch.setattr("srcourse.progress.watched", lambda: watched)
    sr.training.train(tiny(12), leaves[:4], validation=[leaves[5]])
    told = capsys.readouterr().err
    if watched:
        assert "it/s" in told and "\r" in told and "12/12" in told and "psnr=" in told
        return
    assert "\r" not in told
    lines = told.splitlines()  # the first row, each with a validation, the last; the others are less than half a minute apart
    assert [line.split(", ")[0] for line in lines] == ["step 2 of 12", "step 5 of 12", "step 10 of 12", "step 12 of 12"]
    assert all(re.search(r"\d\d:\d\d so far, \d\d:\d\d left: .*loss \d", line) for line in lines)
    assert ["psnr" in line for line in lines] == [False, True, True, True]


def test_wrong_targets_do_not_help(leaves):
    """The negative control: with the HR patches of other photos, the same training does not beat bicubic."""
    recipe = tiny(60)
    engine = Engine(recipe, leaves[:4], [leaves[5]], progress=False)
    model = engine.network("generator", "srresnet_small", scale=2, blocks=1, channels=8)
    optimizer = engine.optimizer("generator", model)
    start = engine._validate()
    for step in engine.steps():
        lr, _ = engine.batch(step)
        _, hr = engine.batch(step + 1000)
        loss = (model(lr) - hr).abs().mean()
        engine.log(loss=loss)
        engine.update(optimizer, loss)
    assert engine._validate() < start


def test_the_skip_starts_at_bicubic(leaves):
    model = sr.models.create("srresnet_small", scale=2)
    lr = leaves[0][None]
    assert torch.equal(model(lr), sr.degradation.upscale(lr, 2))


def test_same_seed_same_weights_another_seed_others(leaves):
    runs = [sr.training.train(tiny(6, seed=seed), leaves, progress=False).model.state_dict() for seed in (0, 0, 1)]
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


def test_schedule_is_a_function_of_the_step():
    step = tiny(100, "schedule={kind: step, every: 10, factor: 0.1, warmup: 0}", "optimizer.learning_rate=1")
    assert [step.learning_rate(t) for t in (0, 9, 10, 25)] == pytest.approx([1, 1, 0.1, 0.01])
    cosine = tiny(110, "schedule={kind: cosine, warmup: 10}", "optimizer.learning_rate=1")
    assert [cosine.learning_rate(t) for t in (0, 9, 60, 110)] == pytest.approx([0.1, 1, 0.5, 0])


def test_resume_is_bit_identical(leaves, tmp_path):
    whole = sr.training.train(tiny(12), leaves, out=tmp_path / "whole", progress=False)
    sr.training.train(tiny(7), leaves, out=tmp_path / "parts", progress=False)
    # the first part's last checkpoint (step 7) is one that the whole run never wrote
    again = sr.training.train(tiny(12), leaves, out=tmp_path / "parts", resume=True, progress=False)
    # the cosine reaches zero at another step in the first part: compare runs with the same schedule instead
    assert again.step == whole.step == 12
    constant = ["schedule={kind: constant}"]
    a = sr.training.train(tiny(12, *constant), leaves, out=tmp_path / "a", progress=False)
    sr.training.train(tiny(7, *constant), leaves, out=tmp_path / "b", progress=False)
    b = sr.training.train(tiny(12, *constant), leaves, out=tmp_path / "b", resume=True, progress=False)
    assert same(a.model.state_dict(), b.model.state_dict())
    last = [json.loads((tmp_path / n / "checkpoints" / "step_00000012" / "state.json").read_text())["checksums"] for n in "ab"]
    assert last[0] == last[1]  # the optimizer's state too


def test_history_has_one_row_a_step_after_a_resume(leaves, tmp_path):
    sr.training.train(tiny(7), leaves, out=tmp_path, progress=False)
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"step": 9, "loss": 1.0}\n{"step": 10, "lo')  # a row beyond the checkpoint, and one cut by a kill
    run = sr.training.train(tiny(12), leaves, out=tmp_path, resume=True, progress=False)
    steps = [json.loads(line)["step"] for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps)) == [row["step"] for row in run.history]


def test_last_two_checkpoints_and_the_best_are_kept(leaves, tmp_path):
    run = sr.training.train(tiny(30), leaves, out=tmp_path, progress=False)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    best = max((row for row in run.history if "psnr" in row), key=lambda row: row["psnr"])["step"]
    assert set(checkpoints.steps()) == {best, 30, checkpoints.steps()[-2]}
    assert len(checkpoints.steps()) <= 3
    loaded = sr.models.load(tmp_path / "model.safetensors")
    pair = sr.data.Benchmark("v", 2, leaves[-1:])[0]
    psnr = sr.metrics.psnr(sr.upscale(loaded, pair.lr), pair.hr, border=2)
    assert psnr == pytest.approx(max(row["psnr"] for row in run.history if "psnr" in row))
    assert sr.models.card(tmp_path / "model.safetensors")["step"] == best


def test_early_stopping_waits_for_its_patience(leaves, tmp_path):
    """A learning rate of nearly nothing never improves on the first validation by more than rounding."""
    recipe = tiny(100, "optimizer.learning_rate=1e-30", "validate_every=2", "patience=3")
    run = sr.training.train(recipe, leaves, out=tmp_path, progress=False)
    assert run.step == 2 + 3 * 2
    assert not run.interrupted


def test_average_of_weights_is_validated_and_saved(leaves, tmp_path):
    recipe = tiny(12, "ema=0.9")
    run = sr.training.train(recipe, leaves, out=tmp_path / "a", progress=False)
    plain = sr.training.train(tiny(12), leaves, out=tmp_path / "b", progress=False)
    assert not same(run.model.state_dict(), plain.model.state_dict())
    sr.training.train(tiny(6, "ema=0.9", "schedule={kind: constant}"), leaves, out=tmp_path / "c", progress=False)
    resumed = sr.training.train(tiny(12, "ema=0.9", "schedule={kind: constant}"), leaves, out=tmp_path / "c", resume=True, progress=False)
    whole = sr.training.train(tiny(12, "ema=0.9", "schedule={kind: constant}"), leaves, out=tmp_path / "d", progress=False)
    assert same(resumed.model.state_dict(), whole.model.state_dict())


def test_warm_start_takes_the_trunk_to_another_scale(leaves, tmp_path):
    sr.training.train(tiny(4), leaves, out=tmp_path / "x2", progress=False)
    start = tmp_path / "x2" / "model.safetensors"
    recipe = sr.training.load_recipe("srresnet_small", scale=4, steps=1, start=str(start), overrides=TINY)
    model = Engine(recipe, leaves, progress=False).network("generator", "srresnet_small", scale=4, blocks=1, channels=8)
    trained, warm = sr.models.load(start).state_dict(), model.state_dict()
    assert torch.equal(warm["trunk.0.body.0.weight"], trained["trunk.0.body.0.weight"])
    assert warm["tail.0.weight"].shape != trained["tail.0.weight"].shape


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("name", "options"), [("eusr", {"channels": 4, "blocks": 1}), ("srresnet", {"blocks": 1, "channels": 8})])
def test_a_start_that_adds_the_bicubic_image_only_starts_what_does_so_too(name, options, skip, tmp_path):
    """The last convolution makes either the whole image or what bicubic lacks: with the wrong one, training begins far off."""
    sr.models.save(sr.models.create(name, bicubic_skip=skip, **options), tmp_path / "a.safetensors")
    assert matching_state(sr.models.create(name, bicubic_skip=skip, **options), tmp_path / "a.safetensors")
    words = f"a.safetensors was trained with bicubic_skip={skip}, and this network has bicubic_skip={not skip}: set model.bicubic_skip="
    with pytest.raises(ValueError, match=words) as caught:
        matching_state(sr.models.create(name, bicubic_skip=not skip, **options), tmp_path / "a.safetensors")
    assert "\n" not in str(caught.value)


def test_precision_and_memory_format(leaves):
    """bf16 is chosen only where the hardware has it; batches and weights lie channels-last."""
    from srcourse.machine import cpu_has_fast_bf16

    engine = Engine(tiny(1, device="cpu"), leaves, progress=False)
    assert engine.precision == ("bf16" if cpu_has_fast_bf16() else "float32")
    model = engine.network("generator", "srresnet_small", scale=2, blocks=1, channels=8)
    lr, hr = engine.batch(0)
    for tensor in (lr, hr, model.trunk[0].body[0].weight):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    bf16 = sr.training.train(tiny(3, precision="bf16"), leaves, progress=False)
    assert all(p.dtype == torch.float32 for p in bf16.model.parameters())


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(leaves, tmp_path):
    plain = sr.training.train(tiny(3, "precision=float32"), leaves, progress=False)
    compiled = sr.training.train(tiny(3, "precision=float32", compile=True), leaves, out=tmp_path, progress=False)
    assert compiled.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], abs=1e-4)
    assert sr.models.load(tmp_path / "model.safetensors").state_dict().keys() == plain.model.state_dict().keys()


def test_a_loss_that_is_not_finite_stops_with_step_and_term(leaves, tmp_path):
    rates = ["optimizer.learning_rate=1e30", "optimizer.clip=null"]
    quiet = ["log_every=100", "validate_every=100", "checkpoint_every=100"]  # nothing looks at the weights in between
    with pytest.raises(sr.training.TrainingError, match=r"loss is (nan|inf) at step \d+: .*checkpoint"):
        sr.training.train(tiny(12, *rates, *quiet), leaves, progress=False)
    with pytest.raises(sr.training.TrainingError, match=r"a weight of the generator is nan at step 2: .*checkpoint"):
        sr.training.train(tiny(12, *rates), leaves, out=tmp_path, progress=False)
    for step in Checkpoints(tmp_path / "checkpoints").steps():
        state = load_file(tmp_path / "checkpoints" / f"step_{step:08d}" / "generator.safetensors")
        assert all(torch.isfinite(tensor).all() for tensor in state.values())


def test_a_folder_with_a_run_is_not_overwritten(leaves, tmp_path):
    sr.training.train(tiny(3), leaves, out=tmp_path, progress=False)
    before = weights(tmp_path)
    with pytest.raises(ValueError, match=r"already holds a run .step 3.*resume"):
        sr.training.train(tiny(3, seed=5), leaves, out=tmp_path, progress=False)
    assert same(before, weights(tmp_path))


def test_resuming_with_another_recipe_or_photos_is_refused(leaves, tmp_path):
    sr.training.train(tiny(3), leaves, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another recipe .seed was 0, now 1"):
        sr.training.train(tiny(6, seed=1), leaves, out=tmp_path, resume=True, progress=False)
    with pytest.raises(ValueError, match="other photos"):
        sr.training.train(tiny(6), leaves[::-1], out=tmp_path, resume=True, progress=False)


def test_a_run_of_an_older_version_goes_on(leaves, tmp_path):
    """Fields that its recipe did not know then had their defaults; its state had no checksum of its own, and did not name the photos."""
    sr.training.train(tiny(3), leaves, out=tmp_path, progress=False)
    path = tmp_path / "checkpoints" / "step_00000003" / "state.json"
    state = json.loads(path.read_text())
    del state["recipe"]["stages"], state["recipe"]["loss_weights"], state["recipe"]["data"]["half_turn"]
    del state["checksum"], state["photos"], state["validation"]
    path.write_text(json.dumps(state))
    assert sr.training.train(tiny(6), leaves, out=tmp_path, resume=True, progress=False).step == 6
    with pytest.raises(ValueError, match=r"another recipe \(data\.half_turn was 0\.0, now 0\.5\)"):
        sr.training.train(tiny(9, "data.half_turn=0.5"), leaves, out=tmp_path, resume=True, progress=False)


def test_a_damaged_checkpoint_is_passed_over(leaves, tmp_path, capsys):
    sr.training.train(tiny(9, "schedule={kind: constant}"), leaves, out=tmp_path, progress=False)
    path = tmp_path / "checkpoints" / "step_00000009" / "generator.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    run = sr.training.train(tiny(12, "schedule={kind: constant}"), leaves, out=tmp_path, resume=True, progress=False)
    assert "checkpoint 9 is damaged" in capsys.readouterr().out
    whole = sr.training.train(tiny(12, "schedule={kind: constant}"), leaves, progress=False)
    assert same(run.model.state_dict(), whole.model.state_dict()) or run.step == 12


def test_a_photo_that_is_too_small_or_broken_is_named_and_leaves_no_folder(photo_folder, tmp_path):
    broken = tmp_path / "photos"
    broken.mkdir()
    for file in photo_folder.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    (broken / "7.png").write_bytes((photo_folder / "1.png").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"7\.png is damaged"):
        sr.training.train(tiny(3), broken, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    sr.images.write(broken / "7.png", torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="smaller than a patch of 16"):
        sr.training.train(tiny(3, "data.hold_out=0"), broken, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_in_its_first_step_leaves_the_folder_to_the_next(leaves, tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(sr.training.TrainingError, match="there is no checkpoint"):
        patch.setitem(sr.losses.PIXELWISE, "l1", lambda image, hr: (image - hr).mean() * float("nan"))
        sr.training.train(tiny(3), leaves, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    assert sr.training.train(tiny(3), leaves, out=tmp_path / "run", progress=False).step == 3
    noted = tiny(30, "optimizer.learning_rate=1e-3", "log_every=1", "checkpoint_every=50")
    engine = sr.training.engine.Engine(noted, leaves, out=tmp_path / "later", progress=False)
    engine.history.begin(0)
    engine.history.append({"step": 1, "loss": 0.5})  # a run that came further keeps what it wrote
    engine.release()
    assert (tmp_path / "later" / "history.jsonl").is_file()


def test_a_run_that_fails_takes_away_only_what_it_wrote(leaves, tmp_path):
    small = [torch.rand(3, 8, 8)] * 3
    mine, empty = tmp_path / "mine", tmp_path / "empty"
    (mine / "checkpoints").mkdir(parents=True)
    (mine / "checkpoints" / "precious.pth").write_text("weeks")
    (mine / "tensorboard").mkdir()
    (mine / "tensorboard" / "events").write_text("more weeks")
    empty.mkdir()
    (tmp_path / "link").symlink_to(empty)
    for folder in (mine, empty, tmp_path / "link", tmp_path / "new"):
        with pytest.raises(ValueError, match="photo 0 is 8×8 pixels, smaller than a patch"):  # and not what tidying up met
            sr.training.train(tiny(3), small, validation=[], out=folder, progress=False)
    assert (mine / "checkpoints" / "precious.pth").is_file() and (mine / "tensorboard" / "events").is_file()
    assert empty.is_dir() and not list(empty.iterdir()) and not (tmp_path / "new").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "recipe.json").write_text('{"cake": 1}')
    for _ in range(2):  # refused again, not "cleaned up" after the first refusal
        with pytest.raises(ValueError, match=r"already holds recipe\.json"):
            sr.training.train(tiny(3), leaves, out=foreign, progress=False)
    assert (foreign / "recipe.json").read_text() == '{"cake": 1}' and [path.name for path in foreign.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize("shape", [(4, 64, 64), (1, 64, 64), (1, 3, 64, 64)])
def test_photos_that_are_not_in_colour_are_named(leaves, shape):
    wrong = [leaves[0], torch.rand(shape), leaves[1]]
    with pytest.raises(ValueError, match=r"photo 1 has shape .*: expected a colour image"):
        sr.training.train(tiny(3), wrong, validation=[], progress=False)
    with pytest.raises(ValueError, match=r"validation photo .* has shape .*: expected a colour image"):
        sr.training.train(tiny(3), leaves, validation=wrong, progress=False)


def test_rated_images_are_not_photos(leaves):
    rated = sr.data.synthetic_ratings(leaves, 4, size=48)
    for photos, validation in ((rated, []), (leaves, rated)):
        with pytest.raises(ValueError, match="rated images are for method: scores"):
            sr.training.train(tiny(3), photos, validation=validation, progress=False)


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("srresnet_small", "recursive.passes=3", "recursive belongs to method: recursive, this recipe's is pixelwise"),
        ("eusr_small", "four_pass.alpha=0.5", "four_pass belongs to method: multi-pass"),
        ("eusr_small", "adversarial=relativistic", "adversarial belongs to method: adversarial or recursive or multi-pass"),
        ("nima_small", "discriminator.name=patch_discriminator", "discriminator belongs to method"),
        ("nima_small", "loss_weights.adversarial=1", "loss_weights belongs to method"),
        ("srgan_small", "scores.head_steps=5", "scores belongs to method: scores"),
        ("nima_small", "data.patch=24", "a score predictor needs at least 32"),
        ("rgan_small", "data.patch=8", "data.patch is 8: expected more than 8 for 2 passes"),
        (
            "four_pass_eusr",
            "data.patch=16",
            r"recipe: discriminator: input_size=16, .*: expected at least 32, 1 and 1 \(input_size is data\.patch, 16\)$",
        ),
        ("srgan_small", "discriminator.channels=0", "recipe: discriminator: channels is 0: expected at least 1$"),
        ("nima_small", "scores.head_batch=1000000000000", "recipe: scores.head_batch: .*got 1000000000000"),
    ],
)
def test_parts_that_only_another_method_reads_are_refused(name, override, words):
    with pytest.raises(ValueError, match=words):
        sr.training.load_recipe(name, overrides=[override])


def test_another_value_within_a_part_of_the_recipe_is_named_alone(leaves, tmp_path):
    sr.training.train(tiny(2), leaves, out=tmp_path, progress=False)
    with pytest.raises(ValueError, match=r"another recipe \(data\.flip was 0\.5, now 0\.25\): choose another folder"):
        sr.training.train(tiny(4, "data.flip=0.25"), leaves, out=tmp_path, resume=True, progress=False)


# --- other processes --------------------------------------------------------------------------------------------


def words(folder, photos, steps, *more):
    return train_words("srresnet_small", folder, photos, steps, *TINY, "schedule={kind: constant}", *more)


def test_a_second_process_on_the_folder_is_refused(command, photo_folder, tmp_path):
    first = subprocess.Popen(
        [sys.executable, "-m", "srcourse", *words(tmp_path / "run", photo_folder, 100_000)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(tmp_path / "run" / "history.jsonl")
        assert "is in use by another training run" in one_line(command(*words(tmp_path / "run", photo_folder, 5)))
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 130
    # Ctrl-C saved a checkpoint, and the lock went with the process
    saved = Checkpoints(tmp_path / "run" / "checkpoints").steps()[-1]
    finished = command(*words(tmp_path / "run", photo_folder, saved + 2))
    assert finished.returncode == 0, finished.stderr
    assert f"({saved:,} done)" in finished.stdout


@pytest.mark.slow
def test_killed_at_ten_random_moments_ends_bit_identical(process, photo_folder, tmp_path):
    steps = 400
    slow = ["model.blocks=2", "data.patch=32", "checkpoint_every=5"]
    assert process(*words(tmp_path / "whole", photo_folder, steps, *slow), timeout=300).returncode == 0
    kill_at_random_moments(words(tmp_path / "killed", photo_folder, steps, *slow), tmp_path / "killed", 10, seed=4)
    assert process(*words(tmp_path / "killed", photo_folder, steps, *slow), timeout=300).returncode == 0
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))
    assert history(tmp_path / "whole") == history(tmp_path / "killed")


def test_two_processes_follow_one(process, photo_folder, tmp_path):
    assert process(*words(tmp_path / "one", photo_folder, 10, "precision=float32")).returncode == 0
    in_two_processes(words(tmp_path / "two", photo_folder, 10, "precision=float32"))
    one, two = history(tmp_path / "one"), history(tmp_path / "two")
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)
        if "psnr" in a:
            assert a["psnr"] == pytest.approx(b["psnr"], abs=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="resource limits are POSIX")
def test_a_full_disk_leaves_the_last_checkpoint(process, photo_folder, tmp_path):
    """A limit on the size of files stands in for a full disk: the same OSError at the same place."""
    assert process(*words(tmp_path, photo_folder, 6)).returncode == 0
    before = {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()}

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    failed = process(*words(tmp_path, photo_folder, 12), preexec_fn=limit)
    assert "cannot write the checkpoint of step 9" in one_line(failed)
    assert "last good one is step 6" in failed.stderr
    assert {path: path.read_bytes() for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()} == before
    assert process(*words(tmp_path, photo_folder, 12)).returncode == 0


def _newest(folder):
    steps = Checkpoints(folder / "checkpoints").steps() if folder.exists() else []
    return steps[-1] if steps else 0


def _wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.05)


def test_foreign_and_broken_folders_are_left_alone(leaves, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.safetensors").write_bytes(b"mine")
    for resume in (False, True):
        with pytest.raises(ValueError, match=r"already holds model\.safetensors, and no checkpoint"):
            sr.training.train(tiny(3), leaves, out=tmp_path / "a", resume=resume, progress=False)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == b"mine"
    sr.training.train(tiny(6), leaves, out=tmp_path / "b", progress=False)
    for state in (tmp_path / "b" / "checkpoints").glob("*/state.json"):
        state.write_text("[]")
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged"):
        sr.training.train(tiny(9), leaves, out=tmp_path / "b", resume=True, progress=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the folder"):
        sr.training.train(tiny(3), leaves, out=tmp_path / "file", progress=False)


def test_odd_things_in_a_runs_folder_do_not_stop_it(leaves, tmp_path):
    sr.training.train(tiny(6, "schedule={kind: constant}"), leaves, out=tmp_path, progress=False)
    (tmp_path / "checkpoints" / "step_abc").mkdir()
    (tmp_path / "checkpoints" / "step_00000002 (copy)").mkdir()
    with open(tmp_path / "history.jsonl", "ab") as file:
        file.write(b'[1]\n{}\n{"step": "x"}\n\xff\n')
    run = sr.training.train(tiny(9, "schedule={kind: constant}"), leaves, out=tmp_path, resume=True, progress=False)
    assert run.step == 9 and [row["step"] for row in run.history] == sorted({row["step"] for row in run.history})


def test_a_damaged_best_checkpoint_does_not_cost_the_result(leaves, tmp_path, capsys):
    sr.training.train(tiny(6, "optimizer.learning_rate=1e-30", "validate_every=2"), leaves, out=tmp_path, progress=False)
    best = json.loads((tmp_path / "checkpoints" / "step_00000006" / "state.json").read_text())["best"]["step"]
    assert best == 2
    (tmp_path / "checkpoints" / "step_00000002" / "generator.safetensors").write_bytes(b"")
    sr.training.train(tiny(8, "optimizer.learning_rate=1e-30", "validate_every=2"), leaves, out=tmp_path, resume=True, progress=False)
    assert "best checkpoint (step 2) is damaged" in capsys.readouterr().out
    sr.models.load(tmp_path / "model.safetensors")


def test_small_validation_photos_and_absent_devices_are_told_at_once(leaves, tmp_path):
    with pytest.raises(ValueError, match="validation photo 0 is too small: expected more than 4 pixels"):
        sr.training.train(tiny(3), leaves, validation=[torch.rand(3, 4, 4)], out=tmp_path / "run", progress=False)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device is 'cuda', and there is none here"):
            sr.training.train(tiny(3, device="cuda"), leaves, out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("clip", [[], ["optimizer.clip=0.1"]])
def test_gradients_accumulated_over_pieces_are_those_of_the_whole_batch(clip, leaves, gradients):
    """The gradients themselves are compared: Adam would hide a constant factor."""
    runs = [
        sr.training.train(tiny(3, "log_every=1", "precision=float32", f"optimizer.accumulate={pieces}", *clip), leaves, progress=False)
        for pieces in (1, 2, 4)
    ]
    assert len(gradients) == 9  # one descent a step, whatever the pieces
    for whole, part in ((0, 3), (0, 6)):
        for a, b in zip(gradients[whole], gradients[part], strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    for run in runs[1:]:
        for a, b in zip(runs[0].history, run.history, strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_accumulated_runs_resume_and_refuse_batches_that_cannot_be_cut(leaves, tmp_path):
    recipe = [tiny(steps, "optimizer.accumulate=2", "schedule={kind: constant}") for steps in (3, 6)]
    whole = sr.training.train(recipe[1], leaves, out=tmp_path / "whole", progress=False)
    sr.training.train(recipe[0], leaves, out=tmp_path / "parts", progress=False)
    sr.training.train(recipe[1], leaves, out=tmp_path / "parts", resume=True, progress=False)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts")) and whole.step == 6
    with pytest.raises(ValueError, match=r"data\.batch is 4: expected a multiple of the 1 process, each in 3 pieces"):
        sr.training.train(tiny(3, "optimizer.accumulate=3"), leaves, progress=False)


def test_two_processes_accumulate_as_one(photo_folder, tmp_path, process):
    pieces = ["precision=float32", "optimizer.accumulate=2"]
    assert process(*words(tmp_path / "one", photo_folder, 6, "precision=float32")).returncode == 0
    assert "4 patches of 16×16 in 2 pieces" in in_two_processes(words(tmp_path / "two", photo_folder, 6, *pieces)).stdout
    for a, b in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_two_machines_follow_one(photo_folder, tmp_path, process):
    """Two agents of torchrun, as two machines would start them, meet on this one's loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1", "-m", "srcourse"]
    run = words(tmp_path / "two", photo_folder, 6, "precision=float32")
    machines = [subprocess.Popen([*launch, *run], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    told = [machine.communicate(timeout=180) for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], told
    assert "".join(out for out, _ in told).count("2 processes") == 1  # the main process tells, on one of the machines
    assert process(*words(tmp_path / "one", photo_folder, 6, "precision=float32")).returncode == 0
    for a, b in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-5)


def test_a_runs_folder_is_a_recipe(tmp_path, command, photo_folder):
    out = tmp_path / "run"
    changes = ("model.channels=4", "model.blocks=1", "data.patch=16", "data.batch=2", "data.hold_out=0")
    small = [word for change in changes for word in ("--set", change)]
    assert command("train", "srresnet_small", "--data", photo_folder, "--out", out, "--steps", 2, *small).returncode == 0
    assert sr.training.load_recipe(out).model.options["channels"] == 4
    went_on = command("train", out, "--data", photo_folder, "--out", out, "--resume", "--steps", 3)
    assert went_on.returncode == 0 and "done: step 3" in went_on.stdout, went_on.stderr


def test_the_courses_features_are_refused_for_vgg16_before_a_photo_is_read():
    with pytest.raises(ValueError, match=r"not vgg16: take network='vgg19' \(in a recipe: --set perceptual.network=vgg19\)"):
        sr.training.load_recipe("msfm_epa", overrides=["perceptual.weights=course"])
    assert (
        sr.training.load_recipe("msfm_epa", overrides=["perceptual.weights=course", "perceptual.network=vgg19"]).perceptual.layer
        == "relu4_3"
    )
