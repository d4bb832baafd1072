"""The part of an image that is used, and how it gets its size: pixel by pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorefield.data import CentreCrop, Images, Square
from scorefield.foundation.errors import InputError


def image(folder: Path, pixels: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / "a.png")
    return folder


def load(folder: Path, **options: object) -> np.ndarray:
    return Images(folder, valid=0, **options).load("train")[0].x.numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, bool])
def test_a_crop_is_the_middle_at_every_depth(dtype: type, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 2 if dtype is bool else 250, (7, 10)).astype(dtype)
    folder = image(tmp_path, pixels)
    assert np.array_equal(load(folder, crop=CentreCrop(3, 4))[0], pixels[2:5, 3:7])
    assert np.array_equal(load(folder, crop=CentreCrop(4, 3))[0], pixels[1:5, 3:6])  # the far side loses the odd pixel
    assert np.array_equal(load(folder, crop=Square())[0], pixels[:, 1:8])
    assert np.array_equal(load(folder, crop=CentreCrop(7, 10))[0], pixels)


def test_a_crop_comes_before_the_size(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 4:12] = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
    areas = pixels[:, 4:12].reshape(4, 2, 4, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    small = load(image(tmp_path, pixels), crop=Square(), size=(4, 4), filter="box")
    assert np.abs(small - areas).max() <= 1  # the mean over areas, rounded once for rows and once for columns


def test_bilinear_is_antialiased_and_differs_from_bicubic(tmp_path: Path) -> None:
    """Shrinking by 2 with a triangle that is widened by 2: weights 1, 3, 3, 1 over 8 in the interior."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 1), dtype=np.uint8).repeat(8, 1)
    folder = image(tmp_path, pixels)
    small = load(folder, size=(8, 8), filter="bilinear")[0, :, 0]
    expected = [np.dot([1, 3, 3, 1], pixels[2 * i - 1 : 2 * i + 3, 0].astype(float)) / 8 for i in range(1, 7)]
    assert np.abs(small[1:7] - expected).max() <= 0.5 + 1e-6  # rounded
    assert np.abs(load(folder, size=(8, 8))[0, :, 0] - small).max() > 2


def test_images_that_are_too_small_are_named(tmp_path: Path) -> None:
    folder = image(tmp_path, np.zeros((5, 9), np.uint8))
    with pytest.raises(InputError, match=r"a\.png of .* is 5×9, too small for a crop of 6×6: remove it"):
        load(folder, crop=CentreCrop(6, 6))
    with pytest.raises(InputError, match="height and width >= 1"):
        CentreCrop(0, 3)
