"""The verb `likelihood`: one file with every figure and what it was computed from."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy import stats

import tiny
from scorefield import load
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import VP
from scorefield.core.sde import SDE
from scorefield.data import Standardise
from scorefield.data.batch import Batch
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.transform import Chain, Log1p
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.jobs.dequantised import begin, dequantised
from scorefield.jobs.likelihood import Densities, Likelihood, measure, summary
from scorefield.model import Model
from scorefield.nn import NCSNpp
from scorefield.run.loading import open_checkpoint
from scorefield.samplers import ProbabilityFlow, TruncatedNormal
from weather import NET, dataset, described, recipe, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("likelihood")
    tiny.train(folder, folder / "run", train__steps=30, train__checkpoint_every=30)
    return folder / "run"


def call(run: Path, out: Path, *more: str) -> dict:
    assert (
        main(["likelihood", str(run), "-n", "4", "--repeats", "2", "--tolerance", "0.1", "--out", str(out), *more]) == 0
    )
    return json.loads(out.read_text())


def test_the_file_tells_everything(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = call(run, tmp_path / "a.json")
    nats = torch.tensor(record["nats_per_field"], dtype=torch.float64)
    assert nats.shape == (4, 2) and len(record["indices"]) == 4
    assert record["nats"]["mean"] == pytest.approx(nats.mean().item())
    assert record["nats"]["standard_error"] == pytest.approx(nats.mean(1).std().item() / math.sqrt(4))
    assert record["nats"]["spread_over_repeats"] == pytest.approx(nats.mean(0).std().item())
    bits = record["bits_per_dimension"]  # the digits are whole numbers: quantum 1, and no term of it
    assert bits["mean"] == pytest.approx(-record["nats"]["mean"] / 64 / math.log(2))
    assert record["dimension"] == 64 and record["quantum"] == 1 and record["split"] == "valid"
    assert record["evaluations"]["max"] >= record["evaluations"]["mean"] >= 7
    assert record["model"]["step"] == 30 and len(record["model"]["weights"]) == 64 and record["model"]["ema"] is True
    assert "bits per dimension" in capsys.readouterr().out


def test_images_of_another_depth_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for depth in (np.uint8, np.uint16):
        (tmp_path / depth.__name__).mkdir()
        for i in range(6):
            Image.fromarray(np.full((8, 8), 9 * i, depth)).save(tmp_path / depth.__name__ / f"{i}.png")
    data = {name: f"--data.path={tmp_path / name}" for name in ("uint8", "uint16")}
    images = ["--data=Images", "--data.valid=2"]
    small = ["--train.steps=1", "--train.batch_size=2", "--train.accelerator=cpu", "--out", str(tmp_path / "run")]
    assert main(["train", str(tiny.recipe(tmp_path)), *images, data["uint16"], *small]) == 0
    run = str(tmp_path / "run")
    words = ["likelihood", run, *images, data["uint8"], "--out", str(tmp_path / "a.json")]
    assert main(words) == 2
    assert "The data: 8 bits, where those of training had 16: give --data.depth 16" in capsys.readouterr().err
    shallow, out = str(tmp_path / "uint8" / "1.png"), ["--out", str(tmp_path / "restored")]
    for words in (["restore", run, shallow, "--task", "superres", "--degrade"], ["denoise", run, shallow]):
        assert main([*words, *out]) == 2
        error = capsys.readouterr().err
        assert f"{shallow}: 8 bits, where those of training had 16: save it with 16 bits" in error


@pytest.mark.usefixtures("unchecked")
def test_a_fields_density_depends_on_seed_field_and_repeat_alone(run: Path, tmp_path: Path) -> None:
    """Another chunk changes the last bits of a matrix product and nothing else; more fields, nothing of the first."""
    one = call(run, tmp_path / "one.json")
    again, other = call(run, tmp_path / "again.json"), call(run, tmp_path / "other.json", "--seed", "1")
    assert one["nats_per_field"] == again["nats_per_field"] != other["nats_per_field"]
    chunked = call(run, tmp_path / "chunked.json", "--chunk", "2")
    np.testing.assert_allclose(chunked["nats_per_field"], one["nats_per_field"], rtol=0, atol=64 * 1e-2)
    fewer = call(run, tmp_path / "fewer.json", "--chunk", "2", "--repeats", "1")
    assert [row[:1] for row in chunked["nats_per_field"]] == fewer["nats_per_field"]


def test_probes_and_data_are_chosen(run: Path, tmp_path: Path) -> None:
    few = ("-n", "1", "--repeats", "1", "--tolerance", "0.1")
    record = call(run, tmp_path / "normal.json", "--probes", "Normal", "--data", "Digits", "--split", "train", *few)
    assert "Normal" in record["flow"] and record["split"] == "train" and record["n"] == 1
    assert "count=3" in call(run, tmp_path / "sphere.json", "--probes", "Sphere", "--probes.count", "3", *few)["flow"]


class Continuous(FieldDataset):
    def __init__(self, mask: torch.Tensor | None = None) -> None:
        self.mask = mask

    def __len__(self) -> int:
        return 3

    def gather(self, indices: torch.Tensor) -> Batch:
        return Batch(8 + indices[:, None, None, None].expand(-1, 1, 8, 8).float(), mask=self.mask)


def test_continuous_data_have_nats_but_no_bits(run: Path) -> None:
    flow = ProbabilityFlow(1e-2)
    record = measure(load(run), Continuous(), 10, repeats=1, flow=flow)
    assert "bits_per_dimension" not in record and record["n"] == 3
    assert record["nats"]["spread_over_repeats"] is None  # of a single repeat
    with pytest.raises(InputError, match="mask"):
        measure(load(run), Continuous(torch.zeros(3, 1, 8, 8)), 10, repeats=1, flow=flow)


def test_mistakes_are_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, folder = tmp_path / "kept.json", tmp_path / "new"
    out.write_text("kept")
    np.savez(tmp_path / "colours.npz", x=np.zeros((4, 8, 8, 3), np.float32))
    colours = ["--data", "Arrays", "--data.path", str(tmp_path / "colours.npz"), "--data.valid", "2"]
    for arguments, words in (
        (["--out", str(out)], "give another --out"),
        (["--out", str(folder / "x"), "--tolerance", "0"], "--tolerance is 0"),
        (["--out", str(folder / "x"), "--repeats", "0"], "at least 1"),
        (["--out", str(folder / "x"), "--probes", "Sphere", "--probes.count", "0"], "At least one probe"),
        (["--out", str(folder / "x"), "--split", "test"], "split"),
        (["--out", str(folder / "x"), "--resolutions", "4", "8"], "leave --resolutions out"),
        (["--out", str(folder / "x"), *colours], "fields of 3×8×8, and the model's of 1×8×8"),
        ([], "out"),
    ):
        capsys.readouterr()
        assert main(["likelihood", str(run), *arguments]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
        assert len(lines) == 1 and words in lines[0], lines
    assert out.read_text() == "kept" and not folder.exists()


@pytest.mark.usefixtures("unchecked")
def test_training_brings_the_density_up(run: Path, tmp_path: Path) -> None:
    """30 steps of training against the untrained network, which stands for a standard normal, on the same fields and draws."""
    trained = load(run)
    before = load(run)
    for parameter in before.denoiser.parameters():
        parameter.zero_()
    fields, flow = Digits().load("valid"), ProbabilityFlow(1e-2)
    first, second = (measure(model, fields, 8, repeats=1, flow=flow)["nats"]["mean"] for model in (before, trained))
    assert second > first


def test_summary_of_one_value() -> None:
    assert summary(torch.tensor([[2.0]])) == {"mean": 2.0, "standard_error": None, "spread_over_repeats": None}


@pytest.mark.usefixtures("unchecked")
def test_an_interrupted_job_goes_on_and_gives_the_same(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, out = call(run, tmp_path / "whole.json", "--chunk", "2"), tmp_path / "out.json"
    arguments = ["likelihood", str(run), "-n", "4", "--repeats", "2", "--tolerance", "0.1", "--chunk", "2"]
    arguments += ["--out", str(out)]
    compute, calls = Densities.compute, []

    def counted(self: Densities, number: int) -> object:
        calls.append(number)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return compute(self, number)

    monkeypatch.setattr(Densities, "compute", counted)
    assert main(arguments) == 130 and not out.exists() and len(calls) == 4
    assert main([*arguments, "--seed", "1"]) == 2 and "another job" in capsys.readouterr().err
    assert main(arguments) == 0 and calls == [0, 1, 2, 3, 3]
    assert json.loads(out.read_text()) == whole
    assert main(arguments) == 0 and len(calls) == 5  # the result is there
    assert main([*arguments, "--seed", "1"]) == 2 and "another job" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "whole.json"]


@pytest.mark.usefixtures("unchecked")
def test_a_conditional_run_is_given_its_conditions_in_data_units(tmp_path: Path) -> None:
    """What the command line computes is what `Model.log_prob` does with the predictors as they are in the file, in K."""
    fine = save(dataset(40), tmp_path / "fine.nc")
    content = recipe(described(fine))
    content["model"]["net"] = {
        **content["model"]["net"],
        "init_args": NET | {"init_scale": 1.0},
    }  # that x̂ depends on them
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", str(tmp_path / "recipe.yaml"), "--out", str(tmp_path / "run")]) == 0
    out, options = tmp_path / "out.json", ["-n", "2", "--repeats", "1", "--tolerance", "1e-2"]
    assert main(["likelihood", str(tmp_path / "run"), "--out", str(out), *options]) == 0
    record = json.loads(out.read_text())
    opened = open_checkpoint(tmp_path / "run")
    model, indices = opened.model(ema=True), record["indices"]
    batch = opened.source().load("valid").gather(torch.tensor(indices))
    assert float(batch.cond["field"].mean()) > 200

    def nats(cond: dict[str, torch.Tensor]) -> torch.Tensor:
        keys = Generators((0, index, 0, Stream.PROBE) for index in indices)
        return model.log_prob(batch.x, cond=cond, generator=keys, flow=ProbabilityFlow(1e-2)).nats

    expected = nats(dict(batch.cond))
    torch.testing.assert_close(torch.tensor(record["nats_per_field"])[:, 0].double(), expected, rtol=1e-4, atol=0.1)
    assert (nats({"field": batch.cond["field"] + 5}) - expected).abs().min() > 1


@pytest.mark.usefixtures("unchecked")
def test_python_and_the_command_line_do_the_same(run: Path, tmp_path: Path) -> None:
    asked = Likelihood(run=run, n=4, repeats=2, tolerance=0.1, out=tmp_path / "python.json")
    assert asked.run() == call(run, tmp_path / "out.json")


def test_a_truncated_normal_begins_at_its_level_and_says_so(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run's noise goes down to 0.01, less than the 0.3 quanta of 1/6 that are asked for."""
    record = call(run, tmp_path / "a.json", "--dequantisation", "TruncatedNormal")
    assert "dequantised by TruncatedNormal(width=0.3)" in capsys.readouterr().out
    step = 1 / float(load(run).normaliser.scale)
    ratio = float(record["flow"].split("ratio_min=")[1].split(",")[0])
    assert ratio == pytest.approx(0.3 * step, rel=1e-4) and record["dequantisation"].startswith("Truncated")
    narrow = call(run, tmp_path / "b.json", "--dequantisation", "TruncatedNormal", "--dequantisation.width", "0.1")
    assert narrow["nats"]["mean"] != record["nats"]["mean"]
    assert main(["likelihood", str(run), "--dequantisation.width", "0.1", "--out", str(tmp_path / "c.json")]) == 2


