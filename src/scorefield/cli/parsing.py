"""From the arguments of a command line to a verb: what the verb's dataclass says is all that there is to know."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring

from scorefield.cli.console import VOLUME
from scorefield.data.source import Source
from scorefield.foundation.errors import brief
from scorefield.run.configuration import Parser
from scorefield.run.numbers import spelled
from scorefield.run.recipe import build
from scorefield.run.verb import Verb, names_of

DOMAINS = ("datasets", "climate", "mri", "functions")  # whose classes are known by their short names
V = TypeVar("V", bound=Verb)


def parse(verb: type[V], name: str, arguments: Sequence[str]) -> V:
    """The verb that arguments ask for. InputError for what it does not know, or refuses."""
    for room in DOMAINS:
        import_module(f"scorefield.{room}")
    parser = parser_of(verb, name)
    if {"-h", "--help"} & set(arguments):
        print(parser.format_help() + verb.more_help(), end="")
        raise SystemExit(0)
    settings = parser.read(spelled(verb.spelled_out(arguments), lists_of(verb)))
    built = build(parser, settings)
    values = {field.name: built[field.name] for field, _ in arguments_of(verb)}
    return verb(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def parser_of(verb: type[Verb], name: str) -> Parser:
    """A parser with an argument for each field of a verb."""
    parser = Parser.named(f"scorefield {name}", description(verb))
    help_of = dict(_help(verb))
    for field, kind in arguments_of(verb):
        options: dict[str, Any] = {"help": help_of.get(field.name, "")}
        required, default = field.default in (dataclasses.MISSING, ...), field.default
        if field.default_factory is not dataclasses.MISSING:
            required, default = False, field.default_factory()
        default = list(default) if isinstance(default, tuple) else default  # jsonargparse fills its items in
        if field.metadata.get("positional"):
            several = get_origin(kind) is tuple
            options |= {"type": get_args(kind)[0], "nargs": "+"} if several else {"type": kind}
            options |= {} if required else {"nargs": "?", "default": default}
            parser.add_argument(field.name, **options)
            continue
        names = names_of(field)
        options |= {"required": True} if required else {"default": default}
        options |= {"dest": field.name} if field.metadata.get("names") else {}
        options |= {"sub_configs": True} if Source in (kind, *get_args(kind)) else {}  # data may lie in a YAML file
        parser.add_argument(*names, **options | _values(kind, field))
    for word, (meaning, _) in VOLUME.items():  # which are taken from the command line before it is parsed
        parser.add_argument(word, action="store_true", help=meaning)
    return parser


def lists_of(verb: type[Verb]) -> set[str]:
    """The names of the options that take several numbers."""
    found = set[str]()
    for field, kind in arguments_of(verb):
        inner = _several(kind)
        if get_origin(inner) is tuple and get_args(inner)[0] in (int, float) and not field.metadata.get("positional"):
            found.update(names_of(field))
    return found


def settings_of(verb: Verb) -> Iterator[tuple[str, str]]:
    """What a verb was built with, defaults included, as the command line calls it."""
    for field in dataclasses.fields(verb):  # pyright: ignore[reportArgumentType]
        yield names_of(field)[-1], brief(repr(getattr(verb, field.name)))


def arguments_of(verb: type[Verb]) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """The fields that a verb's constructor takes, each with its plain type."""
    hints = get_type_hints(verb)
    for field in verb.__dataclass_fields__.values():
        if field.init:
            kind = hints[field.name]
            yield field, kind.type if isinstance(kind, dataclasses.InitVar) else kind


def description(verb: type[Verb]) -> str:
    """What a verb does, from its docstring."""
    return " ".join((parse_docstring(inspect.getdoc(verb) or "").description or "").split())


def _help(verb: type[Verb]) -> Iterator[tuple[str, str]]:
    """What the docstrings of a verb and of its groups of arguments say of each."""
    for kind in reversed(verb.__mro__):
        for found in parse_docstring(kind.__dict__.get("__doc__") or "").params:
            text = " ".join((found.description or "").split()).replace("%", "%%")
            yield found.arg_name, text if text.endswith("...") else text.removesuffix(".")


def _values(kind: Any, field: dataclasses.Field[Any]) -> dict[str, Any]:
    """How an option takes its values: a switch none, a repeated one one each time, others several where they are a tuple."""
    if kind is bool and field.default is False:
        return {"action": "store_true"}
    inner = _several(kind)
    if get_origin(inner) is not tuple:
        return {"type": kind}
    first, *rest = get_args(inner)
    if field.metadata.get("repeat"):
        return {"type": first, "action": "append", "default": []}
    return {"type": first, "nargs": "+" if rest == [...] else 1 + len(rest)}


def _several(kind: Any) -> Any:
    """The type of several values, of a type that may be absent."""
    return next((part for part in get_args(kind) if get_origin(part) is tuple), kind)
