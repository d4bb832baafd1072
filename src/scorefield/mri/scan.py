"""One slice as it was measured, or several as a volume, and what the baselines make of it.

Everything is computed in units in which the 99th percentile of the foreground is 1, as the prior was trained, and k-space has
white noise; results are in the units of k-space again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.errors import InputError
from scorefield.guidance import Measurement
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

    @property
    def grid(self) -> tuple[int, ...]:
        """Of the image."""
        return tuple(self.maps.shape[1:])

    def prior_of(self, denoiser: DenoiserProtocol) -> DenoiserProtocol:
        """The denoiser of its images: that of slices."""
        return denoiser

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
        y, unit = self.y(self.scale).to(device), self.scale * self.unit
        return Measurement(self.operator.to(device), y, self.noise / self.scale, unit)

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
