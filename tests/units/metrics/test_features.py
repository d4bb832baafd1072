"""The classifier: accurate on digits, deterministic, at home in a file without pickle."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from scorefield.foundation.errors import InputError
from scorefield.metrics.features import Classifier, Pixels, Projected, train_classifier


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    x, y = torch.tensor(pixels[order].reshape(-1, 1, 8, 8), dtype=torch.float32), torch.tensor(labels[order])
    return (x[:1297], y[:1297]), (x[1297:], y[1297:])


@pytest.fixture(scope="module")
def classifier(digits) -> Classifier:
    return train_classifier(*digits, steps=100)


def test_it_knows_its_digits(classifier, digits) -> None:
    assert classifier.accuracy >= 0.97 and int(classifier.held_out[1]) == 500
    right = (classifier.predict(digits[1][0]) == digits[1][1]).double().mean()
    assert float(right) == pytest.approx(classifier.accuracy)


def test_its_features_are_those_the_logits_come_from(classifier, digits) -> None:
    x = digits[1][0][:7]
    assert classifier(x).shape == (7, 128)
    torch.testing.assert_close(classifier.head(classifier(x)), classifier.logits(x))


def test_a_sample_has_the_same_features_in_any_batch(classifier, digits) -> None:
    x = digits[1][0]
    torch.testing.assert_close(
        torch.cat([classifier(part) for part in x.split(33)]), classifier(x), rtol=1e-4, atol=1e-5
    )


def test_files_restore_it_exactly(classifier, digits, tmp_path: Path) -> None:
    classifier.save(tmp_path / "digits.safetensors")
    back = Classifier.load(tmp_path / "digits.safetensors")
    assert back.hash == classifier.hash and back.accuracy == classifier.accuracy
    assert torch.equal(back(digits[1][0]), classifier(digits[1][0])) and not back.training
    assert [file.name for file in tmp_path.iterdir()] == ["digits.safetensors"]


def test_the_seed_decides_everything_and_nothing_else_is_touched() -> None:
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(60, 2, 5, 7, generator=generator), torch.arange(60) % 3
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    hashes = [train_classifier(data, steps=4, batch_size=16, width=4, seed=seed).hash for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(3), expected)
    assert hashes[0] == hashes[1] != hashes[2]


def test_data_units_do_not_matter() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 1, 6, 6, generator=generator), torch.arange(80) % 2
    x[y == 1] += 2
    for scale, offset in ((1e-4, 0), (1e4, 300)):
        data = scale * (x + offset), y
        assert train_classifier(data, data, steps=60, batch_size=20, width=4).accuracy > 0.95


def test_without_held_out_data_the_accuracy_is_unknown() -> None:
    assert np.isnan(Classifier(1, 2).accuracy)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs images"):
        train_classifier((torch.zeros(4, 1, 8), torch.zeros(4).long()))
    with pytest.raises(InputError, match="needs images"):
        train_classifier((torch.zeros(4, 1, 8, 8), torch.zeros(3).long()))
    (tmp_path / "bad").write_bytes(b"cnumpy\nload")
    for name in ("bad", "absent"):
        with pytest.raises(InputError, match=name):
            Classifier.load(tmp_path / name)


def test_pixels_are_the_values() -> None:
    x = torch.arange(24.0).reshape(2, 3, 4)
    assert torch.equal(Pixels()(x), x.reshape(2, 12)) and Pixels().hash == Pixels().hash != Classifier(1, 2).hash


@pytest.mark.parametrize("dim", [300, 1000])
def test_a_projection_has_orthonormal_rows_and_depends_on_seed_and_dimension_alone(dim: int) -> None:
    projected = Projected(dim)
    rows = projected(torch.eye(dim)).T
    assert rows.shape == (256, dim)
    torch.testing.assert_close(rows @ rows.T, torch.eye(256))
    assert Projected(dim).hash == projected.hash
    assert projected.hash not in {Projected(dim, seed=1).hash, Projected(dim + 1).hash}


def test_a_projection_keeps_squared_distances_on_average() -> None:
    x = torch.randn(200, 1, 40, 40, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    kept = Projected(1600)(x).square().sum() / x.square().sum()
    assert float(kept) == pytest.approx(256 / 1600, rel=0.2)


def test_few_dimensions_are_kept_as_they_are() -> None:
    x = torch.randn(5, 2, 8, 16, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Projected(256)(x), x.flatten(1))
    with pytest.raises(InputError, match="256 values"):
        Projected(256)(torch.zeros(1, 1, 8, 8))


def test_any_broken_classifier_file_is_named(classifier, tmp_path: Path) -> None:
    save_file(
        {"a": torch.zeros(1)}, tmp_path / "shape", {"classifier": json.dumps({"channels": 1, "classes": 2, "width": 4})}
    )
    save_file({"a": torch.zeros(1)}, tmp_path / "json", {"classifier": "{"})
    save_file({"a": torch.zeros(1)}, tmp_path / "list", {"classifier": "[]"})
    for name in ("shape", "json", "list"):
        with pytest.raises(InputError, match=name):
            Classifier.load(tmp_path / name)


@pytest.mark.slow
def test_mnist_in_bounded_steps(data_folder: Path) -> None:
    file = np.load(data_folder / "images" / "mnist_70k.npz")
    train, test = (
        (torch.tensor(file[f"x_{part}"][:n, None], dtype=torch.float32), torch.tensor(file[f"y_{part}"][:n]).long())
        for part, n in (("train", 8000), ("test", 500))
    )
    assert train_classifier(train, test, steps=100, batch_size=64, width=16).accuracy > 0.85
