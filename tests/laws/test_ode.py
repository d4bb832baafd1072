"""The adaptive solver: each sample meets the tolerance, pays for itself alone, and follows the flow of every schedule."""

import math
from itertools import pairwise

import pytest
import torch

from laws.cases import LAWS, NOISE_ENDS, SCHEDULES, Quadratic, gaussian, keys, mixture, order, rarely, time
from often import crossed
from scorefield.core.denoiser import Denoiser, EpsilonPrediction
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.nn.network import Network
from scorefield.samplers import Adaptive, Heun, LogSNRGrid, Sampler, UniformGrid, sample
from scorefield.samplers.flow import angle, time_at, velocity
from scorefield.samplers.ode import NODES, STAGES, integrate

F64 = torch.float64
every_schedule = pytest.mark.parametrize("name", SCHEDULES)
costly_schedules = pytest.mark.parametrize("name", rarely(SCHEDULES))


def rotate(speed):
    """du/dφ = speed · (−y, x): circles, each sample at its own speed."""

    def slope(rows, phi, state):
        x, y = state[0].unbind(1)
        return (speed[rows, None] * torch.stack((-y, x), dim=1),)

    return slope


START = torch.tensor([[1.0, 0.0]], dtype=F64)


def test_one_step_has_order_five():
    """One step of size h errs by h⁶: halving it takes off a factor 64. Linear, so that no nonlinear condition hides it."""

    def error(n):
        h, k = torch.tensor([1.0 / n], dtype=F64), []
        for weights in STAGES:
            u = START + h * sum((w * each for w, each in zip(weights, k, strict=True)), start=0 * START)
            k.append(rotate(torch.ones(1, dtype=F64))(torch.arange(1), None, (u,))[0])
        return (u - torch.tensor([[math.cos(1 / n), math.sin(1 / n)]], dtype=F64)).norm().item()

    assert order(error, 4) == pytest.approx(6, abs=0.15)
    assert [sum(weights) for weights in STAGES] == pytest.approx(NODES, abs=1e-14)


@pytest.mark.parametrize("way", [(0.0, 2.0), (1.5, -0.5)])
def test_the_error_follows_the_tolerance_and_the_cost_its_fifth_root(way):
    """Each step's error is kept at the tolerance, so that of n steps is some n of them; n grows as tolerance^(−1/5)."""
    speed, (start, end), costs = torch.tensor([5.0], dtype=F64), way, []
    for tolerance in (1e-4, 1e-7, 1e-10):
        solution = integrate(rotate(speed), (START,), start, end, tolerance)
        turned = 5 * (end - start)
        exact = torch.tensor([[math.cos(turned), math.sin(turned)]], dtype=F64)
        assert (solution.state[0] - exact).norm() < 30 * tolerance
        assert solution.calls == solution.evaluations.item()
        costs.append(solution.calls)
    for few, many in pairwise(costs):
        assert many / few == pytest.approx(1000**0.2, rel=0.25)  # 3.98, but for the first steps and the last


def test_each_sample_pays_for_itself_and_drops_out():
    speed, asked = torch.tensor([0.5, 40.0, 5.0], dtype=F64), []
    slope = rotate(speed)

    def watched(rows, phi, state):
        asked.append(rows.tolist())
        assert phi.shape == rows.shape and len(state[0]) == len(rows)
        return slope(rows, phi, state)

    together = integrate(watched, (START.expand(3, 2),), 0.0, 1.0, 1e-6)
    assert together.evaluations[0] < together.evaluations[2] < together.evaluations[1] == together.calls == len(asked)
    assert asked[0] == [0, 1, 2] and asked[-1] == [1]
    for i in range(3):
        assert sum(i in rows for rows in asked) == together.evaluations[i]
        alone = integrate(rotate(speed[i : i + 1]), (START,), 0.0, 1.0, 1e-6)
        assert torch.equal(alone.state[0][0], together.state[0][i]) and alone.calls == together.evaluations[i]


def test_every_part_of_a_state_meets_the_tolerance():
    """A number beside a field of 10 000 constant values is followed as closely as alone."""

    def slope(rows, phi, state):
        return torch.zeros_like(state[0]), (20 * phi).cos()

    still = torch.ones(1, 10_000, dtype=F64)
    solution = integrate(slope, (still, torch.zeros(1, dtype=F64)), 0.0, 1.0, 1e-6)
    assert abs(solution.state[1].item() - math.sin(20) / 20) < 1e-5
    assert torch.equal(solution.state[0], still)


def test_a_way_of_no_length():
    solution = integrate(rotate(torch.ones(1, dtype=F64)), (START,), 0.3, 0.3, 1e-6)
    assert torch.equal(solution.state[0], START)


@pytest.mark.parametrize(
    ("slope", "tolerance", "words"),
    [
        (lambda rows, phi, state: (state[0] / 0,), 1e-3, "not finite where it starts"),
        (lambda rows, phi, state: (state[0] / (0.5 - phi[:, None]) ** 2,), 1e-3, "cannot be followed"),
        (lambda rows, phi, state: (state[0],), 0.0, "positive"),
        (lambda rows, phi, state: (state[0],), math.nan, "positive"),
    ],
)
def test_what_cannot_be_followed_raises(slope, tolerance, words):
    with pytest.raises(InputError, match=words):
        integrate(slope, (START,), 0.0, 1.0, tolerance)


# ---------------------------------------------------------------------------------------------------- in the flow's angle
@every_schedule
def test_time_and_angle_are_inverse(name):
    schedule = SCHEDULES[name]
    for t in (1e-3, 0.2, 0.77, 1.0):
        phi = angle(schedule, time(t))
        assert angle(schedule, time_at(schedule, time(phi))) == pytest.approx(phi, abs=1e-12)
    assert angle(schedule, time(1.0)) <= math.pi / 2


