"""The ``srcourse`` command: train, evaluate, upscale, score, grade, and lists of what there is."""

import math
import os
import runpy
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def _about(
    load: Annotated[
        list[Path] | None, typer.Option(metavar="FILE.py", help="Run this first: it may register networks of your own, for all commands.")
    ] = None,
) -> None:
    """Image super-resolution: train, measure and use the networks of the course."""
    for path in load or []:
        _run_file(path)


def _run_file(path: Path) -> None:
    """Run a user's Python file, which may import from its own folder; what goes wrong in it is told with its line."""
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"--load {path}: expected a Python file, such as mine.py, that calls srcourse.models.register")
    sys.path.insert(0, str(path.absolute().parent))
    try:
        runpy.run_path(str(path), run_name=path.stem)
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = lines[-1] if lines else getattr(error, "lineno", None)
        raise ValueError(f"--load {path}: {type(error).__name__} in line {line}: {error}") from error


@app.command()
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name (see: srcourse recipes) or a YAML file.")],
    scale: Annotated[int | None, typer.Option(help="Upscaling factor.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder of photos, or a file by data_scripts/prepare.py. Without it: the photos that ship with the course."),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Folder of photos to validate on. Without it: some of --data are held out.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes, with a checkpoint to go on from.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder. By default runs/RECIPE-xSCALE, runs/RECIPE for a score predictor.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder.")] = False,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a field, e.g. model.blocks=4.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell memory and time, here and on 8 A100, and train nothing.")] = False,
) -> None:
    """Train a network by a recipe. On several GPUs: torchrun --nproc-per-node 8 -m srcourse train RECIPE."""
    from srcourse import training

    fields = {key: value for key, value in (("scale", scale), ("steps", steps), ("minutes", minutes)) if value is not None}
    loaded = training.load_recipe(recipe, overrides=overrides, **fields)
    if plan:
        if int(os.environ.get("WORLD_SIZE", 1)) > 1:
            raise ValueError("--plan reckons for one process and trains nothing: leave torchrun away")
        print(training.estimate(loaded, data))
        return
    folder = out or Path("runs") / (loaded.name if loaded.method == "scores" else f"{loaded.name}-x{loaded.scale}")
    run = training.train(loaded, data, validation=validation, out=folder, resume=resume)
    if run.interrupted:
        raise typer.Exit(130)


@app.command()
def evaluate(
    weights: Annotated[list[str], typer.Argument(help="Weights (names or files), or bicubic, nearest.")],
    data: Annotated[Path, typer.Option(help="A benchmark, a folder of benchmarks, or a folder of HR images.")],
    scale: Annotated[
        int | None, typer.Option(help="Upscaling factor. By default the weights' own; 2, 3 and 4 for bicubic and nearest.")
    ] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the table here as CSV, too.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here as Markdown, too.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw PSNR against NIQE here: .png, .jpg, .svg or .pdf.")] = None,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Self-ensemble over flips and turns.")] = False,
    tile: Annotated[int | None, typer.Option(help="Work in tiles of so many LR pixels.")] = None,
    passes: Annotated[int, typer.Option(min=1, max=3, help="Enlarge the result again, so often in all: ×2 twice on ×4 benchmarks.")] = 1,
    pristine: Annotated[str, typer.Option(help="NIQE's model: course, official (as papers use it) or a file.")] = "course",
    degradation: Annotated[
        str | None, typer.Option(help="Make LR from HR so, for instance gaussian-bicubic (P000), instead of taking stored LR.")
    ] = None,
) -> None:
    """Score models on benchmarks by the papers' protocol: PSNR, SSIM and NIQE on luma, detail, seconds, parameters."""
    from srcourse import machine, models
    from srcourse.data import benchmarks
    from srcourse.degradation import create as create_degradation
    from srcourse.evaluation import Table
    from srcourse.evaluation import evaluate as score_models
    from srcourse.files import check_place, write_text

    for path, suffix in ((csv, ".csv"), (markdown, ".md")):
        if path is not None and path.suffix.lower() != suffix:
            raise ValueError(f"{path} is no name for such a table: expected one that ends in {suffix}")
    if plot is not None and plot.suffix.lower() not in (".png", ".jpg", ".svg", ".pdf"):
        raise ValueError(f"{plot} is no name for a plot: expected one that ends in .png, .jpg, .svg or .pdf")
    for path in filter(None, (csv, markdown, plot)):
        check_place(path)
    trained = {name: models.load(name, device=machine.device()) for name in weights if name not in ("bicubic", "nearest")}
    for model in trained.values():
        _check_enlarges(model)
        if scale in getattr(model, "scales", ()):
            model.scale = scale  # an EUSR has several
    scales = {model.scale for model in trained.values()} or {2, 3, 4}
    if max(scales if scale is None else {scale}) ** passes > 8:
        raise ValueError(f"{passes} passes at scale {max(scales if scale is None else {scale})} enlarge too much: expected 8 times at most")
    table = Table()
    for one in [scale] if scale is not None else sorted(scales):
        fitting = {name: trained[name] if name in trained else models.create(name, scale=one) for name in weights}
        fitting = {name: model for name, model in fitting.items() if scale is not None or model.scale == one}
        degrade = None if degradation is None else create_degradation(degradation, one**passes)
        sets = benchmarks(data, one**passes, degrade)
        part = score_models(fitting, sets, tile=tile, ensemble=ensemble, passes=passes, pristine=pristine, progress=True)
        table.scores += part.scores
    print(table)
    if pristine == "course":
        print("NIQE with the course's own model; papers use the published one: --pristine official")
    if csv is not None:
        table.to_csv(csv)
    if markdown is not None:
        write_text(markdown, table.to_markdown() + "\n")
    if plot is not None:
        from srcourse import plots

        several = len({(s.benchmark, s.scale) for s in table.scores}) > 1
        points = {f"{s.model}, {s.benchmark} ×{s.scale}" if several else s.model: (s.psnr, s.niqe) for s in table.scores}
        points = {name: point for name, point in points.items() if all(map(math.isfinite, point))}
        if not points:
            raise ValueError(f"{plot} was not drawn: no row has a PSNR and a NIQE; expected images of at least 96×192 pixels")
        plots.plane(points, describe="Each method's mean PSNR and NIQE; the dashed line joins those that none beats on both.").save(plot)


