"""An ocean: skewed fields on the sea of a chart, drawn by a network under `MaskedField` and given sparse points.

python benchmarks/ocean.py make --chart topobathy.npz --out DIR    # ocean.npz, the recipe, one held-out field and its points
scorefield suggest ocean.yaml --region > region.yaml && scorefield train both.yaml --out run     # in DIR
scorefield restore run points.npy --task inpaint --task.known known.npy --noise 0.05 -n 16 --out restored
python benchmarks/ocean.py compare --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from scorefield import MaskedField, runs_of
from scorefield.foundation.random import Generators

FIELDS, HELD_OUT, NOISE = 3000, 400, 0.05
RECIPE = """
base: [parts/functions.yaml, parts/function-uno.yaml]
model:
  net: {init_args: {channels: 16, modes: 32, sizes: [24, 12], padding: 0.2}}
  sde: {schedule: {init_args: {sigma_min: 0.05, sigma_max: 20.0}}}
data: {class_path: Functions, init_args: {path: ocean.npz, key: x, channel_axis: none, valid: 400}}
train: {steps: 1000, validate_every: 250, checkpoint_every: 500, preview_every: 1000, accelerator: cpu}
"""


def make(chart: Path, out: Path) -> None:
    """12 + 4 √(depth share) + 2 exp(g/2), g of the Matérn law of the length 0.35 on the sea, on 45 x 60 cells."""
    depth = -np.load(chart)["topo"][:90].reshape(45, 2, 60, 2).mean((1, 3))
    sea = depth > 0
    noise = MaskedField(sea.shape, runs_of(sea), 0.35, (0.75, 1.0))
    generator = Generators((1, i) for i in range(FIELDS))
    g = noise.sample((FIELDS, 1, *sea.shape), generator=generator, like=torch.empty(0))[:, 0].numpy()
    x = 12 + 4 * np.sqrt(np.clip(depth, 0, None) / depth.max()) + 2 * np.exp(0.5 * g)
    out.mkdir(parents=True, exist_ok=True)
    np.savez(out / "ocean.npz", x=np.where(sea, x, np.nan).astype("f4"))
    (out / "ocean.yaml").write_text(RECIPE)
    (out / "both.yaml").write_text("base: [ocean.yaml, region.yaml]\n")
    truth = held_out(out)
    known = np.zeros(sea.shape, bool)
    known[2::6, 2::6] = sea[2::6, 2::6]
    np.save(out / "truth.npy", truth[None])
    np.save(out / "known.npy", known.astype("u1"))
    np.save(out / "points.npy", np.where(known, truth, np.nan)[None])


def split(out: Path, name: str) -> np.ndarray:
    from scorefield import Functions

    fields = Functions(out / "ocean.npz", channel_axis="none", valid=HELD_OUT).load(name)  # pyright: ignore[reportArgumentType]
    return fields.gather(torch.arange(len(fields))).x[:, 0].numpy()


def held_out(out: Path) -> np.ndarray:
    """The first held-out field."""
    return split(out, "valid")[0]


def compare(out: Path) -> None:
    """The RMSE of the draws' mean at unknown cells, beside the best linear estimate from the training fields, and their mean."""
    truth, known = held_out(out), np.load(out / "known.npy").astype(bool)
    sea = np.isfinite(truth)
    x, seen = split(out, "train")[:, sea].astype(float), known[sea]
    mean, covariance = x.mean(0), np.cov(x.T)
    inner = covariance[np.ix_(seen, seen)] + NOISE**2 * np.eye(seen.sum())
    linear = mean + covariance[:, seen] @ np.linalg.solve(inner, truth[sea][seen] - mean[seen])
    drawn = np.load(out / "restored" / "samples.npy")[:, 0][:, sea]
    for name, estimate in (("draws", drawn.mean(0)), ("linear", linear), ("climatology", mean)):
        print(f"{name:12s} RMSE {np.sqrt(np.mean((estimate - truth[sea])[~seen] ** 2)):.3f}")
    spread = np.sqrt(drawn.var(0, ddof=1)[~seen].mean() * (1 + 1 / len(drawn)))
    print(f"{'spread':12s}      {spread:.3f}   of {len(drawn)} draws, {seen.sum()} of {sea.sum()} cells known")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "compare"])
    parser.add_argument("--chart", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.chart, arguments.out)
    else:
        compare(arguments.out)


if __name__ == "__main__":
    main()
