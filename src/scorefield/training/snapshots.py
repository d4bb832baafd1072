"""Averages of the weights that a run keeps on its way: `averages/step-*.safetensors`, in half precision, like checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.training import checkpoint as checkpoints
from scorefield.training.checkpoint import Checkpoint, group_of
from scorefield.training.profiles import WIDEST, Profile, combination

FOLDER = "averages"
TOLERANCE = 0.1  # of a profile that is made of others, in parts of its norm
TRIED = [n / 200 for n in range(1, int(200 * WIDEST) + 1)]  # widths, where it is to be said which there could be


def write(run: Path, step: int, widths: Sequence[float], averages: Mapping[str, Tensor]) -> None:
    """Keep the averages of a step; what half precision does not hold stays as it is."""
    halves = {name: tensor.half() for name, tensor in averages.items()}
    kept = {name: half if bool(half.isfinite().all()) else averages[name] for name, half in halves.items()}
    checkpoints.write(checkpoints.path_of(run / FOLDER, step), kept, {"step": step, "widths": list(widths)})


def drop_after(run: Path, step: int) -> None:
    """Delete those of all later steps."""
    checkpoints.drop_after(run / FOLDER, step)


def size(run: Path) -> int:
    """Bytes that they take."""
    return sum(path.stat().st_size for path in (run / FOLDER).glob("step-*.safetensors"))


def averaged(run: Path, checkpoint: Checkpoint, width: float, origin: str) -> dict[str, Tensor]:
    """The weights averaged with a width σ_rel over the training up to a checkpoint: that which was tracked, or the combination of
    all that was kept that is nearest.

    Args:
        run: the run folder.
        checkpoint: with the tracked averages of its own step.
        width: σ_rel.
        origin: the checkpoint's file, for messages.

    Raises:
        InputError: a run that tracked none; a width that they do not give; a snapshot that is damaged or another network's.
    """
    widths, step = checkpoint.facts.get("widths"), checkpoint.facts["step"]
    if not (isinstance(widths, list) and widths and all(isinstance(each, float | int) for each in widths)):
        raise InputError(
            f"{origin} tracked no averages by powers of time, of which others are made: train with "
            "--train.ema_widths [0.05,0.1], or leave --ema-width out."
        )
    tracked = {Profile(each, step): checkpoint.group(group_of(each)) for each in widths}
    if not all(tracked.values()):
        raise InputError(f"{origin} lacks averages that it is said to have: give another checkpoint.")
    wanted, before = Profile(width, step), [at for at in checkpoints.steps(run / FOLDER) if at < step]
    if (exact := tracked.get(wanted)) is not None:
        return exact
    stored = [*tracked, *(Profile(each, at) for at in before for each in widths)]
    coefficients, distance = combination(stored, wanted)
    if distance > TOLERANCE:
        could = [each for each in TRIED if combination(stored, Profile(each, step))[1] <= TOLERANCE]
        found = f"about {could[0]:g} to {could[-1]:g}" if could else "no other"
        raise InputError(
            f"{origin} and the averages kept before it do not give a width of {width:g}: give {found}, or one of those "
            f"that were tracked, {', '.join(f'{each:g}' for each in widths)}."
        )
    shares = dict(zip(stored, coefficients.tolist(), strict=True))
    total = _sum([(shares[profile], average) for profile, average in tracked.items()], origin)
    for at in before:
        path = checkpoints.path_of(run / FOLDER, at)
        snapshot = checkpoints.read(path)
        parts = [(shares[Profile(each, at)], snapshot.group(group_of(each))) for each in widths]
        total = _sum([(1.0, total), *parts], str(path))
    return {name: tensor.float() for name, tensor in total.items()}


def _sum(parts: Sequence[tuple[float, Mapping[str, Tensor]]], origin: str) -> dict[str, Tensor]:
    """Σ share · weights, in float64."""
    shapes = [{name: tensor.shape for name, tensor in weights.items()} for _, weights in parts]
    if any(other != shapes[0] for other in shapes):
        raise InputError(f"{origin} holds averages of another network: take it away to do without.")
    return {
        name: torch.stack([share * weights[name].double() for share, weights in parts]).sum(0) for name in shapes[0]
    }
