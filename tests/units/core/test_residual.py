"""The mean that is taken off: with an exact one, what is left is the law of the residual; one that is learnt is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import scorefield
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.oracle import Gaussian
from scorefield.core.residual import ConditionalMean
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch, Standardise
from scorefield.model import Model
from scorefield.nn import Deterministic, NCSNpp
from scorefield.samplers import Sampler
from weather import dataset, described, recipe, save


class Doubled(ConditionalMean):
    """m(cond) = 2 cond: exact for data that were made so."""

    def forward(self, x: torch.Tensor, cond) -> torch.Tensor:
        return 2 * cond["field"].to(x)


def data(n: int, spectrum: torch.Tensor) -> list[Batch]:
    """x = 2 c + r with r a Gaussian field of a spectrum, in batches."""
    draw = torch.Generator().manual_seed(0)
    c = torch.randn(n, 1, 8, 8, generator=draw)
    white = torch.randn(n, 1, 8, 8, generator=draw)
    r = torch.fft.ifft2(torch.fft.fft2(white) * spectrum.sqrt()).real
    return [Batch(x, {"field": f}) for x, f in zip((2 * c + r).split(500), c.split(500), strict=True)]


def test_with_an_exact_mean_the_residual_is_drawn_with_its_covariance() -> None:
    """The model draws with the exact denoiser of the scaled residual: x − 2c has the residual's variance at every mode."""
    k = torch.fft.fftfreq(8)
    spectrum = (0.3 / (1 + 20 * (k[:, None] ** 2 + k[None] ** 2))).double()
    net = NCSNpp(1, 1, 1, channels=4, multipliers=(1,), blocks=1, attention=())
    sde = SDE(EDM(0.01, 80.0))
    model = Model(sde, net, EDMPreconditioner(), Standardise(), shape=(1, 8, 8), mean=Doubled())
    # The units of x would scale the condition's part, too: model space is that of the data here.
    model.normaliser.shift, model.normaliser.scale = torch.zeros(1), torch.ones(1)
    batches = data(4000, spectrum.float())
    model.fit(batches)
    scale = float(model.mean.residual.scale)
    assert scale == pytest.approx(float(spectrum.mean().sqrt()), rel=0.02)
    rest = model.prepare(batches[0])
    assert float(rest.x.std()) == pytest.approx(1, rel=0.02)
    oracle = Gaussian(sde, (spectrum / scale**2)[None])
    cond = torch.randn(600, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    drawn = model.sample(600, cond={"field": cond}, chunk=600, denoiser=oracle, sampler=Sampler(steps=100))
    power = torch.fft.fft2((drawn - 2 * cond).double()).abs().square().mean((0, 1)) / 64
    ratio = power / spectrum
    assert float(ratio.mean()) == pytest.approx(1, abs=0.03)
    assert (ratio - 1).abs().max() < 5 * (2 / 600) ** 0.5  # five standard errors of a variance


def test_a_blind_network_sees_no_noise_and_no_level() -> None:
    net = Deterministic(
        NCSNpp(1, 1, 2, channels=8, multipliers=(1, 2), blocks=1, attention=(), dropout=0.0, init_scale=1.0)
    ).eval()
    cond = {"field": torch.randn(3, 2, 8, 8)}
    a = net(torch.randn(3, 1, 8, 8), torch.rand(3), cond)
    b = net(torch.randn(3, 1, 8, 8), torch.rand(3), cond)
    assert torch.equal(a, b)
    assert not torch.allclose(a, net(torch.zeros(3, 1, 8, 8), torch.zeros(3), {"field": cond["field"] + 1}))


def test_a_regression_becomes_the_mean_of_a_residual_run_and_travels_in_its_checkpoint(tmp_path: Path) -> None:
    fine = save(dataset(40), tmp_path / "fine.nc")
    plain = recipe(described(fine))
    inner = plain["model"]["net"]
    deterministic = recipe(described(fine)) | {"base": ["parts/edm-fields.yaml", "parts/regression.yaml"]}
    deterministic["model"] = {"net": {"class_path": "scorefield.nn.Deterministic", "init_args": {"net": inner}}}
    for name, content, more in (("mean", deterministic, []), ("rest", plain, ["--mean", str(tmp_path / "mean")])):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
        assert main(["train", str(tmp_path / f"{name}.yaml"), "--out", str(tmp_path / name), *more]) == 0
    mean, rest = (scorefield.load(tmp_path / name) for name in ("mean", "rest"))
    for file in (tmp_path / "mean" / "checkpoints").iterdir():
        file.unlink()
    assert rest.mean is not None
    ours = {k.removeprefix("net."): v for k, v in rest.mean.state_dict().items() if k.startswith("net.")}
    assert all(torch.equal(value, ours[name]) for name, value in mean.denoiser.net.state_dict().items())
    cond = {"field": 280 + torch.randn(2, 1, 16, 24)}
    prediction = mean.sample(2, cond=cond, chunk=2)
    z = torch.randn(2, 1, 16, 24)
    _, given = rest.enter(Batch(prediction, cond))
    expected = rest.normaliser.inverse(mean.normaliser(prediction) + rest.mean.residual.inverse(z))
    torch.testing.assert_close(rest.leave(z, given), expected, rtol=1e-5, atol=1e-3)
    assert np.isfinite(rest.sample(2, cond=cond, chunk=2).numpy()).all()
    resumed = ["train", "--out", str(tmp_path / "rest"), "--resume", "--train.steps", "3"]
    assert main(resumed) == 0


def test_a_run_that_is_no_regression_is_refused_as_a_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fine = save(dataset(40), tmp_path / "fine.nc")
    (tmp_path / "plain.yaml").write_text(yaml.safe_dump(recipe(described(fine))))
    assert main(["train", str(tmp_path / "plain.yaml"), "--out", str(tmp_path / "plain")]) == 0
    command = [
        "train",
        str(tmp_path / "plain.yaml"),
        "--out",
        str(tmp_path / "rest"),
        "--mean",
        str(tmp_path / "plain"),
    ]
    assert main(command) == 2
    assert "no deterministic run" in capsys.readouterr().err
