"""Files: fields are the same in whatever order, by whatever process they are read, and each is read once."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr

from scorefield.climate import Cube, Variables
from scorefield.climate.alignment import canonical, in_units_of
from scorefield.climate.files import axes_of, layout_of, open_dataset
from scorefield.foundation.errors import InputError
from weather import dataset, save

N = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def packed(folder: Path) -> str:
    """Members and levels, packed, with gaps, in an odd order of dimensions."""
    data = xr.concat([dataset(N, 6, 8, seed=s) for s in range(2)], xr.Variable("member", [0, 1]))
    data = xr.concat([data, data + 1, data + 2], xr.Variable("plev", [1000.0, 850.0, 500.0]))
    data["tas"][..., 2, 3] = np.nan
    data = data.transpose("lat", "plev", "time", "member", "lon")
    packing = {"tas": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}}
    data.to_netcdf(folder / "packed.nc", encoding=packing, engine="h5netcdf")
    return str(folder / "packed.nc")


@pytest.fixture(scope="module")
def truth(packed: str) -> np.ndarray:
    with xr.open_dataset(packed, engine="h5netcdf") as data:
        fields = data.tas.transpose("member", "time", "plev", "lat", "lon").values
        return fields.reshape(2 * N, 3, 6, 8).astype(np.float32)


@pytest.mark.parametrize("levels", ["all", [500.0, 1000.0]])
def test_fields_are_the_same_in_any_order(packed: str, truth: np.ndarray, levels) -> None:
    expected = truth if levels == "all" else truth[:, [2, 0]]
    windows = [n + step for n in range(1, 2 * N - 1) for step in (-1, 0, 1)]
    for order in (range(2 * N), range(2 * N - 1, -1, -1), np.random.default_rng(0).permutation(2 * N), windows):
        cube = Cube(Variables(packed, ["tas"], levels=levels))
        for number in order:
            np.testing.assert_array_equal(cube.read(int(number)), expected[number])


def test_what_is_read_in_turn_is_read_together_and_no_name_is_looked_up(
    packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small member at once; of a large one those that follow, twice as many each time, or a chunk of the file."""
    cube, calls = Cube(Variables(packed, ["tas"], levels="all")), {"names": 0, "reads": 0}
    cube.read(2 * N - 1)
    for key, kind in (("names", h5py.Group), ("reads", h5py.Dataset)):

        def counted(self, *args, own=kind.__getitem__, key=key):
            calls[key] += 1
            return own(self, *args)

        monkeypatch.setattr(kind, "__getitem__", counted)
    for number in range(2 * N):
        cube.read(number)
    assert calls == {"names": 0, "reads": 0}  # all was looked at for its number type
    monkeypatch.setattr("scorefield.climate.files.READ_AHEAD", 3 * 6 * 8 * 4 * (N - 1))
    cube, calls["reads"] = Cube(cube.variables), 0
    cube.read(2 * N - 1), calls.update(names=0)
    for number in range(N):
        cube.read(number)
    assert calls == {"names": 0, "reads": 5}  # 1, 2, 4, 8 and the 15 that are left of the member
    for number in range(2 * N - 1, N, -3):
        cube.read(number)
    assert calls == {"names": 0, "reads": 15}


def _last(cube: Cube, queue) -> None:
    queue.put(cube.read(N))


