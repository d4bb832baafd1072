"""Downscaling of radar precipitation, 8× finer, against what it has to beat.

    python benchmarks/climate_data.py --out DIR
    python benchmarks/climate.py DIR [--model NAME=FILE.nc ...]

FILE.nc holds predictions of a trained model for mrms-test.nc, dimensions (member, time, y, x), as `scorefield downscale` writes
them. Prints a table; every interval is the central 95 % of 1000 draws of places with replacement.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import xarray as xr

from climate_data import when
from climate_scores import System, markdown, members_of, percent, ratio, system, told
from scorefield.baselines import BCSD, Bilinear, DressedBilinear, DressedRidge, Ridge

MEMBERS, SEED = 8, 0
BASELINES = {
    "bilinear": Bilinear(),
    "bilinear, dressed": DressedBilinear(),
    "ridge": Ridge(),
    "ridge, dressed": DressedRidge(),
    "BCSD": BCSD(ratio=True),
    "BCSD, wet days": BCSD(ratio=True, wet=0.1),
}


def row(one: System, bilinear: System, dressed: System) -> list[str]:
    figures, q = one.figures, one.figures["quantiles"]
    return [
        one.name,
        told(figures["crps"]),
        percent(ratio(one, bilinear, "crps", "absolute")),
        percent(ratio(one, dressed)),
        f"{figures['log_spectral_distance']['value']:.2f}",
        told(figures["spread_skill"], 3) if "spread_skill" in figures else "",
        told(figures["wet_share_ratio"], 3),
        f"{100 * (q['0.99']['ratio']['value'] - 1):+.1f} %",
        f"{100 * (q['0.999']['ratio']['value'] - 1):+.1f} %",
        f"{one.driving:.4f}",
        f"{1e4 * one.above:.2f}",
        told(figures["energy_score"], 3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", action="append", default=[], help="NAME=FILE.nc")
    settings = parser.parse_args()
    train, test = (xr.open_dataset(settings.data / f"mrms-{part}.nc").load() for part in ("train", "test"))
    coarse, fine = train["coarse"].to_numpy(), train["precip_rate"].to_numpy()
    highest = float(fine.max())
    systems = []
    for name, baseline in BASELINES.items():
        drawn = baseline.fit(coarse, fine, when(train)).draw(test["coarse"].to_numpy(), MEMBERS, SEED, when(test))
        chance = "dressed" in name
        systems.append(system(name, drawn if chance else drawn[:1], test, "precip_rate", "location", highest))
    for words in settings.model:
        name, _, path = words.partition("=")
        systems.append(system(name, members_of(Path(path), "precip_rate"), test, "precip_rate", "location", highest))
    places = [len(set(data["location"].to_numpy().tolist())) for data in (train, test)]
    print(
        f"{train.sizes['time']} training tiles at {places[0]} places, {test.sizes['time']} test tiles at {places[1]} places\n"
    )
    truth = systems[0].figures["quantiles"]
    for level in ("0.99", "0.999"):
        print(f"truth's quantile {level}: {told(truth[level]['truth'])} mm/h")
    header = [
        "system",
        "fair CRPS, mm/h",
        "against bilinear's MAE",
        "against dressed bilinear",
        "spectra, dB",
        "spread/skill",
    ]
    header += ["wet area", "q99", "q99.9", "driving r", "above max, 1e-4", "energy score"]
    print("\n" + markdown(header, [row(one, systems[0], systems[1]) for one in systems]))


if __name__ == "__main__":
    main()
