"""Recipes: an experiment as a YAML file whose every key and value is checked before anything runs."""

import math
import reprlib
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from srcourse import degradation, models
from srcourse.losses.perceptual import find_weights, layer_names
from srcourse.models.eusr import EUSR
from srcourse.models.recursive import RecursiveCascade
from srcourse.models.registry import BUILDERS, DISCRIMINATORS, GENERATORS, PREDICTORS, options_of

_MOST_PATCHES = 1_000_000  # in a batch: what more would be drawn for fits in no memory


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelPart(BaseModel):
    """The network: its name in `models.create`, and any of its options but the scale."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    name: str

    @model_validator(mode="after")
    def _sizes_that_can_be_built(self):
        for key, value in (self.model_extra or {}).items():
            if isinstance(value, int) and abs(value) > 10_000:
                given = reprlib.repr(value)
                raise ValueError(f"cannot build {self.name}: {key} is {given}: expected a size that a network can have, at most 10,000")
        return self

    @property
    def options(self) -> dict[str, Any]:
        """The network's options, as `models.create` takes them."""
        return dict(self.model_extra or {})


class DiscriminatorPart(ModelPart):
    """The discriminator: its name, any of its options but the input's size, and a learning rate of its own."""

    learning_rate: float | None = Field(None, gt=0)  # None: the generator's


class LossWeightsPart(_Part):
    """The λ of each term of the generator's loss (P001 equation 5, P000 equation 2); for images in [0, 1]."""

    pixel: float = Field(1.0, ge=0)
    perceptual: float = Field(0.0, ge=0)
    adversarial: float = Field(0.0, ge=0)
    aesthetic_score: float = Field(0.0, ge=0)  # these four are method multi-pass's (P002 equation 8)
    aesthetic_features: float = Field(0.0, ge=0)
    subjective_score: float = Field(0.0, ge=0)
    subjective_features: float = Field(0.0, ge=0)


class PerceptualPart(_Part):
    """The features of the perceptual loss, as in `losses.PerceptualLoss`."""

    network: Literal["vgg16", "vgg19"] = "vgg19"
    layer: str = "relu5_4"
    weights: str = "imagenet"  # "course", "random", or a file


class ScoresPart(_Part):
    """The two phases of a score predictor's training (P002 §4.2): its head alone first, `head_steps` of all the steps."""

    head_steps: int = Field(0, ge=0)
    head_batch: int = Field(128, ge=1, le=_MOST_PATCHES)
    head_learning_rate: float = Field(1e-3, gt=0)
    root: bool = False  # the form of the earth mover's distance, as in losses.squared_emd
    backbone: str = "imagenet"  # "random", or a file
    ratings: int = Field(2000, ge=2)  # how many pseudo-opinions there are, without a data set


class RecursivePart(_Part):
    """The two phases of a network that enlarges its own images (P004 §4.4)."""

    first_steps: int = Field(0, ge=0)  # of all the steps, those on photographs alone
    replay: float = Field(0.0, ge=0, le=1)  # share of the second phase's steps that are the first's, against forgetting
    passes: int = Field(2, ge=2, le=3)  # how often an image is enlarged


class FourPassPart(_Part):
    """How 4PP-EUSR is fine-tuned (P002 §4.3)."""

    multi_pass: bool = True  # all three roads to ×4; false: the ×4 path alone (P002 §5.3)
    decimate: bool = False  # as EUSR.multipass
    aesthetic: str = "nima_small"  # the judges: a name, a file or a run's folder
    subjective: str = "nima_small"
    alpha: float = Field(0.8, ge=0)  # as losses.score_loss
    reduction: Literal["mean", "sum"] = "mean"  # as losses.representation_loss


class DataPart(_Part):
    """Which patches the network sees; sizes in HR pixels."""

    degradation: str = "bicubic"
    sigma: float = Field(1.0, gt=0)  # these three as in degradation.create
    noise: float = Field(10.0, ge=0)
    quality: int = Field(60, ge=1, le=95)
    patch: int = Field(96, ge=8)
    batch: int = Field(16, ge=1, le=_MOST_PATCHES)
    crops_per_image: int = Field(1, ge=1)
    flip: float = Field(0.5, ge=0, le=1)
    turn: float = Field(0.5, ge=0, le=1)
    half_turn: float = Field(0.0, ge=0, le=1)
    hold_out: float = Field(0.05, ge=0, lt=1)  # share of the photos, the last by name, kept for validation
    storage: Literal["auto", "memory", "disk"] = "auto"


