"""Members by weighted particles are draws of p(x | y), with p(y), of slices and of volumes of several coils."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from laws.test_volumes import GRID as SOLID
from laws.test_volumes import measured, smooth
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Identity
from scorefield.foundation.errors import InputError
from scorefield.guidance import Method, MomentMatching, Proximal
from scorefield.model import Model
from scorefield.mri.posterior import Posterior
from scorefield.mri.scan import Scan
from scorefield.mri.volume_scan import VolumeScan
from scorefield.nn import UNet
from scorefield.samplers import DPMSolverPP2M, EDMGrid, Sampler

pytestmark = pytest.mark.usefixtures("unchecked")
GRID, DEVIATION, NOISE, MEMBERS, PARTICLES = (6, 5), 0.35, 0.1, 96, 250
WALK = Sampler(36, DPMSolverPP2M(1.0), EDMGrid(ratio_min=0.01))


@cache
def parts() -> Model:
    """A U-Net whose last layer is 0 makes of the preconditioner the exact denoiser of white images."""
    net = UNet(2, 2, channels=2, multipliers=(1,))
    return Model(SDE(EDM(0.002, 20.0)), net, EDMPreconditioner(DEVIATION), Identity(), shape=(2, *GRID)).eval()


def scanned(largest: float = 1.0) -> tuple[Scan, np.ndarray, np.ndarray]:
    """A slice of white images by two coils, as numbers divided by the largest; A as a matrix, and y, as they were."""
    rng, x = np.random.default_rng(0), np.linspace(-1, 1, GRID[1])
    maps = np.stack([np.cos(x + 0.4), 1j * np.sin(x + 0.4)])[:, None] * np.ones((1, *GRID))
    mask = torch.zeros(GRID)
    mask[:, [1, 2, 4]] = 1

    def measure(image: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    kspace = measure(DEVIATION * normal(*GRID)) + NOISE * normal(2, *GRID)
    given = (torch.from_numpy((values / largest).astype(np.complex64)) for values in (kspace, maps))
    scan = Scan(next(given), mask, next(given), NOISE / largest, unit=largest)
    seen = mask.numpy() > 0
    a = np.stack([measure(e.reshape(GRID))[:, seen].ravel() for e in np.eye(math.prod(GRID))], axis=1)
    return scan, a, kspace[:, seen].ravel()


def log_normal(y: np.ndarray, covariance: np.ndarray) -> float:
    """log N(y; 0, covariance) of real numbers."""
    sign, log_det = np.linalg.slogdet(covariance)
    assert sign > 0
    return float(-0.5 * (y @ np.linalg.solve(covariance, y) + log_det + len(y) * math.log(2 * math.pi)))


@pytest.mark.parametrize(
    "method",
    [Proximal(DEVIATION, 1.5, 30), pytest.param(MomentMatching(), marks=pytest.mark.slow)],
    ids=["Proximal", "moments"],
)
def test_particles_draw_the_posterior_of_a_slice_and_tell_its_evidence(method: Method) -> None:
    """Whatever proposes, in the units of k-space as it was measured."""
    scan, a, y = scanned()
    found = Posterior(parts(), method, WALK, chunk=150, particles=PARTICLES).weighed(scan, MEMBERS)
    prior = (scan.scale * DEVIATION) ** 2
    covariance = np.linalg.inv(a.conj().T @ a / NOISE**2 + np.eye(a.shape[1]) / prior)  # per real component
    mean, total = covariance @ (a.conj().T @ y) / NOISE**2, float(np.trace(covariance).real)
    images = found.members.reshape(MEMBERS, -1).numpy()
    assert np.sum(np.abs(images.mean(0) - mean) ** 2) < 0.12 * 2 * total
    # without weights Proximal has half of this variance: it takes x̂ for surer of x than it is
    assert np.mean(np.var(images, axis=0, ddof=1)) / 2 == pytest.approx(total / a.shape[1], rel=0.15)
    real = np.block([[a.real, -a.imag], [a.imag, a.real]])
    expected = log_normal(np.concatenate((y.real, y.imag)), prior * real @ real.T + NOISE**2 * np.eye(len(real)))
    assert found.values == len(real)
    assert found.log_evidence == pytest.approx(expected, abs=1.0)


def test_evidence_is_of_k_space_as_it_was_whatever_it_was_divided_by() -> None:
    posterior = Posterior(parts(), Proximal(DEVIATION), Sampler(8, DPMSolverPP2M(1.0)), 50, particles=50)
    scans = [scanned(largest)[0] for largest in (1.0, 32.0)]
    for scan in scans:
        scan.__dict__["scale"] = 1.0
    one, other = (posterior.weighed(scan, 4) for scan in scans)
    assert other.log_evidence == pytest.approx(one.log_evidence, abs=0.01)
    torch.testing.assert_close(other.members, one.members, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_particles_draw_the_posterior_of_a_volume_whose_slices_differ_in_noise() -> None:
    """With a prior of windows as large as it is: mean and evidence by matrices, in float64."""
    volume, a, y, covariance = measured()
    whole = VolumeScan(volume.slices, window=SOLID)
    whole.__dict__["scale"] = 1.0

    class Known(Model):
        prior = Gaussian(SDE(EDM(0.002, 20.0)), smooth(SOLID))  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    net = UNet(2, 2, channels=2, multipliers=(1,), spatial=3).double()
    model = Known(SDE(EDM(0.002, 20.0)), net, EDMPreconditioner(1.0), Identity(), shape=(2, *SOLID))
    found = Posterior(model, MomentMatching(), WALK, chunk=100, particles=4 * PARTICLES).weighed(whole, MEMBERS)
    factors = whole.factors.repeat_interleave(6 * 5).repeat(4).double().numpy()  # of y, in the order of `measured`
    kept = (a.abs().sum(1) > 0).numpy()
    a, y, covariance = a[kept].numpy(), y[kept].numpy(), covariance.numpy()
    total = a @ covariance @ a.T + 0.1**2 * np.eye(len(y))
    mean = covariance @ a.T @ np.linalg.solve(total, y)
    spread = np.trace(covariance - covariance @ a.T @ np.linalg.solve(total, a @ covariance))
    images = torch.view_as_real(found.members).movedim(-1, 1).reshape(MEMBERS, -1).double().numpy()
    assert np.sum((images.mean(0) - mean) ** 2) < 0.06 * spread  # 0.02 to 0.04 with five seeds; exact draws 0.01
    assert found.log_evidence == pytest.approx(log_normal(y, total) + float(np.log(factors[kept]).sum()), abs=1.0)


def test_what_particles_do_not_go_with_is_refused() -> None:
    model = parts()
    with pytest.raises(InputError, match="about no centre"):
        Posterior(model, Proximal(), WALK, centre=24, particles=10)
    with pytest.raises(InputError, match="leave out the corrector, and denoise=False"):
        Posterior(model, Proximal(), Sampler(8, DPMSolverPP2M(1.0), denoise=False), particles=10)


def seeds(scan: Scan, seed: int, number: int) -> Tensor:
    posterior = Posterior(parts(), Proximal(DEVIATION), Sampler(4, DPMSolverPP2M(1.0)), 8, particles=8)
    return posterior.draw(scan, 3, seed=seed, number=number)


def test_particles_depend_on_the_seed_and_the_slice_alone() -> None:
    scan = scanned()[0]
    assert torch.equal(seeds(scan, 1, 2), seeds(scan, 1, 2))
    assert not torch.equal(seeds(scan, 1, 2), seeds(scan, 1, 3)) and not torch.equal(
        seeds(scan, 1, 2), seeds(scan, 2, 2)
    )
