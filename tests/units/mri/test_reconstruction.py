"""Reconstruction as a user meets it: files in, file out, figures, repeated calls, mistakes; and what a scan's numbers mean."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import launched
import scorefield
from often import seldom
from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri.coils import as_tensor, normalised
from scorefield.mri.dicom import read_dicom
from scorefield.mri.kspace import KSpace
from scorefield.mri.masks import MaskFile, RandomLines
from scorefield.mri.metrics import fastmri_figures
from scorefield.mri.reconstruction_report import figures, misfit, summary
from scorefield.mri.scan import Scan
from scorefield.mri.scan_loading import Scans
from scorefield.mri.simulated import Simulation, simulate
from scorefield.operators import NonUniformFourier
from scorefield.run.runner import Pieces

pytestmark = pytest.mark.usefixtures("unchecked")
h5py, nibabel, _ = (pytest.importorskip(name) for name in ("h5py", "nibabel", "sigpy"))
GRID = (40, 37)


def image() -> np.ndarray:
    y, x = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    return 300.0 * np.where(x**2 + y**2 < 0.7, 1 + 0.5 * np.sin(6 * x), 0)


@pytest.fixture(scope="module")
def scans() -> list[Simulation]:
    return [simulate(image() * (1 + n), coils=4, number=n) for n in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, scans: list[Simulation]) -> Path:
    """A prior of a step, and k-space of two slices, fully sampled and not."""
    folder = tmp_path_factory.mktemp("reconstruct")
    volume = np.repeat(image()[..., None], 3, axis=2).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "t1.nii")
    command = ["train", "brain-t1-small", "--out", str(folder / "run"), f"--data.paths=[{folder / 't1.nii'}]"]
    command += ["--data.matrix=[40,40]", "--data.valid=[0,1]", "--model.net.channels=4", "--train.batch_size=2"]
    command += [
        "--train.steps=1",
        "--train.augment=[]",
        "--model.shape=[]",
        "--train.accelerator=cpu",
        "--model.sampler.steps=1",
    ]
    assert main(command) == 0
    mask = RandomLines(3.0, 11)(GRID)
    with h5py.File(folder / "full.h5", "w") as file:
        file["kspace"] = np.stack([scan.kspace for scan in scans])
    with h5py.File(folder / "part.h5", "w") as file:
        file["kspace"] = np.stack([scan.kspace * mask for scan in scans])
    np.save(folder / "maps.npy", scans[0].maps)
    return folder


def job(folder: Path, out: Path, *more: str, kspace: str = "full.h5") -> list[str]:
    command = ["reconstruct", str(folder / "run"), str(folder / kspace), "--out", str(out), "-n", "2", "--steps", "3"]
    command += ["--centre", "0"]  # which would draw eight members
    command += ["--baselines.damping", "0.001", "--baselines.iterations", "20", "--baselines.wavelet", "0.0005"]
    return [*command, "--cache", str(folder / "cache"), *more]


def refuse(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and all(word in lines[0] for word in words), lines


def read(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}


@pytest.mark.parametrize("kind", ["nifti", "dicom"])
def test_magnitudes_are_written_for_other_programs(kind, folder, tmp_path, capsys):
    """Beside the file, and again only if they are others; that k-space of fastMRI's kind says no place is told."""
    if kind == "dicom":
        pytest.importorskip("pydicom")
    out = tmp_path / "out.h5"
    command = job(folder, out, "--slices", "0:2", "--format", kind, kspace="part.h5")
    assert main(command) == 0 and main(command) == 0
    assert "does not say where its slices are" in capsys.readouterr().err
    right = np.moveaxis(read(out)["magnitude"], 0, -1)
    if kind == "nifti":
        np.testing.assert_allclose(nibabel.load(tmp_path / "out.nii.gz").get_fdata(), right, rtol=1e-6)
    else:
        found = read_dicom(tmp_path / "out-dicom")[0][0]
        assert np.abs(found - right).max() < 1e-5 * right.max()
        refuse(capsys, [*command, "--out", str(tmp_path / "out.hdf5"), "--seed", "9"], "out-dicom holds other files")


def test_spokes_off_the_grid_are_reconstructed_like_lines(folder, tmp_path, capsys):
    """Two slices of 60 spokes and a quarter of these, by the same command; and what does not go with them."""
    angle, along = np.pi * np.arange(60) / 60, np.arange(80) / 80 - 0.5
    places = along[:, None, None] * np.stack((np.sin(angle), np.cos(angle)), -1)
    fourier = NonUniformFourier(torch.from_numpy(places.reshape(-1, 2) * GRID), GRID)
    images = torch.from_numpy(np.stack([scan.maps * scan.image for scan in map(simulate, (image(), 2 * image()))]))
    noise = np.random.default_rng(0).normal(size=(2, 2, 8, 80, 60))
    kspace = fourier(images).numpy().reshape(2, 8, 80, 60) + noise[0] + 1j * noise[1]
    np.savez(folder / "radial.npz", kspace=kspace.astype(np.complex64), trajectory=places, matrix=GRID)
    out = tmp_path / "out.h5"
    command = job(folder, out, "--acceleration", "4", kspace="radial.npz")
    assert main(command) == 0
    found = read(out)
    assert found["members"].shape == (2, 2, *GRID) and found["places"].shape == (2, 80, 60, 2)
    assert found["used"][0, 0].sum() == 15 and found["noise"] == pytest.approx(1, rel=0.1)
    assert "CG-SENSE" in capsys.readouterr().out  # against a reference of all spokes
    refuse(capsys, [*command, "--calibration", "8"], "--calibration")
    refuse(capsys, job(folder, tmp_path / "o.h5", "--method", "DPS", "--centre", "3"), "--centre is for Proximal")
    refuse(capsys, job(folder, tmp_path / "o.h5", "--trajectory", "none.npy", kspace="radial.npz"), "none.npy")


