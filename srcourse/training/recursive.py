"""Recursive training: a network learns to enlarge its own images (P004 §4.4, rGAN).

Phase A: the network enlarges photographs that were shrunk (1X to 2X), with the pixelwise loss. Phase B: it enlarges what
the same network made of them (2X to 4X), with the pixelwise and the adversarial loss against the originals. Without
phase B, nobody has told the network what its own images look like; with it alone, it forgets what photographs look like,
which replaying steps of phase A prevents.
"""

import torch
from torch import nn

from srcourse.inference import evaluating
from srcourse.losses import PIXELWISE
from srcourse.resize import resize_bicubic
from srcourse.seeds import generator as random_generator
from srcourse.training.adversarial import Game
from srcourse.training.engine import Engine

_REACH = 2  # outer pixels of a shrunk patch that the resizing kernel made from pixels beyond the patch
_REPLAY = 4  # a key beside the seed, so that replaying does not depend on the batch


def train_recursive(engine: Engine) -> None:
    """Train a network for repeated use: `recursive.first_steps` steps of phase A, then phase B."""
    recipe, part = engine.recipe, engine.recipe.recursive
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options)
    optimizer = engine.optimizer("generator", generator)
    game = Game(engine, optimizer)
    pixelwise = PIXELWISE[recipe.loss]

    if part.first_steps >= recipe.steps or part.replay == 1:
        engine.warn("the second phase never begins: recursive.first_steps should be below steps, and recursive.replay below 1")
    generator.train()
    for step in engine.steps():
        lr, hr = engine.batch(step)  # 1X (n, 3, h, w) and, of two passes at scale 2, 4X (n, 3, 4h, 4w)
        if step < part.first_steps or replays(recipe.seed, step, part.replay):
            target = resize_bicubic(hr, tuple(recipe.scale * side for side in lr.shape[-2:]))  # 2X (n, 3, 2h, 2w)
            with engine.autocast():
                sr = generator(lr)
            loss = pixelwise(_inner(sr.float()), _inner(target))
            engine.log(pixel_loss=loss, loss=loss)
            engine.update(optimizer, loss)
        else:
            with engine.autocast():
                sr = generator(own_image(generator, lr, recipe.passes - 1))  # 4X (n, 3, 4h, 4w)
            game.play([sr], hr)


def own_image(generator: nn.Module, lr: torch.Tensor, passes: int) -> torch.Tensor:
    """What the network makes of an image as `upscale` would: in ``eval`` mode, clamped to [0, 1], without gradient.

    (n, 3, h, w) → (n, 3, s·h, s·w), s = scale^passes. P004 calls the result of one pass SR2X.
    """
    network = getattr(generator, "module", generator)  # without the wrapper for several processes
    with evaluating(network), torch.no_grad():
        for _ in range(passes):
            lr = network(lr).float().clamp(0, 1)
    return lr


def replays(seed: int, step: int, share: float) -> bool:
    """Whether a step of phase B is one of phase A instead: the same answer in every process and after resuming."""
    return torch.rand((), generator=random_generator(seed, step, _REPLAY)).item() < share


def _inner(images: torch.Tensor) -> torch.Tensor:
    return images[..., _REACH:-_REACH, _REACH:-_REACH]