class OptimizerPart(_Part):
    """Adam, which all five papers use."""

    learning_rate: float = Field(1e-4, gt=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    clip: float | None = Field(None, gt=0)  # largest norm of the gradient
    accumulate: int = Field(1, ge=1)  # pieces of a batch that gradients are summed over, one after the other: so much less memory


class SchedulePart(_Part):
    """The learning rate as a function of the step: times `factor` every `every` steps, or half a cosine to zero."""

    kind: Literal["constant", "step", "cosine"] = "constant"
    every: int = Field(200_000, ge=1)
    factor: float = Field(0.5, gt=0, le=1)
    warmup: int = Field(0, ge=0)  # steps of linear growth at the start


class Recipe(_Part):
    """Everything that a training run depends on. `load_recipe` makes one from a file and overrides."""

    name: str = Field("custom", pattern=r"^\w[\w.-]*$")  # also the run's folder
    title: str = ""
    method: Literal["pixelwise", "adversarial", "recursive", "scores", "multi-scale", "multi-pass"] = "pixelwise"
    scale: int = Field(4, ge=2, le=8)  # of one pass of the network
    model: ModelPart
    loss: Literal["l1", "mse"] = "l1"
    stages: bool = False  # a cascade's every stage gets the pixel loss, not its last image alone
    discriminator: DiscriminatorPart | None = None  # these four are for the methods with a game
    adversarial: Literal["bce", "patch-mean", "least-squares", "relativistic"] = "bce"
    loss_weights: LossWeightsPart = LossWeightsPart()
    perceptual: PerceptualPart = PerceptualPart()
    recursive: RecursivePart = RecursivePart()
    four_pass: FourPassPart = FourPassPart()
    scores: ScoresPart = ScoresPart()
    # weights to begin from, "{scale}" standing for the scale: a name, a file or a run's folder; every tensor that fits is taken
    start: str | None = None
    data: DataPart = DataPart()
    optimizer: OptimizerPart = OptimizerPart()
    schedule: SchedulePart = SchedulePart()
    ema: float | None = Field(None, gt=0, lt=1)  # decay of the averaged generator, e.g. 0.999
    steps: int = Field(10_000, ge=1)
    minutes: float | None = Field(None, gt=0)  # stop after so long, with a checkpoint to go on from
    seed: int = Field(0, gt=-(2**63), lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "float32", "bf16"] = "auto"
    compile: bool = False
    log_every: int = Field(50, ge=1)
    validate_every: int = Field(1000, ge=1)
    checkpoint_every: int = Field(1000, ge=1)
    patience: int | None = Field(None, ge=1)  # validations without a new best before stopping
    keep: Literal["best", "last"] = "best"  # which generator is the result: PSNR does not see what a GAN is for

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        whole = self.enlargement
        if whole > 8:
            raise ValueError(f"{self.passes} passes at scale {self.scale} enlarge {whole} times: expected at most 8")
        if self.data.patch % whole:
            of = f", that of {self.passes} passes" * (self.passes > 1)
            raise ValueError(f"data.patch is {self.data.patch}: expected a multiple of the scale {whole}{of}")
        least = 4 * self.scale ** (self.passes - 1)  # of a first image of 4 pixels nothing would count
        if self.method == "recursive" and self.data.patch <= least:
            raise ValueError(f"data.patch is {self.data.patch}: expected more than {least} for {self.passes} passes")
        if self.method == "scores" and self.data.patch < 32:
            raise ValueError(f"data.patch is {self.data.patch}: a score predictor needs at least 32")
        if self.data.batch % self.data.crops_per_image:
            raise ValueError(f"data.batch is {self.data.batch}: expected a multiple of data.crops_per_image {self.data.crops_per_image}")
        if "scale" in self.model.options:
            raise ValueError("the scale stands at the top of a recipe, not in its model")
        expected = PREDICTORS if self.method == "scores" else GENERATORS
        if self.model.name in BUILDERS and self.model.name not in expected:
            raise ValueError(f"model.name is {self.model.name!r}: method {self.method} expects one of {', '.join(expected)}")
        if self.method == "scores":
            with torch.device("meta"):
                models.create(self.model.name, **self.model.options)
            self._check_parts()
            return self
        with torch.device("meta"):  # a wrong network option is told now, not after the photos are read
            generator = models.create(self.model.name, scale=self.scale, **self.model.options)
            if self.discriminator is not None:
                self._check_discriminator()
        if self.stages and self.method == "recursive":
            raise ValueError("stages are a cascade's, within one pass: method: recursive has none")
        if self.stages and not isinstance(generator, RecursiveCascade):
            raise ValueError(f"stages is true, but {self.model.name} has none: expected recursive_cascade")
        if self.method in ("multi-scale", "multi-pass"):
            self._check_paths(generator)
        self._check_losses()
        self._check_parts()
        self.degradation()
        return self

    def _check_discriminator(self) -> None:
        options = self.discriminator_options()
        try:
            models.create(self.discriminator.name, **options)
        except ValueError as error:
            cause = f" (input_size is data.patch, {self.data.patch})" * ("input_size=" in str(error))
            raise ValueError(f"discriminator: {error}{cause}") from None

    def _check_paths(self, generator: nn.Module) -> None:
        if not isinstance(generator, EUSR):
            raise ValueError(f"method: {self.method} trains several paths, {self.model.name} has one: expected eusr")
        if self.method == "multi-pass" and (self.scale != 4 or (self.four_pass.multi_pass and generator.scales != (2, 4, 8))):
            raise ValueError("method: multi-pass needs scale: 4, and an eusr with scales: [2, 4, 8]")
        if self.four_pass.decimate and not self.four_pass.multi_pass:
            raise ValueError("four_pass.decimate is about the road over ×8, which four_pass.multi_pass: false leaves out: set one of both")

    def _check_losses(self) -> None:
        weights = self.loss_weights
        opinions = [name for name in LossWeightsPart.model_fields if name.endswith(("_score", "_features")) and getattr(weights, name)]
        if opinions and self.method != "multi-pass":
            raise ValueError(f"loss_weights.{opinions[0]} belongs to method: multi-pass, this recipe's is {self.method}")
        if self.method in ("pixelwise", "multi-scale") and (weights != LossWeightsPart() or self.discriminator is not None):
            raise ValueError(f"loss_weights and discriminator belong to method: adversarial, this recipe's is {self.method}")
        game = self.method in _GAMES
        if game and not any(weights.model_dump().values()):
            raise ValueError("all loss_weights are 0: expected at least one above")
        if game and self.discriminator is None:
            raise ValueError(f"method: {self.method} needs a discriminator: set discriminator.name=patch_discriminator, for instance")
        if weights.perceptual and self.perceptual.weights == "course":
            find_weights(self.perceptual.network, "course")
        layers = layer_names(self.perceptual.network)
        if self.perceptual.layer not in layers:
            raise ValueError(f"perceptual.layer is {self.perceptual.layer!r}: expected one of {', '.join(layers)}")

    def _check_parts(self) -> None:
        """A field that only other methods read would do nothing: better told than passed over."""
        for field, methods in _READ_BY.items():
            if self.method not in methods and getattr(self, field) != type(self).model_fields[field].default:
                raise ValueError(f"{field} belongs to method: {' or '.join(methods)}, this recipe's is {self.method}")

    def discriminator_options(self) -> dict[str, Any]:
        """The discriminator's options, as `models.create` takes them: its input is as large as the patches."""
        part = self.discriminator
        if part is None:
            return {}
        if part.name not in DISCRIMINATORS:
            raise ValueError(f"discriminator.name is {part.name!r}: expected one of {', '.join(DISCRIMINATORS)}")
        if "input_size" in part.options:
            raise ValueError("discriminator.input_size is data.patch: set that one")
        return {**part.options, **({"input_size": self.data.patch} if "input_size" in options_of(part.name) else {})}

    @property
    def passes(self) -> int:
        """How often the network is applied to its own image."""
        return self.recursive.passes if self.method == "recursive" else 1

    @property
    def enlargement(self) -> int:
        """HR sides over LR sides: the scale of all passes."""
        return self.scale**self.passes

    @property
    def label(self) -> str:
        """The recipe's name, with the scale where it has one."""
        return self.name if self.method == "scores" else f"{self.name} ×{self.scale}" + f" {self.passes} times" * (self.passes > 1)

    def start_weights(self) -> str | None:
        """What `start` names, for this scale."""
        return self.start.replace("{scale}", str(self.scale)) if self.start else None

    def further_scales(self) -> list[int]:
        """The scales beside `scale` that a step may train."""
        if self.method != "multi-scale":
            return []
        return [scale for scale in self.model.options.get("scales", (2, 4, 8)) if scale != self.scale]

    def degradation(self, scale: int | None = None) -> degradation.Degradation:
        """From HR to LR, as small as all passes need it, or at another scale, with the recipe's seed."""
        data = self.data
        scale = self.enlargement if scale is None else scale
        return degradation.create(data.degradation, scale, self.seed, sigma=data.sigma, noise=data.noise, quality=data.quality)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step: a function of the step alone, so that nothing of it needs saving."""
        rate, plan = self.optimizer.learning_rate, self.schedule
        if step < plan.warmup:
            return rate * (step + 1) / plan.warmup
        if plan.kind == "step":
            return rate * plan.factor ** (step // plan.every)
        if plan.kind == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * (step - plan.warmup) / max(self.steps - plan.warmup, 1)))
        return rate


_GAMES = ("adversarial", "recursive", "multi-pass")
_READ_BY = {
    "discriminator": _GAMES,
    "loss_weights": _GAMES,
    "adversarial": _GAMES,
    "perceptual": _GAMES,
    "stages": ("pixelwise", "adversarial"),
    "recursive": ("recursive",),
    "four_pass": ("multi-pass",),
    "scores": ("scores",),
}
