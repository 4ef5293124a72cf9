"""The checks of lesson 02: PSNR, the protocol, SSIM, and where both metrics mislead."""

import math
from collections.abc import Callable

import torch

from srcourse import images, metrics
from srcourse.exercises.checking import Exercise, Mistake, one_of, same_function, value_near

# --- 02.1 -------------------------------------------------------------------------------------------------------


def _psnr(image: torch.Tensor, reference: torch.Tensor, peak: float) -> float:
    error = (image - reference).double().square().mean().item()
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf


def _psnr_variant(value: Callable[[float, float], float], error: Callable = lambda d: d.square().mean()) -> Callable:
    """A PSNR that turns an error into decibels by `value(error, peak)`, infinite without error."""

    def variant(image: torch.Tensor, reference: torch.Tensor, peak: float) -> float:
        size = error((image - reference).double()).item()
        return value(size, peak) if size > 0 else math.inf

    return variant


def _psnr_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(21)
    flat = torch.full((3, 2, 4), 0.5)
    reference = torch.rand(3, 5, 8, generator=random)
    image = (reference + 0.05 * torch.randn(3, 5, 8, generator=random)).clamp(0, 1)
    return [(flat, flat + 0.1, 1.0), (flat, flat.clone(), 1.0), (image, reference, 1.0), (255 * image, 255 * reference, 255.0)]


_PSNR_MISTAKES = (
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log(peak**2 / e)),
        "math.log is the natural logarithm; decibels need the logarithm to base 10: math.log10.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 20 * math.log10(peak**2 / e)),
        "The factor is 10 with the mean of the squares, and 20 only with its square root: 20·log₁₀(peak / RMS).",
    ),
    Mistake(_psnr_variant(lambda e, peak: 10 * math.log10(peak / e)), "The peak is squared: the error is, so both have the same unit."),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(255**2 / e)),
        "Use the peak that was passed: 255 belongs to images in [0, 255], 1 to images in [0, 1].",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak**2 / e), lambda d: d.square().sum()),
        "This sums the squared differences: their MEAN makes images of different sizes comparable.",
    ),
    *(
        Mistake(
            lambda image, reference, peak, e=e: 10 * math.log10(peak**2 / ((image - reference).double().square().mean().item() + e)),
            "A small number is added to avoid dividing by zero. Answer equal images directly: math.inf.",
        )
        for e in (1e-10, 1e-6, 1e-8, 1e-12)
    ),
    *(
        Mistake(lambda i, r, peak, v=v: _psnr(i, r, peak) if (i != r).any() else v, "For equal images the PSNR has no limit: math.inf.")
        for v in (0, 100)
    ),
    Mistake(
        lambda i, r, peak: 10 * math.log10(peak**2 / (i - r).double().square().mean().item()),
        "Equal images have an MSE of 0, which nothing can be divided by: ask for that first, and return math.inf.",
    ),
    Mistake(_psnr_variant(lambda e, peak: 10 * math.log10(e / peak**2)), "Upside down: the squared peak stands above the MSE."),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak**2 / e), lambda d: d.abs().mean()),
        "This takes the absolute differences: PSNR squares them.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 20 * math.log10(peak / e), lambda d: d.abs().mean()),
        "This takes the absolute differences: PSNR squares them, and takes the root of their mean.",
    ),
    Mistake(
        lambda i, r, peak: _psnr_variant(lambda e, _: 10 * math.log10(i.max().item() ** 2 / e))(i, r, peak),
        "The peak is the largest possible value, which is passed, not the largest value that occurs.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak**2 / e), lambda d: d.mean().square()),
        "Square first, then take the mean: errors of both signs must not cancel.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak / math.sqrt(e))),
        "This is half of it: 10 goes with the squares, peak² / MSE, and 20 with their roots.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak**2 / math.sqrt(e))), "A squared peak belongs over the MSE, not over its root."
    ),
    Mistake(_psnr_variant(lambda e, peak: peak**2 / e), "The logarithm is missing: 10 · log₁₀ of this."),
    Mistake(_psnr_variant(lambda e, peak: e), "That is the MSE: now turn it into decibels."),
    Mistake(_psnr_variant(lambda e, peak: -10 * math.log10(e)), "Use the peak that was passed: it is not always 1."),
    Mistake(
        lambda i, r, peak: _psnr_variant(lambda e, _: 10 * math.log10(r.max().item() ** 2 / e))(i, r, peak),
        "The peak is the largest possible value, which is passed, not the largest value that occurs.",
    ),
    Mistake(
        _psnr_variant(lambda e, peak: 10 * math.log10(peak**2 / e), lambda d: d.square().sum() / d[0].numel()),
        "All values count alike: divide by their number, colours included.",
    ),
    Mistake(
        lambda i, r, peak: (10 * (peak**2 / (i - r).double().square().mean((1, 2))).log10()).mean().item(),
        "One mean over all values, then the logarithm: not a PSNR for each channel.",
    ),
)


