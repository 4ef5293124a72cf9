"""Adversarial losses on logits: what the discriminator minimises, and what the generator minimises against it.

Four games (``kind``), each for logits of any shape (N, ...): one an image, or a map of patches.

"bce"
    The classical game (P001 equations 4 and 6, P004 §3; Goodfellow et al. 2014), where a generator minimises
    -log D(G(x)) in place of log(1 - D(G(x))): the same goal, without a vanishing gradient when it is losing.
    Every patch is judged by itself.
"patch-mean"
    P000 equations 1 and 5: D is the *mean* of its patches' probabilities, and the logarithm is taken after it.
"least-squares"
    Squared distances of the logits from 1 (real) and 0 (generated) in place of the logarithms (Mao et al. 2017).
"relativistic"
    Whether a photograph is more real than the average generated image, and the reverse (relativistic average,
    Jolicoeur-Martineau 2018; ESRGAN's choice).

With σ the sigmoid, -log σ(x) is softplus(-x), which neither overflows nor takes the logarithm of zero.
"""

import math

import torch
import torch.nn.functional as F

KINDS = ("bce", "patch-mean", "least-squares", "relativistic")


def log_mean_sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """log of the mean over an image's patches of σ(logit): (N, ...) → (N,).

    P000 equation 5 takes this logarithm; written as it stands it is log 0 as soon as every probability rounds to zero.
    logsumexp of log σ is the same number, and finite for any finite logits.
    """
    if not logits.ndim:
        raise ValueError("the logits are a single number: expected (N, ...), one or more for each image")
    flat = F.logsigmoid(_float(logits if logits.ndim > 1 else logits[:, None]).flatten(1))  # (N, patches)
    return torch.logsumexp(flat, dim=1) - math.log(flat.shape[1])


def discriminator_loss(real_logits: torch.Tensor, fake_logits: torch.Tensor, kind: str = "bce") -> torch.Tensor:
    """What the discriminator minimises: a number ≥ 0.

    Parameters
    ----------
    real_logits, fake_logits : (N, ...) tensors
        Its logits for photographs and for generated images.
    kind : str
        One of `KINDS`.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    real, fake = _float(real_logits), _float(fake_logits)
    if kind == "bce":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    if kind == "patch-mean":  # 1 - mean σ(x) = mean σ(-x)
        return -log_mean_sigmoid(real).mean() - log_mean_sigmoid(-fake).mean()
    if kind == "least-squares":
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())
    if kind == "relativistic":
        return 0.5 * (F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean())
    raise _unknown(kind)


def generator_loss(fake_logits: torch.Tensor, kind: str = "bce", real_logits: torch.Tensor | None = None) -> torch.Tensor:
    """What the generator minimises: a number ≥ 0, smaller the more its images are taken for photographs.

    Parameters
    ----------
    fake_logits : (N, ...) tensor
        The discriminator's logits for generated images; the gradient flows through them.
    kind : str
        One of `KINDS`.
    real_logits : (N, ...) tensor
        For photographs; needed for "relativistic" only.

    Raises
    ------
    ValueError
        For an unknown kind, or without the real logits where they are needed.
    """
    fake = _float(fake_logits)
    if kind == "bce":
        return F.softplus(-fake).mean()
    if kind == "patch-mean":
        return -log_mean_sigmoid(fake).mean()
    if kind == "least-squares":
        return 0.5 * (fake - 1).square().mean()
    if kind == "relativistic":
        if real_logits is None:
            raise ValueError("the relativistic loss compares with photographs: pass real_logits")
        real = _float(real_logits)
        return 0.5 * (F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean())
    raise _unknown(kind)


@torch.no_grad()
def discriminator_accuracy(real_logits: torch.Tensor, fake_logits: torch.Tensor, kind: str = "bce") -> tuple[torch.Tensor, torch.Tensor]:
    """The shares of real and of generated patches (or images) that are judged rightly: two numbers in [0, 1].

    0.5 and 0.5 is guessing. The boundary is the logit 0 (probability ½), for "least-squares" ½, for "relativistic" the
    mean logit of the other side.
    """
    if kind not in KINDS:
        raise _unknown(kind)
    real, fake = _float(real_logits), _float(fake_logits)
    if kind == "relativistic":
        return (real > fake.mean()).float().mean(), (fake < real.mean()).float().mean()
    boundary = 0.5 if kind == "least-squares" else 0.0
    return (real > boundary).float().mean(), (fake < boundary).float().mean()


def _float(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _unknown(kind: str) -> ValueError:
    return ValueError(f"there is no adversarial loss {kind!r}: expected one of {', '.join(KINDS)}")
