"""Configuration: the constructors are the configuration, jsonargparse reads it, and runs no code that it was not trusted with.

A recipe is a YAML file with three groups: `model` (sde, net, precondition, normaliser, sampler), `data` and `train`. It may name
others as its `base`, folded in order: mappings merge, lists and scalars are replaced, and a new `class_path` drops the old one's
arguments. What is no complete run - a network, an SDE, a data set - lies in `recipes/parts/`, to be a base and nothing else.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from jsonargparse import ArgumentParser, Namespace

from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import BoundedLoader, Budget, read_short, yaml_problem
from scorefield.run.aliases import renewed
from scorefield.run.defaults import (
    constructor_types,
    drop_replaced,
    import_class,
    named_in,
    names_in,
    with_class_paths,
    with_entries,
    with_own_defaults,
    without_renamed,
)
from scorefield.run.messages import Known, classes_in, explain

GROUPS = ("model", "data", "train")
UNWRITTEN = re.compile(r"Unable to serialize instance ([^'\n]+)")  # what the parser writes in its place
# What is a value and no option. argparse itself takes -1e7 for an option.
NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$|-\.?inf$", re.IGNORECASE)
BASE = 100  # values that the reading of a file costs as much as: bases that name two others each double


class Parser(ArgumentParser):
    """An argument parser that knows options by their whole names only, and whose errors are one line with a suggestion."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{"allow_abbrev": False, **options})
        self._negative_number_matcher = NEGATIVE

    @classmethod
    def named(cls, prog: str, description: str = "") -> Parser:
        """A new parser; jsonargparse makes nested ones itself."""
        return cls(prog=prog, description=description, exit_on_error=False, default_env=False)

    def read(self, arguments: Sequence[str], base: Namespace | None = None) -> Namespace:
        """Parse command-line arguments on top of a base, or of the parser's own defaults. A class that they change starts afresh,
        with its own defaults. A YAML file may stand for a class, see `class_from_file`.
        """
        try:
            arguments = self.with_files(arguments)
            below = drop_replaced(self.get_defaults() if base is None else base, arguments)
            kinds = {name: classes_in(kind) for name, kind in self._types().items()}
            arguments = with_entries(below, arguments, kinds)
            below = with_class_paths(below, arguments)
            given = set(named_in(arguments))
            return with_own_defaults(self.parse_args(list(arguments), namespace=below), given, below)
        except InputError:
            raise
        except Exception as error:
            raise InputError(self.explain(error)) from error

    def read_object(self, config: Mapping[str, Any], origin: str) -> Namespace:
        """Parse a mapping, such as the content of a recipe. A class that it names starts from its own defaults."""
        try:
            below = without_renamed(self.get_defaults(), config)
            return with_own_defaults(self.parse_object(dict(config), namespace=below), set(names_in(config)), below)
        except Exception as error:
            raise InputError(f"{origin}: {self.explain(error)}") from error

    def written(self, settings: Namespace) -> str:
        """What was parsed as YAML that is read back as the same: with every default, and null where a default was taken back.

        Raises:
            InputError: a class whose default for a list of objects cannot be written: a run with it could not be resumed.
        """
        found = self.dump(settings, skip_validation=True, skip_unset=False)
        if (lost := UNWRITTEN.search(found)) is not None:
            raise InputError(
                f"The default {lost[1]} cannot be written into a run's configuration: name it, or let it be None."
            )
        return found

    def explain(self, error: Exception) -> str:
        """One line: where, what, and what was probably meant."""
        options = [name for action in self._actions for name in action.option_strings]
        return explain(str(error), Known(self.prog, options, self._types(), recipes()))

    def format_help(self) -> str:
        """Help that names types by their names alone, not as Python prints them."""
        text = re.sub(r"<function\s+(\w+)\s+at\s+0x[0-9a-f]+>", r"\1", super().format_help())
        return re.sub(r"Optional\[([\w.]+)\]", r"\1 | null", re.sub(r"<class\s+'([\w.]+)'>", r"\1", text))

    def _types(self) -> dict[str, Any]:
        return {action.dest: getattr(action, "_typehint", None) for action in self._actions}

    def with_files(self, arguments: Sequence[str]) -> list[str]:
        """The arguments, with the content of a YAML file wherever one stands for a class."""
        classes = {f"--{key}" for key, kind in self._types().items() if classes_in(kind)}
        found: list[str] = []
        for word in arguments:
            head, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
            option = head if equals else found[-1] if found else ""
            if option in classes and value.endswith((".yaml", ".yml")):
                value = json.dumps(class_from_file(value, option.removeprefix("--")))
            elif (
                option in classes and Path(value).suffix and Path(value).is_file()
            ):  # which the parser would read as YAML
                example = f" (--data Arrays --data.path {value})" if option == "--data" else ""
                key = option.removeprefix("--")
                raise InputError(
                    f"{key}: {value} is a file, not a class: name the one that reads it{example}, or a YAML file that does."
                )
            found.append(f"{head}{equals}{value}" if equals else value if not head else word)
        return found


