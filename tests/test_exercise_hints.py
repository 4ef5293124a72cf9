"""The exercises' hints: the commonest wrong answers of each get the hint that fits, and right answers in other words pass."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from srcourse import degradation, exercises, metrics
from srcourse.exercises.checking import Exercise, Mistake, same_function, verdict
from srcourse.metrics.niqe import local_mean

ALL = exercises.all_exercises()


def keys(t, a):
    t = t.abs()
    near, far = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def stable_by_hand(logits):
    return torch.where(logits > 20, logits, logits.exp().log1p()).mean()  # right, but NaN comes back from the other branch


def a_step(*, cleared="before", backwards=False, detach=True, frozen=False):
    """A step of exercise 04.5, right or with a fault."""

    def step(generator, discriminator, g_optimizer, d_optimizer, lr, hr, weight):
        fake = generator(lr)
        d_loss = F.softplus(-discriminator(hr)).mean() + F.softplus(discriminator(fake.detach() if detach else fake)).mean()
        if cleared == "before":
            d_optimizer.zero_grad()
        d_loss.backward()
        if cleared == "after":
            d_optimizer.zero_grad()
        d_optimizer.step()
        discriminator.requires_grad_(not frozen)
        g_loss = F.l1_loss(fake, hr) + weight * F.softplus(-discriminator(fake)).mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        return (g_loss, d_loss) if backwards else (d_loss, g_loss)

    return step


def field(first, layers):
    size, jump = 1, 1
    for kernel, stride in layers:
        size, jump = size + (kernel - 1) * jump, jump * stride
    return size, jump


def log_mean(logits):
    flat = F.logsigmoid(logits).flatten(1)
    return torch.logsumexp(flat, 1) - np.log(flat.shape[1])


def stage_loss(stages, hr):
    return torch.stack([F.mse_loss(i, F.interpolate(hr, i.shape[-2:], mode="bicubic", antialias=True)) for i in stages]).sum()


@pytest.mark.parametrize(
    ("number", "answer"),
    [
        ("04.2", lambda r, f: torch.logaddexp(torch.zeros_like(r), -r).mean() - F.logsigmoid(-f).mean()),
        ("04.3", lambda f: F.binary_cross_entropy_with_logits(f, torch.ones_like(f))),
        ("04.5", a_step()),
        ("05.2", lambda layers: list(field(None, layers))),
        ("05.3", lambda r, f: torch.stack([-log_mean(a[None]) - log_mean(-b[None]) for a, b in zip(r, f, strict=True)]).mean()),
        ("05.6", stage_loss),
        ("06.5", lambda p, t: sum((a.cumsum(0) - b.cumsum(0)).square().sum() for a, b in zip(p, t, strict=True)) / len(p)),
        ("08.3", lambda fresh, gain: np.array([sum(gain ** (k - i) * fresh[i] for i in range(k + 1)) for k in range(len(fresh))])),
        ("09.5", lambda s, h, alpha: ((10 - s) - alpha * (10 - h)).clamp(min=0).mean()),
    ],
)
def test_right_answers_in_other_words_pass(number, answer):
    result, message = verdict(ALL[number], answer)
    assert result == "PASS", message


@pytest.mark.parametrize(
    ("number", "answer", "hint"),
    [
        ("00.1", lambda shape, scale: torch.tensor([shape[0], *(n * scale for n in shape[1:])]), "this is a Tensor: return a tuple."),
        ("00.1", lambda shape: shape, "is your `def` line still the exercise's?"),
        ("00.3", lambda m, b: next(m[n] - b[n] for n in m), "the first photo's gain"),
        ("01.1", lambda t, a: keys(t, -0.75), "which is not always -0.75"),
        (
            "01.4",
            lambda sigma, size: degradation.gaussian_kernel(sigma, size=size).numpy() * 3 - 1,
            "This is a NumPy array, and its numbers differ too",
        ),
        ("01.6", lambda e, lr, s: (e + degradation.upscale(lr, s)) / 2, "No average"),
        ("02.1", lambda i, r, peak: 10 * np.log10(peak / (i - r).square().mean().sqrt().item()), "This is half of it"),
        ("02.1", lambda i, r, peak: -10 * np.log10((i - r).square().mean().item() + (i == r).all() * 1e-8), "math.inf"),
        ("03.4", lambda layers: round(1 + sum((k - 1) / r for k, r in layers)), "no rounding"),
        ("03.5", lambda p, n: (p.index(max(p[:1])) + 1, 1), "Indices begin with 0"),
        ("04.2", lambda r, f: F.softplus(-r).mean() - F.softplus(f).mean(), "The two halves are added"),
        ("04.2", lambda r, f: F.softplus(-r).mean() + F.softplus(-f).mean(), "asks for large logits of the generated images"),
        ("04.2", lambda r, f: F.softplus(-r.sigmoid()).mean() + F.softplus(f.sigmoid()).mean(), "A sigmoid comes first here"),
        ("04.2", lambda r, f: -(r.sigmoid() + 1e-8).log().mean() - (1 - f.sigmoid() + 1e-8).log().mean(), "A floor under the logarithm"),
        ("04.2", lambda r, f: ((F.softplus(-r).mean() + F.softplus(f).mean()) / 2).numpy(), "added, not averaged"),
        (
            "04.2",
            lambda r, f: (F.softplus(-r).mean() + F.softplus(f).mean()).item(),
            "this is a float: return a PyTorch tensor, without .item()",
        ),
        ("04.2", lambda r, f: F.softplus(-r) + F.softplus(f), "One number is asked for"),
        ("04.2", lambda r, f: F.softplus(-r).mean() + stable_by_hand(f), "its gradient is not finite\n     Hint: Something overflows"),
        ("04.2", lambda r, f: F.softplus(-r).mean() + F.softplus(f.detach()).mean(), "The gradient is cut"),
        ("04.3", lambda f: F.softplus(-f).mean().detach(), "it passes no gradient on\n     Hint: The gradient is cut"),
        ("04.3", lambda f: F.softplus(-f.clamp(-20, 20)).mean(), "Clamped logits are wrong beyond the limit"),
        ("04.4", lambda side: 4_689_088 + (512 * (side / 16) ** 2 + 1) * 1024 + 1025, "rounds an odd side up"),
        ("04.4", lambda side: 4_689_088 + (512 * (-(-side // 16)) ** 2 + 1) * 1024 + 1024, "The logit has a bias, too."),
        ("04.4", lambda side: 4_689_088 + (64 * (-(-side // 16)) ** 2 + 1) * 1024 + 1025, "gives 512 channels"),
        ("04.5", a_step(cleared="after"), "zero_grad wipes out"),
        ("04.5", a_step(backwards=True), "The order is (discriminator's loss, generator's loss)"),
        ("04.5", a_step(detach=False), "used up its graph: detach."),
        ("04.5", a_step(frozen=True), "still frozen from the last step"),
        ("05.2", lambda layers: (1 + sum(k - 1 for k, _ in layers[:1]), layers[0][1] if layers else 1), "the first layer alone"),
        ("05.2", lambda layers: field(layers[0], layers), "A chain may be empty"),
        ("05.3", lambda r, f: -log_mean(r).mean(), "the generated images count too"),
        ("05.3", lambda r, f: -log_mean(f).mean() - log_mean(-r).mean(), "Real and generated are swapped"),
        ("05.3", lambda r, f: -log_mean(r).mean() - log_mean(-f.detach()).mean(), "The gradient is cut"),
        ("05.6", lambda stages, hr: stage_loss([i.detach() for i in stages], hr), "The gradient is cut"),
        ("05.6", lambda stages, hr: stage_loss([*stages[:-1], stages[-1].detach()], hr), "The gradient is cut"),
        ("05.6", lambda stages, hr: stage_loss(stages, hr).sqrt() if len(stages) == 1 else hr, "Leave the root"),
        ("05.6", lambda stages, hr: sum(i.sub_(stages[0]).mean() for i in stages[:1]), "it changed its argument in place"),
        (
            "06.2",
            lambda y: (y - local_mean(y)) / ((local_mean(y * y) - local_mean(y) ** 2 - 1e-9).sqrt() + 1),
            "NaN comes from a root or a logarithm of a negative number",
        ),
        ("06.3", lambda rows, mean, covariance: (rows.mean(0) - mean).norm(), "That is the plain distance"),
        ("06.5", lambda p, t: torch.tensor(np.square(np.cumsum(p.numpy() - t.numpy(), 1)).sum(1).mean()), "The gradient is cut"),
        ("06.6", lambda r: (r.mean(), 2 * r.std() / len(r) ** 0.5), "suits large groups only"),
        ("07.1", lambda f, p: np.polyfit(np.log(f[1:]), np.log(p[:-1]), 1)[0], "so that each power keeps its frequency"),
        ("07.5", lambda a, b: torch.fft.irfft2(torch.fft.rfft2(a).abs() + 1j * torch.fft.rfft2(b).angle(), s=a.shape[-2:]), "torch.polar"),
        (
            "08.1",
            lambda network, photo, passes: [metrics.psnr(network(photo[None])[0], photo)],
            "Two images of different shapes meet",
        ),
        ("08.3", lambda fresh, gain: [fresh.pop(0) for _ in range(len(fresh))], "it changed its argument in place"),
        ("08.4", lambda network, lr, hr: 0.5, "A loss stays a tensor"),
        ("09.4", lambda factor, start: (factor - 1) / 2 * factor - start * factor, "divide by `factor`"),
        ("09.5", lambda s, h, alpha: F.relu((10 - s) - 0.8 * (10 - h)).mean(), "it is not always 0.8"),
        ("10.2", lambda difference, spread: int((1.96 * spread / difference) ** 2) + 1, "Where n comes out whole, it is enough"),
        ("10.3", lambda points: next(iter(points)), "Give back the names"),
    ],
)
def test_common_mistakes_get_the_hint_that_fits(number, answer, hint):
    result, message = verdict(ALL[number], answer)
    assert result == "FAIL" and hint in message


def test_of_several_hints_the_one_that_fits_most_cases_is_shown():
    coincides, fits = Mistake(lambda x: x * 0 + 1, "Not always 1."), Mistake(lambda x: x * x, "That squares.")
    cases = [(torch.tensor([1.0]),), (torch.tensor([3.0]),)]
    squares = Exercise("99.2", "doubled", same_function(lambda x: 2 * x, lambda: cases, [coincides, fits]))
    assert "That squares." in verdict(squares, lambda x: x**2)[1]
