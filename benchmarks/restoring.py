"""Photographs that the model has never seen, restored: PSNR and coverage of the 90 % interval, and pictures.

    scorefield train benchmarks/signs.yaml --data.path $SCOREFIELD_DATA/images/sign_digits_100px_2059.zip --out runs/signs
    python benchmarks/restoring.py runs/signs [--pictures docs] [--out benchmarks/restoring.md]

Each row restores the same held-out photographs by the command line's `restore`: measured with noise first, then draws of
p(x | y). Results are kept in RUN/restored: what is there is not computed again.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from scorefield.cli import main as scorefield
from scorefield.data.picture import save_panels
from scorefield.data.source import Source
from scorefield.foundation.files import replacing, write_text
from scorefield.run.loading import open_checkpoint

NOISE = 5.0  # of 255
TASKS = {
    "inpaint": ["inpaint", "--task.start", "[16, 20]", "--task.size", "[26, 26]"],
    "colourise": ["colourise"],
    "superres": ["superres", "--task.factor", "4"],
}
SHOWN = 3  # samples of each photograph


def photographs(source: Source, folder: Path, n: int) -> list[Path]:
    """The held-out photographs, evenly spread over all, as files."""
    held_out = source.load("valid")
    paths = []
    for i in np.linspace(0, len(held_out) - 1, n).round().astype(int).tolist():
        path = folder / f"photograph-{i}.png"
        if not path.exists():
            pixels = held_out.gather(torch.tensor([i])).x[0].round().clamp(0, 255).movedim(0, -1).to(torch.uint8)
            with replacing(path) as temporary:
                Image.fromarray(pixels.numpy()).save(temporary, format="PNG")
        paths.append(path)
    return paths


def restored(run: Path, task: str, photograph: Path, samples: int, steps: int, method: str) -> Path:
    """The folder of one restored photograph."""
    out = run / "restored" / f"{method}-{task}-{photograph.stem}-{samples}-{steps}"
    if not (out / "restoring.json").exists():
        words = ["restore", str(run), str(photograph), "--task", *TASKS[task], "--degrade", "--noise", str(NOISE)]
        words += ["--samples", str(samples), "--steps", str(steps), "--method", method, "--out", str(out)]
        if scorefield(words):
            raise SystemExit(f"{out} failed")
    return out


def row(folders: list[Path]) -> tuple[list[float], list[float], list[float]]:
    """PSNR of the means, of the samples, and coverage, for each photograph."""
    found = [json.loads((folder / "restoring.json").read_text()) for folder in folders]
    return (
        [record["psnr_of_mean"] for record in found],
        [statistics.mean(record["psnr_of_samples"]) for record in found],
        [100 * record["coverage"] for record in found],
    )


def picture(path: Path, photographs_: list[Path], folders: list[Path]) -> None:
    """A row per photograph: what was measured, some samples, mean, spread, truth."""
    panels = []
    for photograph, folder in zip(photographs_, folders, strict=True):
        arrays = {name: torch.from_numpy(np.load(folder / f"{name}.npy")) for name in ("observation", "mean", "std")}
        samples = torch.from_numpy(np.load(folder / "samples.npy"))
        truth = torch.from_numpy(np.asarray(Image.open(photograph)).copy()).movedim(-1, 0).float()
        record = json.loads((folder / "restoring.json").read_text())
        panels.append(("measured", arrays["observation"][None], 0.0, 255.0))
        panels += [(f"sample {i}", samples[i : i + 1], 0.0, 255.0) for i in range(SHOWN)]
        panels.append((f"mean, {record['psnr_of_mean']:.1f} dB", arrays["mean"][None], 0.0, 255.0))
        panels.append(("standard deviation", arrays["std"][None], 0.0, float(arrays["std"].max())))
        panels.append((f"truth, {100 * record['coverage']:.0f} % covered", truth[None], 0.0, 255.0))
    save_panels(path, panels, columns=4 + SHOWN)


def spread(values: list[float]) -> str:
    """Mean and its standard error."""
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / len(values) ** 0.5:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--photographs", type=int, default=8)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--methods", nargs="+", default=["MomentMatching", "PiGDM"])
    parser.add_argument("--pictures", type=Path, default=None, help="folder for the pictures of the first method")
    parser.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    arguments = parser.parse_args()
    opened = open_checkpoint(arguments.run)
    (arguments.run / "restored").mkdir(exist_ok=True)
    files = photographs(opened.source(), arguments.run / "restored", arguments.photographs)
    lines = [
        "# Photographs restored",
        "",
        f"{len(files)} held-out photographs of hands (64 × 64, in colour), measured with noise of {NOISE:g} of 255, and",
        f"{arguments.samples} draws each of p(x | y) in {arguments.steps} steps; mean ± standard error over photographs. Hidden",
        "is a box of 26 × 26 pixels; colours are restored from the mean of the three; super-resolution is from 16 × 16 pixels.",
        f"The model is `benchmarks/signs.yaml` at step {opened.checkpoint.facts['step']}; {platform.machine()},",
        f"torch {torch.__version__}, {torch.get_num_threads()} thread(s); the script is `benchmarks/restoring.py`.",
        "",
        "| method | task | PSNR of the mean (dB) | of a sample (dB) | in the 90 % interval (%) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method in arguments.methods:
        for task in TASKS:
            folders = [
                restored(arguments.run, task, file, arguments.samples, arguments.steps, method) for file in files
            ]
            mean, sample, coverage = row(folders)
            lines.append(f"| {method} | {task} | {spread(mean)} | {spread(sample)} | {spread(coverage)} |")
            print(lines[-1], flush=True)
            if arguments.pictures and method == arguments.methods[0]:
                picture(arguments.pictures / f"restored-{task}.png", files[:3], folders[:3])
    if arguments.out:
        write_text(arguments.out, "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
