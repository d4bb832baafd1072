"""Files written by the ISMRMRD package itself: each readout is what its head says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.files import open_kspace
from scorefield.mri.geometry import volume_affine
from scorefield.mri.kspace import KSpace
from scorefield.mri.scan_loading import Scans

ismrmrd = pytest.importorskip("ismrmrd")
COILS, HEIGHT, WIDTH = 4, 32, 24
HEADER = """<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<experimentalConditions><H1resonanceFrequency_Hz>63500000</H1resonanceFrequency_Hz></experimentalConditions>
<encoding><encodedSpace>{encoded}</encodedSpace><reconSpace>{image}</reconSpace><encodingLimits>
<kspace_encoding_step_1><minimum>0</minimum><maximum>{last}</maximum><center>{centre}</center></kspace_encoding_step_1>
</encodingLimits><trajectory>{kind}</trajectory>{parallel}</encoding></ismrmrdHeader>"""
PARALLEL = (
    "<parallelImaging><accelerationFactor><kspace_encoding_step_1>2</kspace_encoding_step_1>"
    "<kspace_encoding_step_2>1</kspace_encoding_step_2></accelerationFactor>"
    "<calibrationMode>{}</calibrationMode></parallelImaging>"
)


def space(x: int, y: int, z: int = 1, view: float = 256.0) -> str:
    sizes = f"<matrixSize><x>{x}</x><y>{y}</y><z>{z}</z></matrixSize>"
    return f"{sizes}<fieldOfView_mm><x>{view}</x><y>256</y><z>5</z></fieldOfView_mm>"


def kspace_of(slices: int = 2, seed: int = 0) -> np.ndarray:
    """(slices, coils, height, width) of smooth blobs through smooth coils."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    blob = [np.where(x**2 + y**2 < 0.7, 1 + 0.3 * np.sin(6 * x + n), 0) for n in range(slices)]
    maps = [np.exp(-((x - a) ** 2) - (y - b) ** 2 + 1j * a * y) for a, b in rng.normal(size=(COILS, 2))]
    noise = rng.normal(size=(2, slices, COILS, HEIGHT, WIDTH))
    return (centred(np.stack(blob)[:, None] * np.stack(maps)) + 0.01 * (noise[0] + 1j * noise[1])).astype(np.complex64)


def line(samples: np.ndarray, *flags: int, **head: int) -> ismrmrd.Acquisition:
    """A readout (coils, samples): counters of `idx` and other parts of the head by their names."""
    acquisition = ismrmrd.Acquisition.from_array(np.ascontiguousarray(samples, np.complex64))
    acquisition.center_sample = samples.shape[1] // 2
    for name, value in head.items():
        setattr(acquisition.idx if hasattr(acquisition.idx, name) else acquisition, name, value)
    for flag in flags:
        acquisition.setFlag(flag)
    return acquisition


def lines(kspace: np.ndarray, *flags: int, only=range(WIDTH), **head: int) -> list[ismrmrd.Acquisition]:
    return [
        line(kspace[n, :, :, y], *flags, kspace_encode_step_1=y, slice=n, **head)
        for n in range(len(kspace))
        for y in only
    ]


def written(
    path: Path, readouts: list, *, encoded: str = "", image: str = "", mode: str = "", kind: str = "cartesian"
) -> Path:
    file = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    parallel = PARALLEL.format(mode) if mode else ""
    encoded = encoded or space(HEIGHT, WIDTH)
    text = HEADER.format(
        encoded=encoded, image=image or encoded, last=WIDTH - 1, centre=WIDTH // 2, parallel=parallel, kind=kind
    )
    file.write_xml_header(text.encode())
    for number in np.random.default_rng(1).permutation(len(readouts)):
        file.append_acquisition(readouts[number])
    file.close()
    return path