@every_schedule
def test_the_velocity_is_bounded_up_to_both_ends(name):
    """‖v‖ at most (|S − C|/2 min(S, C)) ‖u‖ per mode for centred Gaussian data, up to α = 0 and as σ → 0."""
    oracle = gaussian(SCHEDULES[name])
    data, noise = oracle.spectrum, oracle.noise_spectrum
    bound = ((data - noise).abs() / (2 * torch.minimum(data, noise))).max()
    u = keys(3).randn((3, 1, 8), like=data)
    low, high = angle(oracle.sde.schedule, time(0.0)), angle(oracle.sde.schedule, time(1.0))
    for phi in (max(low, 1e-6), 0.5, high):
        v = velocity(oracle, u, torch.full((3,), phi, dtype=F64), None)
        assert (v.flatten(1).norm(dim=1) <= bound * u.flatten(1).norm(dim=1)).all()


ENDS = {"inside": (0.99, 1e-3), "from noise to data": (1.0, 0.0)}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("ends", "law"), crossed(ENDS, LAWS, ENDS))
@costly_schedules
def test_the_flow_of_every_schedule_from_end_to_end(name, ends, law):
    """Some 15 steps err by the tolerance each, as a mean over 8 pixels; the first-order end at σ = 0 adds a fraction of it."""
    oracle, (t, s) = gaussian(SCHEDULES[name], law, mean=0.3), map(time, ENDS[ends])
    x = oracle.marginal((4, 1, 8), t, generator=keys(4))
    for tolerance in (1e-5, 1e-8):
        found, _ = Adaptive(tolerance)(oracle, x, t, s, None, generator=keys(4), memory=None)
        assert (found - oracle.flow(x, t, s)).abs().max() < 20 * tolerance


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", rarely(["VE", "SubVP", "Cosine", "EDM", "Rectified"]))
def test_the_cost_is_that_of_the_law_and_not_of_the_schedule(name):
    """Between the same noise ratios, u(φ) is one and the same curve."""
    costs, results = [], []
    for schedule in (SCHEDULES[name], Quadratic()):
        oracle = mixture(schedule)
        t, s = (schedule.time(time(value)) for value in (-6.0, 6.0))
        u = keys(4).randn((4, 1, 3), like=oracle.means)
        calls = []
        hook = oracle.register_forward_hook(lambda *_: calls.append(1))  # noqa: B023 - removed below
        radius = torch.hypot(*schedule(t))
        x_s, _ = Adaptive(1e-6)(oracle, radius * u, t, s, None, generator=keys(4), memory=None)
        hook.remove()
        costs.append(len(calls))
        results.append(x_s / torch.hypot(*schedule(s)))
    assert costs[0] == costs[1]
    torch.testing.assert_close(*results, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("unchecked")
def test_where_the_denoiser_is_not_linear():
    """Against Heun on 1600 steps, whose own error is 4e-6."""
    oracle, t, s = mixture(SCHEDULES["VP"]), time(0.99), time(1e-2)
    x = oracle.marginal((4, 1, 3), t, generator=keys(4))
    fine = sample(oracle, x, LogSNRGrid(1e-2, 0.99)(SCHEDULES["VP"], 1601), Heun(), denoise=False, generator=keys(4))
    found, _ = Adaptive(1e-7)(oracle, x, t, s, None, generator=keys(4), memory=None)
    assert (found - fine).abs().max() < 1e-5


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["EDM", "Rectified"])
def test_as_a_sampler_one_step_goes_all_the_way(name):
    oracle = gaussian(SCHEDULES[name], mean=0.3)
    sampler = Sampler(1, Adaptive(1e-7), UniformGrid(1e-3), denoise=False)
    x = sampler(oracle, (3, 1, 8), generator=keys(3), like=oracle.spectrum)
    t, s = time(1.0), time(1e-3)
    start = oracle.sde.prior((3, 1, 8), t, generator=keys(3), like=oracle.spectrum)
    torch.testing.assert_close(x, oracle.flow(start, t, s), rtol=0, atol=2e-6)
    stops = Sampler(4, Adaptive(1e-7), UniformGrid(1e-3), denoise=False)  # and the same with stops on the way
    torch.testing.assert_close(stops(oracle, (3, 1, 8), generator=keys(3), like=oracle.spectrum), x, rtol=0, atol=4e-6)
    alone = sampler(oracle, (1, 1, 8), generator=Generators([(0, 2)]), like=oracle.spectrum)
    torch.testing.assert_close(alone[0], x[2], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", rarely(NOISE_ENDS))
def test_float32_is_enough_for_its_tolerances(name):
    oracle, t, s = gaussian(SCHEDULES[name], mean=0.3), time(1.0), time(1e-3)
    x = oracle.marginal((3, 1, 8), t, generator=keys(3))
    exact = oracle.flow(x, t, s)
    found, _ = Adaptive(1e-5)(oracle.float(), x.float(), t, s, None, generator=keys(3), memory=None)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 20 * 1e-5


class Zero(Network):
    def forward(self, x, label, cond=None):
        return torch.zeros_like(x)


def test_a_preconditioner_without_a_value_at_pure_noise_raises():
    denoiser = Denoiser(Zero(), SDE(SCHEDULES["Rectified"]), EpsilonPrediction())
    x = keys(2).randn((2, 1, 8), like=torch.empty(0, dtype=F64))
    with pytest.raises(InputError, match="α = 0"):
        Adaptive()(denoiser, x, time(1.0), time(0.1), None, generator=keys(2), memory=None)
