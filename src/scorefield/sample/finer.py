"""Sampling on a grid finer than that of training: what becomes of the modes that no training field had.

The three ways are denoisers that wrap a denoiser, so that every sampler takes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from scorefield.denoiser import Condition, Denoises
from scorefield.sde import SDE, Field, Time, expand_like
from scorefield.spectrum import RadialSpectrum, wavenumbers


class Finer(ABC):
    """A way to treat the modes beyond the band of training."""

    @abstractmethod
    def __call__(self, denoiser: Denoises, trained: Sequence[int]) -> Denoises:
        """A denoiser for finer grids.

        Args:
            denoiser: that of a model.
            trained: the grid of its training.
        """


@dataclass(frozen=True)
class BandLimited(Finer):
    """No noise beyond the trained band: what the samples have there is what the network makes of the band itself."""

    def __call__(self, denoiser: Denoises, trained: Sequence[int]) -> Denoises:
        return _Limited(denoiser, SDE(denoiser.sde.schedule, denoiser.sde.noise.limited(trained)))


@dataclass(frozen=True)
class Extrapolate(Finer):
    """The network as it is, with noise in all modes: it has to know what it never saw."""

    def __call__(self, denoiser: Denoises, trained: Sequence[int]) -> Denoises:
        return denoiser


@dataclass(frozen=True)
class WienerBeyond(Finer):
    """Wiener's filter beyond the trained band, x̂_k = αS/(α²S + σ²λ) x_t,k, and the network within, which sees the band alone.

    The new modes are Gaussian, independent of the band, and have the extrapolated spectrum.

    Args:
        spectrum: S of the normalised data, fitted on the grid of training.
    """

    spectrum: RadialSpectrum

    def __call__(self, denoiser: Denoises, trained: Sequence[int]) -> Denoises:
        return _Beyond(denoiser, tuple(trained), self.spectrum)


@dataclass(frozen=True)
class _Limited:
    """A denoiser under another law of the noise."""

    denoiser: Denoises
    sde: SDE

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        return self.denoiser(x_t, t, cond)


@dataclass(frozen=True)
class _Beyond:
    """A denoiser within a band and Wiener's filter beyond."""

    denoiser: Denoises
    trained: tuple[int, ...]
    spectrum: RadialSpectrum

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        grid = x_t.shape[2:]
        basis, _ = self.sde.noise.basis(len(grid))
        values = self.sde.noise.eigenvalues(grid)
        inside = (basis.band(grid, self.trained) == 1).double()  # without the mode that an even grid has half of
        alpha, sigma = (expand_like(v.double(), x_t) for v in self.sde.schedule(t.double()))
        data = self.spectrum(wavenumbers(self.sde.noise, grid))
        filtered = (1 - inside).to(x_t.device) * (alpha * data.to(x_t.device))
        filtered = filtered / (alpha**2 * data.to(x_t.device) + sigma**2 * values.to(x_t.device))
        band = inside.to(x_t)
        within: Tensor = self.denoiser(basis.filter(x_t, band), t, cond)
        return basis.filter(within, band) + basis.filter(x_t, filtered.to(x_t))