# --- 02.2 -------------------------------------------------------------------------------------------------------


def _protocol(image: torch.Tensor, reference: torch.Tensor, scale: int) -> float:
    return metrics.psnr(image, reference, border=scale)


def _protocol_variant(
    to_luma: Callable = images.rgb_to_y,
    *,
    rounding: Callable = images.quantize,
    cut: Callable | None = images.crop_border,
    luma_rounding: Callable = lambda y: y,
    peak: float = 1.0,
) -> Callable:
    """The protocol with one step done otherwise."""

    def variant(image: torch.Tensor, reference: torch.Tensor, scale: int) -> float:
        luma = [luma_rounding(to_luma(rounding(one.double()))) for one in (image, reference)]
        if cut:
            luma = [cut(one, scale) for one in luma]
        return _psnr(*luma, peak)

    return variant


def _full_range(rgb: torch.Tensor) -> torch.Tensor:
    red, green, blue = rgb.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)


def _protocol_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(22)

    def levels(low: float, high: float, *size: int) -> torch.Tensor:
        return (low + (high - low) * torch.rand(size, generator=random)).round()

    def fraction(*size: int) -> torch.Tensor:  # never close to a half, so that every way of rounding agrees
        return 0.8 * torch.rand(size, generator=random) - 0.4

    flat = torch.full((3, 12, 14), 51.0)
    tinted = flat + torch.tensor([30.0, 10.0, 20.0])[:, None, None]
    fine, bright = levels(40, 200, 3, 12, 16), levels(180, 250, 3, 17, 24)
    near = fine + levels(-2, 2, 3, 12, 16) + fraction(3, 12, 16)
    over = bright + levels(-20, 30, 3, 17, 24) + fraction(3, 17, 24)  # beyond white here and there, as bicubic goes
    pairs = [(tinted, flat, 2), (near, fine + 0.2, 2), (over, bright + 0.2, 4)]
    return [(image / 255, reference / 255, scale) for image, reference, scale in pairs]


def _without_rounding(image: torch.Tensor, reference: torch.Tensor, scale: int, rounded: tuple[bool, bool]) -> float:
    pair = [images.quantize(one.double()) if yes else one.double() for one, yes in zip((image, reference), rounded, strict=True)]
    return _protocol_variant(rounding=lambda one: one)(*pair, scale)


