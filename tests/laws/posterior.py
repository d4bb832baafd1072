"""p(x | y) of Gaussian data by dense matrices, and the exact law of what a sampler draws with a guided denoiser."""

from dataclasses import dataclass

import torch

from laws.cases import keys, time
from scorefield.core.oracle import Gaussian
from scorefield.foundation.random import Generators
from scorefield.guidance import Guided, Measurement
from scorefield.operators import Blur, Coarsen, Compose, CosineCoarsen, Grey, Hole, Identity, LinearOperator, Mask
from scorefield.samplers import sample

F64 = torch.float64


def operators(grid) -> dict[str, LinearOperator]:
    """One of each kind, for fields of three channels on a grid of even sizes."""
    stripes = torch.ones(grid, dtype=F64)
    stripes[..., 1::3] = 0
    return {
        "Identity": Identity(),
        "Mask": Mask(stripes),
        "Hole": Hole((0,) * len(grid), (2,) * len(grid)),
        "Grey": Grey(),
        "Coarsen": Coarsen(2),
        "CosineCoarsen": CosineCoarsen(grid, tuple(n // 2 for n in grid)),
        "Blur": Blur(0.7),
        "Blur(zero)": Blur(0.7, "zero"),
        "Compose": Compose((Grey(), Coarsen(2))),
    }


def matrix(apply, shape) -> torch.Tensor:
    """The matrix of a linear map of fields (channels, *grid)."""
    size = torch.Size(shape).numel()
    return apply(torch.eye(size, dtype=F64).reshape(size, *shape)).flatten(1).T


@dataclass
class Exact:
    """The joint law of x, x_t and y = A x + noise n, as matrices.

    Args:
        prior: the oracle of x.
        operator: A.
        shape: (channels, *grid).
        noise: of the measurement.
    """

    prior: Gaussian
    operator: LinearOperator
    shape: tuple[int, ...]
    noise: float

    def __post_init__(self):
        self.mean = self.prior.mean.expand(self.shape).flatten()
        self.data = matrix(lambda x: self.prior._filter(x, self.prior.spectrum), self.shape)
        self.ambient = matrix(self.prior.sde.noise.covariance, self.shape)
        self.a = matrix(self.operator, self.shape)

    def measure(self, seed=7) -> Measurement:
        """y of one draw of x."""
        x = self.prior.marginal((1, *self.shape), time(0.0), generator=keys(1, seed))
        y = self.operator(x)
        return Measurement(self.operator, y + self.noise * keys(1, seed + 1).randn(y.shape, like=y), self.noise)

    def denoise(self, x_t, t, y) -> torch.Tensor:
        """E[x | x_t, y]: both together are one measurement of x."""
        alpha, sigma = self.prior.sde.schedule(t)
        rows = torch.cat((alpha * torch.eye(len(self.mean), dtype=F64), self.a))
        seen = torch.cat((x_t.flatten(1), y.flatten(1).expand(len(x_t), -1)), dim=1)
        white = self.noise**2 * torch.eye(len(self.a), dtype=F64)
        error = torch.block_diag(sigma**2 * self.ambient, white)
        mean, _ = self._condition(rows, error, seen)
        return mean.reshape(x_t.shape)

    def posterior(self, y) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and covariance of p(x | y)."""
        mean, covariance = self._condition(self.a, self.noise**2 * torch.eye(len(self.a), dtype=F64), y.flatten(1))
        return mean[0], covariance

    def _condition(self, rows, error, seen):
        innovation = torch.linalg.pinv(rows @ self.data @ rows.T + error, hermitian=True)
        kalman = self.data @ rows.T @ innovation
        mean = self.mean + (seen - self.mean @ rows.T) @ kalman.T
        return mean, self.data - kalman @ rows @ self.data


class Impulses(Generators):
    """Row 0 draws zeros; of the m-th batch that is drawn, rows 1 + mD to (m+1)D are the unit vectors of its D elements."""

    def __init__(self):
        self.drawn = 0

    def randn(self, shape, *, like):
        size = torch.Size(shape[1:]).numel()
        z = torch.zeros(shape[0], size, dtype=like.dtype)
        start = 1 + self.drawn * size
        z[start : start + size] = torch.eye(size, dtype=like.dtype)
        self.drawn += 1
        return z.reshape(tuple(shape))


def affine_law(guided: Guided, times, step, shape, draws: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and covariance of what a sampler draws, when it is affine in its noise: no Monte Carlo.

    Args:
        guided: the denoiser.
        times: the levels.
        step: the predictor.
        shape: of a field.
        draws: fields of noise that it takes in all, the start included.
    """
    generator, rows = Impulses(), 1 + draws * torch.Size(shape).numel()
    like = torch.empty(0, dtype=F64)
    x_1 = guided.sde.prior((rows, *shape), times[0], generator=generator, like=like)
    x = sample(guided, x_1, times, step, generator=generator).flatten(1)
    assert generator.drawn <= draws
    factor = x[1:] - x[0]
    return x[0], factor.T @ factor
