"""k-space without places takes them from a series of the same slices, however that is turned, cut or interpolated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri.exporting import write_dicom
from scorefield.mri.geometry import Slice
from scorefield.mri.kspace import KSpace
from scorefield.mri.series_geometry import series_planes

pydicom, nibabel = pytest.importorskip("pydicom"), pytest.importorskip("nibabel")
HEIGHT, WIDTH, DEEP = 40, 32, 3
AXES = np.array([[0.0, 0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, -0.8]])  # of rows, columns and slices
SPACING = (2.0, 2.5, 4.0)


def head() -> np.ndarray:
    """(slices, rows, columns), like none of its mirror images."""
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    whole = np.where(x**2 / 0.4 + y**2 / 0.6 < 1, 1.0, 0.0)
    parts = [whole * (1 + np.exp(-((x - 0.3) ** 2 + (y + 0.4) ** 2) / 0.05)) for _ in range(DEEP)]
    return np.stack([part * (1 + 0.5 * n * (y > 0.1 * n)) for n, part in enumerate(parts)])


def scan(images: np.ndarray) -> KSpace:
    """k-space of two coils, half of the lines outside of the middle left out."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in images.shape[1:]], indexing="ij")
    coils = np.stack((np.exp(0.3 * x + 1j * y), np.exp(-0.3 * x - 0.2j * y)))
    kspace = centred(images[:, None] * coils).astype(np.complex64)
    kept = (np.arange(images.shape[2]) % 2 == 0) | (np.abs(np.arange(images.shape[2]) - images.shape[2] // 2) < 5)
    return KSpace("scan", kspace.shape, lambda n: kspace[n] * kept)


def planes() -> list[Slice]:
    return [Slice(np.array([3.0, -8.0, 20.0]) + 4 * n * AXES[2], AXES, SPACING) for n in range(DEEP)]


def places(plane: Slice, shape: tuple[int, int]) -> np.ndarray:
    """Where the pixels of a slice are, (rows, columns, 3)."""
    rows, columns = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    index = np.stack((rows, columns, 0 * rows, 1 + 0 * rows))
    return np.einsum("ij,jyx->yxi", plane.affine(shape)[:3], index)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_slices_are_placed_however_the_series_is_turned(swap, flips, tmp_path):
    images = head()
    write_dicom(tmp_path / "series", images, planes(), "d", "head")
    # k-space has its slices turned; where each pixel belongs is turned with them
    where = np.stack([places(plane, (HEIGHT, WIDTH)) for plane in planes()])
    turn = (slice(None, None, flips[2]), slice(None, None, flips[0]), slice(None, None, flips[1]))
    images, where = images[turn], where[turn]
    if swap:
        images, where = images.swapaxes(1, 2), where.swapaxes(1, 2)
    found = series_planes(tmp_path / "series", scan(images), None)
    for number in range(DEEP):
        np.testing.assert_allclose(places(found(number), images.shape[1:]), where[number], atol=1e-3)
    assert found(0).spacing == pytest.approx((2.5, 2.0, 4.0) if swap else SPACING, rel=1e-5)


@pytest.mark.parametrize("kind", ["cut", "interpolated"])
def test_series_of_other_matrices(kind, tmp_path):
    """Without the oversampling of the phase; or with twice as many pixels in the same field of view."""
    images = head()
    if kind == "cut":
        shown, spacing = fit_matrix(images, (36, 28)), SPACING
        centre = np.zeros(3)
    else:
        shown, spacing = images.repeat(2, 1).repeat(2, 2), (1.0, 1.25, 4.0)
        centre = 0.5 * AXES[0] * 1.0 + 0.5 * AXES[1] * 1.25  # from pixel n // 2 of the finer to that of the coarser
    where = [Slice(plane.centre, AXES, spacing) for plane in planes()]
    write_dicom(tmp_path / "series", shown, where, "d", "head")
    found = series_planes(tmp_path / "series", scan(images), None)
    for number, plane in enumerate(planes()):
        np.testing.assert_allclose(found(number).centre, plane.centre + centre, atol=1e-3)
        np.testing.assert_allclose(found(number).axes, AXES, atol=1e-6)
        assert found(number).spacing == pytest.approx(SPACING, rel=1e-5)


def test_a_volume_of_nifti_says_the_same(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ planes()[0].affine((HEIGHT, WIDTH))
    nibabel.save(nibabel.Nifti1Image(np.moveaxis(head(), 0, -1).astype(np.float32), affine), tmp_path / "v.nii")
    found = series_planes(tmp_path / "v.nii", scan(head()), None)
    for number, plane in enumerate(planes()):
        np.testing.assert_allclose(found(number).centre, plane.centre, atol=1e-3)


def test_what_does_not_say_it_clearly_is_refused(tmp_path: Path) -> None:
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    even = np.stack([np.where(x**2 + y**2 < 0.4 + 0.1 * n, 1.0, 0) for n in range(DEEP)])
    noise = np.random.default_rng(0).random((DEEP, HEIGHT, WIDTH))
    for name, shown, given, words in (
        ("even", even, even, "in another"),
        ("noise", noise, head(), "is it a series of this scan"),
        ("fewer", head()[:2], head(), "2 slices"),
    ):
        write_dicom(tmp_path / name, shown, planes(), "d", name) if len(shown) == DEEP else write_dicom(
            tmp_path / name, shown, planes()[: len(shown)], "d", name
        )
        with pytest.raises(InputError, match=words):
            series_planes(tmp_path / name, scan(given), None)
