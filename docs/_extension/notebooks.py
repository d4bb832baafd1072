"""Tutorials as notebooks of Jupyter, which Colab opens: beside the built pages, without output."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from _extension.links import DOCS

SITE = "https://scorefield.github.io/scorefield"
COLAB = "https://colab.research.google.com/github/scorefield/scorefield/blob/gh-pages"  # the branch of the built site
INSTALL = "%pip install --quiet 'scorefield[climate,mri,functions] @ git+https://github.com/scorefield/scorefield'"
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+?)\.md(#[^)\s]*)?\)")


def tutorials() -> list[Path]:
    """The executed pages."""
    return sorted(path for path in (DOCS / "tutorials").glob("*.md") if path.stem != "index")


def cells(text: str) -> list[str]:
    """The code of each cell, in order."""
    return [code for _, code in CELL.findall(text)]


def with_links(text: str, docname: str) -> str:
    """A tutorial with what opens it elsewhere below its title."""
    name = docname.removeprefix("tutorials/")
    line = f"[Open in Colab]({COLAB}/tutorials/{name}.ipynb)"
    return text if name == "index" else re.sub(r"^(# .*)$", rf"\1\n\n{line}", text, count=1, flags=re.MULTILINE)


def notebook(path: Path) -> NotebookNode:
    """A tutorial as a notebook that installs scorefield first; links lead to the site."""
    body = path.read_text(encoding="utf-8").partition("\n---\n")[2]
    found, end = [nbformat.v4.new_code_cell(INSTALL)], 0
    for cell in CELL.finditer(body):
        found += _text(body[end : cell.start()])
        found.append(nbformat.v4.new_code_cell(cell[2].rstrip("\n")))
        end = cell.end()
    made = nbformat.v4.new_notebook(cells=[*found, *_text(body[end:])])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for i, cell in enumerate(made.cells):
        cell["id"] = f"cell-{i}"
    return made


def write(out: Path) -> None:
    """Write all of them beside the pages."""
    for path in tutorials():
        target = out / "tutorials" / f"{path.stem}.ipynb"
        target.parent.mkdir(exist_ok=True)
        nbformat.write(notebook(path), target)


def _text(text: str) -> list[NotebookNode]:
    text = LINK.sub(lambda m: f"]({_address(m[1])}.html{m[2] or ''})", text).strip()
    return [nbformat.v4.new_markdown_cell(text)] if text else []


def _address(path: str) -> str:
    return f"{SITE}/{path.removeprefix('../')}" if path.startswith("../") else f"{SITE}/tutorials/{path}"
