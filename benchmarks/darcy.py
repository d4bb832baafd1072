"""Darcy flow −∇·(a ∇u) = 1 on the unit square, u = 0 at its edge, for permeabilities a in {3, 12} by the sign of a random field.

Writes train.npz (16²), test16.npz and test32.npz of the same flows: a and u as means over cells of the finite volumes they are
solved on, so that both grids are of one function. As the data sets of Li et al. (2021) are made, at a size of choice.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import spsolve

from scorefield import GaussianField, Matern, Neumann
from scorefield.foundation.random import Generators

POINTS = 64


def permeability(n: int, seed: int) -> np.ndarray:
    """a on POINTS² cells, 12 where a field of the spectrum (π²|k|² + 9)^−2 is positive and 3 elsewhere."""
    noise = GaussianField(Matern(np.sqrt(2) / 3, 1.0), Neumann())
    drawn = noise.sample((n, 1, POINTS, POINTS), generator=Generators((seed, i) for i in range(n)), like=torch.empty(0))
    return np.where(drawn[:, 0].numpy() > 0, 12.0, 3.0)


def solve(a: np.ndarray) -> np.ndarray:
    """u by finite volumes: fluxes with harmonic means of a, half a cell to the edge."""
    n = len(a)
    number = np.arange(n * n).reshape(n, n)
    diagonal = np.zeros((n, n))
    rows, columns, values = [], [], []
    for axis in (0, 1):
        first, second = (np.moveaxis(part, axis, 0) for part in (a, number))
        flux = 2 / (1 / first[1:] + 1 / first[:-1]) * n**2
        one, other = second[:-1].ravel(), second[1:].ravel()
        rows += [one, other]
        columns += [other, one]
        values += [-flux.ravel(), -flux.ravel()]
        edge = np.moveaxis(diagonal, axis, 0)
        edge[1:] += flux
        edge[:-1] += flux
        edge[0] += 2 * first[0] * n**2
        edge[-1] += 2 * first[-1] * n**2
    entries = (np.concatenate([*rows, number.ravel()]), np.concatenate([*columns, number.ravel()]))
    matrix = csc_matrix((np.concatenate([*values, diagonal.ravel()]), entries), shape=(n * n, n * n))
    return spsolve(matrix, np.ones(n * n)).reshape(n, n)


def coarse(x: np.ndarray, points: int) -> np.ndarray:
    """Means over the cells of a coarser grid."""
    share = POINTS // points
    return x.reshape(len(x), points, share, points, share).mean((2, 4)).astype("f4")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--train", type=int, default=1000)
    parser.add_argument("--test", type=int, default=100)
    arguments = parser.parse_args()
    a = permeability(arguments.train + arguments.test, 0)
    u = np.stack([solve(each) for each in a])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, rows, points in (
        ("train", slice(arguments.train), 16),
        ("test16", slice(arguments.train, None), 16),
        ("test32", slice(arguments.train, None), 32),
    ):
        np.savez(arguments.out / f"{name}.npz", a=coarse(a[rows], points), u=coarse(u[rows], points))


if __name__ == "__main__":
    main()
