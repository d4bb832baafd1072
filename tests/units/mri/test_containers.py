"""k-space in files that hold several arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from scorefield.foundation.errors import InputError
from scorefield.mri.files import open_kspace, read_maps
from scorefield.mri.kspace import KSpace

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


def _written(kind: str, path: Path, maps: np.ndarray) -> Path:
    WRITERS[kind](path, maps=maps)
    return path