class Coloured(FieldDataset):
    """Two channels of whole numbers, of which one has a tenth of the other's spread."""

    quantum = 1.0

    def __len__(self) -> int:
        return 256

    def gather(self, indices: torch.Tensor) -> Batch:
        x = torch.randn(len(indices), 2, 8, 8, generator=torch.Generator().manual_seed(0))
        return Batch((x * torch.tensor([40.0, 4.0])[:, None, None]).round())


@pytest.mark.usefixtures("unchecked")
def test_noise_in_cells_is_that_of_the_flow_in_every_channel() -> None:
    """In model space σ is that of the first level for both, cut off where the cell is narrower; the log density is in quanta."""
    fields, key = Coloured(), torch.stack((torch.arange(256), torch.zeros(256, dtype=torch.long)), dim=1)
    batch = replace(fields.gather(torch.arange(256)), key=key)
    net = NCSNpp(2, 2, channels=8, multipliers=(1,), blocks=1, attention=())
    model = Model(SDE(VP()), net, EDMPreconditioner(1.0), Standardise(), shape=(2, 8, 8))
    model.normaliser.fit([batch])
    flow = begin(TruncatedNormal(0.1), ProbabilityFlow(), model, fields)
    ratio = 0.1 * math.sqrt(1 / 40 / 4)
    assert flow.ratio_min == pytest.approx(ratio, rel=0.05)
    noisy, log_density = dequantised(TruncatedNormal(0.1), model, batch, 1.0, flow, 0)
    error = (model.normaliser(noisy.x) - model.normaliser(batch.x)).double().std((0, 2, 3))
    spread = flow.ratio_min / model.normaliser(torch.ones(1, 2, 1, 1)).sub(model.normaliser(torch.zeros(1, 2, 1, 1)))
    laws = [stats.truncnorm(-0.5 / s, 0.5 / s, scale=s) for s in spread.flatten().tolist()]  # cut off at 1.6 and 16 σ
    stds = [law.std() * flow.ratio_min / s for law, s in zip(laws, spread.flatten().tolist(), strict=True)]
    assert error.tolist() == pytest.approx(stds, rel=0.02) and laws[0].std() < 0.8 * spread[0, 0]
    assert log_density.mean().item() / 64 == pytest.approx(-sum(law.entropy() for law in laws), abs=0.02)


