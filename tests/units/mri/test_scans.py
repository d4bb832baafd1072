"""What becomes of a scan before it is reconstructed: its image is that of the coils as they are, for any noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.kspace import KSpace
from scorefield.mri.masks import MaskFile, RandomLines
from scorefield.mri.scan import Baselines
from scorefield.mri.scan_loading import Scans
from scorefield.mri.simulated import simulate

pytest.importorskip("sigpy")
GRID, COILS = (96, 80), 6
CORRELATED = 0.7 * np.eye(COILS) + 0.3
LOUD = np.diag([1.0, 1.0, 1.0, 16.0, 1.0, 0.25])  # the variance of the coils' noise
BOTH = np.sqrt(LOUD) @ CORRELATED @ np.sqrt(LOUD)


COVARIANCES = [  # those that the last one holds are tried by themselves where there is time
    pytest.param(np.eye(COILS), id="white"),
    pytest.param(CORRELATED, id="corr", marks=pytest.mark.slow),
    pytest.param(LOUD, id="loud", marks=pytest.mark.slow),
    pytest.param(BOTH, id="both"),
]


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


def differ(scans: Scans, changed: Scans) -> bool:
    return scans.fingerprint([0]) != changed.fingerprint([0])


def test_all_that_decides_a_result_tells_it_from_others(clean, tmp_path):
    """A file that was changed under its name is another one: so a job that goes on mixes nothing, and returns nothing stale."""
    rng, lines = np.random.default_rng(0), np.ones(GRID, bool)
    lines[:, ::3] = False
    both = (clean + rng.normal(size=(20, *clean.shape))).astype(np.complex64)
    maps, image = rng.normal(size=(2, *both.shape)), rng.random((2, 20, *GRID))
    scan = KSpace("scan", both.shape, lambda n: both[n])
    fixed = Baselines(1e-3, 20, 5e-4)  # else a slice in the middle decides, too
    whole = Scans(scan, noise=1.0, baselines=fixed)
    assert not differ(whole, Scans(replace(scan), noise=1.0, baselines=fixed))

    def with_slice(number: int, values: np.ndarray) -> KSpace:
        return replace(scan, read=lambda n: values if n == number else both[n])

    assert differ(Scans(scan, noise=1.0), Scans(with_slice(10, 2 * both[10]), noise=1.0))
    assert differ(whole, Scans(with_slice(0, both[0] + 1e-3), noise=1.0, baselines=fixed))
    assert not differ(
        whole, Scans(with_slice(11, 2 * both[11]), noise=1.0, baselines=fixed)
    )  # which nothing depends on
    assert differ(Scans(scan), Scans(with_slice(11, 2 * both[11])))  # but for its noise
    assert differ(whole, Scans(replace(scan, mask=lines), noise=1.0))
    assert differ(whole, Scans(replace(scan, size=(40, GRID[1])), noise=1.0))
    for name, old, new in (("maps", *maps), ("target", *image)):
        before, after = (replace(scan, **{name: lambda n, v=v: v[n]}) for v in (old, new))
        assert differ(whole, Scans(before, noise=1.0))
        assert differ(Scans(before, noise=1.0), Scans(after, noise=1.0))
    assert differ(Scans(scan, maps=maps[0][0]), Scans(scan, maps=maps[0][1]))
    noisy = [replace(scan, noise_scan=rng.normal(size=(COILS, 99))) for _ in range(2)]
    assert differ(Scans(noisy[0]), Scans(noisy[1]))

    path, found = tmp_path / "mask.npy", []
    for mask in (lines, ~lines):
        np.save(path, mask)
        found.append(Scans(scan, MaskFile(path), noise=1.0).fingerprint([0]))
    assert found[0] != found[1]


def test_slices_of_zeros_are_no_mistake_and_broken_ones_are(clean):
    values = np.stack([clean, 0 * clean, clean + np.nan])
    scans = Scans(KSpace("scan", values.shape, lambda n: values[n]), noise=1.0, baselines=Baselines(1e-3, 20, 5e-4))
    assert scans.fingerprint([0, 1]) != scans.fingerprint([0])
    for numbers, message in (([1], "all zeros"), ([0, 2], "Slice 2 of scan holds NaN")):
        with pytest.raises(InputError, match=message):
            scans.fingerprint(numbers)


@pytest.mark.parametrize("noise_scan", [True, False], ids=["noise scan", "k-space alone"])
@pytest.mark.parametrize("covariance", COVARIANCES)
def test_the_image_is_the_root_sum_of_squares_of_the_coils_as_they_are(clean, covariance, noise_scan):
    """However their noise is correlated, and whichever of them is loud: σ is 1/700 of the image, its share of a quotient less."""
    scan = measured(clean, covariance, 0.1)
    strength = root_sum_of_squares(scan)
    if not noise_scan:
        scan = KSpace("scan", scan.shape, scan.read)
    found, reference, _ = Scans(scan, RandomLines(2.0, 24)).scan(0)
    inside = strength > 0.3 * strength.max()
    ratio = np.abs(reference.numpy())[inside] / strength[inside]
    assert np.abs(np.percentile(ratio, [1, 50, 99]) - 1).max() < 0.01
    assert found.maps.abs().square().sum(0).max() == pytest.approx(1, rel=1e-5)


@pytest.mark.slow
def test_what_compression_leaves_out_is_all_that_the_image_lacks(clean):
    """Of six coils of a smooth ring four say all but little."""
    scan = measured(clean, BOTH, 0.1)
    strength = root_sum_of_squares(scan)
    inside = strength > 0.3 * strength.max()
    for coils, tolerance in ((COILS, 0.01), (COILS - 1, 0.1)):
        found, reference, _ = Scans(scan, RandomLines(2.0, 24), coils=coils).scan(0)
        ratio = np.abs(reference.numpy())[inside] / strength[inside]
        assert found.maps.shape[0] == coils and np.abs(ratio - 1).mean() < tolerance


def test_points_that_are_not_used_decide_nothing_but_the_reference(clean):
    """Neither the combinations of coils, nor maps, nor the scale: a part of k-space is all that there would be of a real scan."""
    used = RandomLines(2.0, 24)
    other = np.where(used(GRID, 0), clean, clean[::-1] * np.arange(1, COILS + 1)[:, None, None]).astype(np.complex64)
    found, changed = (
        Scans(KSpace("scan", (1, *clean.shape), lambda _, x=x: x), used, noise=0.1, coils=3).scan(0)[0]
        for x in (clean, other)
    )
    assert np.array_equal(found.maps, changed.maps) and found.scale == changed.scale
    assert np.array_equal(found.kspace[:, found.mask], changed.kspace[:, changed.mask])
