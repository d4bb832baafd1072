"""Small gridded files as they lie about in the world, one of each kind: what each holds is known by a formula.

Every field is `plane`: linear in latitude, longitude and the day, so that what is read, and what bilinear regridding makes of
predictors, has one right value at every point, whatever the layout of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

DAYS, ROWS, COLUMNS = 12, 8, 12
START = "2000-01-01"
LAT, LON = 44.0 + np.arange(ROWS), -5.0 + np.arange(COLUMNS)
COARSE_LAT, COARSE_LON = 40.0 + 3 * np.arange(6), -9.0 + 3 * np.arange(8)
ALONG = {
    "lat": {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
    "lon": {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
    "time": {"standard_name": "time", "axis": "T"},
}
KELVIN = {"units": "K", "standard_name": "air_temperature"}


@dataclass(frozen=True)
class Kind:
    """Files of one kind and what is right.

    Attributes:
        data: arguments of `Climate`, without `division`.
        refused: the message in which reading them ends; empty where they are read.
        says: what the log says on the way.
        driving: predictors for `downscale`; those of training by default.
        shift: of the targets' values from those of the plane.
    """

    data: dict[str, Any]
    refused: str = ""
    says: str = ""
    driving: str = ""
    shift: float = 0.0
    more: dict[str, Any] = field(default_factory=dict)


KINDS: dict[str, Callable[[Path], Kind]] = {}


def kind(make: Callable[[Path], Kind]) -> Callable[[Path], Kind]:
    KINDS[make.__name__] = make
    return make


def several(names: list[Any]) -> Callable[[Callable[[Path, Any], Kind]], None]:
    """One kind for each of some values."""

    def register(make: Callable[[Path, Any], Kind]) -> None:
        for value in names:
            KINDS[f"{make.__name__} {value}"] = lambda folder, value=value: make(folder, value)

    return register


def plane(days: np.ndarray, lat: np.ndarray, lon: np.ndarray) -> np.ndarray:
    """Values at days (n) since the start and points (rows, columns)."""
    east = (lon + 180) % 360 - 180
    return 280 + 0.5 * np.asarray(days, float)[:, None, None] + 0.3 * lat + 0.2 * east


def mesh(lat: np.ndarray, lon: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    lat2, lon2 = np.meshgrid(lat, lon, indexing="ij")
    return lat2, lon2


def dates(n: int = DAYS, start: str = START, calendar: str = "standard", freq: str = "D") -> xr.CFTimeIndex:
    return xr.date_range(start, periods=n, freq=freq, calendar=calendar, use_cftime=True)


def regular(
    lat: np.ndarray = LAT, lon: np.ndarray = LON, n: int = DAYS, first: int = 0, name: str = "tas", **time: Any
) -> xr.Dataset:
    """Daily fields on lines of latitude and longitude from a day on."""
    values = plane(first + np.arange(n), *mesh(lat, lon)).astype(np.float32)
    when = dates(n, **({"start": str(np.datetime64(START) + first)} | time))
    coords = {
        "time": ("time", when, ALONG["time"]),
        "lat": ("lat", lat, ALONG["lat"]),
        "lon": ("lon", lon, ALONG["lon"]),
    }
    return xr.Dataset({name: (("time", "lat", "lon"), values, KELVIN)}, coords, {"Conventions": "CF-1.8"})


def coarse(**more: Any) -> xr.Dataset:
    return regular(COARSE_LAT, COARSE_LON, **more)


def curved() -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of a grid whose lines are curved."""
    lat, lon = mesh(LAT, LON)
    return lat + 0.02 * (lon + 5), lon + 0.05 * (lat - 44)


def save(data: xr.Dataset, path: Path, **more: Any) -> str:
    data.to_netcdf(path, engine="h5netcdf", **more)
    return str(path)


def alone(path: str, name: str = "tas", **more: Any) -> dict[str, Any]:
    """Targets that are their own predictors, coarsened."""
    return {"targets": {"path": path, "names": [name], **more}, "coarsen": 4}


def beside(targets: str, predictors: str, name: str = "tas", **more: Any) -> dict[str, Any]:
    return {"targets": {"path": targets, "names": ["tas"]}, "predictors": {"path": predictors, "names": [name], **more}}


