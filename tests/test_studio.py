"""“Your own photo”: odd files get a clear line, nothing is left behind, and the buttons do what they say."""

import datetime

import numpy as np
import pytest
import torch
from PIL import Image

import srcourse as sr
from srcourse import plots, studio
from srcourse.studio import Studio


@pytest.fixture(scope="module")
def methods():
    return {"nearest": sr.models.create("nearest", scale=2), "by three": sr.models.create("bicubic", scale=3)}


def text(path, content=b"no image"):
    path.write_bytes(content)
    return path


def picture(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda folder: folder / "none.png", "none.png does not exist"),
        (lambda folder: folder, "is a folder"),
        (lambda folder: text(folder / "text.png"), "text.png is not an image that can be read"),
        (lambda folder: text(folder / "empty.jpg", b""), "empty.jpg is not an image that can be read"),
        (lambda folder: text(folder / "cut.png", picture(folder / "a.png", np.zeros((90, 90), np.uint8)).read_bytes()[:60]), "cut.png is"),
        (lambda folder: 5, "expected"),
    ],
)
def test_an_odd_file_gets_one_line_and_the_sample(methods, tmp_path, make, words, capsys):
    opened = Studio(methods, path=make(tmp_path))
    assert words in opened.note or (words == "expected" and opened.note)
    assert "\n" not in opened.note and opened.photo.shape == (3, 128, 128) and opened.name == "coffee"
    opened._ipython_display_()
    assert opened.note in capsys.readouterr().out and opened.result.shape == (3, 256, 256)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((1, 1), np.uint8), (3, 1, 1)),
        (np.full((5, 9), 40_000, np.uint16), (3, 5, 9)),
        (np.zeros((6, 4, 4), np.uint8), (3, 6, 4)),
        (np.zeros((700, 20, 3), np.uint8), (3, 384, 20)),
    ],
)
def test_every_kind_of_image_is_enlarged(methods, tmp_path, array, shape):
    opened = Studio(methods, path=picture(tmp_path / "photo.png", array))
    assert opened.photo.shape == shape and bool(opened.note) == (shape[1] != array.shape[0])
    slider = opened.upscale("by three")
    assert isinstance(slider, plots.Slider) and opened.result.shape == (3, 3 * shape[1], 3 * shape[2])
    network = sr.models.load("srresnet_small-x4")
    assert Studio({"network": network}, path=tmp_path / "photo.png").upscale()._repr_html_().count("data:image/webp") == 2


def test_the_middle_is_taken_and_the_note_says_so(methods, tmp_path):
    photo = torch.zeros(3, 40, 60)
    photo[:, 10:30, 20:40] = 1
    sr.images.write(tmp_path / "wide.png", photo)
    opened = Studio(methods, path=tmp_path / "wide.png", largest=20)
    assert opened.photo.shape == (3, 20, 20) and bool((opened.photo == 1).all())
    assert opened.note == "wide.png has 60×40 pixels: its middle, 20×20, is enlarged"


def test_saving_writes_once_and_overwrites_nothing(methods, tmp_path):
    folder = tmp_path / "results"
    opened = Studio(methods, path=picture(tmp_path / "my cat.png", np.zeros((4, 5, 3), np.uint8)), folder=folder, method="by three")
    assert not folder.exists()
    first, second = opened.save(), opened.save()
    assert [first.name, second.name] == ["my_cat_by_three.png", "my_cat_by_three_2.png"]
    assert sr.images.read(first).shape == (3, 12, 15) and sorted(p.name for p in folder.iterdir()) == [first.name, second.name]
    assert opened.save(tmp_path / "elsewhere").parent.name == "elsewhere"


def test_it_is_refused_without_methods_or_with_an_unknown_one(methods):
    with pytest.raises(ValueError, match="no method to choose from"):
        Studio({})
    for build in (lambda: Studio(methods, method="magic"), lambda: Studio(methods).upscale("magic")):
        with pytest.raises(ValueError, match="there is no method 'magic': expected one of nearest, by three"):
            build()


class Broken(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("out of memory\nin two lines")


def uploaded(name, content):
    """What a browser sends."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return {"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": now}


def test_the_buttons(methods, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    opened = Studio({**methods, "broken": Broken()}, folder="results")
    panel = opened.panel()
    buttons, said, view = panel.children
    upload, method, save = buttons.children
    assert "128×128 → 256×256 pixels" in said.value and "data:image/webp" in view.value
    shown = view.value
    method.value = "by three"
    assert view.value != shown and "384×384" in said.value
    content = picture(tmp_path / "dog.png", np.full((30, 20, 3), 200, np.uint8)).read_bytes()
    upload.value = (uploaded("<dog>.png", content),)
    assert opened.photo.shape == (3, 30, 20) and "&lt;dog&gt;: 20×30 → 60×90 pixels" in said.value
    save.click()
    assert "saved as results" in said.value and [p.name for p in (tmp_path / "results").iterdir()] == ["dog_by_three.png"]
    shown = view.value
    upload.value = (uploaded("notes.txt", b"hi"),)
    assert said.value.startswith("notes.txt is not an image that can be read") and view.value == shown
    method.value = "broken"
    assert said.value.endswith("broken could not enlarge it: out of memory in two lines")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dog.png", "results"]


def test_buttons_only_where_a_person_can_press_them(methods, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    assert not studio.interactive()
    Studio(methods)._ipython_display_()
    monkeypatch.setattr(studio, "interactive", lambda: True)
    Studio(methods)._ipython_display_()
    assert isinstance(shown[0], plots.Slider) and type(shown[1]).__name__ == "VBox"
