"""Evaluation tells samples from data, and copies from samples; its figures say what they were computed from."""

from __future__ import annotations

import json
import logging
import multiprocessing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Identity, Tensors
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.jobs.draws import Draws, read_samples
from scorefield.jobs.evaluate import Evaluate
from scorefield.jobs.evaluation.extract import Extractor, in_memory
from scorefield.jobs.evaluation.record import add_line, compare
from scorefield.jobs.evaluation.reference import Data, Reference, gather
from scorefield.jobs.options import Usable
from scorefield.metrics.features import Pixels, train_classifier
from scorefield.metrics.statistics import Statistics
from scorefield.model import Model
from scorefield.nn import NCSNpp
from scorefield.run import loading
from scorefield.run.runner import run_job


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return gather(Digits(), tmp_path_factory.mktemp("evaluation"), 50_000)


@pytest.mark.slow
def test_the_classifier_knows_digits(reference: Reference) -> None:
    classifier = data_of(reference).classifier
    assert classifier is not None and classifier.accuracy >= 0.97


def data_of(reference: Reference) -> Data:
    assert reference.data is not None
    return reference.data


def images(labels: torch.Tensor | None, n: int = 40) -> Tensors:
    return Tensors(torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(0)), labels, valid=10)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "scorefield.jobs.evaluation.reference.train_classifier", partial(train_classifier, steps=2, width=4)
    )


@pytest.fixture
def hardly_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A classifier of the usual width."""
    monkeypatch.setattr("scorefield.jobs.evaluation.reference.train_classifier", partial(train_classifier, steps=2))


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a step, which refused calls leave as it is."""
    folder = tmp_path_factory.mktemp("untrained")
    tiny.train(folder, folder / "run", train__steps=1, model__net__init_args__labels=10)
    return folder / "run"


@pytest.mark.usefixtures("quick")
def test_a_classifier_is_kept_for_the_data_and_labels_it_was_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scorefield")
    labels = torch.arange(40) % 2
    first = gather(images(labels), tmp_path, 50_000)
    assert len(caplog.messages) == 1 and gather(images(labels), tmp_path, 50_000).facts == first.facts
    assert len(caplog.messages) == 1
    other = gather(images(1 - labels), tmp_path, 50_000)
    assert len(caplog.messages) == 2 and other.facts["labels_sha256"] != first.facts["labels_sha256"]
    assert other.facts["data_sha256"] == first.facts["data_sha256"] and len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("quick")
def test_a_broken_classifier_is_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "scorefield")
    first = gather(images(torch.arange(40) % 2), tmp_path, 50_000)
    next(tmp_path.iterdir()).write_bytes(b"junk")
    assert gather(images(torch.arange(40) % 2), tmp_path, 50_000).facts == first.facts
    assert "does not hold a classifier" in caplog.text


@pytest.mark.usefixtures("quick")
def test_chosen_features_are_used_and_kept(tmp_path: Path) -> None:
    found = gather(images(torch.arange(40) % 2), tmp_path, 50_000, Extractor(Pixels(), keep=20))
    assert found.facts["features"] == "Pixels" and found.facts["n"] == 30 and found.facts["kept"] == 20
    assert data_of(found).classifier is not None and found.costly
    x = data_of(found).train.flatten(1).double()
    torch.testing.assert_close(found.statistics.mean, x.mean(0))
    (file,) = tmp_path.glob("reference-*.safetensors")
    assert Statistics.load(file).moments.hash == found.facts["moments_sha256"]


def test_data_without_labels_are_compared_by_a_projection(tmp_path: Path) -> None:
    source = Tensors(torch.randn(40, 1, 40, 40, generator=torch.Generator().manual_seed(0)), valid=10)
    facts = gather(source, tmp_path, 50_000).facts
    assert facts["features"] == "Projected" and facts["dimensions"] == 256 and facts["labels_sha256"] is None


def test_only_neighbours_are_limited_by_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scorefield")
    monkeypatch.setattr("scorefield.jobs.evaluation.reference.BYTES", 12 * 36 * 4)
    reference = gather(images(None), tmp_path, 50_000)
    assert len(data_of(reference).train) == 12 and "12 of 30 training fields" in caplog.text
    assert reference.facts["n"] == 30


