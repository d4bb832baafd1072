"""The facts of data that are known, and pictures of all kinds of fields."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from scorefield.data import Batch, Identity, Standardise, Tensors, Wrapped
from scorefield.data.fields import DatasetFields
from scorefield.data.inspect import inspect
from scorefield.data.picture import grid, save_grid
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError


def gaussian(n: int = 300, channels: int = 2) -> torch.Tensor:
    return 5 + 3 * torch.randn(n, channels, 6, 7, generator=torch.Generator().manual_seed(0))


def test_facts_are_those_of_the_data() -> None:
    x = gaussian()
    facts = inspect(Tensors(x, torch.arange(300) % 3, valid=0).load("train"), Identity())
    assert (facts.n, facts.shape, facts.classes, facts.bad, facts.missing) == (300, (2, 6, 7), 3, 0, 0)
    assert facts.minimum == x.min() and facts.maximum == x.max()
    assert facts.mean == pytest.approx(x.double().mean((0, 2, 3)).tolist())
    assert facts.std == pytest.approx(x.double().std((0, 2, 3), correction=0).tolist())
    assert facts.sigma_data == pytest.approx(float(x.double().square().mean().sqrt()))
    assert facts.sigma_max == pytest.approx(float(torch.pdist(x.flatten(1).double()).max()), rel=1e-5)
    assert facts.warnings == () and "300 of shape 2 × 6 × 7" in facts.table()


def test_scales_are_those_of_the_normalised_data_and_the_normaliser_is_left_alone() -> None:
    fields, normaliser = Tensors(1000 * gaussian(), valid=0).load("train"), Standardise()
    facts = inspect(fields, normaliser)
    assert not normaliser.fitted and facts.sigma_data == pytest.approx(1, abs=1e-5)
    assert facts.sigma_max == pytest.approx(
        inspect(Tensors(gaussian(), valid=0).load("train"), Standardise()).sigma_max, rel=1e-4
    )


def test_a_subsample_is_reported() -> None:
    fields = Tensors(gaussian(), valid=0).load("train")
    facts, all_pairs = inspect(fields, Identity(), compare=50), inspect(fields, Identity())
    assert facts.compared == 50 and "all pairs of 50 of 300" in facts.table()
    assert facts.sigma_max < all_pairs.sigma_max


def test_what_is_wrong_is_reported_not_raised() -> None:
    x = gaussian()
    x[7, 1, 2, 3], x[:, 0] = torch.nan, 4.0
    facts = inspect(Tensors(x, torch.tensor([0, 2] * 150), valid=0).load("train"), Standardise())
    assert facts.bad == 1 and math.isnan(facts.sigma_data) and math.isnan(facts.sigma_max)
    report = facts.table()
    assert "Channel 0 is constant" in report and "sample 7, channel 1, at (2, 3)" in report
    assert "Classes without a field: 1" in report


def test_the_held_out_split_is_looked_through_too() -> None:
    x = gaussian()
    train, valid = Tensors(x, valid=0).load("train"), Tensors(x.clone().fill_(torch.nan), valid=0).load("train")
    assert inspect(train, Standardise(), valid=train).warnings == ()
    (warning,) = inspect(train, Standardise(), valid=valid).warnings
    assert "held-out" in warning and "NaN" in warning


def test_negative_labels_are_refused() -> None:
    items = [(torch.randn(1, 4), -1)] * 5
    with pytest.raises(InputError, match="item 0 of the dataset go down to -1"):
        inspect(DatasetFields(Subset(items, range(5)), classes=("a",)), Identity())


def test_masked_values_count_as_missing() -> None:
    x = gaussian(40)
    mask = torch.ones_like(x)
    mask[:, :, :3] = 0
    x[:, :, :3] = torch.nan
    facts = inspect(
        DatasetFields(Subset([Batch(a, mask=m) for a, m in zip(x, mask, strict=True)], range(40))), Standardise()
    )
    assert facts.missing == pytest.approx(0.5) and facts.bad == 0 and facts.sigma_data == pytest.approx(1, abs=1e-5)
    assert math.isfinite(facts.sigma_max)


def test_digits_at_a_glance(tmp_path: Path) -> None:
    facts = inspect(Digits().load("train"), Standardise())
    assert (facts.dtype, facts.quantum, facts.minimum, facts.maximum) == ("uint8", 1, 0, 16)
    facts.preview(tmp_path / "deep" / "digits.png")
    with Image.open(tmp_path / "deep" / "digits.png") as image:
        assert image.mode == "RGB" and image.size == (402, 402)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(30,), (12, 17), (4, 12, 17)])
def test_every_rank_and_number_of_channels_has_a_picture(channels, shape) -> None:
    x = torch.randn(5, channels, *shape, generator=torch.Generator().manual_seed(0))
    picture = grid(x)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.min() < 40 and picture.max() == 255


def test_a_picture_shows_the_values() -> None:
    x = torch.linspace(-1, 3, 100 * 60).reshape(1, 1, 100, 60)
    shown = grid(x)[2:-2, 2:-2]
    assert np.array_equal(shown[..., 0], ((x[0, 0] + 1) / 4 * 255).round().byte().numpy())
    shown = grid(x, low=0.0, high=1.0)[2:-2, 2:-2, 0]
    assert (shown[x[0, 0].numpy() < 0] == 0).all() and (shown[x[0, 0].numpy() > 1] == 255).all()
    colour = torch.rand(1, 3, 50, 60, generator=torch.Generator().manual_seed(0))
    colour[0, :, 0, 0], colour[0, :, 0, 1] = 0, 1
    assert np.array_equal(grid(colour)[2:-2, 2:-2], (colour[0] * 255).round().byte().movedim(0, -1).numpy())
    hole = x.clone()
    hole[0, 0, 3, 4] = torch.nan
    picture = grid(hole)[2:-2, 2:-2]
    assert len(set(picture[3, 4].tolist())) == 3 and picture[3, 5, 0] == picture[3, 5, 1]


def test_a_constant_field_and_one_of_nan_have_pictures() -> None:
    assert grid(torch.zeros(2, 1, 5, 5)).max() == 40
    assert grid(torch.full((2, 1, 5, 5), torch.nan)).max() == 200


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "a.png"
    save_grid(path, torch.zeros(1, 1, 50, 50))
    before = path.read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_grid(path, torch.ones(9, 1, 50, 50))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_picture_of_no_kind_is_refused(tmp_path: Path) -> None:
    for name in ("a", "a.npy"):
        with pytest.raises(InputError, match="kind of picture"):
            save_grid(tmp_path / name, torch.zeros(1, 1, 5, 5))


def test_a_label_beyond_the_classes_is_refused() -> None:
    items = [(torch.zeros(1, 2), i) for i in range(3)]
    with pytest.raises(InputError, match="item 2 of the dataset go up to 2, but there can be 2 classes"):
        inspect(DatasetFields(Subset(items, range(3)), classes=("a", "b")), Identity())


def test_labels_that_nobody_named_and_vectors_that_nobody_knows_are_said() -> None:
    class Items(torch.utils.data.Dataset):
        def __init__(self, label: object) -> None:
            self.label = label

        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> tuple[torch.Tensor, object]:
            return torch.full((1, 4), float(index)), self.label

    labelled, unknown = (inspect(Wrapped(Items(label)).load("train"), Standardise()) for label in (1, math.nan))
    assert any("labels have no names" in text for text in labelled.warnings)
    assert all(math.isnan(bound) for bound in unknown.vector[0])
