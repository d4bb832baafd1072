"""Classes of the user's own, in modules of the current folder: found where a class path names one, and otherwise not at all.

Whoever unpacks an archive and looks at it must not run a `yaml.py` or an `h5py.py` that lies in it. So the current folder is not
on the path; it comes onto it, last, where an argument or a recipe names a class in a module that is only there.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import BoundedLoader
from scorefield.run.configuration import read_recipe, read_yaml
from scorefield.run.messages import FILE

CLASS = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def make_importable(arguments: Sequence[str]) -> None:
    """Put the current folder last on the path where the arguments of a verb name a class, or a module to trust, that is there."""
    here = Path.cwd()
    for root in {path.partition(".")[0] for path in (*_trusted(arguments), *_classes(_values(arguments)))}:
        lies_here = (here / f"{root}.py").is_file() or (here / root).is_dir()
        if lies_here and root not in sys.modules and importlib.util.find_spec(root) is None:
            sys.path.append(str(here))
            importlib.invalidate_caches()
            return


def _trusted(arguments: Sequence[str]) -> Iterator[str]:
    """The values of --trust, which may be several."""
    trusting = False
    for word in arguments:
        name, equals, value = word.partition("=")
        trusting = name == "--trust" if word.startswith("-") else trusting
        if trusting and (equals or not word.startswith("-")):
            yield value if equals else word


def _values(arguments: Sequence[str]) -> Iterator[Any]:
    """What the arguments give: words, what is written in them as JSON or YAML, and the content of YAML files."""
    for word in arguments:
        value = word.partition("=")[2] if word.startswith("-") else word
        try:
            if value.endswith((".yaml", ".yml")) and Path(value).is_file():
                content = read_yaml(Path(value))
                yield content if "class_path" in content else read_recipe(Path(value))
            else:
                yield yaml.load(value, Loader=BoundedLoader) if value.startswith(("{", "[")) else value
        except (InputError, yaml.YAMLError, ValueError, OSError):
            continue  # the verb itself says what is wrong with it


def _classes(values: Iterable[Any]) -> Iterator[str]:
    """The dotted names in values, however nested, that are no names of files."""
    for value in values:
        if isinstance(value, Mapping):
            yield from _classes(value.values())
        elif isinstance(value, list):
            yield from _classes(value)
        elif isinstance(value, str) and CLASS.fullmatch(value) and not FILE.search(value) and not Path(value).exists():
            yield value
