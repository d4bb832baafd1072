"""The noise of coils, estimated from k-space that holds an image: its strength, and how coils share it."""

import os
from pathlib import Path

import numpy as np
import pytest

from scorefield.data.nifti import read_nifti
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri.masks import Everything, PoissonDisc, RandomLines
from scorefield.mri.noise import distance_of, noise_covariance, predicted_noise, robust_covariance
from scorefield.mri.simulated import simulate

pytest.importorskip("sigpy")
DATA = Path(os.environ.get("SCOREFIELD_DATA", ""), "mri")


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    """An axial slice of MNI152, whose k-space has an image up to its highest frequencies."""
    path = DATA / "mni_icbm152_t1_nlin_sym_09a.nii.gz"
    if not path.is_file():
        pytest.skip("MNI152 is not there")
    return fit_matrix(read_nifti(path)[:, :, 95], (192, 224))


def white(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def every_other(grid: tuple[int, int]) -> np.ndarray:
    """Lines with no neighbours."""
    return np.broadcast_to(np.arange(grid[1]) % 2 == 0, grid)


@pytest.mark.parametrize("decibels", [30.0, 50.0])
@pytest.mark.parametrize("sampling", [Everything(), RandomLines(4.0, 24), PoissonDisc(8.0, (24, 24))])
def test_the_strength_is_found_in_k_space_of_a_head(head, decibels, sampling):
    scan = simulate(head, decibels=decibels)
    found, _ = noise_covariance([(scan.kspace, sampling(head.shape))])
    assert np.sqrt(np.trace(found).real / 8) == pytest.approx(scan.noise, rel=0.05)  # 3 % was measured
    outer = scan.kspace[:, :8].reshape(8, -1)
    assert np.sqrt((np.abs(outer) ** 2).mean() / 2) > 1.3 * scan.noise  # the image reaches there


@pytest.mark.parametrize("decibels", [30.0, 40.0, 50.0])
@pytest.mark.parametrize("coils", [1, 2, 4])
@pytest.mark.parametrize("size", [(192, 224), (144, 176)], ids=["with background", "filling the image"])
def test_the_noise_of_few_coils_is_that_of_the_background_about_the_head(head, size, coils, decibels):
    """Neighbours predict less, the fewer coils there are: without background the estimate was 1.5 to 20 times the noise."""
    scan = simulate(fit_matrix(head, size), coils=coils, decibels=decibels)
    found, note = noise_covariance([(scan.kspace, np.ones(size, bool))])
    assert np.linalg.det(found).real ** (1 / 2 / coils) == pytest.approx(scan.noise, rel=0.1) and not note


def test_zeros_at_the_edges_of_k_space_hold_no_noise(head):
    scan, padded = simulate(head, coils=1, decibels=40.0), np.zeros(head.shape, bool)
    padded[:, 28:-28] = True
    found, _ = noise_covariance([(np.where(padded, scan.kspace, 0), padded)])
    assert np.sqrt(found[0, 0].real) == pytest.approx(scan.noise, rel=0.1)  # and not √0.75 of it


def test_the_noise_of_a_single_coil_is_that_at_the_ends_of_whole_lines_but_of_points_is_uncertain(head):
    scan = simulate(head, coils=1, decibels=40.0)
    for sampling in (RandomLines(4.0, 24), RandomLines(8.0, 9)):
        found, note = noise_covariance([(scan.kspace, sampling(head.shape))])
        assert np.sqrt(found[0, 0].real) == pytest.approx(scan.noise, rel=0.1) and not note
    assert "--noise" in noise_covariance([(scan.kspace, PoissonDisc(8.0)(head.shape))])[1]
    full = simulate(fit_matrix(head, (144, 176)), coils=1, decibels=40.0)  # the head reaches both ends
    assert "--noise" in noise_covariance([(full.kspace, RandomLines(4.0, 24)((144, 176)))])[1]


def test_air_that_was_filled_with_zeros_tells_nothing(head):
    scan = simulate(head, coils=4, decibels=30.0)
    images = centred(scan.kspace, inverse=True) * (head > 0)
    kspace = centred(images).astype(np.complex64)
    found, _ = noise_covariance([(kspace, np.ones(head.shape, bool))])
    assert np.sqrt(np.trace(found).real / 4) > 0.3 * scan.noise


def test_correlations_between_coils_are_found(head):
    """Noise of unequal, correlated coils, 9 times apart in variance."""
    scan, mixing = (
        simulate(head, decibels=300),
        (2 * np.eye(8) + 0.3 * white((8, 8), seed=1)) * np.geomspace(1, 3, 8)[:, None],
    )
    mixing *= simulate(head, decibels=40).noise / np.abs(mixing).mean()
    noisy = scan.kspace + np.tensordot(mixing, white(scan.kspace.shape), 1)
    found = predicted_noise(noisy, np.ones(head.shape, bool))
    lower = np.linalg.inv(np.linalg.cholesky(mixing @ mixing.conj().T))
    np.testing.assert_allclose(lower @ found @ lower.conj().T, np.eye(8), atol=0.15)


def test_without_a_box_the_highest_frequencies_are_taken_and_outliers_left_out():
    noise = 0.7 * white((3, 128, 128))
    image = np.zeros((3, 128, 128), complex)
    image[:, 40:90, 30:100] = 100.0
    smooth = centred(image) * np.exp(-10 * distance_of((128, 128)) ** 2)
    found, warning = noise_covariance([(smooth + noise, every_other((128, 128)))])
    assert np.sqrt(np.trace(found).real / 3) == pytest.approx(0.7, rel=0.1) and not warning
    samples = noise.reshape(3, -1)[:, :2000].copy()
    samples[:, ::20] += 30
    np.testing.assert_allclose(robust_covariance(samples), 0.49 * np.eye(3), atol=0.07)  # a twentieth are outliers


def test_an_image_in_the_highest_frequencies_is_warned_of():
    places = np.hypot(*np.meshgrid(*[np.linspace(-1, 1, 64)] * 2, indexing="ij"))
    noise = white((2, 64, 64)) * np.exp(6 * np.clip(1 - places, 0, None))
    _, warning = noise_covariance([(noise, every_other((64, 64)))])
    assert "--noise" in warning


def test_too_few_points_are_named():
    mask = np.zeros((64, 64), bool)
    mask[26:38, 20:44:3] = True
    with pytest.raises(InputError, match="too few"):
        noise_covariance([(white((4, 64, 64)), mask)])


@pytest.mark.parametrize("coils", [48, 64])
def test_the_noise_of_more_coils_than_points_tell_is_taken_to_be_independent(coils: int) -> None:
    """Of a quarter of 80 × 48 points of a smooth image, to a tenth; a few points in the middle are refused."""
    y, x = np.meshgrid(np.linspace(-1, 1, 80), np.linspace(-1, 1, 48), indexing="ij")
    scan = simulate(np.exp(-6 * (x**2 + y**2)), coils=coils)
    mask = RandomLines(4.0, 6)((80, 48))
    found, note = noise_covariance([(np.where(mask, scan.kspace, 0), mask)])
    assert "independent" in note and (found == np.diag(np.diag(found))).all()
    assert np.sqrt(np.diag(found).mean()) == pytest.approx(scan.noise, rel=0.1)
    few = np.zeros((80, 48), bool)
    few[36:44, 20:28] = True
    with pytest.raises(InputError, match="too few to estimate"):
        noise_covariance([(np.where(few, scan.kspace, 0), few)])
