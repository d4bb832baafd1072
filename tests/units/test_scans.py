"""What becomes of a scan before it is reconstructed: its image is that of the coils as they are, whatever their noise."""

from __future__ import annotations

import numpy as np
import pytest

from scorefield.data.mri.kspace import KSpace
from scorefield.data.mri.masks import RandomLines
from scorefield.data.mri.simulate import centred, simulate
from scorefield.jobs.mri.measuring import Scans

pytest.importorskip("sigpy")
GRID, COILS = (96, 80), 6
CORRELATED = 0.7 * np.eye(COILS) + 0.3
LOUD = np.diag([1.0, 1.0, 1.0, 16.0, 1.0, 0.25])  # the variance of the coils' noise
BOTH = np.sqrt(LOUD) @ CORRELATED @ np.sqrt(LOUD)


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    image = 300.0 * np.where(x**2 + y**2 < 0.7, 1 + 0.4 * np.sin(9 * x + 4 * y), 0)
    return simulate(image, coils=COILS, decibels=300).kspace


def measured(clean: np.ndarray, covariance: np.ndarray, sigma: float) -> KSpace:
    """Noise of sigma² times a covariance, and a noise scan of it."""
    rng, lower = np.random.default_rng(0), sigma * np.linalg.cholesky(covariance)
    white = rng.normal(size=(2, COILS, clean[0].size + 20_000))
    noise = lower @ (white[0] + 1j * white[1])
    kspace = (clean + noise[:, : clean[0].size].reshape(clean.shape)).astype(np.complex64)
    return KSpace("scan", (1, *clean.shape), lambda _: kspace, noise_scan=noise[:, clean[0].size :])


def root_sum_of_squares(kspace: KSpace) -> np.ndarray:
    return np.sqrt((np.abs(centred(kspace.read(0), inverse=True)) ** 2).sum(0))


@pytest.mark.parametrize("told", [True, False], ids=["noise scan", "k-space alone"])
@pytest.mark.parametrize("covariance", [np.eye(COILS), CORRELATED, LOUD, BOTH], ids=["white", "corr", "loud", "both"])
def test_the_image_is_the_root_sum_of_squares_of_the_coils_as_they_are(clean, covariance, told):
    """However their noise is correlated, and whichever of them is loud: σ is 1/700 of the image, its share of a quotient less."""
    scan = measured(clean, covariance, 0.1)
    strength = root_sum_of_squares(scan)
    if not told:
        scan = KSpace("scan", scan.shape, scan.read)
    found, reference, _ = Scans(scan, RandomLines(2.0, 24)).scan(0)
    inside = strength > 0.3 * strength.max()
    ratio = np.abs(reference.numpy())[inside] / strength[inside]
    assert np.abs(np.percentile(ratio, [1, 50, 99]) - 1).max() < 0.01
    assert found.maps.abs().square().sum(0).max() == pytest.approx(1, rel=1e-5)


def test_what_compression_leaves_out_is_all_that_the_image_lacks(clean):
    """Of six coils of a smooth ring four say all but little."""
    scan = measured(clean, BOTH, 0.1)
    strength = root_sum_of_squares(scan)
    inside = strength > 0.3 * strength.max()
    for coils, tolerance in ((COILS, 0.01), (COILS - 1, 0.1)):
        found, reference, _ = Scans(scan, RandomLines(2.0, 24), coils=coils).scan(0)
        ratio = np.abs(reference.numpy())[inside] / strength[inside]
        assert found.maps.shape[0] == coils and np.abs(ratio - 1).mean() < tolerance
