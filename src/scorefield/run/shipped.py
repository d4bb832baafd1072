"""Models that come with scorefield: one folder for each in `models`, usable by its name wherever a run is expected.

    NAME/config.yaml          the resolved recipe that it was trained by
    NAME/model.safetensors    a checkpoint: its averaged weights in bfloat16, and the same configuration
    NAME/card.md              data, licence, figures, intended use and limits; its first line says what it is

There is no other list than that of the folders. Nothing is ever written there: what a job would put into its run folder goes to
`NAME-results` in the working directory. What was pulled from a hub lies in folders of the same kind, `OWNER/NAME`, in a place of
the user's: SCOREFIELD_MODELS, or `scorefield/models` where the system keeps the data of programs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

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
    return {path.parent.name: path.parent for path in sorted(_folder().glob(f"*/{WEIGHTS}"))}


def known_models() -> dict[str, Path]:
    """The folders of the models that come with the package, and of those that were pulled, by name."""
    pulled = sorted(path.parent for path in _pulled().glob(f"[!.]*/[!.]*/{WEIGHTS}"))
    return shipped_models() | {f"{path.parent.name}/{path.name}": path for path in pulled}


def place_of(name: str) -> Path:
    """The folder of a model OWNER/NAME that is pulled."""
    return _pulled().joinpath(*name.split("/"))


def _pulled() -> Path:
    if own := os.environ.get("SCOREFIELD_MODELS"):
        return Path(own)
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "scorefield" / "models"


def weights_of(run: Path) -> Path | None:
    """The checkpoint of the shipped or pulled model that a run names; None where there is none of that name."""
    found = known_models().get(str(run))
    return None if found is None else found / WEIGHTS


def results_of(checkpoint: Path) -> Path | None:
    """Where results about a shipped or pulled model go: a folder in the working directory; None for any other checkpoint."""
    folder = checkpoint.absolute().parent
    ours = folder.parent == _folder().absolute() or folder.parent.parent == _pulled().absolute()
    return Path(f"{folder.name}-results") if ours else None


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
    if not checkpoint.group("ema"):
        raise InputError("The checkpoint has no averaged weights: train with train.ema.")
    tensors, facts = packed(checkpoint, low=True)
    write_text(folder / CONFIG, yaml.safe_dump(facts["config"], sort_keys=False))
    checkpoints.write(folder / WEIGHTS, tensors, facts)


def packed(
    checkpoint: Checkpoint, *, low: bool, average: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a model is made of, without what only training needs: its averaged weights in the place of the last, and facts.

    Args:
        checkpoint: of the run.
        low: keep matrices in bfloat16.
        average: other weights than those that are averaged exponentially.
    """
    tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name.partition(".")[0] in KEPT}
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("ema.")}
    tensors |= {f"net.{name}": tensor for name, tensor in (average or checkpoint.group("ema")).items()}
    if low:
        tensors = {n: x.to(torch.bfloat16) if n.startswith("net.") and x.ndim > 1 else x for n, x in tensors.items()}
    facts = {name: checkpoint.facts[name] for name in KNOWN if name in checkpoint.facts}
    return tensors, facts | {"config": anywhere(checkpoint.facts["config"])}


def _folder() -> Path:
    return Path(str(files("scorefield") / "models"))


def anywhere(config: Any) -> Any:
    """A configuration in which files are named without the folders of the machine that they were on."""
    if isinstance(config, Mapping):
        return {name: anywhere(value) for name, value in config.items()}
    if isinstance(config, list):
        return [anywhere(value) for value in config]
    return Path(config).name if isinstance(config, str) and Path(config).is_absolute() else config
