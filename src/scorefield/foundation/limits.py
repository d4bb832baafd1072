"""The budget of reading: how deep, how many values, how long a text and how large a picture may be that others wrote.

A few bytes can stand for more than any memory holds: references that double, archives of zeros, sizes that are only claimed.
What a file asks for is compared with these limits, which no honest file comes near, before it is made.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipInfo

import yaml

from scorefield.foundation.errors import InputError, brief

DEPTH = 100  # containers within containers
NODES = 50_000  # values of a configuration, containers included
TEXT = 2 * 2**20  # bytes of a configuration
DIGITS = 400  # characters of a number
IMAGE = 2**30  # bytes of one image's file; its pixels are Pillow's to limit, to 179 million
PACKED = 1100  # bytes that one byte of a deflated archive can stand for


def too_deep(origin: str) -> InputError:
    """What is said of a file whose values are nested too deeply."""
    return InputError(f"{origin} is nested more than {DEPTH} deep, which is refused: write it flatter.")


class Budget:
    """What is left while one file is read.

    Args:
        origin: the file, for messages.
        nodes: values that it may hold.
    """

    def __init__(self, origin: str, nodes: int = NODES) -> None:
        self.origin, self.nodes, self._left = origin, nodes, nodes

    def spend(self, depth: int, nodes: int = 1) -> None:
        """Account for some values at a depth. Raises InputError where there are too many, or they lie too deep."""
        if depth > DEPTH:
            raise too_deep(self.origin)
        self._left -= nodes
        if self._left < 0:
            raise InputError(f"{self.origin} holds more than {self.nodes} values, each reference counted: shorten it.")

    def check(self, value: Any, depth: int = 0) -> None:
        """Account for all values of nested dictionaries and lists."""
        self.spend(depth)
        if isinstance(value, dict):
            value = value.values()
        elif not isinstance(value, list):
            return
        for inner in value:
            self.check(inner, depth + 1)


def read_short(path: Path) -> bytes:
    """The content of a file that is a configuration. Raises InputError where it is too long to be one."""
    if (size := path.stat().st_size) > TEXT:
        raise InputError(f"{path} has {size / 2**20:.0f} MiB, and a configuration at most {TEXT // 2**20}: shorten it.")
    return path.read_bytes()


def parse_json(text: str, origin: str) -> Any:
    """What a JSON text holds. Raises InputError where it is none, or is beyond the budget."""
    if len(text) > TEXT:
        raise InputError(
            f"{origin} has {len(text) >> 20} MiB, and a configuration at most {TEXT // 2**20}: shorten it."
        )
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise too_deep(origin) from error
    except ValueError as error:
        raise InputError(f"{origin} is no JSON that can be read ({brief(error)}): write it again.") from error
    Budget(origin).check(value)
    return value


class BoundedLoader(yaml.SafeLoader):
    """Plain YAML within the budget; a reference counts as one value."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._budget, self._depth = Budget("it"), 0

    def compose_node(self, parent: Any, index: Any) -> yaml.Node | None:
        self._budget.spend(self._depth)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if number and len(node.value) > DIGITS:  # of base 60 the time grows with the square
            raise InputError(f"it holds a number of {len(node.value)} characters: give at most {DIGITS}.")
        return super().construct_scalar(node)


def yaml_problem(error: Exception) -> str:
    """What is wrong with a YAML text, and where, in a few words."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark or error.context_mark
        return brief(error.problem) + (f" in line {mark.line + 1}" if mark else "")
    return brief(error)


def check_unpacked(files: Iterable[ZipInfo], size: int, origin: str, most: int = PACKED) -> None:
    """Refuse an archive that claims to hold more than its bytes can stand for.

    Args:
        files: what it claims to hold.
        size: of the archive in bytes.
        origin: what to call it.
        most: bytes that one of its bytes can stand for.
    """
    total = sum(file.file_size for file in files)
    if total > most * size:
        raise InputError(f"{origin} claims to hold {total} bytes in {size}, which it cannot: write it again.")


def check_memory(size: float, origin: str) -> None:
    """Refuse what is larger than this machine's memory, before it is filled.

    Args:
        size: in bytes.
        origin: what takes it.
    """
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else math.inf
    if size > pages > 0:
        raise InputError(f"{origin} takes {size / 2**30:.3g} GiB, and this machine has {pages / 2**30:.0f}: take less.")
