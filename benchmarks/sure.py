"""Denoising learnt from noisy slices alone, beside the same network learnt from clean ones: benchmarks/sure.md.

    SCOREFIELD_DATA=... python benchmarks/sure.py --runs runs/sure [--seeds 3] [--steps 150]
    SCOREFIELD_DATA=... python benchmarks/sure.py --classical [--phase] [--run RUN]

Trains by `scorefield train` what the folder of runs lacks (an interrupted call goes on), then denoises the slices of colin27 that
both were kept from, with noise that neither has seen, σ = 0.1 of the 99th percentile of a slice's foreground. By itself a slice
has no phase, and its imaginary part is noise alone; with --phase it has that of `RandomPhase`, as images of a scanner have one.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from scorefield.data.noisy import estimate_noise
from scorefield.foundation.random import Generators
from scorefield.mri import RandomPhase, Volumes
from scorefield.mri.augment import rotate, smooth_phase
from scorefield.run import loading

HERE = Path(__file__).parent
NOISE, UNSEEN = 0.1, 77
KINDS = {
    "noisy slices alone (SURE)": ("denoise-sure", "data.source.paths"),
    "clean slices": ("denoise-clean", "data.paths"),
}


def volume() -> Path:
    return Path(os.environ["SCOREFIELD_DATA"]) / "mri" / "colin27_t1_1mm.nii.gz"


def train(recipe: str, key: str, folder: Path, seed: int, steps: int) -> float:
    """The CPU seconds that a run took, kept beside it; trains or goes on where it must."""
    spent = folder / "cpu-seconds"
    if not (folder / "checkpoints" / f"step-{steps:08d}.safetensors").exists():
        resume = ["--resume"] if (folder / "config.yaml").exists() else []
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "scorefield", "train", str(HERE / f"{recipe}.yaml"), f"--{key}=[{volume()}]"]
        options = [f"--train.seed={seed}", f"--train.steps={steps}", "--train.accelerator=cpu", "--out", str(folder)]
        subprocess.run([*command, *options, *resume], check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        earlier = float(spent.read_text()) if spent.exists() else 0.0
        spent.write_text(str(earlier + taken))
    return float(spent.read_text())


def decibels(x: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each slice: its peak is the largest magnitude, its error that of both parts of the complex values."""
    peak = truth.norm(dim=1).flatten(1).amax(1)
    return 10 * (peak**2 / (x - truth).square().sum(1).flatten(1).mean(1)).log10()


def with_phase(clean: Tensor) -> Tensor:
    """Slices with a smooth phase each."""
    default, u = RandomPhase(), Generators((UNSEEN, i, 1) for i in range(len(clean)))
    numbers = u.rand((len(clean), 1 + 2 + default.modes**2), like=clean).double()
    return rotate(
        clean, smooth_phase(numbers, clean.shape[2:], default.strength, default.length, default.modes).to(clean)
    )


def held_out(phase: bool = False) -> tuple[Tensor, Tensor]:
    """Slices that no run has seen, and their noisy measurements."""
    fields = Volumes([volume()], matrix=(192, 224), valid=(100, 108)).load("valid")
    clean = fields.gather(torch.arange(len(fields))).x
    clean = with_phase(clean) if phase else clean
    white = Generators((UNSEEN, i) for i in range(len(clean))).randn(clean.shape, like=clean)
    return clean, clean + NOISE * white


def tuning(phase: bool = False) -> tuple[Tensor, Tensor]:
    """Two slices that runs are trained on, and their noisy measurements: what classical denoisers are tuned by."""
    fields = Volumes([volume()], matrix=(192, 224), valid=(100, 108)).load("train")
    clean = fields.gather(torch.tensor([40, 80])).x
    clean = with_phase(clean) if phase else clean
    return clean, clean + NOISE * Generators((5, i) for i in range(2)).randn(clean.shape, like=clean)


