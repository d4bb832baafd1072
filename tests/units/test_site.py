"""The site: a page for each verb and name, commands that the command line knows, links that lead somewhere, pages that run."""

from __future__ import annotations

import dataclasses
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scorefield as sf
from scorefield.cli import VERBS
from scorefield.cli.parsing import arguments_of, parser_of
from scorefield.run.on_recipe import OnRecipe
from scorefield.run.verb import names_of

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
sys.path.append(str(DOCS))
pytest.importorskip("sphinx", reason="the site is made by Sphinx: pip install 'scorefield[docs]'")
checking, links, notebooks, reference, verbs = (
    importlib.import_module(f"_extension.{name}") for name in ("checking", "links", "notebooks", "reference", "verbs")
)
NOT_EXECUTED = (
    "-D",
    "nb_execution_mode=off",
    "-D",
    "suppress_warnings=myst-nb.lexer",
)  # what no kernel ran has no language
LAUNCHED = r"(?:\S+=\S+ |torchrun .*-m |srun .*?|sbatch .*\"|exec )*scorefield ([a-z].*)"
EXECUTED = sorted(
    path.relative_to(DOCS).as_posix()
    for path in (*DOCS.glob("*.md"), *(DOCS / "tutorials").glob("*.md"))
    if "file_format: mystnb" in path.read_text(encoding="utf-8")
)


# ------------------------------------------------------------------------------------------------------------- the pages
def test_every_verb_has_its_page_with_every_argument() -> None:
    pages = verbs.pages()
    for verb, (room, name) in VERBS.items():
        page, kind = pages[verbs.docname(verb)], verbs.class_of(room, name)
        assert page.startswith(f"# scorefield {verb}\n") and f"sf.{room}.{name}(" in page
        assert f"]({verb.replace(' ', '-')}.md)" in pages["verbs/index"]
        rows = {
            row.split(" | ")[0].removeprefix("| "): row.split(" | ") for row in page.splitlines() if row[:3] == "| `"
        }
        assert len(rows) == len(list(arguments_of(kind)))
        for field, _ in arguments_of(kind):
            positional = field.metadata.get("positional")
            shown = f"`{field.name.upper()}`" if positional else ", ".join(f"`{option}`" for option in names_of(field))
            _, type_of, default, meaning = rows[shown]
            assert type_of and default and len(meaning) > 3, (verb, shown)
            needed = field.default in (dataclasses.MISSING, ...) and field.default_factory is dataclasses.MISSING
            assert (default == "has to be given") == needed, (verb, shown)


def test_every_public_name_has_its_page_once() -> None:
    pages = reference.pages()
    shown = re.findall(r"^\.\. auto(?:class|function):: scorefield\.(\w+)$", "\n".join(pages.values()), re.MULTILINE)
    assert sorted(shown) == sorted({*sf.__all__} - {"__version__"})
    tree = (DOCS / "api.md").read_text(encoding="utf-8")
    assert all(re.search(rf"^{name}$", tree, re.MULTILINE) for name in pages)


def test_what_only_restructured_text_takes_for_markup_is_escaped() -> None:
    lines = ["A* A x of `A*x_`, |x| and x_", "in it::", "", "    a * b_", "", "x_t *kwargs"]
    reference.as_restructured_text(None, "", "", None, None, lines)
    known = ["the network's own.", "", ":type: Of what is in model space"]
    reference.as_restructured_text(None, "property", "", None, None, known)
    assert known == ["Of what is in model space: the network's own.", ""]
    assert lines == [r"A\* A x of `A*x_`, \|x\| and x\_", "in it::", "", "    a * b_", "", r"x_t \*kwargs"]


# ---------------------------------------------------------------------------------------------------------- the commands
def commands() -> Iterator[tuple[str, str]]:
    """The commands in the pages, each with the file that it is in."""
    for path in (ROOT / "README.md", *DOCS.glob("*.md"), *(DOCS / "tutorials").glob("*.md")):
        text = path.read_text(encoding="utf-8").replace("\\\n", " ").replace("\\|", "|")
        code = re.findall(r"^(?:    |!|(?=scorefield |srun |exec ))(.*)$|`([^`\n]+)`", text, re.MULTILINE)
        for line in (indented or inline for indented, inline in code):
            for part in re.split(r"&&|\s#|;", line):
                if found := re.match(LAUNCHED, part.strip()):
                    yield path.name, found[1]


