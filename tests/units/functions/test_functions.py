"""Functions on the road of a user: field noise and neural operators from a recipe, kept in the checkpoint, on any grid."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
import tiny
from laws.test_oracles import matrix
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.noise import Exponential, Free, GaussianField, Matern, Neumann, Periodic, White
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.jobs import densities
from scorefield.jobs.resolution import fitted
from scorefield.model import Model
from scorefield.run import experiment as run
from scorefield.run.loading import open_checkpoint
from scorefield.samplers import BandLimited, Continued, WienerBeyond

pytest.importorskip("neuralop")
RECIPE = """
base: digits
model:
  sde:
    noise:
      class_path: GaussianField
      init_args:
        density: {class_path: Matern, init_args: {length: 0.2, smoothness: 1.5}}
        boundary: Neumann
        domain: [1.0, 2.0]
  net:
    class_path: FNO
    init_args: {channels: 8, modes: 8, layers: 2}
  sampler: {steps: 3, step: Heun}
train:
  steps: 6
  batch_size: 16
  validate_every: 6
  validate_on: 16
  preview_every: 6
  checkpoint_every: 3
  accelerator: cpu
"""
NOISE = GaussianField(Matern(0.2, 1.5), Neumann(), (1.0, 2.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("functions")
    run.train(*tiny.settings(tiny.recipe(folder, RECIPE)), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return scorefield.load(folder)


def test_the_noise_comes_back_with_the_checkpoint(model: Model) -> None:
    assert model.sde.noise == NOISE and model.sde.noise != White()


def test_what_was_trained_on_one_grid_is_sampled_on_others(model: Model) -> None:
    for shape in ((1, 8, 8), (1, 16, 16), (1, 9, 13)):
        x = model.sample(2, shape=shape, chunk=2)
        assert x.shape == (2, *shape) and bool(torch.isfinite(x).all())
    assert torch.equal(model.sample(3, chunk=2)[2], model.sample(5, chunk=2)[2])  # of its seed alone


def test_the_prior_is_the_field(model: Model) -> None:
    """At t = 1 the samples are σ C^½ z of the stored noise."""
    seen = []
    model.sample(2, chunk=2, callback=lambda level, t, x: seen.append(x) if level == 0 else None)
    from scorefield.foundation.random import Generators, Stream

    generator = Generators((0, index, Stream.SAMPLE) for index in range(2))
    expected = 40 * NOISE.sample((2, 1, 8, 8), generator=generator, like=torch.empty(0))
    torch.testing.assert_close(seen[0], expected, rtol=1e-5, atol=1e-5)


def test_a_noise_that_does_not_fit_the_grid_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tiny.recipe(folder.parent / "bad", RECIPE)
    code = main(
        ["train", str(recipe), "--out", str(folder.parent / "never"), "--model.sde.noise.domain", "[1.0,1.0,1.0]"]
    )
    error = capsys.readouterr().err
    assert (
        code == 2
        and "3 lengths, but the fields have 2 axes" in error
        and error.rstrip().splitlines()[-1].startswith("scorefield: error:")
    )
    with pytest.raises(InputError, match="band"):
        GaussianField(Matern(0.2), band=(0, 4))


# ------------------------------------------------------------------------------------------------------------ densities
def test_a_density_of_functions_is_given_on_grids_or_not_at_all(
    folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "densities.json"
    words = ["likelihood", str(folder), "--out", str(out), "-n", "2", "--repeats", "1", "--tolerance", "1e-2"]
    assert main(words) == 2
    assert "no density with respect to Lebesgue measure" in capsys.readouterr().err
    assert main([*words, "--resolutions", "[8]"]) == 2
    assert "two different grids" in capsys.readouterr().err
    assert main([*words, "--resolutions", "[8,16]"]) == 2
    assert "no modes for a resolution of 16" in capsys.readouterr().err
    assert main([*words, "--resolutions", "[4,8]"]) == 0
    printed, record = capsys.readouterr().out, json.loads(out.read_text())
    assert "log p - log N" in printed and "drifts more" in printed and "Lebesgue" in record["note"]
    assert [row["grid"] for row in record["resolutions"]] == [[4, 4], [8, 8]]
    assert all(math.isfinite(row["relative"]["mean"]) for row in record["resolutions"])
    assert [path.name for path in tmp_path.iterdir()] == [out.name]  # what was kept for going on is gone


def test_a_resolution_is_points_along_the_longest_axis() -> None:
    """As for sample, superres and evaluate."""
    assert densities.grid_of((12, 8, 16), 8) == [6, 4, 8] and densities.grid_of((6,), 3) == [3]
    with pytest.raises(InputError, match="multiple of 4"):
        densities.grid_of((12, 8, 16), 10)
    with pytest.raises(InputError, match="16 points along the longest axis"):
        densities.grid_of((12, 8, 16), 20)


def test_white_noise_has_densities_as_before() -> None:
    densities.check(White(), [])
    with pytest.raises(InputError, match="leave --resolutions out"):
        densities.check(White(), [4, 8])


def test_the_reference_is_the_noise_measure() -> None:
    noise = GaussianField(Exponential(0.3))
    x = torch.randn(3, 2, 4, 3, dtype=torch.float64)
    covariance = 0.04 * matrix(noise.covariance, (4, 3))
    law = torch.distributions.MultivariateNormal(torch.zeros(12, dtype=torch.float64), covariance)
    torch.testing.assert_close(densities.log_noise(noise, x, 0.2), law.log_prob(x.flatten(2)).sum(1), rtol=1e-9, atol=0)


def test_relative_to_the_noise_a_density_settles_and_by_itself_it_drifts() -> None:
    """A Gaussian law whose data are smoother than the noise, at the last level, in closed form."""
    noise, smooth, t = GaussianField(Matern(0.2, 0.5)), GaussianField(Matern(0.2, 2.5)), torch.tensor(0.0)
    found = []
    for n in (64, 128, 256):
        oracle = Gaussian(SDE(EDM(0.1, 10.0), noise), n * smooth.eigenvalues((n,))[None])
        x = Periodic().resample((2 * torch.pi * torch.arange(16, dtype=torch.float64) / 16).cos()[None, None], (n,))
        own = oracle.log_density(x, t.double())
        found.append(torch.stack((own, own - densities.log_noise(noise, x, 0.1))))
    first, last = (found[1] - found[0]).abs(), (found[2] - found[1]).abs()
    assert float(last[0]) > 10 and float(last[0]) > 1.5 * float(first[0])  # grows with the number of points
    assert float(last[1]) < 0.2 and float(last[1]) < 0.3 * float(first[1])


@pytest.mark.parametrize("boundary", [Periodic(), Neumann()])
def test_functions_are_resampled_in_the_noises_own_modes(boundary: Periodic | Neumann) -> None:
    x = torch.randn(2, 1, 6, 9, dtype=torch.float64)
    fine = boundary.resample(x, (12, 20))
    torch.testing.assert_close(boundary.resample(fine, (6, 9)), x)
    modes, kept = boundary.transform(fine), boundary.transform(x)
    torch.testing.assert_close(modes[:, :, :3, :4], kept[:, :, :3, :4], rtol=0, atol=1e-12)  # the same function


# -------------------------------------------------------------------------------------------------------------- levels
def test_suggest_says_the_levels_and_refuses_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of digits, whose edges make them rougher than any field of finite variance but white noise."""
    recipe = str(tiny.recipe(folder.parent / "suggest", RECIPE))
    assert main(["suggest", recipe]) == 2
    assert "The noise is smoother than the data: in band 3" in capsys.readouterr().err
    words = ["suggest", recipe, "-n", "256", "--model.sde.noise", "White"]
    levels = ["--model.sde.schedule.sigma_min", "0.001", "--model.sde.schedule.sigma_max", "100.0"]
    assert main([*words, *levels]) == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("largest noise", "smallest noise", "ln P/S", "NCSNLangevin"))
    assert main([*words, "--model.sde.schedule.sigma_max", "2.0"]) == 2
    error = capsys.readouterr().err
    assert "In band" in error and "the largest noise has" in error


