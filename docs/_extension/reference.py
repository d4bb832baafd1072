"""The API reference: a page for each section of docs/api.md, whose names autodoc documents from their docstrings."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from docutils import nodes

import scorefield as sf
from _extension.links import DOCS, REPOSITORY, ROOT

ROW = re.compile(r"^\| ([\w.]+) \| (`.*`) \|$")


def sections() -> dict[str, list[str]]:
    """The sections of docs/api.md that list public names, with these names."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in (DOCS / "api.md").read_text(encoding="utf-8").splitlines():
        title = line.removeprefix("## ") if line.startswith("## ") else title
        if (row := ROW.match(line)) and title not in ("Verbs", "Rooms"):
            found.setdefault(title, []).extend(re.findall(r"`([\w.]+)`", row[2]))
    return found


def pages() -> dict[str, str]:
    """Docname and text of each page."""
    return {docname(title): page(title, names) for title, names in sections().items()}


def docname(title: str) -> str:
    """The name of a section's page."""
    return f"reference/{title.lower().replace(' ', '-')}"


def page(title: str, names: list[str]) -> str:
    """The page of one section: what there is in one line each, and then all of it."""
    rows = [f"| {{py:obj}}`{name} <scorefield.{name}>` | {_summary(getattr(sf, name))} |" for name in names]
    text = [f"# {title}", "", "| name | what it is |", "| --- | --- |", *rows, ""]
    for name in names:
        text += ["```{eval-rst}", f".. {_directive(getattr(sf, name))}:: scorefield.{name}", "```", ""]
    return "\n".join(text)


def linked(text: str) -> str:
    """The text of docs/api.md with a link from each name to its page."""
    lines = []
    for line in text.splitlines():
        row = ROW.match(line)
        known = row and re.sub(r"`(\w+)`", lambda m: f"{{py:obj}}`{m[1]} <scorefield.{m[1]}>`", row[2])
        lines.append(f"| {row[1]} | {known} |" if row else line)
    return "\n".join(lines) + "\n"


def address_of(module: str, name: str) -> str | None:
    """The lines on GitHub where a public name is defined."""
    found: Any = import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    try:
        lines, start = inspect.getsourcelines(inspect.unwrap(found))
        path = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT.resolve())
    except (TypeError, OSError, ValueError):
        return None
    return f"{REPOSITORY}/blob/main/{path.as_posix()}#L{start}-L{start + len(lines) - 1}"


def as_restructured_text(_app: Any, what: str, _name: str, _obj: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text with code between backticks: what only reStructuredText would take for markup is escaped."""
    if what == "property" and lines and (kind := next((line for line in lines if line.startswith(":type: ")), "")):
        lines.remove(kind)  # what was before a colon, and is no type
        lines[0] = f"{kind.removeprefix(':type: ')}: {lines[0]}"
    literal = None  # the indentation of the line before an indented example
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            parts = re.split(r"(`[^`]*`)", line)
            lines[i] = "".join(part if part.startswith("`") else _escaped(part) for part in parts)
            if line.rstrip().endswith("::"):
                literal = indent


def with_colons(_app: Any, tree: nodes.document) -> None:
    """A colon between an argument and what is said of it, where Sphinx has two dashes."""
    for found in list(tree.findall(lambda node: isinstance(node, nodes.Text) and node.astext() == " -- ")):
        found.parent.replace(found, nodes.Text(": "))


def _escaped(text: str) -> str:
    return re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text)


def _directive(found: Any) -> str:
    return "autoclass" if inspect.isclass(found) else "autofunction"


def _summary(found: Any) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(found) or "").partition("\n\n")[0].split())
    first = re.split(r"(?<!et al)[.:;](?=\s|$)", text, maxsplit=1)[0]
    first = first if first.count("(") == first.count(")") else first.rpartition(" (")[0]  # a source is below, in full
    return first.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")
