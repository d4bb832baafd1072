"""Whose defaults count: a class that is named starts from its own, where a parser keeps arguments of what it replaces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import MISSING, fields, is_dataclass
from importlib import import_module
from inspect import signature
from itertools import pairwise
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import Namespace


def import_class(path: str) -> Any:
    """The object at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def constructor_types(kind: Any) -> dict[str, Any]:
    """The types of the arguments of a class or a function, by name; nothing where they are not known."""
    inherited = is_dataclass(kind) and isinstance(kind, type)  # fields of another module, whose names this one lacks
    for owner in (kind.__init__ if isinstance(kind, type) else kind, *([kind] if inherited else [])):
        try:
            return get_type_hints(owner)
        except (NameError, TypeError, AttributeError):
            continue
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
    """The base with the class named of all that may be null, in every class of which an option sets an argument: the parser
    needs that.
    """
    base = base.clone()
    for option in named_in(arguments):
        owner: Any = base
        for name in option.split("."):
            if not isinstance(owner, Namespace):
                break
            inside = owner.get("init_args", owner)
            types = constructor_types(import_class(owner.class_path)) if _is_class(owner) else {}
            for argument, kind in types.items():
                held, kinds = inside.get(argument), get_args(kind)
                if isinstance(held, Namespace) and "class_path" not in held and kinds[1:] == (type(None),):
                    path = f"{kinds[0].__module__}.{kinds[0].__qualname__}"
                    inside[argument] = Namespace(class_path=path, init_args=held)
            owner = inside.get(name)
    return base


def with_entries(base: Namespace, arguments: Sequence[str], types: Mapping[str, Sequence[type]]) -> list[str]:
    """The arguments, with an empty entry before the first `--data.further.NAME.PART` of a NAME that is not there yet: the parser
    changes the entries that a mapping of dataclasses has, and makes none.

    Args:
        base: what they are parsed on top of.
        arguments: words of a command line.
        types: the classes that each option may name.
    """
    found: list[str] = []
    there: set[tuple[str, ...]] = set()
    for word, following in pairwise([*arguments, ""]):
        name, equals, value = word.partition("=")
        head, *path = name.removeprefix("--").replace(".init_args", "").split(".")
        entry = _entry_type(types.get(head, ()), path[0]) if word.startswith("--") and path else None
        if entry is not None and len(path) == 1:
            content = yaml.safe_load(value if equals else following)
            there.update((head, path[0], str(one)) for one in (content if isinstance(content, Mapping) else ()))
        elif entry is not None:
            held, key = _held(base, f"{head}.{path[0]}"), (head, path[0], path[1])
            if len(path) > 2 and key not in there and path[1] not in (held or {}):
                needed = [one for one in fields(entry) if one.default is MISSING and one.default_factory is MISSING]
                hints = get_type_hints(entry)
                empty = {one.name: [] if get_origin(hints[one.name]) is list else "" for one in needed}
                found.append(f"--{'.'.join(key)}={json.dumps(empty)}")
            there.add(key)
        found.append(word)
    return found


def _entry_type(kinds: Sequence[type], name: str) -> type | None:
    """The dataclass of the entries of an argument, of some classes or those made of them, that is a mapping of such; or None."""
    for kind in kinds:
        hint = constructor_types(kind).get(name)
        for part in (hint, *get_args(hint)):
            inner = get_args(part)
            if get_origin(part) is dict and is_dataclass(inner[1]):
                return inner[1] if isinstance(inner[1], type) else None
        if (found := _entry_type(kind.__subclasses__(), name)) is not None:
            return found
    return None


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
