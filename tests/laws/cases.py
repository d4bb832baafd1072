"""What the laws are stated for. A new schedule or step is added to its list here, and every law then holds it to account."""

import math
from dataclasses import dataclass
from functools import partial

import torch

import often
from scorefield.core.noise import GaussianField, Matern, Noise, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.schedule import EDM, VE, VP, Cosine, Numerical, Rectified, SubVP, ddpm, geometric
from scorefield.core.sde import SDE
from scorefield.foundation.random import Generators
from scorefield.samplers import (
    DDIM,
    Ancestral,
    DPMSolverPP2M,
    EulerMaruyama,
    Heun,
    ReverseDiffusion,
    StochasticHeun,
    UniPC,
)


class Quadratic(Numerical):
    """α = (1 − t)², σ = t (2 − t): a schedule as a user writes one."""

    def alpha(self, t):
        return (1 - t) ** 2

    def sigma(self, t):
        return t * (2 - t)


SCHEDULES = {
    "VE": VE(),
    "VP": VP(),
    "SubVP": SubVP(),
    "Cosine": Cosine(),
    "Nichol": Cosine(0.008),
    "EDM": EDM(),
    "Rectified": Rectified(),
    "Quadratic": Quadratic(),
    "NCSN": geometric(0.01, 50.0, 232),
    "DDPM": ddpm(),
}
OFTEN = ("VP", "EDM", "Rectified", "NCSN")  # one of each kind, for laws that are costly
rarely = partial(often.rarely, often=OFTEN)
SIGNAL_ENDS = ("Cosine", "Nichol", "Rectified", "Quadratic")  # α(1) = 0
NOISE_ENDS = ("VP", "SubVP", *SIGNAL_ENDS)  # σ(0) = 0
TABLES = ("NCSN", "DDPM")

DETERMINISTIC = {  # the step and its order
    "DDIM": (DDIM(), 1),
    "EulerFlow": (EulerMaruyama(probability_flow=True), 1),
    "ReverseDiffusionFlow": (ReverseDiffusion(probability_flow=True), 1),
    "Heun": (Heun(), 2),
    "StochasticHeun(0)": (StochasticHeun(churn=0.0), 2),
    "DPMSolverPP2M": (DPMSolverPP2M(), 2),
    "UniPC": (UniPC(), 3),
    "UniPC(1)": (UniPC(1), 2),
    "UniPC(3)": (UniPC(3), 3),
    "UniPC(2, False)": (UniPC(2, correct=False), 2),
}
STOCHASTIC = {  # steps of weak order one
    "EulerMaruyama": EulerMaruyama(),
    "ReverseDiffusion": ReverseDiffusion(),
    "Ancestral": Ancestral(),
    "Ancestral(upper)": Ancestral(upper=True),
    "DDIM(1)": DDIM(eta=1.0),
    "DDIM(0.5)": DDIM(eta=0.5),
}
NEEDS_SIGNAL = ("EulerFlow", "ReverseDiffusionFlow", "EulerMaruyama", "ReverseDiffusion")  # undefined where α_t = 0


def time(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def keys(n: int, seed: int = 0) -> Generators:
    return Generators((seed, index) for index in range(n))


class Draws(Generators):
    """Hands out given draws, one batch per call: what a step does with its noise can then be read off exactly."""

    def __init__(self, *draws):
        self._draws = list(draws)

    def randn(self, shape, *, like):
        draw = self._draws.pop(0)
        assert draw.shape == tuple(shape)
        return draw

    rand = randn


def spectrum(grid: tuple[int, ...], smoothness: float = 1.0, scale: float = 1.0) -> torch.Tensor:
    """Eigenvalues scale (1 + |k|²)^-smoothness per mode k, in the order of fftn, (1, *grid)."""
    modes = torch.meshgrid(*(torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in grid), indexing="ij")
    return scale * (1 + sum(mode**2 for mode in modes))[None] ** -smoothness


@dataclass(frozen=True)
class Periodic(Noise):
    """A coloured noise on a periodic grid of any rank, stationary, with the eigenvalues of `spectrum`."""

    smoothness: float = 0.5

    def _apply(self, x, power):
        axes = tuple(range(2, x.ndim))
        gain = spectrum(tuple(x.shape[2:]), self.smoothness) ** power
        return torch.fft.ifftn(torch.fft.fftn(x, dim=axes) * gain.to(x), dim=axes).real

    def sample(self, shape, *, generator, like):
        return self._apply(generator.randn(shape, like=like), 0.5)

    def covariance(self, x):
        return self._apply(x, 1.0)

    def precision(self, x):
        return self._apply(x, -1.0)

    def log_det(self, x):
        return x.shape[1] * spectrum(tuple(x.shape[2:]), self.smoothness).log().sum().to(x).expand(len(x))


LAWS = {  # (data, noise): white or coloured
    "white": (0.0, White()),
    "coloured data": (1.0, White()),
    "coloured both": (1.0, Periodic()),
    "field": (1.0, GaussianField(Matern(0.3, 0.5))),
}


def gaussian(schedule, law="coloured both", grid=(8,), mean=0.0) -> Gaussian:
    smoothness, noise = LAWS[law]
    return Gaussian(SDE(schedule, noise), spectrum(grid, smoothness, scale=0.5), mean)


def mixture(schedule) -> Mixture:
    means = torch.tensor([[-1.0, 0.5, 0.0], [1.0, 0.2, -0.3]], dtype=torch.float64)[:, None]
    variances, weights = (torch.tensor(values, dtype=torch.float64) for values in ([0.05, 0.2], [0.3, 0.7]))
    return Mixture(SDE(schedule), means, variances, weights)


def order(error_at, coarse: int) -> float:
    """The observed order: log₂ of how much halving the steps shrinks the error."""
    return math.log2(error_at(coarse) / error_at(2 * coarse))