def test_fully_sampled_k_space_is_undersampled_and_compared(folder, tmp_path, capsys):
    out = tmp_path / "out.h5"
    mask = ["--mask", "RandomLines", "--mask.acceleration", "3", "--mask.calibration", "11"]
    assert main([*job(folder, out, *mask), "-n", "4"]) == 0
    found = read(out)
    assert found["members"].shape == (2, 4, *GRID) and found["members"].dtype == np.complex64
    assert (
        found["interval"].shape == (2, 2, *GRID) and (found["interval"][:, 0] >= 0).all() and "quantiles" not in found
    )
    np.testing.assert_allclose(found["magnitude"], np.abs(found["members"].mean(1)), rtol=1e-4, atol=1e-3)
    with h5py.File(out) as file:  # every array says what it is
        assert all({"description", "axes", "units"} <= set(data.attrs) for data in file.values())
        named = {name: len(data.attrs["axes"].split(",")) for name, data in file.items()}
        assert all(file[name].ndim == axes for name, axes in named.items()), named
    assert found["slices"].tolist() == [0, 1]
    assert found["chi_square"].shape == (2, 4) and not np.array_equal(found["members"][0, 0], found["members"][1, 0])
    printed = capsys.readouterr().out
    assert "posterior mean (4 members)" in printed and "CG-SENSE" in printed
    assert (
        "as fastMRI has it, against all of k-space by maps:" in printed and (tmp_path / "out-uncertainty.png").exists()
    )
    with h5py.File(out) as file:
        volume = json.loads(file.attrs["figures"])["volume"]["all of k-space by maps"]["CG-SENSE"]
    x, truth = (torch.from_numpy(np.abs(found[name])) for name in ("CG_SENSE", "reference"))
    assert volume == pytest.approx(fastmri_figures(x, truth), rel=1e-6)
    assert out.with_suffix(".png").exists() and not out.with_name("out.h5.parts").exists()


def test_some_lines_are_held_out_and_say_whether_the_members_spread_enough(folder, tmp_path, capsys):
    mask = ["--mask", "RandomLines", "--mask.acceleration", "2", "--mask.calibration", "5", "--slices", "0", "-n", "4"]
    assert main([*job(folder, tmp_path / "a.h5", *mask), "--inflate"]) == 0
    assert "of held-out k-space covered" in capsys.readouterr().out
    found, part = read(tmp_path / "a.h5"), read(tmp_path / "a.h5")["held_out_mask"][0]
    coverage, low, high, inflation, applied = found["held_out"][0]
    assert 0 <= coverage <= 1 and 0 <= low < high <= 1 and inflation == applied >= 1
    assert (part == part.any(0)).all() and part.any(0).sum() == 1 and (part <= found["mask"][0]).all()
    members = found["members"][0]
    wider = np.abs(members.mean(0) + inflation * (members - members.mean(0)))
    np.testing.assert_allclose(found["std"][0], wider.std(0, ddof=1), rtol=1e-3, atol=1e-2)
    assert main([*job(folder, tmp_path / "b.h5", *mask), "--held-out", "0"]) == 0
    members, found = found["members"], read(tmp_path / "b.h5")
    np.testing.assert_array_equal(found["members"], members)  # which see all lines
    assert np.isnan(found["held_out"][0, :3]).all() and found["held_out"][0, 3:].tolist() == [1, 1]
    assert found["mask"][0].any(0).sum() == 18 and not found["held_out_mask"].any()


def test_members_are_centred_at_an_image_of_their_own_unless_they_are_not_to_be(folder, tmp_path):
    few = ["--acceleration", "2", "--calibration", "11", "--slices", "0", "--held-out", "0", "-n", "8"]
    few += ["--grid", "EDMGrid", "--grid.ratio_min", "0.005", "--grid.ratio_max", "1"]
    assert main(job(folder, tmp_path / "a.h5", *few, "--centre", "3")) == 0
    assert main(job(folder, tmp_path / "b.h5", *few)) == 0
    centred, plain = read(tmp_path / "a.h5"), read(tmp_path / "b.h5")
    away = [x["members"][0] - x["mean"][0] for x in (centred, plain)]
    np.testing.assert_allclose(away[0], away[1] * (8 / 7) ** 0.5, rtol=1e-3, atol=1e-3 * np.abs(away[1]).max())
    assert np.abs(centred["mean"] - plain["mean"]).max() > 1e-3 * np.abs(plain["mean"]).max()


def weighed(folder: Path, out: Path, *more: str, kspace: str = "full.h5") -> list[str]:
    """A job with particles."""
    return job(folder, out, "--particles", "6", "--chunk", "4", *more, kspace=kspace)


