"""How fast is a training step, and do batches keep up? Run by hand: python benchmarks/step.py

Compares, alternating in one run, a step of the published SRResNet ×4 (batch 8, 24×24 LR patches) in plain float32 with
the same step as the engine runs it (channels-last, and bf16 where the hardware has it), and the time that the patch bank
takes for a batch with the time that the network takes for a step.
"""

import statistics
import time

import torch
import torch.nn.functional as F

import srcourse as sr
from srcourse.training.engine import Engine

ROUNDS, STEPS = 7, 3


def timed(function) -> float:
    """Seconds for a step, the mean of a few."""
    start = time.perf_counter()
    for _ in range(STEPS):
        function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def main() -> None:
    """Print three ratios with their medians and ranges."""
    photos = [sr.images.sample(name) for name in ("motorcycle", "rocket")]
    recipe = sr.training.load_recipe("srresnet", scale=4, overrides=["data.batch=8", "data.patch=96", "seed=0"])
    engine = Engine(recipe, photos, progress=False)
    generator = engine.network("generator", "srresnet", scale=4)
    optimizer = engine.optimizer("generator", generator)
    plain = sr.models.create("srresnet", scale=4).to(engine.device)
    plain_optimizer = torch.optim.Adam(plain.parameters(), lr=1e-4)
    lr, hr = engine.batch(0)
    plain_lr, plain_hr = lr.contiguous(), hr.contiguous()

    def engine_step() -> None:
        with engine.autocast():
            image = generator(lr)
        engine.update(optimizer, F.mse_loss(image.float(), hr))

    def plain_step() -> None:
        plain_optimizer.zero_grad()
        F.mse_loss(plain(plain_lr), plain_hr).backward()
        plain_optimizer.step()

    for warm_up in (engine_step, plain_step):
        warm_up()
    rows = [(timed(plain_step), timed(engine_step), timed(lambda: engine.batch(1))) for _ in range(ROUNDS)]
    print(f"{engine.device.type}, {engine.precision}, {torch.get_num_threads()} threads; medians of {ROUNDS} alternating rounds")
    for name, values in (
        ("plain float32 step / engine's step", [plain / ours for plain, ours, _ in rows]),
        ("engine's step / a batch from the bank", [ours / batch for _, ours, batch in rows]),
    ):
        print(f"{name:40}{statistics.median(values):8.2f}   ({min(values):.2f} to {max(values):.2f})")
    print(
        f"engine's step {statistics.median(r[1] for r in rows) * 1e3:.0f} ms, a batch {statistics.median(r[2] for r in rows) * 1e3:.1f} ms"
    )


if __name__ == "__main__":
    main()
