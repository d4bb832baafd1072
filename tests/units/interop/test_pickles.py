"""Nothing that is pickled is run, and configuration objects are read without their classes."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from scorefield.cli import main
from scorefield.foundation.errors import InputError
from scorefield.interop.pickles import read_checkpoint, read_config

PLAIN = {"model": {"depth": "low", "ngf": 8, "sizes": [1, 2], "on": True, "none": None}, "rate": 0.5}


class Trap:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return os.system, (self.command,)


def traps(tmp_path: Path) -> tuple[Path, Trap]:
    sprung = tmp_path / "sprung"
    return sprung, Trap(f"touch {sprung}")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("place", ["model", "config", "optimizer", "ema"])
def test_an_executable_pickle_is_refused_and_not_run(place, legacy, tmp_path, capsys) -> None:
    sprung, trap = traps(tmp_path)
    content = {"model": {"a": torch.ones(2)}, "ema": {"shadow_params": []}, place: trap}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    assert main(["import", str(tmp_path / "x.pth"), "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "system" in lines[0] and "not run" in lines[0]
    assert not sprung.exists() and not (tmp_path / "run").exists()


def test_an_executable_pickled_configuration_is_refused(tmp_path) -> None:
    sprung, trap = traps(tmp_path)
    for name, write in (("x.pkl", pickle.dump), ("x.pt", torch.save)):
        with (tmp_path / name).open("wb") as file:
            write({"model": trap}, file)
        with pytest.raises(InputError, match="system"):
            read_config(tmp_path / name)
    assert not sprung.exists()


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['touch {}']",
        "a: !!python/object/new:os.system ['touch {}']",
        "!!python/object/apply:subprocess.Popen\n- touch\n- {}",
        'a: !!python/object/apply:builtins.eval [\'open("{}", "w")\']',
        "a: !!python/module:os ''\nb: !!python/object/apply:os.system ['touch {}']",
        "a: !!python/object:subprocess.Popen {{args: touch {}}}",
        "a: !!python/object/new:type {{args: [z, !!python/tuple [], {{extend: !!python/name:exec }}], listitems: '{}'}}",
    ],
)
def test_yaml_that_would_run_code_is_refused(text, tmp_path) -> None:
    sprung = tmp_path / "sprung"
    (tmp_path / "x.yml").write_text(text.format(sprung))
    with pytest.raises(InputError, match=r"system|Popen|eval|module|type"):
        read_config(tmp_path / "x.yml")
    assert not sprung.exists()


def stand_in(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> type:
    """A class under the name that a library's has, for the time of pickling."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for path in (".".join(parts[: n + 1]) for n in range(len(parts))):
        if path not in sys.modules:
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    setattr(sys.modules[module], name, made)
    return made


def pickled(tmp_path: Path, value: object) -> list[Path]:
    files = [tmp_path / "x.pkl", tmp_path / "x.pt"]
    files[0].write_bytes(pickle.dumps({"config": value, "rate": 0.5}, protocol=2))
    torch.save({"config": value, "rate": 0.5}, files[1])
    return files


def test_namespaces_are_read(tmp_path) -> None:
    value = argparse.Namespace(model=argparse.Namespace(depth="low", sizes=[1, 2]), rate=np.float64(0.25))
    for file in pickled(tmp_path, value):
        assert read_config(file) == {"config": {"model": {"depth": "low", "sizes": [1, 2]}, "rate": 0.25}, "rate": 0.5}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(argparse.Namespace(device=torch.device("cuda", 1), sizes=(1, 2))))
    assert read_config(tmp_path / "x.pkl") == {"device": "cuda:1", "sizes": [1, 2]}
    (tmp_path / "x.yml").write_text(yaml.dump(argparse.Namespace(model=argparse.Namespace(depth="low"), sizes=(1, 2))))
    assert read_config(tmp_path / "x.yml") == {"model": {"depth": "low"}, "sizes": [1, 2]}


def test_configuration_objects_are_read_without_their_libraries(tmp_path, monkeypatch) -> None:
    path = "ml_collections.config_dict.config_dict"
    dotted = stand_in(monkeypatch, "dotmap", "DotMap")
    fields, reference = (stand_in(monkeypatch, path, name) for name in ("ConfigDict", "FieldReference"))
    steps, inner, outer, plain = reference(), fields(), fields(), dotted()
    vars(steps).update(_value=1000, _field_type=int, _ops=[])
    vars(inner).update(_fields={"sizes": (1, 2), "steps": steps}, _locked=True)
    vars(outer).update(_fields={"model": inner, "steps": steps}, _locked=True)
    vars(plain).update(_map={"inner": outer}, _dynamic=True)
    files = pickled(tmp_path, plain)
    text = yaml.dump({"config": outer, "rate": 0.5})
    monkeypatch.undo()
    assert "dotmap" not in sys.modules and "ml_collections" not in sys.modules
    expected = {"model": {"sizes": [1, 2], "steps": 1000}, "steps": 1000}
    for file in files:
        assert read_config(file) == {"config": {"inner": expected}, "rate": 0.5}
    (tmp_path / "x.yml").write_text(text)
    assert "python/object:ml_collections" in text
    assert read_config(tmp_path / "x.yml") == {"config": expected, "rate": 0.5}
    assert "ml_collections" not in sys.modules


