"""Files of neuraloperator, The Well and PDEBench, written here in their layouts, read number by number and trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import savemat

from scorefield.cli import main
from scorefield.data import Functions, Simulations, Source
from scorefield.data.fields import FieldDataset
from scorefield.foundation.errors import InputError
from scorefield.functions import Windows

h5py = pytest.importorskip("h5py")


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("f4")


def all_of(source: Source, split: Any = "train") -> tuple[FieldDataset, np.ndarray]:
    fields = source.load(split)
    return fields, fields.gather(torch.arange(len(fields))).x.numpy()


# ------------------------------------------------------------------------------------------------------ neuraloperator
def test_darcy_as_neuraloperator_has_it(tmp_path: Path) -> None:
    """{"x": bool (n, h, w), "y": float (n, h, w)} by torch.save, train and test in files of their own."""
    for name, n, points in (("darcy_train_8", 12, 8), ("darcy_test_16", 4, 16)):
        x, y = numbers(n, points, points) > 0, numbers(n, points, points)
        torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / f"{name}.pt")
    train, test = (tmp_path / f"{name}.pt" for name in ("darcy_train_8", "darcy_test_16"))
    fields, found = all_of(Functions(train, "y", given="x", held_out=test))
    assert np.array_equal(found[:, 0], numbers(12, 8, 8))
    assert np.array_equal(fields[3].cond["field"][0].numpy(), (numbers(12, 8, 8) > 0)[3])
    assert all_of(Functions(train, "y", held_out=test), "valid")[1].shape == (4, 1, 16, 16)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_navier_stokes_as_matlab_has_it(tmp_path: Path, version: str) -> None:
    """a (n, h, w), u (n, h, w, frames); version 7.3 is HDF5 with the axes the other way round."""
    u, path = numbers(6, 8, 8, 5), tmp_path / "ns.mat"
    if version == "5":
        savemat(path, {"u": u, "a": u[..., 0], "t": np.arange(5.0)})
    else:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["u"], file["a"] = u.T, u[..., 0].T
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    sequences = Functions(path, "u", channel_axis="last", valid=2)
    fields, found = all_of(sequences)
    assert found.shape == (4, 5, 8, 8)
    rows = fields.indices.numpy()  # pyright: ignore[reportAttributeAccessIssue]
    assert np.array_equal(found, np.moveaxis(u, -1, 1)[rows])
    assert all_of(Windows(sequences, periodic=True))[1].shape == (12, 1, 8, 8)


def test_navier_stokes_as_torch_has_it(tmp_path: Path) -> None:
    torch.save(torch.from_numpy(numbers(6, 5, 8, 8)).double(), tmp_path / "ns.pt")
    assert all_of(Functions(tmp_path / "ns.pt", channel_axis="first", valid=2))[1].shape == (4, 5, 8, 8)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("run",))


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"x": Harmful()}, tmp_path / "harmful.pt")
    torch.save({"note": 3}, tmp_path / "empty.pt")
    (tmp_path / "broken.pt").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "broken.mat").write_bytes(b"nothing")
    for name in ("harmful.pt", "empty.pt", "broken.pt", "broken.mat"):
        with pytest.raises(InputError, match=name):
            Functions(tmp_path / name).load("train")
    assert "run" not in capsys.readouterr().out


# ----------------------------------------------------------------------------------------------------------- The Well
def test_sparse_tensors_are_none_that_are_read(tmp_path: Path) -> None:
    torch.save({"a": torch.eye(4).to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(InputError, match="holds no dense tensors"):
        Functions(tmp_path / "sparse.pt").load("train")


def well(path: Path, n: int = 3, frames: int = 4) -> dict[str, np.ndarray]:
    """A file of The Well: a scalar, a vector and a tensor that vary, a mask that does not, boundaries that meet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"density": (n, frames, 6, 8), "velocity": (n, frames, 6, 8, 2), "stress": (n, frames, 6, 8, 2, 2)}
    found = {name: numbers(*shape) for name, shape in arrays.items()}
    with h5py.File(path, "w") as file:
        file.attrs["n_trajectories"], file.attrs["dataset_name"] = n, "test"
        for rank, name in enumerate(found):
            group = file.create_group(f"t{rank}_fields")
            group.attrs["field_names"] = [name]
            group[name] = found[name]
            group[name].attrs.update({"sample_varying": True, "time_varying": True, "dim_varying": [True, True]})
        file["t0_fields/mask"] = np.ones((6, 8), "f4")
        file["t0_fields/mask"].attrs.update({"sample_varying": False, "time_varying": False})
        for name in ("x_periodic", "y_periodic"):
            file.create_group(f"boundary_conditions/{name}").attrs["bc_type"] = "PERIODIC"
        file["dimensions/time"], file["scalars/viscosity"] = np.arange(frames), 0.1
    return found


