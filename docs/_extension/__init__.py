"""What the site has beyond Sphinx: pages made from the code, links, notebooks, a check of what was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

from _extension import checking, links, notebooks, reference, verbs

DOCS = Path(__file__).parents[1]


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx calls this."""
    app.connect("config-inited", lambda *_: generate())
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", reference.as_restructured_text)
    app.connect("doctree-read", reference.with_colons)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def generate() -> None:
    """Write the pages that are made from the code and from files beside docs/."""
    links.write(verbs.pages() | reference.pages() | links.pages())


def _read(_app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = links.for_the_site(source[0], docname)
    if docname == "api":
        source[0] = reference.linked(source[0])
    if docname.startswith("tutorials/"):
        source[0] = notebooks.with_links(source[0], docname)


def _finish(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.name == "html":
        notebooks.write(Path(app.outdir))
        for problem in checking.problems(Path(app.outdir)):
            logging.getLogger(__name__).warning(problem)
