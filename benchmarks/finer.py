"""Modes that the training grid lacked: their power under each way of `--beyond`, at twice and four times the grid of training.

    SCOREFIELD_DATA=... python benchmarks/finer.py terrain RUN [-n 48]      # RUN: `terrain-grf` with data.size 32
    python benchmarks/finer.py lognormal RUN                                # RUN: the lognormal cell of functions_gate.py
    python benchmarks/finer.py terrain|lognormal RUN --sizes                # of the data alone: what the ways could be at best

Figures are of the bands of training and of the new ones up to twice and up to four times them: of terrain the mean over bands of
E ln P − E ln P_data, P of a patch in a band; of the lognormal field also of ln E P − ln E P_data, of 2048 other draws.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor

from scorefield import load
from scorefield.core.noise import GaussianField, Matern
from scorefield.core.noise.noise import Noise
from scorefield.core.spectrum import RadialSpectrum, band_means, wavenumbers
from scorefield.datasets import Terrain
from scorefield.foundation.random import Generators
from scorefield.run.loading import open_checkpoint
from scorefield.samplers import Continued, EDMGrid, Extrapolate, Heun, Sampler, WienerBeyond

SIZES = (32, 64, 128)
WAYS = (Extrapolate(), WienerBeyond(), Continued())


def truth(what: str) -> Tensor:
    """Fields of the finest grid."""
    if what == "terrain":
        path = Path(os.environ["SCOREFIELD_DATA"]) / "functions" / "srtm3_volcano_tiles_dev8.npz"
        fields = Terrain(path, size=SIZES[-1]).load("train")
        return fields.gather(torch.arange(len(fields))).x
    keys = Generators((5, i) for i in range(2048))
    size = (2048, 1, SIZES[-1], SIZES[-1])
    x = GaussianField(Matern(0.2, 2.0)).sample(size, generator=keys, like=torch.empty(0)).exp()
    return (x - math.exp(0.5)) / math.sqrt(math.e**2 - math.e)


def powers(x: Tensor, noise: Noise, bands: int) -> Tensor:
    """P of each field in the bands 1, 2, ... of its modes, in those of the noise."""
    radii = wavenumbers(noise, x.shape[2:])
    modes = noise.basis(2)[0].transform(x.double()).abs().square()[:, 0]
    return torch.stack([band_means(part, radii, bands) for part in modes])[:, 1:]


def of_data(x: Tensor, noise: Noise, size: int) -> None:
    """The spectrum of the data's own coarse fields continued, once for all and scaled by each field's power, beside theirs."""
    basis, _ = noise.basis(2)
    spectrum = RadialSpectrum.measure(basis.resample(x, (size, size)), noise)
    radii, last = wavenumbers(noise, x.shape[2:]), len(spectrum.bands) - 1
    modes = basis.transform(x.double()).abs().square()[:, 0] / spectrum(radii)
    own = modes[:, (radii > last / 2**0.5) & (radii <= last)].mean(1, keepdim=True)
    bands = torch.stack([band_means(part, radii, 4 * size // 2 - 1) for part in modes])
    for name, scale in (("WienerBeyond", torch.ones_like(own)), ("Continued", own)):
        parts = [(bands / scale)[:, first:end] for first, end in ((size // 2, size), (size, 2 * size - 2))]
        row = [f"{-float(part.log().mean()):+.2f} / {-float(part.mean(0).log().mean()):+.2f}" for part in parts]
        print(
            f"| data alone, {size}² |", name, "|", " | ".join(row), "|", f"exponent {spectrum.exponent:.2f}", flush=True
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["terrain", "lognormal"])
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=48)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    arguments = parser.parse_args()
    model, n = load(arguments.run), arguments.n
    noise, last = model.sde.noise, model.shape[1] // 2
    train = open_checkpoint(arguments.run).source().load("train")
    fields = model.enter(train.gather(torch.arange(min(512, len(train)))))[0]
    if not arguments.sizes:
        for size in (model.shape[1] // 2, model.shape[1]):  # what coarsened training fields show, and what is
            of_data(truth(arguments.what), noise, size)
        return
    sampler, data = Sampler(arguments.steps, Heun(), EDMGrid()), powers(truth(arguments.what), noise, 4 * last)
    for size in arguments.sizes:
        for way in WAYS if size > model.shape[1] else WAYS[:1]:
            started = time.process_time()
            denoiser = way.fitted(lambda: fields, noise)(model.generative, model.shape[1:])
            x = model.sample(n, seed=3, sampler=sampler, denoiser=denoiser, shape=(1, size, size), chunk=16)
            found = powers(x, noise, size // 2)
            row = [f"{size}²", type(way).__name__]
            for first, end in ((0, last - 1), (last, 2 * last - 1), (2 * last, 4 * last - 1)):
                a, b = (part[:, first : min(end, size // 2 - 1)] for part in (found, data))
                if a.shape[1]:
                    of_each, of_mean = (a.log().mean(0) - b.log().mean(0)).mean(), (a.mean(0) / b.mean(0)).log().mean()
                    row.append(f"{float(of_each):+.2f} / {float(of_mean):+.2f}")
            print("|", " | ".join(row), "|", f"{time.process_time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