def test_a_forked_process_reads_by_handles_of_its_own(packed: str, truth: np.ndarray) -> None:
    cube, context = Cube(Variables(packed, ["tas"], levels="all")), multiprocessing.get_context("fork")
    cube.read(0)
    queue = context.Queue()
    processes = [context.Process(target=_last, args=(cube, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    for number in range(5):
        np.testing.assert_array_equal(cube.read(number), truth[number])
    for process in processes:
        np.testing.assert_array_equal(queue.get(timeout=600), truth[N])
        process.join()


def test_a_variable_that_ends_before_its_unlimited_dimension_is_filled_up(folder: Path) -> None:
    path = folder / "short.nc"
    dataset(6).to_netcdf(path, engine="h5netcdf", unlimited_dims=["time"])
    with h5py.File(path, "a") as file:
        file["tas"].resize(4, axis=0)
    cube = Cube(Variables(str(path), ["tas"]))
    with xr.open_dataset(path, engine="h5netcdf") as data:
        np.testing.assert_array_equal(np.stack([cube.read(i)[0] for i in range(6)]), data.tas.values)


def test_what_has_no_time_is_taken_once_of_several_files(folder: Path) -> None:
    data = dataset(10)
    data["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    data["lat_bnds"] = (("lat", "bnds"), data.lat.values[:, None] + [-0.5, 0.5])
    data["lat"].attrs["bounds"], data["tas"].attrs["grid_mapping"] = "lat_bnds", "crs"
    for part in range(2):
        (folder / "parts").mkdir(exist_ok=True)
        save(data.isel(time=slice(5 * part, 5 * part + 5)), folder / "parts" / f"part_{part}.nc")
    joined = open_dataset(str(folder / "parts"))
    assert joined.crs.dims == () and joined.lat_bnds.dims == ("lat", "bnds") and joined.sizes["time"] == 10
    xr.testing.assert_equal(joined.tas.load(), data.tas)


@pytest.mark.parametrize(
    ("name", "attributes", "axis"),
    [
        ("a", {"standard_name": "projection_x_coordinate"}, "x"),
        ("a", {"units": "degrees_east"}, "x"),
        ("a", {"units": "degreeN"}, "y"),
        ("a", {"axis": "T"}, "time"),
        ("a", {"positive": "up"}, "level"),
        ("a", {"standard_name": "realization"}, "member"),
        ("x", {"standard_name": "latitude"}, "y"),  # attributes come before names
        ("nlat", {}, "y"),
        ("ens", {}, "member"),
        ("isobaricInhPa", {}, "level"),
        ("expver", {}, ""),
    ],
)
def test_axes_are_found_by_their_attributes_then_by_their_names(name: str, attributes: dict, axis: str) -> None:
    data = xr.Dataset({"v": ((name,), np.zeros(3))}, {name: (name, np.arange(3.0), attributes)})
    assert axes_of(data, "v") == {name: axis}


def test_a_dimension_that_nothing_explains_is_refused_and_one_of_length_1_is_left_out() -> None:
    one, two = (
        xr.Dataset({"v": (("expver", "lat", "lon"), np.zeros((n, 3, 4)))}, {"lat": range(3), "lon": range(4)})
        for n in (1, 2)
    )
    assert layout_of(one, "v", "a.nc").single == ("expver",)
    with pytest.raises(InputError, match="the dimension expver, which is no axis"):
        layout_of(two, "v", "a.nc")


def test_rain_in_mm_is_a_rate_where_it_is_known_how_long_it_fell(tmp_path, caplog) -> None:
    """1 mm in 6 h is 4 mm/day, though most times are missing; of one time alone nobody knows."""
    time = xr.date_range("2000-01-01", periods=5, freq="6h", use_cftime=True)
    for places, told in (([0, 1, 4], ""), ([0], "pr is in mm, and mm/day is expected")):
        data = xr.Dataset(
            {"pr": (("time", "lat", "lon"), np.ones((len(places), 3, 4)), {"units": "mm"})},
            {"time": time[places], "lat": range(3), "lon": range(4)},
        )
        path = tmp_path / f"{len(places)}.nc"
        data.to_netcdf(path, engine="h5netcdf")
        if told:
            with pytest.raises(InputError, match=told):
                Cube(Variables(str(path), ["pr"], "mm/day"))
            continue
        np.testing.assert_allclose(Cube(Variables(str(path), ["pr"], "kg m-2 s-1")).read(1), 4 / 86400, rtol=1e-6)
        assert "pr in mm is taken for what falls in 6 h, and converted to kg m-2 s-1" in caplog.text
        rate = data.isel(time=[0, 2]).assign(pr=data.pr.isel(time=[0, 2]).assign_attrs(units="mm/day"))
        found = in_units_of(canonical(rate, "a"), canonical(data, "b"))
        np.testing.assert_allclose(found.pr, 0.25)
        back = in_units_of(canonical(data, "a"), canonical(rate, "b"))
        np.testing.assert_allclose(back.pr, 4)


def test_files_without_units_are_taken_to_be_in_those_that_are_given(tmp_path, caplog) -> None:
    data = xr.Dataset({"pr": (("lat", "lon"), np.ones((3, 4)))}, {"lat": range(3), "lon": range(4)})
    data.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    assert Cube(Variables(str(tmp_path / "a.nc"), ["pr"], "mm/day")).quantities == (("pr", "mm/day"),)
    assert "pr has no units and is taken to be in mm/day" in caplog.text