_BOTH = "Do the same to both images: one of them is not rounded to 8 bits."
_PROTOCOL_MISTAKES = (
    Mistake(_protocol_variant(lambda rgb: rgb), "This compares all three colours: convert both images to luma first."),
    Mistake(
        _protocol_variant(_full_range),
        "This luma runs from 0 to 255. The field's runs from 16 to 235 (studio range): 16 + 65.481 R + 128.553 G + 24.966 B.",
    ),
    Mistake(
        _protocol_variant(lambda rgb: images.rgb_to_y(rgb.flip(-3))),
        "Red and blue are exchanged (OpenCV reads files as BGR). Here the channels come as R, G, B.",
    ),
    Mistake(_protocol_variant(cut=None), "The border still counts: cut `scale` pixels off all four sides of both images."),
    Mistake(_protocol_variant(rounding=lambda one: one), "Round both images to 8 bits first: a saved file holds whole grey levels."),
    Mistake(
        _protocol_variant(rounding=lambda one: (one.clamp(0, 1) * 255).floor() / 255),
        "The 8-bit conversion cuts decimals off, as .to(torch.uint8) and .astype(np.uint8) do. Round to the nearest level.",
    ),
    Mistake(
        _protocol_variant(rounding=lambda one: (one * 255).round() / 255),
        "Clip to [0, 1] before rounding: a file holds no grey level below 0 or above 255.",
    ),
    Mistake(
        _protocol_variant(luma_rounding=lambda y: (y * 255).round() / 255),
        "The luma was rounded as well. Only the RGB image is: the luma keeps its decimals.",
    ),
    Mistake(
        _protocol_variant(cut=lambda y, scale: y[..., scale:, scale:]),
        "All four sides lose their border: cut at the end of both axes, too.",
    ),
    *(
        Mistake(_protocol_variant(cut=lambda y, scale, n=n: images.crop_border(y, n(scale))), "The border has exactly `scale` pixels.")
        for n in (lambda scale: scale // 2, lambda scale: 2 * scale, lambda scale: scale + 1, lambda scale: scale - 1)
    ),
    Mistake(_protocol_variant(cut=lambda y, scale: images.crop_border(y, 4)), "The border has `scale` pixels: it is not always 4."),
    Mistake(_protocol_variant(cut=lambda y, scale: images.crop_border(y, 2)), "The border has `scale` pixels: it is not always 2."),
    Mistake(_protocol_variant(peak=255), "The peak must fit the unit: 255 for grey levels, 1 for values in [0, 1]."),
    Mistake(_protocol_variant(peak=1 / 255), "The peak must fit the unit: 255 for grey levels, 1 for values in [0, 1]."),
    *(
        Mistake(_protocol_variant(peak=p / 255), "The peak is 255, also for a luma that ends at 235: that is the custom.")
        for p in (219, 235)
    ),
    Mistake(_protocol_variant(lambda rgb: rgb.mean(-3, keepdim=True)), "The luma weighs the colours: green most, blue least."),
    *(
        Mistake(
            _protocol_variant(lambda rgb, c=c: rgb[..., c : c + 1, :, :]), "That is one colour: the luma is a weighted sum of all three."
        )
        for c in (0, 1, 2)
    ),
    Mistake(lambda image, reference, scale: _without_rounding(image, reference, scale, (True, False)), _BOTH),
    Mistake(lambda image, reference, scale: _without_rounding(image, reference, scale, (False, True)), _BOTH),
)


# --- 02.4 -------------------------------------------------------------------------------------------------------


def _variance(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights * (x - (weights * x).sum()) ** 2).sum()


def _even(weights: torch.Tensor) -> torch.Tensor:
    return torch.full_like(weights, 1 / weights.numel())


def _window_variant(
    c1: Callable = lambda peak: (0.01 * peak) ** 2,
    c2: Callable = lambda peak: (0.03 * peak) ** 2,
    *,
    weigh: Callable = lambda w: w,
    spread: Callable = lambda value, count: value,
    variance: Callable = _variance,
    shared: Callable = lambda covariance, var_x, var_y: covariance,
    twice: tuple[float, float] = (2, 2),
    factors: Callable = lambda brightness, pattern: brightness * pattern,
) -> Callable:
    """SSIM of one window, with one part replaced."""

    def variant(x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor, peak: float) -> float:
        x, y, w = x.double(), y.double(), weigh(weights.double())
        mean_x, mean_y = (w * x).sum(), (w * y).sum()
        n = w.numel()
        var_x, var_y = spread(variance(x, w), n), spread(variance(y, w), n)
        covariance = shared(spread((w * (x - mean_x) * (y - mean_y)).sum(), n), var_x, var_y)
        luminance = (twice[0] * mean_x * mean_y + c1(peak)) / (mean_x**2 + mean_y**2 + c1(peak))
        return factors(luminance, (twice[1] * covariance + c2(peak)) / (var_x + var_y + c2(peak))).item()

    return variant


def _window_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(24)

    def pair(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.rand(height, width, generator=random)
        return x, (0.7 * x + 0.3 * torch.rand(height, width, generator=random)).clamp(0, 1)

    def bell(length: int) -> torch.Tensor:
        return torch.exp(-0.5 * ((torch.arange(length) - length // 2) / 1.5) ** 2)

    uniform, tall = torch.full((3, 3), 1 / 9), bell(7)[:, None] * bell(11)
    x, y = pair(7, 11)
    return [(*pair(3, 3), uniform, 1.0), (*pair(7, 11), tall / tall.sum(), 1.0), (255 * x, 255 * y, tall / tall.sum(), 255.0)]


_WINDOW_MISTAKES = (
    Mistake(
        _window_variant(spread=lambda value, n: value * n / (n - 1)),
        "This divides by n − 1 (sample statistics, the default of torch.var). The weights sum to one: Σ w (x − mean)² and no more.",
    ),
    Mistake(_window_variant(spread=lambda value, n: value.abs().sqrt()), "Leave the root: SSIM takes variances."),
    Mistake(_window_variant(variance=lambda x, w: _variance(x, w).sqrt()), "Leave the root: SSIM takes variances."),
    *(
        Mistake(
            _window_variant(variance=lambda x, w, c=c: x.var(correction=c)),
            "The variances count the weights, too: Σ w (x − mean)², not x.var().",
        )
        for c in (0, 1)
    ),
    Mistake(
        _window_variant(weigh=_even, variance=lambda x, w: x.var()), "All pixels count alike: use the weights, not x.mean() and x.var()."
    ),
    Mistake(
        _window_variant(shared=lambda covariance, var_x, var_y: (var_x * var_y).sqrt()),
        "σx·σy stands where the covariance σxy belongs: nothing then compares the two patterns.",
    ),
    Mistake(
        _window_variant(lambda peak: 0.01 * peak, lambda peak: 0.03 * peak),
        "The constants are squared: C₁ = (0.01·peak)² and C₂ = (0.03·peak)².",
    ),
    Mistake(
        _window_variant(lambda peak: (0.01 * 255) ** 2, lambda peak: (0.03 * 255) ** 2),
        "With images in [0, 1], the constants for 255 drown everything: use the peak that was passed.",
    ),
    Mistake(_window_variant(lambda peak: 0.01**2, lambda peak: 0.03**2), "These constants fit a peak of 1 only: C₁ = (0.01·peak)²."),
    *(
        Mistake(_window_variant(twice=twice), "A factor 2 is missing: with x = y each fraction must be 1.")
        for twice in ((1, 1), (1, 2), (2, 1))
    ),
    Mistake(_window_variant(factors=lambda brightness, pattern: pattern), "The fraction with the means, for the brightness, is missing."),
    Mistake(
        _window_variant(factors=lambda brightness, pattern: brightness), "The fraction with the variances, for the pattern, is missing."
    ),
    Mistake(_window_variant(factors=lambda brightness, pattern: brightness + pattern), "The two fractions are multiplied."),
    Mistake(_window_variant(factors=lambda brightness, pattern: (brightness + pattern) / 2), "The two fractions are multiplied."),
    Mistake(_window_variant(lambda peak: 0, lambda peak: 0), "The constants C₁ and C₂ are missing: they keep flat patches from 0 / 0."),
    Mistake(_window_variant(lambda peak: (0.03 * peak) ** 2, lambda peak: (0.01 * peak) ** 2), "C₁ and C₂ are exchanged."),
    Mistake(
        _window_variant(weigh=lambda w: w / w.numel()),
        "The weights sum to one already: (weights * x).sum() is the mean, .mean() divides again.",
    ),
    Mistake(_window_variant(weigh=_even), "All pixels count alike: use the weights."),
)


# --- the list ---------------------------------------------------------------------------------------------------

_BATCH = {
    "b": "Try two images, one nearly perfect (50 dB) and one poor (20 dB): which of the two numbers does the poor one dominate?",
    "c": "Draw −log₁₀: it is curved upwards everywhere, so the order is the same for any set of images (Jensen's inequality).",
    "d": "They agree only if all images have the same error. Try 20 dB and 40 dB by hand.",
}
_ORDER = {
    "b": "An eye would say so. But SSIM compares small windows position by position, and a one-pixel shift moves every edge.",
    "c": "Blur keeps the coarse pattern of a window, and a new mean brightness costs SSIM very little. Something else hurts more.",
}
_NOISE = (
    Mistake(8.06, "This is right for one channel, or for RGB. The luma adds three channels of independent noise, which partly cancels."),
    Mistake(12.06, "This takes the weights 0.299, 0.587, 0.114 of full-range luma. The protocol's are smaller: 65.481 / 255 and so on."),
    Mistake(0.055, "This is on the [0, 1] scale: give σ in 8-bit grey levels, as `noisy_psnr` takes it."),
)


def _sigma() -> float:
    """The noise per channel, in grey levels, that gives 30 dB on the luma."""
    return 255 * 10 ** (-30 / 20) / (math.hypot(65.481, 128.553, 24.966) / 255)


def _function(number: str, title: str, reference: Callable, cases: Callable, mistakes: tuple[Mistake, ...], points: int) -> Exercise:
    return Exercise(number, title, same_function(reference, cases, mistakes, tolerance=1e-4), mistakes, points)


def _choice(number: str, title: str, others: dict[str, str]) -> Exercise:
    return Exercise(number, title, one_of("a", others), tuple(Mistake(answer, hint) for answer, hint in others.items()))


EXERCISES = [
    _function("02.1", "You have PSNR, on any scale and safe for equal images.", _psnr, _psnr_cases, _PSNR_MISTAKES, 2),
    _function(
        "02.2", "You measure as the papers do: your numbers can stand beside theirs.", _protocol, _protocol_cases, _PROTOCOL_MISTAKES, 3
    ),
    _choice("02.3", "The mean of the decibels is never below the decibels of the mean error.", _BATCH),
    _function("02.4", "You have SSIM: slide this window over an image and average.", _window_variant(), _window_cases, _WINDOW_MISTAKES, 2),
    _choice("02.5", "SSIM forgives a brighter image and punishes noise.", _ORDER),
    Exercise(
        "02.6",
        "The luma takes in only part of the noise in R, G and B: 30 dB allow about 14 grey levels in each.",
        value_near(_sigma, _NOISE, tolerance=0.2),
        _NOISE,
        points=2,
    ),
]