@app.command()
def upscale(
    pictures: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    model: Annotated[str, typer.Option(help="Weights (a name or a file), or bicubic, nearest.")] = "bicubic",
    out: Annotated[Path, typer.Option(help="Folder for the results, NAME_x4.png and the like.")] = Path("upscaled"),
    scale: Annotated[int | None, typer.Option(help="Upscaling factor: 4 for bicubic and nearest, else the weights' own.")] = None,
    tile: Annotated[int, typer.Option(help="Work in tiles of so many LR pixels.")] = 256,
    ensemble: Annotated[bool, typer.Option("--ensemble", help="Self-ensemble over flips and turns: eight times slower.")] = False,
    passes: Annotated[int, typer.Option(min=1, max=3, help="Enlarge the result again, so often in all.")] = 1,
) -> None:
    """Upscale images; a transparent one keeps its transparency. One that fails is named, and the others still come."""
    from srcourse import images, inference, machine, models
    from srcourse.files import check_place

    if model in ("bicubic", "nearest"):
        network = models.create(model, scale=4 if scale is None else scale)
    else:
        network = models.load(model, device=machine.device())
        _check_enlarges(network)
        if scale in getattr(network, "scales", ()):
            network.scale = scale  # an EUSR has several
    if scale not in (None, network.scale):
        raise ValueError(f"{model} enlarges {network.scale} times: leave out --scale {scale}, or choose other weights")
    targets = [out / f"{path.stem}_x{network.scale**passes}.png" for path in pictures]
    check_place(targets[0])
    for i, target in enumerate(targets):
        if target in targets[:i]:
            raise ValueError(f"{pictures[targets.index(target)]} and {pictures[i]} would both become {target}: do them one at a time")
        if any(target.exists() and path.exists() and target.samefile(path) for path in pictures):
            raise ValueError(f"{target} is one of the images to upscale and would be overwritten: choose another --out")
    failures = 0
    for path, target in zip(pictures, targets, strict=True):
        try:
            lr = images.read(path, alpha=True)
            images.write(target, inference.upscale(network, lr, tile=tile, ensemble=ensemble, passes=passes))
            print(f"{path} → {target}")
        except (ValueError, OSError) as error:
            _complain(error)
            failures += 1
    if failures:
        raise typer.Exit(1)


@app.command()
def score(
    sr_image: Annotated[Path, typer.Argument(help="The upscaled image.")],
    hr_image: Annotated[Path, typer.Argument(help="The original.")],
    border: Annotated[int, typer.Option(help="Pixels to leave out at each side; papers use the scale.")] = 0,
    channel: Annotated[str, typer.Option(help="y: luma, as in papers; rgb: all colours.")] = "y",
) -> None:
    """PSNR and SSIM of one image against its original."""
    from srcourse import images, metrics

    sr, hr = images.read(sr_image), images.read(hr_image)
    psnr, ssim = (metric(sr, hr, border=border, channel=channel) for metric in (metrics.psnr, metrics.ssim))
    print(f"PSNR {psnr:.4f} dB\nSSIM {ssim:.5f}")


@app.command()
def recipes(name: Annotated[str | None, typer.Argument(help="Print this one's YAML, to change in a file of your own.")] = None) -> None:
    """List the recipes; with a name, print that one: srcourse recipes srgan > mine.yaml."""
    from srcourse.training.loading import recipe_text
    from srcourse.training.loading import recipes as shipped

    if name is not None:
        print(recipe_text(name), end="")
        return
    for one, title in shipped().items():
        print(f"{one:24}{title}")


@app.command()
def models() -> None:
    """List the networks, and the weights that ship with the course."""
    from srcourse import models

    print(f"networks  {', '.join(models.available())}")
    for name in models.shipped():
        card = models.card(name)
        print(f"weights   {name:24}{card.get('summary', '')}")


