"""Checkpoints: one safetensors file with everything a run needs, written so that a good one is never lost.

Tensors are named `net.*`, `ema.*` and `ema-WIDTH.*` (the network's own names), `normaliser.*` and
`optimiser.<state>.<parameter>`; the file's metadata hold JSON. The file is written under a temporary name, flushed to the disk,
and only then given its own; its digest is checked when it is read. Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing
from scorefield.foundation.limits import parse_json

FORMAT = 1
NAME = re.compile(r"step-(\d{8})\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds: tensors by name, facts that fit into JSON (config, step, versions, ...), and the tensors' digest."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    sha256: str

    def group(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of a group, without its name."""
        return {
            name[len(prefix) + 1 :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix + ".")
        }


def digest(tensors: Mapping[str, Tensor], facts: str) -> str:
    """SHA-256 over the facts, and names, types, shapes and bytes of the tensors."""
    total = hashlib.sha256(facts.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            total.update(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type] - bytes, uncopied
    return total.hexdigest()


def group_of(width: float) -> str:
    """The group of the average by powers of time of a width."""
    return f"ema-{width:g}"


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"step-{step:08d}.safetensors"


def write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write atomically: a reader sees the old file or the new one, and a full disk costs only the new one."""
    flat = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    metadata = {"format": str(FORMAT), "sha256": digest(flat, text), "facts": text}
    try:
        with replacing(path) as temporary:
            save_file(flat, temporary, metadata=metadata)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"Cannot save {path}: {error}. Free some space; the checkpoints before it are whole."
        ) from error


def read(path: Path) -> Checkpoint:
    """Read and verify a checkpoint. One that is missing, foreign, truncated or corrupt raises InputError."""
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError, TypeError, AttributeError, RuntimeError) as error:  # of unknown types
        raise InputError(f"{path} is not a whole safetensors file ({brief(error)}): {_instead(path)}.") from error
    if not {"facts", "format", "sha256"} <= metadata.keys():
        raise InputError(f"{path} is a safetensors file, but not a checkpoint of scorefield.")
    if metadata["format"] != str(FORMAT):
        raise InputError(f"{path} has format {metadata['format']}, this version reads {FORMAT}: upgrade scorefield.")
    if digest(tensors, metadata["facts"]) != metadata["sha256"]:
        raise InputError(f"{path} is corrupt (its content does not match its digest): {_instead(path)}.")
    facts = parse_json(metadata["facts"], f"the description in {path}")
    if not (isinstance(facts, dict) and type(facts.get("step")) is int and 0 <= facts["step"] < 10**8):
        raise InputError(
            f"{path} does not say of which step it is, so it was not written by scorefield: {_instead(path)}."
        )
    return Checkpoint(tensors, facts, metadata["sha256"])


def _instead(path: Path) -> str:
    """What to do about a file that cannot be read."""
    return (
        "delete it to use an earlier checkpoint" if NAME.fullmatch(path.name) else "give a run folder or a checkpoint"
    )


def steps(folder: Path) -> list[int]:
    """The steps of which a folder holds checkpoints, rising."""
    return sorted(int(found[1]) for path in folder.glob("*") if path.is_file() and (found := NAME.fullmatch(path.name)))


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no number of some tensors is NaN or infinite."""
    checks = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return not checks or bool(torch.stack([check.cpu() for check in checks]).all())


def first_usable(folder: Path, steps: Iterable[int]) -> tuple[Checkpoint | None, dict[int, str]]:
    """The first checkpoint of some steps that can be read and is finite; and what is wrong with each before it."""
    wrong = {}
    for step in steps:
        try:
            checkpoint = read(path_of(folder, step))
        except InputError as error:
            wrong[step] = str(error)
            continue
        if all_finite(checkpoint.tensors.values()):
            return checkpoint, wrong
        wrong[step] = f"{path_of(folder, step)} holds numbers that are not finite."
    return None, wrong


def keep_best(folder: Path, step: int, name: str) -> None:
    """Keep the checkpoint of a step as the best by a figure: `best/NAME.safetensors` beside their folder."""
    with replacing(folder.parent / "best" / f"{name}.safetensors") as temporary:
        _link_or_copy(path_of(folder, step), temporary)


def _link_or_copy(path: Path, other: Path) -> None:
    """A second name of a file that is never changed in its place, which takes no room; a copy where the disk knows none."""
    try:
        other.hardlink_to(path)
    except OSError:
        shutil.copyfile(path, other)


def drop_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of all later steps."""
    for later in steps(folder):
        if later > step:
            path_of(folder, later).unlink(missing_ok=True)


def prune(folder: Path, keep: int, every: int = 1, spare: int | None = None) -> None:
    """Delete all but the last `keep` checkpoints, that of the step `spare` and those that have a second name in `best/`.

    One that lies between multiples of `every`, where a run was stopped, is kept only while it is the last: what is left is then
    what a run leaves that was never stopped.
    """
    best = {path.stat().st_ino for path in (folder.parent / "best").glob("*.safetensors")}
    *earlier, last = steps(folder)
    regular = [step for step in earlier if step % every == 0]
    kept = {last, spare, *regular[max(len(regular) - keep + 1, 0) :]}
    for step in earlier:
        if step not in kept and path_of(folder, step).stat().st_ino not in best:
            path_of(folder, step).unlink(missing_ok=True)
