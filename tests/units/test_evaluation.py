"""Evaluation tells samples from data, and copies from samples; its figures say what they were computed from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.data import Digits
from scorefield.evaluation import Reference, compare, gather


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return gather(Digits(), tmp_path_factory.mktemp("evaluation"), 50_000, print)


def test_the_classifier_knows_digits_and_is_kept(reference: Reference, tmp_path: Path) -> None:
    assert reference.classifier is not None and reference.classifier.accuracy >= 0.97
    path = tmp_path / "classifier.safetensors"
    reference.classifier.save(path)
    said: list[str] = []
    again = gather(Digits(), tmp_path, 50_000, said.append)
    assert not said and again.facts == reference.facts


def test_copies_blur_and_noise_are_told_from_data(reference: Reference) -> None:
    held_out = compare(reference.valid, reference)
    copies = compare(reference.train[:500], reference)
    blurred = compare(torch.nn.functional.avg_pool2d(reference.valid, 3, 1, 1), reference)
    noise = compare(torch.rand_like(reference.valid) * 16, reference)
    assert abs(held_out["memorisation"] - 1) < 1e-9 and copies["memorisation"] == 0
    assert 0.4 < held_out["train_accuracy"] < 0.6 and copies["train_accuracy"] < 0.1
    assert blurred["held_out_accuracy"] > 0.6 and noise["held_out_accuracy"] > 0.95
    assert held_out["fréchet"] < 0.5 * blurred["fréchet"] and held_out["fréchet"] < 0.1 * noise["fréchet"]
    assert held_out["classes"] == 10


def test_the_record_says_what_it_was_computed_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=1)
    command = ["evaluate", str(tmp_path / "run"), "-n", "12", "--seeds", "2", "--steps", "3"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "1-NN accuracy against held out" in printed and "5 network evaluations" in printed
    record = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert record["n"] == 12 and record["seeds"] == [0, 1] and record["evaluations_per_sample"] == 5
    assert {"data_sha256", "features_sha256", "moments_sha256", "n_train", "classifier_accuracy"} <= record[
        "reference"
    ].keys()
    assert "Heun" in record["sampler"] and len(record["model"]["weights"]) == 64
    for figure in record["figures"].values():
        assert figure["mean"] == pytest.approx(np.mean(figure["values"])) and len(figure["values"]) == 2
        assert figure["std"] == pytest.approx(np.std(figure["values"], ddof=1))
    before = (tmp_path / "run" / "metrics.json").read_text()
    assert main(command) == 0  # the samples are on disk, so nothing changes
    assert (tmp_path / "run" / "metrics.json").read_text() == before
