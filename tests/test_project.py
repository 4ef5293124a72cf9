"""The house: who imports whom, what is documented, and that files which say the same thing agree."""

import ast
import inspect
import json
import re
import subprocess
import sys

import pytest
import torch
import yaml

import srcourse as sr
from conftest import ROOT, one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FLOORS = {
    1: ["address", "files", "images", "resize", "seeds", "machine", "progress"],
    2: ["degradation", "metrics", "models"],
    3: ["data", "losses", "inference"],
    4: ["training", "evaluation", "plots"],
    5: ["exercises", "grading", "studio", "authoring", "instructors", "shaking", "cli", "__main__"],
}
FLOOR = {name: floor for floor, names in FLOORS.items() for name in names}
MODULES = sorted(p for p in (ROOT / "srcourse").rglob("*.py") if p.name != "__init__.py" or p.parent != ROOT / "srcourse")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_from_lower_floors_or_its_own_folder(path):
    unit = path.relative_to(ROOT / "srcourse").parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("srcourse"):
            names = [node.module.split(".")[1]] if "." in node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".")[1] for alias in node.names if alias.name.startswith("srcourse.")]
        for name in names:
            if name in FLOOR and name != unit:
                # the machine's and images' neighbours on floor 1 build on each other in one direction
                below = FLOOR[name] < FLOOR[unit] or (unit, name) in ALLOWED
                assert below, f"{path.name} (floor {FLOOR[unit]}) imports {name} (floor {FLOOR[name]})"


ALLOWED = {
    ("authoring", "instructors"),
    ("authoring", "shaking"),
    ("shaking", "grading"),
    ("images", "files"),
    ("resize", "images"),
    ("cli", "grading"),
    ("__main__", "cli"),
    ("grading", "exercises"),
    ("authoring", "grading"),
    ("cli", "exercises"),
}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_public_thing_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path.name} does not say what it is"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_") and node.name != "forward":
            if any(isinstance(d, ast.Name) and d.id == "property" for d in getattr(node, "decorator_list", [])) and len(node.body) == 1:
                continue
            nested = any(node in ast.walk(f) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and f is not node)
            assert nested or ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


PUBLIC = """
    images.read images.write images.sample images.SAMPLES images.rgb_to_y images.crop_to_multiple images.to_uint8
    degradation.downscale degradation.upscale degradation.create metrics.psnr metrics.ssim
    models.available models.create models.load models.save models.count_parameters upscale
    losses.PerceptualLoss losses.TextureLoss losses.discriminator_loss losses.generator_loss metrics.high_frequency_share
    training.load_recipe training.train evaluation.evaluate plots.compare plots.curves plots.slider plots.spectrum
    exercises.check exercises.progress data.DeadLeaves environment setup budget
"""


def test_the_public_api_is_there():
    for name in PUBLIC.split():
        thing = sr
        for part in name.split("."):
            thing = getattr(thing, part)
        assert thing is not None
    assert callable(sr.environment) and callable(sr.upscale)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        sr.nothing  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    script = "import sys, srcourse; print([m for m in ('torch', 'matplotlib', 'skimage') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_first_figure_waits_for_no_package_that_it_does_not_need():
    """torchvision, accelerate and pandas take seconds to load."""
    script = "import sys, srcourse as sr; sr.models.load('srresnet_small-x4'); sr.plots.compare; "
    script += "print([name for name in ('torchvision', 'accelerate', 'pandas', 'torch._dynamo') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_environment_yml_is_in_step_with_pyproject():
    conda_names = {"torch": "pytorch"}
    wanted = {}
    for requirement in project()["project"]["dependencies"]:
        name, _, version = requirement.partition(">=")
        wanted[conda_names.get(name, name)] = version
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = dict(entry.partition(">=")[::2] for entry in environment["dependencies"] if isinstance(entry, str))
    python = listed.pop("python")
    assert python == project()["project"]["requires-python"].removeprefix(">=")
    listed.pop("pip")
    assert listed == wanted
    assert environment["dependencies"][-1] == {"pip": ["-e ."]}


