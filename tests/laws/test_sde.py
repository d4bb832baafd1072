"""The law x_t = α x + σ ξ: its marginals, its transitions and the four faces of a denoiser."""

import pytest
import torch

from laws.cases import SCHEDULES, Draws, Periodic, keys, time
from scorefield.core.sde import SDE

F64 = torch.float64
TIMES = (1e-5, 0.01, 0.3, 0.7, 0.999)

every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def randn(*shape, seed=0):
    return torch.randn(*shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@every_schedule
@pytest.mark.parametrize("grid", [(7,), (3, 4), (2, 3, 5)], ids=["1d", "2d", "3d"])
def test_perturb_is_the_signal_plus_the_noise_it_returns(name, grid):
    sde, x, z = SDE(SCHEDULES[name], Periodic()), randn(5, 2, *grid), randn(5, 2, *grid, seed=1)
    t = torch.tensor(TIMES, dtype=F64)
    x_t, noise = sde.perturb(x, t, generator=Draws(z))
    assert torch.equal(noise, Periodic().sample(z.shape, generator=Draws(z), like=x))  # ξ ~ N(0, C)
    for i in range(5):
        alpha, sigma = sde.schedule(t[i])
        assert torch.equal(x_t[i], alpha * x[i] + sigma * noise[i])
        alone, _ = sde.perturb(x[i : i + 1], t[i], generator=Draws(z[i : i + 1]))  # one time for all, no batch axis
        torch.testing.assert_close(alone[0], x_t[i], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "t", [torch.tensor(0.9, dtype=F64), torch.linspace(0.5, 1.0, 4, dtype=F64)], ids=["one", "each"]
)
def test_prior_is_pure_noise(t):
    sde, z = SDE(SCHEDULES["SubVP"], Periodic()), randn(4, 1, 6)
    x, noise = sde.prior(z.shape, t, generator=Draws(z), like=z), Periodic().sample(z.shape, generator=Draws(z), like=z)
    sigma = sde.schedule.sigma(t).reshape(-1, 1, 1)
    torch.testing.assert_close(x, sigma * noise, rtol=1e-15, atol=0)


@every_schedule
def test_transition_carries_the_marginal(name):
    """α_t = a α_s and σ_t² = a² σ_s² + q², the formula that cancels where q is small against σ."""
    sde = SDE(SCHEDULES[name])
    s, t = (torch.tensor(times, dtype=F64) for times in ([1e-5, 1e-3, 0.1, 0.3, 0.8], [0.5, 0.01, 0.2, 0.9, 0.999]))
    (alpha_s, sigma_s), (alpha_t, sigma_t), (a, q) = sde.schedule(s), sde.schedule(t), sde.transition(s, t)
    torch.testing.assert_close(a * alpha_s, alpha_t, rtol=1e-13, atol=0)
    torch.testing.assert_close(q**2, sigma_t**2 - (a * sigma_s) ** 2, rtol=1e-11, atol=0)


@every_schedule
def test_transitions_compose(name):
    """s → u → t is s → t: a = a₁ a₂ and q² = a₂² q₁² + q₂²."""
    sde = SDE(SCHEDULES[name])
    s, u, t = (
        torch.tensor(times, dtype=F64) for times in ([0.0, 0.0, 0.2, 0.5], [0.3, 1e-4, 0.5, 0.9], [1.0, 2e-4, 0.6, 1.0])
    )
    (a, q), (a_1, q_1), (a_2, q_2) = sde.transition(s, t), sde.transition(s, u), sde.transition(u, t)
    torch.testing.assert_close(a_1 * a_2, a, rtol=1e-12, atol=0)
    torch.testing.assert_close((a_2 * q_1) ** 2 + q_2**2, q**2, rtol=1e-11, atol=0)


@every_schedule
def test_transition_between_near_times_is_the_sde(name):
    """a → 1 + f h and q² → g² h, without cancellation at h = 1e-9: the remainder is of order h f, h g′."""
    sde, h = SDE(SCHEDULES[name]), 1e-9
    s = torch.tensor([0.0503, 0.5003, 0.9003], dtype=F64)
    a, q = sde.transition(s, s + h)
    drift, diffusion = sde.schedule.drift(s), sde.diffusion(s)
    # 1 + f h is rounded at 1e-16, a ten-millionth of f h; λ, at 1e-15, moves q² by as much over λ′ h
    torch.testing.assert_close((a - 1) / h, drift, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q**2 / h, diffusion**2, rtol=1e-5, atol=0)


@every_schedule
def test_transition_is_finite_at_both_ends(name):
    sde = SDE(SCHEDULES[name])
    a, q = sde.transition(time(0.0), time(1.0))
    alpha, sigma = sde.schedule(torch.tensor([0.0, 1.0], dtype=F64))
    assert a == alpha[1] / alpha[0]
    torch.testing.assert_close(q**2, sigma[1] ** 2 - (a * sigma[0]) ** 2, rtol=1e-12, atol=0)


@every_schedule
def test_standing_still_is_no_nan(name):
    """Rounding may put s an ulp above t where a step returns to its own level."""
    t = time(0.3)
    a, q = SDE(SCHEDULES[name]).transition(torch.nextafter(t, time(1.0)), t)
    assert abs(a - 1) < 1e-14 and q == 0


@every_schedule
def test_the_faces_of_a_denoiser_round_trip(name):
    sde, t = SDE(SCHEDULES[name]), torch.tensor(TIMES, dtype=F64)
    x = randn(5, 2, 3, 4)
    x_t, _ = sde.perturb(x, t, generator=keys(5))
    score, epsilon, velocity = (face(x, x_t, t) for face in (sde.score, sde.epsilon, sde.velocity))
    sigma = sde.schedule.sigma(t).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(epsilon, -sigma * score, rtol=1e-12, atol=0)
    # x̂ is (x_t − σ ε)/α: the rounding of x_t is divided by α >= 1e-6 (Quadratic at t = 0.999)
    for back in (
        sde.denoised_from_score(score, x_t, t),
        sde.denoised_from_epsilon(epsilon, x_t, t),
        sde.denoised_from_velocity(velocity, x_t, t),
    ):
        torch.testing.assert_close(back, x, rtol=0, atol=1e-8)


@every_schedule
def test_the_faces_of_the_truth(name):
    """With x̂ = x, ε is the noise itself, the score −ξ/σ and v the velocity (α ξ − σ x)/√(α² + σ²)."""
    sde, t, x = SDE(SCHEDULES[name]), torch.tensor(TIMES[1:], dtype=F64), randn(4, 1, 5)
    x_t, noise = sde.perturb(x, t, generator=keys(4))
    alpha, sigma = (scale.reshape(-1, 1, 1) for scale in sde.schedule(t))
    error = 1e-14 / sigma.min()  # x_t − α x is rounded at 1e-16 of x and divided by σ
    torch.testing.assert_close(sde.epsilon(x, x_t, t), noise, rtol=0, atol=error)
    torch.testing.assert_close(sde.score(x, x_t, t) * sigma, -noise, rtol=0, atol=error)
    velocity = (alpha * noise - sigma * x) / (alpha**2 + sigma**2).sqrt()
    torch.testing.assert_close(sde.velocity(x, x_t, t), velocity, rtol=0, atol=error)
