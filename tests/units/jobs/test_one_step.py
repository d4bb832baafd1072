"""A network trained by the fair CRPS is a run like any other, and refuses at once what it cannot do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from scorefield.cli import main
from weather import dataset, described, recipe, save


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained on fields with a sea."""
    folder = tmp_path_factory.mktemp("one-step")
    fine = dataset(40)
    fine["tas"].values[:, :3, :5] = np.nan
    content = recipe(described(save(fine, folder / "fine.nc"))) | {"base": ["parts/edm-fields.yaml", "parts/crps.yaml"]}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "once")]) == 0
    return folder / "once"


def test_it_trains_resumes_and_draws_like_any_other(run: Path, tmp_path: Path) -> None:
    assert main(["train", "--out", str(run), "--resume", "--train.steps", "3"]) == 0
    words = ["downscale", str(run), "valid", "--members", "3", "--reach", ".inf", "--truth", str(tmp_path / "truth.nc")]
    for name, chunk in (("a.nc", "4"), ("b.nc", "5")):
        assert main([*words, "--chunk", chunk, "--out", str(tmp_path / name)]) == 0
    with xr.open_dataset(tmp_path / "a.nc") as a, xr.open_dataset(tmp_path / "b.nc") as b:
        first, again = a["tas"].values, b["tas"].values
    assert np.allclose(first, again, atol=1e-3, equal_nan=True)
    assert np.isnan(first[:, :, :3, :5]).all() and not np.isnan(first[:, :, 3:]).any()
    assert (first.std(0)[:, 3:] > 0).mean() > 0.5  # of two steps of training, and stored in single precision
    assert main(["verify", str(tmp_path / "a.nc"), str(tmp_path / "truth.nc"), "--out", str(tmp_path / "scores")]) == 0


@pytest.mark.parametrize(
    "words",
    [["downscale", "{run}", "valid", "--steps", "2"], ["downscale", "{run}", "valid", "--corrector", "Langevin"],
     ["likelihood", "{run}"], ["sample", "{run}", "-n", "1", "--given", "valid", "--steps", "3"]],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_before_the_first_byte(
    words: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [word.format(run=run) for word in words]
    assert main([*command, "--out", str(tmp_path / "out.nc")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "draws in one evaluation" in said and not [*tmp_path.iterdir()]


@pytest.mark.parametrize("words", [["--train.loss", "Denoising"], ["--model.precondition", "EDMPreconditioner"]])
def test_a_loss_that_does_not_go_with_the_preconditioner_is_refused(
    words: list[str], run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(run.parent / "recipe.yaml"), *words, "--out", str(tmp_path / "out")]) == 2
    assert "do not go together" in capsys.readouterr().err and not [*tmp_path.iterdir()]
