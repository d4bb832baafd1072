"""Pictures of a run: samples on their way from noise to data, and how the loss fell."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.data.batch import Batch
from scorefield.data.picture import save_grid
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.jobs.draws import Draws
from scorefield.model import Model
from scorefield.run.loading import load
from scorefield.samplers import Sampler
from scorefield.training.log import read_table


def write_all(folder: Path) -> None:
    """Samples, trajectory and loss curve of a run folder that was evaluated."""
    found = sorted(folder.glob("evaluation/*/seed-0/samples.png"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise InputError(f"{folder} was not evaluated yet: call scorefield evaluate {folder} first.")
    with replacing(folder / "samples.png") as temporary:
        shutil.copyfile(found[-1], temporary)
    trajectory(load(folder), folder / "trajectory.png")
    loss_curve(folder, folder / "loss.png")


def trajectory_of(job: Draws, path: Path, *, n: int = 8) -> None:
    """The way of the first samples of a job, drawn once."""
    if not path.exists():
        n = min(n, job.n)
        cond = {name: value[:n] for name, value in job.condition.items()}
        trajectory(
            job.model, path, n=n, seed=job.seed, sampler=job.sampler, shape=job.shape, cond=cond, denoiser=job.denoiser
        )


def trajectory(
    model: Model,
    path: Path,
    *,
    n: int = 8,
    columns: int = 9,
    seed: int = 0,
    sampler: Sampler | None = None,
    shape: Sequence[int] | None = None,
    cond: Condition | None = None,
    denoiser: DenoiserProtocol | None = None,
) -> None:
    """A row per sample: x_t/√(α² + σ²) at falling levels, then the sample, all in data units.

    Args:
        model: what to sample.
        path: the picture.
        n: how many samples.
        columns: how many pictures of each.
        seed: of the draws.
        sampler: another than the model's own.
        shape: another (channels, *grid) than that of the training data.
        cond: what to condition on, a batch of n.
        denoiser: one to sample with instead of the model's own.
    """
    plan = sampler or model.sampler
    levels = plan.steps if plan.denoise else plan.steps + 1
    kept = set(torch.linspace(0, levels - 1, min(columns - 1, levels)).round().long().tolist())
    frames: list[Tensor] = []
    _, given = model.enter(Batch(torch.zeros(n, *(shape or model.shape)), cond or {}))

    def keep(level: int, t: Tensor, x: Tensor) -> None:
        if level in kept:
            alpha, sigma = model.sde.schedule(t)
            frames.append(model.leave(x / torch.hypot(alpha, sigma).to(x), given).cpu())

    samples = model.sample(
        n, seed=seed, sampler=sampler, shape=shape, cond=cond, chunk=n, callback=keep, denoiser=denoiser
    )
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