def holds(found: KSpace, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    for number, kspace in enumerate(expected):
        np.testing.assert_allclose(found.read(number), kspace, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("flag", [23, 24, 26, 27, 28, 29, 30, 31])
def test_readouts_of_no_image_stay_out_of_it(flag: int, tmp_path: Path) -> None:
    kspace = kspace_of()
    junk = [line(100 + kspace[0, :, :, y], flag, kspace_encode_step_1=y) for y in range(3, 9)]
    holds(open_kspace(written(tmp_path / "k.h5", lines(kspace) + junk)), kspace)


def test_other_encoding_spaces_are_left_out_and_said(tmp_path: Path) -> None:
    kspace = kspace_of()
    junk = [line(100 + kspace[0, :, :, y], kspace_encode_step_1=y, encoding_space_ref=1) for y in range(5)]
    found = open_kspace(written(tmp_path / "k.h5", lines(kspace) + junk))
    holds(found, kspace)
    assert "5 readouts" in found.note and "other encoding spaces" in found.note


@pytest.mark.parametrize("turned", [False, True])
def test_samples_to_be_discarded_are(turned: bool, tmp_path: Path) -> None:
    """As a ramp of the gradient leaves them at both ends of a readout, which may run backwards."""
    kspace, before, after = kspace_of(1), 3, 2
    readouts = []
    for y in range(WIDTH):
        samples = kspace[0, :, :, y].copy()
        samples[:, : after if turned else before] = samples[:, HEIGHT - (before if turned else after) :] = 77
        samples = samples[:, ::-1] if turned else samples
        flags = [ismrmrd.ACQ_IS_REVERSE] if turned else []
        readouts.append(line(samples, *flags, kspace_encode_step_1=y, discard_pre=before, discard_post=after))
    kept = np.ones(HEIGHT, bool)
    kept[: after if turned else before] = kept[HEIGHT - (before if turned else after) :] = False
    holds(open_kspace(written(tmp_path / "k.h5", readouts)), kspace * kept[:, None])


@pytest.mark.parametrize("counter", ["contrast", "phase", "repetition", "set"])
def test_each_image_of_a_slice_is_a_series(counter: str, tmp_path: Path) -> None:
    first, second = kspace_of(seed=0), kspace_of(seed=1)
    found = open_kspace(written(tmp_path / "k.h5", lines(first) + lines(second, **{counter: 3})))
    holds(found, np.concatenate([first, second]))
    assert f"2 of {counter}: 2 series of 2 slices" in found.note
    averaged = open_kspace(written(tmp_path / "a.h5", lines(first, average=0) + lines(second, average=1)))
    holds(averaged, (first + second) / 2)
    assert len(open_kspace(written(tmp_path / "s.h5", lines(first, segment=1)))) == 2


@pytest.mark.parametrize(
    ("mode", "apart"), [("embedded", False), ("interleaved", False), ("", False), ("separate", True)]
)
def test_calibration_is_of_the_image_where_it_was_measured_with_it(mode: str, apart: bool, tmp_path: Path) -> None:
    kspace, middle = kspace_of(), range(8, 17, 2)
    grid, between = lines(kspace, only=range(0, WIDTH, 2)), [y for y in range(7, 18) if y % 2]
    other = lines(1.1 * kspace, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, only=between)
    both = lines(kspace, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING, only=middle)
    found = open_kspace(written(tmp_path / "k.h5", grid + other + both, mode=mode))
    expected = np.zeros_like(kspace)
    expected[..., ::2] = kspace[..., ::2]
    if not apart:
        expected[..., between] = 1.1 * kspace[..., between]
    holds(found, expected)
    assert (found.calibration is None) is not apart


@pytest.mark.parametrize(("mode", "gain"), [("separate", 1), ("embedded", 1), ("separate", 30)])
def test_separate_calibration_gives_the_maps_and_nothing_else(mode: str, gain: int, tmp_path: Path) -> None:
    """Of a scan of every other line, maps and images are those of one whose middle is known; of another contrast or gain, too."""
    kspace = kspace_of(1)
    alone = lines(gain * kspace, ismrmrd.ACQ_IS_PARALLEL_CALIBRATION, only=range(4, 20), contrast=1)
    path = written(tmp_path / "k.h5", lines(kspace, only=range(0, WIDTH, 2)) + alone, mode=mode)
    scan, _, _ = Scans(open_kspace(path), noise=0.01).scan(0)
    whole, _, _ = Scans(open_kspace(written(tmp_path / "w.h5", lines(kspace))), noise=0.01).scan(0)
    assert int(scan.mask.sum()) == HEIGHT * WIDTH // 2
    similar = (scan.maps.conj() * whole.maps).sum(0).abs()[(scan.seen & whole.seen)]
    assert len(similar) > 200 and float(similar.quantile(0.05)) > 0.98


def test_three_dimensions_become_slices_across_the_readout(tmp_path: Path) -> None:
    planes = 16
    x = np.random.default_rng(0).normal(size=(2, COILS, HEIGHT, WIDTH, planes))
    x = (x[0] + 1j * x[1]) * np.hanning(HEIGHT)[:, None, None]
    kspace = centred(x, (1, 2, 3)).astype(np.complex64)
    readouts = [
        line(kspace[:, :, y, z], kspace_encode_step_1=y, kspace_encode_step_2=z)
        for y in range(WIDTH)
        for z in range(planes)
        if (y + z) % 3
    ]
    encoded, image = space(HEIGHT, WIDTH, planes, 512), space(HEIGHT // 2, WIDTH, planes, 256)
    found = open_kspace(written(tmp_path / "k.h5", readouts, encoded=encoded, image=image))
    sampled = (np.arange(WIDTH)[:, None] + np.arange(planes)) % 3 > 0
    expected = centred(x, (2, 3))[:, HEIGHT // 4 : 3 * HEIGHT // 4].swapaxes(0, 1) * sampled
    holds(found, expected.astype(np.complex64))
    assert "16 positions along the readout" in found.note and found.size is None


@pytest.mark.parametrize(
    ("encoded", "image", "kept"),
    [
        (space(HEIGHT, WIDTH, view=512), space(HEIGHT // 2, WIDTH, view=256), HEIGHT // 2),
        (space(HEIGHT, WIDTH, view=512), space(HEIGHT, WIDTH, view=256), HEIGHT // 2),  # interpolated
        (space(HEIGHT, WIDTH, view=256), space(HEIGHT // 2, WIDTH, view=256), HEIGHT),  # the same head in larger pixels
        (space(HEIGHT, WIDTH, view=0), space(HEIGHT // 2, WIDTH, view=0), HEIGHT // 2),  # nothing but matrices
    ],
)
def test_oversampling_is_what_the_fields_of_view_say(encoded: str, image: str, kept: int, tmp_path: Path) -> None:
    found = open_kspace(written(tmp_path / "k.h5", lines(kspace_of()), encoded=encoded, image=image))
    assert found.height(np.ones((HEIGHT, WIDTH), bool)) == kept


def test_slices_are_where_their_heads_say(tmp_path: Path) -> None:
    """Twice oversampled along the readout: the pixel in the middle is at the position, rows grow along the readout."""
    kspace, axes = kspace_of(), np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)
    names = dict(zip(("read_dir", "phase_dir", "slice_dir"), map(tuple, axes), strict=True))
    readouts = [
        line(kspace[n, :, :, y], kspace_encode_step_1=y, slice=n, position=(10.0 - 4 * n, 20.0, 30.0), **names)
        for n in range(2)
        for y in range(WIDTH)
    ]
    path = written(
        tmp_path / "k.h5",
        readouts,
        encoded=space(HEIGHT, WIDTH, view=320.0),
        image=space(HEIGHT // 2, WIDTH, view=160.0),
    )
    scan = open_kspace(path)
    affine = volume_affine([scan.plane(0), scan.plane(1)], (HEIGHT // 2, WIDTH))
    np.testing.assert_allclose(affine @ [HEIGHT // 4, WIDTH // 2, 1, 1], [6, 20, 30, 1], atol=1e-5)
    np.testing.assert_allclose(affine[:3, :3].T, axes * np.array([[320 / HEIGHT], [256 / WIDTH], [4]]), atol=1e-5)


def test_scans_off_the_grid_without_their_places_are_refused(tmp_path: Path) -> None:
    samples = kspace_of()[0, :, :, 0]
    spoke = ismrmrd.Acquisition.from_array(samples, np.zeros((HEIGHT, 2), np.float32))
    with pytest.raises(InputError, match="reaches 0"):
        open_kspace(written(tmp_path / "k.h5", [spoke]))
    for kind, words in (("radial", "of trajectory radial"), ("epi", "of trajectory epi")):
        path = written(tmp_path / f"{kind}.h5", lines(kspace_of(1)), kind=kind)
        with pytest.raises(InputError, match=words):
            open_kspace(path)
