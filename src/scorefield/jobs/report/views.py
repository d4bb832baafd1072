"""The pictures of a report: samples, how they came about, and the curves of training."""

from __future__ import annotations

from pathlib import Path

from scorefield.jobs.report.parts import Curve, Picture
from scorefield.jobs.report.plots import Line, curve_svg
from scorefield.run.checkpoint_choice import losses
from scorefield.training.log import read_table

SHOWN = 8  # pictures of training, at most


def latest_samples(folder: Path) -> Picture | None:
    """Samples of the last evaluation, or those that were drawn into the run folder."""
    found = sorted(folder.glob("evaluation/**/samples.png"), key=lambda path: path.stat().st_mtime_ns)
    words = ("A grid of samples from the trained model.", "Samples of the model, drawn at random, none chosen.")
    pictures = (Picture.read(path, *words) for path in (folder / "samples.png", *reversed(found)))
    return next((picture for picture in pictures if picture is not None), None)


def progress(folder: Path) -> list[Picture]:
    """Samples at several steps of training, evenly chosen with the first and the last."""
    found = sorted((folder / "samples").glob("step-*.png"))
    last = len(found) - 1
    chosen = sorted({round(i * last / max(1, SHOWN - 1)) for i in range(SHOWN)}) if found else []
    steps = [(found[i], f"{int(found[i].stem.removeprefix('step-')):,}") for i in chosen]
    pictures = [
        Picture.read(path, f"A grid of samples after {step} steps.", f"After {step} steps") for path, step in steps
    ]
    return [picture for picture in pictures if picture is not None]


def draw_curves(folder: Path) -> list[Curve]:
    """Losses, norm of the gradient and learning rate against the number of samples seen."""
    table = folder / "logs" / "train.csv"
    rows, valid = read_table(table) if table.is_file() else [], list(losses(folder).values())

    def column(name: str) -> tuple[list[float], list[float]]:
        return [float(row["samples"]) for row in rows], [float(row[name]) for row in rows]

    def held_out(name: str) -> tuple[list[float], list[float]]:
        return [row["samples"] for row in valid], [row[name] for row in valid]

    drawn = [
        draw("loss", "loss", Line("training", *column("loss")), Line("validation", *held_out("loss")),
             Line("validation, averaged weights", *held_out("loss_ema"))),
        draw("gradient", "norm of the gradient", Line("norm of the gradient", *column("gradient_norm"))),
        draw("rate", "learning rate", Line("learning rate", *column("learning_rate")), log=False),
    ]  # fmt: skip
    return [curve for curve in drawn if curve is not None]


def draw(key: str, ylabel: str, *lines: Line, log: bool = True) -> Curve | None:
    """Curves with the value at the end of each; None where there is nothing to draw."""
    known = [line for line in lines if line.x]
    if not known:
        return None
    ends = ", ".join(f"{line.name} {line.y[-1]:.4g}" for line in known)
    svg = curve_svg(
        key, known, xlabel="samples seen", ylabel=ylabel, log=log and min(map(min, (k.y for k in known))) > 0
    )
    return Curve(svg, f"{ylabel.capitalize()} against samples seen; at the end: {ends}.", f"At the end: {ends}.")
