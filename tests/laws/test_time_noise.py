"""Noise along time: the covariance it says, read off impulses; an AR(1) process drawn jointly, and member by member."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from laws.cases import keys
from laws.test_noise import covariance_of_draws
from scorefield.climate.persistence import persistent
from scorefield.core.noise import AlongTime, GaussianField, KernelField, Matern, Neumann, Noise, White, autoregressive
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Tensors
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.functions import Windows
from scorefield.samplers import DPMSolverPP2M, Heun, Sampler, Step
from scorefield.samplers.joint import JointTimes

F64 = torch.float64
SPACE = GaussianField(Matern(0.3, 1.0, nugget=1e-2), Neumann())
SPACES = {"white": White(), "field": SPACE, "points": KernelField([[0.0], [0.3], [1.0]], Matern(0.5))}
TIMES = {"AR(1)": autoregressive(0.7), "Matern": Matern(2.0, 1.5)}


def matrix_of(apply, shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    return apply(torch.eye(size, dtype=F64).reshape(size, *shape)).reshape(size, size).T.contiguous()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("channels", [False, True])
def test_its_covariance_is_the_product_of_time_and_space(space: str, time: str, channels: bool) -> None:
    n, grid = 4, (3,)
    noise = AlongTime(SPACES[space], TIMES[time], times=n if channels else 0)
    shape = (n, *grid) if channels else (1, n, *grid)
    lags = (torch.arange(n)[:, None] - torch.arange(n)).abs().double()
    R = 0.7**lags if time == "AR(1)" else TIMES[time].kernel(lags, 1)
    S = matrix_of(SPACES[space].covariance, (1, *grid))
    C = torch.kron(R, S)
    torch.testing.assert_close(matrix_of(noise.covariance, shape), C)
    torch.testing.assert_close(matrix_of(noise.precision, shape), torch.linalg.inv(C))
    x = torch.zeros(2, *shape, dtype=F64)
    torch.testing.assert_close(noise.log_det(x), torch.linalg.slogdet(C)[1].expand(2))
    if not channels:
        torch.testing.assert_close(covariance_of_draws(noise, (n, *grid)), C)


def test_several_variables_follow_one_another_at_each_time() -> None:
    """As predictors of several times do: all variables of the first time, then of the next; variables are independent."""
    noise = AlongTime(White(), autoregressive(0.5), times=3)
    C = matrix_of(noise.covariance, (6, 1))
    torch.testing.assert_close(
        C, torch.kron(0.5 ** (torch.arange(3)[:, None] - torch.arange(3)).abs().double(), torch.eye(2))
    )
    with pytest.raises(InputError, match="3 times as channels"):
        noise.covariance(torch.zeros(1, 4, 2))
    with pytest.raises(InputError, match="first axis"):
        AlongTime(White(), autoregressive(0.5)).covariance(torch.zeros(1, 4, 2))
    with pytest.raises(InputError, match="above 0 and below 1"):
        autoregressive(1.0)


class Exact(nn.Module):
    """x̂ = α S (α² S + σ² C)⁻¹ x_t of data of the covariance S under noise of the covariance C."""

    def __init__(self, sde: SDE, data: Noise, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.sde, self.S, self.C = sde, matrix_of(data.covariance, shape), matrix_of(sde.noise.covariance, shape)

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        alpha, sigma = self.sde.schedule(t)
        gain = alpha * self.S @ torch.linalg.inv(alpha**2 * self.S + sigma**2 * self.C)
        return (x_t.flatten(1) @ gain.T).reshape(x_t.shape)


def lag_one(x: Tensor) -> float:
    """The correlation of a time with the next, (batch, times, space)."""
    first, second = x[:, :-1].flatten(), x[:, 1:].flatten()
    return float((first * second).mean() / (first.square().mean() * second.square().mean()).sqrt())


@pytest.mark.parametrize(
    "noise", [White(), AlongTime(SPACE, autoregressive(0.5), times=5)], ids=["white", "along time"]
)
@pytest.mark.parametrize("step", [Heun(), DPMSolverPP2M(eta=1.0)], ids=["ODE", "SDE"])
def test_a_process_in_time_and_space_is_drawn_jointly(noise: Noise, step: Step) -> None:
    shape, data = (5, 8), AlongTime(SPACE, autoregressive(0.8), times=5)
    denoiser = Exact(SDE(EDM(0.01, 40.0), noise), data, shape)
    x = Sampler(24, step)(denoiser, (3000, *shape), generator=keys(3000), like=torch.empty(0, dtype=F64))
    assert lag_one(x) == pytest.approx(0.8, abs=0.03)
    C, found = matrix_of(data.covariance, shape), torch.cov(x.flatten(1).T)
    assert (found - C).norm() < 0.1 * C.norm()


@pytest.mark.parametrize(
    ("window", "noise", "step"),
    [
        (3, AlongTime(SPACE, autoregressive(0.7), times=3), Heun()),
        (5, AlongTime(SPACE, autoregressive(0.7), times=5), DPMSolverPP2M(eta=1.0)),
        (7, SPACE, Heun()),
    ],
    ids=["3 along time", "5 along time", "7 independent"],
)
def test_a_long_series_is_drawn_by_windows(window: int, noise: Noise, step: Step) -> None:
    """An AR(1) × field process of 40 times, two variables: its lag-1 correlation within 0.03, and its covariance in space."""
    shape, times = (2 * window, 6), 40
    data = AlongTime(SPACE, autoregressive(0.8), times=window)
    joint = JointTimes(Exact(SDE(EDM(0.01, 40.0), noise), data, shape), window, times, chunk=5000)
    x = Sampler(24, step)(joint, (250, 2 * times, 6), generator=keys(250), like=torch.empty(0, dtype=F64))
    x = x.reshape(250, times, 2, 6)
    assert lag_one(x[:, :, 0]) == pytest.approx(0.8, abs=0.03) and lag_one(x[:, :, 1]) == pytest.approx(0.8, abs=0.03)
    space = matrix_of(SPACE.covariance, (1, 6))
    found = torch.cov(x[:, ::4].flatten(0, 2).T)
    assert (found - space).norm() < 0.07 * space.norm()
    assert float((x[:, :, 0] * x[:, :, 1]).mean().abs()) < 0.05


def test_series_and_windows_are_one_another() -> None:
    joint = JointTimes(Exact(SDE(EDM()), White(), (6, 2)), 3, 5)
    x = torch.arange(2 * 10 * 2.0).reshape(2, 10, 2)
    windows = joint.windows(x)
    torch.testing.assert_close(windows, torch.stack([x[b, 2 * s : 2 * s + 6] for b in range(2) for s in range(3)]))
    torch.testing.assert_close(joint.series(windows), x)
    one = JointTimes(joint.denoiser, 3, 3)
    torch.testing.assert_close(one.series(one.windows(x[:, :6])), x[:, :6])
    with pytest.raises(InputError, match="Series of 2 times have no window of 3"):
        JointTimes(joint.denoiser, 3, 2)


@pytest.mark.parametrize(
    "noise", [AlongTime(SPACES["points"], TIMES["AR(1)"]), SPACES["points"]], ids=["along time", "points"]
)
def test_noise_is_not_rounded_where_the_network_is(noise: Noise) -> None:
    shape, like = ((8, 1, 4, 3) if isinstance(noise, AlongTime) else (8, 1, 3)), torch.empty(0)
    plain = noise.sample(shape, generator=keys(8), like=like)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = noise.sample(shape, generator=keys(8), like=like)
        mixed = persistent([((0,), 3)], 0, PHI).randn((1, 9), like=like)
    assert torch.equal(plain, rounded) and torch.equal(mixed, persistent([((0,), 3)], 0, PHI).randn((1, 9), like=like))


def test_a_window_is_drawn_together() -> None:
    x = torch.randn(4, 6, 8, 8)
    fields = Windows(Tensors(x, valid=1), radius=1, together=True).load("train")
    batch = fields.gather(torch.tensor([1, 5]))
    assert batch.x.shape == batch.cond["field"].shape == (2, 3, 8, 8)
    torch.testing.assert_close(batch.x[0], x[0, 1:4])


# ------------------------------------------------------------------------------------------------- members that persist
PHI = 0.8


def noise_of(days: list[int], seed: int = 0, member: int = 0) -> Tensor:
    rows = [((member,), day) for day in days]
    return persistent(rows, seed, PHI).randn((len(days), 1, 4000), like=torch.empty(0, dtype=F64))[:, 0]


def test_the_noise_of_a_member_is_an_autoregressive_process() -> None:
    x = noise_of([*range(100, 130)])
    assert float(x.square().mean()) == pytest.approx(1, abs=0.03)
    for lag in (1, 2, 5):
        assert float((x[lag:] * x[:-lag]).mean()) == pytest.approx(PHI**lag, abs=0.03)
    assert abs(float((x * noise_of([*range(100, 130)], member=1)).mean())) < 0.05
    uniform = persistent([((0,), 1)], 0, PHI).rand((1, 4000), like=torch.empty(0, dtype=F64))
    assert (
        float(uniform.min()) >= 0 and float(uniform.max()) < 1 and float(uniform.mean()) == pytest.approx(0.5, abs=0.03)
    )


def test_it_does_not_matter_which_times_are_drawn_together() -> None:
    whole, parts = noise_of([*range(10)]), [noise_of([*range(4)]), noise_of([9, 4, 5]), noise_of([6, 7, 8])]
    torch.testing.assert_close(whole, torch.cat((parts[0], parts[1][1:], parts[2], parts[1][:1])))
    again = persistent([((0,), 3), ((1,), 3), ((0,), 3)], 0, PHI)
    first, second = (again.randn((3, 1, 4000), like=whole) for _ in range(2))  # of two steps of a sampler
    torch.testing.assert_close(first[0, 0], whole[3])
    assert torch.equal(first[0], first[2]) and abs(float((first[0] * second[0]).mean())) < 0.2


def test_mixed_streams_need_a_weight_for_each_key() -> None:
    with pytest.raises(ValueError, match="2 keys"):
        Generators([(1,), (2,)], torch.ones(1, 3))
    with pytest.raises(ValueError, match="one key per sample"):
        Generators([(1,), (2,)], torch.ones(1, 2)).randn((2, 3), like=torch.empty(0))