def test_numpy_numbers_are_read(tmp_path) -> None:
    values = {
        "a": np.float32(1.5),
        "b": np.arange(6, dtype=np.int64).reshape(2, 3),
        "c": np.array(2.0),
        "d": np.asfortranarray(np.eye(2)),
    }
    torch.save({"config": values}, tmp_path / "x.pt")
    expected = {"a": 1.5, "b": [[0, 1, 2], [3, 4, 5]], "c": 2.0, "d": [[1.0, 0.0], [0.0, 1.0]]}
    assert read_checkpoint(tmp_path / "x.pt") == {"config": expected}


def test_devices_and_plain_files_are_read(tmp_path) -> None:
    import json

    (tmp_path / "x.json").write_text(json.dumps(PLAIN))
    (tmp_path / "x.yml").write_text(yaml.dump(PLAIN))
    assert read_config(tmp_path / "x.json") == read_config(tmp_path / "x.yml") == PLAIN
    (tmp_path / "y.yml").write_text(
        "device: !!python/object/apply:torch.device\n- cuda\n- 0\nsizes: !!python/tuple [1, 2]\n"
    )
    assert read_config(tmp_path / "y.yml") == {"device": "cuda:0", "sizes": [1, 2]}
    for text in ("just words", "[1, 2]", "a: [", "{'a': 1"):
        (tmp_path / "z").write_text(text)
        with pytest.raises(InputError, match="z "):
            read_config(tmp_path / "z")
    with pytest.raises(InputError, match="There is no configuration"):
        read_config(tmp_path / "gone")


def doubled(levels: int) -> list:
    inner: list = [1]
    for _ in range(levels):
        inner = [inner, inner]
    return inner


def nested_key(depth: int) -> bytes:
    """A pickle of a dictionary whose key is a tuple within tuples."""
    return b"\x80\x02}" + b")" + b"\x85" * depth + b"K\x01s."


@pytest.mark.usefixtures("unchecked")
def test_what_grows_when_it_is_read_is_refused(tmp_path) -> None:
    path = tmp_path / "x.pth"
    one = torch.ones(1)
    for content, word in (
        ({"config": doubled(45)}, "values"),
        ({"model": {"a": one.expand(2**40)}}, "not stored"),
        ({"model": {"a": torch.sparse_coo_tensor([[0], [0]], [1.0], (2**30, 2**30))}}, "not stored|cannot be read"),
        ({"step": 1 << 100_000}, "damaged"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=word):
            read_checkpoint(path)
    torch.save({"model": {"a": torch.arange(6.0).view(2, 3).T, "b": one.expand(1, 1)}}, path)
    assert read_checkpoint(path)["model"]["a"].shape == (3, 2)


@pytest.mark.usefixtures("unchecked")
def test_pickles_too_deep_for_python_are_refused(tmp_path) -> None:
    path = tmp_path / "x.pkl"
    for data, word in (
        (nested_key(1_000_000), "deep"),
        (b"\x80\x02]" + b"]a" * 1000 + b".", None),
        (b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".", "deep"),
        (b"\x80\x02K\x01r\xff\xff\xff\x7f.", "numbers its values"),
        (pickle.dumps({"a": doubled(45)}, 2), "values"),
        (b"\x80\x02.", "cannot be read"),
        (b"\x80\x02h\x05.", "cannot be read"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=word or "no configuration"):
            read_config(path)
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", nested_key(1_000_000))
    (tmp_path / "legacy.pth").write_bytes(nested_key(1_000_000))
    for name in ("x.pth", "legacy.pth"):
        with pytest.raises(InputError, match="deep"):
            read_checkpoint(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(10**7))
    with pytest.raises(InputError, match="claims"):
        read_checkpoint(tmp_path / "bomb.pth")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{n}: &a{n} [{f'*a{n - 1}, *a{n - 1}' if n else 'x'}]\n" for n in range(45)),
        "a: &a {x: 1}\n" + "".join(f"b{n}: &b{n} {{<<: [{f'*b{n - 1}, ' * 9 if n else '*a'}]}}\n" for n in range(12)),
        "a: " + ":".join(["59"] * 100_000),
        "a: !!python/int '" + ":".join(["59"] * 100_000) + "'",
        "a: " + "[" * 3000,
        '{"a": ' + "[" * 100_000,
        "a: 2001-99-99",
        "a: !!python/object/new:ml_collections.config_dict.config_dict.ConfigDict {state: 3, dictitems: 4}",
    ],
)
def test_configurations_that_grow_when_they_are_read_are_refused(text, tmp_path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml"):
        read_config(tmp_path / "c.yaml")