@pytest.mark.slow
def test_copies_blur_and_noise_are_told_from_data(reference: Reference) -> None:
    def figures(x: torch.Tensor) -> dict[str, float]:
        return compare(reference.extractor(in_memory(x)), x, reference)

    data = data_of(reference)
    held_out, copies = figures(data.valid), figures(data.train[:500])
    blurred, noise = (
        figures(torch.nn.functional.avg_pool2d(data.valid, 3, 1, 1)),
        figures(16 * torch.rand(data.valid.shape, generator=torch.Generator().manual_seed(0))),
    )
    assert abs(held_out["memorisation"] - 1) < 1e-9 and copies["memorisation"] == 0
    assert 0.4 < held_out["train_accuracy"] < 0.6 and copies["train_accuracy"] < 0.1
    assert blurred["held_out_accuracy"] > 0.6 and noise["held_out_accuracy"] > 0.95
    assert held_out["fréchet"] < 0.5 * blurred["fréchet"] and held_out["fréchet"] < 0.1 * noise["fréchet"]
    assert held_out["classes"] == 10
    assert abs(held_out["kernel"]) < 0.02 * noise["kernel"]
    assert held_out["inception_score"] > 2 * noise["inception_score"]
    for name in ("precision", "recall", "density", "coverage"):
        assert noise[name] < 0.3 and held_out[name] > 0.6 and blurred[name] < held_out[name]


@pytest.mark.usefixtures("hardly_trained")
def test_the_record_says_what_it_was_computed_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1)
    command = ["evaluate", str(tmp_path / "run"), "-n", "12", "--seeds", "2", "--steps", "3"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "n = 12 ≤ 128 dimensions" in printed
    assert "1-NN accuracy against held out" in printed and "3 network evaluations" in printed
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["n"] == 12 and record["seeds"] == [0, 1] and record["evaluations_per_sample"] == 3
    assert {"data_sha256", "features_sha256", "moments_sha256", "n_train", "classifier_accuracy"} <= record[
        "reference"
    ].keys()
    assert "DPMSolverPP2M" in record["sampler"] and len(record["model"]["weights"]) == 64
    for figure in record["figures"].values():
        assert figure["mean"] == pytest.approx(np.mean(figure["values"])) and len(figure["values"]) == 2
        assert figure["std"] == pytest.approx(np.std(figure["values"], ddof=1))
    before = (tmp_path / "run" / "metrics.json").read_text()
    assert main(command) == 0  # the samples are on disk, so nothing changes
    assert (tmp_path / "run" / "metrics.json").read_text() == before


def refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


@pytest.mark.usefixtures("hardly_trained")
def test_the_record_of_one_seed_is_strict_json_in_the_run_folder(tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1)
    file = next((tmp_path / "run" / "checkpoints").glob("step-*.safetensors"))
    assert main(["evaluate", str(file), "-n", "4", "--seeds", "1", "--steps", "2"]) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=refuse)
    assert record["figures"]["fréchet"]["std"] is None
    assert "biased upward" in record["notes"]["samples"] and "n = 500" in record["notes"]["held_out_data"]
    assert [path.suffix for path in file.parent.iterdir()] == [".safetensors"]


@pytest.mark.parametrize("wrong", [["-n", "1"], ["--seeds", "0"], ["--chunk", "0"], ["--device", "abacus"]])
def test_wrong_numbers_are_refused_in_one_line(
    wrong: list[str], untrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(untrained), "-n", "4", "--steps", "2", *wrong]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("scorefield: error: ") and ("give" in said or "needs" in said)


@pytest.mark.parametrize("wrong", [["--checkpoints", "all", "--step", "1"], ["--checkpoints", "7"], ["--label", "10"]])
def test_a_refused_call_leaves_nothing(wrong: list[str], untrained: Path) -> None:
    assert main(["evaluate", str(untrained), "-n", "4", "--steps", "2", *wrong]) == 2
    assert not (untrained / "evaluation").exists() and not (untrained / "metrics.json").exists()


