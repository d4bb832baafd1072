"""What it takes to read gridded files before training: CPU-seconds and peak memory of opening, reading and describing them.

    python benchmarks/climate_reading.py FOLDER [one years store classic large]

7300 days of 17 variables on 16 × 16 points, in one compressed file with a chunk for each field, in a file for each year, as Zarr,
and as NetCDF-3; and one pass over a file of 6 GiB that does not fit into memory. Each in a process of its own.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

DAYS, NAMES = 7300, [f"v{number}" for number in range(17)]


def written(folder: Path, kind: str) -> Path:
    """The files of a kind, made where they are not there."""
    import h5py
    import xarray as xr

    path = (
        folder
        / {"one": "one.nc", "years": "years", "store": "store.zarr", "classic": "classic.nc", "large": "large.nc"}[kind]
    )
    if path.exists():
        return path
    n, size = (6144, 512) if kind == "large" else (DAYS, 16)
    coords = {
        "time": xr.date_range("1981-01-01", periods=n, freq="D"),
        "lat": ("lat", 40 + np.arange(size) / 16, {"units": "degrees_north"}),
        "lon": ("lon", np.arange(size) / 16, {"units": "degrees_east"}),
    }
    if kind == "large":  # of zeros, which take no room on the disk
        xr.Dataset(coords=coords).to_netcdf(path, engine="h5netcdf")
        with h5py.File(path, "a") as file:
            found = file.create_dataset("v0", (n, size, size), "f4")
            for axis, name in enumerate(coords):
                found.dims[axis].attach_scale(file[name])
        return path
    draw = np.random.default_rng(0)
    fields = {name: (tuple(coords), draw.normal(size=(n, size, size)).astype("f4"), {"units": "K"}) for name in NAMES}
    data = xr.Dataset(fields, coords)
    if kind == "one":
        packing = {"zlib": True, "complevel": 1, "chunksizes": (1, size, size)}
        data.to_netcdf(path, engine="h5netcdf", encoding=dict.fromkeys(NAMES, packing))
    elif kind == "years":
        path.mkdir()
        for year, part in data.groupby("time.year"):
            part.to_netcdf(path / f"{year}.nc", engine="h5netcdf")
    elif kind == "store":
        data.chunk(time=365).to_zarr(path)
    else:
        data.to_netcdf(path, engine="scipy")
    return path


def measure(path: Path, kind: str) -> None:
    from scorefield.climate import Climate, Variables, Years

    predictors = None if kind == "large" else Variables(str(path), NAMES)
    source = Climate(
        Variables(str(path), ["v0"]), Years(valid=(2000,)), predictors, memory=0.25 if kind == "large" else 4.0
    )
    start = time.process_time()
    fields = source.load("train")
    opened = time.process_time() - start
    fields.ready(), fields.metadata, fields.template.numel()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{kind}: {len(fields)} fields, {opened:.1f} CPU-s to open, {time.process_time() - start:.1f} for all, {peak:.2f} GiB"
    )


if __name__ == "__main__":
    folder, *kinds = sys.argv[1:]
    for kind in kinds or ["one", "years", "store", "classic", "large"]:
        if len(kinds) == 1:
            measure(written(Path(folder), kind), kind)
        else:
            written(Path(folder), kind)
            subprocess.run([sys.executable, __file__, folder, kind], check=True)
