"""Links that work on GitHub, made to work on the site: files beside docs/ have a page there, or an address."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
REPOSITORY = "https://github.com/scorefield/scorefield"
FIRST = "benchmarks/README"
GENERATED = ("verbs", "reference", "project", "benchmarks")  # folders of docs/, as in .gitignore
FENCED = re.compile(r"(^(`{3,}|~{3,}).*?^\2$)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(\]\()([^)\s#]+)?(#[^)\s]*)?(\))")


def homes() -> dict[str, Path]:
    """The pages that are files of the repository beside docs/: docname and file."""
    project = {
        name: ROOT / f"{name.upper()}.md" for name in ("contributing", "changelog", "security", "code_of_conduct")
    }
    benchmarks = {path.stem: path for path in sorted((ROOT / "benchmarks").glob("*.md"))}
    return {f"project/{name}": path for name, path in project.items()} | {
        f"benchmarks/{name}": path for name, path in benchmarks.items()
    }


def pages() -> dict[str, str]:
    """These pages, by their docnames; the first of the benchmarks leads to the others."""
    found = {name: path.read_text(encoding="utf-8") for name, path in homes().items()}
    others = [name.removeprefix("benchmarks/") for name in found if name.startswith("benchmarks/") and name != FIRST]
    return found | {FIRST: "\n".join([found[FIRST], "```{toctree}", ":hidden:", "", *others, "```", ""])}


def write(found: Mapping[str, str]) -> None:
    """Write generated pages; one that is as it was keeps its time, so that Sphinx does not read it again."""
    for folder in GENERATED:
        stale = set((DOCS / folder).glob("*.md")) - {DOCS / f"{name}.md" for name in found}
        for path in stale:
            path.unlink()
    for name, text in found.items():
        path = DOCS / f"{name}.md"
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def for_the_site(text: str, docname: str) -> str:
    """The text of a page with its links as the site has them. ValueError for one that leads nowhere."""
    known = homes()
    file = known.get(docname, DOCS / f"{docname}.md")
    site = {path.resolve(): f"{name}.md" for name, path in known.items()}

    def target(path: str) -> str:
        goal = Path(os.path.normpath(file.parent / path))
        if goal in site:
            return os.path.relpath(DOCS / site[goal], (DOCS / docname).parent)
        if goal.is_relative_to(DOCS) and (goal.is_file() or goal.relative_to(DOCS).parts[0] in GENERATED):
            return os.path.relpath(goal, (DOCS / docname).parent)
        if not goal.exists():
            raise ValueError(f"{docname} links to {path}, which is not there.")
        return f"{REPOSITORY}/{'tree' if goal.is_dir() else 'blob'}/main/{goal.relative_to(ROOT).as_posix()}"

    def replaced(match: re.Match[str]) -> str:
        opening, path, fragment, closing = match.groups(default="")
        if not path or re.match(r"[a-z]+:", path):
            return match.group()
        return opening + target(path) + fragment + closing

    parts = FENCED.split(text)  # text, fence, its ticks, text, ...
    return "".join(LINK.sub(replaced, part) if i % 3 == 0 else part for i, part in enumerate(parts) if i % 3 != 2)
