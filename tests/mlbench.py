"""A small set in exactly the layout of CORDEX ML-Bench: names, folders, variables, grids and calendars of each domain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from weather import smooth

GCMS = {"ALPS": ("CNRM-CM5", "MPI-ESM-LR"), "NZ": ("ACCESS-CM2", "EC-Earth3"), "SA": ("ACCESS-CM2", "NorESM2-MM")}
YEARS = {"historical": "1981-2000", "mid_century": "2041-2060", "end_century": "2080-2099"}
UNITS = {"u": "m s-1", "v": "m s-1", "q": "kg kg-1", "t": "K", "z": "m"}
LEVEL = {"u": (5, 4), "v": (0, 4), "q": (6e-3, 1e-3), "t": (275, 5), "z": (3000, 50)}  # mean and spread


def days(years: str, n: int, calendar: str) -> xr.CFTimeIndex:
    """n days at noon of the first and as many of the last year of each span."""
    ends = [year for span in years.split("_") for year in span.split("-")]
    parts = [xr.date_range(f"{y}-03-01T12:00", periods=n, calendar=calendar, use_cftime=True) for y in ends]
    return parts[0].append(parts[1:])


def predictors(years: str, n: int, seed: int, calendar: str, size: int) -> xr.Dataset:
    time = days(years, n, calendar)
    lat, lon = (-40 + 2.0 * np.arange(size), 11 + 2.0 * np.arange(size))
    coords = {
        "time": ("time", time, {"standard_name": "time", "axis": "T"}),
        "lon": ("lon", lon, {"units": "degrees_east", "standard_name": "longitude"}),
        "lat": ("lat", lat, {"units": "degrees_north", "standard_name": "latitude"}),
    }
    data = xr.Dataset(coords=coords)
    for number, (name, units) in enumerate(UNITS.items()):
        for level in (850, 700, 500):
            mean, spread = LEVEL[name]
            values = mean + spread * smooth(len(time), size, size, 100 * seed + number + level)
            data[f"{name}_{level}"] = ("time", "lat", "lon"), values.astype("f4"), {"units": units}
    return data


def target(domain: str, years: str, n: int, size: int) -> xr.Dataset:
    """Rain in float64 without units but in SA, temperature in float32; ALPS on a projection, with a mapping that is not there."""
    time = days(years, n, "standard")
    rows = ("y", "x") if domain == "ALPS" else ("lat", "lon")
    coords = {"time": ("time", time, {"standard_name": "time", "axis": "T"})}
    north, east = -34.0 + 0.1 * np.arange(size), 20.5 + 0.1 * np.arange(size)
    if domain == "ALPS":
        lat, lon = np.meshgrid(north, east, indexing="ij")
        for name, start in (("y", 1412.5), ("x", 2062.5)):
            attrs = {"units": "km", "standard_name": f"projection_{name}_coordinate", "axis": name.upper()}
            coords[name] = (name, start + 12.5 * np.arange(size), attrs)
        coords["lat"] = (rows, lat + 0.02 * (lon - 20), {"units": "degrees_north", "standard_name": "latitude"})
        coords["lon"] = (rows, lon, {"units": "degrees_east", "standard_name": "longitude"})
    else:
        coords["lat"] = (
            "lat",
            north.astype("f4"),
            {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"},
        )
        coords["lon"] = ("lon", east.astype("f4"), {"units": "degrees_east", "standard_name": "longitude", "axis": "X"})
    data = xr.Dataset(coords=coords)
    rain = np.maximum(4 * smooth(len(time), size, size, 7) - 2, 0).astype("f8")
    data["pr"] = ("time", *rows), rain, {"units": "mm/day"} if domain == "SA" else {}
    warm = {"standard_name": "air_temperature", "units": "K", "long_name": "Daily Maximum Near-Surface Air Temperature"}
    warm |= {"grid_mapping": "Lambert_Conformal"} if domain == "ALPS" else {}
    data["tasmax"] = ("time", *rows), 285 + 4 * smooth(len(time), size, size, 8), warm
    return data


def save(data: xr.Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # whoever has it open keeps what was there
    data.to_netcdf(path, engine="h5netcdf")


def make(
    root: Path, domains: tuple[str, ...] = ("NZ",), n: int = 5, size: int = 16, coarse: int = 16,
    periods: tuple[str, ...] = tuple(YEARS),
) -> Path:  # fmt: skip
    """The benchmark below a folder, with a few days of each period."""
    for domain in domains:
        folder = root / domain / f"{domain}_domain"
        first, other = GCMS[domain]
        for experiment, years in (("ESD_pseudo_reality", "1961-1980"), ("Emulator_hist_future", "1961-1980_2080-2099")):
            train = folder / "train" / experiment
            save(predictors(years, n, 0, "standard", coarse), train / "predictors" / f"{first}_{years}.nc")
            fine = target(domain, years, n, size)
            save(fine, train / "target" / f"pr_tasmax_{first}_{years}.nc")
            orog = fine[["tasmax"]].isel(time=0, drop=True).rename(tasmax="orog") * 3
            save(orog, train / "predictors" / ("Static_fields.nc" if domain == "SA" else "static.nc"))
        for seed, period in enumerate(periods, 1):
            years = YEARS[period]
            for condition in ("perfect", "imperfect"):
                for gcm in (first, other):
                    odd = gcm == "NorESM2-MM" and condition == "imperfect"
                    data = predictors(years, n, seed, "noleap" if odd else "standard", coarse)
                    save(data, folder / "test" / period / "predictors" / condition / f"{gcm}_{years}.nc")
    return root