def test_the_version_stands_in_one_place_only():
    assert project()["project"]["version"] == sr.__version__
    assert f"version: {sr.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_readme_names_every_lesson_recipe_and_its_commands():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install uv && uv run jupyter lab --ServerApp.root_dir=. notebooks/00_welcome.ipynb" in readme
    assert "pip install uv && uv run pytest" in readme
    assert "pip install uv && uv run pytest" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    from srcourse import authoring

    for name in authoring.LESSONS:
        assert f"notebooks/{name}.ipynb" in readme
    for recipe in sr.training.recipes():
        assert f"`{recipe}`" in readme
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (ROOT / target).exists(), f"dead link {target}"


def tracked():
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_tree_stays_small_and_names_no_machine():
    files = tracked()
    assert sum(f.stat().st_size for f in files) < 60e6
    assert "uv.lock" not in {f.name for f in files}
    strangers = [r"pypi\.", "python" + "hosted", r"registry\.npm", r"deb\.deb", "/(?:root|work|home)/"]
    written = {".py", ".md", ".ipynb", ".toml", ".yml", ".yaml", ".cff", ".txt", ".lock"}
    for file in files:
        if file.suffix in written and file.parent != ROOT / "tests":
            found = re.search("|".join(strangers), file.read_text(encoding="utf-8"))
            assert not found, f"{file.name}: {found.group(0)}"


# --- recipes ----------------------------------------------------------------------------------------------------


# the papers' scales: 2, 3 and 4 elsewhere
SCALES = {"recursive_gan": (2, 4), "srgan_mse": (2, 4), "rgan": (2,), "rgan_small": (2,)}
SCALES |= {"eusr": (2, 4, 8), "eusr_small": (2, 4, 8), "four_pass_eusr": (4,), "four_pass_eusr_small": (4,)}
NARROW = {
    "srresnet": ["model.blocks=1"],
    "msfm": ["model.channels=4"],
    "recursive_cascade": ["model.channels=4"],
    "eusr": ["model.blocks=1", "model.channels=4"],
}


@pytest.mark.parametrize("name", list(sr.training.recipes()))
def test_every_recipe_loads_at_its_scales_and_trains_a_step(name, leaves):
    recipe = sr.training.load_recipe(name)
    if recipe.method == "scores":
        pytest.skip("no LR, no scale: tests/test_scores.py")
    assert recipe.name == name and recipe.title and sr.training.recipes()[name] == recipe.title
    for scale in SCALES.get(name, (2, 3, 4)):
        assert sr.training.load_recipe(name, scale=scale).scale == scale
    scale = SCALES.get(name, (2,))[0]
    patch = {"multi-pass": 32, "multi-scale": 16}.get(recipe.method, 24)
    overrides = [f"data.patch={patch}", "data.batch=2", "data.crops_per_image=1", "start=null"]
    overrides += next((options for family, options in NARROW.items() if recipe.model.name.startswith(family)), [])
    if recipe.discriminator is not None:
        narrow = "hidden" if recipe.discriminator.name == "fft_discriminator" else "channels"
        overrides += [f"discriminator.{narrow}=4", "perceptual={weights: random, layer: relu1_1}"]
    run = sr.training.train(sr.training.load_recipe(name, scale=scale, steps=1, overrides=overrides), leaves, progress=False)
    assert run.step == 1 and run.history[-1]["loss"] > 0


