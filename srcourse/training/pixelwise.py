"""Pixelwise training: the network's image against the original, pixel by pixel (P001 §3.1.3, equations 1 and 2).

For each batch of patches: upscale, compare, descend. Everything around it is the engine's.
"""

from srcourse.losses import PIXELWISE, multi_stage_loss
from srcourse.training.engine import Engine


def train_pixelwise(engine: Engine) -> None:
    """Train the recipe's network with its pixelwise loss, on images in [0, 1]."""
    recipe = engine.recipe
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options)
    optimizer = engine.optimizer("generator", generator)
    criterion = PIXELWISE[recipe.loss]

    generator.train()
    for step in engine.steps():
        lr, hr = engine.batch(step)  # (n, 3, h, w) and (n, 3, scale·h, scale·w)
        with engine.autocast():
            stages = generator(lr, return_stages=True) if recipe.stages else [generator(lr)]  # the last: (n, 3, scale·h, scale·w)
        loss = multi_stage_loss(stages, hr, criterion)
        engine.log(loss=loss)
        engine.update(optimizer, loss)
