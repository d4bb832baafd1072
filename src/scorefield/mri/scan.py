"""Images from undersampled k-space: draws of p(x | y) under a learned prior, and what the baselines make of the same y.

Everything is computed in units in which the 99th percentile of the foreground is 1, as the prior was trained, and k-space has
white noise; results are in the units of k-space again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.sde import SDE, expand_like
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.arithmetic import FULL, LOW, autocast_of
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import Guided, Measurement, Method
from scorefield.model import Model
from scorefield.operators import (
    NonUniformSense,
    ParallelImaging,
    Sense,
    cg_sense,
    l1_wavelet,
    to_channels,
    to_complex,
    zero_filled,
)
from scorefield.samplers import Sampler


@dataclass(frozen=True)
class Baselines:
    """How the baselines are regularised; what is not given is chosen on the scan itself by `reconstruct` (see `tuning`), and
    elsewhere as is good on T1 slices at R = 4 and R = 8: 0.001, 20 and 0.0005.

    Args:
        damping: of CG-SENSE, relative to A* A, whose largest value is 1.
        iterations: of CG-SENSE.
        wavelet: the weight of L1-wavelet, relative to the 99th percentile of the foreground.
    """

    damping: float | None = None
    iterations: int | None = None
    wavelet: float | None = None

    @property
    def settings(self) -> tuple[float, int, float]:
        """Damping, iterations and weight, as is good on T1 slices where they are not given."""
        damping, iterations, wavelet = self.damping, self.iterations, self.wavelet
        return (
            1e-3 if damping is None else damping,
            20 if iterations is None else iterations,
            5e-4 if wavelet is None else wavelet,
        )


@dataclass(frozen=True, eq=False)
class Scan:
    """One slice as it was measured, its noise white and equally strong in all coils.

    Args:
        kspace: (coils, height, width), complex; off the grid (coils, samples, readouts).
        mask: where it was sampled, (height, width); off the grid which samples are used, (samples, readouts).
        maps: coil sensitivities, (coils, height, width), Σ|S|² = 1 in the object, or less.
        noise: its standard deviation per real component.
        baselines: how the baselines are regularised.
        unit: what k-space, maps and noise were divided by, for the sake of ‖A‖ <= 1.
        places: where samples off the grid are, (samples, readouts, 2), in cycles per field of view.
    """

    kspace: Tensor
    mask: Tensor
    maps: Tensor
    noise: float
    baselines: Baselines = Baselines()
    unit: float = 1.0
    places: Tensor | None = None

    def __post_init__(self) -> None:
        on_grid = self.places is None
        sizes_fit = self.kspace.shape == self.maps.shape if on_grid else len(self.kspace) == len(self.maps)
        if not sizes_fit or self.kspace.shape[1:] != self.mask.shape:
            shapes = f"k-space {tuple(self.kspace.shape)}, maps {tuple(self.maps.shape)}, mask {tuple(self.mask.shape)}"
            raise InputError(f"{shapes} do not belong together: coils × height × width, and height × width.")
        if not self.noise > 0:
            raise InputError(f"The noise of k-space is a standard deviation > 0, not {self.noise}.")

    @cached_property
    def operator(self) -> ParallelImaging:
        """A."""
        return (
            Sense(self.maps, self.mask) if self.places is None else NonUniformSense(self.maps, self.places, self.mask)
        )

    @cached_property
    def linear(self) -> Tensor:
        """The CG-SENSE image as a pair of channels, (1, 2, height, width)."""
        damping, iterations, _ = self.baselines.settings
        return cg_sense(self.operator, self.y(1.0), damping=damping, iterations=iterations)

    @cached_property
    def scale(self) -> float:
        """What has to be 1 in model space: the robust maximum of the CG-SENSE image."""
        return robust_maximum(to_complex(self.linear)[0, 0].numpy())

    @cached_property
    def seen(self) -> Tensor:
        """Where any coil is sensitive, (height, width): of the rest nothing was measured, and images are 0 there."""
        return self.maps.abs().sum(0) > 0

    def y(self, scale: float) -> Tensor:
        """y as pairs of channels, (1, 2 coils, height, width), divided by a scale, 0 where nothing was sampled."""
        return to_channels(torch.where(self.mask > 0, self.kspace, 0)[None]) / scale

    @property
    def measurement(self) -> Measurement:
        """y = A x + n in model units."""
        return self.measurement_on(self.kspace.device)

    def measurement_on(self, device: torch.device | str) -> Measurement:
        """`measurement` on a device: what many steps use is copied there once."""
        return Measurement(self.operator.to(device), self.y(self.scale).to(device), self.noise / self.scale)

    def baseline_images(self) -> dict[str, Tensor]:
        """The complex images (height, width) of the baselines by name."""
        (*_, wavelet), y = self.baselines.settings, self.y(self.scale)
        found = {
            "zero-filled": zero_filled(self.operator, y),
            "CG-SENSE": self.linear / self.scale,
            "L1-wavelet": l1_wavelet(self.operator, y, weight=wavelet),
        }
        return {name: self.scale * to_complex(x)[0, 0] for name, x in found.items()}

    def chi_square(self, images: Tensor) -> Tensor:
        """‖A x − y‖²/(noise² N) of complex images (batch, height, width), N real numbers measured: about 1 where x is right."""
        residual = to_complex(self.operator(to_channels(images[:, None])) - self.y(1.0))
        count = 2 * len(self.kspace) * int((self.mask > 0).sum())
        return residual.abs().square().flatten(1).sum(1) / (self.noise**2 * count)


BEGIN, END = 0.3, 0.01  # σ/α at which a settled image begins and ends
PILOT = 8  # members whose mean is moved to the settled image


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
    """

    model: Model
    method: Method
    sampler: Sampler
    chunk: int = 8
    bf16: bool = False
    centre: int = 0

    @torch.no_grad()
    def draw(self, scan: Scan, members: int, *, seed: int = 0, number: int = 0) -> Tensor:
        """Complex members (members, height, width) in the units of k-space; member i depends on (seed, number, i) alone.

        Args:
            scan: y.
            members: how many; fewer than 8 cost as much as 8 with a `centre`.
            seed: of the draws.
            number: of the slice.
        """
        if not self.centre:
            return self._drawn(scan, members, seed, number)
        found = self._drawn(scan, max(members, PILOT), seed, number)
        factor = torch.full((len(found),), (PILOT / (PILOT + 1)) ** 0.5)
        factor[:PILOT] = (PILOT / (PILOT - 1)) ** 0.5
        return (self.settled(scan) + expand_like(factor, found) * (found - found[:PILOT].mean(0)))[:members]

    @torch.no_grad()
    def settled(self, scan: Scan) -> Tensor:
        """c, complex (height, width), in the units of k-space."""
        model, schedule, sampler = self.model, self.model.sde.schedule, self.sampler
        last = sampler.grid(schedule, max(sampler.steps + (not sampler.denoise), 2))[-1]
        end = max(END, float(schedule.sigma(last) / schedule.alpha(last)))  # a prior may know nothing below
        ratios = torch.logspace(math.log10(max(BEGIN, end)), math.log10(end), self.centre, dtype=torch.float64)
        guided = Guided(model.prior, scan.measurement_on(model.device), self.method)
        x = (scan.linear / scan.scale).to(model.device, model.precision)
        with autocast_of(LOW if self.bf16 else FULL, model.device):
            for t in schedule.time(-2 * ratios.log()):
                x = guided(model.sde.scales(t, x)[0].to(x) * x, t)
        return scan.scale * to_complex(model.leave(x, {}))[0, 0].cpu() * scan.seen

    def _drawn(self, scan: Scan, members: int, seed: int, number: int) -> Tensor:
        """Members as the sampler draws them."""
        model, grid = self.model, tuple(scan.maps.shape[1:])
        linear = (scan.linear / scan.scale).to(model.device, model.precision)
        guided = Recentred(Guided(model.prior, scan.measurement_on(model.device), self.method), linear)
        found = []
        for start in range(0, members, self.chunk):
            rows = range(start, start + self.chunk)  # full size, so that a member does not depend on how many there are
            generator = Generators((seed, number, index, Stream.POSTERIOR) for index in rows)
            with autocast_of(LOW if self.bf16 else FULL, model.device):
                z = model.draw(generator, (2, *grid), sampler=self.sampler, denoiser=guided).z
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