def test_the_well(tmp_path: Path) -> None:
    one = well(tmp_path / "data/train/a.hdf5")
    well(tmp_path / "data/train/b.hdf5", n=2)
    well(tmp_path / "data/valid/a.hdf5", n=1)
    fields, x = all_of(Simulations(tmp_path / "data"))
    assert x.shape == (20, 1 + 2 + 4, 6, 8) and fields.periodic
    assert np.array_equal(x[5, 0], one["density"][1, 1])
    assert np.array_equal(x[5, 1:3], np.moveaxis(one["velocity"][1, 1], -1, 0))
    assert np.array_equal(x[5, 3:].reshape(2, 2, 6, 8), np.moveaxis(one["stress"][1, 1], (-2, -1), (0, 1)))
    assert len(Simulations(tmp_path / "data").load("valid")) == 4
    _, x = all_of(Simulations(tmp_path / "data", ("velocity",), every=3))
    assert np.array_equal(x[1], np.moveaxis(one["velocity"][0, 3], -1, 0))
    with pytest.raises(InputError, match="mask"):
        Simulations(tmp_path / "data", ("mask",)).load("train")


def test_whole_simulations_are_sequences_and_no_frame_of_one_is_in_both_splits(tmp_path: Path) -> None:
    found = well(tmp_path / "a.hdf5", n=5)["density"]
    source = Simulations(tmp_path / "a.hdf5", ("density",), whole=True, valid=2)
    x = np.concatenate([all_of(source, split)[1] for split in ("train", "valid")])
    assert sorted(x[:, 0, 0, 0]) == sorted(found[:, 0, 0, 0]) and x.shape == (5, 4, 6, 8)
    assert all_of(Windows(source, factor=2))[1].shape == (6, 1, 6, 8)
    frames = Simulations(tmp_path / "a.hdf5", ("density",), valid=2)
    one, other = ({float(v[0, 0, 0]) for v in all_of(frames, split)[1]} for split in ("train", "valid"))
    held = [{float(v) for v in row} for row in found[:, :, 0, 0]]
    assert len(other) == 8 and not one & other and all(row <= one or row <= other for row in held)


# ----------------------------------------------------------------------------------------------------------- PDEBench
def test_pdebench_of_fields(tmp_path: Path) -> None:
    """Compressible flow: density, pressure, Vx beside coordinates; Burgers: tensor (n, frames, x)."""
    names = ("density", "pressure", "Vx")
    with h5py.File(tmp_path / "cfd.h5", "w") as file:
        for shift, name in enumerate(names):
            file[name] = numbers(3, 4, 8, 8) + shift
        file["x-coordinate"], file["t-coordinate"] = np.arange(8.0), np.arange(5.0)
    _, x = all_of(Simulations(tmp_path / "cfd.h5", names, valid=0))
    assert np.array_equal(x[6], np.stack([numbers(3, 4, 8, 8)[1, 2] + shift for shift in range(3)]))
    with h5py.File(tmp_path / "burgers.h5", "w") as file:
        file["tensor"], file["x-coordinate"] = numbers(3, 4, 16), np.arange(16.0)
    assert all_of(Simulations(tmp_path / "burgers.h5", valid=0))[1].shape == (12, 1, 16)
    with h5py.File(tmp_path / "darcy.hdf5", "w") as file:  # as functions, whose permeability has no frames
        file["tensor"], file["nu"] = numbers(5, 1, 8, 8), numbers(5, 8, 8)
    fields, _ = all_of(Functions(tmp_path / "darcy.hdf5", "tensor", given="nu"))
    assert fields[0].cond["field"].shape == (1, 8, 8)


