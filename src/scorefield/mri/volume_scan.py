"""Several slices as one volume, or frames as one film, that are reconstructed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.errors import InputError
from scorefield.guidance import Measurement
from scorefield.mri.scan import Scan
from scorefield.operators import LinearOperator, ParallelImaging, to_complex
from scorefield.samplers import Slicewise, Tiled


@dataclass(frozen=True, eq=False)
class Stacked(LinearOperator):
    """Every slice of a volume (batch, 2, slices, height, width) by an operator of its own, y (batch, 2 coils, slices, ...).

    Args:
        operators: A_s of each slice.
        factors: by which each is multiplied.
    """

    operators: Sequence[ParallelImaging]
    factors: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self._scaled([A(part) for A, part in self._pairs(x)])

    def adjoint(self, y: Tensor) -> Tensor:
        return self._scaled([A.adjoint(part) for A, part in self._pairs(y)])

    def normal(self, x: Tensor) -> Tensor:
        return self._scaled([A.normal(part) for A, part in self._pairs(x)], 2)

    def _pairs(self, x: Tensor) -> Iterator[tuple[ParallelImaging, Tensor]]:
        """Each operator, and its slice."""
        if x.shape[2] != len(self.operators):
            raise InputError(f"A volume of {x.shape[2]} slices was measured by operators of {len(self.operators)}.")
        return zip(self.operators, (part.contiguous() for part in x.unbind(2)), strict=True)

    def _scaled(self, parts: Sequence[Tensor], power: int = 1) -> Tensor:
        return torch.stack([f * part for f, part in zip((self.factors**power).to(parts[0]), parts, strict=True)], 2)


@dataclass(frozen=True, eq=False)
class VolumeScan:
    """Slices one after another as one scan: each with its own maps and mask, their noise made equally strong.

    Args:
        slices: of one size, kind of sampling and number of coils.
        axes: across which a prior of slices looks at them; that of volumes looks at windows.
        window: the size of these, (slices, height, width); of a prior of slices ().
    """

    slices: Sequence[Scan]
    axes: tuple[int, ...] = (0, 1, 2)
    window: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = {(tuple(scan.kspace.shape), scan.grid) for scan in self.slices}
        if len(kinds) != 1:
            raise InputError(
                "The slices of a volume are of one size, and as many coils and samples: reconstruct them one by one."
            )

    @property
    def grid(self) -> tuple[int, ...]:
        """(slices, height, width)."""
        return len(self.slices), *self.slices[0].grid

    @property
    def noise(self) -> float:
        """That of all slices."""
        return self.slices[0].noise

    @property
    def factors(self) -> Tensor:
        """By which y and A of each slice are multiplied for noise of one strength."""
        return torch.tensor([self.noise / scan.noise for scan in self.slices])

    @cached_property
    def linear(self) -> Tensor:
        """The CG-SENSE images as one volume, (1, 2, slices, height, width)."""
        return torch.stack([scan.linear for scan in self.slices], 2)

    @cached_property
    def scale(self) -> float:
        """What has to be 1 in model space: one number for all slices."""
        return robust_maximum(to_complex(self.linear)[0, 0].numpy())

    @property
    def seen(self) -> Tensor:
        """Where any coil is sensitive, (slices, height, width)."""
        return torch.stack([scan.seen for scan in self.slices])

    def measurement_on(self, device: torch.device | str) -> Measurement:
        """y = A x + n in model units, on a device."""
        operator = Stacked([scan.operator.to(device) for scan in self.slices], self.factors)
        y = torch.stack([f * scan.y(self.scale) for f, scan in zip(self.factors, self.slices, strict=True)], 2)
        return Measurement(operator, y.to(device), self.noise / self.scale, self._unit)

    @property
    def _unit(self) -> float:
        """What y was divided by: of slices that differ in it the geometric mean over samples, for the density of all."""
        counts = torch.tensor([float((scan.mask > 0).sum()) for scan in self.slices], dtype=torch.float64)
        units = torch.tensor([scan.unit for scan in self.slices], dtype=torch.float64) / self.factors
        return self.scale * float(((units.log() * counts).sum() / counts.sum()).exp())

    def prior_of(self, denoiser: DenoiserProtocol) -> DenoiserProtocol:
        """The denoiser of volumes: by slices, or by windows that overlap by half where the volume is larger."""
        if not self.window:
            return Slicewise(denoiser, self.axes)
        larger = [w for w, n in zip(self.window, self.grid, strict=True) if n > w]
        margin = min(larger) // 4 if larger else 0
        return Tiled(denoiser, self.window, margin)

    def without(self, parts: Sequence[Tensor]) -> VolumeScan:
        """The same as if parts of its slices had not been sampled."""
        kept = [replace(scan, mask=(scan.mask > 0) & ~part) for scan, part in zip(self.slices, parts, strict=True)]
        return replace(self, slices=kept)
