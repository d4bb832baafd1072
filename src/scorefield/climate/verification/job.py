"""Verification as a verb: predictions and truth read and compared, figures and pictures written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorefield.climate.alignment import (
    canonical,
    coarse_boxes,
    in_units_of,
    same_grid,
    same_times,
    single_member,
    with_grid,
)
from scorefield.climate.files import check_filled, identity_of, open_dataset, packing_of
from scorefield.climate.verification.driving import consistency
from scorefield.climate.verification.pair import Pair, pair_up
from scorefield.climate.verification.pictures import draw
from scorefield.climate.verification.score import SCALES, Options, against, score
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_json
from scorefield.foundation.progress import progress
from scorefield.metrics.spectrum import enough
from scorefield.run.runner import WholeJob, check_out, made_by_folder, record_in, run_job
from scorefield.run.verb import Count, CountOrZero, Seed, Verb, log, positional

FIGURES = {  # what is shown of the record, and its label
    "crps": "fair CRPS",
    "mae_of_mean": "mean absolute error of the mean",
    "bias": "bias",
    "spread_skill": "spread over skill, 1 is best",
    "energy_score": "fair energy score",
    "log_spectral_distance": "log-spectral distance, dB",
    "wet_share_ratio": "wet area over the truth's",
    "wet_intensity_ratio": "wet intensity over the truth's",
}


@dataclass(frozen=True, kw_only=True)
class Verify(Verb):
    """Score predictions, an ensemble or not, against the truth: NetCDF or Zarr in, figures and pictures out; a call that was
    interrupted is completed by the same call.

    Args:
        pred: predictions: NetCDF, Zarr or a folder of NetCDF; members or not.
        truth: what happened, on the same grid, at least at the same times.
        out: folder to write verification.json and pictures into.
        variables: {name in predictions: name in truth}.
        blocks: what is independent: day, month, year, 5D, or a coordinate along time.
        regions: {name: "south:north,west:east"} in degrees.
        driving: coarse fields that predictions were made from.
        further: {source: file} of more of them.
        baselines: {name: file} of what predictions have to beat, at least at the same times; the first line says where they lose.
        thresholds: of fractions skill, in units of the variable.
        scales: of its windows, in grid points.
        wet: wet from here on; 0.1 mm/h or 1 mm/day.
        replicates: of the bootstrap over blocks; 0 for none.
        seed: of the bootstrap and of ties of ranks.
    """

    pred: Path = positional()
    truth: Path = positional()
    out: Path
    variables: dict[str, str] | None = None
    blocks: str | None = None
    regions: dict[str, str] | None = None
    driving: Path | None = None
    further: dict[str, Path] | None = None
    baselines: dict[str, Path] | None = None
    thresholds: tuple[float, ...] = ()
    scales: tuple[Count, ...] = SCALES
    wet: float | None = None
    replicates: CountOrZero = 500
    seed: Seed = 0

    def check(self) -> None:
        check_out(self.out, folder=True)
        for name, text in (self.regions or {}).items():
            bounds(name, text)

    def run(self) -> dict[str, Any]:
        identity = identity_of(self)
        job = WholeJob(self.out, identity, lambda folder: self._write(folder, identity), made_by_folder)
        run_job(job, unit="time", title="verify")
        log.info("figures and pictures in %s", self.out)
        return json.loads((self.out / "verification.json").read_text(encoding="utf-8"))

    def _write(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Make the folder of figures and pictures."""
        pair = pair_up(open_dataset(self.pred), open_dataset(self.truth), self.variables, self.blocks)
        parts = {name: pair.within(*bounds(name, text)) for name, text in (self.regions or {}).items()}
        for note in limits(pair, self.blocks):
            log.warning(note)
        record: dict[str, Any] = {}
        if self.driving is not None or self.further:
            found = {} if self.driving is None else driven(pair, self.driving)
            for source, path in (self.further or {}).items():
                found |= {f"{source}.{name}": one for name, one in driven(pair, path).items()}
            record["driving"] = found
        options = Options(self.thresholds, self.scales, self.wet, self.replicates, self.seed)
        with progress(unit="time", title="verify") as bar:
            found = score(pair, options, bar.update)
            inside = {name: score(part, options, bar.update) for name, part in parts.items()}
        record |= {"facts": self._facts(pair), "variables": {name: one.record for name, one in found.items()}}
        if inside:
            record["regions"] = {name: {key: one.record for key, one in of.items()} for name, of in inside.items()}
        if self.baselines:
            record["baselines"] = {
                name: against(pair, beside(pair, path, self.truth, self.variables), options)
                for name, path in self.baselines.items()
            }
            log.warning(verdict(record["baselines"]))
        y = pair.truth.coords.get("y")
        folder.mkdir()
        for name, one in found.items():
            draw(folder, name, one, north_up=y is not None and y.size > 1 and bool(y[0] > y[-1]))
        write_json(folder / "verification.json", record)
        record_in(folder, identity)

    def _facts(self, pair: Pair) -> dict[str, Any]:
        """What the figures were computed from."""
        from scorefield.training.loop import versions

        sizes = pair.truth.sizes
        return {
            "predictions": self.pred.name,
            "truth": self.truth.name,
            "members": pair.members,
            "times": sizes["time"],
            "grid": [sizes["y"], sizes["x"]],
            "blocks": len(set(pair.block.tolist())),
            "seed": self.seed,
            "replicates": self.replicates,
            "interval": "central 95 % over blocks drawn with replacement",
            "spectra": "ring means by wavenumber 1, 2, ... of the longer side",
            "versions": versions(),
        }

    def table(self, found: Any) -> str:
        """Where predictions lose to a baseline, in the first line; then the main figures, a line each."""
        lines = [verdict(found["baselines"])] if "baselines" in found else []
        for name, record in found["variables"].items():
            lines.append(f"{name} ({record['units'] or 'no units'})")
            rows = {label: record["all"][key] for key, label in FIGURES.items() if key in record["all"]}
            for level, row in record["all"].get("quantiles", {}).items():
                rows[f"quantile {level}, bias"] = row["bias"]
            for label, row in rows.items():
                interval = f"   [{row['low']:.4g}, {row['high']:.4g}]" if row.get("low") is not None else ""
                value = "nan" if row["value"] is None else f"{row['value']:.4g}"
                lines.append(f"  {label:34s}{value:>10s}{interval}")
        return "\n".join(lines)


