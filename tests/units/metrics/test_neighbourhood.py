"""Fractions skill against another implementation and where it is known."""

from __future__ import annotations

import math

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.metrics.neighbourhood import fraction_errors, fractions_skill


def fields(seed: int) -> torch.Tensor:
    return torch.rand(6, 20, 17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1, 2, 5, 17])
def test_parity_with_scores(scale: int) -> None:
    from scores.spatial import fss_2d
    from xarray import DataArray

    one, other = fields(0), fields(1)
    ours = fractions_skill(fraction_errors(one, other, 0.8, scale).sum(0))
    theirs = fss_2d(
        *(DataArray(x.numpy(), dims=["t", "y", "x"]) for x in (one, other)),
        event_threshold=0.8,
        window_size=(scale, scale),
        spatial_dims=("y", "x"),
        reduce_dims=["t"],
    )
    assert float(ours) == pytest.approx(float(theirs), rel=1e-9)


def test_a_displaced_event_is_found_by_windows_larger_than_its_displacement() -> None:
    truth, moved = torch.zeros(1, 32, 32), torch.zeros(1, 32, 32)
    truth[0, 14, 14] = moved[0, 14, 18] = 1
    skill = [float(fractions_skill(fraction_errors(moved, truth, 0.5, scale))[0]) for scale in (1, 3, 9, 13)]
    assert skill[0] == skill[1] == 0
    assert skill[2] == pytest.approx(1 - 4 / 9) and skill[3] == pytest.approx(1 - 4 / 13)  # windows of n, shifted by 4
    assert float(fractions_skill(fraction_errors(truth, truth, 0.5, 3))[0]) == 1
    assert math.isnan(float(fractions_skill(fraction_errors(truth, truth, 2.0, 3))[0]))


def test_what_is_unknown_is_left_out_of_every_window() -> None:
    one, other = fields(0), fields(1)
    hidden = fraction_errors(one.clone(), other, 0.5, 1)
    other[:, :4] = math.nan
    assert (fraction_errors(one, other, 0.5, 1) < hidden).all()
    one[:, :4] = math.nan
    torch.testing.assert_close(fraction_errors(one, other, 0.5, 1), fraction_errors(one[:, 4:], other[:, 4:], 0.5, 1))


def test_a_window_larger_than_the_grid_is_refused() -> None:
    with pytest.raises(InputError, match="18×18 points does not fit a grid of 20×17"):
        fraction_errors(fields(0), fields(1), 0.5, 18)
