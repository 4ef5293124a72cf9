"""A model × a benchmark → a table: PSNR and SSIM by the papers' protocol, seconds and parameters."""

import csv
import html
import io
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from torch import nn
from tqdm.auto import tqdm

from srcourse import images, metrics
from srcourse.data import Benchmark
from srcourse.files import write_text
from srcourse.inference import upscale
from srcourse.models import count_parameters


@dataclass(frozen=True)
class Score:
    """One row of a table: the means of one model over one benchmark."""

    model: str
    benchmark: str
    scale: int
    images: int
    psnr: float  # dB, luma
    ssim: float
    seconds: float  # for one image, on the model's device
    parameters: int


@dataclass
class Table:
    """Scores that print as a table; `images` holds every single image's scores."""

    scores: list[Score] = field(default_factory=list)
    images: list[dict] = field(default_factory=list)

    _HEADINGS = ("model", "benchmark", "scale", "images", "PSNR (dB)", "SSIM", "s/image", "parameters")

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (s.model, s.benchmark, f"×{s.scale}", str(s.images), f"{s.psnr:.3f}", f"{s.ssim:.4f}", f"{s.seconds:.3f}", f"{s.parameters:,}")
            for s in self.scores
        ]

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
    tile, ensemble
        As for `inference.upscale`.
    progress : bool
        Show a progress bar.

    Returns
    -------
    Table

    Raises
    ------
    ValueError
        If a model gives another size than the benchmark's HR images.
    """
    table = Table()
    chosen = [benchmark] if isinstance(benchmark, Benchmark) else list(benchmark)
    for one in chosen:
        pairs = list(tqdm(one, desc=f"reading {one.name} ×{one.scale}", disable=not progress, leave=False))
        for name, model in models.items():
            rows = []
            for pair in tqdm(pairs, desc=f"{name} on {one.name} ×{one.scale}", disable=not progress, leave=False):
                start = time.perf_counter()
                sr = images.quantize(upscale(model, pair.lr, tile=tile, ensemble=ensemble))
                seconds = time.perf_counter() - start
                if sr.shape != pair.hr.shape:
                    got = sr.shape[-1] / pair.lr.shape[-1]
                    raise ValueError(f"{name} enlarges {got:g} times: expected a model for scale {one.scale}, that of {one.name}")
                try:
                    psnr = metrics.psnr(sr, pair.hr, border=one.scale)
                    ssim = metrics.ssim(sr, pair.hr, border=one.scale)
                except ValueError as error:
                    raise ValueError(f"{pair.name} of {one.name} cannot be scored: {error}") from None
                rows.append(
                    {
                        "model": name,
                        "benchmark": one.name,
                        "scale": one.scale,
                        "image": pair.name,
                        "psnr": psnr,
                        "ssim": ssim,
                        "seconds": seconds,
                    }
                )
            means = {key: math.fsum(row[key] for row in rows) / len(rows) for key in ("psnr", "ssim", "seconds")}
            parameters = count_parameters(model) if isinstance(model, nn.Module) else 0
            table.scores.append(Score(name, one.name, one.scale, len(rows), parameters=parameters, **means))
            table.images += rows
    return table
