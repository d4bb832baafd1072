"""Held-out k-space tells a right prior from a wrong one, by exact posteriors of Gaussian images of one law or another."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from scorefield.metrics.image import interval_coverage
from scorefield.mri.coils import as_tensor
from scorefield.mri.masks import PoissonDisc, RandomLines
from scorefield.mri.predictive_check import PredictiveCheck, held_out, inflated, predictive_check, without
from scorefield.mri.scan import Scan
from scorefield.operators import to_complex

pytestmark = pytest.mark.usefixtures("unchecked")
GRID, COILS, NOISE, MEMBERS = (16, 24), 2, 0.02, 8


@cache
def pieces() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A root of the covariance of smooth images, maps, and a mask of lines."""
    ky, kx = np.meshgrid(*[np.fft.fftfreq(n) * n for n in GRID], indexing="ij")
    spectrum = 1 / (1 + 0.02 * (ky**2 + kx**2)) ** 2
    waves = np.fft.ifft2(np.eye(ky.size).reshape(-1, *GRID), norm="ortho").reshape(ky.size, -1)
    covariance = (waves.conj().T * spectrum.ravel()) @ waves
    x = np.linspace(-1, 1, GRID[1])
    maps = np.stack([np.cos(x + 0.5), 1j * np.sin(x + 0.5)])[:, None] * np.ones((1, *GRID))
    return np.linalg.cholesky(covariance + 1e-9 * np.eye(len(covariance))), maps, RandomLines(1.3, 4, seed=3)(GRID)


