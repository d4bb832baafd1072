"""The gate of score models between function spaces: trained on 32², sampled at 32², 64² and 128², spectra against the truth.

    python benchmarks/functions_gate.py --folder runs/gate [--cells NAME ...] [--out benchmarks/functions_gate.md]

Data: a Matérn field on the torus, truncated by mode; by its exponential (`lognormal`) a field that is not Gaussian. Each cell is
a run of `scorefield train`; its process CPU time is measured. Every figure is kept in FOLDER/figures.jsonl: what is there is not
computed again, and a training that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scorefield
from scorefield.core.denoiser import Denoiser
from scorefield.core.noise import GaussianField, Matern
from scorefield.core.spectrum import RadialSpectrum
from scorefield.core.wiener import Wiener
from scorefield.foundation.files import write_text
from scorefield.foundation.random import Generators
from scorefield.nn import Network
from scorefield.run import experiment as run
from scorefield.run.recipe import recipe_parser
from scorefield.samplers import BandLimited, WienerBeyond

TRAINED, FINE = 32, (32, 64, 128)
DATA = GaussianField(Matern(0.2, 2.0))
NOISE = {
    "class_path": "GaussianField",
    "init_args": {"density": {"class_path": "Matern", "init_args": {"length": 0.1}}},
}
NOISES: dict[str, tuple[Any, float, float]] = {  # and the levels that cover the data's modes
    "field": (NOISE, 0.01, 40.0),
    "white": ({"class_path": "White"}, 0.002, 100.0),
    "white-modes": ({"class_path": "WhiteModes", "init_args": {"points": TRAINED**2}}, 0.002, 100.0),
}
NETS = {
    "fno": {"class_path": "FNO", "init_args": {"channels": 24, "modes": TRAINED}},
    "unet": {
        "class_path": "NCSNpp",
        "init_args": {"channels": 32, "multipliers": [1, 2, 2], "blocks": 1, "attention": [], "dropout": 0.0},
    },
}
FIELDS, SAMPLES, STEPS = 8192, 64, 32


@dataclass(frozen=True)
class Cell:
    net: str = "fno"
    noise: str = "field"
    loss: str = "precision"
    data: str = "gaussian"
    steps: int = 1000
    batch: int = 16

    @property
    def name(self) -> str:
        return f"{self.net}-{self.noise}-{self.loss}-{self.data}"

    def recipe(self, folder: Path) -> dict[str, Any]:
        noise, smallest, largest = NOISES[self.noise]
        norm = {"precision": "Mahalanobis", "l2": "SquaredError"}[self.loss]
        return {
            "model": {
                "sde": {
                    "schedule": {"class_path": "EDM", "init_args": {"sigma_min": smallest, "sigma_max": largest}},
                    "noise": noise,
                },
                "net": NETS[self.net],
                "precondition": {"class_path": "EDMPreconditioner"},
                "normaliser": {"class_path": "scorefield.data.Identity"},
                "sampler": {"steps": STEPS, "step": {"class_path": "Heun"}},
            },
            "data": {"class_path": "Arrays", "init_args": {"path": str(data_file(folder, self.data)), "valid": 256}},
            "train": {
                "loss": {
                    "class_path": "Denoising",
                    "init_args": {
                        "time": {"class_path": "LogNormal", "init_args": {"mean": -1.0, "std": 1.6}},
                        "weight": {"class_path": "EDMWeight"},
                        "norm": {"class_path": norm},
                    },
                },
                "optimiser": {
                    "class_path": "Adam",
                    "init_args": {
                        "lr": 2.0e-3,
                        "beta2": 0.99,
                        "schedule": {"class_path": "CosineDecay", "init_args": {"warmup": 50}},
                    },
                },
                "steps": self.steps,
                "batch_size": self.batch,
                "ema": 0.99,
                "validate_every": self.steps,
                "validate_on": 64,
                "preview_every": 10 * self.steps,
                "checkpoint_every": max(1, self.steps // 4),
                "accelerator": "cpu",
            },
        }


CELLS = [
    Cell(),
    Cell(loss="l2"),
    Cell(noise="white", loss="l2"),
    Cell(noise="white-modes", loss="l2"),
    Cell(data="lognormal"),
    Cell(net="unet", steps=500),
    Cell(net="unet", noise="white", loss="l2", steps=500),
    Cell(net="unet", noise="white-modes", loss="l2", steps=500),
]


def draws(kind: str, n: int, size: int, seed: int) -> Tensor:
    """Exact draws of the data's law."""
    generator = Generators((seed, index) for index in range(n))
    x = DATA.sample((n, 1, size, size), generator=generator, like=torch.empty(0))
    if kind == "gaussian":
        return x
    return ((x.exp() - math.exp(0.5)) / math.sqrt(math.e**2 - math.e)).float()


