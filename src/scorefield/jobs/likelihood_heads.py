"""Heads for likelihoods in few evaluations, kept with a run as `tuned/likelihood-N.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scorefield.foundation.errors import InputError
from scorefield.jobs.options import size_of
from scorefield.jobs.tuned_samplers import WEIGHTS
from scorefield.nn import Encoder
from scorefield.nn.size import limited_to
from scorefield.run.loading import load_strictly, run_folder
from scorefield.samplers import learned_likelihood as learned
from scorefield.samplers.dequantise import Dequantisation, Uniform
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.training import checkpoint as checkpoints

CHANNELS, MULTIPLIERS = 16, (1, 2, 2)


def new(shape: tuple[int, ...], steps: int) -> Encoder:
    """A head for fields (channels, *grid), that gives 0."""
    head = Encoder(
        shape[0],
        max(steps, 2),
        len(shape) - 1,
        CHANNELS,
        MULTIPLIERS,
        blocks=1,
        dropout=0.0,
        fourier_scale=1.0,
        filter="box",
    )
    nn.init.zeros_(head.last.weight)
    nn.init.zeros_(head.last.bias)
    return head


def path_of(checkpoint: Path, steps: int) -> Path:
    """Where the head for so many evaluations is kept."""
    return run_folder(checkpoint) / "tuned" / f"likelihood-{steps}.safetensors"


def check_shape(given: Sequence[int], own: Sequence[int]) -> None:
    """Refuse fields of another shape (channels, *grid) than that which a head is fitted to, whose gains are of its grid alone."""
    if tuple(given) != tuple(own):
        sizes = f"The data are fields of {size_of(given)}, and the model was trained on those of {size_of(own)}"
        raise InputError(
            f"{sizes}, for which alone a head is: give its own data, or take likelihood without --evaluations."
        )


def keep(
    checkpoint: Path,
    weights: Mapping[str, Any],
    head: Encoder,
    path: learned.Path,
    found: learned.Learned,
    **facts: Any,
) -> Path:
    """Keep a head in the place of what was there."""
    steps = len(path.times) - 1
    tensors = {f"head.{name}": value for name, value in head.state_dict().items()}
    tensors |= {"gain.mean": found.mean, "gain.scale": found.scale}
    record = {"step": steps, "times": list(path.times), "corrections": list(path.corrections), **facts}
    record |= {"bias": found.bias, "spread": found.spread, "model": {name: weights.get(name) for name in WEIGHTS}}
    place = path_of(checkpoint, steps)
    checkpoints.write(place, tensors, record)
    return place


def read(
    checkpoint: Path, weights: Mapping[str, Any], shape: tuple[int, ...], steps: int, dequantisation: Dequantisation
) -> LearnedLikelihood:
    """The likelihood in so many evaluations that was fitted to these weights, and data so dequantised. InputError where there is
    none.
    """
    place = path_of(checkpoint, steps)
    if not place.is_file():
        raise InputError(
            f"No head for {steps} evaluations was fitted to the run: scorefield tune-likelihood RUN --steps {steps} comes first."
        )
    stored = checkpoints.read(place)
    facts = stored.facts
    if facts.get("model") != {name: weights.get(name) for name in WEIGHTS}:
        raise InputError(
            f"{place} was fitted to other weights of the run: scorefield tune-likelihood RUN --steps {steps} with the same "
            "--step, --ema and --ema-width."
        )
    if (fitted := facts.get("dequantisation", repr(Uniform()))) != repr(dequantisation):
        raise InputError(
            f"{place} was fitted to data dequantised by {fitted}, not by {dequantisation!r}: give its own --dequantisation, or "
            "fit another with scorefield tune-likelihood."
        )
    try:
        path = learned.Path(tuple(map(float, facts["times"])), tuple(map(float, facts["corrections"])))
        mean, scale = (stored.group("gain")[name] for name in ("mean", "scale"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{place} holds no head: delete it, and call scorefield tune-likelihood again.") from error
    with limited_to(stored.tensors.values(), str(place)):
        head = new(shape, steps)
    load_strictly(head, stored.group("head"), str(place))
    return LearnedLikelihood(path, head.eval().requires_grad_(False), mean, scale, name=stored.sha256)


def count(head: Encoder, shape: tuple[int, ...]) -> int:
    """Floating-point operations of an evaluation."""
    from torch.utils.flop_counter import FlopCounterMode

    like = head.last.weight
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        head(like.new_zeros(1, *shape), like.new_zeros(1))
    return counter.get_total_flops()
