"""Functions of one and of three axes go through every verb that functions of two do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from scorefield.cli import main
from scorefield.core.noise import GaussianField, Matern
from scorefield.foundation.random import Generators
from scorefield.run.loading import load
from scorefield.samplers import ProbabilityFlow

pytest.importorskip("neuralop")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]
RECIPE = """
base: [parts/functions.yaml]
model:
  sde:
    schedule: {class_path: scorefield.EDM, init_args: {sigma_min: 0.002, sigma_max: 40.0}}
    noise:
      class_path: scorefield.GaussianField
      init_args: {density: {class_path: scorefield.Matern, init_args: {length: 0.2, smoothness: 1.0}}}
  net: {class_path: scorefield.UNO, init_args: {channels: 8, modes: 8, sizes: [4]}}
  sampler: {steps: 4}
data: {class_path: scorefield.data.Functions, init_args: {path: PATH, valid: 12}}
train: {steps: 4, batch_size: 8, log_every: 1, validate_every: 4, validate_on: 4, preview_every: 4, checkpoint_every: 2}
"""


@pytest.mark.parametrize("rank", [1, 3])
def test_every_verb_takes_functions_of(rank: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = {1: 16, 3: 8}[rank]
    smooth, keys = GaussianField(Matern(0.4, 2.5)), Generators((0, i) for i in range(60))
    x = smooth.sample((60, 1, *(n,) * rank), generator=keys, like=torch.empty(0)).exp().numpy()
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "field.npy", x[0])
    recipe, run = str(tiny.recipe(tmp_path, RECIPE.replace("PATH", str(tmp_path / "x.npy")))), str(tmp_path / "run")
    fine = ["--resolution", str(2 * n)]

    def call(*words: str) -> str:
        capsys.readouterr()
        code = main([*words])
        said = capsys.readouterr()
        assert code == 0, (words, said.err[-400:])
        return said.out + said.err

    call("check-data", "Functions", "--data.path", str(tmp_path / "x.npy"), "--preview", str(tmp_path / "preview.png"))
    call("suggest", recipe, "-n", "48")
    call("train", recipe, "--out", run)
    call("train", "--out", run, "--resume", "--train.steps", "6")
    for name, more in (("same", []), ("fine", fine), ("limited", [*fine, "--beyond", "BandLimited"])):
        call("sample", run, "-n", "3", "--out", str(tmp_path / name), *more)
        drawn = np.load(tmp_path / name / "samples.npy")
        assert drawn.shape == (3, 1, *((n if name == "same" else 2 * n),) * rank) and np.isfinite(drawn).all()
    call("evaluate", run, "-n", "12", "--seeds", "1", "--comparison", "Spectra")
    figures = json.loads((tmp_path / "run" / "evaluation" / "results.jsonl").read_text().splitlines()[-1])["figures"]
    assert {"spectrum", "values"} <= figures.keys()
    call("evaluate", run, "--loss", "valid", "-n", "4")
    call(
        "likelihood",
        run,
        "-n",
        "2",
        "--resolutions",
        str(n // 2),
        str(n),
        "--out",
        str(tmp_path / "l.json"),
    )
    call("plot", run, "--out", str(tmp_path / "pictures"))
    call("superres", run, str(tmp_path / "field.npy"), *fine, "-n", "2", "--out", str(tmp_path / "superres"))
    box = ["--task.start", str([2] * rank), "--task.size", str([3] * rank)]
    call(
        "restore", run, str(tmp_path / "field.npy"), "--task", "inpaint", *box, "-n", "2", "--out", str(tmp_path / "r")
    )
    call(
        "restore",
        run,
        str(tmp_path / "field.npy"),
        "--task",
        "deblur",
        "--noise",
        "0.1",
        "-n",
        "2",
        "--out",
        str(tmp_path / "d"),
    )
    y = [run, str(tmp_path / "field.npy"), "--task", "inpaint", *box, "--noise", "0.1"]
    call("evidence", *y, "--repeats", "2", "--particles", "4", "--out", str(tmp_path / "evidence.json"))
    calibrated = ["calibrate", run, "--task", "inpaint", *box, "--noise", "0.1", "--fields", "9", "-n", "3"]
    call(*calibrated, "--steps", "2", "--out", str(tmp_path / "calibration.json"))
    np.save(tmp_path / "holes.npy", np.where(np.random.default_rng(0).random(x[:24].shape) < 0.3, np.nan, x[:24]))
    data = ["--data", "Functions", "--data.path", str(tmp_path / "holes.npy")]
    call("complete", run, *data, "--steps", "2", "--out", str(tmp_path / "completed"))
    call("denoise", run, str(tmp_path / "field.npy"), "--noise", "0.1", "--out", str(tmp_path / "denoised"))
    call("tune-sampler", run, "--steps", "2", "--n", "2", "--fine", "5", "--rounds", "1")
    call("sample", run, "-n", "2", "--steps", "2", "--tuned", "--out", str(tmp_path / "tuned"))
    call(
        "make-reference",
        "--data",
        "Functions",
        "--data.path",
        str(tmp_path / "x.npy"),
        "--out",
        str(tmp_path / "x.npz"),
    )
    call("compare", str(tmp_path / "same"), str(tmp_path / "x.npz"), "--out", str(tmp_path / "compared.json"))
    short = ["--train.steps", "1", "--train.batch_size", "4", "--train.validate_on", "2", "--train.accelerator", "cpu"]
    call("train", "flow-map", "--init", run, *short, "--out", str(tmp_path / "map"))
    call("sample", str(tmp_path / "map"), "-n", "2", "--steps", "2", *fine, "--out", str(tmp_path / "jumps"))
    model, field = load(run), torch.from_numpy(x[:1])
    back = model.decode(model.encode(field, flow=ProbabilityFlow(1e-3)), flow=ProbabilityFlow(1e-3))
    torch.testing.assert_close(back, field, atol=0.05 * float(field.std()), rtol=0)
    call("report", run, "--out", str(tmp_path / "report.html"))