# ------------------------------------------------------------------------------------------------------------- recipes
def recipes() -> dict[str, Path]:
    """The recipes that come with the package, each a complete run."""
    return {path.stem: path for path in sorted(shipped_folder().glob("*.yaml"), key=lambda path: path.stem)}


def shipped_folder() -> Path:
    """Where the recipes that come with the package and their parts are."""
    return Path(str(files("scorefield") / "recipes"))


def find_recipe(name: str, folder: Path = Path()) -> Path:
    """A recipe by the name of a shipped one or the path of a YAML file, such as the shipped `parts/ve.yaml`."""
    shipped = recipes()
    for path in (folder / name, Path(name), shipped_folder() / name):
        if path.is_file():
            return path
    if (stem := name.removesuffix(".yaml")) in shipped:
        return shipped[stem]
    close = difflib.get_close_matches(name, shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else "`scorefield recipes` lists those there are."
    raise InputError(f"There is no recipe or file {name}: {hint}")


class _Plain(BoundedLoader):
    """Refuses references, and a key that is given twice: the last one would silently win."""

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise InputError("it uses YAML references (*name): write the values out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for name in (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name} is given twice", node.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


def class_from_file(name: str, key: str) -> dict[str, Any]:
    """The class that a YAML file describes by `class_path` and `init_args`, or that a recipe has at a dotted key."""
    path = find_recipe(name)
    content: Any = read_yaml(path)
    if "class_path" not in content:
        content = read_recipe(path)
        for part in key.split("."):
            content = content.get("init_args", content).get(part) if isinstance(content, Mapping) else None
    if not (isinstance(content, Mapping) and "class_path" in content):
        raise InputError(
            f"{name} names no class for {key}: it needs a class_path (and init_args), or {key} as a recipe has it."
        )
    return renewed(dict(content))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with a mapping, as plain data without references."""
    data = read_short(path)
    try:
        content = yaml.load(data.decode(), Loader=_Plain)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path} is not plain YAML: {yaml_problem(error)}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping: a recipe has the groups {', '.join(GROUPS)}.")
    return content


@dataclass(frozen=True)
class Leaf:
    """A value of a recipe that is no mapping, and what gave it."""

    value: Any
    origin: str = field(compare=False)


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe folded over its bases."""
    return _values(_folded_file(path, (), Budget(str(path))))


def fold_bases(content: Mapping[str, Any], origin: str, folder: Path = Path()) -> dict[str, Any]:
    """The content of a recipe folded over its bases.

    Args:
        content: groups of values, and perhaps `base`.
        origin: what to call it.
        folder: where bases are looked for first.
    """
    return _values(_folded(content, origin, folder, (), Budget(origin)))


def recipe_leaves(path: Path) -> dict[str, Leaf]:
    """The values of a recipe folded over its bases, each with the file that gave it, by their dotted names; see `leaves_in`."""
    return dict(leaves_in(_folded_file(path, (), Budget(str(path)))))


def leaves_in(tree: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, Leaf]]:
    """Leaves by dotted names without `init_args`; the name of a class is also that of its `class_path`."""
    for key, value in tree.items():
        inner = name if key in ("class_path", "init_args") else f"{name}.{key}".lstrip(".")
        if isinstance(value, Mapping):
            yield from leaves_in(value, inner)
        else:
            yield inner, value


def with_origin(value: Any, origin: str) -> Any:
    """The same tree of mappings with a `Leaf` for each value."""
    if isinstance(value, Mapping):
        return {key: with_origin(inner, origin) for key, inner in value.items()}
    return Leaf(value, origin)


def _values(tree: Any) -> Any:
    """A tree of mappings with the values of its leaves."""
    return {key: _values(inner) for key, inner in tree.items()} if isinstance(tree, Mapping) else tree.value


def _folded_file(path: Path, seen: tuple[Path, ...], budget: Budget) -> dict[str, Any]:
    if path.resolve() in seen:
        raise InputError(f"{path} is its own base.")
    budget.spend(len(seen), BASE)
    content = read_yaml(path)
    budget.check(content)
    return _folded(content, str(path), path.parent, (*seen, path.resolve()), budget)


def _folded(
    content: Mapping[str, Any], origin: str, folder: Path, seen: tuple[Path, ...], budget: Budget
) -> dict[str, Any]:
    """A recipe over its bases as a tree of leaves; `seen` are the files that it is a base of, and the budget is of all."""
    content = dict(renewed(content))
    bases = content.pop("base", [])
    bases = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(base, str) for base in bases):
        raise InputError(f"{origin}: base names no recipe: give the name of one, a file, or a list of them.")
    folded: dict[str, Any] = {}
    for base in bases:
        folded = fold(folded, _folded_file(find_recipe(base, folder), seen, budget))
    folded = fold(folded, with_origin(content, origin.removeprefix(f"{shipped_folder()}{os.sep}")))
    for group, values in folded.items():
        if group not in GROUPS:
            close = difflib.get_close_matches(str(group), GROUPS, n=1)
            raise InputError(f"{origin} has the unknown group {group}{f', did you mean {close[0]}?' if close else '.'}")
        if not isinstance(values, Mapping):
            raise InputError(f"{origin}: {group} is {values.value!r}, not a mapping of names to values.")
    return folded


