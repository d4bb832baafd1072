"""Field noise is the law of a function: stated by mode and by kernel, and read off exactly from unit impulses."""

import itertools
import math

import pytest
import scipy.fft
import torch

from laws.cases import Draws, keys
from laws.test_oracles import matrix
from scorefield.core.noise import (
    Exponential,
    Free,
    GaussianField,
    KernelField,
    Matern,
    Neumann,
    Periodic,
    SquaredExponential,
    VonKarman,
    White,
    WhiteModes,
)
from scorefield.foundation.cosine import dct, idct
from scorefield.foundation.errors import InputError

F64 = torch.float64
LIKE = torch.empty(0, dtype=F64)
DENSITIES = {
    "Matern": lambda rank: Matern(0.2, 1.0),
    "rough Matern": lambda rank: Matern(0.25, 0.3, nugget=0.01),
    "Exponential": lambda rank: Exponential(0.1),
    "VonKarman": lambda rank: VonKarman(1.5, rank + 0.7),
    "SquaredExponential": lambda rank: SquaredExponential(0.15, nugget=1e-4),
}
BOUNDARIES = {"periodic": Periodic(), "neumann": Neumann(), "free": Free(), "free by half": Free(2.5)}
GRIDS = {"1d": (7,), "1d even": (8,), "2d": (4, 6), "2d odd": (6, 5), "3d": (3, 4, 2)}
DOMAINS = (1.0, 1.5, 0.6)

every_density = pytest.mark.parametrize("density", DENSITIES)
every_grid = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


def field(density="Matern", boundary="periodic", rank=2, **arguments) -> GaussianField:
    return GaussianField(DENSITIES[density](rank), BOUNDARIES[boundary], DOMAINS[:rank], **arguments)


def frequencies(field, grid):
    """The modes of the grid on which a field is made, and their frequencies: the definition, spelt out."""
    points, lengths = field.boundary.extend(grid, field.lengths(len(grid)), field.density.reach)
    cosine = isinstance(field.boundary, Neumann)
    modes = [range(n) if cosine else [k - n * (2 * k >= n) for k in range(n)] for n in points]
    spacing = [(1 if cosine else 2) * math.pi / length for length in lengths]
    return list(itertools.product(*modes)), spacing


def dense(field, grid):
    """C as the sum over modes of λ_k e_k(x) e_k(x'), for points x of the grid."""
    modes, spacing = frequencies(field, grid)
    values = field.eigenvalues(grid).flatten()
    lengths = field.lengths(len(grid))
    steps = [torch.arange(n, dtype=F64) * length / n for n, length in zip(grid, lengths, strict=True)]
    if isinstance(field.boundary, Neumann):
        steps = [step + length / n / 2 for step, n, length in zip(steps, grid, lengths, strict=True)]
    x = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
    total = torch.zeros(len(x), len(x), dtype=F64)
    for mode, value in zip(modes, values, strict=True):
        omega = torch.tensor([k * s for k, s in zip(mode, spacing, strict=True)], dtype=F64)
        if isinstance(field.boundary, Neumann):
            basis = ((x * omega).cos() * torch.tensor([math.sqrt(2) if k else 1.0 for k in mode], dtype=F64)).prod(1)
            total += value * torch.outer(basis, basis)
        else:
            total += value * ((x[:, None] - x) @ omega).cos()
    return total


def distances(field, grid, shift=(0.0, 0.0, 0.0)):
    steps = [torch.arange(n, dtype=F64) * length / n for n, length in zip(grid, field.lengths(len(grid)), strict=True)]
    x = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
    return (x[:, None] - x + torch.tensor(shift[: len(grid)], dtype=F64)).square().sum(-1).sqrt()


def covariance_of_draws(noise, grid):
    """From unit impulses in place of the white draws."""
    probe = Counting()
    noise.sample((1, 1, *grid), generator=probe, like=LIKE)
    impulses = torch.eye(math.prod(probe.shape), dtype=F64).reshape(-1, *probe.shape)
    factor = noise.sample((len(impulses), 1, *grid), generator=Draws(impulses), like=LIKE).flatten(1)
    return factor.T @ factor


class Counting(Draws):
    def randn(self, shape, *, like):
        self.shape = tuple(shape)[1:]
        return torch.zeros(tuple(shape), dtype=like.dtype)


# ---------------------------------------------------------------------------------------------------- the law of modes
@every_density
@every_grid
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_coarser_grids_field_is_the_finer_ones_with_modes_removed(density, boundary, grid):
    if boundary == "free by half" and any(n % 2 for n in grid):
        grid = tuple(2 * n for n in grid)
    noise, fine = field(density, boundary, len(grid)), tuple(2 * n for n in grid)
    of_mode = dict(zip(frequencies(noise, fine)[0], noise.eigenvalues(fine).flatten().tolist(), strict=True))
    modes, values = frequencies(noise, grid)[0], noise.eigenvalues(grid).flatten().tolist()
    assert values == pytest.approx([of_mode[mode] for mode in modes], rel=1e-13, abs=0)  # powers by another vector unit
    assert min(values) > 0


