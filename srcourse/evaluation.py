"""A model × a benchmark → a table: PSNR, SSIM and NIQE by the papers' protocol, detail, seconds and parameters."""

import csv
import html
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from srcourse import degradation, images, metrics
from srcourse.data import Benchmark
from srcourse.files import write_text
from srcourse.inference import upscale
from srcourse.metrics.niqe import BLOCK as NIQE_BLOCK
from srcourse.models import count_parameters
from srcourse.progress import bar


@dataclass(frozen=True)
class Score:
    """One row of a table: the means of one model over one benchmark."""

    model: str
    benchmark: str
    scale: int
    images: int
    psnr: float  # dB, luma
    ssim: float
    niqe: float  # of the images that are large enough for it; NaN where none is
    detail: float  # energy above half the Nyquist frequency, as a multiple of the originals'
    seconds: float  # for one image, on the model's device
    parameters: int


@dataclass
class Table:
    """Scores that print as a table; `images` holds every single image's scores."""

    scores: list[Score] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)

    def add(self, model: str, benchmark: str, scale: int, network: nn.Module, rows: Sequence[Mapping]) -> None:
        """Add a row, the means of a model's images, and the images' own scores."""
        means = {key: _mean([row[key] for row in rows]) for key in ("psnr", "ssim", "niqe", "detail", "seconds")}
        parameters = count_parameters(network) if isinstance(network, nn.Module) else 0
        self.scores.append(Score(model, benchmark, scale, len(rows), parameters=parameters, **means))
        self.images += [{"model": model, "benchmark": benchmark, "scale": scale, **row} for row in rows]

    _HEADINGS = ("model", "benchmark", "scale", "images", "PSNR (dB)", "SSIM", "NIQE", "detail", "s/image", "parameters")

    def _cells(self) -> list[tuple[str, ...]]:
        rows = []
        for s in self.scores:
            quality = f"{s.psnr:.3f}", f"{s.ssim:.4f}", "–" if math.isnan(s.niqe) else f"{s.niqe:.2f}", f"{s.detail:.3f}"
            rows.append((s.model, s.benchmark, f"×{s.scale}", str(s.images), *quality, f"{s.seconds:.3f}", f"{s.parameters:,}"))
        return rows

    def __str__(self) -> str:
        rows = [self._HEADINGS, *self._cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(self._HEADINGS))]
        return "\n".join(
            "  ".join(cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{heading}</th>" for heading in self._HEADINGS)
        body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self._cells())
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def to_markdown(self) -> str:
        """The table in Markdown."""
        rows = [self._HEADINGS, ("---",) * len(self._HEADINGS), *self._cells()]
        return "\n".join("| " + " | ".join(row) + " |" for row in rows)

    def to_csv(self, path: str | os.PathLike | None = None) -> str:
        """The scores as comma-separated values with full precision; written to `path` if there is one."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, list(Score.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(score) for score in self.scores)
        if path is not None:
            write_text(path, buffer.getvalue())
        return buffer.getvalue()


def evaluate(
    models: Mapping[str, nn.Module],
    benchmark: Benchmark | Sequence[Benchmark],
    *,
    tile: int | None = None,
    ensemble: bool = False,
    passes: int = 1,
    pristine: str | os.PathLike = "course",
    progress: bool = False,
) -> Table:
    """Score every model on every benchmark.

    The protocol: SR rounded to 8 bits, luma, a border of `scale` pixels cut, means of the images' scores.

    Parameters
    ----------
    models : mapping of name to network
        All for the benchmarks' scale.
    benchmark : Benchmark, or several
        From `data.benchmarks`, or made of photos: ``Benchmark("samples", 4, data.samples(["chelsea"]))``.
    tile, ensemble, passes
        As for `inference.upscale`.
    pristine : "course", "official" or path
        NIQE's model, as in `metrics.NIQE`; only "official" compares with papers.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If a model gives another size than the benchmark's HR images, or NaN.
    """
    if not isinstance(models, Mapping):
        raise ValueError(f"the models are a {type(models).__name__}: expected a dictionary such as {{'mine': model}}")
    if isinstance(benchmark, str | os.PathLike):
        raise ValueError(f"{benchmark} is a path: expected srcourse.data.benchmarks({str(benchmark)!r}, scale)")
    table, niqe = Table(), metrics.NIQE(pristine)
    for one in [benchmark] if isinstance(benchmark, Benchmark) else benchmark:
        pairs = list(bar(one, f"reading {one.name} ×{one.scale}", shown=progress))
        for name, model in models.items():
            rows = []
            for pair in bar(pairs, f"{name} on {one.name} ×{one.scale}", shown=progress):
                start = time.perf_counter()
                sr = upscale(model, pair.lr, tile=tile, ensemble=ensemble, passes=passes)
                seconds = time.perf_counter() - start
                if sr.shape != pair.hr.shape:
                    got = sr.shape[-1] / pair.lr.shape[-1]
                    raise ValueError(f"{name} enlarges {got:g} times: expected a model for scale {one.scale}, that of {one.name}")
                scores = _scores(sr, pair.hr, one.scale, niqe, f"{pair.name} of {one.name}, as {name} made it,")
                rows.append({"image": pair.name, **scores, "seconds": seconds})
            table.add(name, one.name, one.scale, model, rows)
    return table


def evaluate_passes(
    models: Mapping[str, nn.Module],
    photos: Sequence[torch.Tensor],
    passes: int = 2,
    *,
    scale: int = 2,
    pristine: str | os.PathLike = "course",
    progress: bool = False,
) -> Table:
    """Score networks that are applied to their own image, after every pass (P004 §4.4).

    A photo is shrunk by scale^passes with MATLAB's bicubic, and rounded to 8 bits; the image after pass k is compared, by the protocol of
    `evaluate`, with the photo shrunk to its size: with the photo itself after the last.

    Parameters
    ----------
    models : mapping of name to network
        All for `scale`.
    photos : sequence of (3, H, W) tensors in [0, 1]
    passes, scale : int
        scale^passes at most 8.
    pristine
        As for `evaluate`.

    Returns
    -------
    Table
        A row for each model and pass, its benchmark called "pass 1", "pass 2", ..., its scale that of all passes so far,
        its seconds those of this pass.

    Raises
    ------
    ValueError
        For photos that are too small, or a model of another scale.
    """
    if not (isinstance(passes, int) and isinstance(scale, int)):
        raise ValueError(f"passes={passes!r}, scale={scale!r}: expected whole numbers")
    if passes < 1 or not 2 <= scale**passes <= 8:
        raise ValueError(f"{passes} passes at scale {scale} enlarge {scale**passes} times: expected 2 to 8")
    names = getattr(photos, "names", [f"photo {i}" for i in range(len(photos))])
    table, niqe = Table(), metrics.NIQE(pristine)
    for name, model in models.items():
        rows: dict[int, list[dict]] = {k: [] for k in range(1, passes + 1)}
        for i in bar(range(len(photos)), name, shown=progress):
            photo = images.crop_to_multiple(photos[i], scale**passes)
            sr = images.quantize(degradation.downscale(photo, scale**passes))
            for k in rows:
                start = time.perf_counter()
                sr = upscale(model, sr)
                seconds = time.perf_counter() - start
                rest = scale ** (passes - k)
                hr = degradation.downscale(photo, rest) if rest > 1 else photo
                if sr.shape != hr.shape:
                    raise ValueError(f"{name} is no model for scale {scale}: it made {tuple(sr.shape)} of what should be {tuple(hr.shape)}")
                scores = _scores(sr, hr, scale**k, niqe, f"{names[i]} after pass {k}")
                rows[k].append({"image": names[i], **scores, "seconds": seconds})
        for k, found in rows.items():
            table.add(name, f"pass {k}", scale**k, model, found)
    return table


def _scores(sr: torch.Tensor, hr: torch.Tensor, border: int, metric: metrics.NIQE, what: str) -> dict[str, float]:
    """PSNR, SSIM, NIQE and detail of one image, as it would be saved; `what` names it in an error."""
    try:
        sr, hr = images.quantize(sr), images.quantize(hr)
        psnr, ssim = (fidelity(sr, hr, border=border) for fidelity in (metrics.psnr, metrics.ssim))
    except ValueError as error:
        raise ValueError(f"{what} cannot be scored: {error}") from None
    height, width = (side - 2 * border for side in sr.shape[-2:])
    niqe = metric(sr, border=border) if (height // NIQE_BLOCK) * (width // NIQE_BLOCK) >= 2 else math.nan
    ours, original = (metrics.high_frequency_share(images.crop_border(image, border)) for image in (sr, hr))
    return {"psnr": psnr, "ssim": ssim, "niqe": niqe, "detail": ours / original if original > 0 else math.nan}


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are numbers."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
