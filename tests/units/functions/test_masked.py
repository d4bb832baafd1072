"""Fields of a region from file to figures: train, sample, compare, restore, score; NaN is what lies outside."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.cli import main
from scorefield.core.noise import MaskedField, runs_of
from scorefield.data import FieldDataset, Source, Tensors
from scorefield.data.source import Split
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.jobs.evaluation.reference import gather
from scorefield.metrics.comparison import Spectra
from scorefield.run.loading import load
from scorefield.samplers.likelihood import ProbabilityFlow

SEA = np.ones((12, 16), bool)
SEA[:7, 8] = SEA[9:, 2:5] = SEA[0] = False
RECIPE = """
base: [parts/functions.yaml, region.yaml]
model:
  sde: {schedule: {init_args: {sigma_min: 0.02, sigma_max: 40.0}}}
  net: {class_path: FNO, init_args: {channels: 4, modes: 6, layers: 1}}
  sampler: {steps: 3}
data: {class_path: Functions, init_args: {path: sea.npz, key: u, channel_axis: none, valid: 16}}
train: {steps: 2, batch_size: 8, validate_every: 2, preview_every: 2, checkpoint_every: 2, accelerator: cpu}
"""


def fields(n: int) -> np.ndarray:
    noise = MaskedField(SEA.shape, runs_of(SEA), 0.5, (0.75, 1.0))
    drawn = noise.sample((n, 1, *SEA.shape), generator=Generators((0, i) for i in range(n)), like=torch.empty(0))
    return np.where(SEA, 280 + (0.5 * drawn[:, 0]).exp().numpy(), np.nan).astype("f4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sea")
    np.savez(place / "sea.npz", u=fields(80))
    return place


@pytest.fixture(autouse=True)
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


@pytest.fixture(scope="module")
def run(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "region.yaml").write_text("{}\n")
        (folder / "sea.yaml").write_text(RECIPE)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main(["suggest", "sea.yaml", "--region"]) == 0
        (folder / "region.yaml").write_text(printed.getvalue())
        assert main(["suggest", "sea.yaml"]) == 0
        assert main(["train", "sea.yaml", "--out", "run", "--quiet"]) == 0
    return folder / "run"


@pytest.mark.parametrize("grid", [(12, 16), (24, 32)])
def test_samples_are_known_in_the_region_alone(run: Path, grid: tuple[int, int]) -> None:
    out = f"drawn-{grid[0]}"
    assert main(["sample", "run", "-n", "4", "--resolution", str(grid[1]), "--out", out]) == 0
    drawn = np.load(Path(out, "samples.npy"))
    sea = np.kron(SEA, np.ones([a // b for a, b in zip(grid, SEA.shape, strict=True)])).astype(bool)
    assert np.array_equal(np.isfinite(drawn), np.broadcast_to(sea, drawn.shape))
    assert 270 < np.nanmean(drawn) < 295


@pytest.mark.filterwarnings("error")
def test_pictures_are_black_outside_the_region(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", "run", "-n", "1", "--png", "--range", "270", "290", "--out", "pictures"]) == 0
    pictures = [np.asarray(Image.open(path)) for path in Path("pictures").rglob("*.png")]
    (pixels,) = (pixels for pixels in pictures if pixels.shape == SEA.shape)
    assert not pixels[~SEA].any() and pixels[SEA].any()
    assert main(["sample", "run", "-n", "1", "--png", "--out", "no"]) == 2 and "--range" in capsys.readouterr().err


def test_its_figures_are_of_what_is_known(run: Path) -> None:
    assert main(["evaluate", "run", "-n", "16", "--seeds", "1", "--comparison", "Spectra"]) == 0
    figures = json.loads((run / "metrics.json").read_text())["figures"]
    assert all(np.isfinite(figures[name]["mean"]) for name in ("spectrum", "values", "memorisation"))


def test_spectra_of_one_law_agree_and_those_of_another_do_not() -> None:
    x = torch.from_numpy(fields(160))[:, None]
    one, other = Spectra()(x[:80], x[80:]), Spectra()(280 + 1.5 * (x[:80] - 280), x[80:])
    assert one["spectrum"] < 0.3 and other["spectrum"] > 0.5
    assert one["values"] < 0.2 < other["values"]


def test_draws_agree_with_sparse_points(run: Path, folder: Path) -> None:
    truth = fields(1)[0]
    known = np.zeros(SEA.shape, bool)
    known[1::3, 1::4] = SEA[1::3, 1::4]
    np.save("known.npy", known.astype("u1"))
    np.save("points.npy", np.where(known, truth, np.nan)[None])
    words = ["--task", "inpaint", "--task.known", "known.npy", "-n", "4"]
    assert main(["restore", "run", "points.npy", *words, "--out", "restored"]) == 0
    drawn = np.load("restored/samples.npy")[:, 0]
    assert np.array_equal(np.isfinite(drawn), np.broadcast_to(SEA, drawn.shape))
    assert np.abs(drawn[:, known] - truth[known]).max() < 0.3


def test_a_density_is_of_the_cells_and_latents_lead_back(run: Path) -> None:
    model, x = load(run), torch.from_numpy(fields(2))[:, None]
    found = model.log_prob(x, flow=ProbabilityFlow(tolerance=1e-3))
    assert bool(found.nats.isfinite().all())
    again = model.decode(model.encode(x))
    assert torch.equal(again.isnan(), x.isnan())
    assert float((again - x).abs().nan_to_num().max()) < 0.05


def test_a_loss_in_the_noises_norm_is_of_the_region(run: Path) -> None:
    words = ["--train.loss.norm", "Mahalanobis", "--out", "whitened", "--quiet"]
    assert main(["train", "sea.yaml", *words]) == 0


def test_what_does_not_belong_together_is_refused(run: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez("whole.npz", u=np.nan_to_num(fields(80)))
    for words, expected in (
        (["train", "sea.yaml", "--data.path", "whole.npz", "--out", "no"], "outside the region"),
        (["suggest", "sea.yaml", "--data.path", "whole.npz", "--region"], "known everywhere"),
    ):
        assert main(words) == 2
        assert expected in capsys.readouterr().err
    assert not Path("no").exists()


class TwoGrids(Source):
    """Training fields on one grid, held-out ones on a finer one, as neuraloperator's Darcy has them."""

    def load(self, split: Split) -> FieldDataset:
        points = 8 if split == "train" else 16
        return Tensors(torch.randn(6, 1, points, points), valid=1).load("train")


def test_splits_of_two_grids_are_refused_by_their_sizes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(1, 8, 8\) and the held-out ones \(1, 16, 16\).*--members"):
        gather(TwoGrids(), tmp_path, 4)