def drawn(scale: float, seed: int) -> tuple[Scan, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A scan of a truth, what is held out of it, exact draws of p(x | y) without that, and the truth.

    Args:
        scale: of the truth's deviations beside those of the prior.
        seed: of everything.
    """
    root, maps, mask = pieces()
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

    truth = scale * (root @ normal(len(root)))
    full = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(maps * truth.reshape(GRID), axes=(1, 2)), norm="ortho"), axes=(1, 2)
    )
    kspace = full + NOISE * normal(COILS, *GRID)
    scan = Scan(
        as_tensor(kspace.astype(np.complex64)), torch.from_numpy(mask), as_tensor(maps.astype(np.complex64)), NOISE
    )
    part = held_out(scan.mask, 0.15, seed)
    used = without(scan, part).mask.numpy()
    shifted = np.eye(truth.size).reshape(-1, *GRID)
    columns = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(maps[:, None] * shifted, axes=(2, 3)), norm="ortho"), axes=(2, 3)
    )
    a = np.moveaxis(columns[:, :, used], 1, 2).reshape(-1, truth.size)
    seen = a @ root
    gain = root @ seen.conj().T @ np.linalg.inv(seen @ seen.conj().T + NOISE**2 * np.eye(len(a)))
    members = []
    for _ in range(MEMBERS):  # a draw of the prior, corrected by what y says (Matheron)
        x = root @ normal(len(root))
        members.append(x + gain @ (kspace[:, used].reshape(-1) - a @ x - NOISE * normal(len(a))))
    fields = np.stack(members).reshape(-1, *GRID).astype(np.complex64)
    return scan, part, as_tensor(fields), as_tensor(truth.reshape(GRID).astype(np.complex64))


def test_the_right_prior_covers_what_was_held_out_within_chance():
    found = [predictive_check(scan, part, x) for scan, part, x, _ in (drawn(1.0, seed) for seed in range(12))]
    assert sum(bool(check.warning) for check in found) <= 1
    assert np.mean([check.coverage for check in found]) == pytest.approx(0.9, abs=0.03)
    assert np.mean([check.inflation for check in found]) == pytest.approx(1.0, abs=0.2)  # >= 1


def test_a_prior_of_too_little_variance_is_warned_of_and_inflated_to_what_its_images_ask_for():
    before, after = [], []
    for seed in range(6):
        scan, part, members, truth = drawn(3.0, seed)
        check = predictive_check(scan, part, members)
        assert check.coverage < check.low and "too sure" in check.warning and f"{check.inflation:.2f}" in check.warning
        for found, x in ((before, members), (after, inflated(members, check.inflation))):
            found.append(interval_coverage(torch.view_as_real(x), torch.view_as_real(truth)[None]))
    assert np.mean(before) < 0.75 and 0.85 <= np.mean(after) <= 0.95


def test_one_of_too_much_variance_is_said_to_spread_more_than_it_has_to():
    found = [predictive_check(scan, part, x) for scan, part, x, _ in (drawn(0.1, seed) for seed in range(4))]
    assert np.mean([check.coverage for check in found]) > 0.95 and {check.inflation for check in found} == {1.0}
    assert all(check.narrower > 0.9 for check in found)
    assert "more than" in PredictiveCheck(0.97, 0.85, 0.94, narrower=0.93).warning
    assert not PredictiveCheck(0.97, 0.85, 0.94, narrower=0.88).warning  # a little more is no harm
    assert not PredictiveCheck(0.9, 0.85, 0.94).warning


def test_off_the_grid_whole_readouts_are_held_out_and_covered_by_the_right_prior():
    root, maps, _ = pieces()
    angles, reach = np.pi * np.arange(24) / 24, np.arange(-12, 12)[:, None]
    places = torch.from_numpy(np.stack([reach * np.sin(angles) * 2 / 3, reach * np.cos(angles)], -1)).float()
    coils, sampled = as_tensor(maps.astype(np.complex64)), torch.ones(places.shape[:2])
    whole = Scan(torch.zeros(COILS, *sampled.shape, dtype=coils.dtype), sampled, coils, NOISE, places=places)
    images = torch.eye(root.shape[0]).reshape(-1, 1, *GRID)
    columns = to_complex(whole.operator(torch.cat((images, torch.zeros_like(images)), 1))).numpy()
    found, narrow = [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)

        def normal(*shape: int, rng: np.random.Generator = rng) -> np.ndarray:
            return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)

        part = held_out(sampled, 0.15, seed, on_grid=False)
        assert bool((part == part.any(0)).all()) and int(part.any(0).sum()) == 4
        kspace = np.tensordot(root @ normal(len(root)), columns, 1) + NOISE * normal(*columns.shape[1:])
        scan = replace(whole, kspace=torch.from_numpy(kspace.astype(np.complex64)))
        used = ~part.numpy()
        a = np.moveaxis(columns[:, :, used], 0, 2).reshape(-1, len(root))
        seen = a @ root
        gain = root @ seen.conj().T @ np.linalg.inv(seen @ seen.conj().T + NOISE**2 * np.eye(len(a)))
        members = []
        for _ in range(MEMBERS):
            x = root @ normal(len(root))
            members.append(x + gain @ (kspace[:, used].reshape(-1) - a @ x - NOISE * normal(len(a))))
        fields = as_tensor(np.stack(members).reshape(-1, *GRID).astype(np.complex64))
        found.append(predictive_check(scan, part, fields))
        narrow.append(predictive_check(scan, part, inflated(fields, 0.6)))
    assert np.mean([check.coverage for check in found]) == pytest.approx(0.9, abs=0.03)
    assert np.mean([check.inflation for check in found]) == pytest.approx(1.0, abs=0.15)
    assert np.mean([check.coverage for check in narrow]) < 0.85


def test_lines_are_held_out_as_lines_points_as_points_and_nothing_of_the_middle():
    lines, points = RandomLines(4.0, 24, seed=1)((64, 200)), PoissonDisc(4.0, (12, 12), seed=1)((40, 48))
    for mask in (lines, lines.T, points):
        part = held_out(torch.from_numpy(mask), 0.05, 2).numpy()
        assert (part <= mask).all() and part.sum() == pytest.approx(0.05 * mask.sum(), rel=0.25)
        y, x = (n // 2 for n in mask.shape)
        assert not part[y - 3 : y + 3, x - 3 : x + 3].any()
    # Points are of every ring: as many of each quarter, outwards, of what lies outside of the calibration region
    y, x = np.nonzero(points)
    outside = np.maximum(np.abs(y - 20), np.abs(x - 24)) > 6
    rings = np.hypot(y - 20, x - 24)[outside]
    chosen = held_out(torch.from_numpy(points), 0.1, 2).numpy()[y, x][outside]
    counts = np.histogram(rings[chosen], np.quantile(rings, [0, 0.25, 0.5, 0.75, 1]))[0]
    assert counts.sum() == chosen.sum() and counts.max() - counts.min() <= 2 + 0.25 * counts.mean()
    part = held_out(torch.from_numpy(lines), 0.05, 2)
    assert bool((part == part.any(0)).all()) and bool((part != held_out(torch.from_numpy(lines), 0.05, 3)).any())
    echo = lines.copy()
    echo[:20] = False  # a partial echo is one of lines as well
    part = held_out(torch.from_numpy(echo), 0.05, 2).numpy()
    assert part.any() and ((part == part.any(0)) | ~echo).all()
    for mask, share in ((lines, 0.0), (points, 0.0), (RandomLines(8.0, 24)((64, 200)), 0.5)):
        assert not held_out(torch.from_numpy(mask), share).any()


def test_a_check_that_says_nothing_says_why():
    scan, part, members, _ = drawn(1.0, 0)
    loud = replace(scan, noise=100.0)
    assert "at 0 of" in predictive_check(loud, part, members).warning
    assert "of 3 members" in predictive_check(scan, part, members[:3]).warning
    copies = members[torch.arange(len(members)) % 2]  # which spread less than the law has it, whatever the prior
    assert f"of {len(members)} members 2 differ" in predictive_check(scan, part, copies).warning
    assert "too little was sampled" in predictive_check(scan, part & False, members).warning
    assert not PredictiveCheck().warning and np.isnan(predictive_check(loud, part, members).coverage)