def test_members_are_drawn_of_weighted_particles_with_what_these_say_of_k_space(folder, tmp_path, capsys):
    """Whatever is evaluated at once; with held-out lines and spread that is inflated; what cannot be weighed is refused."""
    out, again = tmp_path / "out.h5", tmp_path / "again.h5"
    part = ["--acceleration", "2", "--calibration", "9", "--slices", "0:1"]
    assert main([*weighed(folder, out, *part), "-n", "4", "--inflate"]) == 0
    told = capsys.readouterr()
    assert "log p(k-space) in nats" in told.out and "effective particles" in told.out
    assert told.err.count("particles counted at some level") == 1 and "members are copies of it" in told.err
    found = read(out)
    assert found["members"].shape == (1, 4, *GRID) and found["held_out_mask"].any()
    assert np.isfinite(found["log_evidence"]).all() and 1 <= found["effective"][0] <= 6
    assert main([*weighed(folder, again, *part, "--chunk", "6"), "-n", "4", "--held-out", "0"]) == 0
    np.testing.assert_allclose(read(again)["members"], found["members"], rtol=1e-2, atol=0.5)
    refuse(capsys, [*weighed(folder, out, *part), "-n", "4", "--inflate", "--particles", "7"], "another job")
    other = tmp_path / "other.h5"
    refuse(capsys, weighed(folder, other, *part, "--centre", "4"), "--particles", "--centre")
    refuse(capsys, weighed(folder, other, *part, "--corrector", "Langevin"), "corrector")
    refuse(capsys, weighed(folder, other, *part, "--sampler", "Heun"), "DPMSolverPP2M")
    assert not list(tmp_path.glob("*other*"))


@pytest.mark.slow
def test_particles_go_with_volumes_and_with_k_space_off_the_grid(folder, tmp_path):
    out = tmp_path / "volume.h5"
    assert main(weighed(folder, out, "--acceleration", "3", "--calibration", "11", "--volume", "--method", "DPS")) == 0
    found = read(out)
    assert found["members"].shape == (2, 2, *GRID) and found["log_evidence"][0] == found["log_evidence"][1]
    angle, along = np.pi * np.arange(20) / 20, np.arange(80) / 80 - 0.5
    places = along[:, None, None] * np.stack((np.sin(angle), np.cos(angle)), -1)
    fourier = NonUniformFourier(torch.from_numpy(places.reshape(-1, 2) * GRID), GRID)
    images = torch.from_numpy(simulate(image()).maps * simulate(image()).image)
    noise = np.random.default_rng(0).normal(size=(2, 8, 80, 20))
    kspace = fourier(images[None]).numpy().reshape(8, 80, 20) + noise[0] + 1j * noise[1]
    np.savez(folder / "spokes.npz", kspace=kspace.astype(np.complex64), trajectory=places, matrix=GRID)
    out = tmp_path / "radial.h5"
    assert main(weighed(folder, out, kspace="spokes.npz")) == 0
    assert np.isfinite(read(out)["log_evidence"]).all() and read(out)["members"].shape == (1, 2, *GRID)


def test_a_mask_is_a_file_and_the_layout_is_said(folder, scans, tmp_path, capsys):
    np.save(tmp_path / "m.npy", RandomLines(3.0, 11)(GRID)[0])
    np.save(tmp_path / "wide.npy", np.ones(50))
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["kspace"] = np.stack([scan.kspace[0] for scan in scans])
    np.save(tmp_path / "exchanged.npy", np.stack([scan.kspace for scan in scans], axis=1))
    refuse(capsys, job(folder, tmp_path / "o.h5", kspace=str(tmp_path / "exchanged.npy")), "swapaxes")
    refuse(capsys, job(folder, tmp_path / "o.h5", "--mask", str(tmp_path / "wide.npy")), "(50,)", str(GRID))
    more = ["--slices", "0", "--mask", str(tmp_path / "m.npy")]
    assert main(job(folder, tmp_path / "o.h5", *more, kspace=str(tmp_path / "one.h5"))) == 0
    said = capsys.readouterr().err
    assert "slices 2, coils 1, height 40, width 37" in said and "single-coil: 2 slices" in said
    np.save(tmp_path / "m.npy", RandomLines(3.0, 11, seed=1)(GRID)[0])  # another mask, by the same name
    refuse(capsys, job(folder, tmp_path / "o.h5", *more, kspace=str(tmp_path / "one.h5")), "another job")


def test_results_are_in_the_units_of_k_space(folder, scans, tmp_path):
    """With the true maps and noise the reference is the image, and twice the k-space gives twice the result."""
    given = ["--maps", str(folder / "maps.npy"), "--noise", str(scans[0].noise), "--slices", "0"]
    mask = ["--mask", "RandomLines", "--mask.acceleration", "2", "--mask.calibration", "12"]
    assert main(job(folder, tmp_path / "a.h5", *given, *mask)) == 0
    found = read(tmp_path / "a.h5")
    error = np.abs(found["reference"][0] - scans[0].image)
    assert error.max() < 8 * scans[0].noise  # the noise of A* y, where Σ|S|² = 1
    assert np.abs(found["CG_SENSE"][0] - scans[0].image).mean() < 0.2 * np.abs(scans[0].image).mean()
    np.save(tmp_path / "twice.npy", 2 * scans[0].kspace)
    given[3] = str(2 * scans[0].noise)
    assert main(job(folder, tmp_path / "b.h5", *given, *mask, kspace=str(tmp_path / "twice.npy"))) == 0
    double = read(tmp_path / "b.h5")
    np.testing.assert_allclose(double["members"], 2 * found["members"], rtol=1e-3, atol=0.1)
    np.testing.assert_allclose(double["chi_square"], found["chi_square"], rtol=1e-3)


