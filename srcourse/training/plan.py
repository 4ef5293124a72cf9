"""What a run is about to do, told before it begins."""

from typing import TYPE_CHECKING

import torch
from torch import nn

from srcourse import models

if TYPE_CHECKING:
    from srcourse.training.engine import Engine


def plan(engine: "Engine") -> str:
    """Network, loss, data, steps, machine and folder of a run, a line each."""
    recipe, data = engine.recipe, engine.recipe.data
    network = engine.networks[engine.result]
    schedule = {
        "constant": "",
        "step": f", ×{recipe.schedule.factor:g} every {recipe.schedule.every:,}",
        "cosine": ", down a cosine",
    }[recipe.schedule.kind]
    place = f"{engine.device.type}, {engine.precision}, {engine.world} process{'es' * (engine.world > 1)}"
    if engine.device.type == "cpu":
        place += f", {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}"
        normed = [name for name, part in engine.networks.items() if has_batch_norm(part)]
        if engine.world > 1 and normed:
            place += f"; batch statistics of each process alone in the {' and the '.join(normed)} (SyncBatchNorm exists for GPUs only)"
    done = f" ({engine.step:,} done)" if engine.step else ""
    limit = f", at most {recipe.minutes:g} minutes" if recipe.minutes else ""
    held_out = f"{len(engine.validation)} for validation"
    patches = f"{data.batch} patches of {data.patch}×{data.patch}" + f" in {engine.pieces} pieces" * (engine.pieces > 1)
    begins = f", from {recipe.start_weights()}" if recipe.start else ""
    return "\n".join(
        [
            f"{recipe.label}: {recipe.method} · {models.count_parameters(network):,} parameters{begins}",
            f"  loss     {_loss(engine)}",
            f"  data     {_data(engine)}; {held_out}",
            f"  steps    {recipe.steps:,}{done}{limit}; {patches}; learning rate {recipe.optimizer.learning_rate:g}{schedule}",
            f"  machine  {place}",
            f"  results  {engine.out or 'in memory only'}",
        ]
    )


def _data(engine: "Engine") -> str:
    if engine.recipe.method == "scores":
        return f"{len(engine.bank)} rated images"
    return f"{len(engine.bank)} photos, {engine.bank.nbytes / 1e6:.0f} MB, degradation {engine.recipe.data.degradation}"


def _loss(engine: "Engine") -> str:
    recipe, weights = engine.recipe, engine.recipe.loss_weights
    if recipe.method == "scores":
        part = recipe.scores
        phases = f"{part.head_steps:,} steps of the head ({part.head_batch} crops), then all"
        return f"squared earth mover's distance; {phases}; {part.backbone} backbone"
    pixel = recipe.loss + " of every stage" * recipe.stages
    if recipe.method == "multi-scale":
        scales = ", ".join(f"×{scale}" for scale in engine.networks[engine.result].scales)
        return f"{pixel}, at each step of one of {scales}"
    if recipe.discriminator is None:
        return pixel
    part = recipe.perceptual
    terms = {
        pixel: weights.pixel,
        f"{part.network} {part.layer} ({part.weights} weights)": weights.perceptual,
        f"adversarial ({recipe.adversarial})": weights.adversarial,
        "aesthetic score": weights.aesthetic_score,
        "aesthetic features": weights.aesthetic_features,
        "subjective score": weights.subjective_score,
        "subjective features": weights.subjective_features,
    }
    judge = f"{recipe.discriminator.name}, {models.count_parameters(engine.networks['discriminator']):,} parameters"
    game = " + ".join(f"{weight:g} · {name}" for name, weight in terms.items() if weight) + f"; against {judge}"
    if recipe.method != "recursive":
        return game
    part = recipe.recursive
    replay = f", {part.replay:.0%} of the steps as before" if part.replay else ""
    return f"{part.first_steps:,} steps of {pixel} on photographs, then on its own images{replay}: {game}"


def has_batch_norm(module: nn.Module) -> bool:
    """Whether any layer of a network keeps batch statistics."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
