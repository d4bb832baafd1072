"""Data laws whose denoiser is known in closed form: the measure of every sampler, loss and network.

Use them to verify a piece of your own: a step is right when, driven by an oracle's denoiser, it carries `marginal` draws at t
to the law of `marginal` draws at s, and a deterministic one when it follows `flow` at its stated order.

>>> import torch
>>> from scorefield.core.oracle import Gaussian
>>> from scorefield.core.schedule import VP
>>> from scorefield.core.sde import SDE
>>> oracle = Gaussian(SDE(VP()), spectrum=torch.full((1, 8), 0.25, dtype=torch.float64))
>>> x = torch.randn(2, 1, 8, dtype=torch.float64)
>>> t, s = torch.tensor(0.9), torch.tensor(0.1)
>>> bool(torch.allclose(oracle.flow(oracle.flow(x, t, s), s, t), x))
True
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.core.denoiser import UNTIL, Condition
from scorefield.core.flow_map import mean_gain
from scorefield.core.sde import SDE, Field, Time, expand_like
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators


class Gaussian(nn.Module):
    """x ~ N(mean, S), S diagonal in the Fourier basis of a periodic grid, under noise that is so too.

    With Λ = α²S + σ²C per mode: x̂ = mean + αSΛ⁻¹(x_t − α mean); the probability flow scales each mode by √(Λ_s/Λ_t). It knows
    the second time of a flow map (scorefield.core.flow_map).

    Args:
        sde: the law of x_t; its noise must be stationary on the grid (white noise is).
        spectrum: eigenvalues of S per mode in the order of `torch.fft.fftn`, shape (channels or 1, *grid). White data of
            variance v have the spectrum v. The same for modes k and −k, or the fields would not be real: else `InputError`.
        mean: the mean of x, broadcastable to (channels, *grid).
    """

    spectrum: Tensor
    mean: Tensor
    noise_spectrum: Tensor

    def __init__(self, sde: SDE, spectrum: Float[Tensor, "channels *grid"], mean: Tensor | float = 0.0) -> None:
        super().__init__()
        self.sde = sde
        self.grid = spectrum.shape[1:]
        mirrored = spectrum.flip(self._axes).roll((1,) * len(self.grid), self._axes)
        if not torch.allclose(mirrored, spectrum) or bool((spectrum < 0).any()):
            raise InputError("A spectrum must be non-negative and the same for modes k and −k.")
        self.register_buffer("spectrum", spectrum)
        self.register_buffer("mean", torch.as_tensor(mean, dtype=spectrum.dtype))
        impulse = torch.zeros(1, 1, *self.grid, dtype=spectrum.dtype)
        impulse.view(-1)[0] = 1
        self.register_buffer("noise_spectrum", torch.fft.fftn(sde.noise.covariance(impulse), dim=self._axes).real[0])

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.grid), 0))

    def _filter(self, x: Tensor, gain: Tensor) -> Tensor:
        return torch.fft.ifftn(torch.fft.fftn(x, dim=self._axes) * gain, dim=self._axes).real

    def variance(self, t: Time) -> Tensor:
        """Λ(t) = α²S + σ²C per mode."""
        alpha_t, sigma_t = self._scales(t)
        return alpha_t**2 * self.spectrum + sigma_t**2 * self.noise_spectrum

    def _scales(self, t: Time) -> tuple[Tensor, Tensor]:
        alpha_t, sigma_t = self.sde.schedule(t)
        shape = t.shape + (1,) * (len(self.grid) + 1) if t.ndim else ()
        return alpha_t.reshape(shape), sigma_t.reshape(shape)

    def forward(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        alpha_t, _ = self._scales(t)
        gain = torch.where(self.spectrum > 0, alpha_t * self.spectrum / self.variance(t), 0)  # 0/0 where σ = 0 as well
        if cond is not None and UNTIL in cond:
            gain = self._mean_gain(gain, t, cond[UNTIL])
        return self.mean + self._filter(x_t - alpha_t * self.mean, gain)

    def _mean_gain(self, gain: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Of D(x_t; t, s), whose jump is the flow, per mode; of x̂ where s = t."""
        start, stop = self._scales(t), self._scales(s)
        far = (self.sde.schedule.log_snr(s) > self.sde.schedule.log_snr(t) + 1e-7).reshape(stop[0].shape)
        return torch.where(far, mean_gain((self.variance(t), self.variance(s)), start, stop), gain)

    def flow(self, x: Field, t: Time, s: Time) -> Field:
        """The exact probability flow from t to s."""
        (alpha_t, _), (alpha_s, _) = self._scales(t), self._scales(s)
        return alpha_s * self.mean + self._filter(x - alpha_t * self.mean, (self.variance(s) / self.variance(t)).sqrt())

    def marginal(self, shape: Sequence[int], t: Time, *, generator: Generators) -> Field:
        """Draws of x_t."""
        white = generator.randn(shape, like=self.spectrum)
        return self._scales(t)[0] * self.mean + self._filter(white, self.variance(t).sqrt())

    def log_density(self, x_t: Field, t: Time) -> Float[Tensor, " batch"]:
        """log p(x_t) in nats, with respect to Lebesgue measure on the grid's values."""
        variance = self.variance(t).expand(x_t.shape)
        modes = torch.fft.fftn(x_t - self._scales(t)[0] * self.mean, dim=self._axes, norm="ortho")
        return -0.5 * (modes.abs() ** 2 / variance + variance.log() + math.log(2 * math.pi)).flatten(1).sum(1)

    def score(self, x_t: Field, t: Time) -> Field:
        """C ∇log p(x_t)."""
        return self.sde.score(self(x_t, t), x_t, t)


