"""Baselines on real pairs of grids: monthly observations with a sea against coarse, biased and displaced fields of them, and
yearly observations against a climate model that ran freely. Every one is drawn and scored by the command line.

    python climate_pairs.py OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from scorefield.cli import main

DATA = Path(os.environ["SCOREFIELD_DATA"]) / "climate"
PLAIN = ["Bilinear", "HourlyResidual", "Ridge", "Analogues", "BCSD", "MappedBilinear"]
DRESSED = ["DressedBilinear", "DressedRidge"]


def months(folder: Path) -> None:
    """bcsd_obs_1999, 33×81 with 22 % sea: two months of three to learn from; predictors of 7×17 points, displaced by 0.2 degrees,
    temperature 2 K too warm, rain a third too little, both with noise.
    """
    fine = xr.open_dataset(DATA / "bcsd_obs_1999.nc").load()
    coarse = displaced(fine, {"latitude": 7, "longitude": 17}, 0.2, 0.5)
    write(folder, fine, coarse, np.arange(12) % 3 == 1)


def decades(folder: Path) -> None:
    """Observed yearly temperature and rain over the United States, 56×116 with 26 % sea, 1950-1999: 40 years to learn from, 10 to
    test; predictors of 11×23 points, displaced by a fifth of their distance, 2 K too warm, a third too dry, with noise.
    """
    fine = xr.open_dataset(DATA / "xclim_conus_annual_pr_tas_1950_1999.nc").load()
    fine = fine[["meantemp", "totalpr"]].rename(meantemp="tas", totalpr="pr")
    lines = {str(d): n for d, n in zip(fine["tas"].dims[-2:], (11, 23), strict=True)}
    write(folder, fine, displaced(fine, lines, 0.5, 0.2), np.arange(fine.sizes["time"]) >= 40)


def displaced(fine: xr.Dataset, lines: dict[str, int], degrees: float, noise: float) -> xr.Dataset:
    """Means over 5×5 points at some lines, so many degrees off; 2 K too warm and a third too dry, with noise."""
    random, (rows, columns) = np.random.default_rng(0), lines
    axes = {name: np.linspace(float(fine[name].min()), float(fine[name].max()), n) for name, n in lines.items()}
    smooth = fine.rolling({rows: 5, columns: 5}, center=True, min_periods=1).mean()
    moved = {name: line + degrees for name, line in axes.items()}
    coarse = smooth.interp(moved, method="nearest", kwargs={"fill_value": "extrapolate"}).assign_coords(axes)
    coarse["tas"] = (coarse["tas"] + 2 + noise * random.normal(size=coarse["tas"].shape)).astype("f4")
    coarse["pr"] = (coarse["pr"] * 0.67 * np.exp(0.1 * random.normal(size=coarse["pr"].shape))).astype("f4")
    for name in ("tas", "pr"):
        coarse[name].attrs = fine[name].attrs
    return coarse


def years(folder: Path) -> None:
    """Observed yearly means over the United States, 56×116 with 26 % sea, 1950-1999, against the same years of a climate model,
    37×49, that ran freely: 40 years to learn from, 10 to test.
    """
    model = xr.open_dataset(DATA / "E1_north_america.nc").load()
    fine = xr.open_dataset(DATA / "xclim_conus_annual_pr_tas_1950_1999.nc").load()
    year = [time.year for time in model["time"].values]
    part = [i for i, y in enumerate(year) if 1950 <= y <= 1999]
    coarse = model[["air_temperature"]].isel(time=part).rename(air_temperature="meantemp")
    coarse = coarse.drop_vars([n for n in coarse.coords if n not in coarse.dims]).assign_coords(
        time=fine["time"].values
    )
    coarse["meantemp"].attrs["units"] = "K"
    write(folder, fine[["meantemp"]], coarse, np.arange(len(part)) >= 40)


def write(folder: Path, fine: xr.Dataset, coarse: xr.Dataset, test: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, chosen in (("train", ~test), ("test", test)):
        fine.isel(time=chosen).to_netcdf(folder / f"fine-{name}.nc", engine="h5netcdf")
        coarse.isel(time=chosen).to_netcdf(folder / f"coarse-{name}.nc", engine="h5netcdf")


def table(folder: Path, target: str, predictors: list[str], extra: dict[str, list[str]], blocks: str) -> None:
    """Draw, correct and score, and print a row for each."""
    print(f"\n{folder.name}, {target}\n\n| system | fair CRPS | bias | spread/skill |\n| --- | --- | --- | --- |")
    for name, dressed in [*((n, d) for n in PLAIN for d in (False, True)), *((n, False) for n in DRESSED)]:
        out = folder / f"{target}-{name}{'-dressed' * dressed}.nc"
        words = ["baseline", name, f"{folder}/coarse-test.nc", "--train-predictors", f"{folder}/coarse-train.nc"]
        words += ["--train-truth", f"{folder}/fine-train.nc", "--target", target, "--members", "20", "--out", str(out)]
        words += ["--predictor", *predictors, *extra.get(name, []), *(["--dressed"] if dressed else [])]
        row(out, main(words), folder, blocks, f"{name}{', dressed' * dressed}")
    out = folder / f"{target}-correct.nc"
    words = ["correct", f"{folder}/coarse-test.nc", "--train-samples", f"{folder}/coarse-train.nc", "--target", target]
    row(out, main([*words, "--train-truth", f"{folder}/fine-train.nc", "--out", str(out)]), folder, blocks, "`correct`")


def row(out: Path, code: int, folder: Path, blocks: str, label: str) -> None:
    scores = out.with_suffix("")
    words = [
        "verify",
        str(out),
        f"{folder}/fine-test.nc",
        "--blocks",
        blocks,
        "--replicates",
        "200",
        "--out",
        str(scores),
    ]
    if code or main(words):
        print(f"| {label} | failed |")
        return
    ((_, record),) = json.loads((scores / "verification.json").read_text())["variables"].items()
    crps, bias, spread = (record["all"].get(key) for key in ("crps", "bias", "spread_skill"))
    ends = f" [{crps['low']:.3f}, {crps['high']:.3f}]" if crps.get("low") is not None else ""
    ratio = f"{spread['value']:.2f}" if spread else ""
    print(f"| {label} | {crps['value']:.3f}{ends} | {bias['value']:+.3f} | {ratio} |", flush=True)


if __name__ == "__main__":
    root = Path(sys.argv[1])
    months(root / "months"), years(root / "years")
    rain = {"BCSD": ["--baseline.ratio", "true"], "MappedBilinear": ["--baseline.map.ratio", "true"]}
    table(root / "months", "tas", ["tas", "pr"], {}, "month")
    table(root / "months", "pr", ["pr", "tas"], rain, "month")
    decades(root / "decades")
    table(root / "decades", "tas", ["tas", "pr"], {}, "year")
    table(root / "decades", "pr", ["pr", "tas"], rain, "year")
    table(root / "years", "meantemp", ["meantemp"], {}, "year")
