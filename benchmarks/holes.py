"""A prior from fields with holes, beside one from whole fields: what is made of the data, and what the draws are worth.

    python benchmarks/holes.py mnist make $SCOREFIELD_DATA/images/mnist_70k.npz DIR        # DIR/holes.npy, DIR/whole.npy
    python benchmarks/holes.py terrain make $SCOREFIELD_DATA/functions/srtm3_volcano_tiles_dev8.npz DIR
    python benchmarks/holes.py mnist|terrain judge DIR RUN|FILE.npy ... [-n 500]           # draws of a run, or what is in a file

40 % of the elements are hidden: of MNIST single pixels; of terrain single points of one half of the tiles, and boxes of 8 × 8
points of the other. Figures are ln P/P₀ in bands of wavenumbers, P₀ of the whole fields: its mean size, and the
finest four of digits or the finest half of terrain in four parts; and how far values are off, over their standard deviation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import scorefield as sf

HIDDEN, BOX, COUNT = 0.4, 8, 8000


def make(what: str, path: Path, folder: Path) -> None:
    """Whole fields and the same with NaN."""
    generator = np.random.default_rng(0)
    if what == "mnist":
        with np.load(path) as found:
            x = found["x_train"][:COUNT, None].astype(np.float32)
        hidden = generator.random(x.shape) < HIDDEN
    else:
        fields = sf.Terrain(path, size=64).load("train")
        x = fields.gather(torch.arange(len(fields))).x.numpy()
        hidden = generator.random(x.shape) < HIDDEN
        boxes = generator.random((len(x), 1, 64 // BOX, 64 // BOX)) < HIDDEN
        hidden[1::2] = boxes.repeat(BOX, -1).repeat(BOX, -2)[1::2]
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "whole.npy", x)
    np.save(folder / "holes.npy", np.where(hidden, np.nan, x).astype(np.float32))
    print(f"{len(x)} fields, of which {hidden.mean():.1%} is hidden")


def powers(x: Tensor, what: str) -> Tensor:
    """Mean ln P of each band; of terrain in cosine modes, which have no edges, ln taken per field; of digits ln of the mean."""
    size = x.shape[-1]
    if what == "mnist":
        modes = torch.fft.fft2(x.double() - x.double().mean((2, 3), keepdim=True)).abs().square().mean((0, 1))
        axis = torch.fft.fftfreq(size, 1 / size)
    else:
        modes = sf.GaussianField(sf.Matern(0.3, 1.0), sf.Neumann()).basis(2)[0].transform(x.double()).square()[:, 0]
        axis = torch.arange(size, dtype=torch.float32)
    band = torch.hypot(axis[:, None], axis).round().long()
    bands = size // 2 if what == "mnist" else size - 1
    parts = [modes[..., band == k].mean(-1) for k in range(1, bands + 1)]
    return torch.stack([part.log().mean() for part in parts])


def drawn(what: str, name: str, n: int) -> Tensor:
    if name.endswith(".npy"):
        return torch.from_numpy(np.load(name)).float()
    model = sf.load(name)
    return torch.cat([model.sample(min(50, n - start), seed=start) for start in range(0, n, 50)])


def judge(what: str, folder: Path, names: list[str], n: int) -> None:
    whole = torch.from_numpy(np.load(folder / "whole.npy"))
    truth, spread = powers(whole, what), whole.std()
    quantiles = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
    values = whole.double().flatten().numpy()
    lines = ["| | spectrum | finest bands | values |", "| --- | --- | --- | --- |"]
    print(lines[0], lines[1], sep="\n")
    for name in names:
        x = drawn(what, name, n)
        off = powers(x, what) - truth
        apart = np.abs(np.quantile(x.double().flatten().numpy(), quantiles) - np.quantile(values, quantiles)).mean()
        finest = off[-4:] if what == "mnist" else torch.stack([part.mean() for part in off[-32:].split(8)])
        print(
            f"| {name} | {off.abs().mean():.2f} | {' '.join(f'{v:+.2f}' for v in finest)} | {apart / float(spread):.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["mnist", "terrain"])
    parser.add_argument("verb", choices=["make", "judge"])
    parser.add_argument("paths", nargs="+")
    parser.add_argument("-n", type=int, default=500)
    given = parser.parse_args()
    if given.verb == "make":
        make(given.what, Path(given.paths[0]), Path(given.paths[1]))
    else:
        judge(given.what, Path(given.paths[0]), given.paths[1:], given.n)


if __name__ == "__main__":
    main()
