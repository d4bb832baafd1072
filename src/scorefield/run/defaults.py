"""Whose defaults count: a class that is named starts from its own, where a parser keeps arguments of what it replaces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any, get_args, get_type_hints

from jsonargparse import Namespace


def import_class(path: str) -> Any:
    """The object at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def constructor_types(kind: Any) -> dict[str, Any]:
    """The types of the arguments of a class or a function, by name; nothing where they are not known."""
    try:
        return get_type_hints(kind.__init__ if isinstance(kind, type) else kind)
    except (NameError, TypeError, AttributeError):
        return {}


def without_renamed(base: Namespace, config: Mapping[str, Any]) -> Namespace:
    """The base without the arguments of classes for which a mapping names others: the parser would keep those of equal names."""
    base = base.clone()
    for name, value in config.items():
        held = base.get(name)
        if not (isinstance(value, Mapping) and isinstance(held, Namespace)):
            continue
        renamed = "class_path" in value and held.get("class_path", value["class_path"]) != value["class_path"]
        base[name] = None if renamed else without_renamed(held, value)
    return base


def drop_replaced(base: Namespace, arguments: Sequence[str]) -> Namespace:
    """The base without the arguments of classes for which `--KEY CLASS` or `--KEY=CLASS` names another."""
    base = base.clone()
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for option, value in pairwise(words):
        holder: Any = base
        *path, last = option.removeprefix("--").split(".")
        for name in path:
            holder = holder.get(name) if isinstance(holder, Namespace) else None
            holder = holder.get("init_args", holder) if isinstance(holder, Namespace) else None
        held = holder.get(last) if option.startswith("--") and isinstance(holder, Namespace) else None
        if isinstance(held, Namespace) and held.get("class_path", value).split(".")[-1] != value.split(".")[-1]:
            holder[last] = None
    return base


def with_class_paths(base: Namespace, arguments: Sequence[str]) -> Namespace:
    """The base with the class named wherever an option sets an argument of one that may be null: the parser needs that."""
    base = base.clone()
    for option in named_in(arguments):
        owner: Any = base
        for name in option.split(".")[:-1]:
            inside = owner.get("init_args", owner) if isinstance(owner, Namespace) else Namespace()
            held = inside.get(name)
            if isinstance(held, Namespace) and "class_path" not in held and _is_class(owner):
                kinds = get_args(constructor_types(import_class(owner.class_path)).get(name))
                if len(kinds) == 2 and kinds[1] is type(None):
                    path = f"{kinds[0].__module__}.{kinds[0].__qualname__}"
                    held = inside[name] = Namespace(class_path=path, init_args=held)
            owner = held
    return base


def completed(before: Any, now: Any) -> Any:
    """A stored configuration with the arguments that its classes did not have yet, where they now have their default.

    Args:
        before: what was stored.
        now: the configuration of today, whose classes have been built.
    """
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        return before
    whole = {name: completed(value, now.get(name)) for name, value in before.items()}
    arguments, given = whole.get("init_args"), now.get("init_args")
    same = whole.get("class_path") == now.get("class_path")
    if same and isinstance(arguments, dict) and isinstance(given, Mapping):
        parameters = signature(import_class(now["class_path"])).parameters
        for name, value in given.items():
            default = parameters[name].default if name in parameters else ...
            if name not in arguments and value == (list(default) if isinstance(default, tuple) else default):
                arguments[name] = value
    return whole


def names_in(config: Mapping[str, Any]) -> Iterator[str]:
    """The dotted names of the values that a mapping gives, and of the classes that it names, without `init_args`."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            inside = "" if name == "init_args" else f"{name}."
            yield from (inside + rest for rest in names_in(value))
        if name != "class_path" and not (isinstance(value, Mapping) and "class_path" not in value):
            yield name


def named_in(arguments: Sequence[str]) -> Iterator[str]:
    """The dotted names of the values that `--KEY VALUE` or `--KEY=VALUE` give, and of the classes that they name."""
    for argument in arguments:
        if argument.startswith("--"):
            name = argument.removeprefix("--").partition("=")[0]
            yield name.replace(".init_args", "").removesuffix(".class_path")


def with_own_defaults(parsed: Namespace, given: Set[str], base: Namespace) -> Namespace:
    """What was parsed, with the defaults of each class that was named within another one: the parser keeps, of a class that it
    replaces, the default arguments of equal names. Classes in lists are left as they are.

    Args:
        parsed: the result, which is changed.
        given: the dotted names of the values that were given, and of the classes that were named.
        base: what it was parsed on top of, whose classes keep their arguments.
    """
    for path in given:
        outer, node = _held(parsed, path.rpartition(".")[0]), _held(parsed, path)
        if not (_is_class(outer) and _is_class(node)):
            continue
        before = _held(base, path)
        if _is_class(before) and before.class_path == node.class_path:
            continue
        for name, parameter in signature(import_class(node.class_path)).parameters.items():
            explicit = any(f"{other}.".startswith(f"{path}.{name}.") for other in given)
            if not explicit and isinstance(parameter.default, int | float | str | tuple | None):
                node.init_args[name] = parameter.default
    return parsed


def _held(config: Namespace, path: str) -> Any:
    """What is at a dotted name, or None."""
    found: Any = config
    for name in path.split("."):
        found = found.get("init_args", found) if isinstance(found, Namespace) else None
        found = found.get(name) if isinstance(found, Namespace) else None
    return found


def _is_class(part: Any) -> bool:
    return isinstance(part, Namespace) and "class_path" in part and isinstance(part.get("init_args"), Namespace)
