"""The formats of checkpoints: where the weights are, where their average is, and under which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from torch import Tensor

from scorefield.foundation.errors import InputError

TABLE = "sigmas"  # the levels, a buffer
FREQUENCIES = "all_modules.0.W"  # a parameter of NCSN++ that is fixed: some averages leave it out


@dataclass(frozen=True)
class Weights:
    """The weights of one checkpoint under the names they have there, without wrappers' prefixes.

    Attributes:
        raw: as trained.
        averaged: their exponential moving average, or the same again where there is none.
        step: of training, where it is known.
        config: the configuration, where the checkpoint holds it.
        images: whether the checkpoint is of a program that is for images in [0, 1] alone.
        maps: learnt maps of the grid (maps, *grid) as trained and their average, where there are any.
    """

    raw: dict[str, Tensor]
    averaged: dict[str, Tensor]
    step: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    images: bool = True
    maps: tuple[Tensor, Tensor] | None = None


def find(content: Any, origin: str) -> Weights:
    """The weights in what a checkpoint holds.

    DiffusionOperators: {weights, ema_helper by name, last_epoch, metrics}. score_sde_pytorch, its rewrite and mlde:
    {model, ema: {shadow_params: [...]}, step, ...}. ncsnv2: [model, optimiser,
    epoch, step, ema by name]. score-diffusion-training: {model_state, ema_state by name, config, ...}. Or weights alone.

    Raises:
        InputError: if it is none of these, or the average does not fit the weights.
    """
    if isinstance(content, list) and len(content) >= 4 and _is_weights(content[0]):
        raw, step = _named(content[0]), content[3] if isinstance(content[3], int) else 0
        return Weights(raw, _by_name(raw, content[4], origin) if len(content) > 4 else raw, step)
    if isinstance(content, dict) and _is_weights(content.get("model_state")):
        raw = _named(content["model_state"])
        average = content.get("ema_state")
        config = content.get("config")
        return Weights(
            raw,
            _by_name(raw, average, origin) if average else raw,
            config=config if isinstance(config, dict) else {},
            images=False,
        )
    if isinstance(content, dict) and _is_weights(content.get("model")):
        raw: dict[str, Tensor] = _named(content["model"])
        average = content.get("ema")
        located = content.get("location_params")
        extra = _named(located) if _is_weights(located) else {}
        step = content.get("step", content.get("epoch", 0))
        averaged = raw
        if isinstance(average, Mapping) and isinstance(average.get("shadow_params"), list):
            averaged = _in_order(raw, average["shadow_params"], len(extra), origin)
        elif isinstance(average, Mapping) and _is_weights(average):
            averaged = _by_name(raw, average, origin)
        maps = _maps(extra, average, origin)
        step = step if isinstance(step, int) else 0
        return Weights(raw, averaged, step, images="location_params" not in content, maps=maps)
    if isinstance(content, dict) and _is_weights(content.get("weights")):
        raw, average, last = _named(content["weights"]), content.get("ema_helper"), content.get("last_epoch")
        averaged = _by_name(raw, average, origin) if average else raw
        return Weights(raw, averaged, last if isinstance(last, int) else 0, images=False)
    if _is_weights(content):
        raw = _named(content)
        return Weights(raw, raw)
    raise InputError(
        f"{origin} is no checkpoint of a program that is known: it holds {_summary(content)}, and no model with weights."
    )


def _maps(extra: Mapping[str, Tensor], average: Any, origin: str) -> tuple[Tensor, Tensor] | None:
    """Maps of the grid, with their average where the list of averages goes on beyond the network's; some programs forget them."""
    found = [value for value in extra.values() if value.numel()]
    if not found:
        return None
    if len(found) > 1 or found[0].ndim != 3:
        shapes = ", ".join(str(tuple(value.shape)) for value in found)
        raise InputError(
            f"{origin} has parameters of locations of shapes {shapes}, not one array (maps, rows, columns)."
        )
    shadow = average.get("shadow_params") if isinstance(average, Mapping) else None
    last = shadow[-1] if isinstance(shadow, list) and shadow else None
    average_of = last if last is not None and last.shape == found[0].shape else found[0]
    return found[0], average_of.clone()  # each is stored: they must not share memory


def _is_weights(value: Any) -> TypeGuard[Mapping[str, Tensor]]:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(name, str) and isinstance(entry, Tensor) for name, entry in value.items())
    )


def _named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes of DataParallel and torch.compile."""
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in weights.items()}


def _summary(content: Any) -> str:
    if isinstance(content, Mapping):
        return ", ".join(str(key) for key in list(content)[:5]) or "nothing"
    return f"a {type(content).__name__}"


def _by_name(raw: Mapping[str, Tensor], average: Any, origin: str) -> dict[str, Tensor]:
    """An average that carries names: of every parameter, and of nothing else."""
    given = _named(average) if _is_weights(average) else {}
    expected = raw.keys() - {TABLE}
    if missing := sorted(expected - given.keys()) or sorted(given.keys() - raw.keys()):
        raise InputError(f"{origin} averages other weights than it trains: {', '.join(missing[:3])}.")
    return {**raw, **{name: _fitting(name, value, raw, origin) for name, value in given.items() if name != TABLE}}


def _in_order(raw: Mapping[str, Tensor], average: Sequence[Tensor], extra: int, origin: str) -> dict[str, Tensor]:
    """An average that is a list in the order of the parameters, of all or of those that are trained; then others' follow."""
    if not all(isinstance(value, Tensor) for value in average):
        raise InputError(f"{origin} averages what are no tensors: it is damaged.")
    names = [name for name in raw if name != TABLE]
    trained = [name for name in names if name != FREQUENCIES or raw[name].ndim != 1]
    for candidates in (trained, names):
        if len(average) in (len(candidates), len(candidates) + extra):
            pairs = zip(candidates, average, strict=False)
            return {**raw, **{name: _fitting(name, value, raw, origin) for name, value in pairs}}
    raise InputError(
        f"{origin} averages {len(average)} tensors, but trains {len(trained)}: it is damaged or another network's."
    )


def _fitting(name: str, value: Tensor, raw: Mapping[str, Tensor], origin: str) -> Tensor:
    if value.shape != raw[name].shape:
        raise InputError(
            f"{origin}: the average of {name} has the shape {tuple(value.shape)}, not {tuple(raw[name].shape)}."
        )
    return value
