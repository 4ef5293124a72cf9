"""Train a small feature network for perceptual losses on a folder of photographs: no labels from outside, no download.

    python data_scripts/fit_features.py PHOTOS --out vgg19_small.safetensors

A VGG19 with an eighth of the channels learns to tell which distortion a patch has, and how strong it is: it has to see edges, noise,
blocks and ringing to know. The last photographs are kept to measure on. Take the file with
``PerceptualLoss(weights="vgg19_small.safetensors")``.
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
from torchvision.transforms.functional import normalize
from tqdm.auto import tqdm

from srcourse import data, images
from srcourse.data.ratings import DISTORTIONS, distort
from srcourse.losses.perceptual import IMAGENET_MEAN, IMAGENET_STD, narrow_front, save_features
from srcourse.seeds import generator

PATCH, BATCH, RATE = 48, 32, 1e-3


class Judge(nn.Module):
    """Patches (N, 3, 48, 48) → logits of the distortions (N, 4), and the level (N,)."""

    def __init__(self, divisor: int):
        super().__init__()
        self.front = narrow_front("vgg19", divisor)
        width = [layer for layer in self.front if isinstance(layer, nn.Conv2d)][-1].out_channels
        self.head = nn.Linear(width, len(DISTORTIONS) + 1)
        for layer in self.front:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = self.head(self.front(patches).mean((-2, -1)))
        return seen[:, :-1], seen[:, -1]


def batch(photos: Sequence[torch.Tensor], seed: int, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Batch `step`: patches (32, 3, 48, 48) as a VGG takes them, kinds and levels (32,); a pure function of (seed, step)."""
    u = torch.rand(BATCH, 6, generator=generator(seed, step), dtype=torch.float64).tolist()
    patches, kinds, levels = [], [], []
    for i, (which, kind, level, top, left, flip) in enumerate(u):
        photo = photos[int(which * len(photos))]
        y, x = (int(v * (side - PATCH + 1)) for v, side in zip((top, left), photo.shape[-2:], strict=True))
        patch = photo[:, y : y + PATCH, x : x + PATCH].float() / 255
        patch = patch.flip(-1) if flip < 0.5 else patch
        kinds.append(int(kind * len(DISTORTIONS)))
        levels.append(level)
        patches.append(images.quantize(distort(patch, DISTORTIONS[kinds[-1]], level, seed=step * BATCH + i)))
    return normalize(torch.stack(patches), IMAGENET_MEAN, IMAGENET_STD), torch.tensor(kinds), torch.tensor(levels, dtype=torch.float32)


def main(
    photos: Annotated[Path, typer.Argument(help="Folder of photographs of at least 48 pixels a side.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("vgg19_small.safetensors"),
    steps: Annotated[int, typer.Option(help="Training steps of 32 patches.", min=1)] = 6000,
    divisor: Annotated[int, typer.Option(help="VGG19's channels are divided by this.", min=1, max=64)] = 8,
    held_out: Annotated[int, typer.Option(help="How many photographs, the last by name, are kept to measure on.", min=1)] = 24,
    description: Annotated[str, typer.Option(help="What the photographs are, for the card.")] = "",
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
) -> None:
    """Train a small feature network for perceptual losses on a folder of photographs."""
    source = data.photos(photos)
    if len(source) <= held_out:
        raise ValueError(f"{photos} holds {len(source)} photos, {held_out} are kept to measure on: expected more, or lower --held-out")
    bank = [images.to_uint8(source[i]) for i in tqdm(range(len(source)), desc="reading photos")]
    small = next((name for name, photo in zip(source.names, bank, strict=True) if min(photo.shape[-2:]) < PATCH), None)
    if small is not None:
        raise ValueError(f"photo {small} is too small: expected at least {PATCH} pixels a side")
    learning, kept = bank[:-held_out], bank[-held_out:]
    torch.manual_seed(seed)
    judge = Judge(divisor).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(judge.parameters(), lr=RATE)
    start = time.monotonic()
    with tqdm(range(steps), desc="learning") as bar:
        for step in bar:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / steps))
            patches, kinds, levels = batch(learning, seed, step)
            logits, told = judge(patches)
            loss = F.cross_entropy(logits, kinds) + 4 * F.mse_loss(told, levels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(judge.parameters(), 1.0)
            optimizer.step()
            if step % 50 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
    minutes = (time.monotonic() - start) / 60

    judge.eval()
    seen = [batch(kept, seed + 1, step) for step in range(32)]
    with torch.no_grad():
        told = [judge(patches) for patches, _, _ in seen]
    right = torch.cat([logits.argmax(1) == kinds for (logits, _), (_, kinds, _) in zip(told, seen, strict=True)])
    ranks = spearmanr(torch.cat([level for _, level in told]), torch.cat([levels for _, _, levels in seen])).statistic
    card = {
        "data": f"{description or photos.name}, {len(learning)} photos; measured on {held_out} others",
        "task": f"which of {', '.join(DISTORTIONS)} a patch of {PATCH}×{PATCH} pixels has, and its level (srcourse.data.ratings.distort)",
        "steps": steps,
        "minutes": round(minutes, 1),
        "hardware": f"{platform.machine()} CPU, float32, {torch.get_num_threads()} thread{'s' * (torch.get_num_threads() > 1)}",
        "date": datetime.date.today().isoformat(),
        "kinds_told_rightly": round(right.float().mean().item(), 3),
        "level_rank_correlation": round(float(ranks), 3),
    }
    save_features(judge.front, out, card)
    print(f"{out}: {card['kinds_told_rightly']:.1%} of the kinds told rightly, levels ranked with {card['level_rank_correlation']:.3f}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except (ValueError, OSError) as error:
        raise SystemExit(f"fit_features: {' '.join(str(error).split())}") from None
