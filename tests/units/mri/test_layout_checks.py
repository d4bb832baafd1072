"""Slices and coils are distinguished by what coils share: on a real brain, and on a real scan of eight coils."""

import os
from pathlib import Path

import numpy as np
import pytest

from scorefield.data.nifti import read_nifti
from scorefield.foundation.errors import InputError
from scorefield.mri.files import open_kspace
from scorefield.mri.layout_checks import check_axes, check_shift
from scorefield.mri.masks import RandomLines
from scorefield.mri.simulated import simulate
from scorefield.mri.sources import Combined

h5py = pytest.importorskip("h5py")
pytest.importorskip("sigpy")
DATA = Path(os.environ.get("SCOREFIELD_DATA", "absent")) / "mri"
brains = pytest.mark.skipif(not DATA.is_dir(), reason="SCOREFIELD_DATA holds no mri")


@pytest.fixture(scope="module", params=[(3, 30.0), (20, 10.0)], ids=["thin", "noisy"])
def scan(request: pytest.FixtureRequest) -> np.ndarray:
    """Six slices, some mm apart, of four coils: (6, 4, height, width), noise some dB below the signal."""
    apart, decibels = request.param
    volume = read_nifti(DATA / "mni_icbm152_t1_nlin_sym_09a.nii.gz")
    images = [volume[:, :, 60 + apart * number if apart < 10 else 40 + apart * number] for number in range(6)]
    return np.stack([simulate(x, coils=4, decibels=decibels, number=n).kspace for n, x in enumerate(images)])


def saved(path: Path, kspace: np.ndarray) -> Path:
    np.save(path, kspace)
    return path


@brains
@pytest.mark.parametrize("lines", [None, RandomLines(4.0, 24), RandomLines(8.0, 9)], ids=["whole", "R=4", "R=8"])
def test_slices_given_for_coils_are_refused_and_coils_are_not(scan, lines, tmp_path):
    scan = scan if lines is None else scan * lines(scan.shape[2:], 0)
    assert check_axes(open_kspace(saved(tmp_path / "right.npy", scan))) == ""
    assert check_axes(open_kspace(saved(tmp_path / "single.npy", scan[:, :1]))) == ""
    with pytest.raises(InputError, match=r"6 coils.*numpy.swapaxes"):
        check_axes(open_kspace(saved(tmp_path / "exchanged.npy", scan.swapaxes(0, 1))))


@brains
def test_where_one_axis_is_missing_what_it_would_be_is_said(tmp_path):
    volume = read_nifti(DATA / "mni_icbm152_t1_nlin_sym_09a.nii.gz")
    scan = np.stack([simulate(volume[:, :, 50 + 10 * n], coils=6, seed=1).kspace for n in range(6)])  # of one phase
    for name, values in {"coils": scan[0], "slices": scan[:, 0]}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"] = values
        np.save(tmp_path / f"{name}.npy", values)
    assert check_axes(open_kspace(tmp_path / "coils.npy")) == ""
    assert "slices of a single coil" in check_axes(open_kspace(tmp_path / "slices.npy"))
    assert check_axes(open_kspace(tmp_path / "slices.h5")) == ""
    with pytest.raises(InputError, match=r"give \(1, 6, .*of coils, \(6, 1, "):
        check_axes(open_kspace(tmp_path / "coils.h5"))
    np.save(tmp_path / "explicit.npy", scan[0][:, None])  # whoever gives the axis means it
    assert check_axes(open_kspace(tmp_path / "explicit.npy")) == ""
    with pytest.raises(InputError, match="of coils"):
        Combined(tmp_path / "coils.h5", matrix=(96, 96)).load("train")


@brains
def test_the_coils_of_a_real_scan_are_coils():
    assert check_axes(open_kspace(DATA / "brain8ch_R8_ksp_sigpy.npy")) == ""


@brains
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_images_whose_halves_have_changed_places_are_reported(axis, tmp_path):
    volume = read_nifti(DATA / "mni_icbm152_t1_nlin_sym_09a.nii.gz")
    image = np.take(volume, volume.shape[axis] // 2, axis=axis)
    rows, columns = (np.flatnonzero((image > 0.1 * image.max()).any(1 - n)) for n in (0, 1))
    tight = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # a head that fills its image
    for number, field in enumerate((image, tight)):
        right = simulate(field, coils=4).kspace[None]
        signs = (-1.0) ** np.indices(field.shape).sum(0)
        assert check_shift(open_kspace(saved(tmp_path / f"right-{number}.npy", right))) == ""
        warning = check_shift(
            open_kspace(saved(tmp_path / f"wrapped-{number}.npy", (right * signs).astype(np.complex64)))
        )
        assert "had changed places" in warning and (number or "height and width" in warning)
    assert check_shift(open_kspace(DATA / "brain8ch_R8_ksp_sigpy.npy")) == ""


def test_two_legs_and_a_spine_are_where_they_are(tmp_path):
    y, x = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 80), indexing="ij")
    legs = ((np.abs(x) - 0.55) ** 2 + y**2 < 0.35**2).astype(np.float32)
    spine = np.exp(-3 * (1 - x)) * (x > -0.5)  # bright before a surface coil
    for name, field in {"legs": legs, "spine": spine}.items():
        scan = simulate(field.astype(np.float32), coils=4, decibels=40).kspace[None]
        assert check_shift(open_kspace(saved(tmp_path / f"{name}.npy", scan))) == ""


def test_noise_and_what_cannot_be_read_say_nothing(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 4, 32, 24)) + 1j * rng.normal(size=(4, 4, 32, 24))
    assert check_axes(open_kspace(saved(tmp_path / "noise.npy", noise))) == ""
    assert check_axes(open_kspace(saved(tmp_path / "zeros.npy", 0 * noise))) == ""
