"""Slices that are measured one by one and reconstructed together: exact for Gaussian volumes, whatever slices share."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.guidance import Guided, MomentMatching, Proximal
from scorefield.mri.scan import Scan
from scorefield.mri.volume_scan import VolumeScan
from scorefield.operators import to_complex
from scorefield.samplers import Slicewise

pytestmark = pytest.mark.usefixtures("unchecked")
GRID, COILS, F64 = (4, 6, 5), 2, torch.float64


def smooth(grid: tuple[int, ...]) -> torch.Tensor:
    """A spectrum that ties neighbours together along every axis, (1, *grid)."""
    k = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=F64) * n for n in grid], indexing="ij")
    return 0.03 + 1 / (1 + sum(axis.square() for axis in k))[None] ** 1.5


@cache
def measured() -> tuple[VolumeScan, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A volume, each slice with maps, lines and noise of its own; A as a matrix; y; and the covariance, of real numbers."""
    rng, size = np.random.default_rng(0), int(np.prod(GRID))
    waves = torch.fft.ifftn(
        torch.fft.fftn(torch.eye(size, dtype=F64).reshape(-1, *GRID), dim=(1, 2, 3)) * smooth(GRID), dim=(1, 2, 3)
    )
    one = waves.real.reshape(size, size)
    covariance = torch.block_diag(one, one)
    x = torch.linalg.cholesky(covariance) @ torch.from_numpy(rng.standard_normal(2 * size))
    image = x.reshape(1, 2, *GRID)
    scans = []
    for n in range(GRID[0]):
        maps = torch.from_numpy(rng.standard_normal((COILS, *GRID[1:])) + 1j * rng.standard_normal((COILS, *GRID[1:])))
        mask = torch.zeros(GRID[1:])
        mask[:, [[0, 2, 3], [2, 3], [1, 2, 4], [2]][n]] = 1
        blank = Scan(torch.zeros(COILS, *GRID[1:], dtype=maps.dtype), mask, maps / 2, 0.1 * (1 + n))
        noise = blank.noise * torch.from_numpy(rng.standard_normal((1, 2 * COILS, *GRID[1:])))
        kspace = to_complex((blank.operator(image[:, :, n]) + noise) * mask)[0]
        scans.append(Scan(kspace, mask, maps / 2, blank.noise))
    volume = VolumeScan(scans)
    volume.__dict__["scale"] = 1.0  # k-space is in the prior's units
    measurement = volume.measurement_on("cpu")
    columns = measurement.operator(torch.eye(2 * size, dtype=F64).reshape(-1, 2, *GRID)).flatten(1).T
    return volume, columns, measurement.y.flatten(), covariance


def test_the_adjoint_is_the_adjoint_and_noise_is_of_one_strength():
    volume, columns, y, _ = measured()
    measurement = volume.measurement_on("cpu")
    back = measurement.operator.adjoint(torch.eye(len(y), dtype=F64).reshape(-1, *measurement.y.shape[1:])).flatten(1)
    torch.testing.assert_close(back, columns)
    x = torch.randn(3, 2, *GRID, dtype=F64, generator=torch.Generator().manual_seed(1))
    A = measurement.operator
    torch.testing.assert_close(A.normal(x), A.adjoint(A(x)))
    assert measurement.noise == 0.1 and volume.factors.tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    parts = [torch.zeros(GRID[1:], dtype=torch.bool) for _ in range(GRID[0])]
    parts[1][:, 2] = True
    assert [int((s.mask > 0).sum()) for s in volume.without(parts).slices] == [18, 6, 18, 6]