def data_file(folder: Path, kind: str) -> Path:
    """FIELDS draws at the resolution of training: of `lognormal` functions, cut from draws on the finest grid by mode."""
    path = folder / f"{kind}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts = [fields(kind, 256, TRAINED, seed=1000 + i) for i in range(FIELDS // 256)]
        np.save(path, torch.cat(parts).numpy())
    return path


def fields(kind: str, n: int, size: int, seed: int) -> Tensor:
    """Draws of one function each on a grid: what is not Gaussian is made on the finest grid and cut by mode."""
    if kind == "gaussian":
        return draws(kind, n, size, seed)
    from scorefield.foundation.fourier import resample

    return resample(draws(kind, n, FINE[-1], seed), (size, size))


def bands(x: Tensor) -> Tensor:
    """Power per mode, |x̂_k|² averaged over samples and the modes of integer band |k|, for bands 0..N/2 − 1."""
    size = x.shape[-1]
    power = (torch.fft.fft2(x.double(), norm="forward").abs() ** 2).mean((0, 1))
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    radius = (k[:, None] ** 2 + k**2).sqrt().round().long()
    total = torch.zeros(int(radius.max()) + 1, dtype=torch.float64).index_add_(0, radius.flatten(), power.flatten())
    return (total / radius.flatten().bincount())[: size // 2]


def truth(kind: str) -> Tensor:
    """Of the law itself; for what is not Gaussian, of 2048 draws on the finest grid."""
    if kind == "gaussian":
        size = FINE[-1]
        values = DATA.eigenvalues((size, size))
        field = torch.fft.ifft2(values.sqrt().to(torch.complex128), norm="forward")
        return bands(field[None, None].real)
    return torch.stack([bands(fields(kind, 256, FINE[-1], seed=5000 + i)) for i in range(8)]).mean(0)


def errors(x: Tensor, true: Tensor) -> dict[str, float]:
    """mean |ln P/P_true| over bands 1..15, and its mean with sign over the new bands 16..N/2 − 1."""
    found = (bands(x) / true[: x.shape[-1] // 2]).log()
    result = {"shared": float(found[1:16].abs().mean())}
    if len(found) > 16:
        result |= {"new": float(found[16:].mean()), "new_abs": float(found[16:].abs().mean())}
    return result


def wasserstein(x: Tensor, y: Tensor) -> float:
    """Of the one-point laws, in units of the data's standard deviation."""
    levels = torch.linspace(0.0005, 0.9995, 1000, dtype=torch.float64)
    a, b = (torch.from_numpy(np.quantile(values.double().numpy(), levels.numpy())) for values in (x, y))
    return float((a - b).abs().mean())


class Figures:
    """Lines of JSON, one per figure; what is known is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.known = {record["key"]: record for record in map(json.loads, lines)}

    def get(self, key: str, compute: Any) -> dict[str, Any]:
        if key not in self.known:
            started = time.process_time()
            record = {"key": key, **compute(), "cpu_s": round(time.process_time() - started, 1)}
            self.known[key] = record
            with self.path.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(json.dumps(record), flush=True)
        return self.known[key]


def train(cell: Cell, folder: Path) -> dict[str, Any]:
    out = folder / cell.name
    parser = recipe_parser()
    settings = parser.read_object(cell.recipe(folder), cell.name)
    model = run.train(parser, settings, out, resume=(out / "config.yaml").exists())
    return {"parameters": sum(p.numel() for p in model.denoiser.parameters()), "steps": cell.steps, "batch": cell.batch}


def evaluate(cell: Cell, folder: Path, size: int, true: Tensor) -> dict[str, Any]:
    model = scorefield.load(folder / cell.name)
    x = model.sample(SAMPLES, seed=7, shape=(1, size, size), chunk=16)
    found = errors(x, true)
    if cell.data != "gaussian":
        found["wasserstein"] = wasserstein(x, fields(cell.data, 256, size, seed=9000))
    return found


def spectrum(cell: Cell, folder: Path) -> RadialSpectrum:
    """Of the training data, as Wiener's filter takes it."""
    x = torch.from_numpy(np.load(data_file(folder, cell.data)))
    return RadialSpectrum.measure(x, scorefield.load(folder / cell.name).sde.noise)


def beyond(cell: Cell, folder: Path, size: int, true: Tensor, mode: str) -> dict[str, Any]:
    """The same with another treatment of the modes beyond the band of training."""
    model = scorefield.load(folder / cell.name)
    way = {"band_limited": BandLimited, "wiener": lambda: WienerBeyond(spectrum(cell, folder))}[mode]()
    denoiser = way(model.generative, (TRAINED, TRAINED))
    return errors(model.sample(SAMPLES, seed=7, shape=(1, size, size), chunk=16, denoiser=denoiser), true)


class Nothing(Network):
    """A network that was never trained."""

    def forward(self, x: Tensor, label: Tensor, cond: Any = None) -> Tensor:
        return torch.zeros_like(x)


def untrained(cell: Cell, folder: Path, size: int, true: Tensor) -> dict[str, Any]:
    """Wiener's preconditioner around nothing."""
    model = scorefield.load(folder / cell.name)
    denoiser = Denoiser(Nothing(), model.sde, Wiener(spectrum(cell, folder), TRAINED**2))
    generator = Generators((7, index) for index in range(SAMPLES))
    return errors(model.sampler(denoiser, (SAMPLES, 1, size, size), generator=generator, like=torch.empty(0)), true)


def floor(kind: str, size: int, true: Tensor) -> dict[str, Any]:
    x = fields(kind, SAMPLES, size, seed=8000)
    found = errors(x, true)
    if kind != "gaussian":
        found["wasserstein"] = wasserstein(x, fields(kind, 256, size, seed=9000))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/gate"))
    parser.add_argument("--cells", nargs="*", default=None, help="names; all by default")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(FINE))
    parser.add_argument("--modes", nargs="*", type=int, default=[], help="grids for the three ways with finer modes")
    parser.add_argument("--steps", type=int, default=None, help="another number of training steps, to try")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    cells = [cell for cell in CELLS if arguments.cells is None or cell.name in arguments.cells]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    figures = Figures(arguments.folder / "figures.jsonl")
    truths = {kind: truth(kind) for kind in {cell.data for cell in cells}}
    rows = []
    for planned in cells:
        cell = replace(planned, steps=arguments.steps or planned.steps)
        trained = figures.get(f"{cell.name}/train", lambda cell=cell: train(cell, arguments.folder))
        for size in arguments.sizes:
            true = truths[cell.data]
            least = figures.get(f"floor-{cell.data}/{size}", lambda c=cell, s=size, t=true: floor(c.data, s, t))
            found = figures.get(
                f"{cell.name}/{size}", lambda c=cell, s=size, t=true: evaluate(c, arguments.folder, s, t)
            )
            rows.append((cell, trained, size, found, least))
    text = table(rows)
    if arguments.modes:
        text += "\n" + modes_table(arguments, figures, truths)
    print(text)
    if arguments.out is not None:
        write_text(arguments.out, text)


def modes_table(arguments: argparse.Namespace, figures: Figures, truths: dict[str, Tensor]) -> str:
    """The modes beyond the band of training, by the three ways, and Wiener's preconditioner untrained."""
    cell, lines = (
        CELLS[0],
        ["| modes beyond the band | grid | bands 1-15 | new bands, signed | new bands |", "| --- " * 5 + "|"],
    )
    true, folder = truths[cell.data], arguments.folder
    jobs = {
        "extrapolate": lambda size: evaluate(cell, folder, size, true),
        "band_limited": lambda size: beyond(cell, folder, size, true, "band_limited"),
        "wiener": lambda size: beyond(cell, folder, size, true, "wiener"),
        "Wiener preconditioner, untrained": lambda size: untrained(cell, folder, size, true),
    }
    for name, job in jobs.items():
        for size in arguments.modes:
            key = f"{cell.name}/{size}" if name == "extrapolate" else f"{cell.name}/{name}/{size}"
            found = figures.get(key, lambda job=job, size=size: job(size))
            lines.append(f"| {name} | {size}² | {found['shared']:.3f} | {found['new']:+.2f} | {found['new_abs']:.2f} |")
    return "\n".join(lines) + "\n"


def table(rows: list[tuple[Cell, dict[str, Any], int, dict[str, Any], dict[str, Any]]]) -> str:
    lines = [
        "| network | noise | norm | data | CPU s | grid | bands 1-15 | floor | new bands, signed | W1 |",
        "| --- " * 10 + "|",
    ]
    for cell, trained, size, found, least in rows:
        new = f"{found['new']:+.2f}" if "new" in found else ""
        distance = f"{found['wasserstein']:.3f} (floor {least['wasserstein']:.3f})" if "wasserstein" in found else ""
        lines.append(
            f"| {cell.net} | {cell.noise} | {cell.loss} | {cell.data} | {trained['cpu_s']:.0f} | {size}² | "
            f"{found['shared']:.3f} | {least['shared']:.3f} | {new} | {distance} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
