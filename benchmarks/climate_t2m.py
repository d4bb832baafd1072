"""Downscaling of hourly 2 m temperature, 4× finer, against what it has to beat. One month shows that the code works, not skill.

    python benchmarks/climate_data.py --out DIR
    python benchmarks/climate_t2m.py DIR [--model NAME=FILE.nc ...]

FILE.nc holds predictions of a trained model for t2m-test.nc. Intervals are the central 95 % of 1000 draws of days with
replacement.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr

from climate_data import when
from climate_scores import System, markdown, members_of, percent, ratio, system, told
from scorefield.baselines import BCSD, Bilinear, DressedRidge, HourlyResidual, Ridge

MEMBERS, SEED = 8, 0
BASELINES = {
    "bilinear": Bilinear(),
    "hourly residual": HourlyResidual(),
    "ridge": Ridge(),
    "ridge, dressed": DressedRidge(),
    "BCSD": BCSD(),
}


def row(one: System, ridge: System, dressed: System) -> list[str]:
    figures = one.figures
    return [
        one.name,
        told(figures["crps"]),
        percent(ratio(one, ridge, "crps", "absolute")),
        percent(ratio(one, dressed)),
        told(figures["energy_score"], 3),
        f"{figures['log_spectral_distance']['value']:.2f}",
        told(figures["spread_skill"], 3) if "spread_skill" in figures else "",
        f"{figures['bias']['value']:+.3f}",
        f"{one.driving:.5f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[], help="NAME=FILE.nc")
    settings = parser.parse_args()
    train, test = (xr.open_dataset(settings.data / f"t2m-{part}.nc").load() for part in ("train", "test"))
    coarse, fine = train["coarse"].to_numpy(), train["t2m"].to_numpy()
    area = np.broadcast_to(np.cos(np.deg2rad(test["y"].to_numpy()))[:, None], fine.shape[1:])
    systems = {}
    for name, baseline in BASELINES.items():
        drawn = baseline.fit(coarse, fine, when(train)).draw(test["coarse"].to_numpy(), MEMBERS, SEED, when(test))
        chance = "dressed" in name
        systems[name] = system(name, drawn if chance else drawn[:1], test, "t2m", "day", float(fine.max()), area)
    for words in settings.model:
        name, _, path = words.partition("=")
        systems[name] = system(name, members_of(Path(path), "t2m"), test, "t2m", "day", float(fine.max()), area)
    header = [
        "system",
        "fair CRPS, K",
        "against ridge's MAE",
        "against dressed ridge",
        "energy score, K",
        "spectra, dB",
    ]
    header += ["spread/skill", "bias, K", "driving r"]
    ridge, dressed = systems["ridge"], systems["ridge, dressed"]
    print(markdown(header, [row(one, ridge, dressed) for one in systems.values()]))


if __name__ == "__main__":
    main()
