"""Images to train on from k-space: what the coils saw, in one scale, and nothing that is aliased."""

import pickle
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.data.statistics import robust_maximum
from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri import Combined, Scanned
from scorefield.mri.coils import SMOOTH, combine_by_images
from scorefield.mri.files import open_kspace
from scorefield.mri.masks import RandomLines
from scorefield.mri.scan_loading import Scans
from scorefield.mri.simulated import simulate
from scorefield.mri.sources import OPEN

h5py, _ = (pytest.importorskip(name) for name in ("h5py", "sigpy"))
GRID = (48, 40)
HANDLES = Path("/proc/self/fd")  # a file for each that is open


def image():
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    return np.where(x**2 + y**2 < 0.6, 1 + 0.4 * np.sin(9 * x), 0)


@pytest.fixture
def folder(tmp_path):
    for number in range(3):
        scans = [simulate(image() * (1 + n), coils=4, decibels=40.0, number=n) for n in range(4)]
        with h5py.File(tmp_path / f"scan{number}.h5", "w") as file:
            file["kspace"] = np.stack([scan.kspace for scan in scans])
    return tmp_path


def test_coils_are_combined_to_the_image_they_saw():
    scan = simulate(image(), coils=6, decibels=50.0)
    found = np.abs(combine_by_images(scan.kspace))
    inside = image() > 0
    assert np.abs(found - image())[inside].mean() < 0.03 and found[~inside].mean() < 0.03
    np.testing.assert_allclose(combine_by_images(scan.kspace[:1]), combine_by_images(scan.kspace[:1] * 1.0))


@pytest.mark.parametrize(
    ("grid", "matrix"), [((96, 40), (48, 40)), ((97, 41), (48, 64)), ((20, 18), (20, 18)), ((64, 32), (80, 20))]
)
def test_the_middle_of_the_image_is_what_two_whole_transforms_give(grid, matrix):
    """Σ s̄_c x_c/√Σ|s_c|² in double precision, s_c the images of k-space under a window; then cut."""
    rng = np.random.default_rng(0)
    kspace = centred(rng.normal(size=(3, *grid)) + 1j * rng.normal(size=(3, *grid)) + 2)
    window = np.ones(())
    for size in grid:
        near = np.abs(np.arange(size) - size // 2) / (min(SMOOTH, size) / 2)
        window = np.multiply.outer(window, np.where(near < 1, 0.5 + 0.5 * np.cos(np.pi * np.minimum(near, 1)), 0))
    images, smooth = centred(kspace, inverse=True), centred(kspace * window, inverse=True)
    whole = (smooth.conj() * images).sum(0) / np.sqrt((np.abs(smooth) ** 2).sum(0))
    found, expected = combine_by_images(kspace, matrix), fit_matrix(whole, matrix)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_files_are_held_out_whole_and_slices_scaled_by_one_rule(folder):
    source = Combined(folder, matrix=(32, 44), skip=1, valid=1)
    train, valid = source.load("train"), source.load("valid")
    assert len(train) == 4 and len(valid) == 2
    x = train.gather(torch.arange(4)).x
    assert x.shape == (4, 2, 32, 44) and robust_maximum(x[0].norm(dim=0).numpy()) == pytest.approx(1, rel=0.1)
    torch.testing.assert_close(pickle.loads(pickle.dumps(train)).gather(torch.arange(4)).x, x)
    assert len(Combined(folder / "scan0.h5", valid=1).load("train")) == 3


@pytest.mark.skipif(not HANDLES.is_dir(), reason="open files cannot be counted here")
def test_a_folder_has_more_files_than_a_process_may_open(folder):
    """Of 83 files with 40 open at most; a few of them stay open."""
    for number in range(80):
        shutil.copy(folder / "scan0.h5", folder / f"copy{number}.h5")
    here = len(list(HANDLES.iterdir()))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (here + 40, limits[1]))
    try:
        fields = Combined(folder, matrix=GRID, valid=2).load("train")
        assert len(fields) == 4 * 81
        x = fields.gather(torch.arange(0, len(fields), 4)).x
        assert len(x) == 81 and len(list(HANDLES.iterdir())) <= here + OPEN
        torch.testing.assert_close(fields.gather(torch.tensor([0])).x[0], x[0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_edges_that_the_scanner_filled_with_zeros_are_not_left_out(folder):
    """fastMRI's files are padded to the width of the image: 12 of 40 columns here."""
    before = Combined(folder / "scan0.h5", matrix=GRID, valid=1).load("train").gather(torch.arange(3)).x
    with h5py.File(folder / "scan0.h5", "r+") as file:
        file["kspace"][..., :6] = 0
        file["kspace"][..., -6:] = 0
    found = Combined(folder / "scan0.h5", matrix=GRID, valid=1).load("train").gather(torch.arange(3)).x
    assert float((found - before).norm() / before.norm()) < 0.1  # the same images, a little smoother
    kspace = open_kspace(folder / "scan0.h5")
    _, reference, notes = Scans(kspace, RandomLines(2.0, 12)).scan(0)
    assert reference is not None and not notes
    _, reference, (note,) = Scans(kspace).scan(0)
    assert reference is None and "sampled as a whole" in note


def test_slices_of_zeros_give_way_to_the_nearest(folder):
    """As files are filled up with, also in the middle: training does not end where one is drawn."""
    with h5py.File(folder / "scan0.h5", "r+") as file:
        for number in (0, 2):
            file["kspace"][number] = 0
    for source in (Combined(folder / "scan0.h5", matrix=GRID, valid=0), Scanned(folder / "scan0.h5", valid=0)):
        x = source.load("train").gather(torch.arange(4)).x
        torch.testing.assert_close(x[[0, 2]], x[[1, 1]])
        assert not torch.allclose(x[1], x[3])
    with h5py.File(folder / "scan0.h5", "r+") as file:
        for number in (1, 3):
            file["kspace"][number] = 0
    with pytest.raises(InputError, match=r"All slices of .* are zeros"):
        Combined(folder / "scan0.h5", matrix=GRID, valid=0).load("train").gather(torch.arange(1))


def test_what_cannot_be_trained_on_is_named(folder, tmp_path):
    with h5py.File(folder / "scan0.h5", "r+") as file:
        file["kspace"][..., ::2] = 0
    with pytest.raises(InputError, match="masked already"):
        Combined(folder / "scan0.h5", valid=1).load("train").gather(torch.arange(1))
    for path in (tmp_path / "absent", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(AbsentDataError):
            Combined(path).load("train")
    with pytest.raises(InputError, match="skip"):
        Combined(folder, skip=2).load("train")
