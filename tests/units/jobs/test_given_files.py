"""Files that `sample --given` takes: the same fields however they are stored, and no others in their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tiny
from scorefield.cli import main
from scorefield.data import Functions
from scorefield.foundation.errors import InputError
from scorefield.jobs.resolution import directed

RECIPE = """
model:
  sde: {schedule: {class_path: EDM, init_args: {sigma_min: 0.05, sigma_max: 10.0}}}
  precondition: EDMPreconditioner
  normaliser: Standardise
  predictors: Standardise
  net: {class_path: UNet, init_args: {channels: 8, multipliers: [1], cond_channels: 1}}
  sampler: {steps: 2}
data: {class_path: Functions, init_args: {path: PATH, key: u, given: k, coordinates: [y, x], valid: 4}}
train: {steps: 2, batch_size: 8, validate_every: 2, preview_every: 100, checkpoint_every: 2, accelerator: cpu}
"""
Y, X = (np.arange(6) + 0.5) / 2, (np.arange(8) + 0.5) / 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on functions of known coordinates, and the fields that others are given, in new.npz."""
    folder = tmp_path_factory.mktemp("given")
    k = np.random.default_rng(0).normal(5.0, 2.0, size=(15, 6, 8)).astype("f4")
    np.savez(folder / "train.npz", k=k[:12], u=k[:12] + 1, y=Y, x=X)
    np.savez(folder / "new.npz", k=k[12:], y=Y, x=X)
    path = tiny.recipe(folder / "recipe", RECIPE.replace("PATH", str(folder / "train.npz")))
    tiny.run.train(*tiny.settings(path), folder / "run")
    return folder


def drawn(folder: Path, out: Path, capsys: pytest.CaptureFixture[str], **arrays: np.ndarray) -> tuple[np.ndarray, str]:
    """Samples given the arrays of a file, and what is said on the way; code 2 raises InputError."""
    np.savez(out.with_suffix(".npz"), **arrays)
    capsys.readouterr()
    words = ["sample", str(folder / "run"), "-n", "3", "--given", str(out.with_suffix(".npz")), "--out", str(out)]
    code, said = main(words), capsys.readouterr().err
    if code:
        raise InputError(said)
    return np.load(out / "samples.npy"), said


