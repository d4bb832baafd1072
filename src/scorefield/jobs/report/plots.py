"""Curves as SVG that stands in a page: its colours are the page's, so that they follow light and dark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from markupsafe import Markup

COLOURS = {
    "#010101": "var(--soft)",
    "#010102": "var(--line)",
}  # what matplotlib draws with, and what the page makes of it
CURVES = {"#010103": "var(--one)", "#010104": "var(--two)", "#010105": "var(--three)"}
INK, GRID = COLOURS
SIZE = (5.2, 3.2)  # inches, read as 374 × 230 pixels: about the width of a phone, where 11 points can be read


@dataclass(frozen=True)
class Line:
    """A named curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def curve_svg(key: str, lines: Sequence[Line], *, xlabel: str, ylabel: str, log: bool) -> Markup:
    """At most three curves with axes, as an SVG element.

    Args:
        key: a word that no other picture of the page has.
        lines: what to draw.
        xlabel: what x is.
        ylabel: what y is.
        log: whether y is drawn on a logarithmic scale.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, LogLocator, StrMethodFormatter

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": key,
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
    }
    style |= {
        "axes.edgecolor": GRID,
        "xtick.color": INK,
        "ytick.color": INK,
        "grid.color": GRID,
        "axes.facecolor": "none",
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=SIZE, layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        for line, colour in zip(lines, CURVES if len(lines) > 1 else [*CURVES][::-1], strict=False):
            axes.plot(
                line.x, line.y, color=colour, label=line.name, linewidth=1.8, marker="." if len(line.x) < 3 else ""
            )
        axes.set(xlabel=xlabel, ylabel=ylabel, yscale="log" if log else "linear")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if log:
            low, high = axes.get_ylim()
            axes.yaxis.set_minor_locator(LogLocator(subs=between(high / low)))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
        axes.grid(True, which="major", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
        if len(lines) > 1:
            axes.legend(frameon=False)
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Markup(embeddable(text.getvalue(), key))


def between(ratio: float) -> tuple[int, ...]:
    """The ticks between powers of ten, for a logarithmic axis over such a ratio: few, so that each can have its number."""
    return (2, 3, 4, 6, 8) if ratio < 10 else (2, 5) if ratio < 300 else ()


def embeddable(svg: str, key: str) -> str:
    """An SVG file as an element of a page: without prologue, size and names of schemes, its ids marked by a key."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|width|height|version)="[^"]*"', "", head)
    svg = f'{head} aria-hidden="true">{rest}'.replace("xlink:href", "href")
    svg = re.sub(r'\bid="', f'id="{key}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\1{key}-", svg)
    for drawn, meant in (COLOURS | CURVES).items():
        svg = svg.replace(drawn, meant)
    return svg
