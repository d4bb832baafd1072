"""Noise on a part of a grid: its covariance read off from unit impulses, on channels, tori, and two meshes of one region."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from laws.cases import keys
from laws.posterior import affine_law
from laws.test_noise import covariance_of_draws
from scorefield.core.noise import (
    AlongTime,
    GaussianField,
    MaskedField,
    Matern,
    Neumann,
    Periodic,
    autoregressive,
    runs_of,
)
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.functions.spectrum_check import bands_of
from scorefield.guidance import Guided, Measurement, MomentMatching
from scorefield.operators import Mask
from scorefield.samplers import Heun, LogSNRGrid
from scorefield.samplers.likelihood import ProbabilityFlow
from scorefield.samplers.probes import Exact as EveryAxis

F64 = torch.float64


def region(*rows: str) -> np.ndarray:
    """True where a character is a dot."""
    return np.array([[cell == "." for cell in row] for row in rows])


COAST = region("....#", ".##.#", ".#...", "#.#.#")  # a lake, a peninsula, an island
SOLID = np.ones((3, 4, 2), bool)
SOLID[1, 1:3] = False
REGIONS = {"line": np.array([1, 1, 0, 1, 1, 1, 0]).astype(bool), "coast": COAST, "solid": SOLID}
every_region = pytest.mark.parametrize("mask", REGIONS.values(), ids=REGIONS.keys())


def masked(mask: np.ndarray, length: float = 0.4, **arguments: object) -> MaskedField:
    return MaskedField(mask.shape, runs_of(mask), length, **arguments)  # pyright: ignore[reportArgumentType]


def dense(noise: MaskedField, grid: tuple[int, ...]) -> torch.Tensor:
    return noise.covariance(torch.eye(math.prod(grid), dtype=F64).reshape(-1, 1, *grid)).flatten(1)


@every_region
@pytest.mark.parametrize("periodic", [(), (0,)], ids=["ends", "periodic"])
def test_draws_covariance_precision_and_density_are_of_one_law(mask: np.ndarray, periodic: tuple[int, ...]) -> None:
    grid, inside = mask.shape, torch.from_numpy(mask).flatten()
    noise = masked(mask, domain=(1.0, 1.3, 0.7)[: mask.ndim], variance=2.0, periodic_axes=periodic)
    covariance = dense(noise, grid)
    probe = keys(1).randn((1, 1, int(mask.sum())), like=torch.empty(0, dtype=F64))
    assert noise.sample((1, 1, *grid), generator=keys(1), like=probe).flatten()[~inside].eq(0).all()
    torch.testing.assert_close(covariance_of_draws(noise, grid), covariance, rtol=1e-10, atol=1e-12)
    assert not covariance[~inside].any() and not covariance[:, ~inside].any()
    torch.testing.assert_close(covariance.diagonal()[inside], torch.full((int(mask.sum()),), 2.0, dtype=F64))
    known = covariance[inside][:, inside]
    x = torch.randn(3, 2, *grid, dtype=F64, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.solve(known, x.flatten(2)[..., inside].flatten(0, 1).T).T
    torch.testing.assert_close(noise.precision(x).flatten(2)[..., inside].flatten(0, 1), exact, rtol=1e-8, atol=1e-9)
    assert not noise.precision(x).flatten(2)[..., ~inside].any()
    torch.testing.assert_close(noise.log_det(x), (2 * torch.logdet(known)).expand(3))
    z = noise.within(x)
    normal = torch.distributions.MultivariateNormal(torch.zeros(len(known), dtype=F64), 9.0 * known)
    expected = normal.log_prob(z.flatten(2)[..., inside]).sum(1)
    torch.testing.assert_close(SDE(EDM(0.01, 3.0), noise).log_prior(z, torch.ones((), dtype=F64)), expected)


def test_a_channel_is_a_line_however_it_bends() -> None:
    """One cell wide, with no flux across its banks, it has the law of the way along it: nothing goes across a peninsula."""
    winding = region(".....", "####.", ".....", ".####", ".....")
    path = [*range(5), 9, *range(14, 9, -1), 15, *range(20, 25)]
    bent = masked(winding, math.sqrt(2), domain=5.0)  # κ = √(2ν)/ℓ = 1, with ν = 1 on a plane and 3/2 on a line
    straight = masked(np.ones(17, bool), math.sqrt(3), domain=17.0)
    torch.testing.assert_close(dense(bent, (5, 5))[path][:, path], dense(straight, (17,)), rtol=1e-10, atol=1e-12)


def test_nothing_goes_across_a_peninsula() -> None:
    """Two points on either side of a wall: as far apart as the way round its end, and not at all once it is closed."""
    correlations = {}
    for name, wall in (("none", 0), ("open", 20), ("closed", 24)):
        mask = np.ones((24, 24), bool)
        mask[:wall, 12] = False
        correlations[name] = float(dense_column(masked(mask, 0.15), (24, 24), 1 * 24 + 11)[1 * 24 + 13])
    assert correlations["none"] > 0.7
    assert 0 < correlations["open"] < 1e-3
    assert correlations["closed"] == 0


def dense_column(noise: MaskedField, grid: tuple[int, ...], at: int) -> torch.Tensor:
    impulse = torch.zeros(math.prod(grid), dtype=F64)
    impulse[at] = 1
    return noise.covariance(impulse.reshape(1, 1, *grid)).flatten()


def test_on_a_torus_it_is_the_noise_of_modes() -> None:
    """Exactly that with the finite differences' frequencies; the Matérn field itself, to second order."""
    errors = []
    for n in (12, 24, 48):
        grid = (n, n)
        noise = masked(np.ones(grid, bool), 0.25, periodic_axes=(0, 1))
        found = dense_column(noise, grid, 0).reshape(grid)
        wave = (2 * n * (math.pi * torch.arange(n, dtype=F64) / n).sin()) ** 2
        modes = (2 / 0.25**2 + wave[:, None] + wave) ** -2.0
        torch.testing.assert_close(found, torch.fft.ifft2(modes).real * n**2 / modes.sum(), rtol=1e-9, atol=1e-12)
        impulse = torch.zeros(1, 1, *grid, dtype=F64)
        impulse[0, 0, 0, 0] = 1
        smooth = GaussianField(Matern(0.25, 1.0), Periodic(), point=True).covariance(impulse)[0, 0]
        errors.append(float((found - smooth)[:: n // 12, :: n // 12].abs().max()))
    assert errors[0] < 0.06 and errors[1] < 0.4 * errors[0] and errors[2] < 0.36 * errors[1]


def test_a_box_has_the_correlations_of_cosine_modes() -> None:
    """Unmasked, with ends: Neumann's field, each cell divided by its standard deviation."""
    grid, n = (24, 24), 24 * 24
    found = dense(masked(np.ones(grid, bool), 0.3), grid)
    impulses = torch.eye(n, dtype=F64).reshape(-1, 1, *grid)
    smooth = GaussianField(Matern(0.3, 1.0), Neumann()).covariance(impulses).flatten(1)
    root = smooth.diagonal().rsqrt()
    assert float((found - root[:, None] * smooth * root).abs().max()) < 0.02


def test_the_law_is_one_on_every_mesh() -> None:
    """Between the same points: what is left are finite differences, and falls with the size of the cells."""
    mask = region(".....", "###..", "...#.", ".....")
    noise, columns = masked(mask, 0.3, domain=(0.8, 1.0)), []
    for factor in (3, 9, 27):
        grid = (4 * factor, 5 * factor)
        centre = factor // 2
        at = [(row * factor + centre) * grid[1] + column * factor + centre for row, column in np.argwhere(mask)]
        columns.append(torch.stack([dense_column(noise, grid, here)[at] for here in at[:4]]))
    coarse, middle, fine = columns
    assert float((middle - fine).abs().max()) < min(0.45 * float((coarse - fine).abs().max()), 0.02)


def test_the_covariance_and_the_precision_have_their_gradients() -> None:
    noise = masked(COAST)
    x = torch.randn(2, 1, *COAST.shape, dtype=F64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for apply in (noise.covariance, noise.precision):
        (found,) = torch.autograd.grad((x * apply(x)).sum(), x)
        torch.testing.assert_close(found, noise.within(x) * 0 + apply(x) + apply(x))


def test_times_of_a_region_are_one_law_too() -> None:
    noise = AlongTime(masked(COAST), autoregressive(0.6), times=3)
    x = torch.randn(2, 3, *COAST.shape, dtype=F64, generator=torch.Generator().manual_seed(0))
    inside = torch.from_numpy(COAST).expand(3, -1, -1).flatten()
    whole = noise.covariance(torch.eye(60, dtype=F64).reshape(-1, 3, *COAST.shape)).flatten(1)[inside][:, inside]
    torch.testing.assert_close(noise.log_det(x), torch.logdet(whole).expand(2))
    assert noise.dimension(x.shape[1:]) == int(inside.sum())
    torch.testing.assert_close(noise.precision(noise.covariance(x)), noise.within(x))


@every_region
def test_runs_are_the_mask(mask: np.ndarray) -> None:
    for case in (mask, ~mask):
        found = masked(case).support(case.shape)
        assert found is not None and np.array_equal(found.numpy(), case)
        finer = tuple(2 * n for n in case.shape)
        again = masked(case).support(finer)
        assert again is not None and np.array_equal(
            again.numpy(), np.kron(case, np.ones((2,) * case.ndim)).astype(bool)
        )


def test_what_is_no_region_is_refused() -> None:
    for arguments, expected in (
        (((4,), (1, 2), 0.1), "3"),
        (((4,), (4,), 0.1), "inside"),
        (((4,), (0, 4), 0.0), "length"),
        (((4,), (0, 4), 0.1, 1.0, 1.0, (1,)), "axes"),
        (((2, 2), (0, 4), 0.1, (1.0, 1.0, 1.0)), "3 lengths"),
    ):
        with pytest.raises(InputError, match=expected):
            MaskedField(*arguments)
    with pytest.raises(InputError, match="2 axes"):
        masked(COAST).covariance(torch.zeros(1, 1, 4))
    island = np.zeros((9, 9), bool)
    island[0, 0] = True
    with pytest.raises(InputError, match="finer"):
        masked(island).covariance(torch.zeros(1, 1, 2, 2))


# ------------------------------------------------------------------------------------------ what is drawn with such noise
class Gaussian:
    """The denoiser of x ~ N(0, D) on the cells of a region, by dense matrices."""

    def __init__(self, noise: MaskedField, smooth: MaskedField, mask: np.ndarray) -> None:
        self.sde, self.mask = SDE(EDM(0.02, 200.0), noise), torch.from_numpy(mask).flatten()
        self.data, self.noise = (dense(f, mask.shape)[self.mask][:, self.mask] for f in (smooth, noise))

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
        sigma = self.sde.schedule.sigma(t) if t.ndim == 0 else self.sde.schedule.sigma(t)[:, None, None]
        seen = x_t.flatten(1)[:, self.mask]
        found = torch.linalg.solve(self.data + sigma**2 * self.noise, seen[..., None]).mT @ self.data
        whole = torch.zeros_like(x_t).flatten(1)
        return whole.masked_scatter(self.mask.expand_as(whole), found).reshape(x_t.shape)


def test_draws_given_sparse_points_are_kriging() -> None:
    """Mean and covariance of p(x | y) on a region, y at three of its cells with noise."""
    prior = Gaussian(masked(COAST, 0.3), masked(COAST, 0.6), COAST)
    seen = torch.zeros(COAST.shape, dtype=F64)
    seen[0, 1] = seen[1, 3] = seen[2, 4] = 1
    y = torch.where(seen > 0, torch.tensor(1.5, dtype=F64), torch.nan)[None, None]
    guided = Guided(prior, Measurement(Mask(seen), y, 0.1), MomentMatching(tolerance=1e-10))
    times = LogSNRGrid()(prior.sde.schedule, 40)
    mean, covariance = affine_law(guided, times, Heun(), (1, *COAST.shape), 1)
    rows = seen.flatten()[prior.mask].nonzero().flatten()
    gain = prior.data[:, rows] @ torch.linalg.inv(prior.data[rows][:, rows] + 0.01 * torch.eye(3, dtype=F64))
    known = prior.mask
    torch.testing.assert_close(mean[known], gain @ torch.full((3,), 1.5, dtype=F64), rtol=0, atol=1e-2)
    torch.testing.assert_close(covariance[known][:, known], prior.data - gain @ prior.data[rows], rtol=0, atol=2e-2)
    assert not mean[~known].any()


def test_the_density_is_that_of_the_cells() -> None:
    prior = Gaussian(masked(COAST, 0.3), masked(COAST, 0.6), COAST)
    cells = torch.distributions.MultivariateNormal(torch.zeros(int(COAST.sum()), dtype=F64), prior.data)
    x = masked(COAST, 0.6).sample((4, 1, *COAST.shape), generator=keys(4), like=torch.empty(0, dtype=F64))
    flow = ProbabilityFlow(probes=EveryAxis(), tolerance=1e-7)
    found = flow.log_prob(prior, x, generator=keys(4))
    sigma = prior.sde.schedule.sigma(flow.ends(prior.sde.schedule)[0])
    law = torch.distributions.MultivariateNormal(cells.loc, prior.data + sigma**2 * prior.noise)
    torch.testing.assert_close(found.nats, law.log_prob(x.flatten(1)[:, prior.mask]), rtol=0, atol=0.02)
    assert not found.latent.flatten(1)[:, ~prior.mask].any()


def test_whitened_noise_is_white_and_its_bands_are_those_of_the_data() -> None:
    """WᵀW = C⁻¹ on the cells; the spectrum check finds 1 for data of the noise's law, and a fall for smoother ones."""
    noise, cells = masked(COAST), torch.from_numpy(COAST).flatten()
    root = noise.whitened(torch.eye(20, dtype=F64).reshape(-1, 1, *COAST.shape)).flatten(1)
    inverse = noise.precision(torch.eye(20, dtype=F64).reshape(-1, 1, *COAST.shape)).flatten(1)
    torch.testing.assert_close(root @ root.T, inverse)
    assert not root[:, ~cells].any()
    mask = np.ones((20, 24), bool)
    mask[:12, 10] = mask[5:, 3] = mask[15:, 18:] = False
    noise, shape = masked(mask, 0.2, domain=(20 / 24, 1.0)), (200, 1, 20, 24)
    like, smooth = torch.empty(0, dtype=F64), masked(mask, 0.8, domain=(20 / 24, 1.0))
    same, steep = (bands_of(f.sample(shape, generator=keys(200), like=like), noise).ratio for f in (noise, smooth))
    assert float(same.log().abs().max()) < 0.15
    levels = (2 / 0.2**2 + (2 * math.pi * torch.arange(len(steep))) ** 2) / (
        2 / 0.8**2 + (2 * math.pi * torch.arange(len(steep))) ** 2
    )
    relative = (steep / levels**2).log()[1:]
    assert float(steep[0] / steep[-1]) > 100 and float(relative.max() - relative.min()) < 1.6


@pytest.mark.parametrize("grid", [(7, 5), (8, 6), (1, 4), (2, 2)])
def test_on_a_torus_each_cell_has_the_variance(grid: tuple[int, int]) -> None:
    """Of an odd and an even ring of rows, with a hole: the diagonal of the covariance."""
    known = np.ones(grid, bool)
    known[:1, :1] = False
    noise = masked(known, 0.3, variance=2.0, periodic_axes=(0, 1))
    one = torch.eye(known.size, dtype=torch.float64).reshape(-1, 1, *grid)
    found = noise.covariance(one).flatten(1).diagonal()[torch.from_numpy(known.flatten())]
    torch.testing.assert_close(found, torch.full_like(found, 2.0))