@pytest.mark.usefixtures("unchecked")
def test_noise_in_cells_of_sixteen_bits_is_not_rounded_away(caplog: pytest.LogCaptureFixture) -> None:
    """A channel of spread 6 about 60,000, where float32 has steps of 1/256 of a quantum; scales so far apart are told of."""
    key = torch.stack((torch.arange(64), torch.zeros(64, dtype=torch.long)), dim=1)
    x = torch.randn(64, 2, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([5e3, 6.0])[:, None, None]
    batch = Batch((x + torch.tensor([32000.0, 60000.0])[:, None, None]).round(), key=key)
    net = NCSNpp(2, 2, channels=8, multipliers=(1,), blocks=1, attention=())
    model = Model(SDE(VP()), net, EDMPreconditioner(1.0), Standardise(), shape=(2, 8, 8))
    model.normaliser.fit([batch])
    fields = ArrayFields(batch.x.numpy().astype(np.uint16), "first")
    flow = begin(TruncatedNormal(0.03), ProbabilityFlow(), model, fields)
    assert "channels differ in scale" in caplog.text
    noisy, log_density = dequantised(TruncatedNormal(0.03), model, batch, 1.0, flow, 0)
    noise = noisy.x - batch.x.double()
    spread = flow.ratio_min * model.normaliser.scale.double()
    laws = [stats.truncnorm(-0.5 / s, 0.5 / s, scale=s) for s in spread.tolist()]
    for law, found in zip(laws, noise.double().unbind(1), strict=True):
        assert found.std().item() == pytest.approx(law.std(), rel=0.03)
    exact = sum(
        law.logpdf(found.numpy()).sum((1, 2)) for law, found in zip(laws, noise.double().unbind(1), strict=True)
    )
    np.testing.assert_allclose(log_density.numpy(), exact, atol=0.01)


@pytest.mark.usefixtures("unchecked")
def test_what_has_no_cells_and_what_has_uneven_ones_is_refused(run: Path) -> None:
    with pytest.raises(InputError, match="leave --dequantisation out"):
        measure(load(run), Continuous(), 3, repeats=1, flow=ProbabilityFlow(1e-2), dequantisation=TruncatedNormal())
    batch = Coloured().gather(torch.arange(256))
    net = NCSNpp(2, 2, channels=8, multipliers=(1,), blocks=1, attention=())
    model = Model(SDE(VP()), net, EDMPreconditioner(1.0), Chain([Log1p(), Standardise()]), shape=(2, 8, 8))
    model.normaliser.fit([replace(batch, x=batch.x.abs())])
    with pytest.raises(InputError, match="not equally far apart in the units of Chain"):
        begin(TruncatedNormal(), ProbabilityFlow(), model, Coloured())


def test_noise_that_is_a_field_has_no_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"train__steps": 2, "train__validate_every": 0, "train__preview_every": 0}
    noise = {"model__sde__noise": "GaussianField", "model__sde__noise__density": "Matern"}
    tiny.train(tmp_path, tmp_path / "run", **options, **noise, model__sde__noise__density__length=0.2)
    words = ["likelihood", str(tmp_path / "run"), "--dequantisation", "TruncatedNormal", "--resolutions", "4", "8"]
    assert main([*words, "--out", str(tmp_path / "a.json")]) == 2
    assert "take --dequantisation Uniform" in capsys.readouterr().err
