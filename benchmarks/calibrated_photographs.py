"""Photographs that neither the prior nor its calibration has seen: coverage before and after the factor, and particles.

    scorefield train benchmarks/signs.yaml --data.path $SCOREFIELD_DATA/images/sign_digits_100px_2059.zip --out RUN
    python benchmarks/calibrated_photographs.py RUN [--tasks superres deblur] [--fields 19] [--others 8]
    python benchmarks/calibrated_photographs.py RUN --particles 0 8 20 100 [--tasks few] [--others 2]

Of each task, the factor comes from `scorefield calibrate` on some held-out photographs, the figures from `restore --calibrated`
on others. With --particles the others are restored by so many weighted particles, 0 by the method as it is. Results are kept
in RUN/restored: what is there is not computed again, and its seconds are not known.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scorefield.cli import main as scorefield
from scorefield.data.fields import FieldDataset
from scorefield.metrics.image import interval_coverage
from scorefield.run.loading import open_checkpoint

FINE = "5"  # the noise, of 255
TASKS = {
    "superres": ["superres", "--task.factor", "4", "--noise", FINE],
    "inpaint": ["inpaint", "--task.start", "[16, 20]", "--task.size", "[26, 26]", "--noise", FINE],
    "scattered": ["inpaint", "--task.known", "KNOWN", "--noise", FINE],
    "colourise": ["colourise", "--noise", FINE],
    "deblur": ["deblur", "--task.std", "2", "--noise", FINE],
    "few": ["superres", "--task.factor", "32", "--noise", "20"],
    "some": ["superres", "--task.factor", "16", "--noise", "20"],
    "precise": ["superres", "--task.factor", "16", "--noise", FINE],
}
DRAWS = 8
HOW = ["--method", "PiGDM", "-n", str(DRAWS), "--steps", "18", "--sampler", "DPMSolverPP2M", "--sampler.eta", "1"]


def words(folder: Path, task: str) -> list[str]:
    """Of the command line; `scattered` hides half of the pixels."""
    known = folder / "known.npy"
    if task == "scattered" and not known.exists():
        np.save(known, (np.random.default_rng(0).random((64, 64)) < 0.5).astype(np.float32))
    return [str(known) if word == "KNOWN" else word for word in TASKS[task]]


def photograph(fields: FieldDataset, index: int, folder: Path) -> tuple[Path, torch.Tensor]:
    """A held-out one as a file, and as it is."""
    path = folder / f"held-out-{index}.png"
    pixels = fields.gather(torch.tensor([index])).x[0].round().clamp(0, 255).to(torch.uint8)
    Image.fromarray(pixels.movedim(0, -1).numpy()).save(path)
    return path, pixels.float()


def call(arguments: list[str], out: Path) -> float:
    """Seconds of the processor."""
    if out.exists():
        return float("nan")
    started = time.process_time()
    if scorefield([*arguments, "--quiet", "--out", str(out)]):
        raise SystemExit(f"{out} failed")
    return time.process_time() - started


def spread(values: list[float], digits: int = 3) -> str:
    """Mean and its standard error."""
    error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def calibrated(run: Path, task: str, fields: FieldDataset, count: int, others: list[int]) -> str:
    """A row: what was found on some photographs, and what the factor does on others."""
    folder = run / "restored"
    chosen = ["--task", *words(folder, task), *HOW]
    out = folder / f"calibration-{task}.json"
    seconds = call(["calibrate", str(run), *chosen, "--fields", str(count)], out)
    found = json.loads(out.read_text(encoding="utf-8"))
    covered, bands = found["coverage"], [part["value"] for part in found["error_by_spread"]]
    before, after, worth, spent = [], [], [], []
    for index in others:
        path, truth = photograph(fields, index, folder)
        place = folder / f"calibrated-{task}-{index}"
        spent.append(call(["restore", str(run), str(path), "--task", *chosen[1:], "--degrade", "--calibrated"], place))
        record = json.loads((place / "restoring.json").read_text(encoding="utf-8"))
        after.append(record["coverage"])
        worth.append(record["psnr_of_mean"])
        before.append(interval_coverage(torch.from_numpy(np.load(place / "samples.npy")), truth[None]))
    ratios = " ".join("–" if value is None else f"{value:.2f}" for value in bands)
    chance = f"{covered['value']:.3f} ({covered['low']:.3f}–{covered['high']:.3f})"
    cost = f"{seconds / count:.1f} · {np.mean(spent):.1f}"
    worth_ = spread(worth, 1)
    return f"| {task} | {chance} | {ratios} | {found['factor']:.3f} | {spread(before)} | {spread(after)} | {worth_} | {cost} |"


def weighed(run: Path, task: str, fields: FieldDataset, particles: int, others: list[int]) -> str:
    """A row: the same photographs by so many particles."""
    folder, covered, worth, spent, effective, evidence = run / "restored", [], [], [], [], []
    for index in others:
        path, _ = photograph(fields, index, folder)
        place = folder / f"particles-{task}-{index}-{particles}"
        chosen = [
            "--task",
            *words(folder, task),
            *HOW,
            "--degrade",
            *(["--particles", str(particles)] if particles else []),
        ]
        spent.append(call(["restore", str(run), str(path), *chosen], place))
        record = json.loads((place / "restoring.json").read_text(encoding="utf-8"))
        covered.append("–" if record["coverage"] is None else f"{record['coverage']:.3f}")
        worth.append(f"{record['psnr_of_mean']:.1f}")
        effective.append(f"{record['effective']:.1f}" if particles else "")
        evidence.append(f"{record['log_evidence']:.1f}" if particles else "")
    cells = [task, str(particles), *(", ".join(part) for part in (effective, evidence, worth, covered))]
    return f"| {' | '.join(cells)} | {np.mean(spent):.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=["superres", "inpaint", "colourise", "deblur"])
    parser.add_argument("--fields", type=int, default=19)
    parser.add_argument("--others", type=int, default=8)
    parser.add_argument("--particles", type=int, nargs="+", default=None)
    given = parser.parse_args()
    fields = open_checkpoint(given.run).source().load("valid")
    # calibrate takes the first of the same order, so that those after them are others
    order = torch.randperm(len(fields), generator=torch.Generator().manual_seed(0)).tolist()
    others = order[given.fields : given.fields + given.others]
    (given.run / "restored").mkdir(exist_ok=True)
    if given.particles is None:
        names = [
            "",
            "coverage, by chance",
            "square error by spread, coarse to fine",
            "factor",
            "others before",
            "after",
        ]
        names += ["PSNR (dB)", "CPU s a photograph"]
    else:
        names = ["", "particles", "fewest effective", "log p(y)", "PSNR (dB)", "coverage", "CPU s a photograph"]
    print(f"| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for task in given.tasks:
        if given.particles is None:
            print(calibrated(given.run, task, fields, given.fields, others), flush=True)
        else:
            for count in given.particles:
                print(weighed(given.run, task, fields, count, others), flush=True)


if __name__ == "__main__":
    main()