@every_density
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_the_variance_is_that_of_all_modes(density, boundary):
    """Plain sums over ever more modes in one dimension, less the nugget's, tend to σ² from below, at the rate of their tail."""
    noise = GaussianField(DENSITIES[density](1), BOUNDARIES[boundary], 1.5, variance=2.0)
    missing = [2.0 - float((noise.eigenvalues((n,)) - 2.0 * noise.density.nugget).sum()) for n in (2000, 8000)]
    smoothness = {"Matern": 1.0, "rough Matern": 0.3, "Exponential": 0.5, "VonKarman": 0.35, "SquaredExponential": 9.0}
    if missing[0] > 1e-9:
        assert math.log(missing[0] / missing[1], 4) == pytest.approx(2 * smoothness[density], abs=0.02)
    else:
        assert missing[0] == pytest.approx(0, abs=1e-9) and missing[1] == pytest.approx(0, abs=1e-9)


@every_density
@every_grid
def test_modes_fold_onto_their_aliases(density, grid):
    """Sampled by point, a mode of a coarse grid is the sum of the finer grid's modes that look the same on it."""
    noise, nugget = field(density, "periodic", len(grid), point=True), DENSITIES[density](1).nugget
    coarse, fine = (noise.eigenvalues(g) - nugget for g in (grid, tuple(3 * n for n in grid)))
    for axis, n in enumerate(grid):
        fine = fine.unflatten(axis, (3, n)).sum(axis)
    torch.testing.assert_close(coarse, fine, rtol=1e-12, atol=1e-15)
    assert float(coarse.sum()) == pytest.approx(1, rel=1e-12)


@every_density
@every_grid
def test_sampled_by_point_the_kernel_is_exact(density, grid):
    """On a torus the kernel is summed over its images; in free space it is the kernel itself, but for the torus' far side."""
    rank = len(grid)
    noise, free = (field(density, boundary, rank, point=True) for boundary in ("periodic", "free"))
    reach = {1: 20, 2: 8, 3: 6}[rank]
    images = torch.zeros(math.prod(grid), math.prod(grid), dtype=F64)
    for image in itertools.product(range(-reach, reach + 1), repeat=rank):
        shift = [i * length for i, length in zip(image, DOMAINS[:rank], strict=True)]
        images += noise.density.kernel(distances(noise, grid, shift), rank)
    nugget = noise.density.nugget
    diagonal = nugget * math.prod(grid) * torch.eye(len(images), dtype=F64)
    tail = 1e-4 if density in ("rough Matern", "VonKarman") else 1e-6  # images further away
    images = images / images[0, 0]  # a point of the torus has unit variance too
    torch.testing.assert_close(dense(noise, grid), images + diagonal, rtol=0, atol=tail)
    exact = free.density.kernel(distances(free, grid), rank) + diagonal
    wrapped = {"rough Matern": 0.2, "VonKarman": 0.05, "Exponential": 0.02}.get(density, 1e-3)
    torch.testing.assert_close(matrix(free.covariance, grid), exact, rtol=0, atol=wrapped)


def test_kernels_are_the_known_ones():
    r = torch.tensor([0.0, 1e-9, 0.03, 0.2, 1.0, 20.0], dtype=F64)
    half, three_halves = (-r / 0.2).exp(), (1 + math.sqrt(3) * r / 0.2) * (-math.sqrt(3) * r / 0.2).exp()
    torch.testing.assert_close(Exponential(0.2).kernel(r, 2), half, rtol=1e-10, atol=1e-7)
    torch.testing.assert_close(Matern(0.2, 0.5).kernel(r, 3), half, rtol=1e-10, atol=1e-7)
    torch.testing.assert_close(Matern(0.2, 1.5).kernel(r, 1), three_halves, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        VonKarman(2 * math.pi * 0.2 / math.sqrt(3), 5.0).kernel(r, 2), three_halves, rtol=1e-10, atol=1e-12
    )


# ----------------------------------------------------------------------------------------------------- draws and matrices
NOISES = {
    **{name: field(boundary=name) for name in BOUNDARIES},
    "by point": field(point=True, variance=0.7),
    "neumann by point": field("Exponential", "neumann", point=True),
    "free by point": field("Exponential", "free", point=True),
    "squared": field("SquaredExponential"),
    "3d": field("VonKarman", rank=3),
    "3d free": field("Exponential", "free", rank=3),
    "1d free": field("Exponential", "free", rank=1),
    "1d neumann": field("Matern", "neumann", rank=1),
}