def with_mapping(data: xr.Dataset) -> xr.Dataset:
    data = data.assign_coords(
        height=((), 2.0, {"units": "m", "standard_name": "height", "positive": "up", "axis": "Z"})
    )
    data["crs"] = ((), np.int32(0), {"grid_mapping_name": "latitude_longitude", "semi_major_axis": 6371000.0})
    data["tas"].attrs["grid_mapping"] = "crs"
    return data


# ------------------------------------------------------------------------------------------------------- layouts
@kind
def grid_mapping_and_scalar_height(folder: Path) -> Kind:
    return Kind(alone(save(with_mapping(regular()), folder / "a.nc")))


def cordex(members: slice = slice(None)) -> xr.Dataset:
    """EURO-CORDEX: a rotated pole, 2-D lat and lon with vertices, a scalar height, bounds of time."""
    from scorefield.climate.grid import unrotate

    rlat, rlon = -4.0 + 0.5 * np.arange(ROWS), -6.0 + 0.5 * np.arange(COLUMNS)
    lat, lon = unrotate(rlat, rlon, 39.25, -162.0)
    corners = np.array([[-0.2, -0.2], [-0.2, 0.2], [0.2, 0.2], [0.2, -0.2]])
    time = dates(start="2000-01-01T12:00")
    data = xr.Dataset(
        {
            "tas": (("time", "rlat", "rlon"), plane(np.arange(DAYS), lat, lon).astype(np.float32), dict(KELVIN)),
            "rotated_pole": ((), b"", {
                "grid_mapping_name": "rotated_latitude_longitude",
                "grid_north_pole_latitude": 39.25,
                "grid_north_pole_longitude": -162.0,
            }),
            "lat_vertices": (("rlat", "rlon", "vertices"), lat[..., None] + corners[:, 0], {"units": "degrees_north"}),
            "lon_vertices": (("rlat", "rlon", "vertices"), lon[..., None] + corners[:, 1], {"units": "degrees_east"}),
            "time_bnds": (("time", "bnds"), np.stack([dates(), dates(start="2000-01-02")], axis=1)),
        },
        {
            "time": ("time", time, ALONG["time"] | {"bounds": "time_bnds"}),
            "rlat": ("rlat", rlat, {"units": "degrees", "standard_name": "grid_latitude", "axis": "Y"}),
            "rlon": ("rlon", rlon, {"units": "degrees", "standard_name": "grid_longitude", "axis": "X"}),
            "lat": (("rlat", "rlon"), lat, {"units": "degrees_north", "standard_name": "latitude", "bounds": "lat_vertices"}),
            "lon": (("rlat", "rlon"), lon, {"units": "degrees_east", "standard_name": "longitude", "bounds": "lon_vertices"}),
            "height": ((), 2.0, {"units": "m", "standard_name": "height", "positive": "up", "axis": "Z"}),
        },
    )  # fmt: skip
    data["tas"].attrs |= {"grid_mapping": "rotated_pole", "cell_methods": "time: mean"}
    data["tas"].encoding["coordinates"] = "lat lon height"
    return data


@kind
def cordex_rotated_pole(folder: Path) -> Kind:
    return Kind(alone(save(cordex(), folder / "a.nc")))


@kind
def cordex_of_two_files(folder: Path) -> Kind:
    data = cordex()
    for part in range(2):
        piece = data.isel(time=slice(6 * part, 6 * part + 6))
        piece["tas"].encoding["coordinates"] = "lat lon height"
        save(piece, folder / f"a_{part}.nc")
    return Kind(alone(str(folder / "a_*.nc")))


@kind
def two_files_with_a_mapping(folder: Path) -> Kind:
    for part in range(2):
        data = with_mapping(regular(n=6, first=6 * part))
        data["lat_bnds"] = (("lat", "bnds"), LAT[:, None] + [-0.5, 0.5])
        data["lat"].attrs["bounds"] = "lat_bnds"
        data["realised"] = ((), part)
        save(data, folder / f"a_{part}.nc")
    return Kind(alone(str(folder / "a_*.nc")))


