"""Your own photo: open a file, enlarge it with a method of your choice, compare with bicubic, save the result.

In JupyterLab and Colab a `Studio` shows buttons. Where nobody can press them, in tests and on pages that are built without a
person, it shows its photo, enlarged, in the before/after slider.
"""

import html
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from srcourse import images, plots
from srcourse.inference import upscale
from srcourse.resize import resize_bicubic

if TYPE_CHECKING:
    from ipywidgets import Widget

_TILE = 128  # LR pixels: any network of the course then fits in little memory


def interactive() -> bool:
    """Whether a person sits in front of this notebook: whoever runs notebooks by program allows no input."""
    try:
        from IPython import get_ipython
    except ImportError:
        return False
    return bool(getattr(getattr(get_ipython(), "kernel", None), "_allow_stdin", False))


class Studio:
    """A photo, the methods to enlarge it, and the last result.

    Parameters
    ----------
    methods : mapping of name to network
        As `upscale` takes them; bicubic, the other side of the slider, is always there.
    path : path, optional
        An image file. Without one, or if it cannot be read, the middle of a sample photo; `note` says why.
    method : str, optional
        The name of the method to begin with; by default the first.
    sample : str
        One of `images.SAMPLES`.
    folder : path
        Where `save` writes, unless told otherwise. It is made when something is saved, not before.
    largest : int
        The longest side in pixels; of a larger photo the middle is taken.
    width : int
        Of the slider, in CSS pixels.

    Attributes
    ----------
    photo, result : (3, h, w) and (3, s·h, s·w) tensors in [0, 1]
        What is enlarged, and the last result (None before `upscale`).
    note : str
        What did not go as asked, in one line; empty if all did.
    """

    def __init__(
        self,
        methods: Mapping[str, nn.Module],
        *,
        path: str | os.PathLike | None = None,
        method: str | None = None,
        sample: str = "coffee",
        folder: str | os.PathLike = "upscaled",
        largest: int = 384,
        width: int = 600,
    ):
        if not methods:
            raise ValueError("there is no method to choose from: expected a dict of names and networks")
        self.methods, self.folder, self.largest, self.width = dict(methods), Path(folder), largest, width
        self.method = method if method is not None else next(iter(self.methods))
        self._network(self.method)
        self.name, self.photo, self.note = sample, _middle(images.sample(sample), min(128, largest)), ""
        self.result: torch.Tensor | None = None
        if path is not None:
            self.open(path)

    def open(self, path: str | os.PathLike, name: str | None = None) -> bool:
        """Take the photo of a file; False, with the reason in `note`, if it cannot be used: the photo then stays as it was."""
        try:
            photo = images.read(path)
        except (OSError, ValueError, TypeError) as error:
            self.note = " ".join(str(error).split())
            return False
        self.name, self.photo, self.note, self.result = Path(name or path).stem, _middle(photo, self.largest), "", None
        if self.photo.shape != photo.shape:
            sizes = ["{}×{}".format(*image.shape[:0:-1]) for image in (photo, self.photo)]
            self.note = f"{Path(name or path).name} has {sizes[0]} pixels: its middle, {sizes[1]}, is enlarged"
        return True

    def upscale(self, method: str | None = None) -> plots.Slider:
        """Enlarge the photo: a slider between bicubic and the method's result.

        Raises
        ------
        ValueError
            If there is no such method.
        """
        network = self._network(self.method if method is None else method)
        self.method = self.method if method is None else method
        self.result = upscale(network, self.photo, tile=_TILE)
        bicubic = resize_bicubic(self.photo[None], tuple(self.result.shape[-2:]))[0].clamp(0, 1)
        describe = f"{self.name} enlarged: bicubic left of the handle, {self.method} right of it; drag it to compare."
        return plots.slider(bicubic, self.result, labels=("bicubic", self.method), describe=describe, width=self.width)

    def save(self, folder: str | os.PathLike | None = None) -> Path:
        """Write the result as PNG into the folder, under a name of its own; nothing is overwritten."""
        if self.result is None:
            self.upscale()
        stem = "_".join(re.sub(r"[^\w-]+", "_", part).strip("_") for part in (self.name or "photo", self.method))
        folder = self.folder if folder is None else Path(folder)
        path, number = folder / f"{stem}.png", 1
        while path.exists():
            number += 1
            path = folder / f"{stem}_{number}.png"
        return images.write(path, self.result)

    def panel(self) -> "Widget":
        """Upload, method, save and the slider as Jupyter widgets."""
        import ipywidgets as widgets

        chosen = widgets.FileUpload(accept="image/*", multiple=False, description="Your photo")
        method = widgets.Dropdown(options=list(self.methods), value=self.method, description="Method")
        save = widgets.Button(description="Save", icon="download")
        said, view = widgets.HTML(), widgets.HTML()

        def say(*lines: str) -> None:
            said.value = "<br>".join(html.escape(line) for line in lines if line)

        def enlarge(_=None) -> None:
            say("working ...")
            start = time.perf_counter()
            try:
                view.value = self.upscale(method.value)._repr_html_()
            except (ValueError, RuntimeError, MemoryError) as error:
                say(self.note, f"{method.value} could not enlarge it: {' '.join(str(error).split())[:200]}")
                return
            sizes = ["{}×{}".format(*image.shape[:0:-1]) for image in (self.photo, self.result)]
            say(self.note, f"{self.name}: {sizes[0]} → {sizes[1]} pixels in {time.perf_counter() - start:.1f} s")

        def take(_) -> None:
            if not chosen.value:
                return
            file = chosen.value[0]
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(scratch) / "photo"
                path.write_bytes(bytes(file["content"]))
                taken = self.open(path, Path(file["name"]).name)
                self.note = self.note.replace(str(path), file["name"])
            enlarge() if taken else say(self.note)

        def keep(_) -> None:
            try:
                say(f"saved as {self.save()}")
            except (OSError, ValueError) as error:
                say(f"not saved: {error}")

        chosen.observe(take, "value")
        method.observe(enlarge, "value")
        save.on_click(keep)
        enlarge()
        return widgets.VBox([widgets.HBox([chosen, method, save]), said, view])

    def _ipython_display_(self) -> None:
        from IPython.display import display

        if interactive():
            display(self.panel())
            return
        if self.note:
            print(self.note)
        display(self.upscale())

    def _network(self, method: str) -> nn.Module:
        if method not in self.methods:
            raise ValueError(f"there is no method {method!r}: expected one of {', '.join(self.methods)}")
        return self.methods[method]


def _middle(photo: torch.Tensor, largest: int) -> torch.Tensor:
    """The middle of (3, H, W), at most `largest` pixels a side."""
    for axis in (1, 2):
        side = min(photo.shape[axis], largest)
        photo = photo.narrow(axis, (photo.shape[axis] - side) // 2, side)
    return photo
