"""Super-resolution of functions: draws on a fine grid whose lowest modes are those that a coarse one shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scorefield.data.single import read_array, read_field
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.guidance import Method, MomentMatching, Replacement
from scorefield.jobs import resolution, sampling
from scorefield.jobs.restoring import InverseProblem
from scorefield.metrics.image import psnr
from scorefield.operators import CosineCoarsen, FourierCoarsen
from scorefield.run.configuration import Parser


def add_arguments(parser: Parser) -> None:
    """What is known, and on which grid it is wanted."""
    parser.add_argument("field", type=Path, help="the coarse function: .npy or image, in data units")
    resolution.add_arguments(parser)
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of its noise, in data units")
    parser.add_argument("--truth", type=Path | None, default=None, help="the fine function, to compare the result with")
    parser.add_argument(
        "--method",
        type=Method | None,
        default=None,
        help="Replacement, exact in the modes that are known, where there is no noise; MomentMatching with noise; PiGDM, DPS",
    )
    parser.add_argument("-n", "--samples", type=int, default=8, help="how many draws")
    parser.add_argument("--seed", type=int, default=0, help="draw i depends on (seed, i) alone")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    sampling.add_arguments(parser)


def usual(noise: float) -> Method:
    """Without noise the modes that are known take the place of the model's, which a projection does exactly and at no cost;
    an iterative solver would leave some of them unsolved, since their powers differ by factors of a million.
    """
    return MomentMatching() if noise > 0 else Replacement()


def read_case(
    path: Path,
    channels: int,
    grid: tuple[int, ...],
    *,
    periodic: bool = False,
    noise: float = 0.0,
    truth: Path | None = None,
) -> InverseProblem:
    """The coarse function of a file as a measurement of one on a finer grid of the same domain.

    On a torus the grids share their first point, and the known modes are Fourier's; else they share their edges, and the modes
    are cosines. In those of the model's own noise the known modes are independent of the others.

    Args:
        path: the file, with channels first, last or without.
        channels: of the functions.
        grid: the fine grid.
        periodic: the domain is a torus.
        noise: standard deviation in data units.
        truth: a file with the fine function.

    Raises:
        InputError: a file of another domain, or on a grid that is finer than the fine one.
    """
    stored, rank = read_array(path), len(grid)
    coarse = tuple(stored.shape[:rank] if stored.ndim == rank or stored.shape[0] != channels else stored.shape[1:])
    if len(coarse) != rank:
        raise InputError(f"{path} is {'×'.join(map(str, stored.shape))}, where a grid of {rank} axes is needed.")
    resolution.check_domain(grid, coarse)
    if any(m > n for m, n in zip(coarse, grid, strict=True)):
        sizes = " to ".join("×".join(map(str, size)) for size in (coarse, grid))
        raise InputError(f"From {sizes} is no finer grid: give a --resolution above that of {path}.")
    y = read_field(path, (channels, *coarse))
    known = None if truth is None else read_field(truth, (channels, *grid))
    peak = float(y.max() - y.min()) or 1.0
    operator = FourierCoarsen(grid, coarse) if periodic else CosineCoarsen(grid, coarse)
    return InverseProblem(operator, y, noise, known, peak, False)


def interpolate(folder: Path, case: InverseProblem) -> float | None:
    """Write the smoothest of all functions that agree with the measurement, which is what is known without a model.

    Returns:
        its PSNR in dB where the truth is known as a whole. Of the exact posterior, the mean of n draws has 1 + 1/n times the mean
        square error of the best estimate, which this is where nothing is known of the finer modes.
    """
    smooth = case.operator.project(case.operator.adjoint(case.y) * 0, case.y)
    with replacing(folder / "interpolation.npy") as temporary, temporary.open("wb") as file:
        np.save(file, smooth[0].numpy())
    if case.truth is None or not bool(case.truth.isfinite().all()):
        return None
    return float(psnr(smooth, case.truth, case.peak))
