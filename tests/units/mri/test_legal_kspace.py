"""What is unusual of k-space and legal all the same; and what looks like it and is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.files import open_kspace
from scorefield.mri.kspace import KSpace, check_centred, in_ordinary_units
from scorefield.mri.masks import WHOLE, MaskFile, RandomLines, share_of
from scorefield.mri.scan_loading import Scans, sampling_of
from scorefield.mri.sources import Combined
from scorefield.operators import to_complex, zero_filled

h5py = pytest.importorskip("h5py")


def coils_of(
    coils: int, height: int, width: int, *, slices: int = 1, noise: float = 0.01, shift: int = 0
) -> np.ndarray:
    """k-space (slices, coils, height, width) of a disc through smooth coils, its centre a few points off along the height."""
    rng = np.random.default_rng(coils)
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    disc = np.stack([np.where(x**2 + y**2 < 0.6, 1 + 0.4 * np.sin(7 * x + n), 0) for n in range(slices)])
    maps = np.stack([np.exp(-((x - a) ** 2) - (y - b) ** 2 + 1j * a * y) for a, b in rng.normal(size=(coils, 2))])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(0))
    ramp = np.exp(2j * np.pi * shift * y * height / (2 * height))
    white = rng.normal(size=(2, slices, coils, height, width))
    return (centred(disc[:, None] * maps * ramp) + noise * (white[0] + 1j * white[1])).astype(np.complex64)


def saved(path: Path, kspace: np.ndarray) -> KSpace:
    np.save(path, kspace)
    return open_kspace(path)


@pytest.mark.parametrize(("coils", "height", "width"), [(64, 80, 48), (128, 128, 96), (32, 24, 24), (24, 24, 20)])
def test_there_may_be_more_coils_than_points(coils: int, height: int, width: int, tmp_path: Path) -> None:
    kspace = coils_of(coils, height, width)
    found = saved(tmp_path / "k.npy", kspace)
    assert found.shape == kspace.shape
    np.testing.assert_array_equal(found.slice(0)[0], kspace[0])


@pytest.mark.parametrize(("coils", "height", "width"), [(32, 96, 80), (64, 80, 80), (20, 320, 64)])
def test_coils_on_the_last_axis_are_refused(coils: int, height: int, width: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"coils.*moveaxis"):
        saved(tmp_path / "k.npy", np.moveaxis(coils_of(coils, height, width), 1, -1)).slice(0)


@pytest.mark.parametrize("shift", [-20, 20])
def test_the_centre_may_be_off(shift: int, tmp_path: Path) -> None:
    found = saved(tmp_path / "k.npy", coils_of(4, 230, 64, shift=shift)).slice(0)[0]
    strongest = np.unravel_index((np.abs(found) ** 2).sum(0).argmax(), found.shape[1:])
    assert abs(abs(strongest[0] - 115) - 20) <= 1
    with pytest.raises(InputError, match="is it images"):  # as bright off the middle as they are
        image = np.zeros((1, 64, 64), np.complex64)
        image[0, 16:48, 16:48] = 1 + 1j
        image[0, 17, 40] = 9
        check_centred(image + 0.01j, "it")


def test_numbers_may_be_tiny_or_large(tmp_path: Path) -> None:
    kspace = coils_of(4, 48, 40)
    plain, _, _ = Scans(saved(tmp_path / "k.npy", kspace), RandomLines(2.0, 12)).scan(0)
    expected = plain.baseline_images()
    for factor in (1e-30, 1e25):
        source = Scans(
            saved(tmp_path / "k.npy", (kspace * np.float64(factor)).astype(np.complex64)), RandomLines(2.0, 12)
        )
        scan, _, _ = source.scan(0)
        unit = source.kspace.unit / factor
        assert scan.noise * scan.unit * unit == pytest.approx(plain.noise * plain.unit, rel=1e-3)
        for name, image in scan.baseline_images().items():
            assert float((unit * image - expected[name]).norm() / expected[name].norm()) < 1e-3, name


def test_a_file_is_opened_without_reading_a_slice() -> None:
    """Data sets have thousands of files, of which each is opened to know its shape; and a slice is read once."""
    kspace, calls = coils_of(4, 48, 40, slices=3), []

    def read(number: int) -> np.ndarray:
        calls.append(number)
        return kspace[number]

    scan = in_ordinary_units(KSpace("scan", kspace.shape, read))
    assert not calls and np.array_equal(scan.slice(2)[0], kspace[2]) and calls == [2]


@pytest.mark.parametrize("slices", [2, 5])
def test_each_slice_may_have_lines_of_its_own(slices: int, tmp_path: Path) -> None:
    kspace = coils_of(4, 32, 28, slices=slices)
    lines = np.stack([RandomLines(2.0, 6, seed=n)((32, 28))[0] for n in range(slices)])
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["mask"] = kspace, lines
    found = open_kspace(tmp_path / "k.h5")
    for number in range(slices):
        assert np.array_equal(found.slice(number)[1], np.broadcast_to(lines[number], (32, 28)))
    np.save(tmp_path / "k.npy", kspace), np.save(tmp_path / "m.npy", lines)
    source = Scans(open_kspace(tmp_path / "k.npy"), MaskFile(tmp_path / "m.npy"), noise=0.01)
    assert all(np.array_equal(source._slice(n)[2][0], lines[n]) for n in range(slices))
    np.save(tmp_path / "m.npy", np.ones((slices + 1, 28)))
    with pytest.raises(InputError, match="give one of width 28"):
        Scans(open_kspace(tmp_path / "k.npy"), MaskFile(tmp_path / "m.npy"))._slice(0)


def test_an_ellipse_that_is_sampled_as_a_whole_is_whole(tmp_path: Path) -> None:
    """As 3-D scans leave out the corners, of which images need none; half of it is half."""
    y, x = np.meshgrid((np.arange(64) - 32) / 32, (np.arange(48) - 24) / 24, indexing="ij")
    ellipse = x**2 + y**2 < 1
    assert share_of(ellipse) >= WHOLE and share_of(ellipse & (np.arange(48) % 2 > 0)) == pytest.approx(0.5, abs=0.02)
    assert share_of(np.ones((64, 48), bool)) == 1 and share_of(RandomLines(4.0, 8)((64, 48))) == pytest.approx(0.25)
    np.save(tmp_path / "k.npy", coils_of(4, 64, 48, slices=2) * ellipse)
    assert (
        Combined(tmp_path / "k.npy", (32, 32), valid=1)
        .load("train")
        .gather(torch.zeros(1, dtype=int))
        .x.isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("width", "acceleration", "lines"), [(372, 4, 24), (320, 8, 13), (180, 8, 7), (128, 8, 6), (64, 2, 10)]
)
def test_an_acceleration_leaves_room_for_other_lines_than_the_middle(
    width: int, acceleration: float, lines: int
) -> None:
    sampling = sampling_of(None, acceleration, width)
    assert isinstance(sampling, RandomLines) and sampling.calibration == lines
    mask = sampling((32, width))
    assert int(mask[0].sum()) == round(width / acceleration) and lines < mask[0].sum()
    assert sampling_of(None, acceleration, width, 0.04).calibration == 0.04
    with pytest.raises(InputError, match="--calibration is for --acceleration"):
        sampling_of(None, None, width, 8)


def test_the_noise_of_a_single_coil_is_that_of_the_air(tmp_path: Path) -> None:
    """Where the object fills the field of view, the oversampled ends of the readout hold what air there is."""
    sigma, rng = 0.3, np.random.default_rng(0)
    object_ = np.zeros((96, 48), complex)
    object_[24:72] = 5 + rng.normal(size=(48, 48)) + 1j * rng.normal(size=(48, 48))
    white = sigma * (rng.normal(size=(96, 48)) + 1j * rng.normal(size=(96, 48)))
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = (centred(object_) + white).astype(np.complex64)[None, None]
        file["reconstruction_rss"] = np.ones((1, 48, 48), np.float32)
    scan, _, _ = Scans(open_kspace(tmp_path / "k.h5")).scan(0)
    assert len(scan.mask) == 48 and scan.noise * scan.unit == pytest.approx(sigma, rel=0.15)


def test_the_zero_filled_image_is_in_the_units_of_the_object(tmp_path: Path) -> None:
    """Of coils whose noise differs whitening changes Σ|S|², which is no matter for any image."""
    kspace = coils_of(4, 48, 40, noise=0.0)
    rng = np.random.default_rng(1)
    gains = np.array([0.02, 0.1, 0.3, 0.05])[:, None, None]
    noisy = kspace[0] + gains * (rng.normal(size=kspace[0].shape) + 1j * rng.normal(size=kspace[0].shape))
    scan, reference, _ = Scans(saved(tmp_path / "k.npy", noisy[None].astype(np.complex64))).scan(0)
    weight = (scan.maps.abs() ** 2).sum(0)[scan.seen]
    assert float(weight.max() / weight.min()) > 1.5 and reference is None  # all is used: nothing to compare with
    image = to_complex(zero_filled(scan.operator, scan.measurement.y))[0, 0] * scan.scale
    truth = np.sqrt((np.abs(centred(kspace[0], inverse=True)) ** 2).sum(0))
    inside = scan.seen.numpy() & (truth > 0.3)
    assert np.abs(np.abs(image.numpy())[inside] / truth[inside] - 1).mean() < 0.1
