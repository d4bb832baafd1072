"""The unit of phase: what scanners and converters store, and what is in radians already."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from scorefield.data.nifti import radians
from scorefield.foundation.errors import InputError

ANGLE = np.random.default_rng(0).uniform(-np.pi, np.pi, (16, 16, 64)).astype(np.float32)


def quiet(values: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return radians(values.astype(np.float32), Path("p.nii"))


@pytest.mark.parametrize(
    ("stored", "step"),
    [
        (lambda a: np.round((a / np.pi + 1) * 2047.5), 2e-3),  # 0..4095
        (lambda a: 2 * np.round((a / np.pi + 1) * 2047.5) - 4096, 2e-3),  # −4096..4094
        (lambda a: 8.97e-7 * (2 * np.round((a / np.pi + 1) * 2047.5) - 4095), 2e-3),  # its slope lost
        (lambda a: np.round(a * 1000), 2e-3),
        (lambda a: np.round(a / np.pi * 1000), 4e-3),
        (np.degrees, 1e-3),
        (lambda a: a, 0),
    ],
    ids=["0..4095", "-4096..4094", "without slope", "thousandths", "-1000..1000", "degrees", "radians"],
)
def test_what_scanners_store_is_the_same_phase(stored, step):
    turned = np.exp(1j * quiet(stored(ANGLE))) / np.exp(1j * ANGLE)
    assert np.abs(np.abs(np.angle(turned)).max()) <= 1.5 * step + 1e-6


@pytest.mark.parametrize("low,high", [(-1.2, 1.1), (0.0, 1.5), (-2, 2), (-3.1, 1.0), (0.0, 3.0)])
def test_radians_that_do_not_fill_the_circle_are_left_as_they_are(low, high):
    values = np.linspace(low, high, 4000, dtype=np.float32).reshape(10, 20, 20) + 1e-3 * np.cos(ANGLE.flat[0])
    np.testing.assert_array_equal(quiet(values), values)


def test_what_may_be_another_unit_is_warned_of_or_refused():
    for values in (np.round(ANGLE * 150), 2 * ANGLE, np.linspace(0, 1, 777), np.linspace(-1, 1, 777)):
        with pytest.warns(UserWarning, match=r"p.nii goes from"):
            radians(values.astype(np.float32), Path("p.nii"))
    for values in (np.ones(9), np.round(ANGLE), ANGLE * 1e-3, ANGLE * 3 + 40, ANGLE * 100 + 90):
        with pytest.raises(InputError, match=r"p\.nii"):
            radians(values.astype(np.float32), Path("p.nii"))
