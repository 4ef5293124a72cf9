"""Checks of lesson 06: Gram matrices, MSCN, NIQE's distance and its blind spot, the squared EMD, mean opinion scores."""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from srcourse import degradation, images
from srcourse.exercises.checking import Exercise, Mistake, Wrong, one_of, require, same_function, same_gradient, value_near
from srcourse.losses import squared_emd
from srcourse.metrics import niqe
from srcourse.metrics.niqe import local_mean, mscn

# --- 06.1: a prediction -------------------------------------------------------------------------------------------

_QUARTERS = {
    "a": "The Gram matrix sums over all positions. Does a sum care in which order its terms come?",
    "b": "Half of the grey's: that would mean that half of what the Gram matrix counts is gone. What is gone, when quarters change places?",
    "d": "Nearly. But at the seams bricks meet that did not, and the image's edge is another one: a few features are new.",
}

# --- 06.2: MSCN ---------------------------------------------------------------------------------------------------


def my_mscn(luma: torch.Tensor) -> torch.Tensor:
    """(Y - μ)/(σ + 1)."""
    return mscn(luma)[0]


def _mscn(luma: torch.Tensor, mean: Callable = local_mean, offset: float = 1.0, root: bool = True, subtract: bool = True) -> torch.Tensor:
    middle = mean(luma)
    variance = (mean(luma * luma) - middle * middle).abs()
    return (luma - middle if subtract else luma) / ((variance.sqrt() if root else variance) + offset)


def _signed_root(luma: torch.Tensor) -> torch.Tensor:
    middle = local_mean(luma)
    return (luma - middle) / ((local_mean(luma * luma) - middle * middle).sqrt() + 1)


def _of_residuals(luma: torch.Tensor) -> torch.Tensor:
    rest = luma - local_mean(luma)
    return rest / (local_mean(rest * rest).sqrt() + 1)


def _zero_padded(x: torch.Tensor) -> torch.Tensor:
    window = degradation.gaussian_kernel(7 / 6, size=7).to(x)
    return F.conv2d(x[:, None], window[None, None], padding=3)[:, 0]


