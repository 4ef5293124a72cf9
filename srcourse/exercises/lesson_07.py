"""Checks of lesson 07: the slope of a spectrum, the FFT discriminator's input and size, what it is blind to, swapped phases."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from srcourse import models
from srcourse.exercises.checking import CUT, Exercise, Mistake, Wrong, call, close, one_of, require, same_function, same_gradient

# --- predictions ------------------------------------------------------------------------------------------------

_BLIND = {
    "a": "Mirroring takes F(u, v) to F(u, -v): as strong, but at another frequency, where another weight waits.",
    "b": "A quarter turn swaps horizontal and vertical frequencies: each number lands on another weight.",
    "d": "Adding 0.05 changes the mean, which is the number at frequency zero: little, but the judge sees it.",
}

_FAIR = {
    "a": "Far too quiet: compare its fine detail with the convolutional judge's at 0.005.",
    "c": "The same λ, but not the same influence: compare the two games' fine detail in the table.",
}

# --- 07.1: the slope of a spectrum --------------------------------------------------------------------------------


def slope(frequency: np.ndarray, power: np.ndarray) -> float:
    """Slope of log(power) over log(frequency), frequency 0 left out."""
    return float(_line(np.log10(frequency[1:]), np.log10(power[1:]))[0])


def _line(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.polyfit(x, y, 1)


_ZERO = "Frequency 0 has no logarithm: begin at index 1."


def _quiet(function: Callable[[np.ndarray, np.ndarray], Any]) -> Callable[[np.ndarray, np.ndarray], Any]:
    def quiet(frequency: np.ndarray, power: np.ndarray) -> Any:
        with np.errstate(all="ignore"):
            return function(frequency, power)

    return quiet


_SLOPES = (
    Mistake(_quiet(lambda f, p: _line(np.log10(f), np.log10(p))[0]), _ZERO),
    Mistake(_quiet(lambda f, p: _line(np.log10(f + 1e-8), np.log10(p))[0]), _ZERO),
    Mistake(_quiet(lambda f, p: _line(np.log10(f + 1e-12), np.log10(p))[0]), _ZERO),
    Mistake(lambda f, p: _line(f[1:], p[1:])[0], "On linear axes that is no line: take logarithms of both."),
    Mistake(lambda f, p: _line(f[1:], np.log10(p[1:]))[0], "The frequency needs its logarithm, too."),
    Mistake(lambda f, p: _line(f, np.log10(p))[0], "The frequency needs its logarithm, too; leave frequency 0 out."),
    Mistake(lambda f, p: _line(f[1:], np.log(p[1:]))[0], "The frequency needs its logarithm, too."),
    Mistake(lambda f, p: _line(np.log10(f[1:]), p[1:])[0], "The power needs its logarithm, too."),
    Mistake(lambda f, p: _line(np.log(f[1:]), p[1:])[0], "The power needs its logarithm, too."),
    Mistake(lambda f, p: slope(f, p) / 2, "That is the slope of the amplitude; power is its square, and falls twice as steeply."),
    Mistake(lambda f, p: 2 * slope(f, p), "The power is given: it needs no further squaring."),
    Mistake(lambda f, p: -slope(f, p), "The slope of a falling line is negative."),
    Mistake(lambda f, p: _line(np.log10(p[1:]), np.log10(f[1:]))[0], "x and y are swapped: frequency is x, power is y."),
    Mistake(lambda f, p: _line(np.log10(f[1:]), np.log10(p[1:]))[1], "That is the intercept: np.polyfit gives the slope first."),
    Mistake(lambda f, p: _line(np.log10(f[1:]), np.log10(p[1:])), "One number is asked for: the first of the two."),
    Mistake(lambda f, p: _line(np.log10(f[1:]), np.log(p[1:]))[0], "The same base for both logarithms."),
    Mistake(lambda f, p: _line(np.log10(f[2:]), np.log10(p[2:]))[0], "Skip index 0 alone: begin at 1."),
    Mistake(lambda f, p: np.polyfit(np.log10(f[1:]), np.log10(p[1:]), 2)[0], "A straight line: degree 1."),
    Mistake(
        lambda f, p: _line(np.log10(f[1:]), np.log10(p[:-1]))[0], "Skip index 0 of both arrays, so that each power keeps its frequency."
    ),
    Mistake(lambda f, p: _line(np.log10(f[1:]), np.log10(p))[0], "Skip index 0 of both arrays: they must have the same length."),
    Mistake(
        lambda f, p: np.log(p[-1] / p[1]) / np.log(f[-1] / f[1]),
        "That joins the two ends: a fit takes all points into account (np.polyfit).",
    ),
)


def _spectra() -> list[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(7)
    f = np.array([0.0, 0.25, 0.5, 1.0])
    cases = [(f, np.array([9.0, 16.0, 4.0, 1.0])), (f, np.array([2.0, 5.0, 3.0, 0.5]))]
    for count, exponent in ((40, -2.5), (100, -1.3)):
        f = np.arange(count + 1) / count
        cases.append((f, np.concatenate([[7.0], 0.3 * f[1:] ** exponent * random.lognormal(0, 0.4, count)])))
    return cases


def _check_slope(answer: Any) -> None:
    require(callable(answer), f"expected a function, got {answer!r:.60}", "Pass the function itself, without calling it.")
    try:
        same_function(slope, _spectra, _SLOPES, tolerance=1e-4)(_quiet(answer))
    except Wrong as wrong:
        raise Wrong(str(wrong), _ZERO if "LinAlgError" in str(wrong) or "SVD" in str(wrong) else wrong.hint) from None


# --- 07.2: the judge's input --------------------------------------------------------------------------------------


def judge_input(images: torch.Tensor) -> torch.Tensor:
    """What the package's discriminator sees."""
    return models.create("fft_discriminator", input_size=images.shape[-1], hidden=1).spectrum(images)


