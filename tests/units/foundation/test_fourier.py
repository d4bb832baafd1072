"""The centred Fourier transform, of tensors and of arrays, and the middle of a grid."""

import math

import numpy as np
import pytest
import torch

from scorefield.foundation.fourier import centred, centred_box, fit_matrix

GRIDS = [(8, 6), (7, 4), (5, 9)]


def draw(*shape):
    parts = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.complex(*parts)


@pytest.mark.parametrize("grid", GRIDS)
def test_frequency_0_and_the_centre_of_the_image_are_at_half_the_size(grid):
    """Against the sum that defines it."""
    x = draw(*grid)
    places = [torch.arange(n, dtype=torch.float64) - n // 2 for n in grid]
    waves = [torch.exp(-2j * math.pi / len(k) * torch.outer(k, k)) / math.sqrt(len(k)) for k in places]
    torch.testing.assert_close(centred(x), waves[0] @ x @ waves[1])
    torch.testing.assert_close(centred(centred(x), inverse=True), x)
    torch.testing.assert_close(centred(x, (0,)), waves[0] @ x)


def test_arrays_of_any_memory_give_arrays_of_their_precision():
    x = draw(3, 5, 4).numpy().astype(np.complex64)
    expected = centred(torch.from_numpy(x)).numpy()
    mirrored, fixed = x[:, ::-1].copy()[:, ::-1], x.copy()
    fixed.flags.writeable = False
    for array in (x, mirrored, fixed):
        found = centred(array)
        assert found.dtype == np.complex64 and np.array_equal(found, expected)


@pytest.mark.parametrize("size", [(4, 4), (5, 3), (9, 9), (10, 2)])
@pytest.mark.parametrize("grid", GRIDS)
def test_what_is_cut_or_filled_up_keeps_its_centre(grid, size):
    x = np.zeros((2, *grid))
    x[:, grid[0] // 2, grid[1] // 2] = 1
    found = fit_matrix(x, size)
    assert found.shape == (2, *size) and found.sum() == 2 and (found[:, size[0] // 2, size[1] // 2] == 1).all()
    smaller = tuple(map(min, grid, size))
    assert x[(0, *centred_box(grid, smaller))].shape == smaller
    assert np.array_equal(fit_matrix(fit_matrix(x, (12, 12)), grid), x)
