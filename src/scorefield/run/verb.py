"""Verbs: what scorefield does, as dataclasses of typed arguments. The command line and Python build the same ones.

    Sample(run="runs/a", n=64, out="samples").run()        scorefield sample runs/a -n 64 --out samples

A verb's constructor checks all that can be checked without a file, and `run` all the rest before it writes the first byte. What
it says on the way goes to the logger `scorefield`.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from scorefield.foundation.errors import InputError, brief

log = logging.getLogger("scorefield")


@dataclass(frozen=True)
class Between:
    """What a number has to be, in the annotation of its type: `Annotated[int, Between(1)]`.

    Args:
        least: the smallest that is allowed.
        most: the largest.
        open: whether the ends themselves are not allowed.
    """

    least: float = -math.inf
    most: float = math.inf
    open: bool = False

    def check(self, name: str, value: float, whole: bool) -> None:
        """Raise InputError for any other number."""
        number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
        inside = (
            number
            and math.isfinite(value)
            and (self.least < value < self.most if self.open else self.least <= value <= self.most)
        )
        if not inside:
            kind = "a whole number" if whole else "a number"
            ends = [f"{'above' if self.open else 'of at least'} {self.least}"] * (self.least > -math.inf)
            ends += [f"{'below' if self.open else 'of at most'} {self.most}"] * (self.most < math.inf)
            raise InputError(f"{name} is {str(value)[:40]}: give {kind} {' and '.join(ends)}.")


Count = Annotated[int, Between(1, 10**9)]
CountOrZero = Annotated[int, Between(0, 10**9)]
Seed = Annotated[int, Between(0, 2**63 - 1)]
Positive = Annotated[float, Between(0.0, open=True)]
NonNegative = Annotated[float, Between(0.0)]


def positional(**options: Any) -> Any:
    """A field of a verb that is given on the command line without a name; several values where its type is a sequence. With the
    default `...` it has to be given.
    """
    return dataclasses.field(metadata={"positional": True}, **options)


def option(*names: str, repeat: bool = False, **options: Any) -> Any:
    """A field of a verb with names of its own on the command line, `option("-n", "--number", default=64)`, or one of several
    values that is given once for each.
    """
    return dataclasses.field(metadata={"names": names, "repeat": repeat}, **options)


class Verb(ABC):
    """What is to be done. Subclasses are frozen dataclasses whose fields are the arguments, with keywords only.

    A field without default has to be given. Its type says what it can be; paths may be given as text.
    """

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            if name in self.__dataclass_fields__:
                value = _checked(names_of(self.__dataclass_fields__[name])[-1], getattr(self, name), hint)
                object.__setattr__(self, name, value)
        self.check()

    __dataclass_fields__: dict[str, Any]

    def check(self) -> None:  # noqa: B027 - most have nothing to add
        """Raise InputError for arguments that do not go together; called by the constructor."""

    @abstractmethod
    def run(self) -> Any:
        """Do it; returns what was found, for Python."""

    def table(self, found: Any) -> str:
        """What is printed of what was found, for people and programs; nothing by default."""
        return ""

    def conclude(self, found: Any) -> None:  # noqa: B027
        """Raise InputError, once it is printed, where what was found is not good enough."""

    @classmethod
    def more_help(cls) -> str:
        """What the help says beside the arguments; nothing by default."""
        return ""

    @classmethod
    def spelled_out(cls, arguments: Sequence[str]) -> list[str]:
        """The arguments of a command line with what it may leave out; as they are by default."""
        return list(arguments)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """A value as its type has it: text as a path, a list as a tuple. Raises InputError for anything else."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        value = _plain(value, inner[0])
        for rule in inner[1:]:
            rule.check(name, value, inner[0] is int)
        return value
    if kind in (Union, UnionType):
        return _checked_any(name, value, inner)
    if hint is Path and isinstance(value, str | PathLike) and str(value):  # "" would be the current folder
        return Path(value)
    if kind is tuple and isinstance(value, list | tuple):
        each = [inner[0]] * len(value) if inner[-1] is ... else inner
        if len(each) == len(value):
            return tuple(_checked(name, item, one) for item, one in zip(value, each, strict=True))
    elif kind is Literal:
        if value in inner and not isinstance(value, bool):
            return value
    elif _is_a(value, kind or hint):
        return _plain(value, hint)
    raise InputError(f"{name} is {brief(repr(value))}: give {_named(hint)}.")


def _checked_any(name: str, value: Any, hints: Sequence[Any]) -> Any:
    """A value as the first type that it is of."""
    if value is None and type(None) in hints:
        return None
    errors = []
    for hint in (hint for hint in hints if hint is not type(None)):
        try:
            return _checked(name, value, hint)
        except InputError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise InputError(f"{name} is {brief(repr(value))}: give {_any_of(hints)}.")


def _plain(value: Any, kind: Any) -> Any:
    """A number of numpy's as Python's, which records can hold."""
    foreign = kind in (int, float) and type(value) not in (int, float) and _is_a(value, kind)
    return kind(value) if foreign else value


def _is_a(value: Any, kind: Any) -> bool:
    """Whether a value is of a plain type; a whole number is a number, and a truth value is none."""
    if kind is Any or not isinstance(kind, type):
        return True
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    return isinstance(value, kind)


def _any_of(hints: Sequence[Any]) -> str:
    return " or ".join(_named(hint) for hint in hints if hint is not type(None))


def _named(hint: Any) -> str:
    """A type for people."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return _any_of(inner)
    if kind is Annotated:
        return _named(inner[0])
    if kind is tuple:
        return f"several, each {_named(inner[0])}" if inner[-1] is ... else f"{len(inner)}, each {_named(inner[0])}"
    if kind is Literal:
        return " or ".join(map(str, inner))
    plain = {bool: "True or False", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return plain.get(hint) or f"an object of the kind {getattr(kind or hint, '__name__', hint)}"


def names_of(field: dataclasses.Field[Any]) -> tuple[str, ...]:
    """The names of a field on the command line, the one that messages use last."""
    return field.metadata.get("names") or (f"--{field.name.replace('_', '-')}",)