def test_the_commands_in_the_pages_are_known_to_the_command_line() -> None:
    known: dict[str, set[str]] = {"completion": set()}  # of the command line itself
    for verb, where in VERBS.items():
        kind = verbs.class_of(*where)
        known[verb] = {*parser_of(kind, verb)._option_string_actions} - {"--help"}
        known[verb] |= (
            {"--model", "--data", "--train"} if issubclass(kind, OnRecipe) or verb == "mlbench train" else set()
        )
    seen = set()
    for page, command in commands():
        words = command.split()
        verb = " ".join(words[:2]) if " ".join(words[:2]) in VERBS else words[0]
        assert verb in known, (page, command)
        for option in re.findall(r"(?<=\s)-{1,2}[a-z][\w-]*(?=[\s.=`]|$)", command):
            assert option in known[verb], (page, command, option)
        seen.add(verb)
    assert len(seen) > 20


# ------------------------------------------------------------------------------------------------------------- the links
def test_links_work_on_github_and_on_the_site() -> None:
    def of(text: str, page: str = "tutorials/mri") -> str:
        return links.for_the_site(text, page)

    assert of("[a](../mri.md#a) [b](https://x.y/z) [c](#c)") == "[a](../mri.md#a) [b](https://x.y/z) [c](#c)"
    assert of("[a](../../benchmarks/mri.md)") == "[a](../benchmarks/mri.md)"
    assert of("[a](../CHANGELOG.md)", "compatibility") == "[a](project/changelog.md)"
    assert of("[a](docs/mri.md) [b](benchmarks/)", "project/contributing").startswith(
        "[a](../mri.md) [b](https://github"
    )
    assert of("[a](../benchmarks/mri.py)", "mri").endswith("/blob/main/benchmarks/mri.py)")
    assert of("```\n[a](absent.md)\n```") == "```\n[a](absent.md)\n```"
    with pytest.raises(ValueError, match="absent"):
        of("[a](absent.md)")
    for page in (*DOCS.glob("*.md"), *(DOCS / "tutorials").glob("*.md")):
        of(page.read_text(encoding="utf-8"), page.relative_to(DOCS).with_suffix("").as_posix())
    for name, text in links.pages().items():
        of(text, name)


def test_dead_links_and_what_comes_from_elsewhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text('<p id="x"><a href="b.html#y">b</a><a href="#x">x</a><img src="i.png"></p>')
    (tmp_path / "b.html").write_text(
        '<a href="c.html">c</a><script src="https://x.y/z.js"></script><a href="https://x.y">'
    )
    assert sorted(checking.problems(tmp_path)) == [
        "a.html links to b.html#y, a page without this anchor",
        "a.html links to i.png, which is not there",
        "b.html fetches https://x.y/z.js from elsewhere",
        "b.html links to c.html, which is not there",
    ]


# --------------------------------------------------------------------------------------------------------- the notebooks
def test_tutorials_are_notebooks_for_colab() -> None:
    index = (DOCS / "tutorials" / "index.md").read_text(encoding="utf-8")
    for path in notebooks.tutorials():
        text = path.read_text(encoding="utf-8")
        made = notebooks.notebook(path)
        code = [cell.source for cell in made.cells if cell.cell_type == "code"]
        assert code[0].startswith("%pip install") and code[1:] == [cell.strip("\n") for cell in notebooks.cells(text)]
        assert len(code) == 1 + text.count("```{code-cell}") and not re.search(r"\]\((?!http)", str(made.cells))
        assert f"]({path.name})" in index and f"{path.stem}.ipynb" in notebooks.with_links(
            text, f"tutorials/{path.stem}"
        )


@pytest.mark.slow
@pytest.mark.parametrize("page", EXECUTED)
def test_a_page_runs_as_a_user_copies_it(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, without real data, one cell after the other; a command that fails ends it."""
    nbformat, client = importlib.import_module("nbformat"), importlib.import_module("nbclient")
    monkeypatch.setenv("IPYTHONDIR", str(DOCS / "_ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    for name in ("SCOREFIELD_DATA", "SCOREFIELD_GOLDEN"):
        monkeypatch.delenv(name, raising=False)
    code = [nbformat.v4.new_code_cell(cell) for cell in notebooks.cells((DOCS / page).read_text(encoding="utf-8"))]
    made = nbformat.v4.new_notebook(cells=code)
    client.NotebookClient(
        made, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Its cells are left out here: each page that has some is a test of its own."""
    builder = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", *NOT_EXECUTED]
    done = subprocess.run(
        [*builder, "-d", tmp_path / "trees", DOCS, tmp_path / "site"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    site = tmp_path / "site"
    assert not list(checking.problems(site)) and (site / "tutorials" / "mri.ipynb").exists()
    assert all((site / f"{verbs.docname(verb)}.html").exists() for verb in VERBS)
    built = "".join(path.read_text(encoding="utf-8") for path in (site / "reference").glob("*.html"))
    assert all(f'id="scorefield.{name}"' in built for name in {*sf.__all__} - {"__version__"})
