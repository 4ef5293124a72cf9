"""Train a small feature network for perceptual losses on a folder of photographs: no labels from outside, no download.

    python data_scripts/fit_features.py PHOTOS --out vgg19_small.safetensors

A VGG19 with an eighth of the channels learns how strongly known distortions (`srcourse.data.distort`) have changed a patch: the distance
between its features of the patch before and after shall be the distortion's level. The last photographs are kept to measure on. Take
the file with ``PerceptualLoss(weights="vgg19_small.safetensors")``; the course's own was made so, and is ``weights="course"``.
"""

import datetime
import math
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from scipy.stats import spearmanr
from torch import nn
from tqdm.auto import tqdm

from srcourse import data, images
from srcourse.data.ratings import DISTORTIONS, distort
from srcourse.losses.perceptual import VGGFeatures, narrow_front, save_features
from srcourse.seeds import generator

PATCH, PAIRS, RATE = 64, 16, 1e-3
LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_4")  # whose distances learn: the last of each block but the first


class Judge(nn.Module):
    """Two batches of patches (N, 3, 64, 64) → each layer's distances (4, N), and logits of the distortions (N, 4)."""

    def __init__(self, divisor: int):
        super().__init__()
        self.features = VGGFeatures("vgg19", LAYERS, "random")
        self.features.front = narrow_front("vgg19", divisor)[: len(self.features.front)]
        convolutions = [layer for layer in self.features.front if isinstance(layer, nn.Conv2d)]
        for layer in convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.kind = nn.Linear(convolutions[-1].out_channels, len(DISTORTIONS))

    def forward(self, before: torch.Tensor, after: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = [features.chunk(2) for features in self.features(torch.cat([before, after])).values()]
        squared = torch.stack([(a - b).square().mean((1, 2, 3)) for a, b in pairs])
        return (squared + 1e-6).sqrt(), self.kind((pairs[-1][0] - pairs[-1][1]).mean((-2, -1)))


def batch(photos: Sequence[torch.Tensor], seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch `step`: patches before and after (16, 3, 64, 64), kinds and levels (16,); a pure function of (seed, step)."""
    u = torch.rand(PAIRS, 6, generator=generator(seed, step), dtype=torch.float64).tolist()
    before, after, kinds, levels = [], [], [], []
    for i, (which, kind, level, top, left, flip) in enumerate(u):
        photo = photos[int(which * len(photos))]
        y, x = (int(v * (side - PATCH + 1)) for v, side in zip((top, left), photo.shape[-2:], strict=True))
        patch = photo[:, y : y + PATCH, x : x + PATCH].float() / 255
        before.append(patch.flip(-1) if flip < 0.5 else patch)
        kinds.append(int(kind * len(DISTORTIONS)))
        levels.append(round(5 * level) / 5 if DISTORTIONS[kinds[-1]] == "pixels" else level)  # those come in whole steps
        after.append(images.quantize(distort(before[-1], DISTORTIONS[kinds[-1]], level, seed=step * PAIRS + i)))
    return torch.stack(before), torch.stack(after), torch.tensor(kinds), torch.tensor(levels, dtype=torch.float32)


@torch.no_grad()
def ranks(judge: Judge, photos: Sequence[torch.Tensor], seed: int) -> tuple[dict[str, float], float]:
    """Rank correlation of each layer's distance with the level over 512 patches of `photos`; share of the kinds told rightly."""
    seen = [batch(photos, seed, step) for step in range(32)]
    told = [judge(before, after) for before, after, _, _ in seen]
    distances, levels = torch.cat([d for d, _ in told], dim=1), torch.cat([levels for *_, levels in seen])
    right = torch.cat([logits.argmax(1) == kinds for (_, logits), (_, _, kinds, _) in zip(told, seen, strict=True)])
    found = {layer: round(float(spearmanr(row, levels).statistic), 3) for layer, row in zip(LAYERS, distances, strict=True)}
    return found, right.float().mean().item()


def main(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs of at least 64 pixels a side.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("vgg19_small.safetensors"),
    steps: Annotated[int, typer.Option(help="Training steps of 16 pairs of patches.", min=1)] = 6000,
    divisor: Annotated[int, typer.Option(help="VGG19's channels are divided by this.", min=1, max=64)] = 8,
    held_out: Annotated[int, typer.Option(help="How many photographs, the last by name, are kept to measure on.", min=1)] = 24,
    description: Annotated[str, typer.Option(help="What the photographs are, for the card.")] = "",
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Train a small feature network for perceptual losses on a folder of photographs."""
    source = data.photos(photos)
    if len(source) <= held_out:
        raise ValueError(f"{photos} holds {len(source)} photos, {held_out} are kept to measure on: expected more, or lower --held-out")
    bank = [images.to_uint8(source[i]) for i in tqdm(range(len(source)), desc="reading photos", disable=None)]
    small = next((name for name, photo in zip(source.names, bank, strict=True) if min(photo.shape[-2:]) < PATCH), None)
    if small is not None:
        raise ValueError(f"photo {small} is too small: expected at least {PATCH} pixels a side")
    learning, kept = bank[:-held_out], bank[-held_out:]
    torch.manual_seed(seed)
    judge = Judge(divisor).to(memory_format=torch.channels_last)
    untrained, _ = ranks(judge, kept, seed + 1)
    optimizer = torch.optim.Adam(judge.parameters(), lr=RATE)
    start = time.monotonic()
    with tqdm(range(steps), desc="learning", disable=None) as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
            before, after, kinds, levels = batch(learning, seed, step)
            distances, logits = judge(before, after)
            loss = F.mse_loss(distances, levels.expand_as(distances)) + 0.02 * F.cross_entropy(logits, kinds)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
            optimizer.step()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
    minutes = (time.monotonic() - start) / 60

    learned, right = ranks(judge, kept, seed + 1)
    card = {
        "data": f"{description or photos.name}, {len(learning)} photos; measured on {held_out} others",
        "task": f"the root of the mean squared difference of features before and after {', '.join(DISTORTIONS)} "
        f"(srcourse.data.distort) shall be the level, at {', '.join(LAYERS)}; patches of {PATCH}×{PATCH} pixels",
        "steps": steps,
        "minutes": round(minutes, 1),
        "hardware": f"{platform.machine()} CPU, float32, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
        "date": datetime.date.today().isoformat(),
        "rank_correlation": learned,
        "rank_correlation_untrained": untrained,
        "kinds_told_rightly": round(right, 3),
    }
    save_features(judge.features.front, out, card)
    print(
        f"{out}: distances ranked with " + ", ".join(f"{layer} {learned[layer]:.3f} (untrained {untrained[layer]:.3f})" for layer in LAYERS)
    )


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        raise SystemExit(f"fit_features: {' '.join(str(error).split())}") from None
