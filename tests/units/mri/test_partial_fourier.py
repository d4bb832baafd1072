"""What was encoded of k-space: zeros at its edges are none that were left out, and chance is no partial Fourier."""

import numpy as np
import pytest

from scorefield.mri.masks import WHOLE, EquispacedLines, PoissonDisc, RandomLines, encoded, partial_fourier, share_of


def lines(width: int, first: int = 0, after: int | None = None, height: int = 32) -> np.ndarray:
    places = np.arange(width)
    return np.broadcast_to((places >= first) & (places < (width if after is None else after)), (height, width))


@pytest.mark.parametrize("width", [112, 113])
@pytest.mark.parametrize("before,behind", [(0, 0), (7, 7), (7, 6), (1, 0), (20, 21)])
def test_zeros_at_both_edges_are_padding(width, before, behind):
    mask = lines(width, before, width - behind)
    assert share_of(mask) > 0.98
    assert share_of(mask.T) > 0.98
    whole = mask & (np.arange(width) % 4 == 0)
    assert share_of(whole, mask) == pytest.approx(0.25, abs=0.02)


def test_partial_fourier_and_undersampled_k_space_are_not_whole():
    assert share_of(lines(112, 28)) == pytest.approx(0.75, abs=0.01)
    assert share_of(lines(112, 0, 84)) == pytest.approx(0.75, abs=0.01)
    for mask in (RandomLines(2.0, 24), EquispacedLines(2.0, 24)):
        assert share_of(mask((64, 112))) == pytest.approx(0.5, abs=0.03)
    assert share_of(lines(112, 44, 68)) < 0.25 < WHOLE  # calibration lines alone


def test_the_centre_of_what_was_encoded_is_that_of_k_space():
    for width, before, after in ((112, 7, 105), (113, 7, 106), (64, 0, 64)):
        box = encoded(lines(width, before, after))[1]
        inside = np.zeros(width)
        inside[width // 2] = 1
        assert inside[box][len(inside[box]) // 2] == 1


def test_partial_fourier_is_seen_with_and_without_acceleration():
    assert partial_fourier(np.ones((64, 64), bool)) == "" == partial_fourier(np.zeros((64, 64), bool))
    for part in (lines(112, 28), lines(112, 0, 84)):
        assert "width" in partial_fourier(part) and "height" in partial_fourier(part.T)
    for part in (lines(368, 92), lines(368, 0, 276)):
        for mask in (EquispacedLines(4.0, 24), RandomLines(4.0, 24)):
            assert "width" in partial_fourier(part & mask((32, 368)))


@pytest.mark.parametrize("acceleration", [2.0, 3.0, 4.0, 8.0])
def test_chance_is_no_partial_fourier(acceleration):
    calibration = 24 if acceleration < 8 else 9
    for sampling in (RandomLines(acceleration, calibration), EquispacedLines(acceleration, calibration)):
        for width in (112, 368):
            warned = sum(partial_fourier(sampling((8, width), number)) != "" for number in range(200))
            assert warned <= 6  # of 200


def test_poisson_disc_masks_are_not_lopsided():
    pytest.importorskip("sigpy")
    assert partial_fourier(PoissonDisc(8.0)((96, 112))) == ""