@kind
def a_file_for_each_variable(folder: Path) -> Kind:
    save(coarse(name="psl"), folder / "in_psl.nc")
    save(coarse(), folder / "in_tas.nc")
    return Kind(beside(save(regular(), folder / "t.nc"), str(folder / "in_*.nc"), "psl"))


@kind
def cmip_ocean(folder: Path) -> Kind:
    lat, lon = curved()
    names = {"units": "degrees_north", "standard_name": "latitude", "bounds": "vertices_latitude"}
    data = xr.Dataset(
        {"tos": (("time", "j", "i"), plane(np.arange(DAYS), lat, lon), {"units": "K"})},
        {
            "time": ("time", dates(), ALONG["time"]),
            "j": ("j", np.arange(ROWS), {"units": "1", "long_name": "cell index along second dimension"}),
            "i": ("i", np.arange(COLUMNS), {"units": "1", "long_name": "cell index along first dimension"}),
            "latitude": (("j", "i"), lat, names),
            "longitude": (("j", "i"), lon % 360, {"units": "degrees_east", "standard_name": "longitude"}),
        },
    )
    data["vertices_latitude"] = (("j", "i", "vertices"), lat[..., None] + [-0.5, -0.5, 0.5, 0.5])
    data["tos"].encoding["coordinates"] = "latitude longitude"
    return Kind(alone(save(data, folder / "a.nc"), "tos"))


@kind
def numbers_along_y_and_x_beside_two_coordinates(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"tas": (("time", "y", "x"), plane(np.arange(DAYS), lat, lon), dict(KELVIN))},
        {"time": ("time", dates()), "y": np.arange(ROWS), "x": np.arange(COLUMNS)},
    ).assign_coords(lat=(("y", "x"), lat), lon=(("y", "x"), lon))
    return Kind(beside(save(data, folder / "a.nc"), save(coarse(), folder / "in.nc")))


@kind
def roms(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"temp": (("ocean_time", "s_rho", "eta_rho", "xi_rho"), plane(np.arange(DAYS), lat, lon)[:, None] + [[[[0.0]], [[9.0]]]],
                  {"units": "K", "time": "ocean_time"})},
        {
            "ocean_time": ("ocean_time", dates(), {"long_name": "time since initialization", "field": "time, scalar, series"}),
            "s_rho": ("s_rho", [-0.75, -0.25], {"standard_name": "ocean_s_coordinate_g2", "positive": "up"}),
            "lat_rho": (("eta_rho", "xi_rho"), lat, {"units": "degree_north", "long_name": "latitude of RHO-points"}),
            "lon_rho": (("eta_rho", "xi_rho"), lon, {"units": "degree_east", "long_name": "longitude of RHO-points"}),
        },
    )  # fmt: skip
    data["mask_rho"] = (("eta_rho", "xi_rho"), np.ones((ROWS, COLUMNS)))
    data["temp"].encoding["coordinates"] = "lon_rho lat_rho s_rho ocean_time"
    return Kind(alone(save(data, folder / "a.nc"), "temp", levels=[-0.25]), shift=9.0)


@kind
def pop(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"TEMP": (("time", "z_t", "nlat", "nlon"), plane(np.arange(DAYS), lat, lon)[:, None], {"units": "degK"})},
        {
            "time": ("time", dates(calendar="noleap"), {"long_name": "time"}),
            "z_t": ("z_t", [500.0], {"units": "centimeters", "positive": "down", "long_name": "depth"}),
            "TLAT": (("nlat", "nlon"), lat, {"units": "degrees_north", "long_name": "array of t-grid latitudes"}),
            "TLONG": (
                ("nlat", "nlon"),
                lon % 360,
                {"units": "degrees_east", "long_name": "array of t-grid longitudes"},
            ),
            "ULAT": (("nlat", "nlon"), lat + 0.5, {"units": "degrees_north", "long_name": "array of u-grid latitudes"}),
            "ULONG": (
                ("nlat", "nlon"),
                lon + 0.5,
                {"units": "degrees_east", "long_name": "array of u-grid longitudes"},
            ),
        },
    )
    data["TEMP"].encoding["coordinates"] = "TLONG TLAT z_t time"
    return Kind(alone(save(data, folder / "a.nc"), "TEMP"))


