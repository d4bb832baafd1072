"""Films of moving slices: they move as their formula says, never fold, and come from (seed, split, index) alone."""

from __future__ import annotations

import math

import pytest
import torch

from scorefield.data import Tensors
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.mri import Moving
from scorefield.mri.moving import STEEPEST, displacement, warped

GRID = (30, 36)


def source(**more: object) -> Moving:
    y, x = torch.meshgrid(torch.linspace(-1, 1, GRID[0]), torch.linspace(-1, 1, GRID[1]), indexing="ij")
    images = torch.stack(
        [torch.stack((torch.cos(3 * x + n) * torch.cos(2 * y), torch.sin(x * y + n))) for n in range(3)]
    )
    return Moving(Tensors(images, valid=1), **{"frames": 5, "copies": 4} | more)


def motion(how: Moving, count: int = 6) -> torch.Tensor:
    return displacement(Generators((0, 0, n, Stream.MOTION) for n in range(count)), how, GRID)


def test_a_uniform_shift_moves_the_image_and_leaves_zeros_behind_it():
    image = torch.arange(30.0).reshape(1, 5, 6)
    shift = torch.zeros(2, 5, 6, 2, dtype=torch.float64)
    shift[1, ..., 0], shift[1, ..., 1] = 2, -1  # what is seen lies two rows below and a column to the left
    found = warped(image, shift)
    torch.testing.assert_close(found[:, 0], image, atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0, 1, :3, 1:], image[0, 2:, :5], atol=1e-4, rtol=0)
    assert not found[0, 1, 4].any()


def test_motion_of_smooth_images_is_that_of_the_formula():
    """x(t, r) = f(r + d(t, r)) of waves of 12 and 10 pixels; straight lines of h = 1/2 miss each by h² (2π/L)²/8."""
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(36.0), indexing="ij")

    def wave(row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        return torch.cos(2 * math.pi * column / 12) + torch.sin(2 * math.pi * row / 10)

    d = motion(source(strength=1.0), 1)[0].float()
    found = warped(wave(rows, columns)[None], d.double())[0]
    right = wave(rows + d[..., 0], columns + d[..., 1])
    inside = (slice(None), slice(4, -4), slice(4, -4))
    assert d.abs().max() > 0.5
    torch.testing.assert_close(found[inside], right[inside], atol=0.0215, rtol=0)


@pytest.mark.parametrize("parts", [1, 3])
def test_nothing_folds_and_motion_repeats_itself(parts):
    how = source(frames=65, strength=20.0, periods=(32.0, 32.0), parts=parts)
    d = motion(how)
    torch.testing.assert_close(d[:, 32:64], d[:, :32], atol=1e-9, rtol=0)
    slopes = torch.stack(torch.gradient(d, dim=(2, 3)), -1).flatten(-2).norm(dim=-1)
    assert 0.3 < slopes.max() < parts * STEEPEST
    if parts == 1:
        (ay, bx), (by, ax) = (torch.gradient(d[..., axis], dim=(2, 3)) for axis in (0, 1))
        assert ((1 + ay) * (1 + ax) - bx * by).min() > 0


def test_strength_is_the_standard_deviation_of_what_moves():
    """Of one part, at its centre and over its phases: v² / 2 for each axis, where it is not shortened."""
    how = source(frames=40, strength=0.2, parts=1, periods=(40.0, 40.0))
    most = motion(how, 400).square().mean(1).amax((1, 2)).mean(0)
    torch.testing.assert_close(most, torch.full((2,), 0.02, dtype=torch.float64), rtol=0.2, atol=0)
    assert math.isclose(float(motion(source(strength=0.0)).abs().max()), 0.0)


def test_films_are_of_their_images_and_each_has_a_motion_of_its_own():
    train, valid = source().load("train"), source().load("valid")
    assert len(train) == 8 and len(valid) == 4
    films = train.gather(torch.arange(8)).x
    assert films.shape == (8, 2, 5, *GRID)
    assert torch.equal(train.gather(torch.tensor([6])).x[0], films[6])
    still = source(strength=0.0).load("train").gather(torch.arange(8)).x
    torch.testing.assert_close(still, still[:, :, :1].expand_as(still))
    assert len({float(x.double().sum()) for x in films}) == 8
    assert torch.equal(source(seed=1).load("train").gather(torch.arange(8)).x, films) is False
    for wrong in ({"frames": 0}, {"periods": (9.0, 3.0)}, {"strength": -1.0}):
        with pytest.raises(InputError):
            source(**wrong)
