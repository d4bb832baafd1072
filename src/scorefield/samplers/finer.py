"""Sampling on a grid finer than that of training: what becomes of the modes that no training field had.

The three ways are denoisers that wrap a denoiser, so that every sampler takes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scorefield.core.denoiser import UNTIL, Condition, DenoiserProtocol
from scorefield.core.flow_map import Scales, mean_gain
from scorefield.core.noise import Noise
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.core.spectrum import RadialSpectrum, wavenumbers
from scorefield.foundation.arithmetic import placed
from scorefield.foundation.errors import InputError


class Finer(ABC):
    """A way to treat the modes beyond the band of training."""

    @abstractmethod
    def __call__(self, denoiser: DenoiserProtocol, trained: Sequence[int]) -> DenoiserProtocol:
        """A denoiser for finer grids.

        Args:
            denoiser: that of a model.
            trained: the grid of its training.
        """

    def fitted(self, fields: Callable[[], Field], noise: Noise) -> Finer:
        """The same way with what it has to know of the data, where it was not given.

        Args:
            fields: training fields in model space, asked for only where they are needed.
            noise: that of the model.
        """
        return self


@dataclass(frozen=True)
class BandLimited(Finer):
    """No noise beyond the trained band: what the samples have there is what the network makes of the band itself."""

    def __call__(self, denoiser: DenoiserProtocol, trained: Sequence[int]) -> DenoiserProtocol:
        return _Limited(denoiser, SDE(denoiser.sde.schedule, denoiser.sde.noise.limited(trained)))


@dataclass(frozen=True)
class Extrapolate(Finer):
    """The network as it is, with noise in all modes: it has to know what it never saw."""

    def __call__(self, denoiser: DenoiserProtocol, trained: Sequence[int]) -> DenoiserProtocol:
        return denoiser


@dataclass(frozen=True)
class WienerBeyond(Finer):
    """Wiener's filter beyond the trained band, x̂_k = αS/(α²S + σ²λ) x_t,k, and the network within, which sees the band alone.

    The new modes are Gaussian, independent of the band, and have the extrapolated spectrum.

    Args:
        spectrum: S of the normalised data on the grid of training; by default measured there, by `fitted`.
    """

    spectrum: RadialSpectrum | None = None

    def fitted(self, fields: Callable[[], Field], noise: Noise) -> WienerBeyond:
        return self if self.spectrum is not None else WienerBeyond(RadialSpectrum.measure(fields(), noise))

    def __call__(self, denoiser: DenoiserProtocol, trained: Sequence[int]) -> DenoiserProtocol:
        if self.spectrum is None:
            raise InputError("WienerBeyond knows no spectrum: give one, or call fitted with training fields first.")
        return _Beyond(denoiser, tuple(trained), self.spectrum)


@dataclass(frozen=True)
class _Limited:
    """A denoiser under another law of the noise."""

    denoiser: DenoiserProtocol
    sde: SDE

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        return self.denoiser(x_t, t, cond)


@dataclass(frozen=True)
class _Beyond:
    """A denoiser within a band and Wiener's filter beyond."""

    denoiser: DenoiserProtocol
    trained: tuple[int, ...]
    spectrum: RadialSpectrum

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        noise = self.sde.noise
        basis, _ = noise.basis(x_t.ndim - 2)
        inside, data, values = _modes(self.spectrum, noise, self.trained, tuple(x_t.shape[2:]), x_t.device)
        alpha, sigma = self._scales(t, x_t)
        variance = alpha**2 * data + sigma**2 * values
        filtered = alpha * data / variance
        if cond is not None and UNTIL in cond:
            s = cond[UNTIL]
            ahead, low = self._scales(s, x_t)
            jump = mean_gain((variance, ahead**2 * data + low**2 * values), (alpha, sigma), (ahead, low))
            far = self.sde.schedule.log_snr(s.double()) > self.sde.schedule.log_snr(t.double()) + 1e-7
            filtered = torch.where(expand_like(placed(far, x_t.device), x_t), jump, filtered)
        band = inside.to(x_t)
        within: Tensor = self.denoiser(basis.filter(x_t, band), t, cond)
        return basis.filter(within, band) + basis.filter(x_t, ((1 - inside) * filtered).to(x_t))

    def _scales(self, t: Time, x: Field) -> Scales:
        """α and σ in float64, shaped to broadcast against x."""
        alpha, sigma = (expand_like(placed(v.double(), x.device), x) for v in self.sde.schedule(t.double()))
        return alpha, sigma


@lru_cache(maxsize=4)
def _modes(
    spectrum: RadialSpectrum, noise: Noise, trained: tuple[int, ...], grid: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Which modes the network is asked for (not the one that an even grid has half of), S and λ, in float64."""
    basis, _ = noise.basis(len(grid))
    inside = (basis.band(grid, trained) == 1).double()
    data = spectrum(wavenumbers(noise, grid))
    return inside.to(device), data.to(device), noise.eigenvalues(grid).to(device)
