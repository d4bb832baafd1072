"""Downscaling of hourly 2 m temperature, 4× finer, against what it has to beat. One month shows that the code works, not skill.

    python benchmarks/climate_t2m.py [--model NAME=FILE.npy ...]

FILE.npy holds members (member, time, y, x) of a model for the test hours. Intervals are the central 95 % of 1000 draws of days
with replacement.
"""

from __future__ import annotations

import argparse

import numpy as np

from climate_data import LATITUDE, t2m
from climate_scores import Judge, System, markdown, percent, ratio, told
from scorefield.climate.baselines import BCSD, Bilinear, DressedRidge, HourlyResidual, Ridge

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
    parser.add_argument("--model", action="append", default=[], help="NAME=FILE.npy of members")
    parser.add_argument("--late", action="store_true", help="learn from days 1-14 and judge days 17-20: to choose by")
    settings = parser.parse_args()
    train, test = (t2m(part) for part in (("early", "late") if settings.late else ("train", "test")))
    judge = Judge(test, "K", float(train.fine.max()), LATITUDE)
    systems = {}
    for name, baseline in BASELINES.items():
        drawn = baseline.fit(train.coarse, train.fine, train.when).draw(test.coarse, MEMBERS, SEED, test.when)
        systems[name] = judge(name, drawn if "dressed" in name else drawn[:1])
    for words in settings.model:
        name, _, path = words.partition("=")
        systems[name] = judge(name, np.load(path))
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