def _half(images: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(images, norm="ortho")


_INPUTS = (
    Mistake(
        lambda x: torch.fft.rfft2(x).abs().log1p(), 'The transform is to be orthonormal: norm="ortho", or the numbers grow with the size.'
    ),
    Mistake(
        lambda x: torch.fft.rfft2(x, norm="forward").abs().log1p(), 'norm="forward" divides by s²; orthonormal divides by s: norm="ortho".'
    ),
    Mistake(lambda x: torch.fft.fft2(x, norm="ortho").abs().log1p(), "The half spectrum suffices for real images: rfft2 in place of fft2."),
    Mistake(lambda x: _half(x).abs().log(), "log(1 + |F|), not log |F|: that one runs off to minus infinity where a wave is missing."),
    Mistake(lambda x: _half(x).abs(), "The logarithm is missing: log(1 + |F|)."),
    Mistake(lambda x: _half(x).abs().square().log1p(), "The magnitude, not the power: no square."),
    Mistake(lambda x: (1 + _half(x).abs()).log10(), "The natural logarithm: log1p."),
    Mistake(lambda x: (1 + _half(x).abs()).log2(), "The natural logarithm: log1p."),
    Mistake(lambda x: _half(x).real.abs().log1p(), "The magnitude takes real and imaginary part together: .abs() of the complex tensor."),
    Mistake(lambda x: _half(x).angle(), "That is the phase: the judge gets the magnitude."),
    Mistake(
        lambda x: _half(x)[..., : x.shape[-1] // 2].abs().log1p(), "The last column, the Nyquist frequency, is missing: s/2 + 1 of them."
    ),
    Mistake(lambda x: (_half(x).abs() + 1e-8).log(), "log(1 + |F|) adds a whole 1, not a tiny number."),
    Mistake(lambda x: 1 + _half(x).abs().log(), "The 1 is added inside the logarithm."),
    Mistake(lambda x: _half(255 * x).abs().log1p(), "The images stay in [0, 1]."),
    Mistake(lambda x: torch.fft.rfftn(x, norm="ortho").abs().log1p(), "Transform the last two axes alone: rfft2, not rfftn."),
    Mistake(lambda x: torch.fft.rfft(x, norm="ortho").abs().log1p(), "That transforms the rows only: rfft2 transforms both axes."),
    Mistake(lambda x: _half(x).abs().log1p().flatten(1), "Keep the shape (N, 3, s, s/2 + 1); the judge flattens it later."),
    Mistake(lambda x: _half(x.mean(1, keepdim=True)).abs().log1p(), "Each of the three colours has a spectrum of its own."),
    Mistake(lambda x: torch.fft.fftshift(_half(x), dim=-2).abs().log1p(), "No shift: frequency zero stays at [0, 0]."),
    Mistake(lambda x: _half(x).abs().detach().log1p(), CUT),
)


def _images() -> list[tuple[torch.Tensor]]:
    random = torch.Generator().manual_seed(72)
    return [(torch.ones(1, 3, 8, 8) / 2,), *((torch.rand(n, 3, s, s, generator=random),) for n, s in ((1, 8), (2, 16), (1, 9)))]


def _check_input(answer: Any) -> None:
    same_function(judge_input, _images, _INPUTS, tolerance=1e-4)(answer)
    same_gradient(judge_input, lambda: _images()[1:2])(answer)


# --- 07.3: the judge's size ---------------------------------------------------------------------------------------


def fft_size(side: int, hidden: int) -> int:
    """Parameters of the FFT discriminator."""
    return _size(3 * side * (side // 2 + 1), hidden)


def _size(inputs: int, hidden: int, bias1: bool = True, bias2: bool = True, second: bool = True) -> int:
    return (inputs + bias1) * hidden + second * (hidden + bias2)


def _inputs(side: int) -> int:
    return 3 * side * (side // 2 + 1)


_SIZES = (
    Mistake(lambda s, h: _size(3 * s * (s // 2), h), "The half spectrum has side // 2 + 1 columns: zero and Nyquist both count."),
    Mistake(lambda s, h: _size(3 * s * s, h), "Half of the columns suffice: side // 2 + 1 of them."),
    Mistake(lambda s, h: _size(3 * (s // 2 + 1) ** 2, h), "Only the columns are halved; all rows are kept."),
    Mistake(lambda s, h: _size(3 * s * ((s + 1) // 2 + 1), h), "For an odd side the columns are side // 2 + 1, rounded down."),
    Mistake(lambda s, h: _size(3 * s * (s / 2 + 1), h), "For an odd side the columns are side // 2 + 1, a whole number."),
    Mistake(lambda s, h: _size(s * (s // 2 + 1), h), "There are three colours."),
    Mistake(lambda s, h: _size(2 * _inputs(s), h), "A magnitude is one number: the judge does not get real and imaginary part."),
    Mistake(lambda s, h: _size(_inputs(s), h, bias1=False), "Each value of the first dense layer has a bias."),
    Mistake(lambda s, h: _size(_inputs(s), h, bias2=False), "The logit has a bias, too."),
    Mistake(lambda s, h: _size(_inputs(s), h, bias1=False, bias2=False), "Both dense layers have biases."),
    Mistake(lambda s, h: _size(_inputs(s), h, second=False), "The second dense layer, from hidden values to one logit, is missing."),
)

# --- 07.5: swapped phases -----------------------------------------------------------------------------------------


def swap_phases(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Magnitudes of a, phases of b."""
    return torch.fft.irfft2(torch.polar(torch.fft.rfft2(a).abs(), torch.fft.rfft2(b).angle()), s=a.shape[-2:])


def _spectrum(x: torch.Tensor) -> torch.Tensor:
    return torch.fft.rfft2(x)


def _back(spectrum: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return torch.fft.irfft2(spectrum, s=like.shape[-2:])


def _complex(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.fft.ifft2(torch.polar(torch.fft.fft2(a).abs(), torch.fft.fft2(b).angle()))


_REAL = "The result is complex, its imaginary part mere rounding: take .real, or use rfft2 and irfft2."
_SWAPS = (
    Mistake(lambda a, b: swap_phases(b, a), "The roles are swapped: magnitudes of the first, phases of the second."),
    Mistake(
        lambda a, b: _back(torch.complex(_spectrum(a).real, _spectrum(b).imag), a),
        "The real part is not the magnitude: use .abs() and .angle().",
    ),
    Mistake(
        lambda a, b: _back(torch.complex(_spectrum(b).real, _spectrum(a).imag), a),
        "The real part is not the magnitude: use .abs() and .angle().",
    ),
    Mistake(_complex, _REAL),
    Mistake(lambda a, b: _complex(a, b).abs(), "The magnitude of the result loses the sign of negative pixels: take .real."),
    Mistake(
        lambda a, b: torch.polar(_spectrum(a).abs(), _spectrum(b).angle()),
        "That is a spectrum: the way back to an image (irfft2) is missing.",
    ),
    Mistake(
        lambda a, b: torch.fft.irfft2(torch.polar(_spectrum(a).abs(), _spectrum(b).angle())),
        "For an odd width irfft2 must be told the size: s=a.shape[-2:].",
    ),
    Mistake(
        lambda a, b: _back(torch.polar(torch.fft.rfft2(a, norm="ortho").abs(), _spectrum(b).angle()), a),
        "There and back with the same norm: you scaled one way only.",
    ),
    Mistake(
        lambda a, b: torch.fft.irfft2(torch.polar(_spectrum(a).abs(), _spectrum(b).angle()), s=a.shape[-2:], norm="ortho"),
        "There and back with the same norm: you scaled one way only.",
    ),
    Mistake(
        lambda a, b: _back(_spectrum(a) * torch.polar(torch.ones_like(_spectrum(a).abs()), _spectrum(b).angle()), a),
        "That adds b's phases to a's own: take a's magnitudes first.",
    ),
    Mistake(
        lambda a, b: _back(_spectrum(a).abs() * _spectrum(b), a), "b keeps its magnitudes there: divide it by them, or take its .angle()."
    ),
    Mistake(lambda a, b: _back(torch.polar(_spectrum(a).abs(), -_spectrum(b).angle()), a), "The phases have the wrong sign."),
    Mistake(lambda a, b: _back(_spectrum(a).abs().to(torch.complex64), a), "The phases of b are missing."),
    Mistake(
        lambda a, b: _back(torch.complex(_spectrum(a).abs(), _spectrum(b).angle()), a),
        "Magnitude and phase are not real and imaginary part: put them together with torch.polar.",
    ),
    Mistake(
        lambda a, b: torch.fft.irfftn(torch.polar(torch.fft.rfftn(a).abs(), torch.fft.rfftn(b).angle()), s=a.shape),
        "Transform the last two axes alone: rfft2 and irfft2, not rfftn.",
    ),
    Mistake(
        lambda a, b: torch.fft.irfft(torch.polar(torch.fft.rfft(a).abs(), torch.fft.rfft(b).angle()), n=a.shape[-1]),
        "That transforms the rows only: rfft2 and irfft2 transform both axes.",
    ),
    Mistake(
        lambda a, b: _back(torch.polar(_spectrum(a).abs().log1p(), _spectrum(b).angle()), a), "The magnitudes as they are: no logarithm."
    ),
    Mistake(lambda a, b: swap_phases(a, b).clamp(0, 1), "Do not clamp: it changes the magnitudes."),
)


def _pairs() -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(75)
    return [
        (torch.rand(*shape, generator=random), torch.rand(*shape, generator=random))
        for shape in ((1, 4, 4), (1, 4, 6), (1, 5, 4), (3, 6, 7), (2, 3, 9, 9))
    ]


def _check_swap(answer: Any) -> None:
    if callable(answer):
        for a, b in _pairs():
            got = call(answer, a, b)
            if isinstance(got, torch.Tensor) and got.is_complex() and got.shape == a.shape and close(got.real, swap_phases(a, b), 1e-4):
                raise Wrong("the result is complex", _REAL)
            if isinstance(got, torch.Tensor) and got.is_complex():
                raise Wrong(f"got a complex tensor of shape {tuple(got.shape)}, expected a real one of {tuple(a.shape)}", _SWAPS[5].hint)
            break  # the smallest pair shows it; the rest is compared below
    real = [mistake for mistake in _SWAPS if mistake.answer is not _complex]
    same_function(swap_phases, _pairs, real, tolerance=1e-4)(answer)


EXERCISES = [
    Exercise(
        id="07.1",
        title="You can tell how fast an image's power falls with frequency.",
        check=_check_slope,
        mistakes=_SLOPES,
        points=2,
    ),
    Exercise(
        id="07.2",
        title="You have all that the FFT discriminator ever sees of an image.",
        check=_check_input,
        mistakes=_INPUTS,
        points=2,
    ),
    Exercise(
        id="07.3",
        title="You can size a judge of spectra for any image.",
        check=same_function(fft_size, lambda: [(8, 1), (9, 2), (96, 256), (33, 10), (40, 64), (96, 1024)], _SIZES, tolerance=1e-9),
        mistakes=_SIZES,
    ),
    Exercise(
        id="07.4",
        title="A half turn takes F(u, v) to F(-u, -v), which is as strong in a real image.",
        check=one_of("c", _BLIND),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _BLIND.items()),
    ),
    Exercise(
        id="07.5",
        title="You can give an image the strength of one photo and the places of another.",
        check=_check_swap,
        mistakes=_SWAPS,
        points=2,
    ),
    Exercise(
        id="07.6",
        title="You measured it: a fifth of the weight buys as much detail.",
        check=one_of("b", _FAIR),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _FAIR.items()),
        points=3,
    ),
]
