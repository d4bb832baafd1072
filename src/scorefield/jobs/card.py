"""The card of a model that is passed on: what it was made of and how, as far as its run knows, and what its maker has to add."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.run.loading import LoadedCheckpoint
from scorefield.run.shipped import anywhere

OPEN = "To be filled in by whoever passes this model on"  # what a run cannot know
FENCE = "---\n"


def card_of(opened: LoadedCheckpoint, name: str, licence: str | None, metrics: Path) -> str:
    """A card with the sections of those that come with scorefield; `OPEN` where the run knows nothing.

    Args:
        opened: the checkpoint.
        name: OWNER/MODEL.
        licence: a short name, such as apache-2.0.
        metrics: the file of figures that `evaluate` wrote, which may be absent.
    """
    facts, config = opened.checkpoint.facts, anywhere(opened.config)
    shape, data = config["model"].get("shape") or (), config.get("data")
    net = str(config["model"]["net"].get("class_path")).rpartition(".")[2]
    size = sum(tensor.numel() for tensor in opened.checkpoint.group("net").values())
    head = ["library_name: scorefield", "tags: [scorefield, score-based-generative-modelling, diffusion]"]
    head += [f"license: {licence}"] * (licence is not None)
    sections = {
        "Data": _data(data, shape, facts.get("data")),
        "Licence": f"{licence}."
        if licence
        else f"{OPEN}: the licence of the weights, and that of the data they were made of.",
        "Recipe": _recipe(config.get("train"), facts),
        "Figures": _figures(metrics, facts["step"]),
        "Intended use": f"{OPEN}.",
        "Limits": f"{OPEN}. What is not in the data is drawn as what is in them.",
    }
    parts = [
        f"# {name}: fields of {'×'.join(map(str, shape)) or 'any size'} by a score model",
        f"A {net} of {size / 1e6:.2f} million numbers, for [scorefield](https://github.com/scorefield/scorefield):",
        f"    scorefield pull {name}\n    scorefield sample {name} -n 16 --out samples",
        *(f"## {title}\n\n{text}" for title, text in sections.items()),
    ]
    return FENCE + "\n".join(head) + "\n" + FENCE + "\n" + "\n\n".join(parts) + "\n"


def unfinished(card: str) -> list[str]:
    """The sections that say nothing yet."""
    return [part.partition("\n")[0] for part in card.split("\n## ")[1:] if OPEN in part]


def without_front(card: str) -> str:
    """A card without the lines in front that are for the hub."""
    if not card.startswith(FENCE) or FENCE not in card[len(FENCE) :]:
        return card
    return card[len(FENCE) :].partition("\n" + FENCE)[2].lstrip("\n") or card


def _data(data: Any, shape: Any, manifest: Any) -> str:
    if not isinstance(data, Mapping):
        return f"{OPEN}: the weights were imported, and do not know them."
    kind = str(data.get("class_path")).rpartition(".")[2]
    given = ", ".join(
        f"{name}: {value}" for name, value in dict(data.get("init_args") or {}).items() if value not in (None, [], "")
    )
    found = f"`{kind}`" + f" ({given})" * bool(given) + f", fields of {'×'.join(map(str, shape))}."
    known = manifest if isinstance(manifest, Mapping) else {}
    classes = known.get("classes")
    return found + (f" Classes: {', '.join(map(str, classes))}." if classes else "")


def _recipe(train: Any, facts: Mapping[str, Any]) -> str:
    made = ", ".join(f"{name} {value}" for name, value in dict(facts.get("versions") or {}).items())
    if not isinstance(train, Mapping):
        return f"Imported weights, of step {facts['step']}. Read with {made}."
    loss, optimiser = (str(train[name].get("class_path")).rpartition(".")[2] for name in ("loss", "optimiser"))
    return (
        f"Step {facts['step']} of {train['steps']}, {train['batch_size']} fields each; {loss} by {optimiser}, "
        f"seed {train['seed']}, average with decay {train['ema']:g}. "
        f"The whole configuration is in the weights' file. Made with {made}."
    )


def _figures(metrics: Path, step: int) -> str:
    if not metrics.is_file():
        return "None were measured: `scorefield evaluate RUN` does, and the card then has them."
    try:
        record = json.loads(metrics.read_text(encoding="utf-8"))
        rows = [
            f"| {name} | {entry['mean']:.4g} | {'' if entry.get('std') is None else format(entry['std'], '.2g')} |"
            for name, entry in record["figures"].items()
            if entry["mean"] is not None
        ]
        of = record.get("model", {}).get("step", step)
        given = ", ".join(f"{name} {record[name]}" for name in ("n", "seeds") if name in record)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{metrics} holds no figures of evaluate: call scorefield evaluate again, or give --card."
        ) from error
    note = f" These are of step {of}, and the weights of step {step}." if of != step else ""
    table = "\n".join(["| | mean | std |", "| --- | --- | --- |", *rows])
    return f"By `scorefield evaluate` ({given}).{note}\n\n{table}"