@pytest.fixture(scope="module")
def pair(folder) -> Path:
    """Two slices of one image with the same noise level, the second half as bright."""
    path, clean = folder / "pair.npy", simulate(image(), coils=4, decibels=300).kspace
    rng = np.random.default_rng(0)
    noise = 3 * (rng.normal(size=(2, *clean.shape)) + 1j * rng.normal(size=(2, *clean.shape)))
    np.save(path, np.stack([clean, clean / 2]) + noise)
    return path


def test_what_is_measured_of_the_noise_leaves_the_units_of_k_space(folder, pair, tmp_path):
    """Nothing is given: half the brightness is half the result, and c times k-space is c times everything."""
    mask = ["--mask", "RandomLines", "--mask.acceleration", "2", "--mask.calibration", "12", "--mask.seed", "3"]
    assert main(job(folder, tmp_path / "a.h5", *mask, kspace=str(pair))) == 0
    found = read(tmp_path / "a.h5")
    for name in ("reference", "CG_SENSE", "mean"):
        ratio = np.linalg.norm(found[name][1]) / np.linalg.norm(found[name][0])
        assert ratio == pytest.approx(0.5, rel=0.05), name  # the noise of the slices, and of members
    strength = np.sqrt((np.abs(centred(np.load(pair)[0], inverse=True)) ** 2).sum(0))
    assert np.linalg.norm(found["reference"][0]) == pytest.approx(np.linalg.norm(strength), rel=0.05)
    assert found["noise"][0] == found["noise"][1] == pytest.approx(3, rel=0.1)
    np.save(tmp_path / "large.npy", 1000 * np.load(pair))
    assert main(job(folder, tmp_path / "b.h5", *mask, kspace=str(tmp_path / "large.npy"))) == 0
    large = read(tmp_path / "b.h5")
    for name in ("reference", "CG_SENSE", "L1_wavelet", "members", "std", "noise", "scale"):
        size = np.abs(large[name]).max()
        np.testing.assert_allclose(large[name], 1000 * found[name], rtol=1e-3, atol=1e-3 * size, err_msg=name)
    np.testing.assert_allclose(large["chi_square"], found["chi_square"], rtol=1e-3)


def test_given_maps_are_whitened_with_k_space(scans):
    """Unequal coils and a noise scan: the image keeps its units, χ²/N of the truth is 1."""
    gains, rng = np.array([1.0, 3.0, 1.0, 0.5]), np.random.default_rng(0)
    scan, spread = scans[0], scans[0].noise * 2
    white = rng.normal(size=(2, 4, 3000, 1)) * spread
    noise_scan = (gains[:, None] * (white[0] + 1j * white[1])[..., 0]).astype(np.complex64)
    parts = rng.normal(size=(2, *scan.kspace.shape)) * spread
    noisy = centred(scan.maps * scan.image) + gains[:, None, None] * (parts[0] + 1j * parts[1])
    source = KSpace("scan", (1, *scan.kspace.shape), lambda _: noisy, noise_scan=noise_scan)
    found, reference, _ = Scans(source, RandomLines(2.0, 11), scan.maps).scan(0)
    truth = torch.from_numpy(scan.image)
    assert found.chi_square(truth[None]).item() == pytest.approx(1, abs=0.06)
    assert reference is not None and (reference - truth).abs().mean() < 5 * spread
    assert found.maps.abs().square().sum(0).max() == pytest.approx(1, rel=1e-5)


def test_k_space_that_is_undersampled_already_is_taken_as_it_is(folder, scans, tmp_path, capsys):
    out = tmp_path / "out.h5"
    assert main(job(folder, out, "--slices", "1", "--coils", "3", kspace="part.h5")) == 0
    found = read(out)
    assert "reference" not in found and found["maps"].shape == (1, 3, *GRID)
    together = np.hypot(scans[0].noise, scans[1].noise) / np.sqrt(2)  # of the scan, not of a slice
    assert found["noise"] == pytest.approx(together, rel=0.1) and "posterior mean" not in capsys.readouterr().out


def test_slices_of_zeros_are_images_of_zeros_that_count_in_no_figure(folder, scans, tmp_path, capsys):
    """As files are filled up at the ends of a volume; and one member has no spread."""
    values = np.stack([0 * scans[0].kspace, scans[0].kspace, scans[1].kspace])
    np.save(tmp_path / "k.npy", values)
    mask = ["--mask", "RandomLines", "--mask.acceleration", "2", "--mask.calibration", "12"]
    assert main([*job(folder, tmp_path / "o.h5", *mask, kspace=str(tmp_path / "k.npy")), "-n", "1"]) == 0
    said, found = capsys.readouterr(), read(tmp_path / "o.h5")
    assert "Slice 0" in said.err and "all zeros" in said.err and "mean of 2 slices" in said.out
    assert found["slices"].tolist() == [0, 1, 2] and "std" not in found and "interval" not in found
    for name in ("members", "mean", "reference", "CG_SENSE"):
        assert not found[name][0].any() and found[name][1:].any()
    assert np.isnan(found["chi_square"][0]).all() and np.isfinite(found["chi_square"][1:]).all()
    with h5py.File(tmp_path / "o.h5") as file:
        figures = json.loads(file.attrs["figures"])
    x, truth = (torch.from_numpy(np.abs(found[name][1:])) for name in ("mean", "reference"))
    assert set(figures["slices"]) == {"1", "2"}
    assert figures["volume"]["all of k-space by maps"]["posterior mean"] == pytest.approx(fastmri_figures(x, truth))
    values[1, 0, 3, 3] = np.nan
    np.save(tmp_path / "n.npy", values)
    refuse(capsys, job(folder, tmp_path / "n.h5", *mask, kspace=str(tmp_path / "n.npy")), "Slice 1", "--slices 0:1,2:3")