def test_the_same_fields_stored_otherwise_give_the_same_samples(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned along an axis with its coordinates, with axes of a single entry, in another number type or order in memory."""
    with np.load(folder / "new.npz") as file:
        k = file["k"]
    known, said = drawn(folder, tmp_path / "same", capsys, k=k, y=Y, x=X)
    assert "warning" not in said
    for name, arrays in {
        "down": {"k": k[:, ::-1], "y": Y[::-1], "x": X},
        "both": {"k": k[:, ::-1, ::-1], "y": Y[::-1], "x": X[::-1]},
        "ones": {"k": k[:, None, None], "y": Y, "x": X},
        "last": {"other": k[..., None, None]},
        "double": {"k": np.asfortranarray(k.astype(">f8"))},
    }.items():
        found, said = drawn(folder, tmp_path / name, capsys, **arrays)
        np.testing.assert_array_equal(found, known)
        assert ("runs the other way" in said) == (name in ("down", "both"))
        if "y" in arrays:
            with np.load(tmp_path / name / "coordinates.npz") as axes:
                np.testing.assert_array_equal(axes["y"], Y)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": 2 * Y}, "spans 6, and in training 3"),
        ({"y": Y**2}, "irregular"),
        ({"y": np.roll(Y, 3)}, "irregular"),
        ({"y": np.arange(7) / 2}, r"\(7,\), not 6 numbers"),
        ({"k": np.ones((2, 4, 8), "f4")}, "4×8 is not the domain of 6×8"),
        ({"k": np.ones((6, 8, 3), "f4")}, "8×3 is not the domain of 6×8"),
        ({"k": np.ones((2, 6, 8), "c8")}, "complex64 2×6×8, where fields of 1 channels"),
    ],
)
def test_other_functions_are_refused(folder: Path, tmp_path: Path, capsys, arrays: dict, words: str) -> None:
    with np.load(folder / "new.npz") as file:
        new = dict(file) | arrays
    with pytest.raises(InputError, match=words):
        drawn(folder, tmp_path / "x", capsys, **new)
    assert not (tmp_path / "x").exists()


def test_other_units_and_another_place_are_warned_of(folder: Path, tmp_path: Path, capsys) -> None:
    with np.load(folder / "new.npz") as file:
        k = file["k"]
    for name, arrays, words in (
        ("kelvin", {"k": k + 273}, "in the units of training"),
        ("kilo", {"k": k / 1e6}, "in the units of training"),
        ("away", {"k": k, "y": Y + 40}, "40.25 to 42.75, and in training 0.25 to 2.75"),
    ):
        assert drawn(folder, tmp_path / name, capsys, **arrays)[1].count(words) == 1


def test_text_in_the_place_of_an_array_is_named(folder: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "a.csv").write_text("1,2\n3,4")
    call = ["sample", str(folder / "run"), "-n", "1", "--given", str(tmp_path / "a.csv"), "--out", str(tmp_path / "x")]
    assert main(call) == 2
    error = capsys.readouterr().err
    assert "a.csv is no .npy or .npz" in error and "pickle" not in error


def test_points_on_edges_are_of_the_domain_of_cells() -> None:
    """16 and 31 points from edge to edge are one domain, and so are float32 and float64."""
    one, other = {"x": np.linspace(0, 1, 16)}, {"x": np.linspace(0, 1, 31).astype("f4")[::-1]}
    found, turned, odd = directed(other, one, "a file")
    assert turned == (0,) and len(odd) == 1 and float(found["x"][0]) == 0
    assert directed({"t": np.arange(4.0)}, one, "a file") == ({"t": pytest.approx(np.arange(4.0))}, (), ())
    with pytest.raises(InputError, match="spans"):
        directed({"x": np.linspace(0, 2, 31)}, one, "a file")


@pytest.fixture(scope="module")
def square(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on functions of a square grid in NetCDF, whose axes have names, and the fields that others are given, in new.nc."""
    xarray = pytest.importorskip("xarray")
    folder, rng = tmp_path_factory.mktemp("square"), np.random.default_rng(0)
    k = xarray.DataArray(rng.normal(5.0, 2.0, size=(15, 8, 8)).astype("f4"), dims=("n", "y", "x"))
    data = xarray.Dataset({"k": k.assign_attrs(units="m s-1"), "u": k + 1}, {"y": X, "x": 2 * X})
    data.isel(n=slice(12)).to_netcdf(folder / "train.nc")
    data[["k"]].isel(n=slice(12, 15)).to_netcdf(folder / "new.nc")
    path = tiny.recipe(folder / "recipe", RECIPE.replace("PATH", str(folder / "train.nc")))
    tiny.run.train(*tiny.settings(path), folder / "run")
    return folder


def test_axes_in_another_order_are_brought_into_that_of_training(square: Path, tmp_path: Path, capsys) -> None:
    """By their names, which NetCDF, HDF5 and Zarr keep: on a square grid shapes do not tell."""
    import xarray

    with xarray.open_dataset(square / "new.nc") as file:
        new = file.load()
    swapped = new.transpose("n", "x", "y")
    new.to_netcdf(tmp_path / "same.nc")
    swapped.to_netcdf(tmp_path / "swapped.nc")
    new.transpose("x", "y", "n").to_netcdf(tmp_path / "last.nc")
    swapped.to_netcdf(tmp_path / "swapped.h5")
    swapped.to_zarr(tmp_path / "three.zarr", zarr_format=3)
    swapped.to_zarr(tmp_path / "two.zarr", zarr_format=2)
    found = {}
    for name in ("same.nc", "swapped.nc", "last.nc", "swapped.h5", "three.zarr", "two.zarr"):
        out = tmp_path / f"from {name}"
        assert main(["sample", str(square / "run"), "-n", "3", "--given", str(tmp_path / name), "--out", str(out)]) == 0
        found[name] = np.load(out / "samples.npy")
        np.testing.assert_array_equal(found[name], found["same.nc"], err_msg=name)
        with np.load(out / "coordinates.npz") as axes:
            np.testing.assert_array_equal(axes["x"], 2 * X)
    assert "warning" not in capsys.readouterr().err


def test_units_that_a_file_says_are_compared(square: Path, tmp_path: Path, capsys) -> None:
    """Also where values alone do not tell them apart."""
    import xarray

    with xarray.open_dataset(square / "new.nc") as file:
        new = file.load()
    new["k"] = (1.94 * new["k"]).assign_attrs(units="knots")
    new.to_netcdf(tmp_path / "a.nc")
    new.to_netcdf(tmp_path / "a.h5")
    new.to_zarr(tmp_path / "a.zarr")
    for name in ("a.nc", "a.h5", "a.zarr"):
        out = tmp_path / f"from {name}"
        assert main(["sample", str(square / "run"), "-n", "3", "--given", str(tmp_path / name), "--out", str(out)]) == 0
        assert capsys.readouterr().err.count("is in knots, and in training it was in m s-1") == 1


def test_data_whose_axes_disagree_are_refused(square: Path, tmp_path: Path) -> None:
    import xarray

    with xarray.open_dataset(square / "train.nc") as file:
        data = file.load()
    with pytest.raises(InputError, match="in the order of the axes"):
        Functions(square / "train.nc", "u", coordinates=("x", "y")).load("train")
    data["k"] = data["k"].transpose("n", "x", "y")
    data.to_netcdf(tmp_path / "k.nc")
    with pytest.raises(InputError, match="save both in one order"):
        Functions(tmp_path / "k.nc", "u", given="k").load("train")
