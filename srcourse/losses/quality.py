"""Losses on predicted opinions: how far two distributions of scores are apart, and how good an upscaled image is said to be.

P002 equation 1 trains the score predictors; equations 4 to 7 train a generator with them as frozen judges.
"""

import torch
import torch.nn.functional as F

BEST = 10.0  # the highest score


def squared_emd(predicted: torch.Tensor, target: torch.Tensor, *, root: bool = False) -> torch.Tensor:
    """The squared earth mover's distance Σ_i (F_i - F'_i)² of distributions over ordered scores (P002 equation 1).

    Parameters
    ----------
    predicted, target : (N, scores) tensors
        Probabilities; F are their cumulative sums. Unlike cross entropy, it knows that a 7 is nearer to an 8 than a 1 is.
    root : bool
        The form of NIMA and of P002's own code: √(Σ_i (F_i - F'_i)² / scores).

    Returns
    -------
    The mean over the batch.

    Examples
    --------
    >>> squared_emd(torch.eye(10)[:1], torch.eye(10)[3:4]).item()  # all mass three scores away
    3.0
    """
    _same_shape("distributions", predicted, target)
    if predicted.dtype not in (torch.float32, torch.float64):  # half precision, or one-hot integers, which have no mean
        predicted = predicted.float()
    squares = (predicted.cumsum(-1) - target.cumsum(-1)).square()
    if not root:
        return squares.sum(-1).mean()
    return (squares.mean(-1) + torch.finfo(squares.dtype).tiny ** 0.5).sqrt().mean()  # the root's slope at 0 is infinite


def score_loss(sr_scores: torch.Tensor, hr_scores: torch.Tensor, *, alpha: float = 0.8) -> torch.Tensor:
    """max(0, (10 - S_sr) - α·(10 - S_hr)), the mean over the batch (P002 equations 4 and 6).

    Parameters
    ----------
    sr_scores, hr_scores : (N,) tensors
        Mean scores, 1 to 10, of the upscaled and of the original images; no gradient into the original's.
    alpha : float
        Below 1 it asks for more than the original: its distance from a perfect score, times α. P002: 0.8.
    """
    _same_shape("scores", sr_scores, hr_scores)
    return F.relu((BEST - sr_scores) - alpha * (BEST - hr_scores.detach())).mean()


def representation_loss(sr_features: torch.Tensor, hr_features: torch.Tensor, *, reduction: str = "mean") -> torch.Tensor:
    """The squared difference of a predictor's averaged features, (N, 1280) each (P002 equations 5 and 7).

    `reduction` runs over the features: "mean", as in the authors' code, or "sum", as printed in the paper, which is 1280
    times as much. Over the batch it is the mean.
    """
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}: expected 'mean' or 'sum'")
    _same_shape("features", sr_features, hr_features)
    squares = (sr_features.float() - hr_features.detach().float()).square()
    return (squares.mean(-1) if reduction == "mean" else squares.sum(-1)).mean()


def _same_shape(what: str, a: torch.Tensor, b: torch.Tensor) -> None:
    """Refuse tensors that would be broadcast to each other, which is never meant here."""
    if a.shape != b.shape:
        raise ValueError(f"the {what} have shapes {tuple(a.shape)} and {tuple(b.shape)}: expected equal ones")
