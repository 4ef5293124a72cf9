"""Checks of lesson 04: the regression to the mean, both losses of the game, SRGAN's discriminator, one step of each player."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse import losses
from srcourse.exercises.checking import Exercise, Mistake, Wrong, call, close, one_of, require, same_function, show

# --- predictions ------------------------------------------------------------------------------------------------

_MEAN_OR_SAMPLE = {
    "a": "A sharp image is paid for each edge that is not where the true one is, and its edges are elsewhere.",
    "b": "They differ: write down the squared distance of each from the truth, as two independent draws around the same mean.",
    "d": "A wrong sharp image is not that bad: its squared error is a small multiple of the mean's. Which?",
}

_ACCURACY = {
    "a": "Take the mean over `late(rows)` of both accuracies, for each of the three games.",
    "b": "Only a generator that ignores its judge leaves it that easy a task: did you pass the new weight: `my_game(recipe(0.02))`?",
}

# --- 04.2 and 04.3: the losses --------------------------------------------------------------------------------


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor) -> torch.Tensor:
    """What the discriminator minimises."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: torch.Tensor) -> torch.Tensor:
    """What the generator minimises."""
    return F.softplus(-fake_logits).mean()


_OVERFLOW = "σ of a large logit is exactly 1 (or 0) in float32, and the logarithm of zero follows: stay with logits."
_CLAMPED = "A floor under the logarithm hides the infinity, and the gradient with it: -log σ(x) = softplus(-x) needs none."

_DISCRIMINATOR_LOSSES = (
    Mistake(lambda r, f: -torch.sigmoid(r).log().mean() - (1 - torch.sigmoid(f)).log().mean(), _OVERFLOW),
    Mistake(
        lambda r, f: (
            F.binary_cross_entropy(torch.sigmoid(r), torch.ones_like(r)) + F.binary_cross_entropy(torch.sigmoid(f), torch.zeros_like(f))
        ),
        _CLAMPED,
    ),
    Mistake(lambda r, f: discriminator_loss(f, r), "Real and generated are swapped: a photograph's logit should become large."),
    Mistake(lambda r, f: -discriminator_loss(r, f), "A loss is made small: the sign is the other way round."),
    Mistake(lambda r, f: F.softplus(-r).mean(), "Half of it: the generated images count too."),
    Mistake(lambda r, f: F.softplus(f).mean(), "Half of it: the photographs count too."),
    Mistake(lambda r, f: discriminator_loss(r, f) / 2, "The two halves are added, not averaged."),
    Mistake(lambda r, f: F.softplus(-r).sum() + F.softplus(f).sum(), "The mean over the logits, not their sum."),
)
_GENERATOR_LOSSES = (
    Mistake(lambda f: -torch.sigmoid(f).log().mean(), _OVERFLOW),
    Mistake(lambda f: F.binary_cross_entropy(torch.sigmoid(f), torch.ones_like(f)), _CLAMPED),
    Mistake(lambda f: -F.softplus(f).mean(), "That is log(1 - D), the form whose gradient vanishes while the generator is losing."),
    Mistake(lambda f: F.softplus(f).mean(), "That is the discriminator's half: the generator wants its logits large."),
    Mistake(lambda f: -F.softplus(-f).mean(), "A loss is made small: the sign is the other way round."),
    Mistake(lambda f: F.softplus(-f).sum(), "The mean over the logits, not their sum."),
)


def _logits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(4)
    pairs = [(torch.tensor([[2.0]]), torch.tensor([[-1.0]]))]
    for shape in ((4, 1), (2, 1, 3, 3)):
        pairs.append((3 * torch.randn(shape, generator=random), 3 * torch.randn(shape, generator=random)))
    pairs += [(torch.tensor([[x]]), torch.tensor([[x]])) for x in (30.0, -30.0)]
    return [*pairs, (torch.tensor([[1e4], [-1e4]]), torch.tensor([[1e4], [-1e4]]))]


def _own(theirs: Callable, check: Callable[[Any], None]) -> Callable[[Any], None]:
    """The same check for whoever wrote something."""

    def check_own(answer: Any) -> None:
        require(answer is not theirs, "that is the package's function", "Write it yourself: one line is enough.")
        check(answer)

    return check_own


# --- 04.4: the size of SRGAN's discriminator ------------------------------------------------------------------


def discriminator_size(side: int) -> int:
    """Parameters of SRGAN's discriminator for images of side × side pixels."""
    return _size(math.ceil(side / 16))


def _size(rest: int, bias: bool = True, last: bool = True, convolutions: bool = True, square: bool = True) -> int:
    inputs = 512 * (rest**2 if square else rest)
    return 4_689_088 * convolutions + (inputs + bias) * 1024 + 1025 * last


def _rest(side: int) -> int:
    return math.ceil(side / 16)


