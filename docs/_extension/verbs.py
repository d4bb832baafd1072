"""A page for each verb, made from its dataclass and from the parser of the command line."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from scorefield.cli import VERBS
from scorefield.cli.console import VOLUME
from scorefield.cli.parsing import DOMAINS, arguments_of, description, parser_of
from scorefield.run.verb import Between, Verb, names_of


def pages() -> dict[str, str]:
    """Docname and text of each page, the index among them."""
    for room in DOMAINS:
        import_module(f"scorefield.{room}")
    found = {docname(verb): page(verb, *where) for verb, where in VERBS.items()}
    rows = [
        f"| [`scorefield {verb}`]({docname(verb).removeprefix('verbs/')}.md) | {_first(class_of(*where))} |"
        for verb, where in VERBS.items()
    ]
    tree = ["```{toctree}", ":hidden:", *(name.removeprefix("verbs/") for name in found), "```"]
    head = (
        "# The command line\n\nA page for each verb: what it does, its arguments, their types and defaults. "
        "The pages are made from the code; `scorefield VERB --help` says the same.\n"
    )
    table = ["| verb | what it does |", "| --- | --- |", *rows]
    return found | {"verbs/index": "\n".join([head, *table, "", *tree, ""])}


def docname(verb: str) -> str:
    """The name of a verb's page."""
    return f"verbs/{verb.replace(' ', '-')}"


def class_of(room: str, name: str) -> type[Verb]:
    """The dataclass of a verb."""
    return getattr(import_module(f"scorefield.{room}"), name)


def page(verb: str, room: str, name: str) -> str:
    """The page of one verb."""
    kind = class_of(room, name)
    parser = parser_of(kind, verb)
    usage = " ".join(parser.format_usage().split()).removeprefix("usage: ")
    help_of = {action.dest: str(action.help or "").replace("%%", "%") for action in parser._actions}
    hints = get_type_hints(kind, include_extras=True)
    groups: dict[str, list[str]] = {}
    for field, plain in arguments_of(kind):
        hint = hints[field.name]
        hint = hint.type if isinstance(hint, dataclasses.InitVar) else hint
        kind_of = "true or false" if plain is bool and field.default is True else type_of(hint)
        row = f"| {_names(field)} | {kind_of} | {_default(field)} | {_meaning(help_of.get(field.name, ''))} |"
        groups.setdefault(_owner(kind, field.name), []).append(row)
    text = [f"# scorefield {verb}", "", _meaning(description(kind)), "", "```text", *_wrapped(usage), "```", ""]
    for owner in sorted(groups, key=lambda owner: owner != name):
        title = "Arguments" if owner == name else f"Arguments it shares ({owner})"
        text += [
            f"## {title}",
            "",
            "{.arguments}",
            "| argument | type | default | meaning |",
            "| --- | --- | --- | --- |",
            *groups[owner],
            "",
        ]
    text += [
        "Every verb also has " + ", ".join(f"`{word}` ({meaning})" for word, (meaning, _) in VOLUME.items()) + ".",
        "",
    ]
    if more := kind.more_help().strip("\n"):
        text += ["## Also in the help", "", "```text", more, "```", ""]
    text += ["## In Python", "", "```python", "import scorefield as sf", "", *_call(room, name, kind), "```", ""]
    return "\n".join(text)


def type_of(hint: Any) -> str:  # noqa: PLR0911 - one for each kind of type
    """A type for people: the range of a number, the words that are allowed, the class whose name is given."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind is Annotated:
        ranges = [_range(rule) for rule in inner[1:] if isinstance(rule, Between)]
        return " ".join([type_of(inner[0]), *filter(None, ranges)])
    if kind in (Union, UnionType):
        return " or ".join(dict.fromkeys(type_of(part) for part in inner if part is not type(None)))
    if kind is tuple:
        return f"several: {type_of(inner[0])}" if inner[-1] is ... else " and ".join(map(type_of, inner))
    if kind is Literal:
        return ", ".join(f"`{word}`" for word in inner)
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return f"names, each with {type_of(inner[1])}"
    plain = {
        "bool": "switch",
        "int": "whole number",
        "float": "number",
        "str": "text",
        "Path": "path",
        "dict": "names and values",
        "Any": "value",
    }
    name = getattr(kind or hint, "__name__", str(hint))
    if name in plain:
        return plain[name]
    return f"{{py:obj}}`{name} <scorefield.{name}>`" if _public(name) else f"`{name}`"


def _public(name: str) -> bool:
    import scorefield

    return name in scorefield.HOMES


def _range(rule: Between) -> str:
    """The range of a number, as far as it says something."""
    low = f"{'>' if rule.open else '≥'} {rule.least:g}" if rule.least > -1e9 else ""
    high = f"{'<' if rule.open else '≤'} {rule.most:g}" if rule.most < 1e9 else ""
    return ", ".join(filter(None, (low, high)))


def _owner(kind: type[Verb], name: str) -> str:
    """The class that brings an argument: the verb itself or a group that several verbs share."""
    return next(base.__name__ for base in reversed(kind.__mro__) if name in inspect.get_annotations(base))


def _names(field: dataclasses.Field[Any]) -> str:
    if field.metadata.get("positional"):
        return f"`{field.name.upper()}`"
    return ", ".join(f"`{name}`" for name in names_of(field))


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value in (dataclasses.MISSING, ...):
        return "has to be given"
    if value is None or value is False or value == ():
        return "none" if value is not False else "off"
    return f"`{_cell(str(value))}`"


def _first(kind: type[Verb]) -> str:
    """The first sentence of what a verb does."""
    return _meaning(description(kind).partition(". ")[0].partition("; ")[0].removesuffix("."))


def _meaning(text: str) -> str:
    """A sentence for a cell of a table, options in it as code."""
    return re.sub(r"(?<![\w`-])--[a-zA-Z][\w.-]*\w", r"`\g<0>`", _cell(text))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def _wrapped(usage: str) -> Iterator[str]:
    yield from textwrap.wrap(usage, 82, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)


def _call(room: str, name: str, kind: type[Verb]) -> list[str]:
    needed = [field.name for field, _ in arguments_of(kind) if _default(field) == "has to be given"]
    return [f"sf.{room}.{name}({', '.join(f'{name}=...' for name in needed)}).run()"]