@pytest.mark.parametrize("schedule", [EDM(0.002, 20.0), VP()], ids=["EDM", "VP"])
def test_a_gaussian_volume_has_its_exact_posterior_at_every_level(schedule):
    """E[x | x_t, y] of all slices together against the closed form: slices say of each other what the prior knows."""
    volume, a, y, covariance = measured()
    sde = SDE(schedule)
    guided = Guided(Gaussian(sde, smooth(GRID)), volume.measurement_on("cpu"), MomentMatching(200, 1e-10))
    x_t = torch.randn(1, 2, *GRID, dtype=F64, generator=torch.Generator().manual_seed(2))
    for t in (0.3, 0.7):
        alpha, sigma = (c.item() for c in schedule(torch.tensor(t, dtype=F64)))
        precision = (
            torch.linalg.inv(covariance)
            + a.T @ a / 0.1**2
            + torch.eye(len(covariance), dtype=F64) * (alpha / sigma) ** 2
        )
        expected = torch.linalg.solve(precision, a.T @ y / 0.1**2 + alpha / sigma**2 * x_t.flatten())
        found = guided(x_t, torch.tensor(t, dtype=F64)).flatten()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    blocks = torch.block_diag(
        *[covariance.reshape(2, GRID[0], -1, 2, GRID[0], 30)[c, n, :, c, n] for c in (0, 1) for n in range(GRID[0])]
    )
    precision = torch.linalg.inv(blocks) + a.T @ a / 0.1**2 + torch.eye(len(blocks), dtype=F64) * (alpha / sigma) ** 2
    slicewise = torch.linalg.solve(precision, a.T @ y / 0.1**2 + alpha / sigma**2 * x_t.flatten())
    assert float((slicewise - expected).norm() / expected.norm()) > 0.05  # what slices alone would miss


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_across_one_axis_are_exact_where_they_are_independent(axis):
    sde, rest = SDE(VP()), tuple(n for a, n in enumerate(GRID) if a != axis)
    flat = smooth(rest)
    whole = Gaussian(sde, flat.unsqueeze(1 + axis).expand(1, *GRID).contiguous())
    x_t, t = torch.randn(3, 2, *GRID, dtype=F64), torch.tensor([0.2, 0.5, 0.9], dtype=F64)
    for at_once in (2, 64):
        torch.testing.assert_close(Slicewise(Gaussian(sde, flat), (axis,), at_once)(x_t, t), whole(x_t, t))


def test_several_axes_are_averaged_and_turn_with_the_volume():
    oracle, t = Gaussian(SDE(VP()), smooth((5, 5))), torch.tensor(0.4, dtype=F64)
    x_t = torch.randn(2, 2, 5, 5, 5, dtype=F64)
    found = Slicewise(oracle)(x_t, t)
    torch.testing.assert_close(found, sum(Slicewise(oracle, (a,))(x_t, t) for a in (0, 1, 2)) / 3)
    torch.testing.assert_close(Slicewise(oracle)(x_t.permute(0, 1, 4, 3, 2), t), found.permute(0, 1, 4, 3, 2))
    white = Gaussian(SDE(VP()), torch.full((1, 5, 5), 0.3, dtype=F64))
    solid = Gaussian(SDE(VP()), torch.full((1, 5, 5, 5), 0.3, dtype=F64))
    torch.testing.assert_close(Slicewise(white)(x_t, t), solid(x_t, t))
    for wrong in ((), (0, 0), (3,)):
        with pytest.raises(InputError, match="each once"):
            Slicewise(oracle, wrong)


def test_windows_of_a_film_give_its_exact_mean_where_frames_further_apart_are_independent():
    """A prior of windows, whose denoiser sees one frame on either side, over a film that is longer than they are."""
    volume, *_ = measured()

    class Near:
        """x̂ = the mean over a frame and its neighbours, within what it is given."""

        sde = SDE(EDM(0.002, 20.0))

        def __call__(self, x_t, t, cond=None):
            padded = torch.nn.functional.pad(x_t, (0, 0, 0, 0, 1, 1))
            return (padded[:, :, :-2] + padded[:, :, 1:-1] + padded[:, :, 2:]) / 3

    film = VolumeScan([*volume.slices] * 5, window=(8, *GRID[1:]))
    x_t, t = torch.randn(2, 2, 20, *GRID[1:], dtype=F64), torch.tensor(0.5, dtype=F64)
    torch.testing.assert_close(film.prior_of(Near())(x_t, t), Near()(x_t, t))


def test_slices_of_other_sizes_are_no_volume():
    volume, *_ = measured()
    small = Scan(
        torch.zeros(1, *GRID[1:], dtype=torch.complex128),
        torch.ones(GRID[1:]),
        torch.ones(1, *GRID[1:], dtype=torch.complex128),
        1.0,
    )
    with pytest.raises(InputError, match="one by one"):
        VolumeScan([volume.slices[0], small])
    assert Proximal.settles