def test_images_are_compared_with_those_that_the_file_came_with(folder, scans, tmp_path, capsys):
    """fastMRI's layout: a readout of twice the height, and the root sum of squares of all coils, cut to the middle. Of all of
    k-space, noise 60 dB below it, the image is that but for the noise where there is no object.
    """
    clean = [centred(scan.maps * scan.image) for scan in scans]
    wide = centred(fit_matrix(centred(np.stack(clean), inverse=True), (2 * GRID[0], GRID[1])))
    rng, sigma = np.random.default_rng(0), 1e-3 * np.sqrt((np.abs(wide) ** 2).mean())
    wide = (wide + sigma * (rng.normal(size=wide.shape) + 1j * rng.normal(size=wide.shape))).astype(np.complex64)
    rss = np.sqrt((np.abs(centred(wide, inverse=True)) ** 2).sum(1))
    with h5py.File(tmp_path / "fast.h5", "w") as file:
        file["kspace"], file["reconstruction_rss"] = wide, fit_matrix(rss, (GRID[0], 30)).astype(np.float32)
    assert main(job(folder, tmp_path / "o.h5", kspace=str(tmp_path / "fast.h5"))) == 0
    said, found = capsys.readouterr(), read(tmp_path / "o.h5")
    assert "against the file's reconstruction_rss:" in said.out and "nothing is compared" not in said.err
    with h5py.File(tmp_path / "o.h5") as file:
        rows = json.loads(file.attrs["figures"])["volume"]["the file's reconstruction_rss"]
    target = torch.from_numpy(found["target"])
    assert found["mean"].shape[1:] == GRID and target.shape[1:] == (GRID[0], 30)
    for name, label in (("mean", "posterior mean"), ("zero_filled", "zero-filled")):
        x = torch.from_numpy(np.abs(found[name]))[:, :, 3:33]  # the middle, 18 to 15
        assert rows[label] == pytest.approx(fastmri_figures(x, target))
    assert rows["posterior mean"]["nmse"] < 1e-4 and rows["posterior mean"]["ssim"] > 0.99


def test_the_same_call_goes_on_and_another_is_refused(folder, tmp_path, capsys, monkeypatch):
    whole, out = tmp_path / "whole.h5", tmp_path / "out.h5"
    more = ["--acceleration", "1.5"]
    assert main(job(folder, whole, *more)) == 0
    from scorefield.mri import reconstruction

    compute = reconstruction.Reconstruction.compute

    def interrupted(self, number):
        if number == 1:
            raise KeyboardInterrupt
        return compute(self, number)

    monkeypatch.setattr(reconstruction.Reconstruction, "compute", interrupted)
    assert main(job(folder, out, *more)) == 130 and not out.exists()
    done = []
    monkeypatch.setattr(reconstruction.Reconstruction, "compute", lambda self, n: done.append(n) or compute(self, n))
    refuse(capsys, job(folder, out, *more, "--seed", "1"), "another job", "seed")
    assert main(job(folder, out, *more)) == 0 and done == [1]
    for name, values in read(whole).items():
        np.testing.assert_array_equal(values, read(out)[name])
    assert main(job(folder, out, *more)) == 0 and done == [1]
    refuse(capsys, job(folder, out, *more, "--steps", "4"), "another --out")


@pytest.mark.parametrize("each", [launched.ranks(2), seldom(launched.array(3))], ids=["ranks", "array"])
def test_processes_with_numbers_reconstruct_as_one_does(each, folder, tmp_path):
    assert main(job(folder, tmp_path / "one.h5", "--acceleration", "1.5")) == 0
    shared = job(folder, tmp_path / "shared.h5", "--acceleration", "1.5", "--cache", str(tmp_path / "cache"))
    assert launched.together(shared, each, tmp_path / "said") == [0, 1]
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "shared.h5").read_bytes()


def test_a_full_disk_is_one_line_and_the_job_goes_on_afterwards(folder, tmp_path, monkeypatch, capfd):
    """HDF5 itself would take the process down."""
    resource = pytest.importorskip("resource")
    arguments = job(folder, tmp_path / "o.h5", "--slices", "1", "-n", "1", "--steps", "1")
    write, limits = Pieces.write, resource.getrlimit(resource.RLIMIT_FSIZE)

    def full(self: Pieces, number: int, piece: dict) -> None:
        write(self, number, piece)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # all is drawn: from here on no file is longer

    monkeypatch.setattr(Pieces, "write", full)
    try:
        assert main(arguments) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert len(said) == 1 and "free some space" in said[0] and not (tmp_path / "o.h5").exists(), said
    assert main(arguments) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--acceleration", "8"], ["calibration lines", "fewer"]),
        (["--acceleration", "2", "--mask", "RandomLines"], ["one of them"]),
        (["--slices", "2"], ["slices 0 to 1"]),
        (["--slices", "a"], ["slices"]),
        (["--slices", "0:1,1:3"], ["slices 0 to 1"]),
        (["--noise", "0"], ["--noise is 0", "above 0"]),
        (["--noise=-1"], ["--noise is -1", "above 0"]),
        (["--noise", "nan"], ["noise", "nan"]),
        (["--height", "0"], ["--height 0", "1 to 40"]),
        (["--height", "-3"], ["--height -3", "1 to 40"]),
        (["--height", "41"], ["40 points", "--height 41"]),
        (["--coils", "9"], ["compressed"]),
        (["--maps", "absent.npy"], ["no file absent.npy"]),
        (["-n", "0"], ["--samples is 0"]),
        (["--held-out", "0.5"], ["--held-out is 0.5", "at most 0.25"]),
        (["--inflate", "--held-out", "0"], ["--held-out above 0"]),
        (["--mask", "RandomLine"], ["RandomLine"]),
        (["--mask", "EquispacedLines", "--mask.calibration", "2"], ["too small", "maps"]),
        (["--method", "Proximal", "--method.spread", "-1"], ["spread"]),
    ],
)
def test_mistakes_are_named(more, words, folder, tmp_path, capsys):
    refuse(capsys, job(folder, tmp_path / "out.h5", *more), *words)
    assert not (tmp_path / "out.h5").exists()


