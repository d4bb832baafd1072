"""Configuration: the constructors are the configuration, jsonargparse reads it, and nothing in it is executed unasked.

A recipe is a YAML file with three groups: `model` (sde, net, precondition, normaliser, sampler), `data` and `train`. It may name
another as its `base`: mappings merge, lists and scalars are replaced, and a new `class_path` drops the old one's arguments.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.resources import files
from inspect import signature
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, Namespace

from scorefield.errors import InputError

GROUPS = ("model", "data", "train")


class Parser(ArgumentParser):
    """An argument parser whose errors are one line with a suggestion."""

    @classmethod
    def named(cls, prog: str, description: str = "") -> Parser:
        """A new parser; jsonargparse makes nested ones itself."""
        return cls(prog=prog, description=description, exit_on_error=False, default_env=False)

    def read(self, arguments: Sequence[str], base: Namespace | None = None) -> Namespace:
        """Parse command-line arguments on top of a base. A class that they change starts afresh, with its own defaults."""
        try:
            return self.parse_args(list(arguments), namespace=None if base is None else drop_replaced(base, arguments))
        except Exception as error:
            raise InputError(self.explain(error)) from error

    def read_object(self, config: Mapping[str, Any], origin: str) -> Namespace:
        """Parse a mapping, such as the content of a recipe."""
        try:
            return self.parse_object(dict(config))
        except Exception as error:
            raise InputError(f"{origin}: {self.explain(error)}") from error

    def explain(self, error: Exception) -> str:
        """One line: where, what, and what was probably meant."""
        text = re.sub(r"\s+", " ", str(error)).strip()
        text = re.sub(r"Parser key \"([^\"]+)\": Problem with given class_path '[^']*': (?=Parser key)", r"\1: ", text)
        return text + self._suggest(text)

    def _suggest(self, text: str) -> str:
        options = [name for action in self._actions for name in action.option_strings]
        if found := re.search(r"[Uu]nrecognized arguments?: (-\S+)", text):
            word = found[1].split("=")[0]
        elif found := re.search(r"given class_path '([\w.]+)': .*(?:Option|Key) '(\w+)' is not", text):
            word, options = found[2], list(signature(import_class(found[1])).parameters)
        elif found := re.search(r"(?:Key|Option) '([\w.]+)' is not", text):
            word, options = found[1], [name.lstrip("-") for name in options]
        else:
            return ""
        close = difflib.get_close_matches(word, options, n=1, cutoff=0.5)
        return f" Did you mean {close[0]}?" if close else f" Known: {', '.join(sorted(options)[:12])}."


# ------------------------------------------------------------------------------------------------------------- recipes
def recipes() -> dict[str, Path]:
    """The recipes that come with the package."""
    folder = Path(str(files("scorefield") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(name: str, folder: Path = Path()) -> Path:
    """A recipe by the name of a shipped one or the path of a YAML file."""
    shipped = recipes()
    for path in (folder / name, Path(name)):
        if path.is_file():
            return path
    if name in shipped:
        return shipped[name]
    close = difflib.get_close_matches(name, shipped, n=1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(shipped)}."
    raise InputError(f"There is no recipe or file {name}: {hint}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file with a mapping, as plain data."""
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not plain YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no mapping: a recipe has the groups {', '.join(GROUPS)}.")
    return content


def read_recipe(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe folded over its bases."""
    if path.resolve() in seen:
        raise InputError(f"{path} is its own base.")
    content = read_yaml(path)
    bases = content.pop("base", [])
    folded: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        parent = find_recipe(base.removesuffix(".yaml") if base in recipes() else base, path.parent)
        folded = fold(folded, read_recipe(parent, (*seen, path.resolve())))
    folded = fold(folded, content)
    if unknown := set(folded) - set(GROUPS):
        word = sorted(unknown)[0]
        close = difflib.get_close_matches(word, GROUPS, n=1)
        raise InputError(f"{path} has the unknown group {word}{f', did you mean {close[0]}?' if close else '.'}")
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


# --------------------------------------------------------------------------------------------------------------- trust
def import_class(path: str) -> Any:
    """The object at a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def check_trust(config: Any, trust: Sequence[str], origin: str) -> None:
    """Refuse a configuration from a file that names code outside scorefield and the modules that the user trusts."""
    if isinstance(config, Mapping):
        path = config.get("class_path")
        if path is not None and not _trusted(str(path), ("scorefield", *trust)):
            root = str(path).split(".")[0]
            raise InputError(
                f"{origin} asks for {path}, which is not part of scorefield, and is not run: if you know it and it is yours, "
                f"add --trust {root}."
            )
        for value in config.values():
            check_trust(value, trust, origin)
    elif isinstance(config, list | tuple):
        for value in config:
            check_trust(value, trust, origin)


def _trusted(path: str, roots: Sequence[str]) -> bool:
    """Whether a dotted path leads to a class defined under one of the roots, not to something that a module imports."""
    if not any(path.startswith(root + ".") for root in roots):
        return False
    try:
        found = import_class(path)
    except (ImportError, AttributeError, ValueError):
        return False
    return isinstance(found, type) and any(f"{found.__module__}.".startswith(root + ".") for root in roots)
