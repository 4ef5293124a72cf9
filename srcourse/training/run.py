"""From a recipe and photos to a trained network: ``train``."""

import datetime
import math
import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from srcourse import data, models
from srcourse.losses.perceptual import find_weights
from srcourse.models.weights import resolve
from srcourse.training.adversarial import train_adversarial
from srcourse.training.engine import Engine
from srcourse.training.loading import recipes
from srcourse.training.multipass import find_judge, train_multi_pass, train_multi_scale
from srcourse.training.pixelwise import train_pixelwise
from srcourse.training.recipe import Recipe
from srcourse.training.recursive import train_recursive
from srcourse.training.scores import ScoreEngine, find_backbone, train_scores

METHODS = {
    "pixelwise": (Engine, train_pixelwise),
    "adversarial": (Engine, train_adversarial),
    "recursive": (Engine, train_recursive),
    "scores": (ScoreEngine, train_scores),
    "multi-scale": (Engine, train_multi_scale),
    "multi-pass": (Engine, train_multi_pass),
}


@dataclass
class Run:
    """A training that ended: what came of it.

    Attributes
    ----------
    model : the generator in ``eval`` mode on the CPU; the best by validation where checkpoints were written
    history : one dict per logged step: "step", the losses, "psnr" in dB where validated, "seconds"
    recipe, out, step : what was run, where it lies, how far it came
    interrupted : whether Ctrl-C or SIGTERM stopped it before its end; it can be resumed
    warnings : what did not go as it should, a line each: a GAN that one side has won, for instance
    """

    model: nn.Module
    history: list[dict[str, float]]
    recipe: Recipe
    out: Path | None
    step: int
    interrupted: bool
    warnings: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        quality = ""
        for row in self.history:
            if "psnr" in row:
                quality = f", {row['psnr']:.2f} dB in validation"
            elif "srocc" in row:
                quality = f", rank correlation {row['srocc']:.3f} in validation"
        return f"Run({self.recipe.label}, step {self.step} of {self.recipe.steps}{quality})"