def test_maps_of_another_scan_and_files_of_another_kind_are_named(folder, scans, tmp_path, capsys):
    np.save(tmp_path / "few.npy", scans[0].maps[:3])
    np.save(tmp_path / "real.npy", np.abs(scans[0].maps))
    np.save(tmp_path / "three.npy", np.repeat(scans[0].maps[None], 3, axis=0))
    with h5py.File(tmp_path / "four.h5", "w") as file:
        file["kspace"] = np.repeat(scans[0].kspace[None], 4, axis=0)
    maps = ["--maps", str(tmp_path / "three.npy")]
    refuse(capsys, job(folder, tmp_path / "o.h5", *maps, kspace=str(tmp_path / "four.h5")), "3 slices", "slice 3")
    refuse(capsys, job(folder, tmp_path / "o.h5", "--maps", str(tmp_path / "few.npy")), "(3, 40, 37)", "(4, 40, 37)")
    refuse(capsys, job(folder, tmp_path / "o.h5", "--maps", str(tmp_path / "real.npy")), "complex")
    np.save(tmp_path / "none.npy", 0 * scans[0].maps)
    refuse(capsys, job(folder, tmp_path / "o.h5", "--maps", str(tmp_path / "none.npy")), "nothing but zeros")
    refuse(capsys, job(folder, tmp_path / "o.txt"), ".h5")
    (tmp_path / "mine.h5").write_text("not ours")
    refuse(capsys, job(folder, tmp_path / "mine.h5"), "another --out")
    one = tmp_path / "single.npy"
    np.save(one, scans[0].kspace[:1])
    refuse(capsys, job(folder, tmp_path / "o.h5", "--maps", str(folder / "maps.npy"), kspace=str(one)), "(1, 40, 37)")


# --------------------------------------------------------------------------------------------------------------- scans
def test_members_that_do_not_fit_k_space_are_spoken_of(folder, scans, tmp_path, capsys):
    """Maps of the right sizes, in another order of coils; noise that is given as four times too strong."""
    more = ["--maps", str(folder / "maps.npy"), "--noise", str(4 * scans[0].noise), "--slices", "0"]
    assert main(job(folder, tmp_path / "loud.h5", *more)) == 0
    said = capsys.readouterr().err
    assert "better than their noise allows" in said and "--noise" in said and "zeros" in said
    np.save(tmp_path / "rolled.npy", np.roll(scans[0].maps, 2, axis=0))
    for maps, said in ((folder / "maps.npy", False), (tmp_path / "rolled.npy", True)):
        more = ["--maps", str(maps), "--noise", str(scans[0].noise), "--slices", "0"]
        assert main(job(folder, tmp_path / f"{maps.stem}.h5", *more)) == 0
        assert ("the members do not fit k-space" in capsys.readouterr().err) == said
        assert (read(tmp_path / f"{maps.stem}.h5")["chi_square"].mean() > 3) == said


def test_a_misfit_names_what_may_be_wrong():
    """The method, where linear least squares reach the data and it does not; else maps and noise; nothing where all is well."""
    assert "--method" in misfit(50.0, 1.2) and "maps" not in misfit(50.0, 1.2)
    assert "maps" in misfit(50.0, 40.0) and "--method" not in misfit(50.0, 40.0)
    assert "--noise" in misfit(0.3, 0.2) and not misfit(1.0, 0.9) and not misfit(0.6, 0.3)
    assert not misfit(0.4, 0.2, 0.5) and "--noise" in misfit(0.2, 0.1, 0.5) and "--noise" in misfit(0.5, 0.2, 9.0)


def test_maps_of_any_units_are_normalised(scans):
    """Three times the maps are the same maps; where no coil sees anything they stay 0."""
    maps = scans[0].maps.copy()
    maps[:, :, :3] = 0
    found = normalised(3 * maps)
    np.testing.assert_allclose(found, maps, atol=1e-5)
    with pytest.raises(InputError, match="NaN"):
        normalised(np.where(maps == 0, np.nan, maps))


def scan_of(simulation: Simulation, mask: np.ndarray) -> Scan:
    return Scan(as_tensor(simulation.kspace), torch.from_numpy(mask), as_tensor(simulation.maps), simulation.noise)


