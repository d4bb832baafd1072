"""Draws of p(x | y) under a learned prior, of a slice or of a volume.

Everything is computed in units in which the 99th percentile of the foreground is 1, as the prior was trained, and k-space has
white noise; results are in the units of k-space again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import SDE, expand_like
from scorefield.foundation.arithmetic import FULL, LOW, autocast_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream, seed_of
from scorefield.guidance import Guided, Method, Proximal
from scorefield.inverse import population
from scorefield.model import Model
from scorefield.mri.scan import Scan
from scorefield.mri.volume_scan import VolumeScan
from scorefield.operators import to_complex
from scorefield.particles import Particles
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

OWN_METHOD = Proximal(sigma_data=0.35, spread=1.5, iterations=30)
LEAST, DRAWN, CENTRED = 0.005, 1.0, 0.6  # σ/α at which members end; at which they begin, and those that are centred
OWN = Sampler(8, DPMSolverPP2M(1.0), EDMGrid(ratio_min=LEAST, ratio_max=DRAWN))
FEW = Sampler(4, DPMSolverPP2M(1.0), EDMGrid(ratio_min=LEAST, ratio_max=CENTRED))
OF_VOLUMES = 8  # steps of centred members under a prior of volumes or films, which by 4 spread too little
CENTRE = 24  # evaluations of all members together for the image that they are centred at


def own_sampler(model: Model, centre: int) -> Sampler:
    """The default, which ends no lower than the model's own sampler: a prior from noisy images knows nothing of less noise.

    Args:
        model: the prior.
        centre: as of `Posterior`.
    """
    schedule, sampler, (found, most) = model.sde.schedule, model.stepwise, (FEW, CENTRED) if centre else (OWN, DRAWN)
    last = sampler.grid(schedule, max(sampler.steps + (not sampler.denoise), 2))[-1:]
    ratio = float(schedule.sigma(last) / schedule.alpha(last))
    steps = max(found.steps, OF_VOLUMES) if len(model.shape) == 4 else found.steps  # (2, slices, height, width)
    return replace(found, steps=steps, grid=EDMGrid(ratio_min=max(LEAST, ratio), ratio_max=most))


BEGIN, END = 0.3, 0.01  # σ/α at which a settled image begins and ends
PILOT = 8  # members whose mean is moved to the settled image


class Weighed(NamedTuple):
    """Members drawn from weighted particles.

    Attributes:
        members: complex images (members, *grid) in the units of k-space.
        log_evidence: log p(y) in nats, y white k-space as it was measured, in its units.
        effective: how many particles counted at the worst level.
        values: how many real numbers y has.
    """

    members: Tensor
    log_evidence: float
    effective: float
    values: int


@dataclass(frozen=True, eq=False)
class Posterior:
    """p(x | y) under a learned prior, and how it is drawn from.

    Members start at the CG-SENSE image with the noise of the first level on it, instead of at noise alone. What y says is in it
    already, so that the first level need not hide the image: few levels below σ/α = 1 do as well as many from 3 on.

    With `centre`, members are c + f (x_i − x̄): their deviations from the mean of the first 8, about a settled image c. Few steps
    draw deviations well and means badly, and c has no part of the error of a mean of few. It is where x̂ of the method, at falling
    levels and without any noise, settles: with `Proximal` of spread 1 it solves A*(y − A x)/noise² + ∇log p_σ(x) = 0, the mode of
    the posterior under the prior smoothed by the last level (regularisation by denoising, Romano et al. 2017), which is its mean
    where the prior is Gaussian. f is √(8/7) for the first 8 and √(8/9) for others, by which the variance of members stays theirs.

    Args:
        model: the prior, of two channels.
        method: how p(y | x_t) is approximated.
        sampler: how to draw.
        chunk: members drawn at once.
        bf16: evaluate the network in bfloat16.
        centre: evaluations, of all members together, by which c is found; 0 for members as the sampler draws them.
        particles: draw members by so many weighted particles instead, which start at noise, by a stochastic step.
    """

    model: Model
    method: Method
    sampler: Sampler
    chunk: int = 8
    bf16: bool = False
    centre: int = 0
    particles: int = 0

    def __post_init__(self) -> None:
        if self.particles and self.centre:
            raise InputError("Particles are weighed as they are drawn, about no centre: leave one of them out.")
        if self.particles:
            _ = self.correction

    @property
    def correction(self) -> Particles:
        """How particles are drawn, of which `chunk` are evaluated at once."""
        return Particles(self.method, self.particles, self.sampler, chunk=self.chunk)

    @torch.no_grad()
    def draw(self, scan: Scan | VolumeScan, members: int, *, seed: int = 0, number: int = 0) -> Tensor:
        """Complex members (members, *grid) in the units of k-space; member i depends on (seed, number, i) alone.

        Args:
            scan: y.
            members: how many; fewer than 8 cost as much as 8 with a `centre`.
            seed: of the draws.
            number: of the slice.
        """
        if self.particles:
            return self.weighed(scan, members, seed=seed, number=number).members
        if not self.centre:
            return self._drawn(scan, members, seed, number)
        found = self._drawn(scan, max(members, PILOT), seed, number)
        factor = torch.full((len(found),), (PILOT / (PILOT + 1)) ** 0.5)
        factor[:PILOT] = (PILOT / (PILOT - 1)) ** 0.5
        return (self.settled(scan) + expand_like(factor, found) * (found - found[:PILOT].mean(0)))[:members]

    @torch.no_grad()
    def weighed(self, scan: Scan | VolumeScan, members: int, *, seed: int = 0, number: int = 0) -> Weighed:
        """Members from weighted particles, which are right for any method as their number grows, and log p(y).

        Args:
            scan: y.
            members: how many are drawn of the particles, by their weights.
            seed: of all draws, with the number of the slice.
            number: of the slice.
        """
        model, own = self.model, seed_of(seed, number, Stream.POSTERIOR)
        measurement = scan.measurement_on(model.device)
        found = population(
            model, self.correction, measurement, seed=own, shape=(2, *scan.grid), prior=scan.prior_of(model.prior)
        )
        drawn = found.drawn(members, generator=Generators([(own, 1, Stream.RESAMPLED)]))
        images = scan.scale * to_complex(drawn)[:, 0].cpu() * scan.seen
        return Weighed(images, found.log_evidence, min(found.effective), int(measurement.known.sum()))

    @torch.no_grad()
    def settled(self, scan: Scan | VolumeScan) -> Tensor:
        """c, complex (*grid), in the units of k-space."""
        model, schedule, sampler = self.model, self.model.sde.schedule, self.sampler
        last = sampler.grid(schedule, max(sampler.steps + (not sampler.denoise), 2))[-1]
        end = max(END, float(schedule.sigma(last) / schedule.alpha(last)))  # a prior may know nothing below
        ratios = torch.logspace(math.log10(max(BEGIN, end)), math.log10(end), self.centre, dtype=torch.float64)
        guided = Guided(scan.prior_of(model.prior), scan.measurement_on(model.device), self.method)
        x = (scan.linear / scan.scale).to(model.device, model.precision)
        with autocast_of(LOW if self.bf16 else FULL, model.device):
            for t in schedule.time(-2 * ratios.log()):
                x = guided(model.sde.scales(t, x)[0].to(x) * x, t)
        return scan.scale * to_complex(model.leave(x, {}))[0, 0].cpu() * scan.seen

    def _drawn(self, scan: Scan | VolumeScan, members: int, seed: int, number: int) -> Tensor:
        """Members as the sampler draws them."""
        model = self.model
        linear = (scan.linear / scan.scale).to(model.device, model.precision)
        guided = Recentred(Guided(scan.prior_of(model.prior), scan.measurement_on(model.device), self.method), linear)
        found = []
        for start in range(0, members, self.chunk):
            rows = range(start, start + self.chunk)  # full size, so that a member does not depend on how many there are
            generator = Generators((seed, number, index, Stream.POSTERIOR) for index in rows)
            with autocast_of(LOW if self.bf16 else FULL, model.device):
                z = model.draw(generator, (2, *scan.grid), sampler=self.sampler, denoiser=guided).z
            x = to_complex(model.leave(z + linear, {}))[: members - start, 0].cpu()
            if not bool(torch.isfinite(torch.view_as_real(x)).all()):
                raise InputError(
                    f"Members {start} to {start + len(x) - 1} are not finite: take more --steps, or another --method."
                )
            found.append(scan.scale * x * scan.seen)
        return torch.cat(found)


class Recentred:
    """The denoiser of x − c, so that samplers, which start at noise about 0, start at noise about c: x̂(z_t + α c, t) − c.

    Args:
        denoiser: of x.
        centre: c, of one field.
    """

    def __init__(self, denoiser: DenoiserProtocol, centre: Tensor) -> None:
        self.denoiser, self.centre = denoiser, centre

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        alpha, _ = self.sde.scales(t, x_t)
        return self.denoiser(x_t + alpha.to(x_t) * self.centre, t, cond) - self.centre
