"""Averages by powers of time: each is the weighted sum that it is said to be, and any width is made of a few that were kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from scorefield.foundation.errors import InputError
from scorefield.jobs.sample import Sample
from scorefield.run.loading import load
from scorefield.training import checkpoint as checkpoints
from scorefield.training.ema import PowerEMA
from scorefield.training.profiles import Profile, combination, exponent

STEPS = 24
SHORT = {
    "train__steps": STEPS,
    "train__checkpoint_every": 10,
    "train__batch_size": 8,
    "train__optimiser__lr": 3e-2,
    "train__validate_every": 0,
    "train__preview_every": 0,
}


def average_of(walk: np.ndarray, width: float, step: int) -> np.ndarray:
    """Σ_k ((k/T)ᵉ − ((k − 1)/T)ᵉ) w_k, w_k the weights after step k."""
    ends = (np.arange(step + 1) / step) ** exponent(width)
    return np.diff(ends) @ walk[:step]


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.28])
def test_the_weights_of_steps_have_the_width_as_their_standard_deviation(width: float) -> None:
    ends = np.linspace(0, 1, 20001)
    weight, middle = np.diff(ends ** exponent(width)), (ends[1:] + ends[:-1]) / 2
    mean = weight @ middle
    assert (weight @ (middle - mean) ** 2) ** 0.5 == pytest.approx(width, rel=1e-5)


@pytest.mark.parametrize("width", [0.05, 0.15])
def test_tracking_gives_the_weighted_sum_over_all_steps(width: float) -> None:
    module = nn.Linear(2, 3).double()
    power, walk = PowerEMA(module, width), []
    for step in range(100):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        power.update(step)
        walk.append(module.weight.detach().flatten().numpy().copy())
    np.testing.assert_allclose(power.average["weight"].flatten().numpy(), average_of(np.stack(walk), width, 100))


def test_a_width_that_is_stored_is_made_exactly_and_others_the_better_the_more_is_stored() -> None:
    def distance(count: int, width: float, step: int = 1000) -> float:
        stored = [Profile(each, step * i // count) for i in range(1, count + 1) for each in (0.05, 0.1)]
        return combination(stored, Profile(width, step))[1]

    assert distance(8, 0.05) == distance(3, 0.1) == 0
    for width in (0.04, 0.07, 0.15, 0.2):
        distances = [distance(count, width) for count in (4, 8, 16)]
        assert distances[0] > 1.7 * distances[1] > 3 * distances[2]
    assert distance(8, 0.07) < 0.014 and distance(8, 0.15) < 0.034


def test_the_combination_is_the_average_of_weights_that_drift_and_diffuse() -> None:
    """Those of a training do both: the first is in the mean of an average, the second in its spread."""
    walk = np.cumsum(0.05 + np.random.default_rng(0).normal(size=(900, 400)), axis=0)
    stored = [Profile(width, 100 * i) for i in range(1, 10) for width in (0.05, 0.1)]
    kept = np.stack([average_of(walk, *profile) for profile in stored])
    for width in (0.04, 0.07, 0.15):
        exact, (coefficients, _) = average_of(walk, width, 900), combination(stored, Profile(width, 900))
        moved = np.linalg.norm(exact - walk[-1])
        assert np.linalg.norm(coefficients @ kept - exact) < 0.02 * moved, width


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    tiny.train(folder, folder / "run", train__ema_widths="[0.05,0.1]", **SHORT)
    return folder / "run"


def weights(run: Path, width: float | None = None) -> torch.Tensor:
    model = load(run, ema=width is not None, ema_width=width)
    return torch.cat([parameter.flatten().double() for parameter in model.denoiser.net.parameters()])


def test_a_trained_run_gives_any_width_near_that_of_a_run_which_tracked_it(tracked: Path, tmp_path: Path) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__ema_widths="[0.07,0.15]", **SHORT)
    last = weights(tracked)
    assert torch.equal(last, weights(tmp_path / "run"))  # what is tracked does not change a training
    for width in (0.07, 0.15):
        direct = weights(tmp_path / "run", width)
        assert float((weights(tracked, width) - direct).norm()) < 0.02 * float((last - direct).norm())
    stored = checkpoints.read(checkpoints.path_of(tracked / "checkpoints", STEPS)).group("ema-0.1")
    made = load(tracked, ema_width=0.1).denoiser.net.named_parameters()
    assert all(torch.equal(stored[name], parameter) for name, parameter in made)


def test_snapshots_are_small_and_the_same_after_a_resumption_that_finds_later_ones(
    tracked: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tracked, run)
    for step in (20, STEPS):
        checkpoints.path_of(run / "checkpoints", step).unlink()
    odd = checkpoints.path_of(run / "averages", 14)  # of a training that went another way from step 10 on
    shutil.copy(checkpoints.path_of(run / "averages", 15), odd)
    tiny.train(tmp_path, run, resume=True, train__ema_widths="[0.05,0.1]", **SHORT)
    files = sorted(path.name for path in (tracked / "averages").iterdir())
    assert len(files) == 8 and files == sorted(path.name for path in (run / "averages").iterdir())
    for name in files:
        one, other = (checkpoints.read(path / "averages" / name) for path in (run, tracked))
        assert one.sha256 == other.sha256
    assert torch.equal(weights(run, 0.1), weights(tracked, 0.1)) and torch.equal(weights(run), weights(tracked))
    numbers = sum(parameter.numel() for parameter in load(run).denoiser.net.parameters())
    assert max(path.stat().st_size for path in (run / "averages").iterdir()) < 4 * numbers + 20_000


def test_a_file_alone_gives_what_it_tracked_and_names_what_it_can(tracked: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.safetensors"
    shutil.copy(checkpoints.path_of(tracked / "checkpoints", STEPS), alone)
    assert torch.equal(weights(alone, 0.05), weights(tracked, 0.05))
    with pytest.raises(InputError, match=r"do not give a width of 0.2: give about 0.0\d+ to 0.1"):
        load(alone, ema_width=0.2)


def test_what_cannot_be_is_refused(tracked: Path, tmp_path: Path) -> None:
    checkpoint = checkpoints.read(checkpoints.path_of(tracked / "checkpoints", STEPS))
    old, facts = tmp_path / "old.safetensors", {k: v for k, v in checkpoint.facts.items() if k != "widths"}
    checkpoints.write(old, checkpoint.tensors, facts)
    for run, words, reason in (
        (old, {"ema_width": 0.1}, "tracked no averages by powers of time"),
        (tracked, {"ema_width": 0.4}, "give one from 0.005 to 0.28"),
        (tracked, {"ema_width": 0.1, "ema": False}, "leave --ema-width out"),
        (tracked, {"ema_width": 0.012}, "do not give a width of 0.012"),
    ):
        with pytest.raises(InputError, match=reason):
            Sample(run=run, n=1, out=tmp_path / "no", **words).run()
        assert not (tmp_path / "no").exists()
    with pytest.raises(InputError, match=r"has not tracked an average of width 0\.2"):
        tiny.train(tmp_path, tracked, resume=True, train__ema_widths="[0.2]", **SHORT)
    for widths, reason in (("[0.5]", "give one from"), ("[0.1,0.1]", "a width twice")):
        with pytest.raises(InputError, match=reason):
            tiny.train(tmp_path, tmp_path / "none", train__ema_widths=widths)


def test_draws_of_a_width_say_so(tracked: Path, tmp_path: Path) -> None:
    drawn = []
    for width in (0.05, 0.1):
        out = tmp_path / str(width)
        Sample(run=tracked, n=2, steps=2, ema_width=width, out=out).run()
        assert json.loads((out / "job.json").read_text())["ema_width"] == width
        drawn.append(np.load(out / "samples.npy"))
    assert np.abs(drawn[0] - drawn[1]).max() > 0