def test_chi_square_is_one_for_the_truth_and_the_scale_finds_the_image(scans):
    scan = scan_of(scans[0], RandomLines(2.0, 9)(GRID))
    truth = torch.from_numpy(scans[0].image)[None]
    assert scan.chi_square(truth).item() == pytest.approx(1, abs=0.05)  # 5900 real numbers: ± 0.02
    assert scan.chi_square(0.9 * truth).item() > 2
    assert scan.scale == pytest.approx(float(np.percentile(image()[image() > 50], 99)), rel=0.1)


def test_a_member_depends_on_its_number_alone(folder, scans):
    from scorefield.mri.posterior import OWN_METHOD, Posterior
    from scorefield.samplers import DPMSolverPP2M, Sampler

    model, scan = scorefield.load(folder / "run"), scan_of(scans[0], RandomLines(2.0, 9)(GRID))
    sampler = Sampler(3, DPMSolverPP2M(1.0))
    pairs = Posterior(model, OWN_METHOD, sampler, chunk=2)
    many = pairs.draw(scan, 5)
    assert torch.equal(many[:3], pairs.draw(scan, 3))
    alone = Posterior(model, OWN_METHOD, sampler, chunk=1).draw(scan, 1)
    torch.testing.assert_close(alone, many[:1], rtol=1e-3, atol=0.1)


def test_what_no_coil_sees_is_zero(folder, scans):
    from scorefield.mri.posterior import OWN_METHOD, Posterior
    from scorefield.samplers import DPMSolverPP2M, Sampler

    maps = scans[0].maps.copy()
    maps[:, :, :5] = 0
    scan = Scan(as_tensor(scans[0].kspace), torch.ones(GRID, dtype=torch.bool), as_tensor(maps), scans[0].noise)
    model = scorefield.load(folder / "run")
    member = Posterior(model, OWN_METHOD, Sampler(2, DPMSolverPP2M(1.0)), chunk=1).draw(scan, 1)
    assert not member[..., :5].any() and bool((member[..., 5:] != 0).all())


def source_of(scans, **more) -> KSpace:
    return KSpace("scan", (1, *scans[0].kspace.shape), lambda _: scans[0].kspace, **more)


def test_what_is_masked_already_is_said_and_compared_with_nothing(scans):
    lines = RandomLines(2.0, 12, seed=1)(GRID)
    again = Scans(source_of(scans, mask=lines), RandomLines(2.0, 12), scans[0].maps, noise=1.0)
    found, reference, notes = again.scan(0)
    share = float(found.mask.float().mean())
    assert reference is None and any(f"R = {1 / share:.1f}" in note and "already" in note for note in notes)
    _, reference, notes = Scans(source_of(scans), maps=scans[0].maps, noise=1.0).scan(0)
    assert reference is None and "--acceleration" in notes[0]
    nearly = np.ones(GRID, bool)
    nearly[:, :1] = False  # 97 %, as files of a scanner that fill up with zeros
    assert Scans(source_of(scans, mask=nearly), RandomLines(2.0, 12), scans[0].maps, noise=1.0).scan(0)[1] is not None
    assert Scans(source_of(scans, mask=nearly), maps=scans[0].maps, noise=1.0).scan(0)[1] is None


def test_the_reference_does_not_depend_on_what_is_used(scans):
    """Its maps are of all the data."""
    found = [Scans(source_of(scans), RandomLines(2.0, n), noise=scans[0].noise).scan(0)[1] for n in (8, 14)]
    torch.testing.assert_close(found[0], found[1])


def test_oversampling_is_removed_as_the_file_says(scans):
    whole = source_of(scans, size=(30, 37))
    found, _, notes = Scans(whole, RandomLines(2.0, 12), noise=scans[0].noise).scan(0)
    assert found.mask.shape == (30, 37) and any("middle 30" in note and "--height 40" in note for note in notes)
    for more in ({"height": 40}, {"maps": scans[0].maps}):
        found, _, notes = Scans(whole, RandomLines(2.0, 12), noise=scans[0].noise, **more).scan(0)
        assert found.mask.shape == GRID and not any("middle" in note for note in notes)


def test_a_mask_of_whole_lines_holds_without_oversampling(scans, tmp_path):
    """Of the file's own size; of single points it cannot be cut."""
    whole, lines = source_of(scans, size=(30, 37)), RandomLines(2.0, 12)(GRID)
    np.save(tmp_path / "m.npy", lines)
    found, _, _ = Scans(whole, MaskFile(tmp_path / "m.npy"), noise=scans[0].noise).scan(0)
    np.testing.assert_array_equal(found.mask, lines[:30])
    lines[3, 4] = ~lines[3, 4]
    np.save(tmp_path / "m.npy", lines)
    with pytest.raises(InputError, match="whole lines"):
        Scans(whole, MaskFile(tmp_path / "m.npy"), noise=scans[0].noise).scan(0)


