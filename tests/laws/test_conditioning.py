"""A conditional Gaussian x | c ~ N(μ(c), s(c)² I) is recovered for each way of conditioning, in 1-D, 2-D and 3-D.

Networks are trained by the real trainer for a few hundred steps. Then E[x | x_t, c] is known,
x̂ = μ + α s² (x_t − α μ)/(α² s² + σ²), and so is the law of the samples. A network that is not told c, or not all of it, fails.
"""

import math
from dataclasses import dataclass

import pytest
import torch

from laws.cases import keys
from often import rarely
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE, expand_like
from scorefield.data import Batch, DropLabel, Identity
from scorefield.losses import Denoising, EDMWeight, LogNormal
from scorefield.model import Model
from scorefield.nn import NCSNpp, UNet
from scorefield.samplers import DPMSolverPP2M, LogSNRGrid, Sampler
from scorefield.training import Adam, CosineDecay
from scorefield.training.trainer import Trainer
from tiny import Paired

GRIDS = {1: (12,), 2: (6, 6), 3: (4, 4, 4)}
YEAR, SPREAD = 2050.0, 25.0  # a vector's first entry, in units of its own
LAW = SDE(EDM(sigma_min=0.02, sigma_max=20.0))
LEVELS = (0.33, 1.0, 3.0)  # σ/α where c matters

pytestmark = pytest.mark.usefixtures("unchecked")


def pattern(grid: tuple[int, ...]) -> torch.Tensor:
    """A wave along the first axis, of mean square 1, (1, *grid)."""
    wave = math.sqrt(2) * torch.cos(2 * math.pi * torch.arange(grid[0]) / grid[0])
    return wave.reshape(1, -1, *(1,) * (len(grid) - 1)).expand(1, *grid)


def uniform(n: int, seed: int) -> torch.Tensor:
    return keys(n, seed).rand((n,), like=torch.empty(0))


def normal(n: int, *rest: int, seed: int) -> torch.Tensor:
    return keys(n, seed).randn((n, *rest), like=torch.empty(0))


