"""Siemens' raw data. No scanner's file is at hand: these are synthetic, of version VD, by the writer of twixtools."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.exporting import write_dicom, write_nifti
from scorefield.mri.files import open_kspace

twixtools = pytest.importorskip("twixtools")
COILS, HEIGHT, WIDTH = 3, 32, 24


def header(**protocol: object) -> np.ndarray:
    """The bytes before the readouts: one buffer, the protocol."""
    values = {"sKSpace.lBaseResolution": HEIGHT // 2, "sKSpace.ucTrajectory": "0x1", "sRXSPEC.alDwellTime[0]": 8000}
    values |= {name.replace("__", "."): value for name, value in protocol.items()}
    text = (
        "### ASCCONV BEGIN ###\n"
        + "".join(f"{name} = {value}\n" for name, value in values.items())
        + "### ASCCONV END ###\n"
    )
    buffer = b"MeasYaps\0" + struct.pack("<I", len(text)) + text.encode() + b"\0" * 48
    return np.frombuffer(struct.pack("<II", 8 + len(buffer), 1) + buffer, dtype="S1")


def block(
    samples: np.ndarray,
    *flags: str,
    place: float | np.ndarray = 0.0,
    turn: np.ndarray | None = None,
    centres: tuple[int, int] = (WIDTH // 2, 0),
    **counters: int,
):
    """A readout (coils, samples); `place` of its slice along the axis to the head or as a point, `turn` its directions of phase,
    readout and slice as columns."""
    found = twixtools.mdb.Mdb_local(np.ascontiguousarray(samples, np.complex64))
    for name, value in counters.items():
        setattr(found.mdh.Counter, name, value)
    found.mdh.CenterCol, (found.mdh.CenterLin, found.mdh.CenterPar) = samples.shape[1] // 2, centres
    position = found.mdh.SliceData.SlicePos
    position.Sag, position.Cor, position.Tra = place if isinstance(place, np.ndarray) else (0.0, 0.0, place)
    if turn is not None:
        found.mdh.SliceData.Quaternion[:] = Rotation.from_matrix(turn).as_quat()[[3, 0, 1, 2]]
    for flag in flags:
        found.add_flag(flag)
    return found


def written(path: Path, *scans: list, **protocol: object) -> Path:
    """A file of several measurements, readouts in any order."""
    twixtools.write_twix([{"hdr_str": header(**protocol), "mdb": blocks} for blocks in scans], str(path))
    return path


def kspace_of(slices: int = 2) -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.meshgrid(np.linspace(-2, 2, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    blobs = [np.where(x**2 + y**2 < 0.6, 1 + 0.3 * np.sin(6 * x + n), 0) for n in range(slices)]
    maps = [np.exp(-((x - a) ** 2) - (y - b) ** 2 + 1j * a * y) for a, b in rng.normal(size=(COILS, 2))]
    noise = rng.normal(size=(2, slices, COILS, HEIGHT, WIDTH))
    return (centred(np.stack(blobs)[:, None] * np.stack(maps)) + 0.01 * (noise[0] + 1j * noise[1])).astype(np.complex64)


def lines(kspace: np.ndarray, *flags: str, only=range(WIDTH), **more: object) -> list:
    return [block(kspace[n, :, :, y], *flags, Lin=y, Sli=n, **more) for n in range(len(kspace)) for y in only]


def holds(path: Path, expected: np.ndarray) -> None:
    found = open_kspace(path)
    assert found.shape == expected.shape
    for number, kspace in enumerate(expected):
        np.testing.assert_allclose(found.read(number), kspace, atol=1e-6 * np.abs(expected).max())


def test_lines_averages_and_reference_lines_are_put_in_their_places(tmp_path):
    """Each second line twice, those of the middle as references as well; phase correction and dummies stay out."""
    kspace = kspace_of()
    even, middle = range(0, WIDTH, 2), range(9, 15, 2)
    readouts = [b for ave in (0, 1) for b in lines(kspace, only=even, Ave=ave)]
    readouts += lines(kspace, "PATREFSCAN", only=middle)
    readouts += lines(100 + kspace, "PHASCOR", only=range(3)) + lines(100 + kspace, "RETRO_DUMMYSCAN", only=range(3))
    kept = np.zeros(WIDTH, bool)
    kept[list(even)] = kept[list(middle)] = True
    holds(written(tmp_path / "x.dat", readouts, sPat__ucRefScanMode="0x2"), kspace * kept)


def test_separate_references_are_of_the_maps_alone(tmp_path):
    kspace = kspace_of(1)
    readouts = lines(kspace) + lines(50 * kspace, "PATREFSCAN", only=range(9, 15))
    path = written(tmp_path / "x.dat", readouts, sPat__ucRefScanMode="0x4")
    holds(path, kspace)
    np.testing.assert_allclose(open_kspace(path).calibration(0)[..., 9:15], 50 * kspace[0, ..., 9:15], rtol=1e-5)


def test_noise_comes_from_an_earlier_measurement_and_oversampling_is_known(tmp_path):
    noise = np.random.default_rng(1).normal(size=(COILS, 64)) + 0j
    path = written(tmp_path / "x.dat", [block(noise, "NOISEADJSCAN")], lines(kspace_of(1)))
    found = open_kspace(path)
    np.testing.assert_allclose(found.noise_scan, noise, rtol=1e-5)
    assert found.height(np.ones((HEIGHT, WIDTH), bool)) == HEIGHT // 2


def test_partial_fourier_series_and_slices_by_position(tmp_path):
    """The first six lines were not measured, so that they are counted from the seventh; two echoes; slices out of order."""
    kspace, skip = kspace_of(), 6
    readouts = [
        block(
            (1 + echo) * kspace[n, :, :, y + skip],
            Lin=y,
            Sli=1 - n,
            Eco=echo,
            place=5.0 * n,
            centres=(WIDTH // 2 - skip, 0),
        )
        for echo in (0, 1)
        for n in (0, 1)
        for y in range(WIDTH - skip)
    ]
    holds(written(tmp_path / "x.dat", readouts), np.concatenate((kspace, 2 * kspace)) * (np.arange(WIDTH) >= skip))


def test_partitions_become_slices_across_the_readout(tmp_path):
    whole = np.random.default_rng(2).normal(size=(2, COILS, HEIGHT, 16, 18)).astype(np.float32)
    whole = whole[0] + 1j * whole[1]
    centres = {"centres": (8, 9)}
    readouts = [block(whole[:, :, y, z], Lin=y, Par=z, **centres) for y in range(16) for z in range(18)]
    found = open_kspace(written(tmp_path / "x.dat", readouts))
    assert found.shape == (HEIGHT // 2, COILS, 16, 18)
    right = centred(whole, (1,), inverse=True)[:, HEIGHT // 4 : HEIGHT // 4 * 3]
    np.testing.assert_allclose(found.read(3), right[:, 3], atol=1e-5)


def slices_at(**views: object) -> dict[str, object]:
    """The lines of a protocol that say where its one group of slices is."""
    return {f"sSliceArray__asSlice[0]__{name}": value for name, value in views.items()}


TURN = Rotation.from_euler("xyz", [20, -35, 50], degrees=True).as_matrix()  # columns: phase, readout, slice
CENTRE = np.array([12.0, -30.0, 7.5])


@pytest.mark.parametrize("deep", [False, True])
def test_a_point_in_the_patient_is_where_the_affine_says(deep, tmp_path):
    """k-space of a point by the phase of each sample, exp(−2πi k·(r − c)) with k along the directions of the gradients."""
    phase, read, across = TURN.T
    views = {"dReadoutFOV": 160.0, "dPhaseFOV": 110.0, "dThickness": 54.0}
    lines, partitions, steps = (16, 18, 1.125) if deep else (WIDTH, 1, 1.2)
    spacing = 160 / (HEIGHT // 2), 110 * (1 if deep else 1.2) / lines, 54 * (steps if deep else 1) / partitions
    shift = (
        3 * spacing[0],
        -4 * spacing[1],
        5 * spacing[2] if deep else 0,
    )  # of the point, along readout, phase and slice
    point = CENTRE + shift[0] * read + shift[1] * phase + shift[2] * across
    k = [(np.arange(n) - n // 2) / (n * step) for n, step in zip((HEIGHT, lines, partitions), spacing, strict=True)]
    wave = [np.exp(-2j * np.pi * along * offset) for along, offset in zip(k, shift, strict=True)]
    kspace = np.einsum("i,j,k->ijk", *wave)[None] * np.arange(1, COILS + 1)[:, None, None, None]
    kspace = kspace + 0.1 * np.random.default_rng(0).normal(size=kspace.shape)
    readouts = [
        block(kspace[:, :, y, z], Lin=y, Par=z, place=CENTRE, turn=TURN, centres=(lines // 2, partitions // 2))
        for y in range(lines)
        for z in range(partitions)
    ]
    more = {f"sKSpace__d{'Slice' if deep else 'Phase'}OversamplingForDialog": steps - 1}
    scan = open_kspace(written(tmp_path / "x.dat", readouts, **slices_at(**views), **more))
    images = []
    for number in range(len(scan)):
        image = np.abs(centred(scan.read(number)[0], (-2, -1), inverse=True))
        images.append(image if deep else image[HEIGHT // 4 : HEIGHT // 4 * 3])
    number, row, column = np.unravel_index(np.argmax(images), np.shape(images))
    plane = scan.plane(int(number))
    np.testing.assert_allclose((plane.affine(images[0].shape) @ [row, column, 0, 1])[:3], point, atol=1e-4)
    held = plane.axes[[2, 0, 1]] if deep else plane.axes
    np.testing.assert_allclose(held, [read, phase, across], atol=1e-6)
    np.testing.assert_allclose(sorted(plane.spacing), sorted(spacing), rtol=1e-6)


def test_slices_lie_along_their_normal_and_are_written_where_they_are(tmp_path):
    """Three oblique slices, stored out of order, as NIfTI and DICOM, read by programs that are not ours."""
    nibabel, pydicom = pytest.importorskip("nibabel"), pytest.importorskip("pydicom")
    places = [CENTRE + 6 * n * TURN[:, 2] for n in range(3)]
    readouts = [
        block(kspace_of(1)[0, :, :, y], Lin=y, Sli=n, place=places[order], turn=TURN)
        for n, order in enumerate((2, 0, 1))
        for y in range(WIDTH)
    ]
    views = {"dReadoutFOV": 160.0, "dPhaseFOV": 120.0, "dThickness": 5.0, "sNormal__dTra": TURN[2, 2]}
    views |= {"sNormal__dSag": TURN[0, 2], "sNormal__dCor": TURN[1, 2]}
    scan = open_kspace(written(tmp_path / "x.dat", readouts, **slices_at(**views)))
    assert not scan.note and scan.plane is not None
    planes = [scan.plane(n) for n in range(3)]
    np.testing.assert_allclose([plane.centre for plane in planes], places, atol=1e-5)
    assert planes[0].spacing == pytest.approx((10.0, 5.0, 5.0))
    images = np.random.default_rng(0).random((3, HEIGHT // 2, WIDTH))
    write_nifti(tmp_path / "x.nii.gz", images, planes, "d")
    affine = nibabel.load(tmp_path / "x.nii.gz").affine
    middle = affine @ [HEIGHT // 4, WIDTH // 2, 1, 1]
    np.testing.assert_allclose(middle[:3], np.diag([-1, -1, 1]) @ places[1], atol=1e-4)
    np.testing.assert_allclose(affine[:3, 2], 6 * np.diag([-1, -1, 1]) @ TURN[:, 2], atol=1e-4)
    write_dicom(tmp_path / "dicom", images, planes, "d", "x")
    file = pydicom.dcmread(tmp_path / "dicom/0002.dcm")
    along_row, along_column = np.reshape(file.ImageOrientationPatient, (2, 3)).astype(float)
    pixel = np.array(file.PixelSpacing, float)
    found = np.array(file.ImagePositionPatient, float) + HEIGHT // 4 * pixel[0] * along_column
    np.testing.assert_allclose(found + WIDTH // 2 * pixel[1] * along_row, places[1], atol=1e-4)


def test_where_slices_are_is_unknown_or_doubted_where_the_file_does_not_say_it_twice(tmp_path):
    kspace, views = kspace_of(1), {"dReadoutFOV": 160.0, "dPhaseFOV": 120.0, "dThickness": 5.0}
    for name, turn, more in (
        ("no quaternion", None, slices_at(**views)),
        ("no field of view", TURN, {}),
        ("two of them", TURN, slices_at(**views) | {"sSliceArray__asSlice[1]__dReadoutFOV": 99.0}),
    ):
        path = written(tmp_path / f"{name}.dat", lines(kspace, turn=TURN if turn is not None else None), **more)
        assert open_kspace(path).plane is None, name
    tilted = slices_at(**views, sNormal__dTra=1.0)
    path = written(tmp_path / "tilted.dat", lines(kspace, turn=TURN), **tilted)
    assert "its protocol has slices across [0.0, 0.0, 1.0]" in open_kspace(path).note


def test_what_is_not_read_is_named(tmp_path):
    (tmp_path / "text.dat").write_text("no scan " * 9999)
    kspace = kspace_of(1)
    written(tmp_path / "radial.dat", lines(kspace), sKSpace__ucTrajectory="0x2")
    written(tmp_path / "epi.dat", lines(kspace, "REFLECT") + lines(kspace, "PHASCOR", only=range(3)))
    written(tmp_path / "noise.dat", lines(kspace, "NOISEADJSCAN"))
    for name, words in (
        ("text", "Siemens"),
        ("radial", "ucTrajectory 2"),
        ("epi", "echo-planar"),
        ("noise", "adjustment"),
    ):
        with pytest.raises(InputError, match=words):
            open_kspace(tmp_path / f"{name}.dat")


def vb(path: Path, kspace: np.ndarray, lines: range) -> Path:
    """A file of version VB by hand: a head and samples for each coil of each line, and the block that ends it."""
    coils, samples, width = kspace.shape
    head = bytearray(header().tobytes().ljust(20000, b"\0"))
    head[:4] = struct.pack("<I", 20000)  # of VB it is larger than the numbers with which VD begins

    def measured(number: int, coil: int, line: int, count: int, flags: int) -> bytes:
        found = struct.pack("<IiIIIII", 128 + 8 * count, 1, number, 4 * number, 0, flags, 0)
        found += struct.pack("<HH14HHHHHfIHH", count, coils, line, *[0] * 15, count // 2, 0, 0.0, 0, width // 2, 0)
        return found + b"\0" * 16 + struct.pack("<7fHH", 0, 0, 0, 1, 0, 0, 0, coil, 0)

    for number, line in enumerate(lines):
        for coil in range(coils):
            head += measured(number, coil, line, samples, 0) + kspace[coil, :, line].astype(np.complex64).tobytes()
    head += measured(len(lines), 0, 0, 16, 1) + b"\0" * 128
    path.write_bytes(head)
    return path


def test_files_of_vb_are_read_and_one_that_was_cut_off_says_so(tmp_path: Path) -> None:
    expected = kspace_of(1)[0]
    path = vb(tmp_path / "vb.dat", expected, range(WIDTH))
    found = open_kspace(path)
    np.testing.assert_allclose(found.slice(0)[0], expected, rtol=1e-5)
    assert "whole" not in found.note
    short = tmp_path / "short.dat"
    short.write_bytes(path.read_bytes()[: 20000 + 18 * COILS * (128 + 8 * HEIGHT)])
    assert "short.dat ends after 18 lines without the mark of its end" in open_kspace(short).note
