"""Radial and spiral k-space from files to images: units, axes, noise, coil maps, parts of the readouts, the command line."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.mri.files import open_kspace
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.off_grid import by_angle
from scorefield.mri.scan import Baselines
from scorefield.mri.scan_loading import Scans, sampling_of
from scorefield.mri.simulated import simulate
from scorefield.mri.sources import Combined
from scorefield.mri.trajectory import in_cycles
from scorefield.operators import NonUniformFourier

pytestmark = pytest.mark.usefixtures("unchecked")
for module in ("h5py", "sigpy"):
    pytest.importorskip(module)
N, COILS, SPOKES, SAMPLES = 48, 4, 76, 96
FIXED = Baselines(0.0, 8, 5e-4)


def spokes(count: int = SPOKES, samples: int = SAMPLES, n: int = N) -> np.ndarray:
    """(samples, spokes, 2) in cycles per field of view, a golden angle apart, two samples in each of these."""
    angle = np.arange(count) * math.pi * (math.sqrt(5) - 1) / 2
    return ((np.arange(samples) - samples // 2) * (n / samples))[:, None, None] * np.stack(
        (np.sin(angle), np.cos(angle)), -1
    )


def spiral(count: int = 12, samples: int = 500, n: int = N) -> np.ndarray:
    along = np.linspace(0, 1, samples)[:, None]
    angle = 2 * math.pi * (along * n / 2 / count + np.arange(count) / count)
    return (along * n / 2)[..., None] * np.stack((np.sin(angle), np.cos(angle)), -1)


@pytest.fixture(scope="module")
def phantom():
    y, x = np.meshgrid(*[np.linspace(-1, 1, N)] * 2, indexing="ij")
    image = np.where(x**2 + (y / 0.9) ** 2 < 0.7, 1 + 0.4 * np.sin(5 * x), 0) + 0.8 * ((x - 0.2) ** 2 + y**2 < 0.03)
    return simulate(image, coils=COILS, phase=0.5)


def measured(scan, places: np.ndarray, noise: float = 0.01, mixing: np.ndarray | None = None) -> np.ndarray:
    """(coils, samples, readouts)."""
    fourier = NonUniformFourier(torch.from_numpy(places.reshape(-1, 2)), (N, N))
    coils = torch.from_numpy(scan.maps * scan.image)[None]
    y = fourier(coils)[0].numpy().reshape(COILS, *places.shape[:2])
    white = np.random.default_rng(0).standard_normal((2, *y.shape))
    white = white[0] + 1j * white[1]
    return (y + noise * (white if mixing is None else np.tensordot(mixing, white, 1))).astype(np.complex64)


def stored(folder: Path, kspace: np.ndarray, places: np.ndarray, **more: object) -> Path:
    path = folder / "radial.npz"
    np.savez(path, kspace=kspace, trajectory=places, **more)
    return path


def quality(image: torch.Tensor, scan) -> float:
    truth = torch.from_numpy(np.abs(scan.image))
    return masked_psnr(image.abs(), truth, object_mask(truth))


# -------------------------------------------------------------------------------------------------------- from files
@pytest.mark.parametrize("factor", [1.0, 1 / N, 2 * math.pi / N], ids=["cycles", "per pixel", "radians"])
def test_the_unit_follows_from_the_reach(factor):
    found = in_cycles(spokes() * factor, (N, N), "x")
    np.testing.assert_allclose(found.places, spokes(), atol=1e-12)
    alone = in_cycles(spokes() * factor, None, "x")  # of a field of view as large as the samples' distance tells
    assert alone.matrix == ((N, N) if factor == 1 else (2 * N, 2 * N))
    np.testing.assert_allclose(alone.on(N).places, spokes(), atol=1e-9)
    with pytest.raises(InputError, match="reaches"):
        in_cycles(spokes() * 100, (N, N), "x")


def arrangements(kspace: np.ndarray, places: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The same samples as different packages have them."""
    turned, k = kspace.swapaxes(1, 2), places.swapaxes(0, 1)
    return {
        "readouts first": (turned, k),
        "readouts last": (kspace, places),
        "slices": (kspace[None], places),
        "axes first": (turned, np.moveaxis(np.concatenate((k, 0 * k[..., :1]), -1), -1, 0)),
        "complex": (turned, k[..., 0] + 1j * k[..., 1]),
        "coils last": (kspace.transpose(1, 2, 0), places),
        "turned": (kspace, k),
    }