@dataclass(frozen=True)
class Conditional:
    """A way of conditioning: what c is, and mean and standard deviation of x given c, which broadcast to x."""

    name: str
    grid: tuple[int, ...]
    even: bool = False  # the same spread for every vector

    def conditions(self, n: int, seed: int) -> torch.Tensor:
        if self.name == "field":
            return normal(n, 1, *self.grid, seed=seed)
        if self.name == "label":
            return (3 * uniform(n, seed)).long()
        year = YEAR + SPREAD * normal(n, seed=seed).double()
        return torch.stack((year, uniform(n, seed + 1).double()), dim=1)

    def moments(self, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        one = torch.ones(len(c), *(1,) * (len(self.grid) + 1))
        if self.name == "field":
            return 0.8 * c, 0.6 * one
        if self.name == "label":
            return expand_like(torch.tensor([-1.2, 0.0, 1.2])[c], one) * pattern(self.grid), 0.6 * one
        mean = 0.9 * expand_like(((c[:, 0] - YEAR) / SPREAD).float(), one) * pattern(self.grid)
        return mean, 0.6 * one if self.even else expand_like(0.25 + 0.75 * c[:, 1].float(), one)

    def data(self, n: int, seed: int = 0) -> Paired:
        c = self.conditions(n, seed)
        mean, std = self.moments(c)
        return Paired({"x": mean + std * normal(n, 1, *self.grid, seed=seed + 7), self.name: c})

    def denoise(self, x_t: torch.Tensor, t: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (expand_like(scale, x_t) for scale in LAW.schedule(t))
        mean, std = self.moments(c)
        return mean + alpha * std**2 / (alpha**2 * std**2 + sigma**2) * (x_t - alpha * mean)


def trained(net, law: Conditional, folder, *, augment=(), steps: int = 100) -> Model:
    """By the real trainer, with everything that a run has."""
    fields, sampler = law.data(1024), Sampler(8, DPMSolverPP2M(), LogSNRGrid())
    model = Model(LAW, net, EDMPreconditioner(sigma_data=1.0), Identity(), sampler, shape=(1, *law.grid))
    model.fit([fields.gather(torch.arange(1024))])
    trainer = Trainer(
        loss=Denoising(LogNormal(-0.3, 1.2), EDMWeight(1.0)),
        optimiser=Adam(lr=6e-3, beta2=0.99, schedule=CosineDecay(warmup=20)),
        steps=steps,
        batch_size=64,
        ema=0.95,
        augment=list(augment),
        accelerator="cpu",
        validate_on=64,
        log_every=steps,
        validate_every=steps,
        preview_every=steps,
        checkpoint_every=steps,
    )
    state = trainer.launch(model)
    trainer.fit(state, fields, law.data(64, seed=100), folder=folder, config={})
    return model.eval()


def noised(law: Conditional):
    """x_t, t and c of held-out fields at each level."""
    batch = law.data(256, seed=200).gather(torch.arange(256))
    for i, level in enumerate(LEVELS):
        t = LAW.schedule.time(torch.full((256,), -2 * math.log(level)))
        x_t, _ = LAW.perturb(batch.x, t, generator=keys(256, 300 + i))
        yield x_t, t, batch.cond[law.name]


@torch.no_grad()
def unexplained(model: Model, law: Conditional) -> float:
    """The network's squared distance from E[x | x_t, c], over that of E[x | x_t, c'] for another c'."""
    away = confused = 0.0
    for x_t, t, c in noised(law):
        _, cond = model.enter(Batch(x_t, {law.name: c}))
        exact = law.denoise(x_t, t, c)
        away += float((model.denoiser(x_t, t, cond) - exact).square().mean())
        confused += float((law.denoise(x_t, t, c.roll(1, 0)) - exact).square().mean())
    return away / confused


def network(name: str, rank: int):
    """One that takes such a condition: of those, UNet knows no classes."""
    more = {"field": {"cond_channels": 1}, "label": {"labels": 3}, "vector": {"vector": 2}}[name]
    small = {"in_channels": 1, "out_channels": 1, "spatial": rank, "channels": 8, **more}
    torch.manual_seed(1)
    if name == "label" or rank == 2:
        kind = {"multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0, "progressive_input": "none"}
        return NCSNpp(**small, **kind, filter="box", fourier_scale=1.0)
    return UNet(**small, multipliers=(1, 2))


@pytest.mark.parametrize("rank", rarely([1, 2, 3], [1]))
@pytest.mark.parametrize("name", rarely(["field", "label", "vector"], ["field"]))
def test_a_conditional_gaussian_is_recovered(name, rank, tmp_path):
    """The posterior mean to a tenth of what confusing c would cost, where a network not told a vector leaves 0.18; and the
    mean and the spread of samples at one c, to their standard errors and the root of that tenth.
    """
    law = Conditional(name, GRIDS[rank])
    model = trained(
        network(name, rank), law, tmp_path, steps=300 if name == "vector" else 100
    )  # which changes spreads, too
    assert (found := unexplained(model, law)) < 0.1, found
    one = law.conditions(5, seed=400)[3:4]
    mean, std = law.moments(one)
    x = model.sample(64, seed=1, cond={name: one.expand(64, *one.shape[1:])}, chunk=64)
    assert (x.mean(0) - mean[0]).square().mean().sqrt() < 0.3
    assert abs(float((x - x.mean(0)).std() / std) - 1) < 0.2


@pytest.mark.slow
@torch.no_grad()
def test_a_dropped_vector_teaches_the_law_without_it(tmp_path):
    """With DropLabel the null vector gives E[x | x_t], of N(0, s² I + m² p pᵀ), as does none at all; the others still theirs."""
    law = Conditional("vector", (6,), even=True)
    with torch.enable_grad():
        model = trained(network("vector", 1), law, tmp_path, augment=[DropLabel(0.5)], steps=300)
    assert unexplained(model, law) < 0.15
    p, s = pattern(law.grid), 0.6
    power, p = s**2 + 0.9**2 * p.square().sum(), p / p.norm()
    away = apart = 0.0
    for x_t, t, c in noised(law):
        alpha, sigma = (expand_like(scale, x_t) for scale in LAW.schedule(t))
        along = (x_t * p).sum((1, 2), keepdim=True) * p
        exact = alpha * s**2 / (alpha**2 * s**2 + sigma**2) * (x_t - along)
        exact = exact + alpha * power / (alpha**2 * power + sigma**2) * along
        free = model.denoiser(x_t, t)
        assert torch.equal(free, model.denoiser(x_t, t, {"vector": torch.full((256, 2), torch.nan)}))
        away += float((free - exact).square().mean())
        apart += float((law.denoise(x_t, t, c) - exact).square().mean())
    assert away < 0.2 * apart, away / apart
