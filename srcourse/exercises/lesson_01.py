"""Checks of lesson 01: the cubic kernel, centred decimation, aliasing, Gaussian kernels, contrast and back-projection."""

import math
from functools import cache

import torch

from srcourse import degradation
from srcourse.exercises.checking import Exercise, Mistake, one_of, same_function, value_near

# --- 01.1: Keys' kernel -----------------------------------------------------------------------------------------


def _keys(t: torch.Tensor, a: float) -> torch.Tensor:
    return _near_and_far(t.abs(), a, torch.zeros_like(t))


def _near_and_far(t: torch.Tensor, a: float, beyond: torch.Tensor) -> torch.Tensor:
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, beyond))


def _keys_without_zero(t: torch.Tensor, a: float) -> torch.Tensor:
    t = t.abs()
    return _near_and_far(t, a, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a)


def _key_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(1)
    return [
        (torch.tensor([0.0, 0.5, 1.0]), -0.5),
        (torch.tensor([0.5, 1.25, 1.5]), -0.75),
        (torch.tensor([-0.5, -1.5]), -0.5),
        (torch.tensor([2.0, 2.5, -3.0]), -0.5),
        (6 * torch.rand((4, 7), generator=random, dtype=torch.float64) - 3, -1.0),
    ]


_KEYS_MISTAKES = (
    Mistake(lambda t, a: _keys(t, -0.5), "The result must depend on a: put a into both polynomials, in place of -0.5."),
    Mistake(lambda t, a: _near_and_far(t, a, torch.zeros_like(t)), "Distances can be negative: take t.abs() first."),
    Mistake(lambda t, a: _keys(t, -0.75), "The result must depend on a, which is not always -0.75."),
    Mistake(lambda t, a: torch.where(t.abs() <= 1, _keys(t, a), _keys(t, -0.5)), "The outer polynomial depends on a, too."),
    Mistake(lambda t, a: torch.where(t.abs() <= 1, _keys(t, -0.5), _keys(t, a)), "The inner polynomial depends on a, too."),
    Mistake(
        lambda t, a: torch.where((t.abs() > 1) & (t.abs() < 2), _keys(t, a) + 4 * a - 4, _keys(t, a)),
        "The outer polynomial ends with - 4a, not with - 4.",
    ),
    Mistake(lambda t, a: _keys(t, -a), "a keeps its sign: it is negative already."),
    Mistake(lambda t, a: torch.where(t.abs() <= 1, _keys(t, a), torch.zeros_like(t)), "Between one and two pixels the kernel is not 0."),
    Mistake(lambda t, a: _keys(t, a) - (t.abs() <= 1).to(t), "The inner polynomial ends with + 1: the kernel is 1 in the middle."),
    Mistake(lambda t, a: _keys(t, a) / _keys(t, a).sum(), "Do not divide by the sum: asked for are values of the kernel itself."),
    Mistake(_keys_without_zero, "Beyond two pixels the kernel is 0: the outer polynomial holds for 1 < |t| < 2 only."),
)


# --- 01.4: a Gaussian kernel ------------------------------------------------------------------------------------


def _gaussian(sigma: float, size: int) -> torch.Tensor:
    return degradation.gaussian_kernel(sigma, size=size)


