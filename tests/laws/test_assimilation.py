"""Sparse observations along a trajectory: draws of all its fields together are Kalman's smoother (Rauch et al. 1965)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws.posterior import affine_law
from laws.test_time_noise import SPACE, Exact, matrix_of
from scorefield.core.noise import AlongTime, Noise, White, autoregressive
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.guidance import Guided, Measurement, MomentMatching
from scorefield.operators import Mask
from scorefield.samplers import Heun, LogSNRGrid
from scorefield.samplers.joint import JointTimes

F64 = torch.float64
PHI, NOISE, TIMES, POINTS = 0.8, 0.2, 4, 4
TIMES_COMPOSED = 8


def smoother(y: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Means (times, points) and covariances of u_t = φ u_{t−1} + e, e ~ N(0, (1 − φ²) S), by filter and smoother."""
    S, filtered, predicted = matrix_of(SPACE.covariance, (1, POINTS)), [], []
    mean, covariance = torch.zeros(POINTS, dtype=F64), S
    for t in range(len(y)):
        if t:
            mean, covariance = PHI * mean, PHI**2 * covariance + (1 - PHI**2) * S
        predicted.append((mean, covariance))
        H = torch.eye(POINTS, dtype=F64)[known[t]]
        gain = covariance @ H.T @ torch.linalg.inv(H @ covariance @ H.T + NOISE**2 * torch.eye(len(H), dtype=F64))
        mean, covariance = mean + gain @ (y[t][known[t]] - H @ mean), covariance - gain @ H @ covariance
        filtered.append((mean, covariance))
    found = [filtered[-1]]
    for (mean, covariance), (ahead, spread) in zip(filtered[-2::-1], predicted[:0:-1], strict=True):
        gain = PHI * covariance @ torch.linalg.inv(spread)
        later, wide = found[-1]
        found.append((mean + gain @ (later - ahead), covariance + gain @ (wide - spread) @ gain.T))
    return torch.stack([mean for mean, _ in found[::-1]]), torch.stack([wide for _, wide in found[::-1]])


def composed(times: int, window: int) -> JointTimes:
    """A series of the process by the exact denoiser of its windows, under noise as correlated in time as it is."""
    noise, data = (AlongTime(space, autoregressive(PHI), window) for space in (White(), SPACE))
    return JointTimes(Exact(SDE(EDM(0.01, 300.0), noise), data, (window, POINTS)), window, times)


@pytest.mark.parametrize("window", [3, 5])
def test_windows_composed_and_given_sparse_observations_are_the_smoother_of_the_whole(window: int) -> None:
    """One joint posterior of all times, of a denoiser that knows windows alone."""
    y, known = torch.zeros(TIMES_COMPOSED, POINTS, dtype=F64), torch.zeros(TIMES_COMPOSED, POINTS).bool()
    for t, point, value in ((0, 0, 1.0), (3, 1, -0.5), (3, 3, 2.0), (7, 2, 0.7)):
        y[t, point], known[t, point] = value, True
    prior, shape = composed(TIMES_COMPOSED, window), (TIMES_COMPOSED, POINTS)
    measured = Measurement(Mask(known.double()), y.where(known, torch.nan)[None], NOISE)
    guided = Guided(prior, measured, MomentMatching(iterations=10, tolerance=1e-10))
    mean, covariance = affine_law(guided, LogSNRGrid(0.0)(prior.sde.schedule, 60), Heun(), shape, 1)
    expected, wide = smoother(y, known)
    torch.testing.assert_close(mean.reshape(shape), expected, rtol=0, atol=0.02)
    blocks = covariance.reshape(TIMES_COMPOSED, POINTS, TIMES_COMPOSED, POINTS)
    found = torch.stack([blocks[t, :, t] for t in range(TIMES_COMPOSED)])
    assert float((found - wide).norm() / wide.norm()) < 0.03


@pytest.mark.parametrize("noise", [White(), AlongTime(SPACE, autoregressive(0.5), TIMES)], ids=["white", "along time"])
def test_draws_given_sparse_observations_are_the_smoothers(noise: Noise) -> None:
    shape, data = (TIMES, POINTS), AlongTime(SPACE, autoregressive(PHI), TIMES)
    prior = Exact(SDE(EDM(0.01, 300.0), noise), data, shape)
    known = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]]).bool()
    y = torch.where(known, torch.tensor([1.0, -0.5, 2.0, 0.7], dtype=F64), torch.nan)
    measured = Measurement(Mask(known.double()), y[None], NOISE)
    guided = Guided(prior, measured, MomentMatching(iterations=10, tolerance=1e-10))
    mean, covariance = affine_law(guided, LogSNRGrid(0.0)(prior.sde.schedule, 60), Heun(), shape, 1)
    expected, wide = smoother(y, known)
    torch.testing.assert_close(mean.reshape(shape), expected, rtol=0, atol=0.02)
    blocks = covariance.reshape(TIMES, POINTS, TIMES, POINTS)
    found = torch.stack([blocks[t, :, t] for t in range(TIMES)])
    assert float((found - wide).norm() / wide.norm()) < 0.03