def test_wieners_preconditioner_is_a_part_of_a_recipe(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `suggest --wiener` prints trains, and comes back with its checkpoint."""
    tiny.recipe(folder.parent / "wiener", RECIPE).rename(folder.parent / "wiener" / "plain.yaml")
    assert main(["suggest", str(folder.parent / "wiener" / "plain.yaml"), "--wiener"]) == 0
    path = folder.parent / "wiener" / "tiny.yaml"
    path.write_text("base: plain.yaml\n" + capsys.readouterr().out)
    run.train(*tiny.settings(path, train__steps=1), folder.parent / "wiener" / "run")
    model = scorefield.load(folder.parent / "wiener" / "run")
    assert type(model.denoiser.precondition).__name__ == "Wiener"
    assert model.denoiser.precondition.points == 64 and model.denoiser.precondition.spectrum.exponent > 0
    assert bool(torch.isfinite(model.sample(2, shape=(1, 16, 16), chunk=2)).all())


def test_the_modes_beyond_the_training_grid_are_treated_as_asked(folder: Path, tmp_path: Path) -> None:
    drawn = {}
    """Where no spectrum is given, that of the run's own data."""
    spectrum = ["--beyond.spectrum", "{exponent: 3.0, bands: [0.1, 0.05, 0.02, 0.01]}"]
    for name, more in (("Extrapolate", []), ("BandLimited", []), ("WienerBeyond", []), ("WienerBeyond", spectrum)):
        out = tmp_path / (name + "-told" * bool(more))
        words = ["sample", str(folder), "-n", "2", "--resolution", "16", "--out", str(out), "--beyond", name, *more]
        assert main(words) == 0
        drawn[out.name] = torch.from_numpy(next(np.load(path) for path in sorted(out.rglob("*.npy"))))
    assert not torch.allclose(drawn["Extrapolate"], drawn["BandLimited"])
    assert not torch.allclose(drawn["Extrapolate"], drawn["WienerBeyond"])
    assert not torch.allclose(drawn["WienerBeyond-told"], drawn["WienerBeyond"])


def test_without_the_training_data_a_spectrum_has_to_be_given(model: Model) -> None:
    def load(split: str) -> FieldDataset:
        raise AbsentDataError("There is no data.npy.")

    with pytest.raises(InputError, match=r"not at hand \(There is no data.npy\): give --beyond.spectrum"):
        fitted(WienerBeyond(), model, load, (16, 16))
    assert fitted(BandLimited(), model, load, (16, 16)) == BandLimited()


def test_the_default_beyond_the_training_grid(model: Model, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each field's own power where it can be known; the network's guess, and a warning, where the data are not at hand."""

    def load(split: str) -> FieldDataset:
        raise AbsentDataError("There is no data.npy.")

    def data(split: str) -> FieldDataset:
        return open_checkpoint(folder).source().load(split)

    n = max(model.shape[1:])
    assert isinstance(fitted(None, model, data, (2 * n, 2 * n)), Continued)
    assert fitted(None, model, pytest.fail, (n, n)) is None
    assert fitted(None, model, pytest.fail, (n // 2, n // 2)) is None
    assert not caplog.records
    assert fitted(None, model, load, (2 * n, 2 * n)) is None
    assert "not at hand (There is no data.npy)" in caplog.text and "--beyond Extrapolate" in caplog.text
    for noise in (White(), GaussianField(Matern(0.1), Free())):  # another process there, or in no modes
        other = Model(SDE(EDM(), noise), model.denoiser.net, EDMPreconditioner(), model.normaliser, shape=model.shape)
        assert fitted(None, other, pytest.fail, (2 * n, 2 * n)) is None


def test_factorised_weights_are_resumed_bit_for_bit(tmp_path: Path) -> None:
    """Those of a U-NO, whose parts torch does not find by their names."""
    text = RECIPE.replace("class_path: FNO", "class_path: UNO").replace(
        "layers: 2", "sizes: [4], factorisation: tucker"
    )
    short = {"train__validate_every": 0, "train__preview_every": 0, "train__checkpoint_every": 1}
    path, found = tiny.recipe(tmp_path, text), []
    run.train(*tiny.settings(path, train__steps=2, **short), tmp_path / "whole")
    run.train(*tiny.settings(path, train__steps=1, **short), tmp_path / "parts")
    run.train(*tiny.settings(path, train__steps=2, **short), tmp_path / "parts", resume=True)
    for name in ("whole", "parts"):
        found.append(open_checkpoint(tmp_path / name, 2).checkpoint.tensors)
    assert any(name.endswith(".core") for name in found[0])
    assert found[0].keys() == found[1].keys()
    assert not [name for name, value in found[0].items() if not torch.equal(value, found[1][name])]