@pytest.mark.usefixtures("quick")
def test_python_and_the_command_line_do_the_same_and_data_may_lie_in_a_file(tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1)
    (tmp_path / "data.yaml").write_text("class_path: Digits\ninit_args: {valid: 400}\n")
    options = ["-n", "4", "--seeds", "1", "--steps", "2", "--features", "Pixels", "--data", str(tmp_path / "data.yaml")]
    assert main(["evaluate", str(tmp_path / "run"), *options]) == 0
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    again = Evaluate(run=tmp_path / "run", n=4, seeds=1, steps=2, features=Pixels(), data=Digits(valid=400)).run()
    assert again == record and record["reference"]["n_held_out"] == 400
    assert len((tmp_path / "run" / "evaluation" / "results.jsonl").read_text().splitlines()) == 1  # nothing new


def test_evaluations_at_once_lose_no_line(tmp_path: Path) -> None:
    def add(first: int) -> None:
        for number in range(first, first + 20):
            add_line(tmp_path / "results.jsonl", {"n": number, "figures": {"fréchet": {"mean": 1.0}}})

    processes = [multiprocessing.get_context("fork").Process(target=add, args=(20 * i,)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert sorted(row["n"] for row in rows) == list(range(60))


def test_a_line_that_was_cut_short_is_taken_out_and_nothing_lies_beside(tmp_path: Path) -> None:
    path, record = tmp_path / "evaluation" / "results.jsonl", {"n": 1, "figures": {"fréchet": {"mean": 1.0}}}
    add_line(path, record)
    whole = path.read_bytes()
    for cut in range(1, len(whole), 7):
        path.write_bytes(whole + whole[:-cut].replace(b"1", b"2"))
        add_line(path, record | {"n": 3})
        assert [json.loads(line)["n"] for line in path.read_text().splitlines()] == [1, 3]
    assert [other.name for other in path.parent.iterdir()] == ["results.jsonl"]


def test_devices_are_checked() -> None:
    Usable().check("--device", "cpu", False)
    for name in ("abacus", "cuda:99", "meta", ""):
        with pytest.raises(InputError, match="device"):
            Usable().check("--device", name, False)


# -------------------------------------------------------------------------------------------------- sampling as a job
@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.train(folder, folder / "run", train__steps=1, model__net__init_args__labels=10, model__sampler__steps=2)
    return loading.load(folder / "run")


def draw(folder: Path, model: Model, **changes: Any) -> torch.Tensor:
    run_job(
        Draws(out=folder, model=model, **{"n": 5, "sampler": model.sampler, "chunk": 2, **changes}), unit="", title=""
    )
    return read_samples(folder)


@pytest.mark.parametrize("wrong", [{"label": 10}, {"label": -2}])
def test_a_job_that_cannot_be_done_is_refused(wrong: dict[str, int], model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        draw(tmp_path / "s", model, **wrong)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b"\xff"])
def test_a_folder_with_a_broken_record_is_left_alone(junk: bytes, model: Model, tmp_path: Path) -> None:
    (tmp_path / "job.json").write_bytes(junk)
    with pytest.raises(InputError, match="holds something else"):
        draw(tmp_path, model)
    assert [path.name for path in tmp_path.iterdir()] == ["job.json"]


def test_a_class_is_sampled_by_its_label(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "knows_none", True)
    with torch.no_grad():  # a network that was hardly trained does not see its label yet
        for parameter in model.denoiser.net.parameters():
            parameter.add_(0.05)
    null, third = draw(tmp_path / "null", model), draw(tmp_path / "third", model, label=3)
    assert not torch.equal(null, third)
    assert torch.equal(third, model.sample(5, chunk=2, cond={"label": torch.full((5,), 3)}))
    assert json.loads((tmp_path / "third" / "job.json").read_text())["label"] == 3
    with pytest.raises(InputError, match="label"):
        draw(tmp_path / "third", model, label=4)
    assert model.sample(16, chunk=16).shape == (16, 1, 8, 8)


def test_what_the_network_lacks_is_said_in_one_line(tmp_path: Path) -> None:
    net = NCSNpp(1, 1, channels=8, blocks=1, multipliers=(1,), attention=())
    plain, given = (
        Model(SDE(EDM()), each, EDMPreconditioner(), Identity(), shape=(1, 8, 8))
        for each in (net, NCSNpp(1, 1, channels=8, blocks=1, multipliers=(1,), attention=(), cond_channels=2))
    )
    with pytest.raises(InputError, match="no classes"):
        draw(tmp_path / "s", plain, label=1)
    with pytest.raises(InputError, match="field of 2 channels"):
        draw(tmp_path / "s", given)
    assert not (tmp_path / "s").exists()
