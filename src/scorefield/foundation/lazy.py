"""Names that a package hands on, each loaded when it is first used."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any


def lazily(
    package: str, homes: Mapping[str, str], rooms: Collection[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], dict[str, str]]:
    """`__getattr__` and `__dir__` of a package, and the home of each name.

    Args:
        package: its name.
        homes: for a module below it, the names that it has, apart by blanks.
        rooms: modules below it that are names themselves.
    """
    places = {name: home for home, names in homes.items() for name in names.split()}

    def get(name: str) -> Any:
        if name in rooms:
            return import_module(f"{package}.{name}")
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{places[name]}"), name)

    return get, lambda: sorted({*places, *rooms}), places
