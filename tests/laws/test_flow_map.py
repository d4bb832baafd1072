"""The two-time denoiser: exact on Gaussians, a plain denoiser where it ends where it starts, and what its loss is least for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws.cases import SCHEDULES, Draws, keys, rarely, spectrum, time
from scorefield.core.denoiser import UNTIL, Condition, Denoiser, EDMPreconditioner
from scorefield.core.flow_map import jumped, mean_denoised, share
from scorefield.core.noise import GaussianField, Matern, Noise, White
from scorefield.core.oracle import Gaussian, Mixture
from scorefield.core.schedule import EDM, VP, Rectified
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.foundation.random import Generators
from scorefield.guidance import Guided, Measurement, MomentMatching
from scorefield.losses import EDMWeight, LogNormal, SelfDistillation, UniformTime
from scorefield.nn import FNO, UNO, NCSNpp, UNet
from scorefield.nn.embedding import JumpEmbedding
from scorefield.nn.network import Network
from scorefield.operators import Blur
from scorefield.samplers import DDIM, EDMGrid, Jump, Sampler, Slicewise
from scorefield.samplers.flow import follow
from scorefield.samplers.joint import JointTimes

GRID = (16,)
FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-3))
NOISES = {"white": White(), "field": FIELD}


def gaussian(schedule: str, noise: Noise) -> Gaussian:
    return Gaussian(SDE(SCHEDULES[schedule], noise), spectrum(GRID, 2.0, 0.5), mean=0.3)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("schedule", rarely(SCHEDULES))
def test_a_jump_is_the_flow_and_jumps_compose(schedule: str, noise: Noise) -> None:
    oracle, x = gaussian(schedule, noise), normal(3, 1, *GRID)
    t, r, s, end = (time(value) for value in (0.9, 0.6, 0.2, 0.0))
    for start, stop in ((t, s), (t, end), (r, s)):
        found = jumped(oracle.sde, mean_denoised(oracle, x, start, stop), x, start, stop)
        torch.testing.assert_close(found, oracle.flow(x, start, stop), rtol=1e-6, atol=1e-8)
    x_r = oracle.flow(x, t, r)
    for stop in (r, s, end):
        w = share(oracle.sde.schedule, t, r, stop)
        mean = w * mean_denoised(oracle, x, t, r) + (1 - w) * mean_denoised(oracle, x_r, r, stop)
        torch.testing.assert_close(mean_denoised(oracle, x, t, stop), mean, rtol=1e-6, atol=1e-8)
    assert torch.equal(mean_denoised(oracle, x, t, t), oracle(x, t))


@pytest.mark.parametrize("renoise", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("schedule", ["VP", "EDM"])
def test_noise_that_is_put_back_leads_to_the_law_of_s(schedule: str, renoise: float) -> None:
    """The jump's linear part, and the variance of what is added, mode by mode."""
    oracle, step, t, s = gaussian(schedule, FIELD), Jump(renoise), time(0.8), time(0.4)
    alpha_s = oracle.sde.schedule.alpha(s)

    def drawn(x: Tensor, noise: Tensor) -> Tensor:
        return step(oracle, x, t, s, None, generator=Draws(noise), memory=None)[0]

    none = torch.zeros(1, 1, *GRID, dtype=torch.float64)
    start = oracle.sde.schedule.alpha(t) * oracle.mean + none
    impulse = none.clone()
    impulse[..., 0] = 1
    centre = drawn(start, none)
    torch.testing.assert_close(centre, alpha_s * oracle.mean + none, rtol=0, atol=1e-12)
    spectra = [
        torch.fft.fft(part - centre).abs()[0] ** 2 for part in (drawn(start + impulse, none), drawn(start, impulse))
    ]
    torch.testing.assert_close(oracle.variance(t) * spectra[0] + spectra[1], oracle.variance(s), rtol=1e-7, atol=1e-10)


