"""Wiener's filter in the place of a preconditioner: coefficients per mode, from the spectrum of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from scorefield.core.denoiser import Condition, Label, LogNoise, Preconditioner
from scorefield.core.noise import Boundary, Noise
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.core.spectrum import RadialSpectrum, wavenumbers
from scorefield.foundation.arithmetic import placed
from scorefield.foundation.errors import InputError
from scorefield.nn.network import Network


@dataclass(frozen=True)
class Wiener(Preconditioner):
    """Coefficients per mode: what is left to the network is what Wiener's filter does not know (Wiener 1949).

    With Λ = α²S + σ²λ: c_skip = αS/Λ, c_out = √(nSσ²λ/Λ), c_in = 1/√(nΛ). Of Gaussian data with the spectrum S, c_skip x_t is x̂
    itself. On a grid finer than that of training S is extrapolated, and so is the denoiser.

    Args:
        spectrum: S of the normalised data.
        points: n, those of the grid of training: a field whose modes have the variance 1/n there has unit variance per point.
        label: how the noise level is given to the network.
    """

    spectrum: RadialSpectrum
    points: int
    label: Label = LogNoise()

    def __post_init__(self) -> None:
        if self.points < 1:
            raise InputError(f"Wiener needs points >= 1, not {self.points}.")

    def _modes(self, sde: SDE, x_t: Field, t: Time) -> tuple[Boundary, Tensor, Tensor, Tensor, Tensor]:
        """The basis, α²S, σ²λ per mode with a batch axis, α, and S, in float64."""
        grid = x_t.shape[2:]
        data, noise = _spectra(self.spectrum, sde.noise, tuple(grid), x_t.device)
        alpha, sigma = (
            placed(v.double(), x_t.device).reshape(-1, *(1,) * (len(grid) + 1)) for v in sde.schedule(t.double())
        )
        return sde.noise.basis(len(grid))[0], alpha**2 * data, sigma**2 * noise, alpha, data

    def evaluate(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Tensor:
        basis, signal, noise, _, _ = self._modes(sde, x_t, t)
        seen = basis.filter(x_t, (self.points * (signal + noise)).rsqrt().to(x_t))
        return net.evaluate(seen, self.label(sde.schedule, t), cond)

    def denoise(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        basis, signal, noise, alpha, data = self._modes(sde, x_t, t)
        output = self.evaluate(net, sde, x_t, t, cond)
        skip, out = alpha * data / (signal + noise), (self.points * data * noise / (signal + noise)).sqrt()
        return basis.filter(x_t, skip.to(x_t)) + basis.filter(output, out.to(x_t))

    def score(self, net: Network, sde: SDE, x_t: Field, t: Time, cond: Condition | None) -> Field:
        """(−λ/Λ) x_t + (α c_out/σ²) F."""
        basis, signal, noise, alpha, data = self._modes(sde, x_t, t)
        variance = expand_like(placed(sde.schedule.sigma(t.double()), x_t.device), x_t) ** 2
        keep = -noise / variance / (signal + noise)
        gain = alpha * (self.points * data * noise / (signal + noise)).sqrt() / variance
        output = self.evaluate(net, sde, x_t, t, cond)
        return basis.filter(x_t, keep.to(x_t)) + basis.filter(output, gain.to(x_t))


@lru_cache(maxsize=4)
def _spectra(
    spectrum: RadialSpectrum, noise: Noise, grid: tuple[int, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """S and λ of every mode, in float64."""
    return spectrum(wavenumbers(noise, grid)).to(device), noise.eigenvalues(grid).to(device)
