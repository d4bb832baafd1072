"""Losses that see undersampled measurements alone: their means are errors in what was measured, whatever was measured of each."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from laws.test_sure import (
    DERIVATIVES,
    DRAWS,
    EDM,
    F64,
    SDE,
    VP,
    Denoiser,
    EDMPreconditioner,
    InputError,
    Quick,
    Waves,
    mean_within,
)
from scorefield.data.batch import Batch
from scorefield.losses.gsure import (
    GSURE,
    Acquisition,
    PerSample,
    SampledKSpace,
    SupervisedGSURE,
    energy,
    input_of,
    ranged,
)
from scorefield.operators import LinearOperator, to_channels, to_complex


@dataclass(frozen=True, eq=False)
class Matrices(LinearOperator):
    """A matrix (m, d) for each sample, on flattened fields."""

    matrix: torch.Tensor
    shape: tuple

    def __call__(self, x):
        return torch.einsum("bmd,bd->bm", self.matrix, x.flatten(1))

    def adjoint(self, y):
        return torch.einsum("bmd,bm->bd", self.matrix, y).reshape(-1, *self.shape)

    def project(self, x, y):
        change = torch.einsum("bdm,bm->bd", torch.linalg.pinv(self.matrix), y - self(x))
        return x + change.reshape(-1, *self.shape)


SHAPE, KINDS = (2, 3), 4


@dataclass(frozen=True)
class Given(Acquisition):
    """Matrices of rank 4 of 6, by number."""

    choice: torch.Tensor

    def __call__(self, batch):
        return Matrices(self.choice[batch.given["number"]], SHAPE)


def matrices(partial_isometries):
    """Such as many coils have; or, as partial isometries, such as a mask of k-space, rotated."""
    choice = torch.randn(KINDS, 4, 6, dtype=F64, generator=torch.Generator().manual_seed(3)) / 2
    return Given(torch.linalg.qr(choice.mT)[0].mT if partial_isometries else choice)


def measurements(acquisition, n=DRAWS):
    x = torch.randn(n, *SHAPE, dtype=F64, generator=torch.Generator().manual_seed(0))
    noise = 0.2 + 0.2 * torch.rand(n, dtype=F64, generator=torch.Generator().manual_seed(1))
    batch = Batch(x, given={"number": torch.arange(n) % KINDS}, noise=noise)
    clean = acquisition(batch)(x)
    return replace(batch, y=clean + noise[:, None] * Quick(4).randn(clean.shape, like=clean)), clean


@pytest.mark.parametrize("schedule", [EDM(), VP()], ids=["EDM", "VP"])
@pytest.mark.parametrize("derivative", DERIVATIVES.values(), ids=DERIVATIVES)
@pytest.mark.parametrize("norm", ["projected", "measured"])
def test_the_mean_of_gsure_is_the_error_in_what_was_measured(norm, derivative, schedule):
    acquisition = matrices(partial_isometries=False)
    batch, clean = measurements(acquisition)
    denoiser = Denoiser(Waves(), SDE(schedule), EDMPreconditioner(0.5))
    values = GSURE(acquisition, derivative, norm)(denoiser, batch, generator=Quick(2)).detach()
    truth = SupervisedGSURE(acquisition, norm)(denoiser, batch, generator=Quick(2)).detach()
    known = (clean if norm == "measured" else ranged(acquisition(batch), batch.x)).square().flatten(1).sum(1)
    assert mean_within(values - truth + known / 6)
    assert not mean_within(values - truth, errors=30)


@pytest.mark.parametrize("norm", ["projected", "measured"])
def test_the_logged_errors_are_those_of_the_truth_as_far_as_it_is_seen(norm):
    acquisition = matrices(partial_isometries=False)
    batch, clean = measurements(acquisition)
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    A, found = acquisition(batch), {}
    with torch.no_grad():
        denoised = input_of(denoiser, batch)[1](A.adjoint(batch.y))
        for figure in GSURE(acquisition, norm=norm).figures:
            error, power = figure(denoiser, batch, generator=Quick(2))
            found[figure.name] = float((error.sum() / power.sum()).sqrt())
    error = float((A(denoised) - clean).norm())
    assert found == {  # sums over 10⁴ draws of 4 to 6 values: 1 % apart from what they estimate
        "noise_nrmse": pytest.approx(error / float((batch.y - clean).norm()), rel=0.03),
        "image_nrmse": pytest.approx(error / float(clean.norm()), rel=0.03),
    }


def test_both_norms_are_one_where_singular_values_are_zero_or_one():
    acquisition = matrices(partial_isometries=True)
    batch, _ = measurements(acquisition, 200)
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    errors = [
        SupervisedGSURE(acquisition, norm)(denoiser, batch, generator=Quick(2)) for norm in ("projected", "measured")
    ]
    torch.testing.assert_close(*errors)


class Blocks(PerSample):
    """The same operator for each of as many equal blocks of samples: thousands of draws in a few calls."""

    def __call__(self, x):
        return torch.cat([A(part) for A, part in zip(self.operators, x.chunk(len(self.operators)), strict=True)])

    def adjoint(self, y):
        return torch.cat(
            [A.adjoint(part) for A, part in zip(self.operators, y.chunk(len(self.operators)), strict=True)]
        )

    def project(self, x, y):
        rows = zip(self.operators, x.chunk(len(self.operators)), y.chunk(len(self.operators)), strict=True)
        return torch.cat([A.project(first, second) for A, first, second in rows])


@dataclass(frozen=True)
class BlocksOfKSpace(Acquisition):
    """The first of each block tells the operator."""

    def __call__(self, batch):
        first = slice(None, None, len(batch) // KINDS)
        given = {name: value[first] for name, value in batch.given.items()}
        return Blocks(SampledKSpace()(replace(batch, given=given)).operators)


def coil_noise(lower, shape, like):
    """L n in every point of k-space, two channels for each coil."""
    white = torch.view_as_complex(Quick(4).randn((*shape, 2), like=like))
    return torch.einsum("ij,bj...->bi...", lower, white)


@pytest.mark.parametrize("norm", ["projected", "measured"])
def test_sampled_k_space_of_many_coils(norm):
    """The identity with the operators of parallel imaging, other points for each block, complex fields as two channels, and noise
    of covariance L Lᴴ between the coils, whitened: L⁻¹y for y, L⁻¹S for S.
    """
    n, coils, grid, noise = DRAWS if norm == "measured" else DRAWS // 4, 2, (4, 3), 0.3
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(coils, *grid, dtype=torch.complex128, generator=generator)
    lower = torch.tensor([[1.0, 0.0], [0.6 + 0.5j, 0.8]], dtype=torch.complex128)
    white = torch.einsum("ij,j...->i...", torch.linalg.inv(lower), maps)
    mask = (torch.rand(KINDS, *grid, generator=generator) < 0.5).repeat_interleave(n // KINDS, 0)
    x = torch.randn(n, 2, *grid, dtype=F64, generator=generator)
    batch = Batch(
        x, given={"maps": white.expand(n, -1, -1, -1), "mask": mask}, noise=torch.full((n,), noise, dtype=F64)
    )
    raw = BlocksOfKSpace()(replace(batch, given={"maps": maps.expand(n, -1, -1, -1), "mask": mask}))
    y = to_complex(raw(x)) + torch.where(mask[:, None], noise * coil_noise(lower, (n, coils, *grid), x), 0)
    batch = replace(batch, y=to_channels(torch.einsum("ij,bj...->bi...", torch.linalg.inv(lower), y)))
    clean = BlocksOfKSpace()(batch)(x)
    some = replace(batch, given={name: value[7:9] for name, value in batch.given.items()})
    torch.testing.assert_close(clean[7:9], SampledKSpace()(some)(x[7:9]))
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    values = GSURE(BlocksOfKSpace(), norm=norm)(denoiser, batch, generator=Quick(2)).detach()
    truth = SupervisedGSURE(BlocksOfKSpace(), norm)(denoiser, batch, generator=Quick(2)).detach()
    assert mean_within(values - truth + energy(BlocksOfKSpace()(batch), x, norm) / (2 * math.prod(grid)))
    assert not mean_within(values - truth, errors=30)


def birdcage(grid, coils=4):
    """Maps of coils around the grid, Σ|S|² = 1, in single precision as data have them."""
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in grid), indexing="ij")
    angles = 2 * math.pi * torch.arange(coils) / coils
    apart = torch.stack([torch.complex(x - 1.5 * a.cos(), y - 1.5 * a.sin()) for a in angles])
    return (apart / apart.abs() ** 2) / (1 / apart.abs()).square().sum(0).sqrt()


def few_lines(grid):
    """Every fourth line, and two in the middle."""
    mask = torch.zeros(1, *grid, dtype=torch.bool)
    mask[..., ::4] = mask[..., grid[1] // 2 - 1 : grid[1] // 2 + 1] = True
    return mask


def test_what_coils_measure_is_projected_on_as_by_a_dense_matrix():
    """P to 1e-5 where the least singular value is a hundredth of the largest: 30 iterations in float32 err by 18 % there."""
    grid = (12, 16)
    given = {"maps": birdcage(grid)[None], "mask": few_lines(grid)}
    A, size = SampledKSpace()(Batch(torch.zeros(1, 2, *grid), given=given)), 2 * math.prod(grid)
    (operator,) = A.operators
    normal = operator.normal(torch.eye(size, dtype=F64).reshape(size, 2, *grid)).flatten(1)
    squares, modes = torch.linalg.eigh((normal + normal.T) / 2)
    modes = modes[:, squares > 1e-9]
    w = torch.randn(1, 2, *grid, generator=torch.Generator().manual_seed(0))
    expected = modes @ (modes.T @ w.double().flatten())
    torch.testing.assert_close(ranged(A, w).double().flatten(), expected, atol=1e-5, rtol=0)


def test_a_projection_that_is_not_found_is_refused(monkeypatch):
    grid = (12, 16)
    batch = Batch(torch.zeros(1, 2, *grid), given={"maps": birdcage(grid)[None], "mask": few_lines(grid)})
    batch = replace(batch, y=SampledKSpace()(batch)(torch.randn(1, 2, *grid)), noise=torch.ones(1))
    denoiser = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5))
    monkeypatch.setattr("scorefield.losses.gsure.ITERATIONS", 30)
    with pytest.raises(InputError, match="norm measured"):
        GSURE(norm="projected")(denoiser, batch, generator=Quick(2))
    assert GSURE()(denoiser, batch, generator=Quick(2)).isfinite().all()


def test_what_is_missing_is_said():
    denoiser, x = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5)), torch.randn(3, 2, 4, 4)
    with pytest.raises(InputError, match="have none"):
        GSURE()(denoiser, Batch(x), generator=Quick(2))
    with pytest.raises(InputError, match="bring the mask and maps"):
        GSURE()(denoiser, Batch(x, y=x, noise=torch.ones(3)), generator=Quick(2))
