"""What a person would rather look at than read: images side by side, curves, spectra, a before/after slider.

Each function returns a `Picture`, which a notebook shows when it is a cell's last line. Every picture carries one
sentence that says what can be seen, under the figure and as its alternative text.
"""

import base64
import html
import io
import os
import textwrap
import uuid
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from srcourse import images, metrics
from srcourse.metrics import radial_spectrum

# Okabe and Ito's colours: told apart with any kind of colour vision
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")
_MARKERS = "osD^vPX*"


class Picture:
    """A figure with a sentence that describes it; notebooks show it, `save` writes it.

    Parameters
    ----------
    figure : matplotlib Figure
        Taken over: it is closed for pyplot, so that a notebook shows it once.
    describe : str
        One sentence: what a reader should see. Written under the figure, and set as its alternative text.
    photo : bool
        True stores JPEG (photographs, heat maps), False PNG of 128 colours (lines and areas).
    """

    def __init__(self, figure: Figure, describe: str, *, photo: bool = False):
        if not describe or not describe.strip():
            raise ValueError("a picture needs describe=: one sentence that says what can be seen in it")
        self.figure, self.describe, self.photo = figure, describe.strip(), photo
        plt.close(figure)
        width = figure.get_size_inches()[0]
        caption = textwrap.fill(self.describe, int(width * 15))
        figure.text(0.5, -0.02, caption, ha="center", va="top", fontsize=9, color="#444444", style="italic")

    def save(self, path: str | os.PathLike) -> None:
        """Write the figure, with its sentence, as PNG, JPEG, SVG or PDF."""
        self.figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")

    def _repr_mimebundle_(self, include=None, exclude=None):
        drawn, stored = io.BytesIO(), io.BytesIO()
        self.figure.savefig(drawn, format="png", dpi=100 if self.photo else 90, bbox_inches="tight", facecolor="white")
        picture = Image.open(drawn).convert("RGB")
        if self.photo:
            picture.save(stored, "JPEG", quality=88, subsampling="4:4:4")
        else:  # lines and letters need few colours: a quarter of the bytes
            picture.quantize(128, dither=Image.Dither.NONE).save(stored, "PNG", optimize=True)
        mime = "image/jpeg" if self.photo else "image/png"
        data = {mime: base64.b64encode(stored.getvalue()).decode(), "text/plain": self.describe}
        return data, {mime: {"alt": self.describe}}


# --- images -----------------------------------------------------------------------------------------------------


