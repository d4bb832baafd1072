"""Members of a reconstruction are draws of p(x | y), though they start at an image, and at a level where it can still be seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.oracle import Gaussian
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.data import Identity
from scorefield.guidance import Proximal
from scorefield.model import Model
from scorefield.mri.posterior import OWN, Posterior, Recentred
from scorefield.mri.scan import Scan
from scorefield.nn import UNet

pytestmark = pytest.mark.usefixtures("unchecked")
GRID, DEVIATION, MEMBERS = (10, 8), 0.35, 96


def test_few_levels_from_an_image_draw_the_posterior_of_white_images():
    """A U-Net whose last layer is 0 makes of the preconditioner the exact denoiser of white images."""
    rng, size = np.random.default_rng(0), GRID[0] * GRID[1]
    x = np.linspace(-1, 1, GRID[1])
    maps = np.stack([np.cos(x + 0.4), 1j * np.sin(x + 0.4)])[:, None] * np.ones((1, *GRID))
    mask = torch.zeros(GRID)
    mask[:, [0, 2, 3, 4, 5, 7]] = 1

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    def measure(image: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))

    kspace = measure(DEVIATION * normal(*GRID)) + 0.1 * normal(2, *GRID)
    scan = Scan(torch.from_numpy(kspace.astype(np.complex64)), mask, torch.from_numpy(maps.astype(np.complex64)), 0.1)
    net = UNet(2, 2, channels=2, multipliers=(1,))
    model = Model(SDE(EDM(0.002, 20.0)), net, EDMPreconditioner(DEVIATION), Identity(), shape=(2, *GRID)).eval()
    members = Posterior(model, Proximal(DEVIATION, 1.0, 40, 1e-5), OWN, MEMBERS).draw(scan, MEMBERS) / scan.scale

    a = np.stack([measure(e.reshape(GRID))[:, mask.numpy() > 0].ravel() for e in np.eye(size)], axis=1)
    y, noise = kspace[:, mask.numpy() > 0].ravel() / scan.scale, 0.1 / scan.scale
    covariance = np.linalg.inv(a.conj().T @ a / noise**2 + np.eye(size) / DEVIATION**2)  # per real component
    mean, variance = covariance @ (a.conj().T @ y) / noise**2, float(np.trace(covariance).real) / size
    found = members.reshape(MEMBERS, -1).numpy()
    assert 2 * variance * size / MEMBERS == pytest.approx(np.sum(np.abs(found.mean(0) - mean) ** 2), rel=0.35)
    assert np.mean(np.var(found, axis=0, ddof=1)) / 2 == pytest.approx(
        variance, rel=0.3
    )  # few steps: a ninth of the deviation


def test_the_settled_image_is_the_mean_of_the_posterior_of_any_gaussian_prior():
    """Smooth images, whose denoiser is no multiple of the identity: x̂ settles where the posterior is largest, its mean."""
    rng, shape = np.random.default_rng(1), (12, 10)
    ky, kx = np.meshgrid(*[np.fft.fftfreq(n) * n for n in shape], indexing="ij")
    spectrum = torch.from_numpy(0.04 + 0.96 / (1 + ky**2 + kx**2) ** 1.5)

    class Smooth(torch.nn.Module):
        """x̂ = C α/(α² C + σ²) x_t, C a multiplier of modes."""

        sde = SDE(EDM(0.002, 20.0))

        def forward(self, x_t, t, cond=None):
            sigma = self.sde.schedule.sigma(t)
            modes = torch.fft.fft2(torch.complex(x_t[:, 0], x_t[:, 1]).to(torch.complex128)) * spectrum
            z = torch.fft.ifft2(modes / (spectrum + sigma**2))
            return torch.stack((z.real, z.imag), 1).to(x_t)

    class Known(Model):
        prior = Smooth()  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]

    def normal(*size: int) -> np.ndarray:
        return rng.standard_normal(size) + 1j * rng.standard_normal(size)

    def coloured(z: np.ndarray, power: float) -> np.ndarray:
        return np.fft.ifft2(np.fft.fft2(z) * spectrum.numpy() ** power)

    x = np.linspace(-1, 1, shape[1])
    maps = np.stack([np.cos(x + 0.4), 1j * np.sin(x + 0.4)])[:, None] * np.ones((1, *shape))
    mask = torch.zeros(shape)
    mask[:, [0, 3, 4, 5, 6, 8]] = 1

    def measure(image: np.ndarray) -> np.ndarray:
        return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes=(1, 2)), norm="ortho"), axes=(1, 2))

    kspace = measure(coloured(normal(*shape), 0.5)) + 0.1 * normal(2, *shape)
    scan = Scan(torch.from_numpy(kspace.astype(np.complex64)), mask, torch.from_numpy(maps.astype(np.complex64)), 0.1)
    object.__setattr__(scan, "scale", 1.0)  # k-space is in the prior's units
    parts = SDE(EDM(0.002, 20.0)), UNet(2, 2, channels=2, multipliers=(1,)), EDMPreconditioner(1.0), Identity()
    model = Known(*parts)
    posterior = Posterior(model, Proximal(1.0, 1.0, 60, 1e-6), OWN, MEMBERS, centre=200)

    size = x.size * shape[0]
    a = np.stack([measure(e.reshape(shape))[:, mask.numpy() > 0].ravel() for e in np.eye(size)], axis=1)
    prior = np.stack([coloured(e.reshape(shape), 1.0).ravel() for e in np.eye(size)], axis=1)
    pulled = a.conj().T @ kspace[:, mask.numpy() > 0].ravel() / 0.1**2
    mean = np.linalg.solve(a.conj().T @ a / 0.1**2 + np.linalg.inv(prior), pulled).reshape(shape)

    def error(found: torch.Tensor) -> float:
        return float(np.linalg.norm(found.numpy() - mean) / np.linalg.norm(mean))

    assert error(posterior.settled(scan)) < 0.02
    assert error(scan.linear[0, 0] + 1j * scan.linear[0, 1]) > 0.1
    members = posterior.draw(scan, 12)
    assert error(members[:8].mean(0)) == pytest.approx(error(posterior.settled(scan)), rel=1e-3)
    torch.testing.assert_close(members[:3], posterior.draw(scan, 3))  # each by its number alone


def test_a_denoiser_about_a_centre_is_the_same_denoiser():
    oracle, centre, t = Gaussian(SDE(VP()), torch.full((1, 8), 0.25)), torch.randn(1, 1, 8), torch.tensor([0.2, 0.7])
    x_t = torch.randn(2, 1, 8)
    alpha = oracle.sde.schedule.alpha(t)[:, None, None]
    torch.testing.assert_close(Recentred(oracle, centre)(x_t - alpha * centre, t) + centre, oracle(x_t, t))