_SIZES = (
    Mistake(lambda side: _size(side // 16), "A stride of 2 with padding rounds an odd side up: 45 becomes 23."),
    Mistake(lambda side: _size(_rest(side), bias=False), "Each of the 1024 outputs has a bias."),
    Mistake(lambda side: _size(_rest(side), last=False), "The last layer, from 1024 values to one logit, has parameters too."),
    Mistake(lambda side: _size(_rest(side), convolutions=False), "The convolutions have parameters too: their number stands above."),
    Mistake(lambda side: _size(_rest(side), square=False), "The flattened features are rows × columns × 512."),
    Mistake(lambda side: _size(side), "The four convolutions of stride 2 halve the side four times."),
)

# --- 04.5: one step of each player ----------------------------------------------------------------------------


def _step(
    detach: bool = True, clear: str = "both", first: str = "D", weighted: bool = True, pixel: bool = True
) -> Callable[..., tuple[float, float]]:
    """One step of the game, right or with a fault."""

    def step(generator, discriminator, g_optimizer, d_optimizer, lr, hr, weight):
        fake = generator(lr)

        def train_discriminator(judged: torch.Tensor) -> float:
            loss = discriminator_loss(discriminator(hr), discriminator(judged))
            if clear in ("both", "D"):
                d_optimizer.zero_grad()
            loss.backward(retain_graph=True)
            d_optimizer.step()
            return loss.item()

        def train_generator() -> float:
            loss = pixel * F.l1_loss(fake, hr) + (weight if weighted else 1) * generator_loss(discriminator(fake))
            if clear in ("both", "G"):
                g_optimizer.zero_grad()
            loss.backward()
            g_optimizer.step()
            return loss.item()

        if first == "G":
            g_loss = train_generator()
            return train_discriminator(fake.detach()), g_loss
        return train_discriminator(fake.detach() if detach else fake), train_generator()

    return step


def _set(module: nn.Module, values: list[torch.Tensor]) -> None:
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.data = value.clone()


_STEPS = (
    Mistake(
        _step(detach=False, clear="D"),
        "The discriminator's loss reaches the generator, which then learns to be found out: detach the images that D is "
        "trained on, and clear the generator's gradients before its own backward.",
    ),
    Mistake(
        _step(clear="none", detach=False),
        "No gradient is ever cleared, and the discriminator's loss reaches the generator: zero_grad before each backward, and detach.",
    ),
    Mistake(_step(clear="G"), "The discriminator keeps the gradient of the generator's loss, which asks it to be fooled: clear it."),
    Mistake(_step(clear="D"), "The generator's gradients pile up from step to step: clear them before its backward."),
    Mistake(_step(clear="none"), "Gradients pile up from step to step: each optimizer needs its zero_grad before its backward."),
    Mistake(_step(first="G"), "The discriminator moves first; the generator plays against it as it is after that step."),
    Mistake(_step(weighted=False), "The adversarial term is multiplied by the weight."),
    Mistake(_step(pixel=False), "The pixel loss is missing in the generator's loss."),
)


def _play(step: Callable, seed: int) -> tuple[list[float], torch.Tensor]:
    """Three steps of a tiny game: both losses of each, and all weights at the end."""
    random = torch.Generator().manual_seed(seed)
    generator = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2))
    discriminator = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))
    for module in (generator, discriminator):
        _set(module, [torch.randn(p.shape, generator=random) * 0.3 for p in module.parameters()])
    optimizers = [torch.optim.SGD(module.parameters(), lr=0.1) for module in (generator, discriminator)]
    seen: list[float] = []
    for _ in range(3):
        lr, hr = torch.rand(2, 3, 4, 4, generator=random), torch.rand(2, 3, 8, 8, generator=random)
        pair = call(step, generator, discriminator, *optimizers, lr, hr, 0.5)
        fits = isinstance(pair, tuple | list) and len(pair) == 2 and all(close(value, value) for value in pair)
        require(fits, f"expected the two losses (discriminator's, generator's), got {show(pair)}", "Return two numbers: use .item().")
        seen += [float(value) for value in pair]
    weights = torch.cat([p.detach().flatten() for module in (generator, discriminator) for p in module.parameters()])
    return seen, weights


def _check_step(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    for seed in (0, 1):
        expected, weights = _play(_step(), seed)
        got, ends = _play(answer, seed)
        if close(got, expected, 1e-4) and close(ends, weights, 1e-4):
            continue
        hint = next((m.hint for m in _STEPS if close((got, ends), _play(m.answer, seed), 1e-4)), "")
        i = next((i for i in range(len(expected)) if not close(got[i], expected[i], 1e-4)), None)
        if i is None:
            raise Wrong("the losses are right, but the weights after three steps are not", hint)
        who = ("discriminator", "generator")[i % 2]
        raise Wrong(f"in step {i // 2 + 1} of a small game the {who}'s loss is {got[i]:.5f}, expected {expected[i]:.5f}", hint)


EXERCISES = [
    Exercise(
        id="04.1",
        title="The blurred mean beats every plausible image, by 3 dB.",
        check=one_of("c", _MEAN_OR_SAMPLE),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _MEAN_OR_SAMPLE.items()),
    ),
    Exercise(
        id="04.2",
        title="You have the discriminator's loss, safe for any logit.",
        check=_own(losses.discriminator_loss, same_function(discriminator_loss, _logits, _DISCRIMINATOR_LOSSES)),
        mistakes=_DISCRIMINATOR_LOSSES,
        points=2,
    ),
    Exercise(
        id="04.3",
        title="You have the generator's loss, with a gradient even when it is losing.",
        check=_own(losses.generator_loss, same_function(generator_loss, lambda: [(f,) for _, f in _logits()], _GENERATOR_LOSSES)),
        mistakes=_GENERATOR_LOSSES,
        points=2,
    ),
    Exercise(
        id="04.4",
        title="You can tell a discriminator's size before it fills your memory.",
        check=same_function(discriminator_size, lambda: [(96,), (180,), (32,), (100,), (256,)], _SIZES, tolerance=1e-9),
        mistakes=_SIZES,
        points=2,
    ),
    Exercise(
        id="04.5",
        title="You have one step of the game, with each gradient where it belongs.",
        check=_check_step,
        mistakes=_STEPS,
        points=3,
    ),
    Exercise(
        id="04.6",
        title="You measured it: the more the judge counts, the less sure it is.",
        check=one_of("c", _ACCURACY),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _ACCURACY.items()),
        points=3,
    ),
]
