"""Stacks of stars in files of the ISMRMRD package: slices are those of the slab, and what is no such stack is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred
from scorefield.mri.files import open_kspace
from scorefield.operators import NonUniformFourier

ismrmrd = pytest.importorskip("ismrmrd")
N, DEEP, COILS, SPOKES, SAMPLES = 24, 6, 2, 9, 32
VIEW = "<fieldOfView_mm><x>240</x><y>240</y><z>18</z></fieldOfView_mm>"
SPACE = f"<matrixSize><x>{N}</x><y>{N}</y><z>{DEEP}</z></matrixSize>{VIEW}"
HEADER = (
    '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>1'
    f"</H1resonanceFrequency_Hz></experimentalConditions><encoding><encodedSpace>{SPACE}</encodedSpace><reconSpace>{SPACE}"
    "</reconSpace><encodingLimits/><trajectory>radial</trajectory></encoding></ismrmrdHeader>"
)


def spokes(turned: float = 0.0) -> np.ndarray:
    """(samples, spokes, 2) in cycles per pixel."""
    angle = np.arange(SPOKES) * math.pi * (math.sqrt(5) - 1) / 2 + turned
    return ((np.arange(SAMPLES) - SAMPLES // 2) / SAMPLES)[:, None, None] * np.stack((np.sin(angle), np.cos(angle)), -1)


def slices() -> np.ndarray:
    """k-space (slices, coils, samples, spokes) of a slab."""
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, DEEP, COILS, N, N))
    fourier = NonUniformFourier(torch.from_numpy(N * spokes().reshape(-1, 2)), (N, N))
    y = fourier(torch.from_numpy(image[0] + 1j * image[1])).numpy()
    return y.reshape(DEEP, COILS, SAMPLES, SPOKES)


def written(path: Path, readouts: list) -> Path:
    file = ismrmrd.Dataset(str(path), "dataset", create_if_needed=True)
    file.write_xml_header(HEADER.encode())
    for number in np.random.default_rng(1).permutation(len(readouts)):
        file.append_acquisition(readouts[number])
    file.close()
    return path


def stack(
    kspace: np.ndarray, *, columns: int = 2, turn: float = 0.0, tilt: float = 0.0, only=range(DEEP), **head: object
) -> list:
    """Readouts of k-space (slices, ...) by partition, `turn` further each; `tilt` lets them leave it."""
    found = []
    for z, partition in enumerate(centred(kspace, (0,))):
        for spoke in range(SPOKES):
            path = spokes(turn * z)[:, spoke]
            depth = np.full((SAMPLES, 1), (z - DEEP // 2) / DEEP) + tilt * np.linspace(-1, 1, SAMPLES)[:, None]
            path = np.concatenate((path, depth), 1)[:, :columns]
            one = ismrmrd.Acquisition.from_array(
                np.ascontiguousarray(partition[..., spoke], np.complex64), path.astype(np.float32)
            )
            one.idx.kspace_encode_step_1, one.idx.kspace_encode_step_2 = spoke, z
            for name, value in head.items():
                setattr(one.idx if hasattr(one.idx, name) else one, name, value)
            found += [one] if z in only else []
    return found


@pytest.mark.parametrize("columns", [2, 3])
def test_slices_of_a_stack_are_those_of_the_slab(columns, tmp_path):
    """Two averages and two contrasts, readouts in any order."""
    kspace = slices()
    readouts = [
        one
        for contrast in (0, 1)
        for average, part in enumerate((0.5, 1.5))
        for one in stack(part * (1 + contrast) * kspace, columns=columns, contrast=contrast, average=average)
    ]
    found = open_kspace(written(tmp_path / "k.h5", readouts))
    assert found.shape == (2 * DEEP, COILS, SAMPLES, SPOKES) and "stack of 6 partitions" in found.note
    for number in range(2 * DEEP):
        where = found.trajectory.of(number)
        angle = np.arctan2(where[-1, :, 0], where[-1, :, 1])
        right = np.arctan2(spokes()[-1, :, 0], spokes()[-1, :, 1])
        order = np.argmin(np.abs(np.exp(1j * angle)[:, None] - np.exp(1j * right)), axis=1)
        np.testing.assert_allclose(where, N * spokes()[:, order], atol=1e-5)
        expected = (1 + number // DEEP) * kspace[number % DEEP][..., order]
        np.testing.assert_allclose(found.read(number), expected, atol=1e-5 * np.abs(kspace).max())


def test_partitions_missing_at_an_end_are_zero(tmp_path):
    kspace = slices()
    found = open_kspace(written(tmp_path / "k.h5", stack(kspace, only=range(2, DEEP))))
    partitions = centred(kspace, (0,))
    partitions[:2] = 0
    energy = sum(float((np.abs(found.read(n)) ** 2).sum()) for n in range(DEEP))
    assert energy == pytest.approx(float((np.abs(partitions) ** 2).sum()), rel=1e-5)


def test_what_is_no_stack_is_refused(tmp_path):
    kspace = slices()
    for name, readouts, words in (
        ("turned", stack(kspace, turn=0.1), "other readouts"),
        ("tilted", stack(kspace, columns=3, tilt=0.2), "three dimensions"),
        ("gap", stack(kspace, only=(0, 1, 3, 4, 5)), "none may be missing"),
        ("lost", stack(kspace)[1:], "other readouts"),
    ):
        with pytest.raises(InputError, match=words):
            open_kspace(written(tmp_path / f"{name}.h5", readouts))


def test_slices_of_a_stack_lie_along_the_slab(tmp_path):
    turn = {"read_dir": (0.0, 1.0, 0.0), "phase_dir": (1.0, 0.0, 0.0), "slice_dir": (0.0, 0.0, 1.0)}
    found = open_kspace(written(tmp_path / "k.h5", stack(slices(), position=(5.0, 6.0, 7.0), **turn)))
    centres = np.array([found.plane(number).centre for number in range(DEEP)])
    np.testing.assert_allclose(centres, [(5, 6, 7 + 3 * (n - DEEP // 2)) for n in range(DEEP)], atol=1e-5)
    assert found.plane(0).spacing == pytest.approx((10, 10, 3))
