"""Modules that are loaded when they are first used: names that a package hands on, and what an extra installs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

from scorefield.foundation.errors import InputError


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


def require(module: str, what: str, extra: str, error: type[InputError] = InputError) -> Any:
    """A module that an extra of this package installs.

    Args:
        module: its name.
        what: it is needed for, for messages.
        extra: that installs it.
        error: raised where it is missing.
    """
    try:
        return import_module(module)
    except ImportError as missing:
        package = module.partition(".")[0].replace("_", "-")
        raise error(f"{what}: install the package {package} by pip install 'scorefield[{extra}]'.") from missing
