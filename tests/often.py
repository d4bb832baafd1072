"""Which cases of a costly law are tried with every change; the others are left to `make test-slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def seldom(value: Any, *more: Any) -> Any:
    """A case for `make test-slow` alone."""
    return pytest.param(value, *more, marks=pytest.mark.slow)


def rarely(values: Iterable[Any], often: Collection[Any]) -> list[Any]:
    """All values, of which those of `often` are tried with every change."""
    return [value if value in often else seldom(value) for value in values]


def each(values: Iterable[Any], step: int) -> list[Any]:
    """All values, of which each step-th is tried with every change."""
    return [value if number % step == 0 else seldom(value) for number, value in enumerate(values)]


def crossed(first: Iterable[Any], second: Collection[Any], often: Collection[Any]) -> list[Any]:
    """All pairs, of which those are tried with every change that give each of `second` one of `often`, by turns."""
    turns, places = list(often), {value: place for place, value in enumerate(second)}
    return [
        pytest.param(*pair, marks=() if pair[0] == turns[places[pair[1]] % len(turns)] else pytest.mark.slow)
        for pair in product(first, second)
    ]
