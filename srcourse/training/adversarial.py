"""Adversarial training: the discriminator's step, then the generator's (P000 algorithm 1; P001 §3.2; P003 §2.5; P004 §3).

The generator minimises λ_pixel · pixel loss + λ_perceptual · perceptual loss + λ_adversarial · adversarial loss (P001
equation 5, P000 equation 2); the discriminator learns, at the same time, to tell its images from photographs. The λ are
the recipe's ``loss_weights``, the game is its ``adversarial`` (see `losses.adversarial`).
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

import torch
from torch import nn

from srcourse.losses import PIXELWISE, PerceptualLoss, discriminator_accuracy, discriminator_loss, generator_loss, multi_stage_loss
from srcourse.training.engine import Engine

_LONG = 200  # steps that one side must be winning before the user is warned


def train_adversarial(engine: Engine) -> None:
    """Train a generator and a discriminator against each other, on images in [0, 1]."""
    recipe = engine.recipe
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options)
    game = Game(engine, engine.optimizer("generator", generator))

    generator.train()
    for step in engine.steps():
        lr, hr = engine.batch(step)  # (n, 3, h, w) and (n, 3, scale·h, scale·w)
        with engine.autocast():
            stages = generator(lr, return_stages=True) if recipe.stages else [generator(lr)]
        game.play(stages, hr)


class Game:
    """The recipe's discriminator and losses, and one round of the game: all but how the images are generated."""

    def __init__(self, engine: Engine, generator_optimizer: torch.optim.Optimizer):
        recipe = engine.recipe
        self.engine, self.generator_optimizer = engine, generator_optimizer
        self.discriminator = engine.network("discriminator", recipe.discriminator.name, **recipe.discriminator_options())
        self.optimizer = engine.optimizer("discriminator", self.discriminator, learning_rate=recipe.discriminator.learning_rate)
        self.pixelwise = PIXELWISE[recipe.loss]
        self.perceptual = engine.place(PerceptualLoss(**recipe.perceptual.model_dump())) if recipe.loss_weights.perceptual else None
        self.discriminator.train()

    def further_terms(self, sr: torch.Tensor, real: torch.Tensor) -> dict[str, torch.Tensor]:
        """What else a method judges its images (n, 3, H, W) by, beside m photographs: terms of the loss, named as the recipe's λ."""
        return {}

    def play(self, stages: Sequence[torch.Tensor], hr: torch.Tensor, real: torch.Tensor | None = None) -> None:
        """The discriminator's step, then the generator's.

        The history gets, unweighted, each term of the generator's loss, their weighted sum as "loss", the discriminator's
        loss, and the shares of real and of generated patches that it judges rightly.

        Parameters
        ----------
        stages : sequence of (n, 3, h_i, w_i) tensors
            What the generator made, with its gradient; the last, of HR's size, is the one that is judged.
        hr : (n, 3, H, W) tensor in [0, 1]
        real : (m, 3, H, W) tensor
            The photographs that the discriminator sees; `hr`, unless that repeats some.
        """
        engine, kind, weights = self.engine, self.engine.recipe.adversarial, self.engine.recipe.loss_weights
        warn_if_one_side_has_won(engine)
        sr, real = stages[-1], hr if real is None else real

        # The discriminator's step: real images towards "real", generated ones towards "generated".
        with engine.autocast():
            real_logits = self.discriminator(real)  # (m, 1) or (m, 1, rows, columns)
            fake_logits = self.discriminator(sr.detach())  # (n, …); no gradient into the generator
        d_loss = discriminator_loss(real_logits, fake_logits, kind)
        real_accuracy, generated_accuracy = discriminator_accuracy(real_logits, fake_logits, kind)
        engine.update(self.optimizer, d_loss)

        # The generator's step: close to the original, and taken for real by the discriminator as it is now.
        terms = {"pixel_loss": multi_stage_loss(stages, hr, self.pixelwise)}
        loss = weights.pixel * terms["pixel_loss"]
        if self.perceptual is not None:
            with engine.autocast():
                terms["perceptual_loss"] = self.perceptual(sr, hr)
            loss = loss + weights.perceptual * terms["perceptual_loss"]
        if weights.adversarial:
            with engine.autocast(), frozen(self.discriminator) as judge:
                real_logits = judge(real) if kind == "relativistic" else None
                fake_logits = judge(sr)
            terms["adversarial_loss"] = generator_loss(fake_logits, kind, real_logits)
            loss = loss + weights.adversarial * terms["adversarial_loss"]
        for name, term in self.further_terms(sr, real).items():
            terms[f"{name}_loss"] = term
            loss = loss + getattr(weights, name) * term
        # a term before the sum: of several that are not finite, the first is named
        engine.log(discriminator_loss=d_loss, **terms, loss=loss, real_accuracy=real_accuracy, generated_accuracy=generated_accuracy)
        engine.update(self.generator_optimizer, loss)


@contextlib.contextmanager
def frozen(discriminator: nn.Module) -> Iterator[nn.Module]:
    """The discriminator without the wrapper for several processes, taking no gradient while the generator's step is built."""
    network = getattr(discriminator, "module", discriminator)
    network.requires_grad_(False)
    try:
        yield network
    finally:
        network.requires_grad_(True)


def warn_if_one_side_has_won(engine: Engine) -> None:
    """Say so, once, when the game has been one-sided for long: the gradient then teaches little."""
    winner = one_sided(engine.history.rows)
    if winner == "discriminator":
        engine.warn(
            f"the discriminator has won: for {_LONG} steps it was right about more than 99 % of the real and of the generated patches; "
            "lower discriminator.learning_rate, or raise loss_weights.adversarial"
        )
    elif winner == "generator":
        engine.warn(
            f"the generator has won: for {_LONG} steps the discriminator knew less than 1 % of its patches as generated; "
            "raise discriminator.learning_rate, or lower loss_weights.adversarial"
        )


def one_sided(rows: Sequence[Mapping[str, float]], steps: int = _LONG) -> str | None:
    """Which side has won, "discriminator" or "generator", by every row of the last `steps` steps; None: the game is open."""
    if not rows or rows[-1]["step"] < steps:
        return None
    recent = list(takewhile(lambda row: row["step"] > rows[-1]["step"] - steps, reversed(rows)))  # the history may be long
    if not all("real_accuracy" in row for row in recent):
        return None  # the game has not begun for as long (rGAN's first phase has none)
    if all(min(row["real_accuracy"], row["generated_accuracy"]) > 0.99 for row in recent):
        return "discriminator"
    if all(row["generated_accuracy"] < 0.01 for row in recent):
        return "generator"
    return None
