"""Checks of lesson 08: errors per pass, compound error, the loss of phase B, replay, and how far repeated passes see."""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from srcourse import metrics
from srcourse.degradation import downscale
from srcourse.exercises.checking import Exercise, Mistake, Wrong, call, close, one_of, require, same_function, show
from srcourse.resize import resize_bicubic
from srcourse.training.recursive import own_image

# --- predictions ------------------------------------------------------------------------------------------------

_CONTROL = {
    "a": "Each halving takes away coarser detail than the one before, and photos have more of that: does the error grow slower and slower?",
    "b": "That would mean that every halving costs the same. Which holds more energy, a photo's finest detail or the next coarser?",
}

_REPLAY = {
    "a": "Run it: compare what your network still loses against A with what B loses, which has no replay.",
    "c": "Nearly, but not all: in dB, how far is your network still behind A after one pass?",
}

# --- 08.1: PSNR after each pass ---------------------------------------------------------------------------------


class _Sharpener(nn.Module):
    """A ×2 network that needs no training: bicubic, sharper and with more contrast. It leaves [0, 1], so that clamping matters."""

    scale = 2

    def __init__(self, amount: float):
        super().__init__()
        self.amount = nn.Parameter(torch.tensor(amount))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = resize_bicubic(x, (2 * x.shape[-2], 2 * x.shape[-1]))
        image = image + self.amount * (image - F.avg_pool2d(image, 3, 1, 1, count_include_pad=False))
        return 1.4 * image - 0.2


def _shrink(photo: torch.Tensor, scale: int) -> torch.Tensor:
    return downscale(photo, scale) if scale > 1 else photo


def _per_pass(
    network: nn.Module,
    photo: torch.Tensor,
    passes: int,
    border: Callable[[int, int], int] = lambda k, n: 2**k,
    clamp: bool = True,
    stepwise: bool = False,
    enlarged: bool = False,
    again: bool = True,
) -> list[float]:
    """PSNR after each pass, or what comes out with a fault."""

    def truth(scale: int) -> torch.Tensor:
        image = photo
        while stepwise and scale > 2:
            image, scale = downscale(image, 2), scale // 2
        return _shrink(image, scale)

    image, result = truth(2**passes), []
    with torch.no_grad():
        for k in range(1, passes + 1):
            image = network(image[None])[0] if again else resize_bicubic(image[None], (2 * image.shape[-2], 2 * image.shape[-1]))[0]
            image = image.clamp(0, 1) if clamp else image
            wanted = truth(2 ** (passes - k))
            if enlarged and wanted.shape != photo.shape:
                result.append(metrics.psnr(resize_bicubic(image[None], photo.shape[-2:])[0], photo, border=border(k, passes)))
            else:
                result.append(metrics.psnr(image, wanted, border=border(k, passes)))
    return result


def _same_goal(network: nn.Module, photo: torch.Tensor, passes: int) -> list[float]:
    """k passes from the photo at 1/2^k, each time against the photo itself."""
    return [_per_pass(network, photo, k)[-1] for k in range(1, passes + 1)]


_CLAMPED = "Clamp the image to [0, 1] after every pass: the next pass would build on values that no image has."
_PASSES = (
    Mistake(lambda network, photo, passes: _per_pass(network, photo, passes, clamp=False), _CLAMPED),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, border=lambda k, n: 2),
        "The border grows with the image: 2^k pixels after pass k, not 2 every time.",
    ),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, border=lambda k, n: 0),
        "Leave a border of 2^k pixels out of the measurement.",
    ),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, border=lambda k, n: 2 ** (n - k)),
        "The border is the scale so far, 2^k; 2^(n-k) is by how much the photo is shrunk.",
    ),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, border=lambda k, n: 2**n),
        "The border after pass k is 2^k: that of the last pass is too wide for the others.",
    ),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, stepwise=True),
        "Shrink the photo in one step to each size. Halving it again and again gives other pixels.",
    ),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, enlarged=True),
        "Compare with the photo at the image's own size: shrink the truth, do not enlarge the image.",
    ),
    Mistake(_same_goal, "All passes begin from one image, the photo at 1/2^passes, and each is held to the photo at its own size."),
    Mistake(lambda network, photo, passes: _per_pass(network, photo, passes)[-1:], "One number for each pass: append inside the loop."),
    Mistake(lambda network, photo, passes: _per_pass(network, photo, passes)[-1], "A list is asked for, one number for each pass."),
    Mistake(lambda network, photo, passes: _per_pass(network, photo, passes)[::-1], "Pass 1 comes first."),
    Mistake(
        lambda network, photo, passes: _per_pass(network, photo, passes, again=False), "It is the network that enlarges, in each pass."
    ),
    Mistake(
        lambda network, photo, passes: [255**2 / 10 ** (decibel / 10) for decibel in _per_pass(network, photo, passes)],
        "Decibels are asked for, not the MSE.",
    ),
)


