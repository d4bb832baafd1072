"""What is built from the source is complete, and works in an environment of its own, away from the source."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_what_the_project_says_of_itself_agrees(project: dict) -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["license"] == project["license"] and citation["repository-code"] == project["urls"]["Homepage"]
    log = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", log, flags=re.MULTILINE)
    assert "## [Unreleased]" in log and (not released or project["version"] >= released[0])
    lowest = re.search(r"\d+\.\d+", project["requires-python"])
    assert lowest is not None
    tried = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())["jobs"]["test"]["strategy"]["matrix"]
    named = {name.rsplit(" ", 1)[1] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    assert named == set(tried["python"]) and lowest[0] == min(tried["python"], key=lambda name: int(name.split(".")[1]))


def test_the_recipe_of_conda_names_what_the_project_needs(project: dict) -> None:
    """The same packages with the same lower bounds, and the same versions of Python."""
    text = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")
    recipe = yaml.safe_load(text)
    needed = {re.sub(r"\[.*?\]", "", name).replace(" ", "") for name in project["dependencies"]}
    renamed = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
    expected = {re.sub(r"^[a-z-]+", lambda found: renamed.get(found[0], found[0]), name) for name in needed}
    run = {name.replace(" ", "") for name in recipe["requirements"]["run"]} - {f"python{project['requires-python']}"}
    assert run - {"docstring_parser", "typeshed-client"} == expected
    assert recipe["context"]["version"] == project["version"] and recipe["about"]["license"] == project["license"]


def test_the_law_of_the_guide_to_contributors_holds() -> None:
    (program,) = re.findall(
        r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    names: dict = {}
    exec(program, names)
    names["test_the_error_falls_by_four_when_steps_are_doubled"]()


@pytest.mark.slow
def test_wheel_and_sdist_are_whole_and_work_on_their_own(project: dict, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    expected = {str(path.relative_to(source / "src")) for path in source.glob("src/**/*") if path.is_file()}
    assert "scorefield/models/brain-t1/model.safetensors" in expected
    code = "from setuptools import build_meta as b; b.build_sdist('dist'); b.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True)
    (wheel,), (sdist,) = source.glob("dist/*.whl"), source.glob("dist/*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        assert expected <= set(file.namelist())
    with tarfile.open(sdist) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {f"src/{name}" for name in expected} | {"LICENSE", "README.md", "pyproject.toml"} <= names
    # Its own environment, but for what it depends on, which lies where these tests run.
    venv.create(tmp_path / "own", with_pip=False)
    python = tmp_path / "own" / "bin" / "python"
    (packages,) = (tmp_path / "own" / "lib").glob("python*/site-packages")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True)
    (packages / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def call(*words: str) -> str:
        whole = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
        return subprocess.run([python, *words], check=True, **whole).stdout

    assert call("-c", "import scorefield; print(scorefield.__file__)").startswith(str(packages))
    assert call("-m", "scorefield", "--version").split() == ["scorefield", project["version"]]
    assert "digits" in call("-m", "scorefield", "recipes")
    program = [tmp_path / "own" / "bin" / "scorefield", "models"]  # which pip has made
    listed = subprocess.run(program, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
    shipped = {path.parent.name for path in (source / "src" / "scorefield" / "models").glob("*/model.safetensors")}
    assert shipped <= set(listed.split())
    call("-m", "scorefield", "sample", "brain-t1", "-n", "1", "--steps", "2", "--out", "brain")
    assert len(list((tmp_path / "brain").glob("samples*"))) > 0
    assert wheel.stat().st_size < 25e6 and sdist.stat().st_size < 25e6
    call("-m", "scorefield", "train", "digits", "--out", "run", "--train.steps", "2", "--train.preview_every", "9")
    call("-m", "scorefield", "sample", "run", "-n", "2", "--chunk", "2", "--steps", "2", "--out", "drawn")
    call("-m", "scorefield", "report", "run")
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
