"""Figures from sums, and how far they would wander if other blocks had been observed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.climate.verification.sums import Measures, Sums
from scorefield.foundation.random import sequence
from scorefield.metrics.ensemble import spread_skill
from scorefield.metrics.marginal import quantiles
from scorefield.metrics.neighbourhood import fractions_skill
from scorefield.metrics.spectrum import log_spectral_distance

LEVELS = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)


def figures(sums: Sums, measures: Measures) -> dict[str, float]:
    """Every figure of summed times, by a name whose parts are separated by slashes.

    Args:
        sums: of `sums_of`, added over times.
        measures: what was measured.
    """
    total, members = sums["weight"], len(sums["ranks"]) - 1
    mean = {
        name: float(sums[name] / total)
        for name in ("crps", "error", "squared", "variance", "absolute", "mean", "mean_truth")
    }
    found = {
        "crps": mean["crps"],
        "mae_of_mean": mean["absolute"],
        "rmse_of_mean": math.sqrt(mean["squared"]),
        "bias": mean["error"],
        "mean": mean["mean"],
        "mean_truth": mean["mean_truth"],
        "energy_score": float(sums["energy"] / sums["fields"]),
    }
    if members > 1:
        found["spread"] = math.sqrt(mean["variance"])
        found["spread_skill"] = float(spread_skill(sums["variance"] / total, sums["squared"] / total, members))
        found["outside_ensemble"] = float((sums["ranks"][0] + sums["ranks"][-1]) / total) * (members + 1) / 2
    if "power" in sums and float(sums["spectra"]) > 0:
        found["log_spectral_distance"] = float(log_spectral_distance(sums["power"], sums["power_truth"]))
    return found | _quantiles(sums, measures) | _fractions(sums, measures) | _wet(sums, measures)


def _quantiles(sums: Sums, measures: Measures) -> dict[str, float]:
    if len(measures.edges) < 2:
        return {}
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    ours, theirs = (quantiles(sums[name], measures.edges, levels).tolist() for name in ("counts", "counts_truth"))
    found = {}
    for level, one, other in zip(LEVELS, ours, theirs, strict=True):
        found |= {f"quantiles/{level:g}/prediction": one, f"quantiles/{level:g}/truth": other}
        found[f"quantiles/{level:g}/bias"] = one - other
        if measures.wet is not None and other > 0:
            found[f"quantiles/{level:g}/ratio"] = one / other
    return found


def _fractions(sums: Sums, measures: Measures) -> dict[str, float]:
    return {
        f"fractions_skill/{threshold:.6g}/{scale}": float(fractions_skill(sums[f"fractions {i} {scale}"]))
        for i, threshold in enumerate(measures.thresholds)
        for scale in measures.scales
    }


def _wet(sums: Sums, measures: Measures) -> dict[str, float]:
    if measures.wet is None:
        return {}
    found = {
        "wet_share": float(sums["wet"] / sums["weight"]),
        "wet_share_truth": float(sums["wet_truth"] / sums["weight"]),
    }
    found["wet_share_ratio"] = float(sums["wet"] / sums["wet_truth"])
    intensity = [sums[f"amount{name}"] / sums[f"wet{name}"] for name in ("", "_truth")]
    return found | {"wet_intensity_ratio": float(intensity[0] / intensity[1])}


def curves(sums: Sums, measures: Measures) -> dict[str, Any]:
    """What is drawn: frequencies of ranks, 1 where as expected, spectra by wavenumber 1, 2, ... of the longer side, and for each
    threshold how often the truth reaches it where so many of the members do.
    """
    found: dict[str, Any] = {}
    if len(sums["ranks"]) > 2:
        found["rank_frequencies"] = (sums["ranks"] / sums["ranks"].sum() * len(sums["ranks"])).tolist()
    if "power" in sums and float(sums["spectra"]) > 0:
        for name in ("power", "power_truth"):
            found[name] = (sums[name] / sums["spectra"]).tolist()
    for i, threshold in enumerate(measures.thresholds):
        if f"forecasts {i}" in sums:
            rows = sums[f"forecasts {i}"], sums[f"events {i}"] / sums[f"forecasts {i}"]
            share = (rows[0] / rows[0].sum()).tolist()
            found.setdefault("reliability", {})[f"{threshold:.6g}"] = {"share": share, "observed": rows[1].tolist()}
    return found


def with_bands(sums: Sums, measures: Measures, replicates: int, seed: int) -> dict[str, Any]:
    """The curves of all blocks, and for ranks and reliability the bands in which 95 % of those of an ensemble lie that the truth
    could belong to: as far about what is expected as the curve wanders when blocks are drawn with replacement.

    Args:
        sums: of each block.
        measures: what was measured.
        replicates: how often blocks are drawn; none with fewer than two.
        seed: of the draws.
    """
    blocks = len(sums["weight"])
    found = curves(added(sums, np.ones(blocks)), measures)
    if not replicates or blocks < 2:
        return found
    kept = {
        name: value
        for name, value in sums.items()
        if name.split()[0] in ("weight", "ranks", "forecasts", "events", "spectra")
    }
    rows = [curves(added(kept, times), measures) for times in draws(blocks, replicates, seed)]
    if "rank_frequencies" in found:
        found["rank_band"] = _band(found["rank_frequencies"], [row["rank_frequencies"] for row in rows], 1.0)
    for threshold, curve in found.get("reliability", {}).items():
        expected = np.linspace(0, 1, len(curve["observed"]))
        drawn = [row["reliability"][threshold]["observed"] for row in rows]
        curve["band"] = [np.clip(end, 0, 1).tolist() for end in _band(curve["observed"], drawn, expected)]
    return found


def _band(curve: list[float], drawn: list[list[float]], expected: float | np.ndarray) -> list[list[float]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of probabilities that no block has
        ends = np.nanquantile(np.array(drawn) - np.array(curve), (0.025, 0.975), axis=0)
    return (ends + expected).tolist()


def draws(blocks: int, replicates: int, seed: int) -> np.ndarray:
    """How often each block is drawn, with replacement, in each replicate: (replicates, blocks)."""
    random = np.random.Generator(np.random.SFC64(sequence(seed, blocks)))
    return random.multinomial(blocks, np.full(blocks, 1 / blocks), size=replicates)


def added(sums: Sums, times: Sequence[float] | np.ndarray | Tensor) -> dict[str, Tensor]:
    """The sums of blocks, each taken so many times."""
    count = torch.as_tensor(np.asarray(times), dtype=torch.float64)
    return {name: torch.tensordot(count, value.double(), dims=1) for name, value in sums.items()}


def with_intervals(sums: Sums, measures: Measures, replicates: int, seed: int) -> dict[str, Any]:
    """Every figure with the central 95 % of what it is when blocks are drawn with replacement; nested by its name.

    Args:
        sums: of each block.
        measures: what was measured.
        replicates: how often blocks are drawn; none with fewer than two blocks.
        seed: of the draws.
    """
    blocks = len(sums["weight"])
    found: dict[str, Any] = {
        name: {"value": value} for name, value in figures(added(sums, np.ones(blocks)), measures).items()
    }
    if replicates and blocks > 1:
        rows = [figures(added(sums, times), measures) for times in draws(blocks, replicates, seed)]
        for name, figure in found.items():
            values = np.array([row[name] for row in rows if name in row])
            values = values[np.isfinite(values)]
            if len(values):
                figure["low"], figure["high"] = np.quantile(values, (0.025, 0.975)).tolist()
    return nested(found)


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`a/b` as a mapping within a mapping."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        *path, last = name.split("/")
        here = found
        for part in path:
            here = here.setdefault(part, {})
        here[last] = value
    return found


def skill(ours: Tensor, theirs: Tensor, replicates: int, seed: int) -> dict[str, float]:
    """1 − a/b of two scores, from their sums in blocks (blocks), with the central 95 % when blocks are drawn with replacement."""
    found = {"value": float(1 - ours.sum() / theirs.sum())}
    if replicates and len(ours) > 1:
        times = torch.from_numpy(draws(len(ours), replicates, seed)).double()
        values = (1 - (times @ ours) / (times @ theirs)).numpy()
        values = values[np.isfinite(values)]
        if len(values):
            found["low"], found["high"] = np.quantile(values, (0.025, 0.975)).tolist()
    return found