def _even_window(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(F.pad(x[:, None], (3,) * 4, mode="replicate"), 7, stride=1)[:, 0]


def _global(luma: torch.Tensor) -> torch.Tensor:
    return (luma - luma.mean((-2, -1), keepdim=True)) / (luma.std((-2, -1), keepdim=True) + 1)


def _deviation(luma: torch.Tensor) -> torch.Tensor:
    return (local_mean(luma * luma) - local_mean(luma) ** 2).abs().sqrt() + 1


_BRACKETS = "Mind the brackets: (Y - μ) stands above the line, (σ + 1) below it."
_MSCN = (
    Mistake(lambda luma: _mscn(luma, offset=1e-8), "σ + 1, with a whole 1: grey levels run from 0 to 255."),
    Mistake(lambda luma: _mscn(luma, offset=1 / 255), "The luma is in grey levels, 0 to 255: the constant is 1, not 1/255."),
    Mistake(lambda luma: _mscn(luma, root=False), "That divides by the variance: the deviation σ is its root."),
    Mistake(lambda luma: _mscn(luma, subtract=False), "The local mean is missing: Y - μ stands above the line."),
    Mistake(
        lambda luma: _mscn(luma, mean=_zero_padded), "Zeros beyond the edge darken the rim: repeat the edge pixels, as local_mean does."
    ),
    Mistake(lambda luma: _mscn(luma, mean=_even_window), "The window is a Gaussian of deviation 7/6, not an even one."),
    Mistake(_of_residuals, "The mean of (Y - μ)² is something else, since μ changes within the window: take the mean of Y², minus μ²."),
    Mistake(_signed_root, "Rounding can make the difference under the root slightly negative, and the root NaN: take its absolute value."),
    Mistake(_global, "Mean and deviation are local: one of each for every pixel."),
    Mistake(lambda luma: -_mscn(luma), "The sign is the wrong way round: Y - μ."),
    Mistake(lambda luma: mscn(luma), "Return the coefficients alone."),
    Mistake(lambda luma: luma - local_mean(luma), "Divide by σ + 1, too."),
    Mistake(lambda luma: _mscn(luma / 255), "The luma stays in grey levels, 0 to 255: no division by 255."),
    Mistake(lambda luma: _mscn(luma, offset=0), "σ + 1: in flat places σ is 0, and nothing can be divided by it."),
    Mistake(
        lambda luma: (luma - local_mean(luma)) / ((local_mean(luma * luma) - local_mean(luma) ** 2).abs() + 1).sqrt(),
        "The root comes before the + 1: √(variance) + 1.",
    ),
    Mistake(
        lambda luma: (luma - local_mean(luma)) / ((local_mean(luma) ** 2 - local_mean(luma * luma)).sqrt() + 1),
        "The variance is the mean of the squares minus the square of the mean, not the other way round.",
    ),
    Mistake(lambda luma: luma - local_mean(luma) / _deviation(luma), _BRACKETS),
    Mistake(lambda luma: luma / _deviation(luma) - local_mean(luma), _BRACKETS),
    Mistake(lambda luma: (luma - local_mean(luma)) / (_deviation(luma) - 1) + 1, _BRACKETS),
)


def _lumas() -> list[tuple]:
    random = torch.Generator().manual_seed(62)
    ramp = torch.arange(8.0, dtype=torch.float64).expand(1, 8, 8) * 20
    flat = (torch.arange(1, 41, dtype=torch.float64) * 5.7).view(40, 1, 1).expand(40, 7, 7).contiguous()  # of any flat image σ is 0
    texture = torch.rand(2, 24, 31, generator=random, dtype=torch.float64) * 255
    return [(ramp,), (flat,), (texture,)]


# --- 06.3: NIQE's distance ----------------------------------------------------------------------------------------


def niqe_distance(rows: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> float:
    """√((μ - μ₀)ᵀ ((Σ + Σ₀)/2)⁺ (μ - μ₀))."""
    return _distance(rows, mean, (torch.cov(rows.T) + covariance) / 2)


def _distance(rows: torch.Tensor, mean: torch.Tensor, pooled: torch.Tensor, inverse: Callable = torch.linalg.pinv) -> float:
    difference = rows.mean(dim=0) - mean
    return (difference @ inverse(pooled) @ difference).sqrt().item()


_SINGULAR = "Here the average is singular, and has no inverse: take the pseudo-inverse, torch.linalg.pinv."
_AXES = "Everything is by feature: the mean runs over the blocks, axis 0, and torch.cov wants one row for each feature, rows.T."
_DISTANCES = (
    Mistake(lambda r, m, c: _distance(r, m, torch.cov(r.T) + c), "The two covariances are averaged: half of their sum."),
    Mistake(lambda r, m, c: niqe_distance(r, m, c) ** 2, "The root comes last."),
    Mistake(lambda r, m, c: _distance(r, m, c), "The image's own covariance, torch.cov(rows.T), counts too."),
    Mistake(lambda r, m, c: _distance(r, m, torch.cov(r.T)), "The pristine covariance counts too."),
    Mistake(lambda r, m, c: _distance(r, m, (torch.cov(r.T) + c) / 2, lambda x: x), "The covariance is inverted: torch.linalg.pinv."),
    Mistake(
        lambda r, m, c: _distance(r, m, (torch.cov(r.T) + c) / 2, lambda x: 1 / x),
        "The inverse of a matrix, torch.linalg.pinv, not of each of its numbers.",
    ),
    Mistake(
        lambda r, m, c: _distance(r, m, (torch.cov(r.T, correction=0) + c) / 2),
        "Divide by one less than the number of blocks: torch.cov does by itself.",
    ),
    Mistake(
        lambda r, m, c: _distance(r, m, ((torch.cov(r.T) + c) / 2).diag().diag()),
        "The whole covariance, not its diagonal: see the control above.",
    ),
    Mistake(
        lambda r, m, c: torch.stack([_row_distance(row, m, (torch.cov(r.T) + c) / 2) for row in r]).mean().item(),
        "One distance, of the mean of all blocks: not the mean of the blocks' distances.",
    ),
    Mistake(lambda r, m, c: _distance(r, m, torch.cov(r) + c), _AXES),
    Mistake(lambda r, m, c: (r.mean(1) - m) @ c, _AXES),
    Mistake(lambda r, m, c: _distance(r, m, torch.cov(r.T) + c / 2), "Mind the brackets: half of the sum of both."),
    Mistake(
        lambda r, m, c: _distance(r, m, (torch.linalg.pinv(torch.cov(r.T)) + torch.linalg.pinv(c)) / 2, lambda x: x),
        "Average the covariances first, then invert: not the mean of two inverses.",
    ),
    Mistake(lambda r, m, c: (r.mean(0) - m).norm().item(), "That is the plain distance: the inverse covariance is missing."),
    Mistake(lambda r, m, c: _distance(r, m, (torch.corrcoef(r.T) + c) / 2), "The covariance, torch.cov, not the correlation."),
    Mistake(
        lambda r, m, c: (r.mean(0) - m) @ torch.linalg.pinv((torch.cov(r.T) + c) / 2),
        "The difference stands on both sides: d @ A @ d is one number.",
    ),
    Mistake(
        lambda r, m, c: _distance(r, m, (torch.cov(r.T) + c) / 2, torch.linalg.inv),
        _SINGULAR,
    ),
)


def _row_distance(row: torch.Tensor, mean: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    return ((row - mean) @ torch.linalg.pinv(pooled) @ (row - mean)).sqrt()


def _gaussians() -> list[tuple]:
    random = torch.Generator().manual_seed(63)
    eye = torch.eye(2, dtype=torch.float64)
    cases = [(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 2.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64), eye)]
    for blocks, features in ((3, 4), (40, 36)):
        root = torch.randn(features, features, generator=random, dtype=torch.float64)
        rows = torch.randn(blocks, features, generator=random, dtype=torch.float64)
        cases.append(
            (rows, torch.randn(features, generator=random, dtype=torch.float64), root @ root.T / features + 0.1 * torch.eye(features))
        )
    flat = torch.tensor([[1.0, 2.0, 0.0], [3.0, 1.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64)  # a feature that never changes
    return [*cases, (flat, torch.zeros(3, dtype=torch.float64), torch.diag(torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)))]


def _check_distance(answer: Any) -> None:
    try:
        same_function(niqe_distance, _gaussians, _DISTANCES, tolerance=1e-4)(answer)
    except Wrong as wrong:
        raise Wrong(str(wrong), _SINGULAR if "singular" in str(wrong).lower() else wrong.hint) from None


# --- 06.4: blur for a better score --------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _best_blur() -> float:
    """The σ at which the blurred `camera` has its lowest NIQE, on the lesson's grid near the minimum."""
    photo = images.sample("camera")
    found = {k: niqe(degradation.blur(photo, degradation.gaussian_kernel(0.05 * k)).clamp(0, 1)) for k in range(8, 13)}
    return 0.05 * min(found, key=found.get)


_BLURS = (
    Mistake(0.3, "Even the lightest blur lowers NIQE a little here, but it falls on: try larger σ too."),
    Mistake(1.0, "That blur is plainly visible, and NIQE is far above the photo's: try smaller σ."),
    Mistake(2.27, "That is near the lowest NIQE itself. Asked for is the σ that gives it."),
)

# --- 06.5: the squared earth mover's distance ---------------------------------------------------------------------

_EMD = (
    Mistake(
        lambda p, t: (p - t).square().sum(1).mean(), "Compare the cumulative sums, cumsum(dim=1): without them a 7 is as far from 8 as a 1."
    ),
    Mistake(
        lambda p, t: squared_emd(p, t, root=True), "That is NIMA's form, a root of a mean; P002's equation 1 is a plain sum of squares."
    ),
    Mistake(lambda p, t: (p.cumsum(1) - t.cumsum(1)).square().mean(), "A sum over the ten scores; a mean over the images only."),
    Mistake(lambda p, t: (p.cumsum(1) - t.cumsum(1)).square().sum(), "A mean over the images: the loss is no larger for more of them."),
    Mistake(lambda p, t: (p.cumsum(1) - t.cumsum(1)).abs().sum(1).mean(), "Squares, not sizes: that is the plain earth mover's distance."),
    Mistake(lambda p, t: (p.cumsum(0) - t.cumsum(0)).square().sum(1).mean(), "Add up over the scores, dim=1, not over the images."),
    Mistake(lambda p, t: (p.cumsum(1) - t.cumsum(1)).sum(1).square().mean(), "Square each difference first, then add up."),
    Mistake(lambda p, t: -(t * p.clamp(min=1e-9).log()).sum(1).mean(), "That is the cross entropy, which knows no order of scores."),
    Mistake(lambda p, t: squared_emd(p, t) * len(p) / 10, "Sum over the scores, dim=1, then the mean over the images."),
    Mistake(lambda p, t: squared_emd(p, t).sqrt(), "No root: a plain sum of squares."),
    Mistake(lambda p, t: squared_emd(p, t).item(), "It is a loss: return a tensor, without .item(), so that a gradient can pass."),
    Mistake(lambda p, t: squared_emd(p, t).detach(), "It is a loss: no .detach(), so that a gradient can pass."),
)


def _distributions() -> list[tuple]:
    random = torch.Generator().manual_seed(65)
    one = torch.eye(10)
    drawn = torch.rand(2, 6, 10, generator=random).softmax(dim=-1)
    return [(one[[6, 0]], one[[7, 4]]), (one[:1], one[6:7]), (one[[0, 4]], one[[9, 3]]), (drawn[0], drawn[1])]


def _check_emd(answer: Any) -> None:
    same_function(squared_emd, _distributions, _EMD)(answer)
    same_gradient(squared_emd, _distributions)(answer)


# --- 06.6: mean opinion scores ------------------------------------------------------------------------------------


def mean_opinion(ratings: torch.Tensor) -> tuple[float, float]:
    """(MOS, half the width of its 95 % interval)."""
    return _opinion(ratings)


def _opinion(
    ratings: torch.Tensor, level: float = 0.975, less: int = 1, correction: int = 1, power: float = 0.5, width: float = 1.0
) -> tuple[float, float]:
    from scipy.special import stdtrit

    n = len(ratings)
    quantile = stdtrit(n - less, level) if math.isfinite(level) else 1.96
    deviation = ratings.double().std(correction=correction).item()
    return ratings.double().mean().item(), float(width * quantile * deviation / n**power)


def _t(n: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))


_OPINIONS = (
    Mistake(lambda r: _opinion(r, level=math.inf), "1.96 is the Gaussian's: with few people the interval is wider, by Student's t."),
    Mistake(lambda r: _opinion(r, correction=0), "The sample deviation divides by n - 1 (NumPy's std: ddof=1)."),
    Mistake(lambda r: _opinion(r, power=0), "That is how much people differ. The mean of n people is √n times as sure: divide by √n."),
    Mistake(lambda r: _opinion(r, power=1), "Divide by the root of n, not by n."),
    Mistake(lambda r: _opinion(r, level=0.95), "That leaves 5 % at either end, a 90 % interval: take the quantile at 0.975."),
    Mistake(lambda r: _opinion(r, less=0), "The degrees of freedom are n - 1: one is used up by the mean."),
    Mistake(lambda r: _opinion(r, level=0.025), "The quantile at 0.025 is the negative one: half a width is positive."),
    Mistake(
        lambda r: (r.mean().item(), 2 * r.std().item() / len(r) ** 0.5), "A factor of 2 suits large groups only: take Student's quantile."
    ),
    Mistake(lambda r: (_opinion(r)[0], _opinion(r)[1] * r.std().item()), "That is the variance: the deviation is its root (std, not var)."),
    Mistake(lambda r: (_opinion(r)[0], _opinion(r)[1] * (len(r) / (len(r) - 1)) ** 0.5), "Divide by √n: std has divided by n - 1 already."),
    *(
        Mistake(lambda r, n=n: (_opinion(r)[0], float(_t(n) * r.std().item() / n**0.5)), "Use len(ratings): the number of people varies.")
        for n in (3, 15)
    ),
    *(
        Mistake(
            lambda r, t=t: (_opinion(r)[0], t * r.std().item() / len(r) ** 0.5),
            "t depends on how many people there are: stdtrit(n - 1, 0.975).",
        )
        for t in (2.14, _t(15), _t(3))
    ),
    Mistake(lambda r: _opinion(r, width=2), "That is the whole width: half of it is asked for."),
    Mistake(
        lambda r: (_opinion(r)[0] - _opinion(r)[1], _opinion(r)[0] + _opinion(r)[1]),
        "Those are the interval's ends: return the mean and half of the width.",
    ),
    Mistake(lambda r: (r.median().item(), _opinion(r)[1]), "The mean, not the median."),
    Mistake(lambda r: _opinion(r)[0], "Two numbers are asked for: return mean, half."),
    Mistake(lambda r: _opinion(r)[::-1], "The order is (mean, half)."),
)


def _ratings() -> list[tuple]:
    many = torch.randint(1, 5, (15,), generator=torch.Generator().manual_seed(66)).float()
    return [(torch.tensor([2.0, 4.0, 4.0]),), (torch.tensor([1.0, 2.0, 2.0, 4.0, 3.0, 1.0]),), (many,)]


def _check_opinion(answer: Any) -> None:
    def as_pair(ratings: torch.Tensor) -> Any:  # a tensor or an array of two numbers will do
        found = answer(ratings)
        if isinstance(found, torch.Tensor | np.ndarray) and tuple(found.shape) == (2,):
            return tuple(found.tolist())
        return tuple(found) if isinstance(found, list) else found

    require(callable(answer), "expected a function", "Pass the function itself, without calling it.")
    same_function(mean_opinion, _ratings, _OPINIONS, tolerance=1e-4)(as_pair)


EXERCISES = [
    Exercise(
        id="06.1",
        title="A Gram matrix counts what there is, not where.",
        check=one_of("c", _QUARTERS),
        mistakes=tuple(Mistake(answer, hint) for answer, hint in _QUARTERS.items()),
    ),
    Exercise(
        id="06.2",
        title="You can take light and contrast away from an image.",
        check=same_function(my_mscn, _lumas, _MSCN),
        mistakes=_MSCN,
        points=2,
    ),
    Exercise(
        id="06.3",
        title="You have NIQE's distance, the last of its five steps.",
        check=_check_distance,
        mistakes=_DISTANCES,
        points=2,
    ),
    Exercise(
        id="06.4",
        title="NIQE likes the camera best when it is slightly out of focus.",
        check=value_near(_best_blur, _BLURS, tolerance=0.026),
        mistakes=_BLURS,
    ),
    Exercise(
        id="06.5",
        title="You can train a predictor of opinions: it knows which scores are neighbours.",
        check=_check_emd,
        mistakes=_EMD,
        points=2,
    ),
    Exercise(
        id="06.6",
        title="You can say how sure a mean opinion score is.",
        check=_check_opinion,
        mistakes=_OPINIONS,
        points=2,
    ),
]
