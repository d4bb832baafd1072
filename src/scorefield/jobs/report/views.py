"""The pictures of a report: samples, how they came about, and the curves of training."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.jobs.report.parts import Curve, Picture
from scorefield.jobs.report.plots import Line, curve_svg
from scorefield.run.checkpoint_choice import losses
from scorefield.training.log import read_table

SHOWN = 8  # pictures of training, at most
SCALED = 4  # samples beside a scale


def latest_samples(folder: Path) -> Picture | None:
    """Samples of the last evaluation, or those that were drawn into the run folder."""
    found = sorted(folder.glob("evaluation/**/samples.png"), key=lambda path: path.stat().st_mtime_ns)
    words = ("A grid of samples from the trained model.", "Samples of the model, drawn at random, none chosen.")
    pictures = (Picture.read(path, *words) for path in (folder / "samples.png", *reversed(found)))
    return next((picture for picture in pictures if picture is not None), None)


def scaled_samples(folder: Path, names: Sequence[str] = ()) -> Picture | None:
    """A few samples of the last evaluation with their values: curves on axes, other fields beside a bar for each channel.

    Args:
        folder: the run folder.
        names: of the channels, where they are known.
    """
    found = sorted(folder.glob("evaluation/**/samples.npy"), key=lambda path: path.stat().st_mtime_ns)
    try:
        x: np.ndarray = np.array(np.load(found[-1], mmap_mode="r")[:SCALED]) if found else np.empty(0)
    except (OSError, ValueError):
        return None
    if x.ndim not in (3, 4, 5) or not np.isfinite(x).any():
        return None
    x = x[:, :, x.shape[2] // 2] if x.ndim == 5 else x
    drawn = BytesIO()
    _figure(x, names).savefig(drawn, format="png", dpi=110)
    what = "with axes" if x.ndim == 3 else "with a colour bar for each channel"
    caption = f"The first {len(x)} samples of the last evaluation {what}, in data units; axes count grid points."
    return Picture.read(BytesIO(drawn.getvalue()), f"Samples {what}.", caption)


def _figure(x: np.ndarray, names: Sequence[str]) -> Any:
    """A row for each channel, a column for each sample."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    channels, n = min(x.shape[1], SHOWN), len(x)
    named = names if len(names) == x.shape[1] else [f"channel {number}" for number in range(x.shape[1])]
    figure = Figure(figsize=(2.1 * n + 1.2, 2.1 * channels + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(channels, n, squeeze=False, sharex=True, sharey="row" if x.ndim == 3 else True)
    for number, (axes, name) in enumerate(zip(rows, named, strict=False)):
        low, high = float(np.nanmin(x[:, number])), float(np.nanmax(x[:, number]))
        for one, place in zip(x[:, number], axes, strict=True):
            place.tick_params(labelsize=7)
            if x.ndim == 3:
                place.plot(one, linewidth=1)
                axes[0].set_ylabel(name, fontsize=8)
                continue
            image = place.imshow(one, vmin=low, vmax=high, cmap="viridis", interpolation="nearest")
            if place is axes[-1]:
                bar = figure.colorbar(image, ax=list(axes))
                bar.set_label(name if " in " in name else f"{name}, data units", fontsize=8)
                bar.ax.tick_params(labelsize=7)
    return figure


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