class Mixture(nn.Module):
    """x ~ Σ_i w_i N(μ_i, v_i I) under white noise: many modes, and still exact.

    With v_i(t) = α²v_i + σ² and the responsibilities r_i(x_t) ∝ w_i N(x_t; αμ_i, v_i(t)):
    x̂ = Σ_i r_i (μ_i + (αv_i/v_i(t)) (x_t − αμ_i)).

    Args:
        sde: the law of x_t, with white noise.
        means: μ_i, shape (components, channels, *grid).
        variances: v_i, shape (components).
        weights: w_i, shape (components), positive; they are normalised.
    """

    means: Tensor
    variances: Tensor
    log_weights: Tensor

    def __init__(self, sde: SDE, means: Tensor, variances: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        self.sde = sde
        probe = torch.linspace(-1, 1, means[:1].numel(), dtype=means.dtype).reshape(means[:1].shape)
        if not torch.equal(sde.noise.covariance(probe), probe):
            raise InputError("A mixture's denoiser is known in closed form under white noise alone: give White().")
        weights = torch.ones_like(variances) if weights is None else weights
        self.register_buffer("means", means)
        self.register_buffer("variances", variances)
        self.register_buffer("log_weights", (weights / weights.sum()).log())

    def _components(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """α, v_i(t), x_t − αμ_i and log w_i N(x_t; αμ_i, v_i(t)), with a component axis after the batch."""
        alpha_t, sigma_t = (c.reshape((*c.shape, 1)) if c.ndim else c for c in self.sde.schedule(t))
        variance = alpha_t**2 * self.variances + sigma_t**2
        residual = x_t[:, None] - expand_like(alpha_t, x_t[:, None]) * self.means
        dimension = x_t[0].numel()
        log_density = -0.5 * (
            residual.square().flatten(2).sum(2) / variance + dimension * (2 * math.pi * variance).log()
        )
        return alpha_t, variance, residual, self.log_weights + log_density

    def forward(self, x_t: Field, t: Time, cond: Condition | None = None) -> Field:
        alpha_t, variance, residual, log_joint = self._components(x_t, t)
        gain = (alpha_t * self.variances / variance).expand(len(x_t), -1)
        responsibility = log_joint.softmax(dim=1)
        each = self.means + expand_like(gain, residual) * residual
        return (expand_like(responsibility, residual) * each).sum(1)

    def log_density(self, x_t: Field, t: Time) -> Float[Tensor, " batch"]:
        """log p(x_t) in nats."""
        return self._components(x_t, t)[-1].logsumexp(dim=1)

    def score(self, x_t: Field, t: Time) -> Field:
        """∇log p(x_t)."""
        return self.sde.score(self(x_t, t), x_t, t)

    def marginal(self, shape: Sequence[int], t: Time, *, generator: Generators) -> Field:
        """Draws of x_t."""
        choice = generator.rand((shape[0],), like=self.variances)
        component = torch.searchsorted(self.log_weights.exp().cumsum(0), choice).clamp(max=len(self.variances) - 1)
        noise = generator.randn(shape, like=self.means)
        alpha_t, sigma_t = self.sde.schedule(t)
        scale = (alpha_t**2 * self.variances[component] + sigma_t**2).sqrt()
        return expand_like(alpha_t, noise) * self.means[component] + expand_like(scale, noise) * noise
