"""Pictures of a verification: maps, spectra, rank histogram, quantiles, cycles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scorefield.climate.verification.score import Scored
from scorefield.foundation.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAPS = {"crps": "CRPS", "error": "mean − truth", "wasserstein": "Wasserstein distance"}


def draw(folder: Path, name: str, scored: Scored, *, north_up: bool) -> list[Path]:
    """Write the pictures of one variable and say which.

    Args:
        folder: where to.
        name: of the variable.
        scored: its figures.
        north_up: whether the first row of the grid is the northernmost.
    """
    written = [_save(_maps(name, scored, north_up), folder / f"{name}-maps.png")]
    for word, figure in (
        ("spectrum", _spectrum),
        ("ranks", _ranks),
        ("reliability", _reliability),
        ("quantiles", _quantiles),
        ("cycles", _cycles),
    ):
        if drawn := figure(name, scored.record):
            written.append(_save(drawn, folder / f"{name}-{word}.png"))
    return written


def _figure(columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 4.0), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(1, columns)))


def _save(figure: Figure, path: Path) -> Path:
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return path


def _maps(name: str, scored: Scored, north_up: bool) -> Figure:
    kept = {key: title for key, title in MAPS.items() if np.isfinite(scored.maps[key]).any()}
    figure, axes = _figure(len(kept))
    for one, (key, title) in zip(axes, kept.items(), strict=True):
        values = scored.maps[key]
        limit = np.nanquantile(np.abs(values), 0.99) or None
        around = {"cmap": "RdBu_r", "vmin": None if limit is None else -limit, "vmax": limit}
        style: dict[str, Any] = around if key == "error" else {"cmap": "viridis", "vmin": 0, "vmax": limit}
        shown = one.imshow(values, origin="upper" if north_up else "lower", **style)
        figure.colorbar(shown, ax=one, label=scored.record["units"], shrink=0.8)
        one.set(title=f"{name}: {title}", xticks=[], yticks=[])
    return figure


def _spectrum(name: str, record: dict[str, Any]) -> Figure | None:
    if "power" not in record["all"]:
        return None
    figure, (axes,) = _figure()
    wavenumber = np.arange(1, len(record["all"]["power"]) + 1)
    for key, label in (("power_truth", "truth"), ("power", "prediction")):
        axes.loglog(wavenumber, record["all"][key], label=label)
    distance = record["all"]["log_spectral_distance"]["value"]
    axes.set(xlabel="wavenumber, cycles over the longer side", ylabel=f"ring mean of power, ({record['units']})²")
    axes.set(title=f"{name}: log-spectral distance {distance:.2f} dB")
    axes.legend(frameon=False)
    return figure


def _ranks(name: str, record: dict[str, Any]) -> Figure | None:
    frequencies = record["all"].get("rank_frequencies")
    if not frequencies:
        return None
    figure, (axes,) = _figure()
    axes.bar(np.arange(len(frequencies)), frequencies, width=0.9)
    axes.axhline(1, color="black", linewidth=0.8)
    if band := record["all"].get("rank_band"):
        axes.fill_between(
            np.arange(len(frequencies)), *band, color="black", alpha=0.2, step="mid", label="95 % by chance"
        )
        axes.legend(frameon=False)
    axes.set(
        xlabel="members below the truth", ylabel="frequency, 1 if exchangeable", title=f"{name}: ranks of the truth"
    )
    return figure


def _reliability(name: str, record: dict[str, Any]) -> Figure | None:
    curves = record["all"].get("reliability", {})
    if not curves:
        return None
    figure, axes = _figure(len(curves))
    for one, (threshold, curve) in zip(axes, curves.items(), strict=True):
        probability = np.linspace(0, 1, len(curve["observed"]))
        if band := curve.get("band"):
            one.fill_between(probability, *band, color="black", alpha=0.2, label="95 % by chance")
        one.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        one.plot(probability, curve["observed"], marker="o", markersize=4, label="observed")
        one.plot(probability, curve["share"], linewidth=0.8, label="share of forecasts")
        one.set(xlabel=f"share of members from {threshold} {record['units']}", ylabel="share of truth", title=name)
        one.legend(frameon=False)
    return figure


def _quantiles(name: str, record: dict[str, Any]) -> Figure | None:
    rows = record["all"].get("quantiles", {})
    if not rows:
        return None
    figure, (axes,) = _figure()
    truth = [row["truth"]["value"] for row in rows.values()]
    drawn = [row["prediction"] for row in rows.values()]
    ours = np.array([[row.get(key, row["value"]) for key in ("value", "low", "high")] for row in drawn])
    value, low, high = ours.T
    ends = [min(*truth, *low), max(*truth, *high)]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.errorbar(truth, value, yerr=np.abs([value - low, high - value]), fmt="o", markersize=4, capsize=3)
    for x, y, level in zip(truth, value, rows, strict=True):
        axes.annotate(level, (x, y), xytext=(5, -9), textcoords="offset points", fontsize=8)
    axes.set(xlabel=f"quantile of the truth, {record['units']}", ylabel=f"of predictions, {record['units']}")
    axes.set(title=f"{name}: quantiles, 95 % over blocks")
    return figure


def _cycles(name: str, record: dict[str, Any]) -> Figure | None:
    cycles = record.get("cycles", {})
    if not cycles:
        return None
    figure, axes = _figure(len(cycles))
    for one, (word, cycle) in zip(axes, cycles.items(), strict=True):
        for key, label in (("mean_truth", "truth"), ("mean", "prediction")):
            one.plot(cycle["of"], cycle[key], marker=".", label=label)
        one.set(xlabel=word.rstrip("s"), ylabel=record["units"], title=f"{name}: cycle of {word}")
        one.legend(frameon=False)
    return figure
