"""Models that come with scorefield: one folder for each in `models`, usable by its name wherever a run is expected.

    NAME/config.yaml          the resolved recipe that it was trained by
    NAME/model.safetensors    a checkpoint: its averaged weights in bfloat16, and the same configuration
    NAME/card.md              data, licence, figures, intended use and limits; its first line says what it is

There is no other list than that of the folders. Nothing is ever written there: what a job would put into its run folder goes to
`NAME-results` in the working directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import write_text
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "card.md"
KEPT = ("net", "ema", "normaliser", "predictors", "mean", "vector", "data")  # groups of tensors that a model is made of
KNOWN = (
    "step",
    "samples",
    "seed",
    "data",
    "versions",
)  # facts about them; that of the machine it was trained on is left out


def shipped_models() -> dict[str, Path]:
    """The folders of the models that come with the package, by name."""
    folder = _folder()
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{WEIGHTS}"))}


def weights_of(run: Path) -> Path | None:
    """The checkpoint of the shipped model that a run names; None where there is none of that name."""
    found = shipped_models().get(str(run))
    return None if found is None else found / WEIGHTS


def results_of(checkpoint: Path) -> Path | None:
    """Where results about a shipped model go: a folder in the working directory; None for any other checkpoint."""
    folder = checkpoint.absolute().parent
    return Path(f"{folder.name}-results") if folder.parent == _folder().absolute() else None


def summary_of(card: Path) -> str:
    """What a card says in its first line, without the name."""
    return card.read_text(encoding="utf-8").splitlines()[0].lstrip("# ").partition(": ")[2]


def pack(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the configuration and the averaged weights of a run as those of a shipped model. Biases, and the frequencies in which
    noise levels are seen, stay in float32: they take no room.

    Args:
        checkpoint: of the run.
        folder: of the model; its name is the model's.
    """
    averaged = checkpoint.group("ema")
    if not averaged:
        raise InputError("The checkpoint has no averaged weights: train with train.ema.")
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.partition(".")[0] in KEPT}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema.")}
    tensors |= {f"net.{name}": tensor for name, tensor in averaged.items()}
    low = {n: x.to(torch.bfloat16) if n.startswith("net.") and x.ndim > 1 else x for n, x in tensors.items()}
    config = _anywhere(checkpoint.facts["config"])
    facts = {name: checkpoint.facts[name] for name in KNOWN if name in checkpoint.facts} | {"config": config}
    write_text(folder / CONFIG, yaml.safe_dump(config, sort_keys=False))
    checkpoints.write(folder / WEIGHTS, low, facts)


def _folder() -> Path:
    return Path(str(files("scorefield") / "models"))


def _anywhere(config: Any) -> Any:
    """A configuration in which files are named without the folders of the machine that they were on."""
    if isinstance(config, Mapping):
        return {name: _anywhere(value) for name, value in config.items()}
    if isinstance(config, list):
        return [_anywhere(value) for value in config]
    return Path(config).name if isinstance(config, str) and Path(config).is_absolute() else config