def wrf(first: int = 0, n: int = DAYS) -> xr.Dataset:
    lat, lon = curved()
    days = first + np.arange(n)
    words = [str(np.datetime64(START) + d) + "_00:00:00" for d in days]
    data = xr.Dataset(
        {
            "T2": (("Time", "south_north", "west_east"), plane(days, lat, lon).astype(np.float32), {"units": "K"}),
            "XLAT": (("Time", "south_north", "west_east"), np.tile(lat, (n, 1, 1)), {"units": "degree_north"}),
            "XLONG": (("Time", "south_north", "west_east"), np.tile(lon, (n, 1, 1)), {"units": "degree_east"}),
            "Times": (("Time", "DateStrLen"), np.array([list(word) for word in words], "S1")),
        },
        attrs={"MAP_PROJ": np.int32(1), "TRUELAT1": np.float32(45)},
    )
    data["T2"].attrs |= {"coordinates": "XLONG XLAT XTIME", "MemoryOrder": "XY "}
    return data


@kind
def wrf_one_file(folder: Path) -> Kind:
    return Kind(alone(save(wrf(), folder / "wrfout_d01"), "T2"))


@kind
def wrf_two_files(folder: Path) -> Kind:
    for part in range(2):
        save(wrf(6 * part, 6), folder / f"wrfout_d01_{part}.nc")
    return Kind(alone(str(folder / "wrfout_*.nc"), "T2"))


@kind
def lambert_conformal(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"tas": (("time", "y", "x"), plane(np.arange(DAYS), lat, lon), dict(KELVIN)),
         "Lambert_Conformal": ((), 0, {"grid_mapping_name": "lambert_conformal_conic", "standard_parallel": [46.0, 50.0]})},
        {"time": ("time", dates(), ALONG["time"]),
         "y": ("y", 12.5 * np.arange(ROWS), {"units": "km", "standard_name": "projection_y_coordinate"}),
         "x": ("x", 12.5 * np.arange(COLUMNS), {"units": "km", "standard_name": "projection_x_coordinate"}),
         "lat": (("y", "x"), lat, {"units": "degrees_north", "standard_name": "latitude"}),
         "lon": (("y", "x"), lon, {"units": "degrees_east", "standard_name": "longitude"}),
         "height": ((), 2.0, {"units": "m"})},
    )  # fmt: skip
    data["tas"].attrs["grid_mapping"], data["tas"].encoding["coordinates"] = "Lambert_Conformal", "height lat lon"
    return Kind(alone(save(data, folder / "a.nc")))


@kind
def points_on_dimensions_without_a_name(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset({"tas": (("time", "a", "b"), plane(np.arange(DAYS), lat, lon), dict(KELVIN))}, {"time": dates()})
    data["Latitude"], data["Longitude"] = (("a", "b"), lat), (("a", "b"), lon)
    return Kind(alone(save(data, folder / "a.nc")))


@kind
def lines_of_latitude_along_y(folder: Path) -> Kind:
    data = regular().rename(lat="y", lon="x")
    data = data.assign_coords(lat=("y", LAT, ALONG["lat"]), lon=("x", LON, ALONG["lon"])).drop_vars(["y", "x"])
    return Kind(alone(save(data, folder / "a.nc")))


@kind
def points_without_a_place(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"tos": (("time", "j", "i"), plane(np.arange(DAYS), lat, lon), {"units": "K"})},
        {"time": dates(), "lat": (("j", "i"), np.where(lat < 44.3, np.nan, lat), ALONG["lat"])},
    )
    data["lon"] = (("j", "i"), lon, ALONG["lon"])
    return Kind(alone(save(data, folder / "a.nc"), "tos"), refused="points have no latitude and longitude")


@kind
def nemo(folder: Path) -> Kind:
    lat, lon = curved()
    data = xr.Dataset(
        {"tos": (("time_counter", "y", "x"), plane(np.arange(DAYS), lat, lon), {"units": "K"})},
        {"time_counter": dates(), "nav_lat": (("y", "x"), lat), "nav_lon": (("y", "x"), lon)},
    )
    data["tos"].encoding["coordinates"] = "nav_lat nav_lon"
    return Kind(alone(save(data, folder / "a.nc"), "tos"))


