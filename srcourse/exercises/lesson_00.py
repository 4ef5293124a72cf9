"""The checks of lesson 00: a first function, a prediction, a mean, and a search."""

import functools
import statistics

import srcourse as sr
from srcourse.exercises.checking import Exercise, Mistake, one_of, same_function, value_near


def _upscaled_shape(shape: tuple[int, int, int], scale: int) -> tuple[int, int, int]:
    channels, height, width = shape
    return (channels, height * scale, width * scale)


_SHAPE_MISTAKES = (
    Mistake(lambda shape, scale: (3, shape[1] * scale, shape[2] * scale), "Take the number of channels from `shape`: it is not always 3."),
    Mistake(lambda shape, scale: (shape[0], shape[1] * 4, shape[2] * 4), "Multiply by `scale`: it is not always 4."),
    Mistake(lambda shape, scale: tuple(side * scale for side in shape), "The colours are not upscaled: three stay three."),
    Mistake(lambda shape, scale: (shape[0], shape[1] + scale, shape[2] + scale), "A scale multiplies; it does not add."),
    Mistake(lambda shape, scale: (shape[0], shape[1] * scale, shape[2]), "Both sides grow: the width too."),
    Mistake(lambda shape, scale: (shape[0], shape[1], shape[2] * scale), "Both sides grow: the height too."),
    Mistake(lambda shape, scale: (shape[1] * scale, shape[2] * scale), "Three numbers are asked for: the channels come first."),
    Mistake(lambda shape, scale: (shape[1] * scale, shape[2] * scale, shape[0]), "The channels come first: (channels, height, width)."),
    Mistake(lambda shape, scale: (shape[0], shape[2] * scale, shape[1] * scale), "The height comes before the width."),
    Mistake(lambda shape, scale: (shape[0], shape[1] ** scale, shape[2] ** scale), "** takes a power: multiply with *."),
    Mistake(lambda shape, scale: (shape[0], shape[1] / scale, shape[2] / scale), "The image grows: multiply, do not divide."),
    Mistake(lambda shape, scale: shape * scale, "A tuple times a number repeats the tuple: multiply its numbers one by one."),
    Mistake(lambda shape, scale: (3, 300, 448), "That is the example's answer: compute it from `shape` and `scale`."),
)


def _mean_gain(method: dict[str, float], baseline: dict[str, float]) -> float:
    return sum(method[name] - baseline[name] for name in method) / len(method)


_GAIN_MISTAKES = (
    Mistake(lambda method, baseline: -_mean_gain(method, baseline), "The sign is turned round: a better method has a positive gain."),
    Mistake(lambda method, baseline: _mean_gain(method, baseline) * len(method), "That is the sum: divide by the number of photos."),
    *(
        Mistake(lambda m, b, n=n: _mean_gain(m, b) * len(m) / n, f"Divide by the number of photos, len(method): it is not always {n}.")
        for n in (3, 2)
    ),
    Mistake(lambda method, baseline: [method[name] - baseline[name] for name in method], "Those are the gains: take their mean."),
    Mistake(lambda method, baseline: {name: method[name] - baseline[name] for name in method}, "Those are the gains: take their mean."),
    Mistake(lambda method, baseline: _mean_gain(method, dict.fromkeys(method, 0)), "The baseline is missing: subtract its PSNR."),
    Mistake(
        lambda method, baseline: next(method[n] - baseline[n] for n in method), "That is the first photo's gain: take the mean of all."
    ),
    Mistake(lambda method, baseline: sum(abs(method[n] - baseline[n]) for n in method) / len(method), "A loss counts as a loss: no abs."),
    Mistake(
        lambda method, baseline: sum(method[n] / baseline[n] for n in method) / len(method),
        "Compare decibels by taking one from the other, not by dividing them.",
    ),
    Mistake(
        lambda method, baseline: sum(method[n] - baseline[n] for n in method) // len(method), "// cuts off the decimals: divide with /."
    ),
    Mistake(lambda method, baseline: round(_mean_gain(method, baseline)), "No rounding: half a decibel counts."),
    *(Mistake(lambda m, b, n=n: round(_mean_gain(m, b), n), "No rounding: that is for printing.") for n in (1, 2)),
    Mistake(lambda method, baseline: statistics.median(method[n] - baseline[n] for n in method), "The mean, not the median."),
    Mistake(lambda method, baseline: max(method[n] - baseline[n] for n in method), "That is the best photo's gain: take the mean of all."),
)


@functools.cache
def _smallest_level() -> int:
    """The first whole noise level at which the shipped network falls behind bicubic on the cat."""
    hr = sr.images.crop_to_multiple(sr.images.sample("chelsea"), 4)
    models = [sr.models.load("srresnet_small-x4"), sr.models.create("bicubic", scale=4)]
    for level in range(1, 50):
        noisy = sr.degradation.create("noise", scale=4, noise=level, seed=0)(hr)
        network, bicubic = (sr.metrics.psnr(sr.upscale(model, noisy), hr, border=4) for model in models)
        if network < bicubic:
            return level
    raise AssertionError("the network never falls behind: the lesson's claim does not hold")


_LEVEL_MISTAKES = (
    Mistake(0, "Without noise the network wins."),
    Mistake(10, "At 10 bicubic wins already, but a smaller level will do."),
)

EXERCISES = [
    Exercise(
        "00.1",
        "both sides grow by the scale, the colours stay",
        same_function(_upscaled_shape, lambda: [((3, 1, 2), 2), ((3, 75, 112), 4), ((1, 17, 5), 3)], _SHAPE_MISTAKES),
        _SHAPE_MISTAKES,
    ),
    Exercise(
        "00.2",
        "edges and lettering gain most: astronaut",
        one_of(
            "astronaut",
            {
                "chelsea": "Fur gives a network little to go by. Run the next two cells and look at the gains.",
                "coffee": "Close, but not the most. Run the next two cells and look at the gains.",
            },
        ),
        (Mistake("chelsea", "fur"), Mistake("coffee", "wood")),
    ),
    Exercise(
        "00.3",
        "the mean of the gains, photo by photo",
        same_function(
            _mean_gain,
            lambda: [
                ({"a": 26.0, "b": 30.0}, {"a": 26.5, "b": 29.0}),
                ({"a": 30.0, "b": 26.0}, {"a": 29.0, "b": 27.0}),
                ({"a": 28.0, "b": 31.5, "c": 30.0}, {"c": 27.0, "a": 27.5, "b": 30.75}),
                ({"a": 28.0, "b": 31.5, "c": 30.0, "d": 25.0}, {"c": 28.0, "d": 25.5, "a": 27.5, "b": 30.0}),
            ],
            _GAIN_MISTAKES,
        ),
        (
            *_GAIN_MISTAKES,
            Mistake(
                lambda m, b: sum(x - y for x, y in zip(list(m.values())[:2], list(b.values())[:2], strict=True)) / 2,
                "Take all the photos, not only the first two.",
            ),
        ),
        points=2,
    ),
    Exercise(
        "00.4",
        "a little noise is enough to turn the tables",
        value_near(
            _smallest_level,
            _LEVEL_MISTAKES,
            tolerance=0,
            below="Up to there the network still wins: try more noise.",
            above="A smaller level will do.",
        ),
        _LEVEL_MISTAKES,
        points=2,
    ),
]