def test_who_knows_no_second_time_jumps_as_ddim() -> None:
    law = Mixture(SDE(VP()), torch.tensor([[[-1.0]], [[2.0]]]).double(), torch.tensor([0.1, 0.3]).double())
    x = 3 * normal(5, 1, 1)
    found = [step(law, x, time(0.8), time(0.3), None, generator=keys(5), memory=None)[0] for step in (Jump(), DDIM())]
    assert torch.equal(*found)
    for steps in (1, 3):
        ends = [Sampler(steps, step, EDMGrid())(law, (4, 1, 1), generator=keys(4), like=x) for step in (Jump(), DDIM())]
        assert torch.equal(*ends)


def test_a_measurement_guides_the_denoiser_wherever_a_jump_is_to_end() -> None:
    """Tweedie's covariance is of E[x | x_t] alone."""
    oracle, x = gaussian("VP", FIELD), normal(3, 1, *GRID)
    guided = Guided(oracle, Measurement(Blur(0.2), normal(1, 1, *GRID), 0.3), MomentMatching(50, 1e-9))
    assert torch.equal(mean_denoised(guided, x, time(0.8), time(0.0)), guided(x, time(0.8)))


@pytest.mark.parametrize("stops", [0.3, [0.3, 0.6]], ids=["one time", "a time each"])
def test_denoisers_that_cut_a_field_to_parts_say_to_each_where_a_jump_ends(stops: float | list[float]) -> None:
    law, stop = Gaussian(SDE(VP()), spectrum((4, 4), 2.0, 0.5)), torch.tensor(stops, dtype=torch.float64)
    start = torch.full_like(stop, 0.8)
    volumes = normal(2, 1, 4, 4, 4)
    slices = volumes.movedim(3, 1).flatten(0, 1)
    found = mean_denoised(Slicewise(law, (1,), at_once=3), volumes, start, stop).movedim(3, 1).flatten(0, 1)
    each = (time(0.8).expand(8), stop.expand(2).repeat_interleave(4))
    torch.testing.assert_close(found, mean_denoised(law, slices, *each))
    windows = JointTimes(law, 1, 4, chunk=3)
    series = normal(2, 4, 4, 4)
    found = mean_denoised(windows, series, start, stop).flatten(0, 1)[:, None]
    torch.testing.assert_close(found, mean_denoised(law, series.flatten(0, 1)[:, None], *each))


class Integrated:
    """The exact D of any law by integrating its flow."""

    def __init__(self, denoiser: Mixture) -> None:
        self.denoiser, self.sde = denoiser, denoiser.sde

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        if not cond or UNTIL not in cond:
            return self.denoiser(x_t, t)
        rows = []
        for x, start, stop in zip(x_t, t.expand(len(x_t)), cond[UNTIL], strict=True):
            if start - stop < 1e-9:
                rows.append(self.denoiser(x[None], start))
                continue
            x_s = follow(self.denoiser, x[None], start, stop, None, 1e-9).state[0]
            (alpha_t, sigma_t), (alpha_s, sigma_s) = (self.sde.schedule(time) for time in (start, stop))
            ratio = sigma_s / sigma_t
            rows.append((x_s - ratio * x[None]) / (alpha_s - ratio * alpha_t))
        return torch.cat(rows)


def test_the_residual_vanishes_for_an_exact_map_of_a_law_with_two_humps() -> None:
    law = Mixture(SDE(EDM(0.01, 20.0)), torch.tensor([[[-1.0]], [[1.5]]]).double(), torch.tensor([0.05, 0.2]).double())
    x = law.marginal((10, 1, 1), time(0.0), generator=keys(10, 3))
    loss = SelfDistillation(LogNormal(0.0, 1.0), EDMWeight(), denoising=0.2, to_data=0.4)
    exact = loss(Integrated(law), Batch(x), generator=keys(10))  # type: ignore[arg-type]
    plain = loss(law, Batch(x), generator=keys(10))
    jumps = exact < 1e-8
    assert 5 <= int(jumps.sum()) <= 9  # the others learn the denoiser, whose loss is not 0
    assert float(plain[jumps].mean()) > 1e-3
    assert torch.equal(exact[~jumps], plain[~jumps])
    (defect,) = loss.figures
    for model, most in ((Integrated(law), 1e-4), (law, 1.0)):
        error, power = defect(model, Batch(x), generator=keys(10))  # type: ignore[arg-type]
        assert torch.equal(power > 0, jumps) and float((error.sum() / power.sum()).sqrt()) < most
    assert float((error.sum() / power.sum()).sqrt()) > 0.02