@kind
def a_file_for_each_time(folder: Path) -> Kind:
    data = with_mapping(regular())
    for day in range(DAYS):
        save(data.isel(time=day), folder / f"a_{day:02d}.nc")
    return Kind(alone(str(folder / "a_*.nc")))


@kind
def a_file_for_each_member(folder: Path) -> Kind:
    for member in range(2):
        save(regular() + member, folder / f"a_r{member}.nc")
    return Kind(alone(str(folder / "a_*.nc")), refused="do not join")


@kind
def cells_without_a_grid(folder: Path) -> Kind:
    lat, lon = (part.ravel() for part in mesh(LAT, LON))
    data = xr.Dataset(
        {"tas": (("time", "cell"), plane(np.arange(DAYS), *mesh(LAT, LON)).reshape(DAYS, -1), dict(KELVIN))},
        {"time": dates(), "lat": ("cell", lat, ALONG["lat"]), "lon": ("cell", lon, ALONG["lon"])},
    )
    return Kind(alone(save(data, folder / "a.nc")), refused="cell")


@kind
def capital_names_without_attributes(folder: Path) -> Kind:
    data = regular().rename(lat="LAT", lon="LON", time="TIME")
    for name in ("LAT", "LON", "TIME"):
        data[name].attrs = {}
    return Kind(alone(save(data, folder / "a.nc")))


# --------------------------------------------------------------------------------------------------------- archives
def era5(extra: dict[str, Any] | None = None) -> xr.Dataset:
    data = (
        regular().isel(lat=slice(None, None, -1)).rename(tas="t2m", time="valid_time", lat="latitude", lon="longitude")
    )
    data["valid_time"].attrs = {"standard_name": "time", "long_name": "time"}
    del data["latitude"].attrs["axis"], data["longitude"].attrs["axis"]
    return data.assign_coords(extra or {})


@kind
def era5_of_the_new_store(folder: Path) -> Kind:
    expver = ("valid_time", np.array(["0001"] * 8 + ["0005"] * 4, object))
    number = ((), 0, {"standard_name": "realization", "units": "1", "long_name": "ensemble member numerical id"})
    data = era5({"number": number, "expver": expver})
    data["t2m"].encoding["coordinates"] = "number valid_time latitude longitude expver"
    data["t2m"].attrs |= {"GRIB_paramId": 167, "GRIB_missingValue": 3.4e38}
    return Kind(alone(save(data, folder / "a.nc"), "t2m"))


@kind
def era5_two_versions(folder: Path) -> Kind:
    data = era5().rename(valid_time="time")
    final, early = data.where(data.time < data.time[8]), data.where(data.time >= data.time[8])
    joined = xr.concat([final, early], xr.Variable("expver", np.array([1, 5], np.int32))).transpose(
        "time", "expver", ...
    )
    return Kind(alone(save(joined, folder / "a.nc"), "t2m"), says="the halves 1 and 5 of expver are merged")


@kind
def era5_two_versions_that_differ(folder: Path) -> Kind:
    data = era5().rename(valid_time="time")
    joined = xr.concat([data.where(data.time < data.time[8]), data + 1], xr.Variable("expver", ["0001", "0005"]))
    joined["t2m"].attrs = dict(KELVIN)
    return Kind(
        alone(save(joined, folder / "a.nc"), "t2m"), refused="two values at .* for the expver 0001 and 0005.*select"
    )


@kind
def infinite_targets(folder: Path) -> Kind:
    data = regular()
    data["tas"].values[0, 2, 1] = np.inf
    return Kind(alone(save(data, folder / "a.nc")), refused="tas is infinite at 1 points of 2000-01-01")


@kind
def era5_one_version_by_name(folder: Path) -> Kind:
    data = era5().rename(valid_time="time")
    joined = xr.concat([data + 50, data], xr.Variable("expver", np.array([1, 5], np.int32)))
    joined["t2m"].attrs = dict(KELVIN)
    return Kind(alone(save(joined, folder / "a.nc"), "t2m", select={"expver": 5}))


