"""Pictures of a run: samples on their way from noise to data, and how the loss fell."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from scorefield.data.picture import save_grid
from scorefield.errors import InputError
from scorefield.files import replacing
from scorefield.model import Model
from scorefield.run import load
from scorefield.train.log import read_table


def write_all(folder: Path) -> None:
    """Samples, trajectory and loss curve of a run folder that was evaluated."""
    found = sorted(folder.glob("evaluation/*/seed-0/samples.png"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"{folder} was not evaluated yet: call scorefield evaluate {folder} first.")
    with replacing(folder / "samples.png") as temporary:
        shutil.copyfile(found[-1], temporary)
    trajectory(load(folder), folder / "trajectory.png")
    loss_curve(folder, folder / "loss.png")


def trajectory(model: Model, path: Path, *, n: int = 8, columns: int = 9, seed: int = 0) -> None:
    """A row per sample: x_t/√(α² + σ²) at falling levels, then the sample, all in data units."""
    states: list[tuple[Tensor, Tensor]] = []
    samples = model.sample(n, seed=seed, chunk=n, callback=lambda _, t, x: states.append((t, x.cpu())))
    chosen = torch.linspace(0, len(states) - 1, min(columns - 1, len(states))).round().long().tolist()
    frames = []
    for t, x in (states[level] for level in chosen):
        alpha, sigma = model.sde.schedule(t)
        frames.append(model.normaliser.inverse((x / torch.hypot(alpha, sigma)).to(model.device)).cpu())
    rows = torch.stack([*frames, samples], dim=1).flatten(0, 1)
    save_grid(path, rows, columns=len(frames) + 1, low=float(samples.min()), high=float(samples.max()))


def loss_curve(folder: Path, path: Path) -> None:
    """Training and validation loss against the number of samples seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    curves = (
        ("train.csv", "loss", "training"),
        ("valid.csv", "loss", "validation"),
        ("valid.csv", "loss_ema", "validation, EMA"),
    )
    for name, column, label in curves:
        rows = read_table(folder / "logs" / name)
        axes.plot(
            [int(row["samples"]) for row in rows], [float(row[column]) for row in rows], label=label, linewidth=1.2
        )
    axes.set(xlabel="samples seen", ylabel="loss", yscale="log")
    axes.legend()
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
