"""Transforms of mlde (Addison et al. 2024), which it names by keys and fits at its start: they become ours, to be fitted again.

A key is a string of steps: `sqrturrecen` is a square root, division by the largest value and 2x − 1. A root or a logarithm is of
amounts, so that it is followed by a clip at 0 on the way back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import Settings
from scorefield.interop.specification import described

CLIP = described("data.transform.Clip")
STEPS: dict[str, list[dict[str, Any]]] = {  # the longest names first: pixelmmsstan ends in stan
    "pixelmmsstan": [described("data.moments.MatchMoments")],
    "pixelstan": [described("data.moments.PixelStandardise")],
    "standardize": [described("data.Standardise")],
    "recen": [described("data.transform.Recentre")],
    "sqrt": [described("data.transform.Root", power=2.0), CLIP],
    "cbrt": [described("data.transform.Root", power=3.0), CLIP],
    "qdrt": [described("data.transform.Root", power=4.0), CLIP],
    "stan": [described("data.Standardise")],
    "none": [],
    "noop": [],
    "log": [described("data.transform.Log1p"), CLIP],
    "pc": [described("data.transform.Fraction")],
    "mm": [described("data.UnitRange", low=0.0, high=1.0)],
    "rm": [described("data.transform.RawMoment", power=2.0)],
    "ur": [described("data.transform.Largest")],
}


def transform(key: str, origin: str) -> dict[str, Any]:
    """The transform of a key, as configuration. Raises InputError for a step that is not known."""
    steps, rest = [], key
    while rest:
        name = next((name for name in STEPS if rest.startswith(name)), None)
        if name is None:
            raise InputError(f"{origin}: the transform {key} has the unknown step {rest}; known: {', '.join(STEPS)}.")
        steps += STEPS[name]
        rest = rest.removeprefix(name)
    return described("data.transform.Chain", steps=steps)


def target_transform(settings: Settings, variables: Sequence[str]) -> dict[str, Any]:
    """That of the targets, where some variables may have one of their own."""
    key = str(settings.get("data.target_transform_key", default="none"))
    own = settings.get("data.target_transform_overrides", default={}) or {}
    if not own:
        return transform(key, settings.origin)
    chosen = [transform(str(own.get(name, key)), settings.origin) for name in variables]
    return described("data.transform.PerVariable", transforms=chosen)


def input_transform(settings: Settings) -> dict[str, Any]:
    """That of the predictors."""
    return transform(str(settings.get("data.input_transform_key", default="none")), settings.origin)