def _bell(size: int, exponent: float, *, middle: float | None = None, normalise: bool = True) -> torch.Tensor:
    """exp(exponent · squared distance from the middle), on a grid."""
    offset = torch.arange(size, dtype=torch.float64) - (size // 2 if middle is None else middle)
    kernel = torch.exp(exponent * (offset[:, None] ** 2 + offset**2))
    return kernel / kernel.sum() if normalise else kernel


def _line(size: int, sigma: float) -> torch.Tensor:
    return torch.exp(-0.5 * ((torch.arange(size, dtype=torch.float64) - size // 2) / sigma) ** 2)


_SQUARE = "That is one row: the kernel is a square, size × size. Multiply the row by itself as a column, then divide by the sum."
_GAUSSIAN_MISTAKES = (
    Mistake(lambda sigma, size: _bell(size, -0.5 / sigma**2, normalise=False), "The weights must sum to one: divide by kernel.sum()."),
    Mistake(
        lambda sigma, size: _bell(size, -0.5 / sigma**2, normalise=False) / (2 * math.pi * sigma**2),
        "1/(2πσ²) is right for a continuous Gaussian; on a grid of finite size, divide by the sum of the weights.",
    ),
    Mistake(lambda sigma, size: _line(size, sigma), _SQUARE),
    Mistake(lambda sigma, size: _line(size, sigma) / _line(size, sigma).sum(), _SQUARE),
    Mistake(lambda sigma, size: _bell(size, -0.5 / sigma), "Sigma is the standard deviation: it stands squared in the exponent."),
    Mistake(lambda sigma, size: _bell(size, -1 / sigma**2), "The exponent is -(u² + v²)/(2σ²): the 2 is missing."),
    Mistake(
        lambda sigma, size: _bell(size, -0.5 / sigma**2, middle=0), "The offsets run from -(size // 2) to size // 2: 0 is in the middle."
    ),
    Mistake(
        lambda sigma, size: _bell(size, -0.5 / sigma**2, middle=(size + 1) / 2), "Pixels are numbered from 0: the middle is size // 2."
    ),
    Mistake(lambda sigma, size: _bell(size, 0.5 / sigma**2), "The exponent is negative: the middle weighs most."),
    Mistake(lambda sigma, size: _bell(size, -0.5), "Use `sigma`: it is not always 1."),
    Mistake(
        lambda sigma, size: _gaussian(sigma, size + 2), "`size` is the side of the kernel, not its radius or a side without the middle."
    ),
    Mistake(lambda sigma, size: _gaussian(sigma, 2 * size + 1), "`size` is the whole side of the kernel, not the radius."),
    Mistake(
        lambda sigma, size: _gaussian(sigma, size) / _gaussian(sigma, size).sum(1, keepdim=True),
        "All weights together sum to one, not those of each row: kernel.sum() without an axis.",
    ),
    Mistake(
        lambda sigma, size: _bell(size * 2 - 1, -0.5 / (sigma * (size - 1)) ** 2)[::2, ::2],
        "The offsets are whole pixels, -(size // 2) to size // 2, not fractions from -1 to 1.",
    ),
    Mistake(
        lambda sigma, size: (_line(size, sigma)[:, None] + _line(size, sigma)) / (2 * size * _line(size, sigma).sum()),
        "Column times row, not plus: exponents add when their exponentials are multiplied.",
    ),
    Mistake(
        lambda sigma, size: _bell(size * 2 - 1, -2 / (sigma * (size - 1)) ** 2)[::2, ::2],
        "The offsets are whole pixels, -(size // 2) to size // 2, not fractions from -1 to 1.",
    ),
    Mistake(lambda sigma, size: _bell(size - 1, -0.5 / sigma**2), "arange leaves its end out: the last offset is size // 2."),
    Mistake(lambda sigma, size: _bell(size, -0.5 / sigma**2, middle=size / 2), "The middle pixel is number size // 2, not size / 2."),
)


# --- 01.5: the period that keeps half of its contrast -----------------------------------------------------------


@cache
def _half_contrast_period(sigma: float = 1.0, scale: int = 4) -> float:
    """Where stripes keep half of their contrast after Gaussian blur and bicubic, in HR pixels, by bisection."""
    chain = degradation.create("gaussian-bicubic", scale=scale, sigma=sigma)
    low, high = 1.0 * scale, 8.0 * scale
    while high - low > 0.01:
        period = (low + high) / 2
        phase = 2 * math.pi * torch.arange(scale * 240, dtype=torch.float64) / period
        stripes = 0.5 + 0.4 * torch.stack([phase.cos(), phase.sin()])  # (2, W)
        row = chain(stripes[:, None].expand(2, 16 * scale, -1))[:, 8, 16:-16]
        contrast = (row - 0.5).square().sum(0).mean().sqrt().item() / 0.4
        low, high = (period, high) if contrast < 0.5 else (low, period)
    return (low + high) / 2


_PERIOD_MISTAKES = (
    Mistake(8.0, "That is plain bicubic, at twice the scale. The blur comes on top: which degradation did you pass?"),
    Mistake(4.0, "That is the scale. One period needs a light and a dark stripe, and the blur takes contrast as well."),
    Mistake(12.3, "That belongs to a blur of σ = 2; P000 uses σ = 1."),
    Mistake(2.28, "That is in LR pixels: the question asks for HR pixels, 4 times as many."),
)


# --- 01.6: back-projection --------------------------------------------------------------------------------------


def _back_project(estimate: torch.Tensor, lr: torch.Tensor, scale: int) -> torch.Tensor:
    return estimate + degradation.upscale(lr - degradation.downscale(estimate, scale), scale)


def _back_projection_cases() -> list[tuple]:
    random = torch.Generator().manual_seed(6)
    cases = [(torch.full((1, 8, 8), 0.25, dtype=torch.float64), torch.full((1, 4, 4), 0.875, dtype=torch.float64), 2)]
    for channels, height, width, scale in ((1, 6, 9, 2), (3, 5, 8, 4), (3, 7, 4, 3)):
        estimate = torch.rand((channels, scale * height, scale * width), generator=random, dtype=torch.float64)
        cases.append((estimate, torch.rand((channels, height, width), generator=random, dtype=torch.float64), scale))
    return cases


def _steps(estimate: torch.Tensor, lr: torch.Tensor, scale: int, count: int, clip: bool) -> torch.Tensor:
    for _ in range(count):
        estimate = _back_project(estimate.clamp(0, 1) if clip else estimate, lr, scale)
    return estimate


_BACK_PROJECTION_MISTAKES = (
    Mistake(
        lambda estimate, lr, scale: estimate + (lr - degradation.downscale(estimate, scale)),
        "Two sizes meet: shrink the estimate before the difference is taken, and enlarge the difference before it is added.",
    ),
    *(
        Mistake(lambda *given, n=n, c=c: _steps(*given, n, c), "One step is asked for: no loop.")
        for n in (60, 2, 10)
        for c in (False, True)
    ),
    Mistake(
        lambda estimate, lr, scale: estimate - degradation.upscale(lr - degradation.downscale(estimate, scale), scale),
        "The sign is turned: this step moves away from the LR image. Add what is missing.",
    ),
    Mistake(
        lambda estimate, lr, scale: degradation.upscale(lr - degradation.downscale(estimate, scale), scale),
        "This is the correction alone: add it to the estimate.",
    ),
    Mistake(
        lambda estimate, lr, scale: estimate + degradation.upscale(lr, scale) - estimate,
        "This throws the estimate away: what is left is bicubic enlarging. The difference is taken in LR, after shrinking the estimate.",
    ),
    Mistake(
        lambda estimate, lr, scale: degradation.upscale(2 * lr - degradation.downscale(estimate, scale), scale),
        "The correction is added to the estimate, not to the enlarged LR image.",
    ),
    Mistake(lambda estimate, lr, scale: (estimate + _back_project(estimate, lr, scale)) / 2, "The whole difference is added, not half."),
    Mistake(
        lambda estimate, lr, scale: (estimate + degradation.upscale(lr, scale)) / 2, "No average: add what is missing to the estimate."
    ),
    Mistake(
        lambda estimate, lr, scale: estimate + degradation.upscale((lr - degradation.downscale(estimate, scale)).abs(), scale),
        "The difference keeps its sign: where the estimate is too bright, it becomes darker.",
    ),
    Mistake(
        lambda estimate, lr, scale: estimate + degradation.upscale((lr - degradation.downscale(estimate, scale)).clamp(0, 1), scale),
        "Don't clip the difference: where the estimate is too bright, it is negative.",
    ),
    Mistake(
        lambda estimate, lr, scale: estimate + degradation.upscale(lr - estimate[:, ::scale, ::scale], scale),
        "Picking every scale-th pixel moves the image: shrink with sr.degradation.downscale.",
    ),
    Mistake(
        lambda estimate, lr, scale: (
            estimate + (lr - degradation.downscale(estimate, scale)).repeat_interleave(scale, -1).repeat_interleave(scale, -2)
        ),
        "Enlarge the difference with sr.degradation.upscale, not by repeating pixels.",
    ),
    Mistake(lambda estimate, lr, scale: _back_project(estimate, lr, scale).clamp(0, 1), "Don't clip: one step may leave [0, 1]."),
)


EXERCISES = [
    Exercise(
        id="01.1",
        title="You have the kernel of every bicubic: MATLAB's with a = -0.5, PyTorch's default with a = -0.75.",
        check=same_function(_keys, _key_cases, _KEYS_MISTAKES),
        mistakes=_KEYS_MISTAKES,
        points=2,
    ),
    Exercise(
        id="01.2",
        title="Centred: c_0 = 0.5·3 - 0.5 = 1, and so every LR pixel of a ×3 image starts from there.",
        check=one_of(
            "b",
            {
                "a": "Pixel 0 is the corner of the 3×3 block that LR pixel 0 stands for, not its centre.",
                "c": "One HR pixel is a third of an LR pixel, along every edge of the image. Run the next cell and compare.",
            },
        ),
        mistakes=(Mistake("a", "Pixel 0 is the block's corner."), Mistake("c", "The next cell measures how much it counts.")),
    ),
    Exercise(
        id="01.3",
        title="Only a mean over many periods, with smooth weights, turns stripes that are too fine into grey.",
        check=one_of(
            "c",
            {
                "a": "A single pixel is light or dark, never the mean of both: see which stripes come out.",
                "b": "Four pixels with a strong middle pair are hardly more than one period of 3: most of the contrast stays.",
            },
        ),
        mistakes=(Mistake("a", "A single pixel is no mean."), Mistake("b", "Four pixels are too few at ×4.")),
    ),
    Exercise(
        id="01.4",
        title="You have the blur of P000's degradation; with bicubic after it, that is the whole recipe.",
        check=same_function(_gaussian, lambda: [(1.0, 3), (1.0, 7), (0.6, 5), (2.3, 15)], _GAUSSIAN_MISTAKES),
        mistakes=_GAUSSIAN_MISTAKES,
        points=2,
    ),
    Exercise(
        id="01.5",
        title="You measured how blur moves the limit of what an LR image shows: from 8 to about 9 HR pixels at ×4.",
        check=value_near(
            _half_contrast_period,
            _PERIOD_MISTAKES,
            tolerance=0.1,
            below="Too short: try periods in steps of 0.1 or less.",
            above="Too long: try periods in steps of 0.1 or less.",
        ),
        mistakes=_PERIOD_MISTAKES,
        points=3,
    ),
    Exercise(
        id="01.6",
        title="You can make any estimate agree with its LR image, step by step.",
        check=same_function(_back_project, _back_projection_cases, _BACK_PROJECTION_MISTAKES),
        mistakes=_BACK_PROJECTION_MISTAKES,
        points=2,
    ),
]
