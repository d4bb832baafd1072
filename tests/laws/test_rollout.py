"""Fields drawn one after another, each given those before: of a linear process in time, that process itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from laws.test_oracles import matrix
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.noise import GaussianField, Matern, Neumann
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE, expand_like
from scorefield.data import Identity, Tensors
from scorefield.functions import Forecasts
from scorefield.jobs.draws import Draws
from scorefield.jobs.rollout import Rollout
from scorefield.model import Model
from scorefield.nn.network import Network
from scorefield.run.runner import run_job
from scorefield.samplers import Heun, Sampler

F64 = torch.float64
NOISE, SPACE = GaussianField(Matern(0.3, 0.5), Neumann()), GaussianField(Matern(0.4, 1.5, nugget=1e-3), Neumann())
PHI = (0.6, 0.3)  # of the field before, and of the one before that


class Unused(Network):
    """Stands for a network of two fields before, in a model whose denoiser is given."""

    cond_channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, dtype=F64))

    def forward(self, x, label, cond=None):
        raise AssertionError("the network is not asked")


class Process:
    """E[u_t | x_t, u_{t−1}, u_{t−2}] of u_t = φ₁ u_{t−1} + φ₂ u_{t−2} + e, e ~ N(0, S)."""

    def __init__(self) -> None:
        self.sde = SDE(EDM(0.01, 200.0), NOISE)
        self.noise, self.new = (matrix(field.covariance, (6,)) for field in (NOISE, SPACE))

    def __call__(self, x_t, t, cond=None):
        before = cond["field"]
        mean = PHI[0] * before[:, 1:] + PHI[1] * before[:, :1]
        sigma = expand_like(self.sde.schedule.sigma(t), x_t)
        total = self.new + float(sigma.flatten()[0]) ** 2 * self.noise
        return mean + torch.linalg.solve(total, (x_t - mean).flatten(1).T).T.reshape(x_t.shape[0], 1, 6) @ self.new


def test_a_rollout_of_a_linear_process_is_the_process(tmp_path: Path) -> None:
    """Mean and covariance of all fields together, given the first two."""
    model = Model(SDE(EDM(0.01, 200.0), NOISE), Unused(), EDMPreconditioner(), Identity(), shape=(1, 6))
    start = torch.tensor([[1.0, 0.5, 0.0, -0.5, 1.0, 2.0], [2.0, 1.0, 0.0, 1.0, 2.0, 0.0]], dtype=F64)
    n, steps = 4000, 3
    draws = Draws(
        out=tmp_path / "drawn",
        model=model,
        sampler=Sampler(30, Heun()),
        n=n,
        chunk=2000,
        denoiser=Process(),
        cond={"field": start.expand(n, -1, -1)},
    )
    run_job(Rollout(draws, steps), unit="sample", title="sequences")
    found = torch.from_numpy(np.load(tmp_path / "drawn/samples.npy")).double().flatten(1)
    new, means = matrix(SPACE.covariance, (6,)), [*start]
    response = np.zeros((steps, steps))  # of field k to what was new in field j
    for k in range(steps):
        means.append(PHI[0] * means[-1] + PHI[1] * means[-2])
        for j in range(k + 1):
            before = [response[k - lag, j] if k >= lag else 0.0 for lag in (1, 2)]
            response[k, j] = 1.0 if j == k else PHI[0] * before[0] + PHI[1] * before[1]
    covariance = torch.kron(torch.tensor(response @ response.T), new.contiguous())
    assert float((found.mean(0) - torch.cat(means[2:])).abs().max()) < 4 * float(covariance.diagonal().max() / n) ** 0.5
    assert float((torch.cov(found.T) - covariance).norm() / covariance.norm()) < 0.06


def test_fields_before_and_persistence() -> None:
    x = torch.randn(3, 5, 4, 6)
    fields = Forecasts(Tensors(x, valid=1), past=2).load("train")
    batch, rows = fields.gather(torch.tensor([0, 4])), [0, 1]
    train = fields.sequences.gather(torch.arange(2)).x  # pyright: ignore[reportAttributeAccessIssue]
    for row, (sequence, time) in zip(rows, ((0, 0), (1, 1)), strict=True):
        assert torch.equal(batch.x[row, 0], train[sequence, time + 2])
        assert torch.equal(batch.cond["field"][row], train[sequence, time : time + 2])
    assert torch.equal(fields.forecasts(torch.tensor([4]))["persistence"][0, 0], train[1, 2])
    assert len(fields) == 6


RECIPE = """
model:
  sde: {schedule: {class_path: EDM, init_args: {sigma_min: 0.05, sigma_max: 10.0}}}
  precondition: EDMPreconditioner
  normaliser: Standardise
  predictors: UNITS
  net: {class_path: UNet, init_args: {channels: 8, multipliers: [1], cond_channels: PAST}}
  sampler: {steps: 2}
data:
  class_path: SOURCE
  init_args: {OPTION, sequences: {class_path: Arrays, init_args: {path: PATH, channel_axis: first, valid: 4}}}
train: {steps: 2, batch_size: 8, validate_every: 2, preview_every: 100, checkpoint_every: 2, accelerator: cpu}
"""


def trained(folder: Path, source: str, option: str, past: int) -> str:
    np.save(folder / "flow.npy", np.random.default_rng(0).normal(size=(12, 6, 8, 8)).astype("f4"))
    text = RECIPE.replace("PATH", str(folder / "flow.npy")).replace("SOURCE", source).replace("PAST", str(past))
    text = text.replace("UNITS", "Standardise" if past else "Identity").replace("OPTION", option)
    path = tiny.recipe(folder / "recipe", text)
    tiny.run.train(*tiny.settings(path), folder / "run")
    return str(folder / "run")


def test_the_command_line_goes_on_from_fields(tmp_path: Path) -> None:
    run = trained(tmp_path, "scorefield.functions.Forecasts", "past: 2", 2)
    words = ["sample", run, "-n", "3", "--given", "valid"]
    assert main([*words, "--out", str(tmp_path / "one")]) == 0
    assert main([*words, "--rollout", "4", "--out", str(tmp_path / "four")]) == 0
    one, four = (np.load(tmp_path / name / "samples.npy") for name in ("one", "four"))
    assert four.shape == (3, 4, 1, 8, 8) and np.array_equal(four[:, 0], one)
    assert not np.array_equal(four[:, 1], four[:, 2])
    assert main([*words, "--rollout", "2", "--chunk", "2", "--out", str(tmp_path / "two")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "two/samples.npy"), four[:, :2], atol=1e-3)
    assert main(["evaluate", run, "-n", "4", "--members", "2"]) == 0
    assert "persistence" in json.loads((tmp_path / "run/paired.json").read_text())["forecasts"]


def test_what_cannot_go_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, "scorefield.functions.Windows", "radius: 1, factor: 2", 3)
    for words, expected in (
        (["--rollout", "2"], "--given"),
        (["--rollout", "2", "--given", "valid", "--png"], "--png"),
        (["--rollout", "2", "--given", "valid"], "Forecasts"),
    ):
        assert main(["sample", run, "-n", "2", *words, "--out", str(tmp_path / "no")]) == 2
        assert expected in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
