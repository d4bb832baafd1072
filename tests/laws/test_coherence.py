"""What belongs together stays together: variables drawn jointly, times of one window, and fields that are known in parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from scorefield.climate import Blocks, Climate, Variables
from scorefield.core.denoiser import Denoiser, EDMPreconditioner
from scorefield.core.residual import ConditionalMean
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE, expand_like
from scorefield.data import Batch, Standardise
from scorefield.data.transform import Chain, Log1p, PerVariable
from scorefield.foundation.random import Generators
from scorefield.losses import Denoising, LogNormal
from scorefield.losses.weights import EDMWeight
from scorefield.model import Model
from scorefield.nn import UNet
from scorefield.nn.network import Network
from scorefield.samplers import Sampler
from weather import dataset, save

LAW = SDE(EDM(0.01, 80.0))


class Joint(nn.Module):
    """The exact denoiser of variables with a covariance S in each grid box: x̂ = S (S + σ²)⁻¹ x_t."""

    def __init__(self, covariance: Tensor) -> None:
        super().__init__()
        self.sde, self.covariance = LAW, covariance

    def forward(self, x_t: Tensor, t: Tensor, cond: object = None) -> Tensor:
        noise = self.sde.schedule.sigma(t) ** 2 * torch.eye(len(self.covariance))
        gain = self.covariance @ torch.linalg.inv(self.covariance + noise.to(self.covariance))
        return torch.einsum("ij,bj...->bi...", gain.to(x_t), x_t)


def test_variables_drawn_jointly_keep_their_correlation() -> None:
    """Rain and temperature, each with a transform of its own: their ranks belong together as in the data."""
    draw = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 400, 1, 8, 8, generator=draw)
    warmth = 0.6 * first + 0.8 * second
    data = torch.cat((0.1 * torch.expm1(3 + 0.5 * first), 280 + 4 * warmth), dim=1)
    units = PerVariable([Chain([Log1p(0.1), Standardise()]), Standardise()])
    model = Model(LAW, UNet(2, 2, channels=2, multipliers=(1,)), EDMPreconditioner(), units, shape=(2, 8, 8))
    model.fit([Batch(data)])
    drawn = model.sample(400, chunk=400, denoiser=Joint(torch.tensor([[1, 0.6], [0.6, 1]])), sampler=Sampler(steps=40))
    assert bool((drawn[:, 0] > -0.1).all())
    assert abs(correlation(drawn[:, 0].add(0.1).log(), drawn[:, 1]) - 0.6) < 0.02  # 5 standard errors of 25 600 pairs


class Window(ConditionalMean):
    """m(cond) = 0.5 c(t − 1) + 0.4 c(t): what a window of two times is worth."""

    def forward(self, x: Tensor, cond: Mapping[str, Tensor]) -> Tensor:
        before, now = cond["field"].to(x).split(1, dim=1)
        return 0.5 * before + 0.4 * now


def test_a_window_of_times_gives_samples_their_memory(tmp_path: Path) -> None:
    """Predictors of lag-1 correlation 0.8, fields made of two of their times: samples, drawn one by one, remember it."""
    draw, n = np.random.default_rng(0), 250
    series = np.zeros((n, 12, 12), np.float32)
    series[0] = draw.normal(size=(12, 12))
    for t in range(1, n):
        series[t] = 0.8 * series[t - 1] + 0.6 * draw.normal(size=(12, 12))
    fields = np.roll(series, 1, 0) * 0.5 + 0.4 * series + 0.3 * draw.normal(size=series.shape)
    files = []
    for name, values in (("coarse", series), ("fine", fields)):
        file = dataset(n, 12, 12)
        file["tas"].values[:] = values
        files.append(Variables(save(file, tmp_path / f"{name}.nc"), ["tas"]))
    split = Climate(files[1], Blocks(10 * n, 2, (1,), ()), files[0], before=1).load("train")
    batch = split.gather(torch.arange(len(split)))
    assert split.conditions == ("tas-1", "tas") and len(split) == n - 1
    model = Model(
        LAW,
        UNet(1, 1, 2, channels=2, multipliers=(1,)),
        EDMPreconditioner(),
        Standardise(),
        shape=(1, 12, 12),
        mean=Window(),
    )
    for units, channels in ((model.normaliser, 1), (model.predictors, 2)):  # model space is that of the data
        units.shift, units.scale = torch.zeros(channels), torch.ones(channels)
    model.fit([batch])
    x = model.sample(
        len(split), cond=batch.cond, chunk=len(split), denoiser=Joint(torch.eye(1)), sampler=Sampler(steps=40)
    )
    assert abs(correlation(x[1:], x[:-1]) - correlation(batch.x[1:], batch.x[:-1])) < 0.03
    variance, lag = 0.5**2 + 0.4**2 + 2 * 0.5 * 0.4 * 0.8, 0.8 * (0.5**2 + 0.4**2) + 0.5 * 0.4 * (1 + 0.8**2)
    assert abs(correlation(x[1:], x[:-1]) - lag / (variance + 0.3**2)) < 0.03


class Pair(Network):
    """Two points and where they are known, all with all."""

    def __init__(self) -> None:
        super().__init__()
        self.cond_channels = 1
        self.layers = nn.Sequential(nn.Linear(5, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor, label: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        known = (cond or {})["field"]
        return self.layers(torch.cat((x[:, 0], known[:, 0], expand_like(label, x[:, 0]).expand(-1, 1)), dim=1))[:, None]


def test_fields_of_which_a_third_is_missing_teach_their_covariance() -> None:
    """Two points of correlation 0.7, each unknown in 30 % of the fields: draws for all points have it.

    Had the zeros that stand for what is unknown been learnt, variances would be 0.7 and the covariance 0.34.
    """
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    root = torch.linalg.cholesky(torch.tensor([[1, 0.7], [0.7, 1]]))
    denoiser = Denoiser(Pair(), LAW, EDMPreconditioner(sigma_data=1.0))
    loss, optimiser = Denoising(LogNormal(-0.5, 1.3), EDMWeight(1.0)), torch.optim.Adam(denoiser.parameters(), 4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 400)
    for step in range(400):
        mask = torch.rand(128, 1, 2, generator=draw) > 0.3
        x = (torch.randn(128, 1, 2, generator=draw) @ root.T).where(mask, 0.0)
        batch = Batch(x, {"field": mask.float()}, mask=mask)
        value = loss(denoiser, batch, generator=Generators((step, i) for i in range(128))).mean()
        optimiser.zero_grad(), value.backward(), optimiser.step(), schedule.step()
    keys, whole = Generators((400, i) for i in range(2000)), {"field": torch.ones(2000, 1, 2)}
    with torch.no_grad():
        x = Sampler(steps=20)(denoiser, (2000, 1, 2), generator=keys, like=torch.empty(0), cond=whole)
    found = torch.cov(x[:, 0].T)
    torch.testing.assert_close(found, torch.tensor([[1, 0.7], [0.7, 1]]), atol=0.1, rtol=0)


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())).double())[0, 1])
