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
from scorefield.losses.splitting import SSDU
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


@dataclass
class Known:
    """A denoiser with an answer of its own."""

    answer: torch.Tensor
    sde = SDE(EDM())

    def __call__(self, x_t, t, cond=None):
        return self.answer


def test_the_mean_of_ssdu_is_the_error_in_the_part_that_was_held_out():
    acquisition, loss = matrices(partial_isometries=False), None
    batch, clean = measurements(acquisition)
    denoiser, A = Denoiser(Waves(), SDE(VP()), EDMPreconditioner(0.5)), acquisition(batch)
    for part in (0.2, 0.6):
        loss = SSDU(acquisition, part)
        m = loss.held_out(batch.y, Quick(2))
        with torch.no_grad():
            values = loss(denoiser, batch, generator=Quick(2))
            h = input_of(denoiser, batch)[1](A.adjoint((1 - m) * batch.y))
            seeing = input_of(denoiser, batch)[1](A.adjoint(batch.y))
        count = m.sum(1).clamp(min=1)
        assert float(m.mean()) == pytest.approx(part, abs=0.01)
        assert mean_within(values - (m * (A(h) - clean)).square().sum(1) / count)
        biased = ((m * (A(seeing) - batch.y)).square() - m * batch.noise[:, None] ** 2).sum(1) / count
        assert not mean_within(
            biased - (m * (A(seeing) - clean)).square().sum(1) / count, errors=10
        )  # h has seen the noise


def test_ssdu_is_least_for_the_mean_of_a_gaussian_given_what_was_kept():
    """L(h + ε g) − L(h − ε g) = 4 ε E⟨m A g, m (A h − y)⟩/M vanishes for every g(v) where h = E[x | v], and not for others."""
    acquisition = matrices(partial_isometries=False)
    root = torch.randn(6, 6, dtype=F64, generator=torch.Generator().manual_seed(7)) / 2
    batch, clean = measurements(acquisition)
    x = (batch.x.flatten(1) @ root.T).reshape(batch.x.shape)
    batch = replace(batch, x=x, y=acquisition(batch)(x) + batch.y - clean)
    loss, A = SSDU(acquisition), acquisition(batch)
    kept = (1 - loss.held_out(batch.y, Quick(2)))[:, :, None] * A.matrix
    pulled = torch.einsum("bmd,bm->bd", kept, batch.y)
    precision = torch.linalg.inv(root @ root.T) + kept.mT @ kept / batch.noise[:, None, None] ** 2
    mean = torch.linalg.solve(precision, pulled / batch.noise[:, None] ** 2)

    def slope(h, g):
        both = [loss(Known((h + s * g).reshape(x.shape)), batch, generator=Quick(2)) for s in (0.1, -0.1)]
        return both[0] - both[1]

    for direction in (pulled, mean, mean.roll(1, 1), pulled.sin()):
        assert mean_within(slope(mean, direction))
    assert not mean_within(slope(0.9 * mean, mean), errors=10)
    assert not mean_within(slope(pulled, pulled), errors=10)


def test_coils_and_complex_parts_are_held_out_together():
    y = torch.ones(3, 8, 5, 6)
    m = SSDU().held_out(y, Quick(1))
    assert m.shape == y.shape and bool((m == m[:, :1]).all()) and 0 < float(m.mean()) < 1
    with pytest.raises(InputError, match="part in"):
        SSDU(part=1.0)


def test_what_is_missing_is_said():
    denoiser, x = Denoiser(Waves(), SDE(EDM()), EDMPreconditioner(0.5)), torch.randn(3, 2, 4, 4)
    with pytest.raises(InputError, match="have none"):
        GSURE()(denoiser, Batch(x), generator=Quick(2))
    with pytest.raises(InputError, match="bring the mask and maps"):
        GSURE()(denoiser, Batch(x, y=x, noise=torch.ones(3)), generator=Quick(2))
