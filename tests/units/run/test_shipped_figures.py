"""Models that come with scorefield are worth what their cards say; that of brain-t1 is in tests/units/mri/test_brain_t1.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

import scorefield
from scorefield.cli import main
from scorefield.datasets import Digits, Terrain
from scorefield.metrics.features import train_classifier
from scorefield.metrics.neighbours import two_sample_accuracy
from scorefield.metrics.spectrum import cosine_spectrum

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unchecked")]


def test_digits_are_hardly_told_from_those_held_out() -> None:
    held = Digits().load("valid")
    truth = held.gather(torch.arange(len(held))).x
    drawn = scorefield.load("digits").sample(len(truth), seed=0)
    found = two_sample_accuracy(drawn.flatten(1), truth.flatten(1).to(drawn))
    assert found.accuracy < 0.63


@pytest.mark.parametrize(("name", "share"), [("mnist", 1 / 3), ("mnist-few", 1 / 5)])
def test_a_classifier_of_mnist_sees_all_digits_in_what_is_drawn(name: str, share: float, data_folder: Path) -> None:
    """Where it is sure of pictures, and less of fields with their two moments, it is a share as far up from these."""
    with np.load(data_folder / "images/mnist_70k.npz") as file:
        x, labels = (torch.from_numpy(file[name][:20000]) for name in ("x_train", "y_train"))
    x = x[:, None].float()
    classifier = train_classifier((x, labels.long()), classes=10, steps=300)
    drawn = scorefield.load(name).sample(200, seed=0)

    def likeliest(images: torch.Tensor) -> Any:
        with torch.no_grad():
            shares = classifier.probabilities(images, classifier(images))
        assert shares is not None
        return shares.max(1)

    found, pictures = likeliest(drawn), likeliest(x[:500]).values.mean()
    mixed = x[:4000].unflatten(0, (200, 20))
    gaussian = x.mean(0) + (mixed - x.mean(0)).sum(1) / 20**0.5  # sums of many digits
    assert len(found.indices.unique()) == 10
    low = likeliest(gaussian).values.mean()
    assert found.values.mean() - low > share * (pictures - low) > 0.05


def test_rain_is_far_above_interpolation(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean CRPS of 4 members on eight test tiles, fair, against that of bilinear interpolation."""
    truth, drawn = tmp_path / "truth.nc", tmp_path / "drawn.nc"
    words = ["--members", "4", "--most", "8", "--truth", str(truth), "--out", str(drawn)]
    xarray = pytest.importorskip("xarray")
    monkeypatch.setenv("SCOREFIELD_DATA", str(data_folder))
    assert main(["downscale", "rain", "test", *words]) == 0
    with xarray.open_dataset(drawn) as found, xarray.open_dataset(truth) as known:
        members = torch.from_numpy(found.precip_rate.values).double()
        wanted = torch.from_numpy(known.precip_rate.values).double()
    smooth = interpolate(avg_pool2d(wanted[:, None], 8), scale_factor=8, mode="bilinear")[:, 0]
    between = (members[:, None] - members[None]).abs().sum((0, 1)) / (2 * 4 * 3)
    fair = (members - wanted).abs().mean(0) - between
    assert fair.mean() < 0.7 * (smooth - wanted).abs().mean()


def test_terrain_has_the_spectrum_of_its_data(data_folder: Path) -> None:
    """Mean |E ln P - E ln P_data| over the bands of the cosine series; white noise of the same variance is 3 off."""
    fields = Terrain(data_folder / "functions/srtm3_volcano_tiles_dev8.npz", size=64).load("train")
    x = fields.gather(torch.arange(len(fields))).x
    drawn = scorefield.load("terrain").sample(24, seed=0, chunk=12)

    def spectrum(heights: torch.Tensor) -> torch.Tensor:
        return cosine_spectrum(heights[:, 0].double()).power.clamp(min=1e-30).log().mean(0)

    noise = x.mean() + x.std() * torch.randn(drawn.shape, generator=torch.Generator().manual_seed(0))
    found, white = ((spectrum(part) - spectrum(x)).abs().mean() for part in (drawn, noise))
    assert found < 0.8
    assert white > 2