def test_a_single_coil_needs_no_calibration(scans):
    """Its map is 1: lines that leave the centre out are as good as others."""
    kspace = centred(scans[0].image)[None].astype(np.complex64)
    kspace[..., GRID[1] // 2 + 1 :: 2] = 0
    scan, _, _ = Scans(KSpace("scan", (1, *kspace.shape), lambda _: kspace), RandomLines(2.0, 0), noise=1.0).scan(0)
    assert bool((scan.maps == 1).all())


def test_coverage_is_judged_from_eight_members_on():
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(8, 16, 16, dtype=torch.complex64, generator=generator) + 4
    found = {name: members.mean(0).numpy() for name in ("zero_filled", "CG_SENSE", "L1_wavelet", "mean", "reference")}
    found["magnitude"] = np.abs(found["mean"])
    for count in (2, 7, 8):
        assert ("coverage" in figures(found | {"members": members[:count].numpy()})) == (count == 8)


def test_quantiles_are_given_from_nineteen_members_on():
    members = torch.randn(19, 4, 5, dtype=torch.complex64)
    found = summary(members)
    torch.testing.assert_close(found["quantiles"][1], members.abs().median(0).values)
    assert "quantiles" not in summary(members[:18]) and "interval" not in summary(members[:1])


def test_scans_that_do_not_fit_are_refused(scans):
    mask = np.ones(GRID, bool)
    with pytest.raises(InputError, match="belong together"):
        Scan(as_tensor(scans[0].kspace), torch.from_numpy(mask), as_tensor(scans[0].maps[:2]), 1.0)


# --------------------------------------------------------------------------------------------------------------- volumes
def test_volumes_are_denoised_where_they_lie(folder, tmp_path, capsys):
    """Magnitude and phase in, the same out, in the file's units and at its place; a prior of complex images needs both."""
    rng, turned = np.random.default_rng(0), np.diag([-2.0, 1.0, 3.0, 1.0])
    whole = image()[..., None] * np.exp(1j * np.array([0.0, 0.5, 1.0])) * [1, 0, 2]
    whole = whole + 10 * (rng.standard_normal(whole.shape) + 1j * rng.standard_normal(whole.shape)) * [1, 0, 1]
    for name, values in (("mag.nii.gz", np.abs(whole)), ("phase.nii", np.angle(whole))):
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), turned), tmp_path / name)
    command = ["denoise", str(folder / "run"), str(tmp_path / "mag.nii.gz"), "--noise", "10", "--out"]
    assert main([*command, str(tmp_path / "out"), "--phases", str(tmp_path / "phase.nii")]) == 0
    capsys.readouterr()
    found = [nibabel.load(tmp_path / "out" / name) for name in ("mag.nii.gz", "mag-phase.nii.gz")]
    canonical = nibabel.as_closest_canonical(nibabel.load(tmp_path / "mag.nii.gz"))
    np.testing.assert_array_equal(found[0].affine, canonical.affine)
    x = found[0].get_fdata() * np.exp(1j * found[1].get_fdata())
    assert x.shape == whole.shape and not x[..., 1].any()
    y = whole[::-1]  # its first axis goes left
    assert np.linalg.norm(x - y) < 0.2 * np.linalg.norm(y)
    record = json.loads((tmp_path / "out" / "denoising.json").read_text())["files"]["mag"]
    assert record["noise"] == pytest.approx([10.0, 10.0])
    refuse(capsys, [*command, str(tmp_path / "other")], "magnitude alone", "--phases")
    assert main([*command, str(tmp_path / "out"), "--phases", str(tmp_path / "phase.nii")]) == 0  # it is there


def test_members_end_no_lower_than_the_runs_own_samples(folder):
    """A prior that was learnt from noisy images knows nothing of what has less noise."""
    from scorefield.mri.posterior import own_sampler
    from scorefield.samplers import EDMGrid

    model = scorefield.load(folder / "run")
    for least, expected in ((None, 0.005), (0.002, 0.005), (0.1, 0.1)):
        model.sampler = replace(model.sampler, grid=EDMGrid(ratio_min=least), steps=5)
        for centre in (0, 24):
            schedule, sampler = model.sde.schedule, own_sampler(model, centre)
            last = sampler.grid(schedule, sampler.steps)[-1:]
            assert float(schedule.sigma(last) / schedule.alpha(last)) == pytest.approx(expected, rel=1e-6)
    flat, model.shape = own_sampler(model, 24), (2, 4, 40, 40)
    assert (flat.steps, own_sampler(model, 24).steps, own_sampler(model, 0).steps) == (4, 8, 8)  # of volumes and films


def test_slices_are_reconstructed_as_one_volume(folder, tmp_path, capsys):
    """Across the slices alone it is what slices one by one are, but for one scale; across several axes another image."""
    few = ["--acceleration", "2", "--calibration", "11", "-n", "4", "--centre", "4"]
    found = {}
    for name, more in (("one", []), ("stack", ["--volume", "--axes", "0"]), ("all", ["--volume"])):
        assert main(job(folder, tmp_path / f"{name}.h5", *few, *more)) == 0
        found[name] = read(tmp_path / f"{name}.h5")
    assert found["all"]["members"].shape == found["one"]["members"].shape == (2, 4, *GRID)
    assert np.isfinite(found["all"]["mean"]).all() and np.isfinite(found["all"]["held_out"][:, 4]).all()
    names = ("CG_SENSE", "mask", "held_out_mask", "reference", "maps")
    for name in names:
        np.testing.assert_array_equal(found["all"][name], found["one"][name])
    means = {name: x["mean"] for name, x in found.items()}
    assert (means["one"] != means["stack"]).any() and (means["all"] != means["stack"]).any()
    (tmp_path / "all.h5").unlink()
    capsys.readouterr()
    refuse(capsys, job(folder, tmp_path / "all.h5", *few, "--volume", "--axes", "0,0"), "each once")
    refuse(capsys, job(folder, tmp_path / "all.h5", *few, "--axes", "0"), "add --volume")
    refuse(capsys, job(folder, tmp_path / "all.h5", *few, "--volume", "--slices", "1,0"), "follow one another")
    assert not (tmp_path / "all.h5").exists()
