"""The pairs of coarse and fine fields on which downscaling is measured, from real data, and how predictions for them are scored.

    python benchmarks/climate_data.py --out DIR

writes mrms-train.nc, mrms-test.nc, t2m-train.nc and t2m-test.nc: the fine field, the coarse one on its own grid (dimensions
coarse_y, coarse_x) and, for the radar, where each tile lies. SCOREFIELD_DATA is the folder of the data.

Radar: NOAA MRMS precipitation rate of 10 June 2019 on 0.01°, 6 frames 14 minutes apart, cut into tiles of 64×64 from the
north-west corner; tiles without NaN of which more than 20 % are wet (> 0.1 mm/h); coarsened 8×. Whole columns of tiles, bands of
longitude, are for testing, and the columns beside them for nothing. The frames repeat each place: places, not tiles, are
independent.

Temperature: ERA5 2 m temperature, March 2019, 33×49 points of which the northern 32 and western 48 are taken; coarsened 4×. Days
1-20 are for training, 23-31 for testing. Days are taken for independent, which they are not quite.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import xarray as xr

from scorefield.baselines.baseline import When, block_mean

TILE, COARSENING = 64, 8
TEST_COLUMNS = (30, 49, 62, 73)
WET = 0.1  # mm/h
T2M_COARSENING = 4
TRAIN_DAYS, TEST_DAYS = range(1, 21), range(23, 32)


def folder() -> Path:
    """Where the data lie."""
    return Path(os.environ["SCOREFIELD_DATA"]) / "climate"


def mrms() -> tuple[xr.Dataset, xr.Dataset]:
    """Training and test tiles."""
    rates = xr.open_dataset(folder() / "mrms_preciprate_conus_20190610.nc")["precip_rate"]
    rows, columns = rates.sizes["lat"] // TILE, rates.sizes["lon"] // TILE
    kept, places = [], []
    for frame in range(rates.sizes["time"]):
        field = rates[frame, : rows * TILE, : columns * TILE].to_numpy()
        tiles = field.reshape(rows, TILE, columns, TILE).swapaxes(1, 2)
        good = np.isfinite(tiles).all((2, 3)) & ((tiles > WET).mean((2, 3)) > 0.2)
        kept.append(tiles[good])
        places.append(np.column_stack((*good.nonzero(), np.full(good.sum(), frame))))
    fine, place = np.concatenate(kept), np.concatenate(places)
    test = np.isin(place[:, 1], TEST_COLUMNS)
    guard = np.isin(place[:, 1], [c + d for c in TEST_COLUMNS for d in (-1, 1)]) & ~test
    found = []
    for chosen in (~test & ~guard, test):
        row, column, frame = place[chosen].T
        data = pairs("precip_rate", fine[chosen], COARSENING, "mm/h")
        found.append(data.assign_coords(location=("time", row * columns + column), frame=("time", frame)))
    return found[0], found[1]


def t2m() -> tuple[xr.Dataset, xr.Dataset]:
    """Training and test hours."""
    field = xr.open_dataset(folder() / "era5_t2m_uk_201903.nc")["t2m"].isel(
        latitude=slice(0, 32), longitude=slice(0, 48)
    )
    found = []
    for days in (TRAIN_DAYS, TEST_DAYS):
        part = field.isel(time=np.isin(field["time"].dt.day, list(days)))
        area = np.broadcast_to(np.cos(np.deg2rad(part["latitude"].to_numpy()))[:, None], part.shape[1:])
        coords = {"y": part["latitude"].to_numpy(), "x": part["longitude"].to_numpy(), "time": part["time"].to_numpy()}
        data = pairs("t2m", part.to_numpy(), T2M_COARSENING, "K", area).assign_coords(coords)
        data["y"].attrs |= {"standard_name": "latitude", "units": "degrees_north"}
        data["x"].attrs |= {"standard_name": "longitude", "units": "degrees_east"}
        found.append(data)
    return found[0], found[1]


def pairs(name: str, fine: np.ndarray, factor: int, units: str, area: np.ndarray | None = None) -> xr.Dataset:
    """Fine fields and their block means."""
    coarse = block_mean(fine, (factor, factor), area).astype(np.float32)
    fields = {name: (("time", "y", "x"), fine), "coarse": (("time", "coarse_y", "coarse_x"), coarse)}
    data = xr.Dataset(fields)
    for variable in data.data_vars.values():
        variable.attrs["units"] = units
    return data


def when(data: xr.Dataset) -> When:
    """What baselines are told of time."""
    if "location" in data.coords:
        return When(np.zeros(data.sizes["time"], int), data["location"].to_numpy())
    return When(data["time"].dt.hour.to_numpy(), data["time"].dt.day.to_numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, (train, test) in (("mrms", mrms()), ("t2m", t2m())):
        for part, data in (("train", train), ("test", test)):
            data.to_netcdf(out / f"{name}-{part}.nc", engine="h5netcdf")
            print(f"{name}-{part}.nc: {dict(data.sizes)}")


if __name__ == "__main__":
    main()
