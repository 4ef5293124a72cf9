"""Training a score predictor on rated images, in two phases (P002 §4.2; NIMA, Talebi and Milanfar 2018).

First the new head alone, on features that stay as they are; then everything, slowly. The loss is the squared earth
mover's distance of the predicted and the given distribution of scores (P002 equation 1).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from srcourse.data import Ratings
from srcourse.losses import squared_emd
from srcourse.models import mean_score
from srcourse.models.weights import fill_features, pretrained
from srcourse.seeds import generator as random_generator
from srcourse.training.engine import Engine

_READERS = 8  # threads that decode images: PIL works outside Python's lock


class RatedCrops:
    """Random crops of rated images; batch t is a pure function of (seed, t), decoded while batch t - 1 is learned from."""

    def __init__(self, ratings: Ratings, *, crop: int, flip: float, seed: int, device: torch.device):
        if not len(ratings):
            raise ValueError("there are no rated images to learn from: expected at least one")
        self.ratings, self.crop, self.flip, self.seed, self.device = ratings, crop, flip, seed, device
        self._pool = ThreadPoolExecutor(_READERS)
        self._ahead: tuple[tuple, list] | None = None  # what was asked for, and the crops that are on their way
        digest = sha256("\n".join(ratings.names).encode())
        digest.update(ratings.distributions.numpy().tobytes())
        self.fingerprint = digest.hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.ratings)

    nbytes = 0  # nothing is kept in memory
    photos: list[list[str]] = []  # nor looked at before it is used

    def batch(
        self, step: int, size: int, *, rank: int = 0, world: int = 1, following: tuple[int, int] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Slice `rank` of batch `step`: images (size/world, 3, crop, crop) and distributions (size/world, 10).

        `following` is the (step, rank) that will be asked for next, the same slice of the next step unless given.
        """
        wanted = (step, size, rank, world)
        pending = self._ahead[1] if self._ahead is not None and self._ahead[0] == wanted else self._start(*wanted)
        crops, labels = zip(*(future.result() for future in pending), strict=True)
        next_step, next_rank = following or (step + 1, rank)
        ahead = (next_step, size, next_rank, world)
        self._ahead = (ahead, self._start(*ahead))
        return torch.stack(crops).to(self.device), torch.stack(labels).to(self.device)

    def _start(self, step: int, size: int, rank: int, world: int) -> list:
        u = torch.rand(4, size, generator=random_generator(self.seed, step), dtype=torch.float64)
        share = size // world
        return [self._pool.submit(self._read, u[:, i].tolist()) for i in range(rank * share, (rank + 1) * share)]

    def _read(self, u: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
        rating = self.ratings[int(u[0] * len(self.ratings))]
        image = _at_least(rating.image, self.crop, rating.name)
        top, left = (int(v * (side - self.crop + 1)) for v, side in zip(u[1:3], image.shape[-2:], strict=True))
        image = image[:, top : top + self.crop, left : left + self.crop]
        return image.flip(-1) if u[3] < self.flip else image, rating.distribution


class ScoreEngine(Engine):
    """The engine with rated images in place of photographs, and rank correlation in place of PSNR."""

    result, quality = "predictor", "srocc"

    def _load(self, photos: Sequence, validation: Sequence) -> None:
        if not isinstance(photos, Ratings) or (len(validation) and not isinstance(validation, Ratings)):
            raise ValueError("a score predictor learns from rated images: expected data.ava, data.tid2013 or data.synthetic_ratings")
        recipe = self.recipe
        self._check_slices("scores.head_batch", recipe.scores.head_batch)
        self.validation = validation
        crop, flip = recipe.data.patch, recipe.data.flip
        self.bank = RatedCrops(photos, crop=crop, flip=flip, seed=recipe.seed, device=self.device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """This process's share of batch `step`: images and distributions; the head's phase has its own batch size."""
        size = self.recipe.scores.head_batch if step < self.recipe.scores.head_steps else self.recipe.data.batch
        rank, world = self.slice
        last = self._piece == self.pieces - 1
        following = (step + 1, rank - self._piece) if last else (step, rank + 1)
        with self._reading():
            return self.bank.batch(step, size, rank=rank, world=world, following=following)

    @torch.no_grad()
    def _validate(self) -> float:
        """Spearman's rank correlation of predicted and given mean scores, on the centres of the validation images."""
        network = self.averaged.module if self.averaged is not None else self.networks[self.result]
        network.eval()
        count = len(self.validation)
        predicted = torch.zeros(count, device=self.device)
        for i in range(self.rank, count, self.world):
            with self._reading():
                rating = self.validation[i]
                image = _centre(_at_least(rating.image, self.recipe.data.patch, rating.name), self.recipe.data.patch)
            predicted[i] = mean_score(network(image[None].to(self.device)))[0]
        if self.world > 1:
            predicted = self.accelerator.reduce(predicted, "sum")
        network.train()
        return spearman(predicted.cpu(), mean_score(self.validation.distributions))


def train_scores(engine: ScoreEngine) -> None:
    """Train the recipe's score predictor: `scores.head_steps` steps of its head, then all of it."""
    recipe, part = engine.recipe, engine.recipe.scores
    # the phases train different parts, which the wrapper for several processes would not understand
    predictor = engine.network("predictor", recipe.model.name, **recipe.model.options, wrap=False)
    if part.backbone != "random":
        load_backbone(predictor, part.backbone)
    head_optimizer = engine.optimizer("head", predictor.head, learning_rate=part.head_learning_rate)
    optimizer = engine.optimizer("predictor", predictor)

    for step in engine.steps():
        head_only = step < part.head_steps
        predictor.train()
        predictor.features.requires_grad_(not head_only)
        if head_only:
            predictor.features.eval()  # BN's statistics stay as they are, too
        photos, opinions = engine.batch(step)  # (n, 3, crop, crop) and (n, 10)
        with engine.autocast(), engine.dice(step):
            predicted = predictor(photos)  # (n, 10)
        loss = squared_emd(predicted, opinions, root=part.root)
        engine.log(loss=loss)
        engine.update(head_optimizer if head_only else optimizer, loss)


def load_backbone(predictor: nn.Module, weights: str) -> None:
    """Put MobileNetV2's features into a predictor: "imagenet", torchvision's, or a file with its names."""
    fill_features(predictor.features, find_backbone(weights), "MobileNetV2 of this width")


def find_backbone(weights: str) -> Path:
    """The file of MobileNetV2's weights, downloaded where it must be; ``FileNotFoundError`` says what to do without a network."""
    if weights == "imagenet":
        import torchvision  # here, as it takes seconds to load, and few need it

        address = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url
        return pretrained(address, "the ImageNet weights of mobilenet_v2", "take --set scores.backbone=random")
    if not Path(weights).is_file():
        raise FileNotFoundError(f"there are no backbone weights {weights!r}: expected 'imagenet', 'random' or a file")
    return Path(weights)


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Spearman's rank correlation of two (n,) tensors, ties sharing their mean rank; NaN-free: 0 where one is constant."""
    ranks = []
    for x in (a.double(), b.double()):
        below, equal = (x[None] < x[:, None]).sum(1), (x[None] == x[:, None]).sum(1)
        ranks.append(below + (equal - 1) / 2)
    first, second = (r - r.mean() for r in ranks)
    spread = (first.square().sum() * second.square().sum()).sqrt()
    return (first @ second / spread).item() if spread > 0 else 0.0


def _at_least(image: torch.Tensor, side: int, name: str) -> torch.Tensor:
    """The image, mirrored beyond its edges where it is smaller than a crop: enlarging it would change what it looks like."""
    height, width = image.shape[-2:]
    missing = max(side - height, 0), max(side - width, 0)
    if missing[0] >= height or missing[1] >= width:
        raise ValueError(f"{name} is {height}×{width} pixels, less than half a crop of {side}: leave it out or lower data.patch")
    return F.pad(image[None], (0, missing[1], 0, missing[0]), mode="reflect")[0] if any(missing) else image


def _centre(image: torch.Tensor, side: int) -> torch.Tensor:
    top, left = ((length - side) // 2 for length in image.shape[-2:])
    return image[:, top : top + side, left : left + side]
