"""What a few bytes can ask for is refused before it is made."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import yaml

from scorefield.foundation.errors import InputError
from scorefield.foundation.limits import DEPTH, NODES, BoundedLoader, Budget, check_memory, check_unpacked, parse_json
from scorefield.run.configuration import read_recipe, read_yaml


def doubled(levels: int) -> str:
    """Lists of which each names the one before twice, in YAML."""
    return "".join(f"a{n}: &a{n} [{f'*a{n - 1}, *a{n - 1}' if n else 'x, x'}]\n" for n in range(levels))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[" * 100_000, "deep"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "deep"),
        (f"[{'1,' * NODES}1]", "values"),
        ("[" + "9" * 10_000 + "]", "no JSON"),
        ('"' + " " * 3_000_000 + '"', "MiB"),
        ("{", "no JSON"),
    ],
)
def test_json_beyond_the_budget_is_refused(text: str, word: str) -> None:
    with pytest.raises(InputError, match=word):
        parse_json(text, "the file")
    assert parse_json("[" * DEPTH + "]" * DEPTH, "the file")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "deep"),
        ("{a: " * 2000 + "}" * 2000, "deep"),
        ("a: [" + "1," * NODES + "]", "values"),
        ("a: " + ":".join(["59"] * 100_000), "number of"),
        ("a: " + ":".join(["59"] * 100_000) + ".5", "number of"),
        ("a: " + "9" * 1_000_000, "number of"),
        ("a: 2001-99-99", "not plain YAML"),
        ("? [a]\n: b", "not plain YAML"),
        ("a: \x00", "not plain YAML"),
        (doubled(45), "references"),
        ("# " + "x" * 3_000_000, "MiB"),
        ("".join(f"a{n % 20000}: 1\n" for n in range(20001)), "given twice"),
    ],
)
def test_yaml_beyond_the_budget_is_refused(text: str, word: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=word) as raised:
        read_yaml(tmp_path / "x.yaml")
    assert "x.yaml" in str(raised.value) and len(str(raised.value)) <= 300 + len(str(tmp_path))


def test_yaml_within_the_budget_is_read() -> None:
    text = "{a: [1, -2.5e-3, 12:30], b: 2001-01-02, c: 0x1F}"
    assert yaml.load(text, Loader=BoundedLoader) == yaml.safe_load(text)


def test_bases_that_double_are_refused(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number}.yaml").write_text(f"base: [{number + 1}.yaml, {number + 1}.yaml]\n")
    (tmp_path / "40.yaml").write_text("train: {steps: 1}\n")
    with pytest.raises(InputError, match="values"):
        read_recipe(tmp_path / "0.yaml")
    assert read_recipe(tmp_path / "38.yaml") == {"train": {"steps": 1}}


def test_a_budget_is_of_the_whole_file() -> None:
    budget = Budget("the file", nodes=10)
    budget.check({"a": [1, 2, 3], "b": 4})
    with pytest.raises(InputError, match="the file holds more than 10 values"):
        budget.check([1, 2, 3, 4])


def test_archives_that_claim_too_much_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(2**20))
        files = archive.infolist()
    size = (tmp_path / "x.zip").stat().st_size
    check_unpacked(files, size, "x.zip")
    with pytest.raises(InputError, match=r"x\.zip claims"):
        check_unpacked(files * 10, size, "x.zip")
    with pytest.raises(InputError, match="GiB"):
        check_memory(2.0**60, "The array")
    check_memory(2.0**20, "The array")