def test_the_papers_recipe():
    recipe = sr.training.load_recipe("srresnet")
    assert (recipe.loss, recipe.data.patch, recipe.data.batch, recipe.optimizer.learning_rate) == ("mse", 180, 8, 1e-4)
    assert (recipe.steps, recipe.patience, recipe.validate_every) == (300 * 100, 30, 100)
    assert [recipe.learning_rate(t) for t in (0, 2999, 3000)] == pytest.approx([1e-4, 1e-4, 1e-5])
    assert sr.training.load_recipe("srresnet_unknown").data.degradation == "unknown"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.blokcs=4"], "no option 'blokcs'"),
        (["data.bach=4"], "no key 'data.bach': expected one of degradation"),
        (["stpes=4"], "no key 'stpes'"),
        (["steps=abc"], "steps: .*got 'abc'"),
        (["steps=0"], "steps: .*greater than or equal to 1, got 0"),
        (["model.name=vgg"], "no model 'vgg'"),
        (["data.patch=97"], "data.patch is 97: expected a multiple"),
        (["data.degradation=fog"], "no degradation 'fog'"),
        (["blocks"], "expected key=value"),
        (["data=3"], "data: "),
        (["model.blocks=x"], "cannot build srresnet with .*blocks='x'"),
        (["model.channels=100000000000"], "cannot build srresnet"),
        (["model.scale=3"], "the scale stands at the top"),
        (["optimizer.learning_rate=.inf"], "learning_rate: .*finite"),
        (["name=../../x"], "name: "),
        (["optimizer.learning_rate=[1"], "cannot read the value"),
        (["data.batch=1000000000000"], "recipe: data.batch: .*got 1000000000000"),
    ],
)
def test_wrong_recipes_get_one_line(overrides, words):
    with pytest.raises(ValueError, match=words) as caught:
        sr.training.load_recipe("srresnet", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_recipe_files_of_strangers(tmp_path):
    (tmp_path / "a.yaml").write_text("!!python/object/apply:os.system ['true']")
    (tmp_path / "b.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "c.yaml").write_text("a: [")
    for name in "abc":
        with pytest.raises(ValueError) as caught:
            sr.training.load_recipe(tmp_path / f"{name}.yaml")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no recipe 'nope': expected one of eusr, eusr_small, fftgan"):
        sr.training.load_recipe("nope")
    with pytest.raises(ValueError, match="scale is given twice"):
        sr.training.load_recipe("srresnet", scale=2, overrides=["scale=4"])
    assert sr.training.load_recipe("srresnet", overrides=["optimizer.learning_rate=1e-3"]).optimizer.learning_rate == 1e-3


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_lists_and_refuses(command):
    assert "srresnet_unknown" in command("recipes").stdout
    assert "srresnet_small-x4" in command("models").stdout
    assert command("environment").returncode == 0
    assert "there is no recipe 'nope'" in one_line(command("train", "nope"))
    assert "no key 'data.bach'" in one_line(command("train", "srresnet", "--set", "data.bach=1"))
    assert "there are no weights 'nope'" in one_line(command("evaluate", "nope", "--data", ROOT))
    assert command("frobnicate").returncode == 2


def test_a_recipe_is_printed_as_it_stands_in_its_file(command, tmp_path):
    printed = command("recipes", "srgan_small")
    assert printed.stdout == (ROOT / "srcourse" / "recipes" / "srgan_small.yaml").read_text(encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(printed.stdout, encoding="utf-8")
    mine, shipped = sr.training.load_recipe(tmp_path / "mine.yaml"), sr.training.load_recipe("srgan_small")
    assert mine.name == "mine" and mine.model_copy(update={"name": "srgan_small"}) == shipped
    for name in ("srgan_smal", "../recipes/srgan_small"):
        assert f"there is no recipe '{name}': expected one of eusr, eusr_small, " in one_line(command("recipes", name))


def test_evaluate_prints_and_writes_the_table(command, photo_folder, tmp_path):
    process = command(
        "evaluate", "bicubic", "nearest", "--data", photo_folder, "--scale", 2, "--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md"
    )
    assert process.returncode == 0, process.stderr
    table = sr.evaluation.evaluate({"bicubic": sr.models.create("bicubic", scale=2)}, sr.data.benchmarks(photo_folder, 2))
    assert f"{table.scores[0].psnr:.3f}" in process.stdout and "nearest" in process.stdout
    assert (tmp_path / "t.csv").read_text().startswith("model,benchmark,scale,images,psnr")
    assert (tmp_path / "t.md").read_text().count("\n") == 4
    drawn = command("evaluate", "bicubic", "nearest", "--data", photo_folder, "--scale", 2, "--plot", tmp_path / "plane.txt")
    assert "plane.txt is no name for a plot" in one_line(drawn)
    drawn = command("evaluate", "bicubic", "--data", photo_folder, "--scale", 2, "--plot", tmp_path / "plane.PNG")
    assert "bicubic" in drawn.stdout and "plane.PNG was not drawn: no row has a PSNR and a NIQE" in drawn.stderr and drawn.returncode == 1
    assert not (tmp_path / "plane.PNG").exists()  # the photos are too small for NIQE
    with pytest.raises(ValueError, match="enlarges 4 times: expected a model for scale 2"):
        sr.evaluation.evaluate({"x": sr.models.create("bicubic", scale=4)}, sr.data.benchmarks(photo_folder, 2))


def test_evaluate_refuses_what_it_cannot_score(command, photo_folder, tmp_path, monkeypatch):
    sets = sr.data.benchmarks(photo_folder, 2)

    class Broken(torch.nn.Module):
        def forward(self, x):
            return torch.full((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]), float("nan"))

    with pytest.raises(ValueError, match=r"as mine made it, cannot be scored: the image holds NaN"):
        sr.evaluation.evaluate({"mine": Broken()}, sets)
    bicubic = sr.models.create("bicubic", scale=2)
    with pytest.raises(ValueError, match="the models are a Interpolation: expected a dictionary"):
        sr.evaluation.evaluate(bicubic, sets)
    with pytest.raises(ValueError, match=r"is a path: expected srcourse\.data\.benchmarks\("):
        sr.evaluation.evaluate({"bicubic": bicubic}, str(photo_folder))
    (tmp_path / "full").write_text("a file")
    monkeypatch.setattr("srcourse.evaluation.evaluate", None)  # places are looked at before the work
    words = ["evaluate", "bicubic", "--data", photo_folder, "--scale", 2]
    assert "full is no folder; choose another place" in one_line(command(*words, "--csv", tmp_path / "full" / "x.csv"))
    (tmp_path / "t.md").mkdir()
    assert "t.md: it is a folder; choose another name" in one_line(command(*words, "--markdown", tmp_path / "t.md"))
    photo = next(photo_folder.iterdir())
    assert "full is no folder" in one_line(command("upscale", photo, "--out", tmp_path / "full"))
    assert "scale is 0: expected an integer" in one_line(command("upscale", photo, "--scale", 0))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--plan reckons for one process" in one_line(command("train", "srresnet_small", "--data", photo_folder, "--plan"))


def test_evaluate_makes_lr_as_the_recipe_did(command, photo_folder):
    """P000's LR is blurred first: bicubic loses on it what the blur takes."""
    words = ["evaluate", "bicubic", "--data", photo_folder, "--scale", 2]
    plain, blurred = (command(*words, *more).stdout for more in ([], ["--degradation", "gaussian-bicubic"]))
    degrade = sr.degradation.create("gaussian-bicubic", 2)
    table = sr.evaluation.evaluate({"bicubic": sr.models.create("bicubic", scale=2)}, sr.data.benchmarks(photo_folder, 2, degrade))
    assert f"{table.scores[0].psnr:.3f}" in blurred and f"{table.scores[0].psnr:.3f}" not in plain
    assert "NIQE with the course's own model" in plain
    assert "no degradation 'fog'" in one_line(command(*words, "--degradation", "fog"))


def test_evaluate_draws_the_plane_and_takes_an_eusr_at_each_scale(command, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    sr.images.write(folder / "cat.png", sr.images.sample("chelsea"))
    sr.models.save(sr.models.create("eusr", blocks=1, channels=4, bicubic_skip=True), tmp_path / "eusr.safetensors")
    for scale in (2, 4):
        plot = tmp_path / f"{scale}.png"
        words = ["evaluate", "bicubic", tmp_path / "eusr.safetensors", "--data", folder, "--scale", scale, "--plot", plot]
        done = command(*words)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(f"×{scale}") == 2 and min(sr.images.read(plot).shape[-2:]) > 300
    assert command("upscale", folder / "cat.png", "--model", tmp_path / "eusr.safetensors", "--scale", 8, "--out", tmp_path).returncode == 0
    assert sr.images.read(tmp_path / "cat_x8.png").shape[-1] == 8 * 451


def test_evaluate_applies_a_network_to_its_own_image(command, tmp_path):
    sr.images.write(tmp_path / "photos" / "cat.png", sr.images.sample("chelsea"))
    done = command("evaluate", "bicubic", "--data", tmp_path / "photos", "--scale", 2, "--passes", 2)
    assert done.returncode == 0 and "×4" in done.stdout, done.stderr
    pair = sr.data.benchmarks(tmp_path / "photos", 4)[0][0]
    twice = sr.upscale(sr.models.create("bicubic", scale=2), pair.lr, passes=2)
    assert f"{sr.metrics.psnr(twice, pair.hr, border=4):.3f}" in done.stdout
    told = one_line(command("evaluate", "bicubic", "--data", tmp_path / "photos", "--scale", 4, "--passes", 2))
    assert "2 passes at scale 4 enlarge too much: expected 8 times at most" in told


def test_a_judge_neither_upscales_nor_is_evaluated(command, photo_folder, tmp_path):
    for words in (["evaluate", "nima_small", "--data", photo_folder], ["upscale", photo_folder / "0.png", "--model", "nima_small"]):
        assert "score_predictor judges images and does not enlarge them" in one_line(command(*words))


def test_stdout_of_every_command_is_utf8():
    script = "from srcourse.cli import main; main()"
    process = subprocess.run([sys.executable, "-c", script, "recipes"], capture_output=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""})
    assert process.returncode == 0 and "§" in process.stdout.decode("utf-8")


# --- plots ------------------------------------------------------------------------------------------------------


def test_pictures_carry_their_sentence(tmp_path):
    photo = sr.data.DeadLeaves(0, 64)[0]
    small = sr.degradation.downscale(photo, 2)
    pictures = [
        sr.plots.compare(
            {"small": small, "whole": photo}, zoom=(8, 8, 16, 20), reference="whole", describe="Two leaves, one small and one whole."
        ),
        sr.plots.compare({"whole": photo, "grey": sr.images.rgb_to_y(photo)}, describe="In colour and in grey."),
        sr.plots.spectrum({"whole": photo}, describe="Power falls with frequency."),
        sr.plots.curves([{"step": 1, "loss": 0.1}, {"step": 2, "loss": 0.05, "psnr": 30.0}], baseline={"bicubic": 29.0}),
    ]
    for picture in pictures:
        data, metadata = picture._repr_mimebundle_()
        mime = next(m for m in data if m.startswith("image/"))
        assert metadata[mime]["alt"] == picture.describe == data["text/plain"] and len(data[mime]) > 1000
    pictures[0].save(tmp_path / "a.png")
    assert sr.images.read(tmp_path / "a.png").shape[0] == 3
    with pytest.raises(ValueError, match="outside the image"):
        sr.plots.compare({"a": photo}, zoom=(60, 0, 10, 10))
    with pytest.raises(ValueError, match="describe="):
        sr.plots.Picture(pictures[0].figure, " ")


def test_the_plane_joins_what_none_beats_and_leaves_out_what_is_no_number():
    points = {"a": (28, 8), "b": (30, 7), "c": (29, 7.5), "d": (27, 5), "tiny": (31, float("nan"))}
    axis = sr.plots.plane(points, describe="Four methods.").figure.axes[0]
    assert axis.lines[0].get_xydata().tolist() == [[27, 5], [30, 7]]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="no point to draw"):
        sr.plots.plane({"tiny": (31, float("nan"))}, describe="Nothing.")
    many = sr.plots.plane({str(i): (i, i) for i in range(20)}, describe="Twenty methods.").figure.axes[0].collections
    marks = {(tuple(dots.get_facecolor()[0]), dots.get_paths()[0].vertices.tobytes()) for dots in many}
    assert len(marks) == 20  # nobody looks like another


def test_curves_draw_a_panel_for_what_there_is():
    row = {
        "step": 1,
        "loss": 0.1,
        "pixel_loss": 0.1,
        "discriminator_loss": 1.4,
        "real_accuracy": 0.5,
        "generated_accuracy": 0.6,
        "psnr": 30.0,
    }
    titles = [axis.get_title() for axis in sr.plots.curves([row, {**row, "step": 2}]).figure.axes]
    assert titles == ["loss", "the discriminator", "validation"]
    assert len(sr.plots.curves([{"step": 1, "loss": 0.1}]).figure.axes) == 1


def test_spectrum_finds_a_wave_at_its_frequency():
    import torch

    x = torch.arange(128, dtype=torch.float64)
    wave = 0.5 + 0.4 * torch.sin(2 * torch.pi * 16 / 128 * x).expand(1, 128, 128)  # 16 periods in 128 pixels: a quarter of Nyquist
    frequency, power = sr.plots.radial_spectrum(wave)
    assert frequency[power.argmax()] == pytest.approx(0.25, abs=0.02)


def test_the_slider_is_self_contained_html():
    photo = sr.data.DeadLeaves(0, 32)[0]
    slider = sr.plots.slider(sr.degradation.downscale(photo, 2), photo, labels=("<LR>", "HR"))
    markup = slider._repr_html_()
    assert "http" not in markup and "<script" not in markup and "&lt;LR&gt;" in markup
    assert markup.count("data:image/webp;base64,") == 2 and 'type="range"' in markup and "aria-label" in markup
    assert sr.plots.slider(photo, photo)._repr_html_() == sr.plots.slider(photo, photo)._repr_html_()  # stored outputs stay the same


def test_environment_lists_what_is_needed():
    from srcourse.machine import Check

    environment = sr.environment()
    assert environment.ok and {"python", "torch", "device", "memory", "disk"} <= {check.name for check in environment}
    environment.append(Check("more", False, "missing", optional=True))
    assert environment.ok and str(environment).splitlines()[-1].startswith("–")
    environment.append(Check("most", False, "missing"))
    assert not environment.ok and str(environment).splitlines()[-1].startswith("FAIL")
    assert inspect.signature(sr.budget).parameters.keys() == {"cpu", "gpu"}
    assert json.dumps(sr.budget(cpu=3, gpu=5)) in ("3", "5")


def test_whatever_the_tests_start_is_offline():
    script = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=5)"  # an address that belongs to nobody
    assert "the tests work offline" in subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stderr


def test_the_readmes_results_are_the_cards():
    """Which test_models recomputes from the weights."""
    text, rows = (ROOT / "README.md").read_text(encoding="utf-8"), 0
    for scale, table in re.findall(r"\n\| ×(\d) \|[^\n]*Set5 \| Set14 \|\n((?:\|[^\n]*\n)+)", text):
        for name, parameters, minutes, *cells in re.findall(r"\| `([\w-]+)` \| ([\d,]+) \| (\d+)[^|]* \| ([^|]+) \| ([^|]+) \|", table):
            card = sr.models.card(name)
            assert int(parameters.replace(",", "")) == sr.models.count_parameters(sr.models.load(name))
            assert int(minutes) == round(card["minutes"])
            for benchmark, cell in zip(("Set5", "Set14"), cells, strict=True):
                entry = next(e for e in card["scores"] if e["benchmark"] == benchmark and e.get("scale", int(scale)) == int(scale))
                told = [f"{entry['psnr']:.2f}", f"{entry['ssim']:.4f}", f"{entry['niqe_official']:.2f}"]
                assert cell.strip().split(" / ") == told, (name, scale, benchmark)
            rows += 1
    assert rows >= 6
    enlarging = {name for name in sr.models.shipped() if name != "nima_small"}
    assert enlarging == set(re.findall(r"\n\| `([\w-]+)` \|", text))  # every network that ships has its row
