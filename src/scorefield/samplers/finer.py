"""Sampling on a grid finer than that of training: what becomes of the modes that no training field had.

The ways are denoisers that wrap a denoiser, so that every sampler takes them.
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

RANGE, HALVINGS = 8.0, 24  # of ln r, and of the interval that it is sought in


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
class Continued(Finer):
    """As `WienerBeyond`, with the spectrum r S of each field and channel: r is its own power at the end of the band over S's.

    Fields are rough and smooth, and a rough one is rough at finer scales as well: new modes of the mean spectrum have too much
    power for most fields, and too little for a few. r solves r = mean (|x̂_k|² + V_k)/S_k over the modes of the last half octave,
    x̂ the network's and V_k = r Sσ²λ/(α² r S + σ²λ) what is open there under r S: for Gaussian fields 1, within what so many
    modes can tell. Held fixed in derivatives.

    Args:
        spectrum: S of the normalised data on the grid of training; by default measured there, by `fitted`.
    """

    spectrum: RadialSpectrum | None = None

    def fitted(self, fields: Callable[[], Field], noise: Noise) -> Continued:
        return self if self.spectrum is not None else Continued(RadialSpectrum.measure(fields(), noise))

    def __call__(self, denoiser: DenoiserProtocol, trained: Sequence[int]) -> DenoiserProtocol:
        if self.spectrum is None:
            raise InputError("Continued knows no spectrum: give one, or call fitted with training fields first.")
        return _Beyond(denoiser, tuple(trained), self.spectrum, own=True)


@dataclass(frozen=True)
class _Limited:
    """A denoiser under another law of the noise."""

    denoiser: DenoiserProtocol
    sde: SDE

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        return self.denoiser(x_t, t, cond)


@dataclass(frozen=True)
class _Beyond:
    """A denoiser within a band and Wiener's filter beyond, where `own` by each field's own power at the end of the band."""

    denoiser: DenoiserProtocol
    trained: tuple[int, ...]
    spectrum: RadialSpectrum
    own: bool = False

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    def __call__(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        noise = self.sde.noise
        basis, _ = noise.basis(x_t.ndim - 2)
        inside, data, values = _modes(self.spectrum, noise, self.trained, tuple(x_t.shape[2:]), x_t.device)
        alpha, sigma = self._scales(t, x_t)
        band = inside.to(x_t)
        within: Tensor = self.denoiser(basis.filter(x_t, band), t, cond)
        if self.own:
            data = data * self._power(within, inside, data, alpha**2, sigma**2 * values)
        variance = alpha**2 * data + sigma**2 * values
        filtered = alpha * data / variance
        if cond is not None and UNTIL in cond:
            s = cond[UNTIL]
            ahead, low = self._scales(s, x_t)
            jump = mean_gain((variance, ahead**2 * data + low**2 * values), (alpha, sigma), (ahead, low))
            far = self.sde.schedule.log_snr(s.double()) > self.sde.schedule.log_snr(t.double()) + 1e-7
            filtered = torch.where(expand_like(placed(far, x_t.device), x_t), jump, filtered)
        return basis.filter(within, band) + basis.filter(x_t, ((1 - inside) * filtered).to(x_t))

    @torch.no_grad()
    def _power(self, within: Field, inside: Tensor, data: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
        """r of each field and channel, (batch, channels, 1, ...): the root of r mean r/(r + σ²λ/α²S) = mean |x̂|²/S."""
        rank = within.ndim - 2
        radii = placed(wavenumbers(self.sde.noise, tuple(within.shape[2:])), within.device)
        last = len(self.spectrum.bands) - 1
        top = (inside == 1) & (radii > last / 2**0.5) & (radii <= last)
        modes = self.sde.noise.basis(rank)[0].transform(within.double()).abs().square()
        known = (modes / data)[..., top].mean(-1, keepdim=True)
        open_ = (noise / (signal * data)).expand(len(within), 1, *within.shape[2:])[..., top]
        low, high = (torch.full_like(known, end) for end in (-RANGE, RANGE))
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            r = middle.exp()
            above = r * (r / (r + open_)).mean(-1, keepdim=True) > known
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return ((low + high) / 2).exp().reshape(*known.shape[:2], *(1,) * rank)

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
