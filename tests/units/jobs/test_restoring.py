"""Restoring as a user meets it: units, files, figures, repeated calls and mistakes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield
import tiny
from laws.cases import keys
from often import seldom
from scorefield.cli import main
from scorefield.data.single import read_field
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.guidance import Guided, MomentMatching
from scorefield.inverse import in_model_space
from scorefield.jobs import restoration as restoring
from scorefield.jobs.tasks import inpaint
from scorefield.metrics.image import error_by_spread, interval_coverage, psnr
from scorefield.operators import Coarsen
from scorefield.samplers import Heun, Sampler

F64 = torch.float64


pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restore")
    tiny.train(folder, folder / "run", train__steps=2, train__checkpoint_every=2)
    np.save(folder / "digit.npy", Digits().load("valid")[0].x.numpy())
    return folder / "run"


def job(run: Path, out: Path, *more: str) -> list[str]:
    image = str(run.parent / "digit.npy")
    return ["restore", str(run), image, "--out", str(out), "-n", "3", "--steps", "3", "--chunk", "3", *more]


def refuse(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and all(word.lower() in lines[0].lower() for word in words), lines


# ---------------------------------------------------------------------------------------------------------------- units
# -------------------------------------------------------------------------------------------------------------- figures
def test_the_interval_covers_what_it_says_for_every_number_of_members() -> None:
    """Of 20 000 Gaussian elements: 90 %, standard error 0.2 %; those that are determined are no part of it."""
    x = keys(9).randn((9, 20_000), like=torch.empty(0))
    for n in (2, 4, 8):
        assert abs(interval_coverage(x[1 : n + 1], x[:1]) - 0.9) < 0.01
    fixed = torch.cat((x, torch.zeros(9, 5)), dim=1)
    assert interval_coverage(fixed[1:], fixed[:1]) == interval_coverage(x[1:], x[:1])
    assert math.isnan(interval_coverage(torch.ones(2, 3), torch.ones(1, 3)))
    with pytest.raises(InputError):
        interval_coverage(x[:1], x[:1])


def test_errors_are_what_the_spread_says_for_draws_of_one_law() -> None:
    """Gaussian draws whose strength varies by 100: expected and found agree bin by bin, 20 000 elements in each."""
    strength = torch.logspace(-1, 1, 200_000)
    x = strength * keys(9).randn((9, 200_000), like=torch.empty(0))
    expected, found = error_by_spread(x[1:], x[:1], 10)
    assert (expected.diff() > 0).all() and (found / expected - 1).abs().max() < 0.04
    with pytest.raises(InputError):
        error_by_spread(x[:3], x[:1])


def test_psnr_is_the_peak_over_the_error_in_decibels() -> None:
    truth = torch.zeros(1, 1, 4)
    assert psnr(torch.full((1, 1, 4), 25.5), truth, 255.0).item() == pytest.approx(20.0)
    assert psnr(truth, truth, 255.0).item() == math.inf


# ---------------------------------------------------------------------------------------------------------------- files
def test_fields_are_read_in_every_layout(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    Image.fromarray(np.moveaxis(x, 0, -1)).save(tmp_path / "x.png")
    np.save(tmp_path / "first.npy", x)
    np.save(tmp_path / "last.npy", np.moveaxis(x, 0, -1))
    for name in ("x.png", "first.npy", "last.npy"):
        assert np.array_equal(read_field(tmp_path / name, (3, 5, 4))[0].numpy(), x), name
    np.save(tmp_path / "none.npy", x[0])
    assert np.array_equal(read_field(tmp_path / "none.npy", (1, 5, 4))[0, 0].numpy(), x[0])
    np.save(tmp_path / "complex.npy", x[0] + 1j * x[1])
    assert np.array_equal(read_field(tmp_path / "complex.npy", (2, 5, 4))[0].numpy(), x[:2])
    for shape in ((1, 5, 4), (3, 4, 5), (3, 5)):
        with pytest.raises(InputError, match="is needed"):
            read_field(tmp_path / "x.png", shape)


@pytest.mark.parametrize(
    "task",
    [
        ["inpaint", "--task.start", "[2,2]", "--task.size", "[3,3]"],
        seldom(["colourise", "--task.weights", "[1.0]"]),
        ["superres", "--task.factor", "2"],
        seldom(["deblur", "--task.std", "1.0", "--noise", "0.5"]),
        ["Coarsen", "--task.factor", "[2,4]", "--method", "PiGDM", "--method.sigma_data", "0.8"],
    ],
    ids=lambda words: words[0],
)
def test_every_task_writes_samples_mean_spread_and_figures(task: list[str], run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(job(run, out, "--degrade", "--task", *task)) == 0
    samples, mean, std = (np.load(out / f"{name}.npy") for name in ("samples", "mean", "std"))
    assert samples.shape == (3, 1, 8, 8)
    np.testing.assert_allclose(mean, samples.mean(0), atol=1e-4)
    np.testing.assert_allclose(std, samples.std(0, ddof=1), atol=1e-4)
    figures = json.loads((out / "restoring.json").read_text())
    truth = np.load(run.parent / "digit.npy")
    error = ((mean - truth) ** 2).mean()
    expected = (
        pytest.approx(10 * math.log10(np.ptp(truth) ** 2 / error), abs=1e-3) if error else None
    )  # JSON knows no ∞
    assert figures["psnr_of_mean"] == expected
    if std.any():  # else nothing is uncertain: of one channel, its colour is all there is
        assert 0 <= figures["coverage"] <= 1
    else:
        assert figures["coverage"] is None
    for name in ("picture", "mean", "samples", "sample-000", "sample-002"):
        assert min(Image.open(out / f"{name}.png").size) > 8


def test_what_is_known_is_kept_and_what_is_hidden_is_not_looked_at(run: Path, tmp_path: Path) -> None:
    """A masked image with NaN, or with anything else, in the hole: the same files; what is known comes back to rounding."""
    known = np.ones((8, 8), dtype=np.uint8) * 255
    known[2:5, 3:6] = 0
    Image.fromarray(known).save(tmp_path / "known.png")
    truth = np.load(run.parent / "digit.npy")
    results = []
    for i, hidden in enumerate((np.nan, 1e3)):
        y = np.where(known > 0, truth, hidden).astype(np.float32)
        np.save(tmp_path / "y.npy", y)
        words = job(run, tmp_path / f"out{i}", "--task=inpaint", "--task.known", str(tmp_path / "known.png"))
        words[2] = str(tmp_path / "y.npy")
        assert main([*words, "--method", "Replacement"]) == 0
        results.append(np.load(tmp_path / f"out{i}" / "samples.npy"))
    assert np.array_equal(*results)
    np.testing.assert_allclose(results[0][:, known[None] > 0], truth[known[None] > 0][None].repeat(3, 0), atol=1e-5)
    assert "psnr_of_mean" not in json.loads((tmp_path / "out0" / "restoring.json").read_text())


def test_particles_are_weighed_and_what_they_say_of_the_measurement_is_told(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["--degrade", "--task", "inpaint", "--task.start", "[2,2]", "--task.size", "[3,3]"]
    few = [*task, "--particles", "6", "--chunk", "2"]  # more draws than are evaluated at once
    words = job(run, tmp_path / "out", *few, "--noise", "2", "--method", "PiGDM")
    assert main(words) == 0
    figures = json.loads((tmp_path / "out/restoring.json").read_text())
    assert f"log p(y) in nats       {figures['log_evidence']:.2f}" in capsys.readouterr().out
    assert np.isfinite(figures["log_evidence"]) and 1 <= figures["effective"] <= 6
    assert np.isfinite(np.load(tmp_path / "out/samples.npy")).all()
    assert main(words) == 0  # there already
    refuse(capsys, [*words, "--particles", "7"], "particles")
    refuse(capsys, job(run, tmp_path / "none", *few), "--noise above 0")
    refuse(capsys, job(run, tmp_path / "none", *few, "--noise", "2", "--sampler", "Heun"), "take DPMSolverPP2M(eta=1)")


def test_a_measurement_that_is_not_linear_is_restored_and_a_method_for_linear_ones_refuses_it(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = ["--degrade", "--task", "Saturated", "--task.limit", "12"]
    words = job(run, tmp_path / "out", *task, "--noise", "2", "--method", "DPS", "--particles", "4")
    assert main(words) == 0
    y = np.load(tmp_path / "out/observation.npy")
    assert y.shape == (1, 8, 8) and np.load(tmp_path / "out/samples.npy").shape == (3, 1, 8, 8)
    truth = np.load(run.parent / "digit.npy")
    assert abs((y - 12 * np.tanh(truth / 12)).std() / 2 - 1) < 0.3
    refuse(capsys, job(run, tmp_path / "none", *task, "--noise", "2", "--method", "Proximal"), "linear A", "DPS")
    refuse(capsys, job(run, tmp_path / "none", *task), "needs a noise > 0")


def test_particles_of_each_class_in_turn_are_refused_as_they_weigh_one_law(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.train(tmp_path, tmp_path / "run", train__steps=2, train__preview_every=0, model__net__labels=10)
    np.save(tmp_path / "digit.npy", Digits().load("valid")[0].x.numpy())
    words = job(
        tmp_path / "run", tmp_path / "out", "--degrade", "--task", "superres", "--task.factor", "2", "--noise", "2"
    )
    refuse(capsys, [*words, "--particles", "4", "--label", "each"], "not each")
    assert main([*words, "--particles", "4", "--label", "3"]) == 0


def test_the_same_call_completes_a_job_and_another_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, task = tmp_path / "out", ["--degrade", "--task", "superres", "--task.factor", "2"]
    assert main(job(run, out, *task)) == 0
    before = np.load(out / "samples.npy")
    assert main(job(run, out, *task)) == 0  # it is there
    refuse(capsys, job(run, out, *task, "--noise", "1"), "another --out")
    refuse(capsys, job(run, out, "--degrade", "--task", "superres", "--task.factor", "4"), "another --out")
    refuse(capsys, job(run, out, *task, "--method", "DPS"), "another --out")
    assert np.array_equal(np.load(out / "samples.npy"), before)
    (out / "samples.npy").unlink()
    refuse(capsys, job(run, out, *task), "something else", "delete it")


def test_a_draw_depends_on_its_seed_and_number_alone(run: Path) -> None:
    model = scorefield.load(run)
    case = restoring.read_case(Coarsen(2), run.parent / "digit.npy", model.shape, degrade=True)
    guided = Guided(model.generative, in_model_space(model, case), MomentMatching())
    many = model.sample(5, seed=3, chunk=2, sampler=Sampler(3, Heun()), denoiser=guided)
    few = model.sample(2, seed=3, chunk=2, sampler=Sampler(3, Heun()), denoiser=guided)
    alone = model.sample(1, seed=3, chunk=1, sampler=Sampler(3, Heun()), denoiser=guided)
    assert torch.equal(many[:2], few)
    torch.testing.assert_close(alone, many[:1], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    "white", [np.int32(255), np.int64(1), np.uint8(2), np.uint16(65535), np.float32(255), np.bool_(True)]
)
def test_white_of_any_type_is_known(white: np.generic, tmp_path: Path) -> None:
    known = np.full((8, 8), white)
    known[2:5] = 0
    np.save(tmp_path / "known.npy", known)
    shown = inpaint(tmp_path / "known.npy")(torch.ones(1, 1, 8, 8))
    assert np.array_equal(shown[0, 0].numpy() > 0, known > 0)
    np.save(tmp_path / "known.npy", 0 * known)
    with pytest.raises(InputError, match="hides everything"):
        inpaint(tmp_path / "known.npy")


def test_where_the_truth_is_not_known_it_is_not_compared(run: Path, tmp_path: Path) -> None:
    """NaN over land: the figures are those of the sea. A constant truth has no peak, and an infinite PSNR is no JSON."""
    truth = np.load(run.parent / "digit.npy")
    sea = np.where(np.arange(8) < 5, truth, np.nan)
    hole = ["--task", "inpaint", "--task.start", "[0,5]", "--task.size", "[8,3]"]

    def figures(name: str, image: np.ndarray, *more: str) -> dict:
        np.save(tmp_path / f"{name}.npy", image)
        words = job(run, tmp_path / name, "--degrade", *more)
        words[2] = str(tmp_path / f"{name}.npy")
        assert main(words) == 0
        return json.loads((tmp_path / name / "restoring.json").read_text(), parse_constant=pytest.fail)

    found = figures("sea", sea, *hole, "--noise", "1")
    mean = np.load(tmp_path / "sea" / "mean.npy")
    error = ((mean - truth)[..., :5] ** 2).mean()
    assert found["psnr_of_mean"] == pytest.approx(10 * math.log10(np.ptp(truth[..., :5]) ** 2 / error), abs=1e-3)
    assert found["peak"] == np.ptp(truth[..., :5]) and 0 <= found["coverage"] <= 1
    assert "psnr_of_mean" not in figures("flat", np.full((1, 8, 8), 3.0, np.float32), *hole)
    exact = figures("exact", truth, "--task", "superres", "--task.factor", "1", "--method", "Replacement")
    assert exact["psnr_of_mean"] is None and exact["psnr_of_samples"] == [None] * 3


def test_the_checkpoint_with_the_best_figure_restores(run: Path, tmp_path: Path) -> None:
    task = ["--degrade", "--task", "superres", "--task.factor", "2"]
    assert main(job(run, tmp_path / "last", *task)) == main(job(run, tmp_path / "best", *task, "--best", "loss")) == 0
    assert np.array_equal(*(np.load(tmp_path / name / "samples.npy") for name in ("last", "best")))  # there is but one


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--task", "deblur", "--task.std", "1e9", "--degrade"], ["1000000000", "8, 8"]),
        (["--task", "superres", "--degrade", "--best", "fid"], ["no checkpoint", "fid"]),
        (["--task", "superes"], ["superes", "did you mean superres"]),
        (["--task", "superres", "--task.facto", "2"], ["facto"]),
        (["--task", "superres", "--task.factor", "3", "--degrade"], ["8, 8", "divisors"]),
        (["--task", "superres", "--task.factor", "2"], ["1×8×8", "1×4×4"]),
        (["--task", "colourise", "--degrade"], ["3 weights"]),
        (["--task", "inpaint"], ["--task.known"]),
        (["--task", "deblur", "--degrade", "--method", "Replacement"], ["no projection", "MomentMatching"]),
        (["--task", "deblur", "--noise", "-1"], ["--noise is -1", "at least 0"]),
        (["--task", "deblur", "--degrade", "--truth", "x.npy"], ["leave out --truth"]),
        (["--task", "deblur", "-n", "0"], ["--samples is 0"]),
        (["--task", "os.system"], ["os.system"]),
    ],
)
def test_mistakes_are_named(
    more: list[str], words: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(capsys, job(run, tmp_path / "out", *more), *words)
    assert not (tmp_path / "out" / "samples.npy").exists()
