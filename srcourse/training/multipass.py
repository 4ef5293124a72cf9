"""The two trainings of P002: EUSR at several scales (§4.1), then 4PP-EUSR, three roads to ×4 and six losses (§4.3)."""

import torch
from torch import nn

from srcourse import models
from srcourse.losses import PIXELWISE, representation_loss, score_loss
from srcourse.models.registry import PREDICTORS
from srcourse.models.weights import resolve
from srcourse.seeds import generator as random_generator
from srcourse.training.adversarial import Game
from srcourse.training.engine import Engine
from srcourse.training.loading import recipes

_SCALE = 8  # a key beside the seed, so that the scale does not depend on the batch
OWN_JUDGE = "nima_small"  # what stands in for a score predictor that was not trained yet


def train_multi_scale(engine: Engine) -> None:
    """Pre-train an EUSR: at each step one of its scales, with the pixelwise loss (P002 §4.1)."""
    recipe = engine.recipe
    # a step uses one path of several, which the wrapper for several processes would not understand
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options, wrap=False)
    optimizer = engine.optimizer("generator", generator)
    criterion = PIXELWISE[recipe.loss]

    generator.train()
    for step in engine.steps():
        scale = chosen_scale(generator.scales, recipe.seed, step)
        lr, hr = engine.batch(step, scale)  # (n, 3, h, w) and (n, 3, scale·h, scale·w), h and w the same for each scale
        with engine.autocast():
            sr = generator(lr, scale)
        loss = criterion(sr.float(), hr)
        engine.log(**{f"loss_x{scale}": loss}, loss=loss)
        engine.update(optimizer, loss)


def chosen_scale(scales: tuple[int, ...], seed: int, step: int) -> int:
    """The scale of a step: at random, and the same in every process and after resuming."""
    return scales[int(torch.rand((), generator=random_generator(seed, step, _SCALE)).item() * len(scales))]


def train_multi_pass(engine: Engine) -> None:
    """Fine-tune an EUSR on the images of all three roads to ×4 at once, with six losses averaged over them (P002 §4.3)."""
    recipe, part = engine.recipe, engine.recipe.four_pass
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options, wrap=part.multi_pass)
    game = FourPassGame(engine, engine.optimizer("generator", generator))

    generator.train()
    for step in engine.steps():
        lr, hr = engine.batch(step)  # (n, 3, h, w) and (n, 3, 4h, 4w)
        with engine.autocast():
            roads = generator(lr, multipass=True, decimate=part.decimate) if part.multi_pass else [generator(lr)]
        sr = torch.cat(roads)  # (3n, 3, 4h, 4w): the mean over this batch is the mean over the roads
        game.play([sr], hr.repeat(len(roads), 1, 1, 1), real=hr)


class FourPassGame(Game):
    """The game with two frozen judges beside the discriminator (P002 equations 2 to 8)."""

    def __init__(self, engine: Engine, generator_optimizer: torch.optim.Optimizer):
        super().__init__(engine, generator_optimizer)
        part, weights = engine.recipe.four_pass, engine.recipe.loss_weights.model_dump()
        wanted = {
            name: getattr(part, name) for name in ("aesthetic", "subjective") if weights[f"{name}_score"] or weights[f"{name}_features"]
        }
        loaded = {which: engine.place(load_judge(which, engine)) for which in dict.fromkeys(wanted.values())}
        # one network for both roles, where both want it
        self.judges = {name: loaded[which] for name, which in wanted.items()}

    def further_terms(self, sr: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """For each judge the score loss (equations 4, 6) and the representation loss (equations 5, 7)."""
        part, terms, seen = self.engine.recipe.four_pass, {}, {}
        roads = len(sr) // len(real)
        for name, judge in self.judges.items():
            if judge not in seen:  # one network in both roles looks once
                seen[judge] = self._look(judge, sr, real)
            opinions, features, hr_opinions, hr_features = seen[judge]
            scores, hr_scores = models.mean_score(opinions), models.mean_score(hr_opinions)  # (n,) and (n/roads,)
            terms[f"{name}_score"] = score_loss(scores, hr_scores.repeat(roads), alpha=part.alpha)
            terms[f"{name}_features"] = representation_loss(features, hr_features.repeat(roads, 1), reduction=part.reduction)
        return terms

    def _look(self, judge: nn.Module, sr: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Opinions (n, 10) and features (n, 1280) of the upscaled images, then of the originals, without gradient."""
        with self.engine.autocast():
            opinions, features = judge(sr, return_features=True)
            with torch.no_grad():
                hr_opinions, hr_features = judge(real, return_features=True)
        return opinions, features, hr_opinions, hr_features


def find_judge(wanted: str) -> str:
    """The judge that a recipe names, if it is there; the course's own small one in place of a run that was not made yet."""
    try:
        resolve(wanted)
    except FileNotFoundError:
        if wanted.removeprefix("runs/") not in recipes() or not wanted.startswith("runs/"):
            raise
        return OWN_JUDGE
    return wanted


def load_judge(wanted: str, engine: Engine) -> nn.Module:
    """A score predictor in ``eval`` mode; a stand-in is told."""
    found = find_judge(wanted)
    if found != wanted:
        recipe = wanted.removeprefix("runs/")
        engine.warn(f"{wanted} is not here: {OWN_JUDGE} judges in its place, on pseudo-opinions; srcourse train {recipe} makes it")
    judge = models.load(found)
    if getattr(judge, "name", None) not in PREDICTORS:
        raise ValueError(f"{found} is a {judge.name}: expected a score predictor, such as {OWN_JUDGE}")
    return judge.eval()