@pytest.mark.parametrize("name", list(arrangements(np.zeros((2, 4, 3)), np.zeros((4, 3, 2)))))
def test_axes_are_found(name, tmp_path):
    places = spokes()
    kspace = (np.arange(COILS * SPOKES * SAMPLES).reshape(COILS, SAMPLES, SPOKES) + 1j).astype(np.complex64)
    given, k = arrangements(kspace, places)[name]
    found = open_kspace(stored(tmp_path, given, k))
    assert found.shape == (1, COILS, SAMPLES, SPOKES)
    np.testing.assert_array_equal(found.read(0), kspace)
    np.testing.assert_allclose(found.trajectory.places, places)


def test_a_list_of_samples_and_a_file_of_places_beside(tmp_path):
    kspace, places = np.ones((COILS, 200), np.complex64), spokes().reshape(-1, 2)[::36][:200]
    np.save(tmp_path / "k.npy", kspace)
    np.save(tmp_path / "places.npy", places)
    assert open_kspace(tmp_path / "k.npy", tmp_path / "places.npy").shape == (1, COILS, 1, 200)


def test_the_files_of_bart(tmp_path):
    """k-space (1, samples, spokes, coils) and places (3, samples, spokes), the first axis fastest."""
    kspace = np.arange(COILS * SAMPLES * SPOKES).reshape(COILS, SAMPLES, SPOKES).astype(np.complex64)
    places = spokes()
    third = np.concatenate((places, 0 * places[..., :1]), -1)
    for name, array in (("k", kspace.transpose(1, 2, 0)[None]), ("places", np.moveaxis(third, -1, 0))):
        (tmp_path / f"{name}.hdr").write_text("# Dimensions\n" + " ".join(map(str, array.shape)) + "\n")
        array.astype("<c8").flatten(order="F").tofile(tmp_path / f"{name}.cfl")
    found = open_kspace(tmp_path / "k.cfl", tmp_path / "places.cfl")
    np.testing.assert_array_equal(found.read(0), kspace)
    np.testing.assert_allclose(found.trajectory.places, places, atol=1e-5)


@pytest.mark.parametrize(
    ("kspace", "places", "words"),
    [
        (np.ones((2, 90, 76), np.complex64), spokes(), "give that of this scan"),
        (np.ones((2, SAMPLES, SPOKES), np.float32), spokes(), "complex"),
        (np.ones((2, SAMPLES, SPOKES), np.complex64), np.full((SAMPLES, SPOKES, 2), np.nan), "NaN"),
        (
            np.ones((2, SAMPLES, SPOKES), np.complex64),
            np.concatenate((spokes(), spokes()[..., :1]), -1),
            "three dimensions",
        ),
    ],
)
def test_what_does_not_fit_is_named(kspace, places, words, tmp_path):
    with pytest.raises(InputError, match=words):
        open_kspace(stored(tmp_path, kspace, places))


def test_ismrmrd_holds_trajectories(phantom, tmp_path):
    """Two averages of half of the spokes each, a noise scan of other bandwidth, twice the field of view as encoded."""
    ismrmrd = pytest.importorskip("ismrmrd")
    places, path = spokes(), tmp_path / "radial.h5"
    kspace = measured(phantom, places)
    file = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    size = "<matrixSize><x>{0}</x><y>{0}</y><z>1</z></matrixSize><fieldOfView_mm><x>{1}</x><y>{1}</y><z>5</z></fieldOfView_mm>"
    file.write_xml_header(
        (
            '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>1'
            f"</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>{size.format(2 * N, 400)}</encodedSpace>"
            f"<reconSpace>{size.format(N, 200)}</reconSpace><encodingLimits/><trajectory>radial</trajectory></encoding>"
            "</ismrmrdHeader>"
        ).encode()
    )
    noise = ismrmrd.Acquisition.from_array(np.random.default_rng(1).standard_normal((COILS, 4000)).astype(np.complex64))
    noise.setFlag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    noise.sample_time_us = 2.0
    file.append_acquisition(noise)
    for number in range(SPOKES):
        acquisition = ismrmrd.Acquisition.from_array(kspace[:, :, number], (places[:, number] / N).astype(np.float32))
        acquisition.idx.kspace_encode_step_1, acquisition.idx.average = number // 2, number % 2
        acquisition.sample_time_us = 8.0
        file.append_acquisition(acquisition)
    file.close()
    found = open_kspace(path)
    assert found.shape == (1, COILS, SAMPLES, SPOKES) and found.trajectory.matrix == (N, N)
    np.testing.assert_allclose(found.trajectory.places, places, atol=1e-5)
    np.testing.assert_array_equal(found.read(0), kspace)
    assert np.abs(found.noise_scan).max() == pytest.approx(np.abs(noise.data).max() / 2)