@kind
def e_obs(folder: Path) -> Kind:
    data = regular(name="tg").rename(lat="latitude", lon="longitude")
    data["tg"] = (data.tg.dims, data.tg.values - 273.15, {"units": "Celsius", "long_name": "mean temperature"})
    packing = {"tg": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 0.0, "_FillValue": -9999}}
    return Kind(alone(save(data, folder / "a.nc", encoding=packing), "tg"), shift=-273.15, more={"atol": 0.006})


@kind
def cdf5(folder: Path) -> Kind:
    import pytest

    pytest.importorskip("netCDF4")
    regular().to_netcdf(folder / "a.nc", engine="netcdf4", format="NETCDF3_64BIT_DATA")
    return Kind(alone(str(folder / "a.nc")))


@several(["NETCDF3_CLASSIC", "NETCDF3_64BIT"])
def classic(folder: Path, version: str) -> Kind:
    regular().to_netcdf(folder / "a.nc", engine="scipy", format=version)
    return Kind(alone(str(folder / "a.nc")))


@several([2, 3])
def zarr_format(folder: Path, version: int) -> Kind:
    with_mapping(regular()).chunk(time=5).to_zarr(folder / "store", zarr_format=version, consolidated=version == 2)
    return Kind(alone(str(folder / "store")))


# ----------------------------------------------------------------------------------------------------- what is wrong
@several([1e20, -9999.0, 9.96921e36])
def fill_value_without_attribute(folder: Path, value: float) -> Kind:
    data = regular()
    data["tas"][:, :2, :3] = value
    path = save(data, folder / "a.nc", encoding={"tas": {"_FillValue": None}})
    return Kind(alone(path), refused="_FillValue")


@kind
def fill_value_in_predictors(folder: Path) -> Kind:
    data = coarse()
    data["tas"][3, 2, 2] = -9999
    given = save(data, folder / "in.nc", encoding={"tas": {"_FillValue": None}})
    return Kind(beside(save(regular(), folder / "a.nc"), given), refused="_FillValue")


@kind
def bounds_that_do_not_hold_their_points(folder: Path) -> Kind:
    data = regular()
    data["lat_bnds"] = (("lat", "bnds"), LAT[:, None] + [2.5, 3.5])
    data["lat"].attrs["bounds"] = "lat_bnds"
    return Kind(alone(save(data, folder / "a.nc")), says="lat_bnds")


@kind
def fill_value_of_packed_integers(folder: Path) -> Kind:
    data = regular()
    packed = ((data.tas - 280) / 0.01).round().astype("int16")
    packed[:, :2, :3] = -32768
    data["tas"] = (data.tas.dims, packed.values, KELVIN | {"scale_factor": 0.01, "add_offset": 280.0})
    return Kind(alone(save(data, folder / "a.nc")), refused="_FillValue")


@kind
def fill_value_by_name(folder: Path) -> Kind:
    """Of predictors, outside of the region of the targets."""
    data = coarse()
    data["tas"][:, 5, 7] = -9999
    given = save(data, folder / "in.nc", encoding={"tas": {"_FillValue": None}})
    return Kind(beside(save(regular(LAT, LON[:8]), folder / "a.nc"), given, fill=-9999.0))


@kind
def zeros_of_zarr(folder: Path) -> Kind:
    """Zero is its fill value where nobody gives another, and a value nevertheless."""
    import zarr

    data = regular()
    data["tas"] = (data.tas.dims, data.tas.values - data.tas.values[3, 4, 5], KELVIN)
    data.drop_vars("tas").to_zarr(folder / "store", zarr_format=2, consolidated=False)
    array = zarr.open_group(folder / "store", mode="a").create_array(
        "tas", shape=data.tas.shape, dtype="f4", fill_value=0.0
    )
    array[:] = data.tas.values
    array.attrs.update(KELVIN | {"_ARRAY_DIMENSIONS": list(data.tas.dims)})
    return Kind(alone(str(folder / "store")), shift=-float(regular().tas.values[3, 4, 5]))


@kind
def predictors_that_reach_beyond_the_region(folder: Path) -> Kind:
    """Far from it they are unknown, or of another order."""
    data = regular(np.arange(0.0, 90, 3), np.arange(-60.0, 60, 3))
    data["tas"][:, :4], data["tas"][:, -1] = np.nan, 5e4
    return Kind(beside(save(regular(), folder / "a.nc"), save(data, folder / "in.nc")))


