"""k-space in files that hold several arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from scorefield.foundation.errors import InputError
from scorefield.mri.files import open_kspace, read_maps
from scorefield.mri.kspace import KSpace
from scorefield.mri.masks import EquispacedLines, MaskFile
from scorefield.mri.scan_loading import Scans

h5py = pytest.importorskip("h5py")


def kspace() -> np.ndarray:
    """(slices, coils, height, width), strongest in the middle."""
    rng = np.random.default_rng(0)
    away = np.hypot(*np.meshgrid(np.arange(20) - 10, np.arange(18) - 9, indexing="ij"))
    return ((rng.normal(size=(2, 3, 20, 18)) + 1j * rng.normal(size=(2, 3, 20, 18))) / (1 + away) ** 2).astype(
        np.complex64
    )


def mat73(path: Path, **arrays: np.ndarray) -> None:
    """As MATLAB writes version 7.3: HDF5 after 512 bytes, axes the other way round, complex numbers as pairs."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in arrays.items():
            pairs = np.zeros(values.T.shape, [("real", "f4"), ("imag", "f4")])
            pairs["real"], pairs["imag"] = values.T.real, values.T.imag
            file[name] = pairs if np.iscomplexobj(values) else values.T
    text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
    with path.open("r+b") as file:
        file.write(text)


WRITERS = {
    "npz": np.savez,
    "v5": lambda path, **arrays: savemat(path, arrays),
    "v7.3": mat73,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_k_space_is_found_by_its_name_or_as_the_only_one(kind: str, tmp_path: Path) -> None:
    expected, suffix = kspace(), ".npz" if kind == "npz" else ".mat"

    def opened(**arrays: np.ndarray) -> KSpace:
        WRITERS[kind](tmp_path / f"k{suffix}", **arrays)
        return open_kspace(tmp_path / f"k{suffix}")

    for found in (
        opened(kspace=expected, maps=expected, age=np.arange(3.0)),
        opened(raw=expected, age=np.arange(3.0)),
    ):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found.slice(1)[0], expected[1], rtol=1e-6)
    np.testing.assert_allclose(read_maps(_written(kind, tmp_path / f"m{suffix}", expected)), expected, rtol=1e-6)
    mask = np.arange(18) % 2
    found = opened(kspace=expected, mask=mask, maps=expected)  # as MATLAB has it, (1, width)
    np.testing.assert_array_equal(found.slice(0)[1], np.broadcast_to(mask != 0, (20, 18)))
    assert found.maps is not None
    np.testing.assert_allclose(found.maps(1), expected[1], rtol=1e-6)
    one = opened(raw=expected, maps=expected[0]).maps
    assert one is not None
    np.testing.assert_allclose(one(1), expected[0], rtol=1e-6)
    for arrays, words in (
        ({"kspace": expected, "mask": mask[:9]}, "it is of another scan"),
        ({"kspace": expected, "maps": expected[..., :9]}, "where k-space is"),
        ({"a": expected, "b": expected}, "several: a, b"),
        ({"age": np.arange(3.0)}, "none, but age"),
    ):
        with pytest.raises(InputError, match=words):
            opened(**arrays)
    (tmp_path / f"cut{suffix}").write_bytes((tmp_path / f"m{suffix}").read_bytes()[:300])
    with pytest.raises(InputError, match=f"cut{suffix}"):
        open_kspace(tmp_path / f"cut{suffix}").slice(0)


def test_maps_of_a_file_that_are_not_used_are_said_to_be_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.savez(tmp_path / "k.npz", kspace=kspace(), maps=kspace())
    found = open_kspace(tmp_path / "k.npz")
    Scans(found)
    assert not caplog.records
    Scans(found, coils=2)
    assert "estimated anew" in caplog.text


def _written(kind: str, path: Path, maps: np.ndarray) -> Path:
    WRITERS[kind](path, maps=maps)
    return path


@pytest.mark.parametrize("kind", [*WRITERS, "h5"])
def test_masks_and_maps_lie_beside_readouts_off_the_grid_too(kind: str, tmp_path: Path) -> None:
    """Of the coils of k-space and the pixels of the image; a mask of readouts."""
    angle, along = 1.94 * np.arange(18), np.arange(20) / 20 - 0.5  # far apart, which tells them from samples
    places = along[:, None, None] * np.stack((np.sin(angle), np.cos(angle)), -1)
    maps = kspace()[0, :, :16, :16]

    def opened(**arrays: np.ndarray) -> KSpace:
        path = tmp_path / f"k{len(list(tmp_path.iterdir()))}.{'mat' if kind[0] == 'v' else kind}"
        whole = {"kspace": kspace()[:1], "trajectory": places, "matrix": np.array([16, 16]), **arrays}
        if kind == "h5":
            with h5py.File(path, "w") as file:
                for name, values in whole.items():
                    file[name] = values
        else:
            WRITERS[kind](path, **whole)
        return open_kspace(path)

    found = opened(maps=maps, mask=np.arange(18) % 2)
    assert found.maps is not None
    np.testing.assert_array_equal(found.maps(0), maps)
    assert np.array_equal(found.slice(0)[1], np.broadcast_to(np.arange(18) % 2 == 1, (20, 18)))
    with pytest.raises(InputError, match=r"maps .*where k-space is of \(1, 3, 16, 16\)"):
        opened(maps=maps[:2]).slice(0)
    with pytest.raises(InputError, match="mask"):
        opened(mask=np.ones(17))
    every, most = (
        Scans(found, EquispacedLines(3.0, 0), noise=1e-3)._slice(0)[2].any(0)
        for found in (opened(), opened(mask=np.arange(18) % 2))
    )
    assert every.sum() == 6 and most.sum() == 3  # of those that were acquired a third
    with pytest.raises(InputError, match="Nothing of slice 0"):
        np.save(tmp_path / "other.npy", (np.arange(18) + 1) % 2)
        Scans(found, MaskFile(tmp_path / "other.npy"), noise=1e-3)._slice(0)


@pytest.mark.parametrize(
    ("mask", "what"),
    [
        (np.where(np.arange(18) > 3, 1.0, np.nan), "NaN"),
        (np.ones(18) * 1j, "complex128"),
        (np.array(["no"] * 18), "U2"),
    ],
    ids=["NaN", "complex", "text"],
)
def test_a_mask_that_says_nothing_is_refused(mask: np.ndarray, what: str, tmp_path: Path) -> None:
    """Not taken for one that is 1 everywhere."""
    np.savez(tmp_path / "k.npz", kspace=kspace(), mask=mask)
    np.save(tmp_path / "m.npy", mask)
    with pytest.raises(InputError, match=what):
        open_kspace(tmp_path / "k.npz")
    with pytest.raises(InputError, match=what):
        MaskFile(tmp_path / "m.npy")((20, 18))
