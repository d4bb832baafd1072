"""A report of a run: one HTML page that holds everything it shows, loads nothing and runs no script.

What a run folder has is shown (configuration, curves, samples, trajectory, metrics, likelihoods), what it lacks is left out or
named with the command that makes it. Every figure is written twice: rounded for people, and in full in its `value` attribute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from scorefield.data.listing import counted
from scorefield.data.manifest import class_lines
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_text
from scorefield.jobs.class_guidance import label_of
from scorefield.jobs.draws import Draws
from scorefield.jobs.options import OnRun
from scorefield.jobs.pictures import trajectory
from scorefield.jobs.report.figures import describe, history, likelihood, measured, name_of
from scorefield.jobs.report.parts import Picture, Row
from scorefield.jobs.report.views import draw_curves, latest_samples, progress, scaled_samples
from scorefield.jobs.vectors import vector_of
from scorefield.run.checkpoint_choice import evaluations, losses
from scorefield.run.loading import LoadedCheckpoint, run_folder
from scorefield.run.runner import check_out
from scorefield.run.verb import log

MARK = "· scorefield</title>"  # which only our pages have


@dataclass(frozen=True, kw_only=True)
class Report(OnRun):
    """Write one HTML page about a run: configuration, curves, samples, metrics. It loads nothing and runs no script.

    Args:
        out: HTML file to write; RUN/report.html by default. A report that is there is replaced.
        draw: draw RUN/trajectory.png, samples on their way from noise, if there is none.
    """

    out: Path | None = None
    draw: bool = True

    def run(self) -> Path:
        folder = run_folder(self.checkpoint.path)
        out = self.out or folder / "report.html"
        check_out(out)
        if out.exists() and MARK not in _text(out):
            raise InputError(f"{out} exists and is no report: give another --out.")
        if self.draw and self.folder.is_dir():
            self._draw_trajectory(folder / "trajectory.png")
        write_text(out, page(self.checkpoint, folder))
        log.info("report in %s", out)
        return out

    def _draw_trajectory(self, path: Path) -> None:
        """Draw a few samples on their way from noise, where the model can."""
        try:
            model = self.model
            if not (path.exists() or model.classes or model.denoiser.net.cond_channels):
                label, vector = label_of(model), vector_of(model, None)
                trajectory(Draws(out=path, model=model, sampler=model.sampler, n=8, label=label, vector=vector), path)
        except InputError as error:
            log.warning("no trajectory is drawn: %s", error)


def page(opened: LoadedCheckpoint, folder: Path) -> str:
    """The page of a run."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.from_string(
        (files("scorefield.jobs.report") / "page.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(content(opened, folder)) + "\n"


def content(opened: LoadedCheckpoint, folder: Path) -> dict[str, Any]:
    """All that the page shows."""
    records = [record for record in evaluations(folder) if "split" not in record]  # of samples, not of losses
    evaluation = describe(records[-1], opened) if records else None
    likelihoods = [likelihood(path.stem, record) for path, record in measured(folder)]
    curves, trajectory = (
        draw_curves(folder),
        Picture.read(
            folder / "trajectory.png",
            "A row for each sample: noise on the left, less of it in each column, the sample on the right.",
            "Samples on their way from noise (left) to data (right).",
        ),
    )
    sections = [("samples", "Samples")]
    sections += [("trajectory", "From noise to data")] if trajectory else []
    sections += [("metrics", "Metrics")]
    sections += [("likelihood-1", "Likelihood")] if likelihoods else []
    sections += [("curves", "Training")] if curves else []
    return {
        "title": folder.absolute().name,
        "lead": lead(opened.config),
        "folder": str(folder),
        "version": version("scorefield"),
        "tiles": tiles(opened, folder, records),
        "sections": [*sections, ("run", "The run"), ("configuration", "Configuration")],
        "latest": latest_samples(folder),
        "scaled": scaled_samples(folder, channels_of(opened.config.get("data"))),
        "progress": progress(folder),
        "trajectory": trajectory,
        "evaluation": evaluation,
        "history": history(records),
        "likelihoods": likelihoods,
        "curves": curves,
        "details": details(opened),
        "configuration": [(name.capitalize(), _yaml(group)) for name, group in opened.config.items()],
    }


def channels_of(data: Any) -> list[str]:
    """The names of the channels, with their units, where the configuration of the data says them."""
    given = data.get("init_args") if isinstance(data, Mapping) else None
    targets = given.get("targets") if isinstance(given, Mapping) else None
    names, units = (targets.get(key) for key in ("names", "units")) if isinstance(targets, Mapping) else (None, None)
    if not isinstance(names, list):
        return []
    each = units if isinstance(units, Mapping) else dict.fromkeys(names, units or "")
    return [f"{name} in {each[name]}" if each.get(name) else str(name) for name in names]


def lead(config: Mapping[str, Any]) -> str:
    """What is learnt, from what: network, law, data, in the names of their classes."""
    model = config["model"]
    parts = [_short(model.get("net")), _short(model.get("precondition")), _short(model.get("sde", {}).get("schedule"))]
    shape = "×".join(map(str, model.get("shape", ())))
    return " · ".join(part for part in (*parts, f"{_short(config.get('data'))} {shape}".strip()) if part)


def parameters(opened: LoadedCheckpoint) -> int:
    """Trained numbers: all that are averaged; imported weights may lack an average and are counted as they are."""
    weights = opened.checkpoint.group("ema") or opened.checkpoint.group("net")
    return sum(tensor.numel() for tensor in weights.values())


def tiles(opened: LoadedCheckpoint, folder: Path, records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The figures that one looks for first."""
    facts = opened.checkpoint.facts
    found = {"Parameters": parameters(opened), "Steps": facts["step"], "Samples seen": facts.get("samples")}
    rows = losses(folder)
    last = rows.get(facts["step"]) or (rows[max(rows)] if rows else {})
    found["Validation loss, averaged weights"] = last.get("loss_ema")
    for name, figure in list(records[-1]["figures"].items())[:1] if records else []:
        found[name_of(name)[0]] = figure["mean"] if isinstance(figure, Mapping) else None
    return [Row.of(name, value) for name, value in found.items() if value is not None]


def details(opened: LoadedCheckpoint) -> list[Row]:
    """Which weights these are, and what made them."""
    facts = opened.checkpoint.facts
    train = opened.config.get("train", {})
    rows = {"Checkpoint": opened.path.name, "Step": facts["step"], "Planned steps": train.get("steps")}
    rows |= {"Batch size": train.get("batch_size"), "Samples seen": facts.get("samples"), "Seed": facts.get("seed")}
    rows |= {"Parameters": parameters(opened), "SHA-256 of the checkpoint": opened.checkpoint.sha256}
    if opened.manifest is not None:
        data = opened.manifest
        rows |= {"Training fields": data.train, "Held-out fields": data.valid, "Files": data.files or None}
        rows |= {"Files left out": counted(data.left_out) or None, "Digest of the data": data.digest}
        rows |= {"Classes": ", ".join(class_lines(data.classes, data.members)) or None}
    rows |= {f"Version of {name}": text for name, text in facts.get("versions", {}).items()}
    return [Row.of(name, value) for name, value in rows.items() if value is not None]


def _short(part: Any) -> str:
    """The class of a part of a configuration, without its module."""
    return str(part.get("class_path", "")).rpartition(".")[2] if isinstance(part, Mapping) else ""


def _yaml(group: Any) -> str:
    return yaml.safe_dump(group, sort_keys=False, allow_unicode=True)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""
