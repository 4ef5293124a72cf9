"""Checks of lesson 10: an interval for a paired difference, how many photos, the front, a prediction, a small network, a card."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from srcourse import data, degradation, images, metrics, models
from srcourse.exercises.checking import Exercise, Mistake, Wrong, call, close, one_of, require, same_function, show
from srcourse.inference import upscale

# --- 10.1: the interval of a paired difference --------------------------------------------------------------------


def paired_interval(a: torch.Tensor, b: torch.Tensor, draws: torch.Tensor) -> tuple[float, float, float]:
    """Mean of a - b over photos (n,), and the middle 95 % of the means over the photos that each of `draws` (B, n) names."""
    difference = a - b
    low, high = difference[draws].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=a.dtype)).tolist()
    return difference.mean().item(), low, high


def _wrong_interval(means: Callable, centre: Callable | None = None, tail: float = 0.025) -> Callable:
    def interval(a: torch.Tensor, b: torch.Tensor, draws: torch.Tensor) -> tuple[float, float, float]:
        low, high = means(a, b, draws).quantile(torch.tensor([tail, 1 - tail], dtype=a.dtype)).tolist()
        return (centre or (lambda a, b, draws: (a - b).mean()))(a, b, draws).item(), low, high

    return interval


def _paired(a: torch.Tensor, b: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    return (a - b)[draws].mean(1)


def _gaussian(a: torch.Tensor, b: torch.Tensor, draws: torch.Tensor) -> tuple[float, float, float]:
    mean, half = (a - b).mean().item(), 1.96 * (a - b).std().item() / math.sqrt(len(a))
    return mean, mean - half, mean + half


_INTERVALS = (
    Mistake(
        _wrong_interval(lambda a, b, d: a[d].mean(1) - b[d.flip(0)].mean(1)),
        "Both methods must be measured on the same drawn photos: take the differences first, then draw.",
    ),
    Mistake(_wrong_interval(lambda a, b, d: _paired(b, a, d), lambda a, b, d: (b - a).mean()), "The difference is a - b, not b - a."),
    Mistake(_wrong_interval(_paired, tail=0.05), "95 % in the middle leaves 2.5 % at each side, not 5 %."),
    Mistake(
        _wrong_interval(lambda a, b, d: a - b), "Those are the quantiles of single photos. Draw, average each draw, then take quantiles."
    ),
    Mistake(_wrong_interval(lambda a, b, d: (a - b)[d].mean(0)), "Average over the photos of each draw: axis 1 of (B, n), not axis 0."),
    Mistake(_wrong_interval(lambda a, b, d: (a - b)[d].flatten()), "Average each draw over its photos before you take quantiles."),
    Mistake(
        _wrong_interval(_paired, lambda a, b, d: _paired(a, b, d).mean()),
        "The mean is that of the photos themselves; the draws are for the interval alone.",
    ),
    Mistake(
        lambda a, b, d: (
            (a - b).mean().item(),
            *(((a - b).mean() + sign * 1.96 * (a - b)[d].mean(1).std()).item() for sign in (-1, 1)),
        ),
        "Take the quantiles of the draws' means themselves, not 1.96 of their standard deviations.",
    ),
    Mistake(
        _wrong_interval(_paired, tail=0), "The smallest and the largest mean leave nothing out: take the quantiles at 0.025 and 0.975."
    ),
    Mistake(lambda a, b, d: ((a - b).median().item(), *paired_interval(a, b, d)[1:]), "The mean, not the median."),
    Mistake(_gaussian, "That is the textbook's interval for Gaussian differences. Use the draws: the middle 95 % of their means."),
    Mistake(lambda a, b, d: paired_interval(a, b, d)[1:], "Three numbers: the mean, then both ends of the interval."),
    Mistake(lambda a, b, d: (paired_interval(a, b, d)[0], *paired_interval(a, b, d)[:0:-1]), "The lower end comes before the upper one."),
)


def _interval_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(101)
    small = (torch.tensor([30.0, 20.0]), torch.tensor([29.0, 20.0]), torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]]))
    cases = [tuple(x.double() if x.is_floating_point() else x for x in small)]
    for n in (5, 12):
        a, noise = 30 + 5 * torch.randn(2, n, generator=random, dtype=torch.float64)
        cases.append((a, a - 0.1 + 0.02 * (noise - 30), torch.randint(n, (400, n), generator=random)))
    return cases


def _check_interval(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")

    def plain(*arguments: torch.Tensor) -> Any:
        result = answer(*arguments)
        return tuple(result.tolist()) if getattr(result, "shape", None) == (3,) else result

    same_function(paired_interval, _interval_cases, _INTERVALS)(plain)


# --- 10.2: how many photos ------------------------------------------------------------------------------------------


def photos_needed(difference: float, spread: float) -> int:
    """The least n for which 1.96 · spread / √n is at most |difference|."""
    return max(1, math.ceil((1.96 * spread / abs(difference)) ** 2 - 1e-9))


_COUNTS = (
    Mistake(lambda d, s: math.ceil(1.96 * s / abs(d)), "The error of a mean falls with √n: the ratio is √n, n is its square."),
    Mistake(
        lambda d, s: math.ceil((s / abs(d)) ** 2), "The factor 1.96 is missing: 95 % of a Gaussian lie within 1.96 standard deviations."
    ),
    Mistake(lambda d, s: math.floor((1.96 * s / abs(d)) ** 2), "Round up: with one photo fewer the half-width is still too large."),
    Mistake(lambda d, s: math.ceil((1.96 * abs(d) / s) ** 2), "Upside down: a smaller difference takes more photos, not fewer."),
    Mistake(lambda d, s: math.ceil((2 * 1.96 * s / abs(d)) ** 2), "Half the width is 1.96 · spread / √n, not the whole."),
    Mistake(lambda d, s: math.ceil(1.96 * s**2 / d**2), "The factor 1.96 is squared, too."),
    Mistake(lambda d, s: int((1.96 * s / d) ** 2) + 1, "Where n comes out whole, it is enough: round up with math.ceil, not by adding 1."),
    Mistake(lambda d, s: math.ceil((2 * s / d) ** 2), "The factor is 1.96, not 2."),
    Mistake(lambda d, s: math.ceil(1.96**2 * s / abs(d)), "Spread and difference are squared, too."),
    Mistake(lambda d, s: (1.96 * s / abs(d)) ** 2, "Photos come whole: round up, for instance with math.ceil."),
)


def _count_cases() -> list[tuple]:
    return [(1.0, 1.0), (0.5, 0.25), (0.1, 0.1), (1.96, 1.0), (-0.2, 0.5), (0.05, 0.4), (0.05, 4.0)]


# --- 10.3: the front ------------------------------------------------------------------------------------------------


def unbeaten(points: Mapping[str, tuple[float, ...]]) -> list[str]:
    """Names of the points (lower is better in every number) that no other beats: none is as good everywhere and better somewhere."""
    return [name for name, own in points.items() if not any(_beats(other, own) for other in points.values())]


def _beats(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    return all(o <= x for o, x in zip(other, own, strict=True)) and other != own


def _front_by(beats: Callable[[tuple, tuple], bool]) -> Callable:
    return lambda points: [
        name for name, own in points.items() if not any(beats(other, own) for rival, other in points.items() if rival != name)
    ]


def _pairwise(compare: Callable) -> Callable[[tuple, tuple], bool]:
    return lambda other, own: compare(o <= x for o, x in zip(other, own, strict=True))


_FRONTS = (
    Mistake(
        _front_by(lambda other, own: all(o < x for o, x in zip(other, own, strict=True))),
        "Equal in one number and better in another is enough to beat a method.",
    ),
    Mistake(_front_by(_pairwise(all)), "Two methods with the same numbers do not beat each other: both stay."),
    Mistake(_front_by(lambda other, own: _beats(own, other)), "The other way round: lower is better."),
    Mistake(
        _front_by(lambda other, own: any(o < x for o, x in zip(other, own, strict=True))),
        "To be better in one number is not enough to beat a method: the others must be at least as good.",
    ),
    Mistake(lambda points: [n for n in points if n not in unbeaten(points)], "Those are the beaten ones."),
    Mistake(
        lambda points: list({points[name]: name for name in reversed(unbeaten(points))}.values()),
        "Two methods with the same numbers do not beat each other: both stay.",
    ),
    Mistake(
        lambda points: list(dict.fromkeys(min(points, key=lambda n, i=i: points[n][i]) for i in range(len(next(iter(points.values())))))),
        "The best in each number are not all: a compromise between them is on the front, too, if none beats it.",
    ),
    Mistake(
        lambda points: unbeaten({name: point[:2] for name, point in points.items()}),
        "There may be more than two numbers: use all of them.",
    ),
    *(
        Mistake(
            lambda points, i=i: [min(points, key=lambda name: points[name][i])],
            "That is the best in one number alone. The front is all methods that no other beats.",
        )
        for i in (0, 1, -1)
    ),
    Mistake(
        lambda points: [min(points, key=lambda name: sum(points[name]))],
        "A sum of decibels and seconds means nothing. The front is all methods that no other beats.",
    ),
)


def _front_cases() -> list[dict[str, tuple[float, ...]]]:
    random = torch.Generator().manual_seed(103)
    cases = [
        {"a": (1.0, 1.0), "b": (2.0, 2.0)},
        {"a": (1.0, 2.0), "b": (1.0, 3.0), "c": (0.0, 4.0)},
        {"a": (1.0, 2.0), "b": (1.0, 2.0)},
        {"a": (0.0, 5.0), "b": (2.0, 2.0), "c": (5.0, 0.0), "d": (4.0, 4.0)},
        {"a": (1.0, 1.0, 3.0), "b": (2.0, 2.0, 0.0), "c": (2.0, 2.0, 4.0)},
    ]
    return cases + [{f"m{i}": tuple(row) for i, row in enumerate(torch.randn(8, k, generator=random).tolist())} for k in (2, 3)]


def _check_front(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    for points in _front_cases():
        expected, got = sorted(unbeaten(points)), call(answer, dict(points))
        shown = "{" + ", ".join(f"{name}: {tuple(round(x, 2) for x in point)}" for name, point in points.items()) + "}"
        require(
            isinstance(got, list | tuple | set | frozenset | dict) and all(isinstance(name, str) for name in got),
            f"with {shown}: got {show(got)}, expected a list of names",
            "Give back the names, the keys of `points`, in a list.",
        )
        if sorted(got) != expected:
            hint = next((m.hint for m in _FRONTS if sorted(m.answer(points)) == sorted(got)), "")
            raise Wrong(f"with {shown}: got {sorted(got)}, expected {expected}", hint)


# --- 10.5: a network for a telephone --------------------------------------------------------------------------------

MOST_PARAMETERS, LEAST_GAIN = 20_000, 0.5


@functools.cache
def _exam() -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    """LR, HR and bicubic's PSNR of a square of each photo that the course keeps for measuring."""
    exam = []
    for name in data.TEST_SAMPLES:
        photo = images.sample(name)
        top, left = ((side - 192) // 2 for side in photo.shape[-2:])
        hr = photo[:, top : top + 192, left : left + 192]
        lr = images.quantize(degradation.downscale(hr, 4).clamp(0, 1))
        exam.append((lr, hr, metrics.psnr(degradation.upscale(lr, 4).clamp(0, 1), hr, border=4)))
    return exam


def _check_network(answer: Any) -> None:
    answer = getattr(answer, "model", answer)  # a whole run will do
    require(isinstance(answer, nn.Module), f"expected a network, got {show(answer)}", "`run.model` is the network of a run.")
    require(not isinstance(answer, type), f"expected a network, got {show(answer)}")
    count = models.count_parameters(answer)
    require(count > 0, "a method without parameters learns nothing", "Train a network: bicubic is the one to beat.")
    if count > MOST_PARAMETERS:
        raise Wrong(
            f"{count:,} parameters: at most {MOST_PARAMETERS:,} fit the customer",
            "Fewer channels or blocks: model={'channels': ..., 'blocks': ...}",
        )
    gains = []
    for lr, hr, bicubic in _exam():
        try:
            image = upscale(answer, lr)
        except (RuntimeError, ValueError, TypeError) as error:
            raise Wrong(f"it cannot enlarge an image of {lr.shape[-1]}×{lr.shape[-2]} pixels: {str(error).splitlines()[0][:120]}") from None
        require(image.shape == hr.shape, f"it enlarges {image.shape[-1] / lr.shape[-1]:g} times, expected 4", "scale=4")
        gains.append(metrics.psnr(image, hr, border=4) - bicubic)
    mean = sum(gains) / len(gains)
    shown = ", ".join(f"{name} {gain:+.2f}" for name, gain in zip(data.TEST_SAMPLES, gains, strict=True))
    if not mean >= LEAST_GAIN:
        hint = "Is it trained? A fresh network of this kind is bicubic." if abs(mean) < 0.02 else "More steps, or a larger learning rate."
        raise Wrong(f"{mean:+.2f} dB against bicubic ({shown}), expected at least {LEAST_GAIN:+.1f}", hint)


def _constant(value: float) -> nn.Module:
    network = models.create("srresnet_small", scale=4, channels=8, blocks=1)
    nn.init.constant_(list(network.parameters())[-1], value)
    return network


_NETWORKS = (
    Mistake(models.create("bicubic", scale=4), "Train a network: bicubic is the one to beat."),
    Mistake(models.create("srresnet_small", scale=4, channels=16, blocks=2), "Is it trained? A fresh network of this kind is bicubic."),
    Mistake(models.create("srresnet_small", scale=4), "Fewer channels or blocks."),
    Mistake(models.create("srresnet_small", scale=2, channels=16, blocks=2), "scale=4"),
    Mistake(_constant(0.1), "More steps, or a larger learning rate."),
    Mistake(models.create("patch_discriminator", channels=2), "That one judges images."),
)

# --- 10.6: what a card must say -------------------------------------------------------------------------------------

REQUIRED = ("recipe", "data", "minutes", "hardware", "scores", "limits")


def problems(card: Mapping[str, Any]) -> list[str]:
    """Which of `REQUIRED` are absent or empty, and "scores" as well if one of them stands without bicubic's."""
    found = []
    for key in REQUIRED:
        value = card.get(key)
        if isinstance(value, str):
            value = value.strip()
        if not value or (key == "scores" and not all("bicubic_psnr" in score for score in value)):
            found.append(key)
    return found


def _absent(card: Mapping[str, Any]) -> list[str]:
    return [key for key in REQUIRED if key not in card]


def _unsaid(card: Mapping[str, Any]) -> list[str]:
    return [key for key in REQUIRED if not card.get(key)]


def _with_scores(card: Mapping[str, Any], quantify: Callable) -> list[str]:
    bad = not quantify("bicubic_psnr" in score for score in card.get("scores") or [])
    return [key for key in problems({**card, "scores": ()}) if key != "scores" or bad]


_CARDS = (
    Mistake(_absent, "A key may be there and say nothing: '' or None or [] is as bad as no key."),
    Mistake(_unsaid, "Look into the scores, and strip the spaces: ' ' says nothing, and a PSNR without bicubic's beside it says little."),
    Mistake(
        lambda card: [key for key in REQUIRED if not (card.get(key).strip() if isinstance(card.get(key), str) else card.get(key))],
        "Look into the scores: every entry needs bicubic_psnr.",
    ),
    Mistake(lambda card: _with_scores(card, any), "Every score needs its baseline, not one of them."),
    Mistake(lambda card: _with_scores(card, all), "No scores at all are a problem, too: all(...) of nothing is True."),
    Mistake(lambda card: [key for key in REQUIRED if key not in problems(card)], "Those are the keys without a problem."),
    Mistake(lambda card: bool(problems(card)), "Return the list of the keys, not whether there are any."),
    Mistake(lambda card: [key for key in problems(card) if key != "limits"], "The limits belong to what a card must say."),
    Mistake(lambda card: [key for key in problems(card) if key != "hardware"], "Minutes without the hardware are no budget."),
)


def _card_cases() -> list[dict]:
    score = {"benchmark": "nine squares", "psnr": 28.6, "bicubic_psnr": 28.0}
    whole = {
        "recipe": {"name": "srresnet_small"},
        "data": "24 dead leaves images",
        "minutes": 0.1,
        "hardware": "1 × CPU",
        "scores": [score],
        "limits": "clean bicubic LR images at ×4",
    }
    bare = {"benchmark": "nine squares", "psnr": 28.6}
    cases = [whole, {}, *({k: v for k, v in whole.items() if k != key} for key in REQUIRED)]
    cases += [
        {**whole, "limits": ""},
        {**whole, "data": "  "},
        {**whole, "recipe": {}},
        {**whole, "hardware": None},
        {**whole, "scores": []},
    ]
    return [*cases, {**whole, "scores": [bare]}, {**whole, "scores": [score, bare]}, {**whole, "extra": "", "scores": [score, score]}]


def _check_card(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {show(answer)}", "Pass the function itself, without calling it.")
    for card in _card_cases():
        expected, got = problems(card), call(answer, dict(card))
        lacks = [key for key in REQUIRED if key not in card]
        odd = ", ".join(f"{key}={card[key]!r}" for key in expected if key in card)
        shown = f"a card without {', '.join(lacks)}" if lacks else f"a card with {odd}" if odd else "a card that says all"
        names = isinstance(got, list | tuple | set | frozenset) and all(isinstance(key, str) for key in got)
        if not names or not close(sorted(got), sorted(expected)):
            hint = next((m.hint for m in _CARDS if _same(m.answer, card, got)), "")
            raise Wrong(f"with {shown}: got {show(got)}, expected {expected}", hint)


def _same(wrong: Callable, card: dict, got: Any) -> bool:
    made = wrong(card)
    return made is got if isinstance(made, bool) else isinstance(got, list | tuple | set | frozenset) and sorted(made) == sorted(got)


EXERCISES = [
    Exercise("10.1", "You can say how sure a difference is.", _check_interval, _INTERVALS, points=2),
    Exercise("10.2", "Ten times smaller takes a hundred times as many.", same_function(photos_needed, _count_cases, _COUNTS), _COUNTS),
    Exercise("10.3", "The front leaves the choice to you, and takes the beaten away.", _check_front, _FRONTS, points=2),
    Exercise(
        "10.4",
        "Noise, which the network has never seen, is sharpened with the rest.",
        one_of(
            "noise",
            {
                "blur": "A blurred image is harder for both; the network still sharpens it a little, and stays ahead of bicubic.",
                "jpeg": "JPEG puts the network behind bicubic, but something else does so by more.",
                "none": "Measure the mean gain on each: some are below zero.",
            },
        ),
        [Mistake("blur", ""), Mistake("jpeg", ""), Mistake("none", "")],
    ),
    Exercise("10.5", "A network of your own, small enough and better than bicubic.", _check_network, _NETWORKS, points=3),
    Exercise("10.6", "What a card does not say, its reader will guess.", _check_card, _CARDS, points=2),
]
