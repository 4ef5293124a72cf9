"""Pixelwise training: the network's image against the original, pixel by pixel (P001 §3.1.3, equations 1 and 2).

For each batch of patches: upscale, compare, descend. Everything around it is the engine's.
"""

import torch.nn.functional as F

from srcourse.training.engine import Engine

LOSSES = {
    "l1": F.l1_loss,  # mean |SR - HR|: less averse to single large errors, EDSR's choice
    "mse": F.mse_loss,  # mean (SR - HR)²: what PSNR measures, P001 equation 2
}


def train_pixelwise(engine: Engine) -> None:
    """Train the recipe's network with its pixelwise loss, on images in [0, 1]."""
    recipe = engine.recipe
    generator = engine.network("generator", recipe.model.name, scale=recipe.scale, **recipe.model.options)
    optimizer = engine.optimizer("generator", generator)
    criterion = LOSSES[recipe.loss]

    generator.train()
    for step in engine.steps():
        lr, hr = engine.batch(step)  # (n, 3, h, w) and (n, 3, scale·h, scale·w)
        with engine.autocast():
            sr = generator(lr)  # (n, 3, scale·h, scale·w)
        loss = criterion(sr.float(), hr)
        engine.log(loss=loss)
        engine.update(optimizer, loss)