def compare(
    pictures: Mapping[str, torch.Tensor],
    *,
    zoom: tuple[int, int, int, int] | None = None,
    reference: str | None = None,
    border: int = 0,
    title: str = "",
    describe: str | None = None,
) -> Picture:
    """Images side by side, with a magnified detail of each.

    Parameters
    ----------
    pictures : mapping of name to (3, H, W) or (1, H, W) tensor in [0, 1]
        Sizes may differ by an integer factor: smaller ones are shown with larger pixels.
    zoom : (y, x, height, width), optional
        A region in pixels of the largest image: that image whole, and every image's detail beside it.
        Without it, every image whole.
    reference : str, optional
        The name of the original: the others' PSNR against it stands over them.
    border : int
        Pixels that the PSNR leaves out at each side, as in `metrics.psnr`.
    title, describe : str
        The heading; the sentence under the figure.
    """
    if not pictures:
        raise ValueError("there are no images to compare: expected a dict of names and tensors")
    arrays = {name: _to_array(image) for name, image in pictures.items()}
    height, width = max(a.shape[:2] for a in arrays.values())
    whole = reference or max(arrays, key=lambda name: arrays[name].shape[0])
    describe = describe or f"Side by side: {', '.join(arrays)}."
    labels = {name: _label(name, pictures, reference, border) for name in arrays}

    if zoom is None:
        columns = min(len(arrays), 4)
        rows = -(-len(arrays) // columns)
        lines_above = 1 + max(label.count("\n") for label in labels.values())
        each = 3 * height / width + 0.45 + 0.2 * lines_above  # inches: image, axis, label
        figure, axes = plt.subplots(
            rows, columns, figsize=(3 * columns, each * rows + 0.35 * bool(title)), squeeze=False, layout="constrained"
        )
        for axis in axes.flat[len(arrays) :]:
            axis.remove()
        for axis, (name, array) in zip(axes.flat, arrays.items(), strict=False):
            _show(axis, array, labels[name], extent=(0, array.shape[1], array.shape[0], 0))
    else:
        _check_zoom(zoom, height, width)
        columns = min(-(-len(arrays) // 2), 4) if len(arrays) > 3 else len(arrays)
        rows = -(-len(arrays) // columns)
        detail = 1.9 if rows > 1 else 2.4
        figure = plt.figure(
            figsize=(3.6 + detail * columns, max(0.6 + (detail * zoom[2] / zoom[3] + 0.35) * rows, 3.2)), layout="constrained"
        )
        left, right = figure.subfigures(1, 2, width_ratios=[3.6, detail * columns])
        axis = left.subplots()
        _show(axis, arrays[whole], f"{whole} ({width}×{height})", extent=(0, width, height, 0))
        y, x, h, w = zoom
        axis.add_patch(Rectangle((x, y), w, h, fill=False, edgecolor=COLOURS[1], linewidth=2))
        axes = right.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(arrays) :]:
            axis.remove()
        for axis, (name, array) in zip(axes.flat, arrays.items(), strict=False):
            _show(axis, _cut(array, zoom, height), labels[name], extent=(x, x + w, y + h, y), ticks=False)
    if title:
        figure.suptitle(title)
    return Picture(figure, describe, photo=True)


def _label(name: str, pictures: Mapping[str, torch.Tensor], reference: str | None, border: int) -> str:
    if reference is None or name == reference or pictures[name].shape != pictures[reference].shape:
        return name
    return f"{name}\n{metrics.psnr(pictures[name], pictures[reference], border=border):.2f} dB"


def _cut(array: np.ndarray, zoom: tuple[int, int, int, int], height: int) -> np.ndarray:
    factor = height / array.shape[0]
    y, x, h, w = (round(value / factor) for value in zoom)
    return array[y : y + max(h, 1), x : x + max(w, 1)]


def _check_zoom(zoom: Sequence[int], height: int, width: int) -> None:
    y, x, h, w = zoom
    if min(y, x) < 0 or min(h, w) < 1 or y + h > height or x + w > width:
        raise ValueError(f"zoom {tuple(zoom)} reaches outside the image of {height}×{width}: expected (y, x, height, width) in pixels")


def _show(axis, array: np.ndarray, label: str, extent, ticks: bool = True) -> None:
    axis.imshow(array, extent=extent, interpolation="nearest", cmap="gray", vmin=0, vmax=1)
    axis.set_title(label, fontsize=10)
    if ticks:
        axis.tick_params(labelsize=7)
        axis.set_xlabel("pixels", fontsize=8)
    else:
        axis.set_xticks([])
        axis.set_yticks([])


def _to_array(image: torch.Tensor) -> np.ndarray:
    """(3 or 1, H, W) tensor → (H, W, 3) or (H, W) array of 8-bit steps in [0, 1]."""
    image = images.check(image.detach().cpu())
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"expected an image (3, H, W) or (1, H, W), got shape {tuple(image.shape)}")
    array = images.quantize(image.float()).permute(1, 2, 0).numpy()
    return array[..., 0] if array.shape[2] == 1 else array


# --- curves -----------------------------------------------------------------------------------------------------


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    x: str,
    y: str,
    describe: str,
    log_x: bool = False,
    log_y: bool = False,
) -> Picture:
    """Named lines of points: ``{"bicubic": (xs, ys), ...}``; `x` and `y` label the axes, units included."""
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for i, (name, (xs, ys)) in enumerate(series.items()):
        marker = _MARKERS[i % len(_MARKERS)] if len(xs) <= 20 else None
        axis.plot(xs, ys, label=name, color=COLOURS[i % len(COLOURS)], marker=marker, markersize=5)
    axis.set(title=title, xlabel=x, ylabel=y)
    if log_x:
        axis.set_xscale("log")
    if log_y:
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    if len(series) > 1:
        axis.legend(fontsize=9)
    return Picture(figure, describe)


def plane(
    points: Mapping[str, tuple[float, float]],
    *,
    title: str = "Perception against distortion",
    x: str = "PSNR (dB), higher is closer to the original",
    y: str = "NIQE, lower is more natural",
    describe: str,
) -> Picture:
    """Methods as named points on the perception–distortion plane (Blau and Michaeli 2018): ``{"bicubic": (psnr, niqe), ...}``.

    A method whose point is beaten on both axes by another has nothing to be said for it; the others are joined by a line.
    Points that are not finite, such as the NIQE of images that are too small, are left out.

    Raises
    ------
    ValueError
        If no point is left.
    """
    drawn = {name: (float(a), float(b)) for name, (a, b) in points.items() if np.isfinite(a) and np.isfinite(b)}
    if not drawn:
        raise ValueError("there is no point to draw: expected at least one method with finite numbers on both axes")
    figure, axis = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    unbeaten = sorted((a, b) for a, b in drawn.values() if not any(c >= a and d <= b and (c, d) != (a, b) for c, d in drawn.values()))
    axis.plot(*zip(*unbeaten, strict=True), color="#999999", linestyle="--", linewidth=1, zorder=0)
    for i, (name, (a, b)) in enumerate(drawn.items()):
        marker = _MARKERS[(i + i // len(COLOURS)) % len(_MARKERS)]  # the ninth has the first's colour, and another marker
        axis.scatter(a, b, color=COLOURS[i % len(COLOURS)], marker=marker, s=55, label=name)
    axis.set(title=title, xlabel=x, ylabel=y)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return Picture(figure, describe)


def curves(
    history: Iterable[Mapping[str, float]],
    *,
    baseline: Mapping[str, float] | None = None,
    title: str = "Training",
    describe: str | None = None,
) -> Picture:
    """A training's curves over its steps: losses, a discriminator's accuracy, validation PSNR, each where there is one.

    Parameters
    ----------
    history : list of dicts, such as ``run.history``
        Each with "step" and any of the losses ("loss" in their names), shares judged rightly ("accuracy" in theirs) and "psnr".
    baseline : mapping of name to PSNR in dB, optional
        Drawn as dashed lines, for instance ``{"bicubic": 28.4}``.
    """
    rows = list(history)
    if not rows:
        raise ValueError("the history is empty: train at least one step first")
    losses, accuracies = (sorted({key for row in rows for key in row if kind in key}) for kind in ("loss", "accuracy"))
    validated = [(row["step"], row["psnr"]) for row in rows if "psnr" in row]
    panels = 1 + bool(accuracies) + bool(validated)
    figure, axes = plt.subplots(1, panels, figsize=(0.5 + 4.6 * panels, 3.4), squeeze=False, layout="constrained")

    def draw(axis, keys: Sequence[str], **labels) -> None:
        for i, key in enumerate(keys):
            points = [(row["step"], row[key]) for row in rows if key in row]
            axis.plot(*zip(*points, strict=True), label=key.replace("_", " "), color=COLOURS[i % len(COLOURS)])
        axis.set(xlabel="step", **labels)
        axis.legend(fontsize=9)

    draw(axes[0, 0], losses, title="loss", ylabel="loss (mean over the batch)", yscale="log")
    if accuracies:
        draw(axes[0, 1], accuracies, title="the discriminator", ylabel="share judged rightly", ylim=(-0.03, 1.03))
        axes[0, 1].axhline(0.5, linestyle=":", color="#888888", linewidth=1)
    if validated:
        axis = axes[0, -1]
        axis.plot(*zip(*validated, strict=True), marker="o", markersize=4, color=COLOURS[0], label="validation")
        for i, (name, value) in enumerate((baseline or {}).items(), start=1):
            axis.axhline(value, linestyle="--", color=COLOURS[i], label=name)
        axis.set(title="validation", xlabel="step", ylabel="PSNR (dB)")
        axis.legend(fontsize=9)
    for axis in axes.flat:
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    describe = describe or f"Loss over {rows[-1]['step']} steps" + (
        f", and validation PSNR, {validated[-1][1]:.2f} dB at the end." if validated else "."
    )
    return Picture(figure, describe)


# --- spectra ----------------------------------------------------------------------------------------------------


def spectrum(pictures: Mapping[str, torch.Tensor], *, title: str = "Power by spatial frequency", describe: str | None = None) -> Picture:
    """Radial power spectra of several images: what each keeps of coarse and fine detail."""
    describe = describe or f"Power falls with frequency; the curves of {', '.join(pictures)} part where one lacks detail."
    series = {name: radial_spectrum(image) for name, image in pictures.items()}
    return lines(series, title=title, x="spatial frequency (fraction of Nyquist)", y="power", describe=describe, log_x=True, log_y=True)


# --- the slider -------------------------------------------------------------------------------------------------


class Slider:
    """Two images in one frame with a handle between them: plain HTML that needs no network and no kernel."""

    def __init__(self, markup: str, describe: str):
        self.markup, self.describe = markup, describe

    def _repr_html_(self) -> str:
        return self.markup

    def __repr__(self) -> str:
        return self.describe


def slider(
    before: torch.Tensor,
    after: torch.Tensor,
    *,
    labels: tuple[str, str] = ("before", "after"),
    describe: str | None = None,
    width: int = 512,
) -> Slider:
    """A before/after slider that works in JupyterLab, in Colab and on a static page.

    Parameters
    ----------
    before, after : (3, H, W) tensors in [0, 1]
        `before` may be smaller: it is shown at the other's size with square pixels.
    labels : (str, str)
    describe : str, optional
        The alternative text.
    width : int
        Width on the page in CSS pixels, at most.
    """
    describe = describe or f"{labels[0]} on the left of the handle, {labels[1]} on the right; drag it to compare."
    first, second = _data_address(before), _data_address(after)
    ratio = after.shape[-1] / after.shape[-2]
    name = f"slider-{uuid.uuid5(uuid.NAMESPACE_OID, first[-2000:] + second[-2000:]).hex[:8]}"
    left, right = (html.escape(label) for label in labels)
    layer = "position:absolute;inset:0;width:100%;height:100%;image-rendering:pixelated"
    tag = "position:absolute;top:8px;padding:2px 8px;background:#000a;color:#fff;font:12px sans-serif;border-radius:4px;pointer-events:none"
    line = "position:absolute;top:0;bottom:0;left:var(--x);width:2px;margin-left:-1px;background:#fff;box-shadow:0 0 3px #000"
    markup = f"""<figure id="{name}" style="margin:0;max-width:{width}px;--x:50%">
<div style="position:relative;aspect-ratio:{ratio:.5f};overflow:hidden">
<img src="{second}" alt="{html.escape(describe)}" style="{layer}">
<img src="{first}" alt="" style="{layer};clip-path:inset(0 calc(100% - var(--x)) 0 0)">
<span style="{tag};left:8px">{left}</span><span style="{tag};right:8px">{right}</span>
<div style="{line};pointer-events:none"></div>
<input type="range" min="0" max="100" value="50" step="0.1" aria-label="{left} or {right}"
 oninput="this.closest('figure').style.setProperty('--x',this.value+'%')"
 style="position:absolute;inset:0;width:100%;height:100%;margin:0;opacity:0;cursor:ew-resize">
</div><figcaption style="font:italic 12px sans-serif;opacity:.75;padding-top:4px">{html.escape(describe)}</figcaption></figure>"""
    return Slider(markup, describe)


def _data_address(image: torch.Tensor) -> str:
    array = images.to_uint8(image.cpu()).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "WEBP", quality=88, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
