"""Super-resolution of functions: draws on a fine grid whose lowest modes are those that a coarse one shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from scorefield.data.single import read_array, read_field, stored_as
from scorefield.foundation.errors import InputError
from scorefield.guidance import Method, MomentMatching, Replacement
from scorefield.inverse import InverseProblem, particle_sampler
from scorefield.jobs import resolution
from scorefield.jobs.restoration import Restoration, guided_draws, weighed_draws
from scorefield.jobs.restore import Restoring
from scorefield.operators import CosineCoarsen, FourierCoarsen
from scorefield.run.verb import Count, CountOrZero, positional
from scorefield.samplers import Finer


@dataclass(frozen=True, kw_only=True)
class SuperResolve(Restoring):
    """Draw functions on a fine grid that agree with a given one on a coarse grid, by the posterior of the model.

    Args:
        field: the coarse function: .npy or image, in data units.
        resolution: points along the longest axis, or along each: the domain of training on another grid.
        beyond: on a finer grid, the modes that the training grid lacks: Continued (the default where the noise has
            modes and nothing is given: the spectrum of the training data by each field's own power), WienerBeyond (the spectrum
            alone), Extrapolate (what the network makes of them) or BandLimited (no noise in them).
        method: Replacement, exact in the modes that are known, where there is no noise; MomentMatching with noise; PiGDM, DPS.
        particles: correct the method by so many weighted particles, of which -n are drawn, with an estimate of log p(y); it takes
            a noise and a stochastic step of one evaluation, by default DPM++ 2M SDE.
    """

    field: Path = positional()
    resolution: tuple[Count, ...] = ()
    beyond: Finer | None = None
    method: Method | None = None
    particles: CountOrZero = 0

    def check(self) -> None:
        super().check()
        if self.particles and not self.noise > 0:
            raise InputError("--particles are weighed by the noise of the measurement: give --noise above 0.")

    def run(self) -> dict[str, Any]:
        model, source = self.model, self.checkpoint
        for path in (self.field, *([] if self.truth is None else [self.truth])):
            self.check_depth(path, stored_as(path))
        grid = resolution.grid_of(model.shape[1:], self.resolution)
        resolution.warn_of_mesh(model, grid)
        beyond = resolution.fitted(self.beyond, model, lambda split: source.source(self.trust).load(split), grid)
        torus = model.sde.noise.periodic
        case = read_case(self.field, model.shape[0], grid, periodic=torus, noise=self.noise, truth=self.truth)
        method = self.method or usual(self.noise)
        prior = None if beyond is None else resolution.beyond_grid(beyond, model, None)
        own = particle_sampler(model) if self.particles else None
        draws = self.prior_draws(grid, {} if beyond is None else {"beyond": repr(beyond)}, own)
        if self.particles:
            posed = weighed_draws(draws, case, method, self.particles, self.at_once(self.particles, grid), prior)
        else:
            posed = guided_draws(draws, case, method, prior)
        return self.finish(Restoration(posed, case, method, smoothest(case)), "superres")


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


def smoothest(case: InverseProblem) -> Tensor:
    """The smoothest of all functions that agree with the measurement, which is what is known without a model.

    Of the exact posterior, the mean of n draws has 1 + 1/n times the mean square error of the best estimate, which this is where
    nothing is known of the finer modes.
    """
    return case.linear.project(case.linear.adjoint(case.y) * 0, case.y)