def train(
    recipe: Recipe,
    photos: str | os.PathLike | Sequence[torch.Tensor] | None = None,
    *,
    validation: str | os.PathLike | Sequence[torch.Tensor] | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train a recipe's network.

    Parameters
    ----------
    recipe : Recipe
        From `load_recipe`.
    photos : folder, or sequence of (3, H, W) tensors in [0, 1]
        To learn from. Without them: `data.training_samples()`, what ships with the course. For a score predictor: the folder
        of AVA or TID2013, or a `data.Ratings`; without them, pseudo-opinions about those samples.
    validation : folder or sequence, optional
        Photos to measure PSNR on. Without them, the last ``data.hold_out`` of `photos` are kept for it.
    out : folder, optional
        Where checkpoints, history and ``model.safetensors`` go. None keeps the run in memory.
    resume : bool
        Go on from the newest checkpoint in `out`; begin where there is none.
    progress : bool
        Print the plan and a progress bar.

    Raises
    ------
    TrainingError
        If a loss is not finite or a checkpoint cannot be written; the last good checkpoint stays.
    ValueError, FileNotFoundError
        For photos, recipe and folder that do not fit each other, before training begins.

    Examples
    --------
    >>> recipe = load_recipe("srresnet_small", steps=200)  # doctest: +SKIP
    >>> run = train(recipe, out="runs/demo")  # doctest: +SKIP
    """
    folder = Path(out) if out is not None else None
    _check_files(recipe, resuming=resume and folder is not None and (folder / "checkpoints").is_dir())
    chosen = _photos(recipe, photos)
    if validation is not None:
        held_out = _photos(recipe, validation)
    else:
        count = min(math.ceil(recipe.data.hold_out * len(chosen)), len(chosen) - 1)
        chosen, held_out = chosen[: len(chosen) - count], chosen[len(chosen) - count :]
    engine_class, method = METHODS[recipe.method]
    engine = engine_class(recipe, chosen, held_out, out=folder, resume=resume, progress=progress)
    try:
        method(engine)
        model = engine.best_model()
        if folder is not None and engine.main:
            with engine.writing("model.safetensors"):
                models.save(model, folder / "model.safetensors", card=_card(engine))
    except RuntimeError as error:
        explained = engine.explained(error)
        raise explained from (None if explained is error else error)
    finally:
        engine.release()
    if progress and engine.main:
        if engine.step == recipe.steps:
            kept = f"; {folder / 'model.safetensors'}" if folder is not None else ""
            print(f"done: step {engine.step:,}{kept}")
        if engine.step > recipe.steps:
            print(f"nothing to do: the run is at step {engine.step} already, beyond the {recipe.steps} asked for")
        elif engine.step < recipe.steps:
            why = "stopped early: no better for its patience" if not (engine.interrupted or engine.out_of_time) else "stopped"
            go_on = (
                f"; go on with --resume in {folder} (srcourse train {folder} --resume --out {folder} --data …)"
                if folder is not None and why == "stopped"
                else ""
            )
            print(f"{why}, after step {engine.step} of {recipe.steps}{go_on}")
    return Run(model, engine.history.rows, recipe, folder, engine.step, engine.interrupted, engine.warnings)


def _check_files(recipe: Recipe, resuming: bool) -> None:
    """Weights that the recipe asks for must be there before photos are read."""
    start = recipe.start_weights()
    if start and not resuming:
        try:
            resolve(start)
        except FileNotFoundError:
            run = re.fullmatch(r"runs/(\w+)-x(\d)", start)
            how = f"train them with: srcourse train {run[1]} --scale {run[2]}; " if run else ""
            shipped = re.fullmatch(r"(\w+)-x(\d)", start)  # as the course's own weights are called
            if shipped and shipped[1] in recipes():
                name, scale = shipped[1], shipped[2]
                how = f"train them with: srcourse train {name} --scale {scale}, and start from them with --set start=runs/{start}; or "
            raise FileNotFoundError(
                f"{recipe.name} starts from {start}, which is not here: {how}"
                "name others with --set start=WEIGHTS, or begin afresh with --set start=null"
            ) from None
    if recipe.loss_weights.perceptual:
        find_weights(recipe.perceptual.network, recipe.perceptual.weights)
    if recipe.method == "multi-pass":
        find_judge(recipe.four_pass.aesthetic)
        find_judge(recipe.four_pass.subjective)
    if recipe.method == "scores" and recipe.scores.backbone != "random" and not resuming:
        find_backbone(recipe.scores.backbone)


def _photos(recipe: Recipe, source: str | os.PathLike | Sequence | None) -> Sequence:
    """What to learn from: photos, or rated images where the method is "scores"."""
    if source is not None and not isinstance(source, str | os.PathLike):
        return source
    if recipe.method != "scores":
        if source is None:
            return data.training_samples()
        return data.prepared(source) if data.is_prepared(source) else data.photos(source)
    if source is not None:
        return data.ratings(source)
    return data.synthetic_ratings(list(data.training_samples()), recipe.scores.ratings, size=recipe.data.patch, seed=recipe.seed)


def _card(engine: Engine) -> dict:
    """What a reader of the weights should know."""
    gpu = torch.cuda.get_device_name(engine.device) if engine.device.type == "cuda" else None
    return {
        "recipe": engine.recipe.model_dump(mode="json"),
        "data": f"{len(engine.bank)} photos, fingerprint {engine.bank.fingerprint}",
        "step": engine.best["step"] or engine.step,
        "minutes": round(engine.seconds / 60, 1),
        "hardware": f"{engine.world} × {gpu or platform.machine() + ' CPU'}, {engine.precision}",
        "date": datetime.date.today().isoformat(),
        f"validation_{engine.quality}": engine.best[engine.quality],
        "torch": torch.__version__,
    }
