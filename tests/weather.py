"""Small gridded files, made on the spot, for tests: smooth fields that move, on any calendar and grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr


def smooth(n: int, rows: int, columns: int, seed: int = 0) -> np.ndarray:
    """n random fields of large waves, (n, rows, columns)."""
    draw = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    waves = [(draw.normal(size=(n, 1, 1)), *draw.uniform(1, 4, 2), draw.uniform(0, 6.3, (n, 1, 1))) for _ in range(6)]
    return np.asarray(sum(a * np.sin(2 * np.pi * (ky * y + kx * x) + p) for a, ky, kx, p in waves), np.float32)


def times(n: int, calendar: str = "standard", freq: str = "D", start: str = "2000-01-01") -> xr.CFTimeIndex:
    """n times."""
    return xr.date_range(start, periods=n, freq=freq, calendar=calendar, use_cftime=True)


def dataset(
    n: int = 40,
    rows: int = 16,
    columns: int = 24,
    *,
    names: tuple[str, ...] = ("tas",),
    calendar: str = "360_day",
    seed: int = 0,
) -> xr.Dataset:
    """Fields in K on a regular grid of 1 degree, daily."""
    coords = {
        "time": ("time", times(n, calendar), {"standard_name": "time", "axis": "T"}),
        "lat": ("lat", 40.0 + np.arange(rows), {"units": "degrees_north", "standard_name": "latitude", "axis": "Y"}),
        "lon": (
            "lon",
            350.0 + np.arange(columns),
            {"units": "degrees_east", "standard_name": "longitude", "axis": "X"},
        ),
    }
    fields = {
        name: (
            ("time", "lat", "lon"),
            280 + 5 * smooth(n, rows, columns, seed + i),
            {"units": "K", "long_name": f"field {name}"},
        )
        for i, name in enumerate(names)
    }
    return xr.Dataset(fields, coords, {"title": "a test", "institution": "none", "Conventions": "CF-1.8"})


def save(data: xr.Dataset, path: Path) -> str:
    """Write NetCDF-4, or Zarr for a name without a suffix; returns the path."""
    if path.suffix:
        data.to_netcdf(path, engine="h5netcdf" if path.suffix == ".nc" else "scipy")
    else:
        data.to_zarr(path)
    return str(path)


NET = {  # the smallest network for them
    "channels": 8,
    "multipliers": [1, 2],
    "blocks": 1,
    "attention": [],
    "dropout": 0.0,
    "progressive_input": "none",
}


def recipe(data: dict, **model) -> dict:
    """A run of two steps on gridded data."""
    arguments = {"class_path": "scorefield.nn.NCSNpp", "init_args": NET}
    train = {
        "steps": 2,
        "batch_size": 4,
        "validate_on": 4,
        "accelerator": "cpu",
        "preview_every": 2,
        "checkpoint_every": 2,
    }
    return {
        "base": "parts/edm-fields.yaml",
        "model": {"net": arguments, **model},
        "data": {"class_path": "scorefield.climate.Climate", "init_args": data},
        "train": train,
    }


def described(path: str, **more) -> dict:
    """Data of a file's tas, coarsened."""
    division = {
        "class_path": "scorefield.climate.Blocks",
        "init_args": {"days": 8, "cycle": 4, "valid": [3], "test": [2]},
    }
    return {"targets": {"path": path, "names": ["tas"]}, "coarsen": 4, "division": division, **more}