def fold(parent: Any, child: Any) -> Any:
    """Child over parent: mappings merge, anything else is replaced; another `class_path` starts afresh."""
    if not (isinstance(parent, Mapping) and isinstance(child, Mapping)):
        return child
    if "class_path" in child and child["class_path"] != parent.get("class_path"):
        return dict(child)
    return {
        key: fold(parent[key], child[key]) if key in parent and key in child else {**parent, **child}[key]
        for key in {**parent, **child}
    }


# --------------------------------------------------------------------------------------------------------------- trust
def check_trust(config: Mapping[str, Any], kinds: Mapping[str, Any], trust: Sequence[str], origin: str) -> None:
    """Refuse a stored configuration that names code outside scorefield and the modules that the user trusts.

    A parser would import a class that is named by mere text, and read a file that is. In what we store every class is a mapping
    with a `class_path`, so text is refused wherever a constructor does not ask for text.

    Args:
        config: values by name.
        kinds: their types by name.
        trust: roots of the user's own modules.
        origin: what to call the file.
    """
    for name, value in config.items():
        _check_value(value, kinds.get(name), trust, f"{origin}: {name}")


def _check_value(value: Any, kind: Any, trust: Sequence[str], origin: str) -> None:
    if isinstance(value, Mapping):
        _check_mapping(value, kind, trust, origin)
    elif isinstance(value, list | tuple):
        for element in value:
            _check_value(element, kind, trust, origin)
    elif isinstance(value, str) and not _takes_text(kind):
        raise InputError(
            f"{origin} is the text {value!r} where a class belongs, and is not used: the file was tampered with."
        )


def _check_mapping(value: Mapping[str, Any], kind: Any, trust: Sequence[str], origin: str) -> None:
    if "class_path" not in value:
        check_trust(value, _types_inside(kind, value), trust, origin)
        return
    path = str(value["class_path"])
    if not _trusted(path, ("scorefield", *trust)):
        hint = f"if you know it and it is yours, add --trust {path.split('.', maxsplit=1)[0]}"
        raise InputError(f"{origin} asks for {path}, which is not part of scorefield, and is not run: {hint}.")
    arguments = value.get("init_args") or {}
    if not isinstance(arguments, Mapping) or value.keys() - {"class_path", "init_args"}:
        raise InputError(f"{origin} is no class_path with init_args: the file was tampered with.")
    check_trust(arguments, constructor_types(import_class(path)), trust, origin)


def _types_inside(kind: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    """The types of what a mapping holds: a dictionary's values, or the arguments of a class, which may be optional."""
    if get_origin(kind) is dict:
        return dict.fromkeys(value, get_args(kind)[1])
    found = constructor_types(kind)
    for part in get_args(kind):
        found = found or _types_inside(part, value)
    return found


def _takes_text(kind: Any) -> bool:
    """Whether text is among the values of a type, however it is nested."""
    if kind in (str, Path) or get_origin(kind) is Literal:
        return True
    return any(_takes_text(part) for part in get_args(kind))


def _trusted(path: str, roots: Sequence[str]) -> bool:
    """Whether a path leads to a class, or a function that makes one, defined under a root and not merely imported there."""
    if not any(path.startswith(root + ".") for root in roots) or any(part.startswith("_") for part in path.split(".")):
        return False
    try:
        found = import_class(path)
    except (ImportError, AttributeError, ValueError):
        return False
    made = found if isinstance(found, type) else constructor_types(found).get("return")
    return isinstance(made, type) and all(
        any(f"{part.__module__}.".startswith(root + ".") for root in roots) for part in (found, made)
    )
