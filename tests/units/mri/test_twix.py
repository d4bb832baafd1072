"""Siemens' raw data. No scanner's file is at hand: these are synthetic, of version VD, by the writer of twixtools."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
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
    samples: np.ndarray, *flags: str, place: float = 0.0, centres: tuple[int, int] = (WIDTH // 2, 0), **counters: int
):
    """A readout (coils, samples)."""
    found = twixtools.mdb.Mdb_local(np.ascontiguousarray(samples, np.complex64))
    for name, value in counters.items():
        setattr(found.mdh.Counter, name, value)
    found.mdh.CenterCol, (found.mdh.CenterLin, found.mdh.CenterPar) = samples.shape[1] // 2, centres
    found.mdh.SliceData.SlicePos.Tra = place
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
