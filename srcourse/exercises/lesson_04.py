"""Checks of lesson 04: the regression to the mean, both losses of the game, SRGAN's discriminator, one step of each player."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from srcourse import losses
from srcourse.exercises.checking import CUT, Exercise, Mistake, Wrong, call, close, one_of, require, same_function, same_gradient, show
from srcourse.exercises.comparing import is_number, plain

# --- predictions ------------------------------------------------------------------------------------------------

_MEAN_OR_SAMPLE = {
    "a": "A sharp image pays for each edge that is not where the true one is, and its edges are elsewhere.",
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

_CUT_OFF = "Clamped logits are wrong beyond the limit, and have no gradient there: softplus takes any logit as it is."
_PROBABILITIES = "A sigmoid comes first here, but softplus and binary_cross_entropy_with_logits want the logits as they are."
_EACH = "The mean comes last: softplus of each logit, then their mean."
_FLOORS = (1e-6, 1e-7, 1e-8, 1e-10, 1e-12)


def _floored(probability: torch.Tensor, floor: float) -> torch.Tensor:
    return -(probability + floor).log().mean()


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
    Mistake(lambda r, f: F.softplus(-r).mean() - F.softplus(f).mean(), "The two halves are added: a mistake on either side costs."),
    Mistake(lambda r, f: F.softplus(f).mean() - F.softplus(-r).mean(), "The two halves are added: a mistake on either side costs."),
    Mistake(lambda r, f: F.softplus(-r).mean() + F.softplus(-f).mean(), "This asks for large logits of the generated images, too."),
    Mistake(lambda r, f: F.softplus(r).mean() + F.softplus(f).mean(), "This asks for small logits of the photographs, too."),
    Mistake(lambda r, f: discriminator_loss(torch.sigmoid(r), torch.sigmoid(f)), _PROBABILITIES),
    Mistake(lambda r, f: F.softplus(-r.mean()) + F.softplus(f.mean()), _EACH),
    Mistake(lambda r, f: discriminator_loss(r, f) * r[0].numel(), "The mean over all positions of a map too, not their sum."),
    Mistake(lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), "That is the hinge loss; asked for is the one with logarithms."),
    Mistake(lambda r, f: (r - 1).square().mean() + f.square().mean(), "Those are squared errors; asked for is the loss with logarithms."),
    Mistake(lambda r, f: f.mean() - r.mean(), "A difference of logits has no floor; asked for is the loss with logarithms."),
    *(Mistake(lambda r, f, e=e: _floored(torch.sigmoid(r), e) + _floored(1 - torch.sigmoid(f), e), _CLAMPED) for e in _FLOORS),
    *(Mistake(lambda r, f, m=m: discriminator_loss(r.clamp(-m, m), f.clamp(-m, m)), _CUT_OFF) for m in (10, 20, 30, 50, 80, 100)),
    Mistake(lambda r, f: discriminator_loss(r, f.detach()), CUT),
    Mistake(lambda r, f: discriminator_loss(r, f).detach(), CUT),
)
_GENERATOR_LOSSES = (
    Mistake(lambda f: -torch.sigmoid(f).log().mean(), _OVERFLOW),
    Mistake(lambda f: F.binary_cross_entropy(torch.sigmoid(f), torch.ones_like(f)), _CLAMPED),
    Mistake(lambda f: -F.softplus(f).mean(), "That is log(1 - D), the form whose gradient vanishes while the generator is losing."),
    Mistake(lambda f: F.softplus(f).mean(), "That is the discriminator's half: the generator wants its logits large."),
    Mistake(lambda f: -F.softplus(-f).mean(), "A loss is made small: the sign is the other way round."),
    Mistake(lambda f: F.softplus(-f).sum(), "The mean over the logits, not their sum."),
    Mistake(lambda f: generator_loss(torch.sigmoid(f)), _PROBABILITIES),
    Mistake(lambda f: F.softplus(-f.mean()), _EACH),
    Mistake(lambda f: generator_loss(f) / 2, "Nothing is halved: the mean over the logits is all."),
    Mistake(lambda f: generator_loss(f) * f[0].numel(), "The mean over all positions of a map too, not their sum."),
    Mistake(lambda f: (f - 1).square().mean(), "That is a squared error; asked for is the loss with a logarithm."),
    Mistake(lambda f: -f.mean(), "The logit itself has no floor; asked for is the loss with a logarithm."),
    *(Mistake(lambda f, e=e: _floored(torch.sigmoid(f), e), _CLAMPED) for e in _FLOORS),
    *(Mistake(lambda f, m=m: generator_loss(f.clamp(-m, m)), _CUT_OFF) for m in (10, 20, 30, 50, 80, 100)),
    Mistake(lambda f: generator_loss(f.detach()), CUT),
    Mistake(lambda f: generator_loss(f).detach(), CUT),
)


def _logits() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(4)
    pairs = [(torch.tensor([[2.0], [1.0]]), torch.tensor([[-1.0], [3.0]]))]
    for shape in ((4, 1), (2, 1, 3, 3)):
        pairs.append((3 * torch.randn(shape, generator=random), 3 * torch.randn(shape, generator=random)))
    pairs += [(torch.tensor([[x]]), torch.tensor([[x]])) for x in (30.0, -30.0)]
    return [*pairs, (torch.tensor([[1e4], [-1e4]]), torch.tensor([[1e4], [-1e4]]))]


def _own(theirs: Callable, *checks: Callable[[Any], None]) -> Callable[[Any], None]:
    """These checks for whoever wrote something."""

    def check_own(answer: Any) -> None:
        require(answer is not theirs, "that is the package's function", "Write it yourself: one line is enough.")
        for check in checks:
            check(answer)

    return check_own


def _generated() -> list[tuple[torch.Tensor]]:
    return [(fake,) for _, fake in _logits()]


# --- 04.4: the size of SRGAN's discriminator ------------------------------------------------------------------


def discriminator_size(side: int) -> int:
    """Parameters of SRGAN's discriminator for images of side × side pixels."""
    return _size(_rest(side))