class Scaled(torch.nn.Module):
    """The exact D of a Gaussian times 1 + a (φ_t − φ_s), φ = atan σ/α: the denoiser itself for s = t."""

    def __init__(self, oracle: Gaussian, a: float) -> None:
        super().__init__()
        self.oracle, self.sde = oracle, oracle.sde
        self.a = torch.nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        found = self.oracle(x_t, t, cond)
        start, end = (torch.atan2(*self.sde.schedule(time)[::-1]) for time in (t, (cond or {UNTIL: t})[UNTIL]))
        return found * (1 + self.a * (start - end)).reshape(-1, *[1] * (x_t.ndim - 1))


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("schedule", ["VP", "EDM", "Rectified"])
def test_the_gradient_points_to_the_exact_map(schedule: str, noise: Noise) -> None:
    oracle = gaussian(schedule, noise)
    x = oracle.marginal((64, 1, *GRID), time(1e-3), generator=keys(64, 5))
    loss = SelfDistillation(UniformTime(0.05, 0.95), denoising=0.1)
    slopes = []
    for a in (-0.2, 0.0, 0.2):
        model = Scaled(oracle, a)
        loss(model, Batch(x), generator=keys(64)).mean().backward()
        slopes.append(float(model.a.grad))  # type: ignore[arg-type]
    assert slopes[0] < 0 < slopes[2]
    assert abs(slopes[1]) < 1e-6 * (slopes[2] - slopes[0])


@pytest.mark.parametrize(
    "net",
    [UNet(1, 1, channels=4, multipliers=(1, 1), jumps=True),
     NCSNpp(1, 1, channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0, jumps=True),
     NCSNpp(1, 1, channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0, conditional=False, jumps=True),
     FNO(1, 1, channels=4, modes=4, layers=1, jumps=True), UNO(1, 1, channels=4, modes=4, sizes=[4], jumps=True)],
    ids=["UNet", "NCSNpp", "NCSNpp-unconditional", "FNO", "UNO"],
)  # fmt: skip
@pytest.mark.parametrize("schedule", [VP(), Rectified()], ids=["VP", "Rectified"])
def test_networks_start_as_denoisers_and_stay_so_where_a_jump_ends_at_once(net: Network, schedule: VP) -> None:
    torch.manual_seed(0)
    for weight in net.parameters():  # of a network that is trained: none begins at 0 but the jump's
        weight.data.add_(0.1 * torch.randn_like(weight))
    model, x = Denoiser(net, SDE(schedule), EDMPreconditioner()), torch.randn(2, 1, 8, 8)
    t, s = torch.tensor([0.9, 0.5]), torch.tensor([0.1, 0.0])
    embedding = next(part for part in net.modules() if isinstance(part, JumpEmbedding))
    plain, there = model(x, t), mean_denoised(model, x, t, s)
    assert not torch.allclose(plain, there, atol=1e-5)
    torch.testing.assert_close(mean_denoised(model, x, t, t), plain)
    embedding.out.weight.data.zero_()
    torch.testing.assert_close(mean_denoised(model, x, t, s), plain)


def test_every_jump_is_compared_with_two() -> None:
    """r lies between s and t, at most `reach` from t, for jumps to the data and for others."""
    loss, schedule = SelfDistillation(denoising=0.25, reach=1.0), EDM()
    t = torch.rand(2000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).clamp(min=0.01)
    generator = Generators((0, i) for i in range(len(t)))
    s, r, jumps = loss._ends(schedule, t, generator, torch.zeros(len(t), 1, dtype=torch.float64))
    assert (jumps.double().mean() - 0.75).abs() < 0.05
    assert ((s <= r) & (r < t)).all()
    assert (s < r).double().mean() > 0.999
    gap = (schedule.log_snr(r) - schedule.log_snr(t)) / 2
    assert gap.max() <= 1.0 + 1e-9 and (gap.max() > 0.9)