def grid_of(name):
    return {"3d": (2, 3, 5), "3d free": (2, 3, 2), "1d free": (9,), "1d neumann": (9,)}.get(name, (4, 6))


@pytest.mark.parametrize("name", NOISES)
def test_draws_and_covariance_have_the_matrix_of_the_series(name):
    noise, grid = NOISES[name], grid_of(name)
    expected = dense(noise, grid)
    torch.testing.assert_close(covariance_of_draws(noise, grid), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(matrix(noise.covariance, grid), expected, rtol=1e-12, atol=1e-13)
    assert float((expected[0, 1:] / expected[0, 0]).abs().max()) > 0.05  # coloured


@pytest.mark.parametrize("name", [name for name, noise in NOISES.items() if noise.diagonal])
def test_precision_and_determinant_are_those_of_the_matrix(name):
    noise, grid = NOISES[name], grid_of(name)
    c = dense(noise, grid)
    torch.testing.assert_close(
        matrix(noise.precision, grid) @ c,
        torch.eye(len(c), dtype=F64),
        rtol=0,
        atol=1e-11 * float(torch.linalg.cond(c)),
    )
    x = torch.zeros(2, 3, *grid, dtype=F64)
    torch.testing.assert_close(noise.log_det(x), (3 * torch.logdet(c)).expand(2), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["free", "free by half", "1d free"])
def test_a_free_field_has_no_precision(name):
    x = torch.zeros(1, 1, *grid_of(name), dtype=F64)
    for function in (NOISES[name].precision, NOISES[name].log_det):
        with pytest.raises(InputError, match="no usable inverse: take Periodic or Neumann"):
            function(x)


def test_without_a_nugget_a_squared_exponential_has_no_precision():
    noise = GaussianField(SquaredExponential(0.3, nugget=0.0))
    with pytest.raises(InputError, match="nugget"):
        noise.precision(torch.zeros(1, 1, 32, 32))


def test_a_neumann_field_has_no_gradient_at_the_edge_and_twice_the_variance():
    noise = GaussianField(Matern(0.1, 2.5), Neumann())
    c = dense(noise, (256,))
    assert float(c[0, 0]) == pytest.approx(2 * float(c[128, 128]), rel=0.02)
    slope = c[0, 0] + c[1, 1] - 2 * c[0, 1], c[130, 130] + c[131, 131] - 2 * c[130, 131]
    assert slope[0] < 0.05 * slope[1]


def test_a_field_in_kilometres_is_the_same_as_in_metres():
    km, metres = (GaussianField(Matern(0.1 * scale), domain=(scale, 2 * scale)) for scale in (1.0, 1000.0))
    torch.testing.assert_close(km.eigenvalues((8, 16)), metres.eigenvalues((8, 16)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", "free"])
@pytest.mark.parametrize("band", [(4, 6), (5, 3)])
def test_beyond_its_band_a_noise_has_no_modes_and_within_it_those_of_the_coarse_grid(boundary, band):
    whole, banded = field(boundary=boundary), field(boundary=boundary, band=band)
    assert torch.equal(banded.eigenvalues(band), whole.eigenvalues(band))
    fine = banded.eigenvalues((12, 18))
    assert float(fine.sum()) == pytest.approx(float(whole.eigenvalues(band).sum()), rel=1e-12)
    assert not banded.diagonal
    if boundary == "periodic":
        with pytest.raises(InputError, match="no variance"):
            banded.precision(torch.zeros(1, 1, 12, 18))


@pytest.mark.parametrize("grid", [(8,), (12, 9)])
def test_what_a_nugget_adds_does_not_depend_on_the_torus(grid):
    noises = (GaussianField(Matern(0.1, 2.0, nugget=0.01), b) for b in (Periodic(), Free(2.0), Free(4.0)))
    plain = (GaussianField(Matern(0.1, 2.0), b) for b in (Periodic(), Free(2.0), Free(4.0)))
    for noise, without in zip(noises, plain, strict=True):
        added = matrix(noise.covariance, grid) - matrix(without.covariance, grid)
        white = 0.01 * math.prod(grid) * torch.eye(math.prod(grid), dtype=F64)
        torch.testing.assert_close(added, white, rtol=0, atol=1e-12)


def test_white_modes_have_the_same_variance_on_every_grid():
    noise = WhiteModes(points=24)
    for grid in ((4, 6), (8, 12), (3, 5)):
        c = matrix(noise.covariance, grid)
        torch.testing.assert_close(covariance_of_draws(noise, grid), c, rtol=1e-12, atol=0)
        assert float(c.sum()) / len(c) ** 2 == pytest.approx(1 / 24)  # of the mean, mode 0
        x = torch.ones(2, 1, *grid, dtype=F64)
        torch.testing.assert_close(noise.covariance(noise.precision(x)), x)
        torch.testing.assert_close(noise.log_det(x), torch.logdet(c).expand(2), rtol=1e-9, atol=1e-9)
    assert torch.equal(noise.covariance(torch.ones(1, 1, 4, 6)), White().covariance(torch.ones(1, 1, 4, 6)))


# ------------------------------------------------------------------------------------------------------ scattered points
def test_on_scattered_points_the_covariance_is_the_kernel():
    points = torch.rand(12, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    noise = KernelField(points.tolist(), Matern(0.3, 1.5, nugget=1e-3), variance=1.7)
    c = 1.7 * (Matern(0.3, 1.5).kernel(torch.cdist(points, points), 2) + 1e-3 * torch.eye(12, dtype=F64))
    torch.testing.assert_close(matrix(noise.covariance, (12,)), c, rtol=1e-10, atol=1e-7)
    torch.testing.assert_close(covariance_of_draws(noise, (12,)), c, rtol=1e-10, atol=1e-7)
    x = torch.randn(3, 2, 12, generator=torch.Generator().manual_seed(1), dtype=F64)
    torch.testing.assert_close(noise.covariance(noise.precision(x)), x, rtol=0, atol=1e-9)
    torch.testing.assert_close(noise.log_det(x), (2 * torch.logdet(c)).expand(3), rtol=1e-6, atol=0)


def test_on_a_grid_the_field_of_points_is_that_of_the_grid():
    free = field("Exponential", "free", point=True)
    steps = [torch.arange(n, dtype=F64) * length / n for n, length in zip((4, 6), DOMAINS[:2], strict=True)]
    points = torch.stack(torch.meshgrid(*steps, indexing="ij"), -1).flatten(0, -2)
    scattered = KernelField(points.tolist(), free.density)
    torch.testing.assert_close(matrix(scattered.covariance, (24,)), matrix(free.covariance, (4, 6)), rtol=0, atol=2e-4)


def test_fields_on_another_set_of_points_are_refused():
    noise = KernelField([[0.0], [0.5]], Exponential(0.1))
    with pytest.raises(InputError, match="2 scattered points, and the fields have the grid"):
        noise.sample((1, 1, 4, 4), generator=keys(1), like=LIKE)
    with pytest.raises(InputError, match="nugget"):
        KernelField([[0.0], [0.0]], Exponential(0.1)).sample((1, 1, 2), generator=keys(1), like=LIKE)


# ------------------------------------------------------------------------------------------------------------ bookkeeping
@pytest.mark.parametrize("name", ["periodic", "neumann", "free", "3d free"])
def test_a_draw_depends_on_its_own_key_alone(name):
    noise, grid, like = NOISES[name], grid_of(name), torch.empty(0)
    together = noise.sample((3, 2, *grid), generator=keys(3), like=like)
    alone = noise.sample((1, 2, *grid), generator=type(keys(1))([(0, 2)]), like=like)
    assert torch.equal(together[2:], alone) and together.dtype == torch.float32
    assert not torch.allclose(together[0, 0], together[0, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Matern(0.0), "length > 0"),
        (lambda: Matern(0.1, nugget=-1.0), "nugget >= 0"),
        (lambda: Exponential(math.nan), "length > 0"),
        (lambda: GaussianField(VonKarman(1.0, 2.0)).eigenvalues((4, 4)), "exponent above 2"),
        (
            lambda: GaussianField(Matern(0.1), domain=(1.0, 1.0)).eigenvalues((4,)),
            "2 lengths, but the fields have 1 axes",
        ),
        (lambda: GaussianField(Matern(0.1), domain=0.0), "domain > 0"),
        (lambda: GaussianField(Matern(0.1), Free(1.3)).eigenvalues((32, 32)), "nearest extension is 1.3125"),
        (lambda: Free(0.5), "extension >= 1"),
        (lambda: GaussianField(Matern(0.1), point=True, band=(4, 4)), "band"),
        (lambda: GaussianField(Matern(0.1), band=(4,)).eigenvalues((8, 8)), "band of 1 sizes"),
        (lambda: WhiteModes(0), "points >= 1"),
        (lambda: KernelField([[0.0], [0.0, 1.0]], Matern(0.1)), "1 to 3 coordinates, as many for each"),
    ],
)
def test_what_makes_no_field_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("grid", [(8,), (5, 6), (2, 3, 4)])
def test_the_cosine_transform_is_scipys(grid):
    x, axes = (
        torch.randn(2, *grid, generator=torch.Generator().manual_seed(0), dtype=F64),
        tuple(range(1, 1 + len(grid))),
    )
    expected = torch.from_numpy(scipy.fft.dctn(x.numpy(), axes=axes, norm="ortho"))
    torch.testing.assert_close(dct(x, axes), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(idct(expected, axes), x, rtol=1e-12, atol=1e-13)
