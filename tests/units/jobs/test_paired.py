"""Draws given what goes with held-out fields, beside these fields."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.jobs.evaluation.paired import figures, sums

RECIPE = """
model:
  sde: {schedule: {class_path: EDM, init_args: {sigma_min: 0.05, sigma_max: 10.0}}}
  precondition: EDMPreconditioner
  normaliser: Standardise
  net: {class_path: UNet, init_args: {channels: 8, multipliers: [1], cond_channels: 1}}
data: {class_path: Functions, init_args: {path: PATH, key: u, given: a, valid: 8}}
train: {steps: 2, batch_size: 8, validate_every: 2, preview_every: 100, checkpoint_every: 2, accelerator: cpu}
"""


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("count", [8, 40])
def test_members_of_the_law_of_the_truth_have_the_figures_of_that_law(count: int) -> None:
    """Of a standard normal law the fair score is 1/√π whatever the number of members; gaps of the truth count nowhere."""
    drawn = normal(count + 1, 500, 1, 8, 4)
    truth = drawn[0].clone()
    truth[:, :, :3] = torch.nan
    found = figures([sums(drawn[1:, :200], truth[:200]), sums(drawn[1:, 200:], truth[200:])], count)
    for name in ("crps", "energy", "rmse", "relative_l2", "spread_skill", "interval", "nominal", "crps_error"):
        assert found[name] is not None, name
    assert found["crps"] == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)
    assert found["spread_skill"] == pytest.approx(1, abs=0.02)
    assert found["rmse"] == pytest.approx(math.sqrt(1 + 1 / count), abs=0.02)
    assert found["interval"] == pytest.approx(found["nominal"], abs=0.01)
    assert found["nominal"] == pytest.approx({8: 7 / 9, 40: 37 / 41}[count])
    narrow = figures([sums(0.5 * drawn[1:], truth)], count)
    assert (
        narrow["spread_skill"] < 0.6 and narrow["interval"] < found["interval"] - 0.2 and narrow["crps"] > found["crps"]
    )


def test_a_single_forecast_is_scored_by_its_error() -> None:
    truth = normal(6, 2, 5)
    found = figures([sums((truth + 0.5)[None], truth)], 1)
    assert found["crps"] == pytest.approx(0.5) == found["rmse"] and found["spread_skill"] is None is found["interval"]
    assert found["relative_l2"] == pytest.approx(float((0.5 * math.sqrt(10) / truth.flatten(1).norm(dim=1)).mean()))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, draws = tmp_path_factory.mktemp("paired"), np.random.default_rng(0)
    a = draws.normal(size=(40, 8, 8)).astype("f4")
    np.savez(folder / "data.npz", a=a, u=2 * a + 3 + 0.1 * draws.normal(size=a.shape).astype("f4"))
    path = tiny.recipe(folder, RECIPE.replace("PATH", str(folder / "data.npz")))
    tiny.run.train(*tiny.settings(path), folder / "run")
    return folder / "run"


def test_the_command_compares_draws_with_what_they_belong_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run), "-n", "6", "--members", "3", "--steps", "2"]
    assert main([*words, "--against", str(run)]) == 0
    record = json.loads((run / "paired.json").read_text())
    assert record["n"] == 6 and record["members"] == 3 and [*record["forecasts"]] == ["draws", str(run), "climatology"]
    drawn, other, climate = record["forecasts"].values()
    assert drawn["crps"] == pytest.approx(other["crps"]) and drawn["nominal"] == pytest.approx(0.5)
    assert climate["rmse"] == pytest.approx(2, abs=0.2)  # of u, whose standard deviation it is
    assert "climatology" in capsys.readouterr().out


def test_members_are_drawn_on_the_finer_grid_of_other_data(run: Path, tmp_path: Path) -> None:
    """With or without a way for the modes that the training grid lacked, which changes them."""
    draws, found = np.random.default_rng(1), {}
    a = draws.normal(size=(12, 16, 16)).astype("f4")
    np.savez(tmp_path / "fine.npz", a=a, u=2 * a + 3)
    words = [
        "evaluate",
        str(run),
        "-n",
        "4",
        "--members",
        "2",
        "--steps",
        "2",
        "--data",
        "Functions",
        "--data.valid",
        "4",
    ]
    words += ["--data.path", str(tmp_path / "fine.npz"), "--data.key", "u", "--data.given", "a"]
    for way in ([], ["--beyond", "Extrapolate"], ["--beyond", "WienerBeyond"]):
        assert main([*words, *way]) == 0
        found[" ".join(way)] = json.loads((run / "paired.json").read_text())["forecasts"]["draws"]["crps"]
    assert found[""] == found["--beyond Extrapolate"] != found["--beyond WienerBeyond"]


def test_what_cannot_be_compared_is_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run), "-n", "6"]
    for more, expected in (
        (["--members", "1"], "2"),
        (["--members", "2", "--curve"], "--curve"),
        (["--against", str(run)], "--members"),
    ):
        assert main([*words, *more]) == 2
        assert expected in capsys.readouterr().err


def test_fields_that_are_unknown_or_zero_spoil_no_figure_of_the_others() -> None:
    drawn = normal(5, 40, 1, 8, 4)
    truth = drawn[0].clone()
    expected = figures([sums(drawn[1:, 2:], truth[2:])], 4)
    truth[0], truth[1] = torch.nan, 0
    found = figures([sums(drawn[1:], truth)], 4)
    assert found["relative_l2"] == pytest.approx(expected["relative_l2"])
    for name in ("crps", "energy", "rmse", "crps_error"):
        assert found[name] == pytest.approx(expected[name], rel=0.1), name