def driven(pair: Pair, path: Path) -> dict[str, Any]:
    """How near members are to the fields of another file, averaged over its boxes, for the variables that it has."""
    data = open_dataset(path)
    names = [str(name) for name in pair.truth.data_vars if name in data.data_vars]
    if not names:
        raise InputError(f"{path} has none of the variables {', '.join(map(str, pair.truth.data_vars))}.")
    coarse = same_times(pair.pred, canonical(with_grid(data, names), str(path)))
    coarse = single_member(coarse, str(path))
    coarse = in_units_of(coarse, pair.truth[names], (str(path), "the truth"))
    coarse = coarse_boxes(coarse, pair.truth, (str(path), "the truth")).transpose("time", "y", "x", ...)
    fields = {name: coarse[name].to_numpy() for name in names}
    for name, one in fields.items():
        check_filled(one, f"{path}: {name}", packing_of(coarse[name]))
    return {name: consistency(pair, name, one) for name, one in fields.items()}


def beside(pair: Pair, path: Path, truth: Path, variables: Mapping[str, str] | None) -> Pair:
    """Other predictions of the same times and boxes. InputError where they are not there."""
    data = open_dataset(path)
    if missing := [
        name for name in pair.truth.data_vars if name not in data and f"pred_{name}" not in data and not variables
    ]:
        raise InputError(
            f"{path} has no variable {missing[0]}, which the predictions have: leave it out by --variables."
        )
    named = {(a if a in data else b): b for a, b in variables.items()} if variables else None
    other = pair_up(data, open_dataset(truth), named)
    roles = ("the predictions", str(path))
    pred = same_grid(pair.pred, same_times(pair.pred, other.pred), roles).transpose("member", "time", "y", "x", ...)
    return replace(pair, pred=pred)


def verdict(baselines: Mapping[str, Any]) -> str:
    """Where predictions lose to a baseline by their CRPS, in one line."""
    rows = [(name, variable, row) for name, of in baselines.items() for variable, row in of.items()]

    def told(name: str, variable: str, row: Mapping[str, Any]) -> str:
        found = row["skill"]
        interval = f" [{found['low']:+.1%}, {found['high']:+.1%}]" if found.get("low") is not None else ""
        scores = f"CRPS {row['crps']:.4g} against {row['crps_baseline']:.4g}"
        value = "" if found["value"] is None else f", skill {found['value']:+.1%}"
        return f"{variable} to {name} ({scores}{value}{interval})"

    lost = [row for row in rows if row[2]["crps"] > row[2]["crps_baseline"]]
    unsure = [f"{variable} over {name}" for name, variable, row in rows if not (row["skill"].get("low") or 0) > 0]
    if lost:
        return "LOSES: " + "; ".join(told(*row) for row in lost)
    words = f"; not beyond chance: {', '.join(unsure)}" if unsure else ""
    return f"Better than {', '.join(baselines)} by CRPS{words}"


def bounds(name: str, text: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """`50:58,-10:2` as latitudes and longitudes."""
    try:
        (south, north), (west, east) = (tuple(map(float, part.split(":"))) for part in text.split(","))
    except ValueError:
        raise InputError(
            f"--regions: {name} is {text!r}, not south:north,west:east in degrees, as 50:58,-10:2."
        ) from None
    return (south, north), (west, east)


def limits(pair: Pair, blocks: str | None) -> Iterator[str]:
    """What limits the meaning of the figures."""
    narrow = "is taken for independent of {}: intervals are too narrow. Give --blocks {}."
    if pair.members == 1:
        yield "Predictions have one member: its CRPS is its absolute error, and spread and ranks do not exist."
    if (count := len(set(pair.block.tolist()))) < 10:
        yield f"There are {count} independent blocks: intervals mean little. --blocks says what is independent."
    if blocks is None and pair.dates.dated and pair.dates.step >= 24:
        yield "Each day " + narrow.format("the next", "5D, month or year")
    for name in pair.truth.data_vars:
        if told := untold_spectra(pair, str(name)):
            yield told
    if pair.dates.dated and pair.hours > pair.dates.step * 1.001:
        yield f"Values are of {pair.hours:.4g} h and {pair.dates.step:.4g} h apart: they overlap, or their bounds are wrong."
    if blocks is None and "place" in pair.pred.coords:
        yield "Each tile " + narrow.format("all others", "place or day")


def untold_spectra(pair: Pair, name: str) -> str | None:
    """What is said of spectra where fields have gaps, by the first field."""
    _, truth = pair.at(name, time=slice(0, 1))
    valid = torch.from_numpy(np.isfinite(truth[0]))
    if bool(valid.all()):
        return None
    gaps = f"{name} is unknown at {1 - float(valid.double().mean()):.0%} of the points:"
    if bool(enough(valid)):
        return f"{gaps} spectra are estimated from pairs of known points, see docs/verification.md."
    return f"{gaps} spectra of such fields are left out, too few pairs of points are known. --regions may have more."