@app.command()
def environment() -> None:
    """Check this installation: OK or FAIL for each piece; exit status 1 if a needed one fails."""
    from srcourse.machine import environment as look

    found = look()
    print(found)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def grade(
    notebooks: Annotated[list[Path], typer.Argument(metavar="NOTEBOOK...", help="Solved lessons, or a folder of submissions.")],
    lesson: Annotated[
        str | None, typer.Option(help="The lesson to grade for, such as 03_srresnet. By default those whose checks are there.")
    ] = None,
    timeout: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds on the clock for a whole notebook.")] = 600,
    cell_timeout: Annotated[int, typer.Option(min=1, max=86_400, help="Seconds on the clock for each cell.")] = 120,
    memory: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Megabytes of memory for a notebook.")] = 8000,
    csv: Annotated[Path | None, typer.Option(help="Write a table here, a row for each submission; it grows with each.")] = None,
    append: Annotated[bool, typer.Option("--append", help="Keep the table's rows, and grade only what has none yet.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that is there.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write this run's JSON here instead of printing it.")] = None,
) -> None:
    """Run copies of notebooks in fresh kernels; print a table of their exercises' results, and JSON.

    A submission cannot forge its results, but it runs with your rights: grade strangers' in a container.
    """
    from srcourse import grading
    from srcourse.files import check_place, write_text

    if csv is not None and csv.suffix != ".csv":
        raise ValueError(f"{csv} is no name for such a table: expected one that ends in .csv")
    for path in filter(None, (csv, json_file)):
        check_place(path)
    if append and (csv is None or overwrite):
        raise ValueError("--append keeps the rows of a table: give its name with --csv, and no --overwrite")
    if csv is not None and csv.exists() and not (append or overwrite):
        raise ValueError(f"{csv} is there already: give --append to keep its rows and grade the rest, or --overwrite to begin anew")
    if lesson is not None:
        grading.exercises_of(lesson)
    given = grading.submissions(*notebooks)
    table = grading.Table.read(csv) if append and csv.exists() else grading.Table()
    others = {number[:2] for number in table.exercises} - {lesson[:2]} if lesson is not None else set()
    if others:
        raise ValueError(f"{csv} is a table of lesson {', '.join(sorted(others))}: choose another --csv for lesson {lesson[:2]}")
    limits = {"lesson": lesson, "timeout": timeout, "cell_timeout": cell_timeout, "memory": memory}
    single = len(notebooks) == 1 and notebooks[0].is_file()
    reports = []
    for report in _graded(given, table, limits) if not single or append else [grading.grade(notebooks[0], **limits)]:
        reports.append(report)
        if single and not append:
            report.student, report.sha = given[0].student, given[0].sha
            print(report)
        else:
            print(f"{report.points:>3} / {report.of}  {report.notebook}" + f": {report.problem}" * bool(report.problem), flush=True)
        if csv is not None:
            table.add(report)
            table.write(csv)
    texts = reports[0].to_json() if single and reports else "[" + ",\n".join(report.to_json() for report in reports) + "]"
    if json_file is not None:
        write_text(json_file, texts + "\n")
    elif csv is None or len(reports) == 1:
        print(texts)
    if not all(report.finished for report in reports):
        raise typer.Exit(1)


def _graded(given: list, table, limits: dict) -> Iterator:
    """Reports of the submissions that have no row in the table yet; on stderr, which one it is, and the time that is left."""
    from srcourse import grading

    start = time.monotonic()

    def tell(number: int, count: int, submission) -> None:
        seconds = (time.monotonic() - start) / max(number - 1, 1) * (count - number + 1)
        left = f", about {math.ceil(seconds / 60)} min left" if number > 1 else ""
        print(f"{number} of {count}{left}: {submission.name}", file=sys.stderr, flush=True)

    new = [submission for submission in given if not table.has(submission.name, submission.sha)]
    if len(new) < len(given):
        print(f"{len(given) - len(new)} of {len(given)} have their row already", file=sys.stderr)
    return grading.grade_all(given, skip=lambda submission: submission not in new, begin=tell, **limits)


def _check_enlarges(model) -> None:
    if not hasattr(model, "scale"):
        raise ValueError(f"{model.name} judges images and does not enlarge them: expected a network such as srresnet")


def _complain(error: Exception) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"srcourse: {text}", file=sys.stderr)


def main() -> None:
    """Run the command; what the user can mend is told in one line, with exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8")
    try:
        app()
    except (KeyboardInterrupt, SystemExit) as end:
        # typer makes an exit of the interrupt, without a word
        if isinstance(end, SystemExit) and not isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
            raise
        _complain(KeyboardInterrupt("stopped"))
        sys.exit(130)
    except Exception as error:
        from srcourse.training.engine import TrainingError

        if not isinstance(error, (ValueError, OSError, TrainingError)):
            raise
        _complain(error)
        sys.exit(1)


if __name__ == "__main__":
    main()