def test_pdebench_of_velocities(tmp_path: Path) -> None:
    """Incompressible flow has (n, frames, h, w, 2): two channels on a plane, not a block two cells thick."""
    path, velocity, particles = tmp_path / "ns_incom.h5", numbers(3, 4, 8, 6, 2), numbers(3, 4, 8, 6, 1)
    with h5py.File(path, "w") as file:
        file["velocity"], file["particles"], file["force"] = velocity, particles, velocity[:, 0]
    found = all_of(Simulations(path, ("velocity", "particles"), valid=1))[1]
    both = np.moveaxis(np.concatenate((velocity, particles), -1), -1, 2)
    assert found.shape == (8, 3, 8, 6)
    assert {x.tobytes() for x in found} <= {x.tobytes() for x in both.reshape(-1, 3, 8, 6)}
    with pytest.raises(InputError, match="name those by fields"):
        Simulations(path).load("train")


def test_what_simulations_are_not_is_refused(tmp_path: Path) -> None:
    """No complex number is cut to its real part, no frame that diverged is learnt, no split reads another's folder."""
    for name, x in (("complex", numbers(3, 4, 8) * 1j), ("diverged", np.where(numbers(3, 4, 8) > 2, np.nan, 1.0))):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["tensor"] = x
    with pytest.raises(InputError, match=r"tensor of .*complex.h5 is complex"):
        Simulations(tmp_path / "complex.h5").load("train")
    assert (numbers(3, 4, 8) > 2).any()
    with pytest.raises(InputError, match=r"diverged.h5: simulation \d is not finite from frame \d on"):
        for split in ("train", "valid"):
            all_of(Simulations(tmp_path / "diverged.h5"), split)
    (tmp_path / "folder" / "valid").mkdir(parents=True)
    for path in ("folder/a.h5", "folder/valid/b.h5"):
        with h5py.File(tmp_path / path, "w") as file:
            file["tensor"] = numbers(3, 4, 8)
    with pytest.raises(InputError, match="has no folder for train"):
        Simulations(tmp_path / "folder").load("train")
    assert len(Simulations(tmp_path / "folder").load("valid")) == 12


def test_pdebench_of_groups(tmp_path: Path) -> None:
    """Shallow water, diffusion-reaction: a group for each simulation, (frames, h, w, channels)."""
    with h5py.File(tmp_path / "swe.h5", "w") as file:
        for number in range(3):
            file[f"{number:04d}/data"] = numbers(4, 8, 8, 2) + number
            file[f"{number:04d}/grid/x"] = np.arange(8.0)
    _, x = all_of(Simulations(tmp_path / "swe.h5", valid=0))
    assert x.shape == (12, 2, 8, 8)
    assert np.array_equal(x[9], np.moveaxis(numbers(4, 8, 8, 2)[1] + 2, -1, 0))
    with pytest.raises(InputError, match="leave fields out"):
        Simulations(tmp_path / "swe.h5", ("data",)).load("train")


def test_the_command_line_reads_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    well(tmp_path / "a.hdf5", n=5)
    assert (
        main(
            ["check-data", "Simulations", "--data.path", str(tmp_path / "a.hdf5"), "--preview", str(tmp_path / "p.png")]
        )
        == 0
    )
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.arange(8.0)
    assert main(["check-data", "Simulations", "--data.path", str(tmp_path / "other.h5")]) == 2
    assert "Functions" in capsys.readouterr().err
    assert main(["check-data", "Simulations", "--data.path", str(tmp_path / "no.h5")]) == 2