def each_part(y: Tensor, denoise: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Real and imaginary part of each slice, denoised by themselves."""
    return torch.from_numpy(np.stack([[denoise(part) for part in row] for row in y.double().numpy()])).float()


def together(y: Tensor, denoise: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """Both parts of each slice as two colours, channels last."""
    found = np.stack([denoise(row) for row in y.movedim(1, -1).double().numpy()])
    return torch.from_numpy(found).float().movedim(-1, 1)


def classical() -> dict[str, tuple[Callable[..., Tensor], list[tuple]]]:
    """Denoisers that learn nothing, by scikit-image and, where it is installed, bm3d (non-commercial use); their settings."""
    from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

    def variation(y: Tensor, joint: bool, weight: float) -> Tensor:
        keys = {"weight": weight, "eps": 1e-5, "max_num_iter": 500, "channel_axis": -1 if joint else None}
        return (together if joint else each_part)(y, lambda x: denoise_tv_chambolle(x, **keys))

    def means(y: Tensor, joint: bool, h: float, patch: int, distance: int) -> Tensor:
        keys = {"h": h * NOISE, "sigma": NOISE, "patch_size": patch, "patch_distance": distance}
        keys["channel_axis"] = -1 if joint else None
        return (together if joint else each_part)(y, lambda x: denoise_nl_means(x, **keys))

    found: dict[str, tuple[Callable[..., Tensor], list[tuple]]] = {
        "total variation": (variation, list(product((True, False), (0.08, 0.1, 0.12, 0.15)))),
        "NL-means": (means, list(product((True, False), (0.4, 0.6, 0.8, 1.0), (3, 5), (7, 11)))),
    }
    try:
        from bm3d import bm3d
    except ImportError:
        print("bm3d is not installed: left out")
        return found
    found["BM3D"] = (lambda y, f: each_part(y, lambda x: bm3d(x, f * NOISE)), [(f,) for f in (0.9, 1.0, 1.1, 1.2)])
    return found


def compare(run: Path | None, phase: bool) -> None:
    """Print what classical denoisers, each as was best on two training slices, and a prior are worth on the held-out ones."""
    (clean, noisy), (known, tried) = held_out(phase), tuning(phase)
    print(f"as measured: {decibels(noisy, clean).mean():.2f} dB")
    for name, (denoise, settings) in classical().items():
        worth = {chosen: float(decibels(denoise(tried, *chosen), known).mean()) for chosen in settings}
        best = max(worth, key=worth.__getitem__)
        started = time.process_time()
        found = decibels(denoise(noisy, *best), clean)
        seconds = (time.process_time() - started) / len(clean)
        print(
            f"{name} {best}: {found.mean():.2f} dB, the first four {found[:4].mean():.2f}; {seconds:.1f} s a slice",
            flush=True,
        )
    if run is not None:
        print(f"{run}: {decibels(loading.load(run).denoise(noisy, NOISE, chunk=4), clean).mean():.2f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/sure"))
    parser.add_argument("--classical", action="store_true", help="classical denoisers instead")
    parser.add_argument("--phase", action="store_true", help="of slices with a smooth phase")
    parser.add_argument("--run", type=Path, help="a run to compare them with")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.classical:
        compare(asked.run, asked.phase)
        return
    clean, noisy = held_out(asked.phase)
    rows = [
        "| learnt from | "
        + " | ".join(f"seed {s}" for s in range(asked.seeds))
        + " | mean ± standard deviation | CPU s |"
    ]
    rows += [
        "| --- |" + " --- |" * (asked.seeds + 2),
        f"| nothing: as measured |{' |' * asked.seeds} {decibels(noisy, clean).mean():.2f} dB | |",
    ]
    scores, seconds = ({name: [] for name in KINDS} for _ in range(2))
    for seed in range(asked.seeds):
        for name, (recipe, key) in KINDS.items():
            folder = asked.runs / f"{recipe}-{seed}"
            seconds[name].append(train(recipe, key, folder, seed, asked.steps))
            denoised = loading.load(folder).denoise(noisy, NOISE, chunk=4)
            scores[name].append(float(decibels(denoised, clean).mean()))
            print(f"{folder.name}: {scores[name][-1]:.2f} dB, {seconds[name][-1]:.0f} s of CPU", flush=True)
    for name, values in scores.items():
        each = " | ".join(f"{value:.2f}" for value in values)
        spread = float(torch.tensor(values).std()) if len(values) > 1 else 0.0
        mean, cost = sum(values) / len(values), sum(seconds[name]) / len(values)
        rows.append(f"| {name} | {each} | {mean:.2f} ± {spread:.2f} dB | {cost:.0f} |")
    first, second = (torch.tensor(values) for values in scores.values())
    gap, told = float((second - first).mean()), float(estimate_noise(noisy).mean())
    facts = (
        f"{len(clean)} slices, {asked.steps} steps of 4 crops; SURE is {gap:.2f} dB below (target: within 0.6). "
        f"`estimate_noise` finds noise of {told:.4f} in the slices, for {NOISE}."
    )
    print("\n".join([*rows, "", facts]))


if __name__ == "__main__":
    main()
