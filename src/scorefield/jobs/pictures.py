"""Pictures of a run: samples on their way from noise to data, and how the loss fell."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.jobs.draws import Draws
from scorefield.run.loading import load
from scorefield.training.log import read_table


def write_all(folder: Path) -> None:
    """Samples, trajectory and loss curve of a run folder that was evaluated."""
    found = sorted(folder.glob("evaluation/*/seed-0/samples.png"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"{folder} was not evaluated yet: call scorefield evaluate {folder} first.")
    with replacing(folder / "samples.png") as temporary:
        shutil.copyfile(found[-1], temporary)
    model = load(folder)
    trajectory(Draws(out=folder, model=model, sampler=model.sampler, n=8), folder / "trajectory.png")
    loss_curve(folder, folder / "loss.png")


def trajectory(job: Draws, path: Path, *, columns: int = 9) -> None:
    """A row per sample of a job: x_t/√(α² + σ²) at falling levels, then the sample, all in data units.

    Args:
        job: what to draw, all at once.
        path: the picture.
        columns: how many pictures of each sample.
    """
    model, sampler, n = job.model, job.sampler, job.n
    levels = sampler.steps if sampler.denoise else sampler.steps + 1
    kept = set(torch.linspace(0, levels - 1, min(columns - 1, levels)).round().long().tolist())
    frames: list[Tensor] = []
    _, given = model.enter(Batch(torch.zeros(n, *job.shape), job.condition))

    def keep(level: int, t: Tensor, x: Tensor) -> None:
        if level in kept:
            alpha, sigma = model.sde.schedule(t)
            frames.append(model.leave(x / torch.hypot(alpha, sigma).to(x), given).cpu())

    how: dict[str, Any] = {"seed": job.seed, "sampler": sampler, "shape": job.shape, "denoiser": job.denoiser}
    cond = model.taken(job.condition) if job.denoiser is None else job.condition
    samples = model.sample(n, cond=cond, chunk=n, callback=keep, **how)
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