@pytest.mark.parametrize("kind", ["npz", "h5", "mat", "apart"])
def test_a_matrix_in_the_file_is_that_of_the_image(kind, tmp_path):
    """Of a field of view that is not square only it can tell; with the trajectory in another file, too."""
    import h5py
    from scipy.io import savemat

    places, size = spokes() / N, (N, N // 2)
    kspace = np.ones((COILS, SAMPLES, SPOKES), np.complex64)
    arrays = {"kspace": kspace, "trajectory": places, "matrix": np.array(size)}
    path, beside = tmp_path / f"radial.{'npz' if kind == 'apart' else kind}", None
    if kind == "h5":
        with h5py.File(path, "w") as file:
            file.update(arrays)
    elif kind == "mat":
        savemat(path, arrays)
    elif kind == "npz":
        np.savez(path, **arrays)
    else:
        beside = tmp_path / "places.npy"
        np.save(beside, arrays.pop("trajectory"))
        np.savez(path, **arrays)
    assert open_kspace(path, beside).trajectory.matrix == size
    if kind == "npz":
        np.savez(path, **(arrays | {"matrix": np.array([N, 1.5])}))
        with pytest.raises(InputError, match="height and width in pixels"):
            open_kspace(path)


# --------------------------------------------------------------------------------------------------------- to images
@pytest.mark.parametrize("places", [spokes(), spiral()], ids=["radial", "spiral"])
def test_images_noise_and_maps_are_right(places, phantom, tmp_path):
    """Of coils of unequal and correlated noise, whose covariance is found to a few percent, by maps of the middle of k-space."""
    mixing = np.diag([0.5, 1.0, 1.0, 2.0]) + 0.3
    kspace = measured(phantom, places, 0.01, mixing)
    scans = Scans(open_kspace(stored(tmp_path, kspace, places, matrix=(N, N))), baselines=FIXED)
    scan, reference, _ = scans.scan(0)
    right = 0.01 * np.linalg.det(mixing) ** (1 / COILS)
    assert reference is None and scan.noise * scan.unit == pytest.approx(right, rel=0.05)
    images = scan.baseline_images()
    assert quality(images["zero-filled"], phantom) > 20 and quality(images["CG-SENSE"], phantom) > 28
    assert float(scan.chi_square(images["CG-SENSE"][None])) == pytest.approx(1, abs=0.1)
    plain = Scans(scans.kspace, noise=right, baselines=FIXED).scan(0)[0]
    white = scan.baseline_images()["CG-SENSE"]
    assert quality(white, phantom) > quality(plain.baseline_images()["CG-SENSE"], phantom)


def test_a_part_of_the_readouts_is_compared_with_all(phantom, tmp_path):
    places = spokes()
    kspace = open_kspace(stored(tmp_path, measured(phantom, places), places))
    scan, reference, _ = Scans(kspace, sampling_of(None, 4.0, None), baselines=FIXED).scan(0)
    used = np.asarray(scan.mask.any(0))
    assert used.sum() == SPOKES // 4 and bool((scan.mask == scan.mask.any(0)).all())
    angles = np.sort(np.mod(np.arange(SPOKES)[used] * math.pi * (math.sqrt(5) - 1) / 2, math.pi))
    assert np.diff(angles, append=angles[0] + math.pi).max() < 2 * math.pi / used.sum()  # evenly about the circle
    assert quality(reference, phantom) > quality(scan.baseline_images()["CG-SENSE"], phantom) > 20


def test_readouts_are_ordered_by_angle():
    """Spokes through the centre are the same both ways; interleaves of a spiral end at angles of their own."""
    for places, turn in ((spokes(), math.pi), (spiral()[:, np.random.default_rng(0).permutation(12)], 2 * math.pi)):
        last = places[-1, by_angle(places)]
        steps = np.mod(np.diff(np.arctan2(last[:, 1], last[:, 0])), turn)
        assert steps.max() < 2 * turn / places.shape[1] and steps.sum() < turn


def test_a_field_of_view_that_is_none_is_refused(phantom, tmp_path):
    kspace = open_kspace(stored(tmp_path, measured(phantom, spokes()), spokes()))
    for height in (0, 1000):
        with pytest.raises(InputError, match="16 to 192"):
            Scans(kspace, height=height)


def test_training_sources_say_what_the_file_is(phantom, tmp_path):
    path = stored(tmp_path, measured(phantom, spokes()), spokes())
    with pytest.raises(InputError, match="76 readouts of 96 samples off the grid, image 48×48"):
        Combined(path).load("train")
