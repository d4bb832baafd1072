"""Noise levels chosen from data: by the published rules, from all pairs, in bounded memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from scorefield import cli
from scorefield.core.schedule import langevin_step, level_number, level_ratio
from scorefield.data import Centre, Divide, Identity, Tensors
from scorefield.data.arrays import Arrays
from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.statistics import largest_distance
from scorefield.foundation.errors import InputError
from scorefield.jobs import noise_levels as levels


@pytest.mark.parametrize(
    ("sigma_max", "number", "repeats", "step"), [(50, 232, 5, 6.2e-6), (90, 500, 5, 3.3e-6), (190, 1086, 3, 1.8e-6)]
)
def test_the_published_levels(sigma_max: float, number: int, repeats: int, step: float) -> None:
    """CIFAR-10, CelebA 64 and LSUN bedroom 128 (Song and Ermon 2020, table 4): their steps, to their two digits."""
    ratio = (sigma_max / 0.01) ** (1 / (number - 1))
    assert langevin_step(0.01, ratio, repeats) == pytest.approx(step, rel=0.02)


def test_as_many_levels_as_the_ratio_asks_for() -> None:
    assert level_number(0.01, 50.0, level_ratio(3 * 32 * 32)) == pytest.approx(
        232, abs=15
    )  # theirs has 1.0376 for 1.0398
    assert level_number(1.0, 8.0, 2.0) == 4
    assert level_number(1.0, 8.1, 2.0) == 5


@pytest.mark.parametrize("radii", ["equal", "outliers"])
def test_the_largest_distance_of_all_pairs(radii: str) -> None:
    x = 100 + torch.randn(83, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    if radii == "outliers":
        x[[7, 60]] *= 3
    fields = Tensors(x, valid=0).load("train")
    expected = float(torch.pdist(x.flatten(1).double()).max())
    for block in (1, 400, 10**6):  # one field, ten, and all at once
        assert largest_distance(Identity(), fields, torch.arange(83), block) == pytest.approx(expected, rel=1e-5)
    assert largest_distance(
        Divide(4.0).fit([fields.gather(torch.arange(83))]), fields, torch.arange(83), 400
    ) == pytest.approx(expected / 4, rel=1e-5)
    some = torch.arange(10, 30)
    assert largest_distance(Identity(), fields, some, 400) == pytest.approx(
        float(torch.pdist(x[some].flatten(1)).max()), rel=1e-5
    )
    assert largest_distance(Identity(), fields, torch.tensor([3])) == 0


class Counted(FieldDataset):
    """Fields that count how many were asked for, and at most how many at once."""

    def __init__(self, fields: FieldDataset) -> None:
        self.fields, self.asked, self.most = fields, 0, 0

    def __len__(self) -> int:
        return len(self.fields)

    def gather(self, indices: torch.Tensor) -> Batch:
        self.asked, self.most = self.asked + len(indices), max(self.most, len(indices))
        return self.fields.gather(indices)


@pytest.mark.parametrize("outliers", [False, True])
def test_fields_are_read_by_blocks_and_no_more_than_they_must_be(outliers: bool) -> None:
    x = torch.randn(400, 1, 50, generator=torch.Generator().manual_seed(0))
    if outliers:
        x[[5, 6]] *= torch.tensor([20.0, -20.0])[:, None, None]
    fields = Counted(Tensors(x, valid=0).load("train"))
    assert largest_distance(Identity(), fields, torch.arange(400), 50 * 10) > 10
    assert fields.most == 10  # so many of 50 values
    pairs = 400 + 40 * 41 // 2 * 10
    assert fields.asked <= 2 * 400 if outliers else 400 < fields.asked <= pairs + 20


def test_a_recipe_gets_the_levels_of_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = torch.rand(40, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "x.npy", x.numpy())
    out = tmp_path / "mine.yaml"
    data = ["--data", "Arrays", "--data.path", str(tmp_path / "x.npy"), "--data.valid", "4"]
    arguments = ["noise-levels", "cifar10-ncsnv2", *data, "--model.normaliser.scale", "1", "--model.net.channels", "8"]
    assert cli.main([*arguments, "--out", str(out)]) == 0
    fields = Arrays(tmp_path / "x.npy", valid=4).load("train")
    expected = levels.choose(fields, Centre().fit([fields.gather(torch.arange(36))]))
    shown = capsys.readouterr().out
    for value in (
        f"{expected.sigma_max:.6g}",
        f"{expected.ratio:.6f}",
        str(expected.number),
        f"{expected.step:.4g}",
        "0.999",
    ):
        assert value in shown
    assert expected.ratio <= expected.bound == level_ratio(512)
    assert expected.sigma_max == pytest.approx(
        float(torch.pdist(fields.gather(torch.arange(36)).x.flatten(1)).max()), rel=1e-5
    )
    content = yaml.safe_load(out.read_text())
    schedule = content["model"]["sde"]["schedule"]["init_args"]
    assert schedule == {"sigma_min": 0.01, "sigma_max": expected.sigma_max, "levels": expected.number}
    assert content["model"]["precondition"]["init_args"]["label"]["init_args"]["levels"] == expected.number
    assert content["train"]["loss"]["init_args"]["time"]["init_args"]["levels"] == expected.number
    corrector = content["model"]["sampler"]["corrector"]["init_args"]
    assert (corrector["step"], corrector["repeats"]) == (expected.step, 5) and content["train"]["ema"] == 0.999
    small = ["--train.batch_size", "2", "--train.accelerator", "cpu"]
    assert cli.main(["train", str(out), "--dry-run", *small]) == 0  # what was written is a whole recipe
    assert cli.main([*arguments, "--out", str(out)]) == 2 and "exists" in capsys.readouterr().err


def test_what_has_no_levels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["noise-levels", "cifar10-ddpmpp-vp", "--data", "Digits", "--out", str(tmp_path / "x.yaml")]) == 2
    assert "where α = 1" in capsys.readouterr().err
    words = ["--data", "Digits", "--model.sde.noise", "GaussianField", "--model.sde.noise.density.length", "0.1"]
    words = [word.replace("density.length", "density.init_args.length") for word in words]
    words[4:4] = ["--model.sde.noise.density", "Matern"]
    assert cli.main(["noise-levels", "images", *words, "--out", str(tmp_path / "x.yaml")]) == 2
    assert "scorefield suggest images" in capsys.readouterr().err and not (tmp_path / "x.yaml").exists()
    fields = Tensors(torch.zeros(10, 1, 8), valid=0).load("train")
    with pytest.raises(InputError, match="no more than the smallest level"):
        levels.choose(fields, Identity())
    with pytest.raises(InputError, match="fewer than two"):
        levels.choose(Tensors(torch.zeros(1, 1, 8), valid=0).load("train"), Identity())
    with pytest.raises(InputError, match="sigma_min > 0"):
        levels.choose(fields, Identity(), sigma_min=0.0)
