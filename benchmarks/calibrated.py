"""Whether intervals hold 90 % of fields that `calibrate` has not seen: MNIST's test digits, before and after its factor.

    python benchmarks/calibrated.py MNIST.npz [--fields 60] [--out calibrated.md]

The prior is the model `mnist` that is shipped. Of each task and method, the factor comes from `scorefield calibrate` on some
digits, and the coverage from others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import scorefield as sf
from scorefield.cli import main as scorefield
from scorefield.foundation.files import write_text
from scorefield.metrics.image import interval_coverage

NOISE = 16.0  # of 255
DRAWS = 8


def tasks() -> dict[str, tuple[list[str], sf.LinearOperator]]:
    """Words of the command line, and the same operator."""
    seen = torch.zeros(1, 28, 28)
    seen[:, :14] = 1
    half = ["inpaint", "--task.start", "[14, 0]", "--task.size", "[14, 28]"]
    return {
        "lower half hidden": (half, sf.Mask(seen)),
        "4 × coarser": (["superres", "--task.factor", "4"], sf.Coarsen(4)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--fields", type=int, default=60)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    with np.load(given.data) as found:
        digits = torch.from_numpy(found["x_test"][: 2 * given.fields])[:, None].float()
    lines = ["| | | factor | coverage before | after | standard error | CPU s a digit |", f"|{' --- |' * 7}"]
    model = sf.load("mnist")
    with tempfile.TemporaryDirectory() as folder:
        np.save(known := Path(folder) / "known.npy", digits[: given.fields].numpy())
        data = ["--data", "Arrays", "--data.path", str(known), "--data.channel_axis", "first", "--data.valid", "1"]
        for task, (words, operator) in tasks().items():
            for method in (sf.DPS(), sf.PiGDM(), sf.MomentMatching()):
                name = type(method).__name__
                out = Path(folder) / f"{name}-{words[0]}.json"
                how = ["--noise", str(NOISE), "--method", name, "--fields", str(given.fields - 1), "-n", str(DRAWS)]
                chosen = ["--task", *words, *how, "--split", "train", *data]
                if scorefield(["calibrate", "mnist", *chosen, "--quiet", "--out", str(out)]):
                    raise SystemExit(f"{out} failed")
                factor = json.loads(out.read_text())["factor"]
                started = time.process_time()
                cells = coverages(model, operator, digits[given.fields :], method, factor)
                seconds = (time.process_time() - started) / given.fields
                lines.append(f"| {task} | {name} | {factor:.2f} | {cells} | {seconds:.2f} |")
                print(lines[-1], flush=True)
    if given.out is not None:
        write_text(given.out, "\n".join(lines) + "\n")


def coverages(
    model: sf.Model, operator: sf.LinearOperator, fields: torch.Tensor, method: sf.Method, factor: float
) -> str:
    """Of the 90 % intervals, before and after, and the standard error of the latter over fields."""
    before, after = [], []
    for i, truth in enumerate(fields[:, None]):
        y = operator(truth)
        y = y + NOISE * torch.randn(y.shape, generator=torch.Generator().manual_seed(i))  # what is hidden is never read
        x = sf.posterior(model, operator, y, NOISE, method=method, n=DRAWS, seed=i)
        mean = x.mean(0)
        before.append(float(interval_coverage(x, truth)))
        after.append(float(interval_coverage(mean + factor * (x - mean), truth)))
    return f"{np.mean(before):.3f} | {np.mean(after):.3f} | ± {np.std(after, ddof=1) / len(after) ** 0.5:.3f}"


if __name__ == "__main__":
    main()