@kind
def duplicate_times(folder: Path) -> Kind:
    data = regular()
    twice = data.isel(time=[0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10])
    return Kind(alone(save(twice, folder / "a.nc")), refused="2000-01-05")


@kind
def files_that_overlap(folder: Path) -> Kind:
    save(regular(n=7), folder / "a_0.nc")
    save(regular(n=6, first=6), folder / "a_1.nc")
    return Kind(alone(str(folder / "a_*.nc")), refused="2000-01-07")


@kind
def times_that_fall(folder: Path) -> Kind:
    return Kind(alone(save(regular().isel(time=slice(None, None, -1)), folder / "a.nc")), refused="2000-01-1")


@kind
def dates_as_numbers(folder: Path) -> Kind:
    data = regular().assign_coords(time=("time", 20000101.0 + np.arange(DAYS), {"units": "day as %Y%m%d.%f"}))
    return Kind(alone(save(data, folder / "a.nc")))


@several(["expver", "step", "number", "height", "plev", "realization"])
def extra_dimension(folder: Path, name: str) -> Kind:
    """Of the predictors: nobody said which."""
    data = coarse()
    both = xr.concat([data, data + 1], xr.Variable(name, [1, 5])).transpose("time", name, "lat", "lon")
    both["tas"].attrs = dict(KELVIN)
    given = save(both, folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given), refused=rf"select: \{{{name}|{name}: .*levels")


@several(["step", "number", "height"])
def extra_dimension_by_name(folder: Path, name: str) -> Kind:
    data = coarse()
    both = xr.concat([data + 7, data], xr.Variable(name, [1, 5])).transpose("time", name, "lat", "lon")
    both["tas"].attrs = dict(KELVIN)
    given = save(both, folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given, select={name: 5}))


@several(["height", "number", "expver"])
def extra_dimension_of_one(folder: Path, name: str) -> Kind:
    return Kind(alone(save(regular().expand_dims({name: [2]}), folder / "a.nc")))


# ------------------------------------------------------------------------------------------- harmless differences
@kind
def latitude_falls(folder: Path) -> Kind:
    given = save(coarse().isel(lat=slice(None, None, -1)), folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given), driving=save(coarse(), folder / "other.nc"))


@kind
def latitude_rises_in_the_driver(folder: Path) -> Kind:
    given, other = save(coarse(), folder / "in.nc"), save(coarse().isel(lat=slice(None, None, -1)), folder / "other.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given), driving=other)


def globe(lon: np.ndarray) -> xr.Dataset:
    return regular(np.arange(-88.0, 89, 8), lon)


@kind
def longitudes_to_360(folder: Path) -> Kind:
    """Predictors around the circle from 0, targets on both sides of it; the driver from -180."""
    given = save(globe(np.arange(0.0, 360, 5)), folder / "in.nc")
    driving = save(globe(np.arange(-180.0, 180, 5)), folder / "other.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given), driving=driving)


@several(["as it lies", "sorted"])
def circle_cut_at_an_odd_place(folder: Path, order: str) -> Kind:
    lon = np.concatenate([np.arange(350.0, 360, 2.5), np.arange(0.0, 10, 2.5)])
    data = regular(COARSE_LAT, np.sort(lon) if order == "sorted" else lon)
    fine = regular(lon=(LON % 360)) if order == "as it lies" else regular(lon=np.sort(LON % 360))
    return Kind(beside(save(fine, folder / "a.nc"), save(data, folder / "in.nc")))


@kind
def circle_that_closes(folder: Path) -> Kind:
    """0 and 360 are one point."""
    given = save(globe(np.arange(0.0, 361, 5)), folder / "in.nc")
    return Kind(
        beside(save(regular(), folder / "a.nc"), given), driving=save(globe(np.arange(0.0, 360, 5)), folder / "b.nc")
    )


@kind
def six_hourly_predictors(folder: Path) -> Kind:
    """Of daily targets: those of the same hour."""
    data = coarse(n=4 * DAYS, freq="6h")
    data["tas"] = (data.tas.dims, plane(np.arange(4 * DAYS) / 4, *mesh(COARSE_LAT, COARSE_LON)).astype("f4"), KELVIN)
    return Kind(beside(save(regular(), folder / "a.nc"), save(data, folder / "in.nc")), says="steps of 0.25 days")


@kind
def times_that_are_rounded(folder: Path) -> Kind:
    data, fine = coarse(freq="6h"), regular(freq="6h")
    for part in (data, fine):
        part["tas"] = part.tas[:1].values + 0 * part.tas
    hours = np.arange(DAYS) / 4
    data["time"] = ("time", (hours - 1e-9).clip(0), {"units": "days since 2000-01-01"})
    return Kind(beside(save(fine, folder / "a.nc"), save(data, folder / "in.nc")), more={"days": 0})


@kind
def daily_means_at_noon(folder: Path) -> Kind:
    given = save(coarse(start="2000-01-01T12:00"), folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given))


@kind
def other_names_of_the_calendar(folder: Path) -> Kind:
    given = save(coarse(calendar="proleptic_gregorian"), folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given))


