"""k-space in every format: the same scan comes back the same, and what is no k-space is named. Noise, coils, oversampling."""

from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.bart import read_cfl, write_cfl
from scorefield.mri.coils import compression, mix_coils
from scorefield.mri.files import open_kspace, read_maps
from scorefield.mri.kspace import remove_oversampling
from scorefield.mri.masks import RandomLines
from scorefield.mri.noise import covariance_of, whitening

h5py = pytest.importorskip("h5py")
SHAPE = (3, 4, 20, 17)  # slices, coils, height, width; odd, too


@pytest.fixture(scope="module")
def scan() -> np.ndarray:
    rng = np.random.default_rng(0)
    image = rng.normal(size=SHAPE) + 1j * rng.normal(size=SHAPE) + 5
    return centred(image).astype(np.complex64)


def fastmri(path: Path, kspace: np.ndarray, **more: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["kspace"] = kspace
        for name, values in more.items():
            file[name] = values
    return path


COUNTERS = (
    "kspace_encode_step_1",
    "kspace_encode_step_2",
    "average",
    "slice",
    "contrast",
    "phase",
    "repetition",
    "set",
)


def ismrmrd(
    path: Path, kspace: np.ndarray, *, noise: np.ndarray | None = None, averages: int = 1, counter: str = "average"
) -> Path:
    """A file as the ISMRMRD library lays it out: heads and samples of each line, shuffled, every other one backwards; samples of
    the noise scan take twice as long as those of lines."""
    slices, coils, height, width = kspace.shape
    index = np.dtype([(name, "<u2") for name in (*COUNTERS, "segment")])
    counts = ("number_of_samples", "active_channels", "center_sample", "trajectory_dimensions")
    head = np.dtype([("flags", "<u8"), *((name, "<u2") for name in counts), ("sample_time_us", "<f4"), ("idx", index)])
    record = np.dtype([("head", head), ("traj", h5py.vlen_dtype("<f4")), ("data", h5py.vlen_dtype("<f4"))])
    rows = []
    for number in range(slices):
        for line in range(width):
            for repeat in range(averages):
                back = (line + number) % 2
                samples = kspace[number, :, :, line][:, :: -1 if back else 1].astype(np.complex64)
                place = {"kspace_encode_step_1": line, "slice": number, counter: repeat}
                counters = tuple(place.get(name, 0) for name in (*COUNTERS, "segment"))
                rows.append(((back << 21, height, coils, height // 2, 0, 5.0, counters), samples))
    np.random.default_rng(1).shuffle(rows)
    if noise is not None:
        rows.insert(0, ((1 << 18, noise.shape[1], coils, 0, 0, 10.0, (0,) * 9), noise.astype(np.complex64)))
    with h5py.File(path, "w") as file:
        data = file.create_dataset("dataset/data", (len(rows),), dtype=record)
        table = np.empty(len(rows), record)
        for i, (facts, samples) in enumerate(rows):
            table[i]["head"] = facts
            table[i]["traj"] = np.zeros(0, np.float32)
            table[i]["data"] = np.ascontiguousarray(samples).view(np.float32).ravel()
        data[:] = table
        space = f"<matrixSize><x>{height}</x><y>{width}</y><z>1</z></matrixSize>"
        limits = f"<kspace_encoding_step_1><center>{width // 2}</center></kspace_encoding_step_1>"
        file["dataset/xml"] = (
            '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
            f"<encodedSpace>{space}</encodedSpace><reconSpace>{space}</reconSpace>"
            f"<encodingLimits>{limits}</encodingLimits><trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
        )
    return path


def test_names_of_bart_may_hold_points(scan, tmp_path):
    """scan.v1.cfl is neither scan.cfl nor lacks its header."""
    for name, factor in (("scan", 2.0), ("scan.v1", 1.0)):
        write_cfl(tmp_path / name, factor * scan)
    np.testing.assert_array_equal(open_kspace(tmp_path / "scan.v1.cfl").slice(1)[0], scan[1])


@pytest.mark.parametrize("kind", ["fastmri", "npy", "cfl", "ismrmrd", "averages"])
def test_every_format_gives_back_the_scan(kind, scan, tmp_path):
    if kind == "fastmri":
        path = fastmri(tmp_path / "s.h5", scan, reconstruction_rss=np.zeros((3, 16, 16), np.float32))
    elif kind == "npy":
        np.save(path := tmp_path / "s.npy", scan)
    elif kind == "cfl":
        write_cfl(tmp_path / "s", scan)
        path = tmp_path / "s.cfl"
    else:
        path = ismrmrd(tmp_path / "s.h5", scan, averages=2 if kind == "averages" else 1)
    found = open_kspace(path)
    assert len(found) == 3 and found.shape == SHAPE
    for number in range(3):
        kspace, mask = found.slice(number)
        np.testing.assert_allclose(kspace, scan[number], rtol=1e-6)
        assert kspace.dtype == np.complex64 and mask.all() and mask.shape == SHAPE[2:]
    assert found.size == ((16, 16) if kind == "fastmri" else (20, 17) if kind in ("ismrmrd", "averages") else None)


def volume_cfl(base: Path, kspace: np.ndarray) -> Path:
    """(partitions, coils, height, width) as a 3-D scan of BART: partitions on axis 2."""
    write_cfl(base, kspace)
    partitions, coils, height, width = kspace.shape
    base.with_suffix(".hdr").write_text(f"# Dimensions\n{height} {width} {partitions} {coils}\n")
    np.moveaxis(kspace, (2, 3, 0, 1), (0, 1, 2, 3)).flatten(order="F").astype("<c8").tofile(base.with_suffix(".cfl"))
    return base.with_suffix(".cfl")


def test_partitions_of_a_3d_scan_of_bart_become_slices(scan, tmp_path):
    many = np.concatenate([scan * factor for factor in (1, 2, 3, 4)])  # 12 slices
    mask = RandomLines(2.0, 5)((20, 17))
    found = open_kspace(volume_cfl(tmp_path / "whole", centred(many * mask, axes=(0,))))
    assert found.shape == (12, 4, 20, 17) and "3-D" in found.note and "axis 13" in found.note
    for number in (0, 7):
        kspace, sampled = found.slice(number)
        np.testing.assert_allclose(kspace, many[number] * mask, atol=1e-5 * np.abs(many).max())
        assert np.array_equal(sampled, mask)
    padded = centred(many, axes=(0,))
    padded[:2], padded[10:] = 0, 0  # as interpolating scanners leave it
    assert open_kspace(volume_cfl(tmp_path / "padded", padded)).slice(0)[1].all()
    holes = centred(many, axes=(0,))
    holes[1::2, ..., ::3] = 0
    for values in (holes, padded * (np.arange(12) > 3)[:, None, None, None]):
        with pytest.raises(InputError, match=r"undersampled along phase encoding 2.*readout"):
            open_kspace(volume_cfl(tmp_path / "holes", values))
    for values in (many, np.concatenate([scan] * 4)):  # slices there, as some tools leave them
        with pytest.raises(InputError, match="axis 13"):
            open_kspace(volume_cfl(tmp_path / "slices", values))


def test_single_coils_and_single_slices(scan, tmp_path):
    single = open_kspace(fastmri(tmp_path / "one.h5", scan[:, 0]))
    assert single.shape == (3, 1, 20, 17) and "single-coil: 3 slices" in single.note and "(1, 3, 20, 17)" in single.note
    assert single.layout.endswith("slices 3, coils 1, height 20, width 17")
    np.save(tmp_path / "slice.npy", scan[0])
    assert open_kspace(tmp_path / "slice.npy").shape == (1, 4, 20, 17)
    write_cfl(tmp_path / "slice", scan[:1])
    assert read_cfl(tmp_path / "slice").shape == (1, 4, 20, 17)


def test_masks_are_the_files_or_where_something_was_measured(scan, tmp_path):
    lines = RandomLines(2.0, 5)((20, 17))
    path = fastmri(tmp_path / "m.h5", scan * lines)
    assert np.array_equal(open_kspace(path).slice(1)[1], lines)
    path = fastmri(tmp_path / "n.h5", scan, mask=lines[0])
    assert np.array_equal(open_kspace(path).slice(1)[1], lines)


def test_a_noise_scan_is_found(scan, tmp_path):
    noise = np.random.default_rng(2).normal(size=(4, 50)) * (1 + 1j)
    found = open_kspace(ismrmrd(tmp_path / "s.h5", scan, noise=noise))
    np.testing.assert_allclose(found.noise_scan, np.sqrt(2) * noise, rtol=1e-5)  # lines have twice its bandwidth
    np.testing.assert_allclose(found.slice(2)[0], scan[2], rtol=1e-6)


def test_the_noise_scan_is_that_of_averages(scan, tmp_path):
    """Of 4 averages k-space has half the noise of one, and so the noise scan has."""
    noise = np.random.default_rng(2).normal(size=(4, 50)) * (1 + 1j)
    found = open_kspace(ismrmrd(tmp_path / "s.h5", scan, noise=noise, averages=4))
    np.testing.assert_allclose(found.noise_scan, np.sqrt(2) * noise / 2, rtol=1e-5)


def test_bad_files_are_named(scan, tmp_path):
    whole = fastmri(tmp_path / "whole.h5", scan)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["image"] = np.zeros(3)
    np.save(tmp_path / "real.npy", np.abs(scan))
    np.save(tmp_path / "pairs.npy", np.stack([scan.real, scan.imag], -1))
    np.save(tmp_path / "last.npy", np.moveaxis(scan, 1, -1))
    np.save(tmp_path / "second.npy", np.moveaxis(scan, 1, 2))
    write_cfl(tmp_path / "short", scan)
    (tmp_path / "short.cfl").write_bytes((tmp_path / "short.cfl").read_bytes()[:-8])
    (tmp_path / "no.hdr").write_text("nothing")
    (tmp_path / "no.cfl").write_bytes(b"")
    (tmp_path / "text.txt").write_text("k")
    for name, words in {
        "cut.h5": "complete",
        "other.h5": "no kspace",
        "real.npy": "complex",
        "pairs.npy": "imaginary",
        "last.npy": "order",
        "second.npy": "order",
        "short.cfl": "complete",
        "no.cfl": "header",
        "text.txt": "known kind",
    }.items():
        with pytest.raises(InputError, match=words):
            open_kspace(tmp_path / name)
    for name in ("absent.h5", "absent.cfl"):
        with pytest.raises(AbsentDataError):
            open_kspace(tmp_path / name)
    with pytest.raises(InputError, match="another scan"):
        open_kspace(fastmri(tmp_path / "mask.h5", scan, mask=np.ones(9)))
    with pytest.raises(InputError, match="maps"):
        open_kspace(fastmri(tmp_path / "maps.h5", scan, maps=scan[:, :2]))
    magnitudes = fastmri(tmp_path / "real.h5", scan, maps=np.abs(scan))
    np.save(tmp_path / "magnitudes.npy", np.abs(scan[0]))
    for read, path in ((open_kspace, magnitudes), (read_maps, magnitudes), (read_maps, tmp_path / "magnitudes.npy")):
        with pytest.raises(InputError, match=r"maps in .* are float32 .*complex"):
            read(path)
    for path in (tmp_path / "absent.h5", tmp_path / "absent.npy"):
        with pytest.raises(AbsentDataError, match="no file"):
            read_maps(path)


def test_the_size_of_the_image_is_that_of_the_header_where_there_is_no_target(scan, tmp_path):
    space = "<matrixSize><x>{}</x><y>17</y><z>1</z></matrixSize>"
    spaces = f"<encodedSpace>{space.format(20)}</encodedSpace><reconSpace>{space.format(16)}</reconSpace>"
    text = f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>{spaces}</encoding></ismrmrdHeader>'
    assert open_kspace(fastmri(tmp_path / "header.h5", scan, ismrmrd_header=text)).size == (16, 17)
    for name, other in {"stub": "<x/>", "none": "", "no text": np.zeros(3)}.items():
        assert open_kspace(fastmri(tmp_path / f"{name}.h5", scan, ismrmrd_header=other)).size is None
    both = fastmri(
        tmp_path / "both.h5", scan, ismrmrd_header=text, reconstruction_rss=np.zeros((3, 18, 17), np.float32)
    )
    assert open_kspace(both).size == (18, 17)
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("kspace/real")
    with pytest.raises(InputError, match="group of real"):
        open_kspace(tmp_path / "group.h5")


def test_slices_that_cannot_be_used_are_named(scan, tmp_path):
    corner = np.fft.ifftshift(scan, (-2, -1))
    holes = scan.copy()
    holes[0, 0, 3, 3] = np.nan
    y, x = np.ogrid[-16:16, -24:24]  # brightest 6 points off the middle
    images = np.exp(0.1j * x - (x - 6) ** 2 / 50 - y**2 / 50).astype(np.complex64)[None, None]
    for name, values, words in (
        ("corner", corner, "fftshift"),
        ("nan", holes, "NaN"),
        ("zero", 0 * scan, "zeros"),
        ("magnitude", np.abs(scan).astype(np.complex64), "imaginary"),
        ("images", images, "is it images"),
    ):
        np.save(tmp_path / f"{name}.npy", values)
        with pytest.raises(InputError, match=words):
            open_kspace(tmp_path / f"{name}.npy").slice(0)
    rng = np.random.default_rng(3)
    noise = (rng.normal(size=(9, 1, 32, 24)) + 1j * rng.normal(size=(9, 1, 32, 24))).astype(np.complex64)
    np.save(tmp_path / "noise.npy", noise)
    for number in range(9):  # what lies beyond the head is measured, too
        open_kspace(tmp_path / "noise.npy").slice(number)
    with pytest.raises(InputError, match="wherever its mask"):
        open_kspace(fastmri(tmp_path / "no.h5", scan, mask=np.zeros(17))).slice(0)
    with pytest.raises(InputError, match="slices 0 to 2"):
        open_kspace(fastmri(tmp_path / "s.h5", scan)).slice(3)


# ----------------------------------------------------------------------------------------------------------- preparation
def coloured_noise(shape, seed=0):
    """Noise correlated between coils, and its covariance per real component."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(shape[0],) * 2) + 1j * rng.normal(size=(shape[0],) * 2)
    white = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    return np.einsum("ij,j...->i...", mixing, white), mixing @ mixing.conj().T


def test_whitened_noise_is_white_and_of_the_strength_that_is_given():
    """Of units of k-space: whitening keeps the volume, and does nothing to coils that are white already."""
    noise, covariance = coloured_noise((4, 120, 130))
    np.testing.assert_allclose(covariance_of(noise.reshape(4, -1)), covariance, rtol=0.05, atol=0.2)
    mixing, gain = whitening(covariance)
    white = mix_coils(mixing, noise).reshape(4, -1)
    np.testing.assert_allclose(covariance_of(white), gain**2 * np.eye(4), atol=0.03 * gain**2)  # ± 0.008
    assert np.linalg.det(mixing) == pytest.approx(1)
    mixing, gain = whitening(9 * np.eye(3))
    np.testing.assert_allclose(mixing, np.eye(3))
    assert gain == pytest.approx(3)


def test_images_that_a_file_has_been_given_with_are_read_where_they_are_of_its_slices(tmp_path):
    """Of several coils their root sum of squares, of a single coil what was made of that one."""
    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(3, 4, 20, 20)) + 1j).astype(np.complex64)
    rss, esc = rng.random((2, 3, 16, 16)).astype(np.float32)
    for values, wanted, name in ((kspace, rss, "reconstruction_rss"), (kspace[:, :1], esc, "reconstruction_esc")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"], file["reconstruction_rss"], file["reconstruction_esc"] = values, rss, esc
        found = open_kspace(tmp_path / f"{name}.h5")
        assert found.target_name == name and found.size == (16, 16)
        np.testing.assert_array_equal(found.target(1), wanted[1])
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"], file["reconstruction_rss"] = kspace, rss[:2]
    assert open_kspace(tmp_path / "k.h5").target is None


def test_compression_keeps_the_energy_of_correlated_coils():
    rng = np.random.default_rng(0)
    sources = rng.normal(size=(3, 32, 32)) + 1j * rng.normal(size=(3, 32, 32))
    kspace = np.einsum("ij,jhw->ihw", rng.normal(size=(8, 3)), sources).astype(np.complex64)
    strong = compression(kspace, 3)
    small = mix_coils(strong, kspace)
    assert small.shape == (3, 32, 32)
    np.testing.assert_allclose(strong @ strong.conj().T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(mix_coils(strong.conj().T, small), kspace, atol=1e-4 * np.abs(kspace).max())
    assert (np.abs(small) ** 2).sum() == pytest.approx((np.abs(kspace) ** 2).sum(), rel=1e-4)
    for coils in (0, 9):
        with pytest.raises(InputError):
            compression(kspace, coils)


def test_without_oversampling_the_image_is_the_middle_and_the_noise_as_strong():
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, 40, 21)) + 1j * rng.normal(size=(2, 40, 21))
    mask = RandomLines(2.0, 5)((40, 21))
    small, lines = remove_oversampling(centred(image), np.ones((40, 21), bool), 20)
    np.testing.assert_allclose(centred(small, inverse=True), image[:, 10:30], atol=1e-5)
    small, lines = remove_oversampling(centred(image) * mask, mask, 20)
    assert lines.shape == (20, 21) and np.array_equal(lines[0], mask[0])
    assert small[:, :, mask[0]].std() == pytest.approx(np.sqrt(2), rel=0.05) and not small[:, :, ~mask[0]].any()
    with pytest.raises(InputError, match="whole lines"):
        remove_oversampling(centred(image), rng.random((40, 21)) > 0.5, 20)


def test_noise_that_does_not_fit_is_named():
    with pytest.raises(InputError, match="coils"):
        mix_coils(np.eye(2), np.ones((3, 8, 8)))
    with pytest.raises(InputError, match="leave these coils out"):
        whitening(np.zeros((2, 2)))