def _photo(height: int, width: int, seed: int) -> torch.Tensor:
    """A smooth random image with hard edges, (3, H, W), far enough from 0 and 1 for shrinking to stay between them."""
    random = torch.Generator().manual_seed(seed)
    coarse = resize_bicubic(torch.rand(1, 3, height // 8, width // 8, generator=random), (height, width))[0]
    fine = torch.rand(3, height, width, generator=random)
    edges = (torch.arange(width) // 5 % 2).float() * (torch.arange(height) // 9 % 2).float()[:, None]
    return (0.5 * coarse + 0.15 * fine + 0.35 * edges).clamp(0.15, 0.85)


def _check_passes(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    for height, width, passes, amount in ((64, 64, 1, 1.5), (64, 96, 2, 1.5), (128, 96, 3, 1.0)):
        network, photo = _Sharpener(amount), _photo(height, width, seed=passes)
        expected = _per_pass(network, photo, passes)
        got = call(answer, network, photo, passes)
        numbers = _numbers(got)
        if numbers is not None and close(numbers, expected, 2e-4):
            continue
        hint = next((m.hint for m in _PASSES if close(numbers if numbers else got, m.answer(network, photo, passes), 2e-4)), "")
        shown = ", ".join(f"{value:.2f}" for value in expected)
        raise Wrong(f"with {show(photo)} and {passes} passes: got {show(numbers or got)}, expected [{shown}]", hint)


def _numbers(got: Any) -> list[float] | None:
    """A list, tuple, array or tensor of numbers as a list; None for anything else."""
    if isinstance(got, torch.Tensor) or type(got).__module__ == "numpy":
        got = got.tolist()
    if not isinstance(got, list | tuple):
        return None
    try:
        return [float(value) for value in got]
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


# --- 08.3: compound error ---------------------------------------------------------------------------------------


def compound(fresh: list[float], gain: float) -> list[float]:
    """error_k = gain · error_{k-1} + fresh_k, beginning without any."""
    errors, error = [], 0.0
    for new in fresh:
        error = gain * error + new
        errors.append(error)
    return errors


_COMPOUND = (
    Mistake(
        lambda fresh, gain: [gain * value for value in compound(fresh, gain)],
        "The fresh part of a pass is not multiplied in that pass: gain · error + fresh, not gain · (error + fresh).",
    ),
    Mistake(lambda fresh, gain: compound(fresh, gain)[-1:], "The error after each pass is asked for: append inside the loop."),
    Mistake(lambda fresh, gain: compound(fresh, gain)[-1], "The error after each pass is asked for: a list."),
    Mistake(
        lambda fresh, gain: [0.0, *compound(fresh, gain)], "Begin the list with the error after pass 1: the LR image is not asked for."
    ),
    Mistake(lambda fresh, gain: [0.0, *compound(fresh, gain)[:-1]], "Note the error after the pass, not before it."),
    Mistake(
        lambda fresh, gain: [new + (gain * fresh[k - 1] if k else 0) for k, new in enumerate(fresh)],
        "What is inherited is the whole error of the pass before, not its fresh part alone.",
    ),
    Mistake(lambda fresh, gain: compound(fresh, gain)[::-1], "Pass 1 comes first."),
    Mistake(
        lambda fresh, gain: [gain**k * new for k, new in enumerate(fresh)],
        "Errors add up: what earlier passes left is multiplied, then the fresh part is added.",
    ),
    Mistake(
        lambda fresh, gain: [sum(gain**i * new for i, new in enumerate(fresh[: k + 1])) for k in range(len(fresh))],
        "The first fresh error goes through the most passes, and is multiplied the most often; the last one not at all.",
    ),
    Mistake(lambda fresh, gain: compound(fresh, 1.0), "The error that a pass is given is multiplied by the gain."),
    Mistake(
        lambda fresh, gain: [gain**k * sum(fresh[: k + 1]) for k in range(len(fresh))],
        "Each fresh part is multiplied only by the passes after it.",
    ),
)


def _compound_cases() -> list[tuple]:
    return [([1.0], 2.0), ([1.0, 1.0, 1.0], 2.0), ([3.0, 2.0, 5.0, 1.0], 0.5), ([60.0, 35.0, 28.0], 1.35), ([1.0, 4.0], 1.0)]


def _check_compound(answer: Any) -> None:
    def listed(fresh: list[float], gain: float) -> Any:
        got = answer(fresh, gain)
        numbers = _numbers(got)
        return got if numbers is None else numbers

    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    same_function(compound, _compound_cases, _COMPOUND)(listed)


# --- 08.4: the loss of phase B ----------------------------------------------------------------------------------


class _Normed(nn.Module):
    """A tiny ×2 network with BN: in training mode it gives another image than in evaluation mode, and it overshoots."""

    scale = 2

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Conv2d(6, 12, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = F.pixel_shuffle(self.body(x), 2)
        return 1.3 * resize_bicubic(x, image.shape[-2:]) - 0.15 + 0.5 * image


def phase_b_loss(network: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    """L1 between 4X and the network's image of its own image of 1X."""
    return F.l1_loss(network(own_image(network, lr, 1)), hr)


def _unfinished(
    first: str = "eval", detach: str = "first", restore: bool = True, clamp: bool = True, clamp_last: bool = False, mse: bool = False
) -> Callable[..., torch.Tensor]:
    def loss(network: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
        was_training = network.training
        if first == "eval":
            network.eval()
        own = network(lr)
        own = own.clamp(0, 1) if clamp else own
        own = own.detach() if detach in ("first", "both") else own
        if restore:
            network.train(was_training)
        image = network(own)
        image = image.clamp(0, 1) if clamp_last else image
        image = image.detach() if detach == "both" else image
        return F.mse_loss(image, hr) if mse else F.l1_loss(image, hr)

    return loss


def _once(network: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(network(lr), resize_bicubic(hr, (2 * lr.shape[-2], 2 * lr.shape[-1])))


def _always_train(network: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
    network.eval()
    own = network(lr).clamp(0, 1).detach()
    network.train()
    return F.l1_loss(network(own), hr)


_STOP = "The gradient must stop behind the first pass: torch.no_grad() around it, or .detach() on its image."
_MODE = "Leave the network in the mode that it came in: remember network.training, and network.train(...) it back after the first pass."
_PHASE_B = (
    Mistake(_unfinished(detach="no"), _STOP),
    Mistake(_unfinished(detach="both"), "The second pass needs its gradient: only the first one is cut off."),
    Mistake(_unfinished(restore=False), _MODE),
    Mistake(
        _unfinished(first="as it came"), "The first pass runs in eval mode, as it will in use: here BN then uses its running statistics."
    ),
    Mistake(_unfinished(clamp=False), "The first pass's image is clamped to [0, 1], as it will be in use."),
    Mistake(
        _unfinished(clamp_last=True),
        "Do not clamp the second pass's image: pixels beyond [0, 1] would get no gradient that brings them back.",
    ),
    Mistake(_unfinished(mse=True), "L1 is asked for: F.l1_loss."),
    Mistake(_once, "That is phase A: one pass, against 2X. Phase B enlarges twice, against 4X."),
    Mistake(_always_train, "network.train() is right only for a network that came in training mode: network.train(was_training)."),
)


def _try_loss(function: Callable, network: nn.Module, lr: torch.Tensor, hr: torch.Tensor) -> tuple[Any, list[torch.Tensor] | None, bool]:
    """(loss, gradients of the weights, mode afterwards) on a copy of the network."""
    network = copy.deepcopy(network)
    loss = call(function, network, lr, hr)
    try:
        gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, network.parameters(), strict=True)]
    except (RuntimeError, TypeError, AttributeError):  # detached, or no tensor
        gradients = None
    return loss, gradients, network.training


def _check_phase_b(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    random = torch.Generator().manual_seed(84)
    for training, batch in ((False, 1), (True, 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(8)
            network = _Normed().train()
            network(torch.rand(4, 3, 12, 12, generator=random))  # BN's running statistics begin to move
        network.train(training)
        lr, hr = torch.rand(batch, 3, 6, 6, generator=random), torch.rand(batch, 3, 24, 24, generator=random)
        expected, gradients, _ = _try_loss(phase_b_loss, network, lr, hr)
        got, mine, mode = _try_loss(answer, network, lr, hr)
        where = f"with a network in {'train' if training else 'eval'} mode and 1X {show(lr)}"
        if not (isinstance(got, torch.Tensor) and got.numel() == 1 and not got.is_complex()):
            raise Wrong(f"{where}: got {show(got)}, expected a tensor of one number", "A loss stays a tensor: no .item(), no NumPy.")
        same = abs(got.item() - expected.item()) < 1e-5 * max(1, abs(expected.item()))
        require(not same or mine is not None, f"{where}: the loss is right, but has no gradient", _PHASE_B[1].hint)
        if same and not close(mine, gradients, 1e-4):
            raise Wrong(f"{where}: the loss is right, {got.item():.5f}, but not its gradient", _STOP)
        require(not same or mode == training, f"{where}: it is left in {'train' if mode else 'eval'} mode", _MODE)
        if not same:
            hint = next((m.hint for m in _PHASE_B if _alike(m.answer, network, lr, hr, got)), "")
            raise Wrong(f"{where}: got {got.item():.5f}, expected {expected.item():.5f}", hint)


def _alike(mistake: Callable, network: nn.Module, lr: torch.Tensor, hr: torch.Tensor, got: torch.Tensor) -> bool:
    return math.isclose(_try_loss(mistake, network, lr, hr)[0].item(), got.item(), rel_tol=1e-5)


# --- 08.6: how far repeated passes see --------------------------------------------------------------------------


def reach(radius: float, passes: int, scale: int = 2) -> float:
    """Pixels of the LR image that the image after so many passes sees to each side."""
    return float(sum(radius / scale**k for k in range(passes)))


_REACH = (
    Mistake(
        lambda radius, passes, scale=2: float(radius * passes),
        "Pass 2 sees `radius` pixels of a larger image: fewer LR pixels than pass 1 does.",
    ),
    Mistake(
        lambda radius, passes, scale=2: float(sum(radius * scale**k for k in range(passes))),
        "A pixel of a larger image is a smaller piece of the scene: divide by the scale so far, do not multiply.",
    ),
    Mistake(
        lambda radius, passes, scale=2: float(sum(radius / scale**k for k in range(1, passes + 1))),
        "The first pass sees LR pixels themselves: its scale so far is 1, so begin at scale to the power of 0.",
    ),
    Mistake(lambda radius, passes, scale=2: reach(radius, passes + 1, scale), "One pass too many: `passes` terms."),
    Mistake(lambda radius, passes, scale=2: reach(radius, passes - 1, scale), "One pass too few: `passes` terms."),
    Mistake(lambda radius, passes, scale=2: 2 * reach(radius, passes, scale) + 1, "To each side, not the side of the square."),
    Mistake(lambda radius, passes, scale=2: radius / scale ** (passes - 1), "All passes see: add them up, not the last one alone."),
    Mistake(lambda radius, passes, scale=2: float(sum(radius // scale**k for k in range(passes))), "No rounding: divide with /, not //."),
    Mistake(lambda radius, passes, scale=2: int(reach(radius, passes, scale)), "No rounding: it is not always a whole number."),
    Mistake(lambda radius, passes, scale=2: 1 + reach(radius, passes, scale), "To each side: the pixel in the middle does not count."),
    Mistake(
        lambda radius, passes, scale=2: radius * (1 + (passes - 1) / scale),
        "The image grows with every pass: the third sees pixels that are scale² times smaller.",
    ),
    Mistake(lambda radius, passes, scale=2: reach(radius, passes, 2), "The scale is an argument: it is not always 2."),
)


def _reaches() -> list[tuple]:
    return [(4, 1, 2), (4, 2, 2), (11, 3, 2), (1, 2, 2), (9, 2, 3), (11, 3, 4), (2.5, 5, 2)]


EXERCISES = [
    Exercise(
        id="08.1",
        title="You can measure a network after every pass, at the right size.",
        check=_check_passes,
        mistakes=_PASSES,
        points=2,
    ),
    Exercise(
        id="08.2",
        title="The task itself gets harder faster than in proportion: even bicubic's error is superlinear.",
        check=one_of("c", _CONTROL),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _CONTROL.items()),
    ),
    Exercise(id="08.3", title="You know how errors compound.", check=_check_compound, mistakes=_COMPOUND),
    Exercise(
        id="08.4",
        title="You can train a network on its own images without the gradient running away.",
        check=_check_phase_b,
        mistakes=_PHASE_B,
        points=3,
    ),
    Exercise(
        id="08.5",
        title="A little replay saves much, but not all.",
        check=one_of("b", _REPLAY),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _REPLAY.items()),
        points=2,
    ),
    Exercise(
        id="08.6",
        title="Repeated passes never see twice as far as the first.",
        check=same_function(reach, _reaches, _REACH),
        mistakes=_REACH,
        points=2,
    ),
]