@kind
def more_times_than_needed(folder: Path) -> Kind:
    return Kind(beside(save(regular(n=DAYS), folder / "a.nc"), save(coarse(n=20, first=-4), folder / "in.nc")))


@kind
def fewer_times_than_needed(folder: Path) -> Kind:
    return Kind(
        beside(save(regular(), folder / "a.nc"), save(coarse(n=2, first=0), folder / "in.nc")), refused="2000-01-03"
    )


@kind
def months_since(folder: Path) -> Kind:
    data = regular(freq="MS")
    data["time"] = ("time", np.arange(DAYS, dtype=float), ALONG["time"] | {"units": "months since 2000-01-01"})
    return Kind(alone(save(data, folder / "a.nc")))


@several(["noleap", "360_day"])
def calendar(folder: Path, name: str) -> Kind:
    given = save(coarse(calendar=name), folder / "in.nc")
    return Kind(beside(save(regular(calendar=name), folder / "a.nc"), given))


@kind
def two_calendars(folder: Path) -> Kind:
    given = save(coarse(calendar="noleap"), folder / "in.nc")
    return Kind(beside(save(regular(), folder / "a.nc"), given), refused="noleap.*standard")


@several(["number", "realisation"])
def members_of_the_driver(folder: Path, name: str) -> Kind:
    data = coarse()
    both = xr.concat([data, data], xr.Variable(name, [0, 1]))
    return Kind(
        beside(save(regular(), folder / "a.nc"), save(data, folder / "in.nc")), driving=save(both, folder / "other.nc")
    )


@several(["degK"])
def kelvins(folder: Path, units: str) -> Kind:
    data = regular()
    data["tas"].attrs["units"] = units
    return Kind(alone(save(data, folder / "a.nc"), units="K"))


@several(["°C"])
def celsius(folder: Path, units: str) -> Kind:
    """Converted, in training and in the driver, which comes in kelvins."""
    data, given = regular(), coarse()
    for part in (data, given):
        part["tas"] = (part.tas.dims, part.tas.values - 273.15, {"units": units})
    driving = save(coarse(), folder / "other.nc")
    arguments = beside(save(data, folder / "a.nc"), save(given, folder / "in.nc"), units="K")
    arguments["targets"]["units"] = "K"
    return Kind(arguments, driving=driving)


@several(["kg m-2 s-1", "mm hr-1"])
def rain(folder: Path, units: str) -> Kind:
    """Converted to mm/day."""
    data, factor = regular(name="pr"), {"mm hr-1": 24}.get(units, 86400)
    data["pr"] = (
        data.pr.dims,
        data.pr.values.astype(float) / factor,
        {"units": units, "standard_name": "precipitation_flux"},
    )
    return Kind(alone(save(data, folder / "a.nc"), "pr", units="mm/day"))


@kind
def rain_as_an_amount(folder: Path) -> Kind:
    data = regular(name="pr")
    data["pr"].attrs = {"units": "mm"}
    return Kind(
        alone(save(data, folder / "a.nc"), "pr", units="mm/day"), says="pr in mm is taken for what falls in 24 h"
    )
