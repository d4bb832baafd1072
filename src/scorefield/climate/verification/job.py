"""`scorefield verify`: read, compare, write figures and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from scorefield.climate.alignment import canonical, check_units, coarse_boxes, same_times
from scorefield.climate.files import open_dataset
from scorefield.climate.verification.driving import consistency
from scorefield.climate.verification.pair import Pair, pair_up
from scorefield.climate.verification.pictures import draw
from scorefield.climate.verification.score import SCALES, Options, Scored, score
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_text
from scorefield.run.configuration import Parser

FIGURES = (  # name, how it is told
    ("crps", "fair CRPS"),
    ("mae_of_mean", "mean absolute error of the mean"),
    ("bias", "bias"),
    ("spread_skill", "spread over skill, 1 is best"),
    ("energy_score", "fair energy score"),
    ("log_spectral_distance", "log-spectral distance, dB"),
    ("wet_share_ratio", "wet area over the truth's"),
    ("wet_intensity_ratio", "wet intensity over the truth's"),
)


def add_arguments(parser: Parser) -> None:
    """What with what, and how."""
    parser.add_argument("pred", type=Path, help="predictions: NetCDF, Zarr or a folder of NetCDF; members or not")
    parser.add_argument("truth", type=Path, help="what happened, on the same grid, at least at the same times")
    parser.add_argument("--out", type=Path, required=True, help="folder to write verification.json and pictures into")
    parser.add_argument(
        "--variables", type=dict[str, str] | None, default=None, help="{name in predictions: name in truth}"
    )
    parser.add_argument(
        "--blocks",
        type=str | None,
        default=None,
        help="what is independent: day, month, year, 5D, or a coordinate along time",
    )
    parser.add_argument(
        "--regions", type=dict[str, str] | None, default=None, help='{name: "south:north,west:east"} in degrees'
    )
    parser.add_argument(
        "--driving", type=Path | None, default=None, help="coarse fields that predictions were made from"
    )
    parser.add_argument(
        "--thresholds", type=list[float], default=[], help="of fractions skill, in units of the variable"
    )
    parser.add_argument("--scales", type=list[int], default=list(SCALES), help="of its windows, in grid points")
    parser.add_argument("--wet", type=float | None, default=None, help="wet from here on; 0.1 mm/h or 1 mm/day")
    parser.add_argument("--replicates", type=int, default=500, help="of the bootstrap over blocks; 0 for none")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of ties of ranks")


def verify(
    settings: Namespace, notify: Callable[[str], object], progress: Callable[[int], object] = lambda n: None
) -> str:
    """Score predictions; writes verification.json and pictures and returns a table.

    Args:
        settings: of `add_arguments`.
        notify: is told what is out of the ordinary.
        progress: is told how many times are done.
    """
    out = settings.out / "verification.json"
    if out.exists():
        raise InputError(f"{out} exists: give another --out.")
    options = Options(
        tuple(settings.thresholds), tuple(settings.scales), settings.wet, settings.replicates, settings.seed
    )
    regions = {name: bounds(name, text) for name, text in (settings.regions or {}).items()}
    pair = pair_up(open_dataset(settings.pred), open_dataset(settings.truth), settings.variables, settings.blocks)
    parts = {name: pair.within(*corners) for name, corners in regions.items()}
    warn(pair, settings.blocks, notify)
    found = score(pair, options, progress)
    record = {"facts": facts(pair, settings, options), "variables": {name: one.record for name, one in found.items()}}
    if settings.driving is not None:
        record["driving"] = driven(pair, settings.driving)
    for name, part in parts.items():
        inside = score(part, options, progress)
        record.setdefault("regions", {})[name] = {key: one.record for key, one in inside.items()}
    y = pair.truth.coords.get("y")
    for name, one in found.items():
        draw(settings.out, name, one, north_up=y is not None and y.size > 1 and bool(y[0] > y[-1]))
    write_text(out, json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n")
    return table(found)


def driven(pair: Pair, path: Path) -> dict[str, Any]:
    """How near members are to the fields of another file, averaged over its boxes, for the variables that it has."""
    data = open_dataset(path)
    names = [str(name) for name in pair.truth.data_vars if name in data.data_vars]
    if not names:
        raise InputError(f"{path} has none of the variables {', '.join(map(str, pair.truth.data_vars))}.")
    coarse = same_times(pair.pred, canonical(data[names], str(path)))
    if "member" in coarse.dims:
        raise InputError(f"{path} has several members: select one of them first.")
    check_units(coarse, pair.truth[names], (str(path), "the truth"))
    coarse = coarse_boxes(coarse, pair.truth, (str(path), "the truth")).transpose("time", "y", "x", ...)
    return {name: consistency(pair, name, coarse[name].to_numpy()) for name in names}


def bounds(name: str, text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """`50:58,-10:2` as latitudes and longitudes."""
    try:
        (south, north), (west, east) = (tuple(map(float, part.split(":"))) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--regions: {name} is {text!r}, not south:north,west:east in degrees, as 50:58,-10:2."
        ) from None
    return (south, north), (west, east)


def warn(pair: Pair, blocks: str | None, notify: Callable[[str], object]) -> None:
    """What limits the meaning of the figures."""
    if pair.members == 1:
        notify("Predictions have one member: its CRPS is its absolute error, and spread and ranks do not exist.")
    if (count := len(set(pair.block.tolist()))) < 10:
        notify(f"There are {count} independent blocks: intervals mean little. --blocks tells what is independent.")
    if blocks is None and pair.dates.dated and pair.dates.step >= 24:
        notify(
            "Each day is taken for independent of the next: intervals are too narrow. Give --blocks 5D, month or year."
        )
    if blocks is None and "place" in pair.pred.coords:
        notify(
            "Each tile is taken for independent of all others: intervals are too narrow. Give --blocks place or day."
        )


def facts(pair: Pair, settings: Namespace, options: Options) -> dict[str, Any]:
    """What the figures were computed from."""
    from scorefield.training.loop import versions

    sizes = pair.truth.sizes
    return {
        "predictions": settings.pred.name,
        "truth": settings.truth.name,
        "members": pair.members,
        "times": sizes["time"],
        "grid": [sizes["y"], sizes["x"]],
        "blocks": len(set(pair.block.tolist())),
        "seed": options.seed,
        "replicates": options.replicates,
        "interval": "central 95 % over blocks drawn with replacement",
        "spectra": "ring means by wavenumber 1, 2, ... of the longer side",
        "versions": versions(),
    }


def finite(record: Any) -> Any:
    """JSON has no NaN: null."""
    if isinstance(record, dict):
        return {key: finite(value) for key, value in record.items()}
    if isinstance(record, list):
        return [finite(value) for value in record]
    return None if isinstance(record, float) and not math.isfinite(record) else record


def table(found: dict[str, Scored]) -> str:
    """The main figures, a line each."""
    lines = []
    for name, one in found.items():
        lines.append(f"{name} ({one.record['units'] or 'no units'})")
        rows = {told: one.record["all"][key] for key, told in FIGURES if key in one.record["all"]}
        rows |= {
            f"quantile {level}, bias": row["bias"] for level, row in one.record["all"].get("quantiles", {}).items()
        }
        for told, row in rows.items():
            interval = f"   [{row['low']:.4g}, {row['high']:.4g}]" if "low" in row else ""
            lines.append(f"  {told:34s}{row['value']:10.4g}{interval}")
    return "\n".join(lines)