def _size(rest: float, bias: int = 1024, last: int = 1025, convolutions: bool = True, square: bool = True, channels: int = 512) -> float:
    inputs = channels * (rest**2 if square else rest)
    return 4_689_088 * convolutions + inputs * 1024 + bias + last


def _rest(side: int) -> int:
    return math.ceil(side / 16)


_ROUNDED = "A stride of 2 with padding rounds an odd side up: 45 becomes 23."
_TIMES = "The four convolutions of stride 2 halve the side four times."
_SIZES = (
    Mistake(lambda side: _size(side // 16), _ROUNDED),
    Mistake(lambda side: _size(side / 16), _ROUNDED),
    Mistake(lambda side: _size(_rest(side), bias=0), "Each of the 1024 outputs has a bias."),
    Mistake(lambda side: _size(_rest(side), bias=1), "Each of the 1024 outputs has a bias of its own."),
    Mistake(
        lambda side: _size(_rest(side), bias=512 * _rest(side) ** 2),
        "A bias belongs to each output of a layer, not to each input: (a + 1) · b, not a · (b + 1).",
    ),
    Mistake(lambda side: _size(_rest(side), last=0), "The last layer, from 1024 values to one logit, has parameters too."),
    Mistake(lambda side: _size(_rest(side), last=1024), "The logit has a bias, too."),
    Mistake(lambda side: _size(_rest(side), bias=0, last=1024), "Neither fully connected layer has its biases: one for each output."),
    Mistake(lambda side: _size(_rest(side), last=1025 * 1024), "The last layer gives one logit, not 1024 values."),
    Mistake(lambda side: _size(0, bias=0), "The first fully connected layer, from the features to 1024 values, is missing."),
    Mistake(
        lambda side: 4_689_088 + 512 * _rest(side) ** 2 + 1, "There are two fully connected layers: 1024 values stand before the logit."
    ),
    Mistake(lambda side: _size(_rest(side), convolutions=False), "The convolutions have parameters too: their number stands above."),
    Mistake(lambda side: _size(_rest(side), square=False), "The flattened features are rows × columns × 512."),
    *(
        Mistake(lambda side, c=c: _size(_rest(side), channels=c), "The last convolution gives 512 channels, and all are flattened.")
        for c in (1, 3, 64, 256, 1024)
    ),
    Mistake(lambda side: _size(6), "Use `side`: not every image has the 96 pixels of SRGAN's training."),
    *(Mistake(lambda side, n=n: _size(math.ceil(side / n)), _TIMES) for n in (1, 2, 4, 8, 32, 256)),
)

# --- 04.5: one step of each player ----------------------------------------------------------------------------


def _step(
    detach: bool = True,
    clear: str = "both",
    first: str = "D",
    weighted: bool = True,
    pixel: Callable | None = F.l1_loss,
    adversarial: Callable = generator_loss,
    late: str = "",
    cut: bool = False,
    half: float = 1,
    together: bool = False,
    frozen: bool = False,
) -> Callable[..., tuple[float, float]]:
    """One step of the game, right or with a fault."""

    def step(generator, discriminator, g_optimizer, d_optimizer, lr, hr, weight):
        fake = generator(lr)

        def train_discriminator(judged: torch.Tensor) -> float:
            loss = half * discriminator_loss(discriminator(hr), discriminator(judged))
            if clear in ("both", "D", "top"):
                d_optimizer.zero_grad()
            if clear == "top":
                g_optimizer.zero_grad()
            loss.backward(retain_graph=True)
            if late in ("D", "both"):
                d_optimizer.zero_grad()
            if not together:
                d_optimizer.step()
            if late == "after D":
                d_optimizer.zero_grad()
            return loss.item()

        def train_generator() -> float:
            discriminator.requires_grad_(not frozen)
            loss = (weight if weighted else 1) * adversarial(discriminator(fake.detach() if cut else fake))
            loss = loss + (pixel(fake, hr) if pixel else 0)
            if clear in ("both", "G"):
                g_optimizer.zero_grad()
            loss.backward()
            discriminator.requires_grad_(True)
            if late in ("G", "both"):
                g_optimizer.zero_grad()
            if together:
                d_optimizer.step()
            g_optimizer.step()
            return loss.item()

        if first == "G":
            g_loss = train_generator()
            return train_discriminator(fake.detach()), g_loss
        return train_discriminator(fake.detach() if detach else fake), train_generator()

    return step


def _without_images(generator, discriminator, g_optimizer, d_optimizer, lr, hr, weight) -> tuple[float, float]:
    def made(x: torch.Tensor) -> torch.Tensor:
        return generator(x).detach().requires_grad_()

    return _step()(made, discriminator, g_optimizer, d_optimizer, lr, hr, weight)


def _set(module: nn.Module, values: list[torch.Tensor]) -> None:
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.data = value.clone()


_WEIGHT = "The weight belongs to the adversarial term; the pixel loss stands as it is."
_LATE = "Between backward and step, zero_grad wipes out what the step should use: clear before the backward."
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
    Mistake(
        _step(clear="G", frozen=True),
        "Freezing keeps the generator's loss out of the discriminator; its own old gradients must be cleared all the same.",
    ),
    Mistake(
        _step(clear="top", detach=False),
        "After both were cleared, the discriminator's loss left a gradient in the generator: detach, or clear right before each backward.",
    ),
    Mistake(
        _step(clear="none", detach=False, frozen=True),
        "Freezing does not clear what is there: zero_grad before each backward, and detach for the discriminator's half.",
    ),
    Mistake(
        _step(clear="none", frozen=True),
        "Gradients pile up from step to step, in a network that is frozen half of the time, too: each needs its zero_grad.",
    ),
    Mistake(_step(first="G"), "The discriminator moves first; the generator plays against it as it is after that step."),
    Mistake(_step(weighted=False), "The adversarial term is multiplied by the weight."),
    Mistake(_step(pixel=None), "The pixel loss is missing in the generator's loss."),
    Mistake(_step(pixel=F.mse_loss), "The pixel loss is L1 here: F.l1_loss, not the squared error."),
    Mistake(lambda *given: _step(weighted=False, pixel=lambda x, y: given[-1] * F.l1_loss(x, y))(*given), _WEIGHT),
    Mistake(lambda *given: _step(pixel=lambda x, y: given[-1] * F.l1_loss(x, y))(*given), _WEIGHT),
    Mistake(
        _step(adversarial=lambda f: F.softplus(f).mean()),
        "That is the discriminator's half: the generator wants the logits of its images large.",
    ),
    Mistake(_step(adversarial=lambda f: -F.softplus(f).mean()), "That is the minimax form; non-saturating is softplus(-logits)."),
    Mistake(_step(cut=True), "The generator learns from its judge through the images: no detach in its own half."),
    Mistake(_without_images, "The generator's own half needs the graph of its images: detach them only where D is trained."),
    Mistake(_step(late="D"), _LATE),
    Mistake(_step(late="G"), _LATE),
    Mistake(_step(late="both"), _LATE),
    Mistake(_step(late="D", clear="G"), _LATE),
    Mistake(_step(late="both", clear="none"), _LATE),
    Mistake(
        _step(clear="G", late="after D"),
        "Clear D just before its own backward: after its step, the generator's backward leaves another gradient in it.",
    ),
    Mistake(_step(half=0.5), "The two halves of the discriminator's loss are added, not averaged."),
    Mistake(_step(together=True), "The discriminator's step comes before the generator's loss: the generator plays against the new judge."),
    Mistake(lambda *given: _step()(*given)[::-1], "The order is (discriminator's loss, generator's loss)."),
)
_STEP_ERRORS = {
    "backward through the graph a second time": "D's backward went through the generator, too, and used up its graph: detach.",
    "modified by an inplace operation": (
        "The generator's loss was computed before the discriminator's step, which then changed the weights that it needs: compute it after."
    ),
    "does not require grad": "Nothing here has a gradient: is the discriminator still frozen from the last step, or the generator cut off?",
}


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
        try:
            pair = call(step, generator, discriminator, *optimizers, lr, hr, 0.5)
        except Wrong as wrong:
            hint = next((hint for words, hint in _STEP_ERRORS.items() if words in wrong.error), wrong.hint)
            raise Wrong(
                f"in a small game it raised {wrong.error.split(' Hint:')[0].splitlines()[0]}" if wrong.error else str(wrong), hint
            ) from None
        pair = pair.tolist() if isinstance(pair, torch.Tensor | np.ndarray) else pair
        fits = isinstance(pair, tuple | list) and len(pair) == 2 and all(is_number(plain(value)) for value in pair)
        require(fits, f"expected the two losses (discriminator's, generator's), got {show(pair)}", "Return two numbers: use .item().")
        seen += [float(plain(value)) for value in pair]
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
        check=_own(
            losses.discriminator_loss,
            same_function(discriminator_loss, _logits, _DISCRIMINATOR_LOSSES),
            same_gradient(discriminator_loss, _logits, inputs=2),
        ),
        mistakes=_DISCRIMINATOR_LOSSES,
        points=2,
    ),
    Exercise(
        id="04.3",
        title="You have the generator's loss, with a gradient even when it is losing.",
        check=_own(
            losses.generator_loss,
            same_function(generator_loss, _generated, _GENERATOR_LOSSES),
            same_gradient(generator_loss, _generated),
        ),
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
