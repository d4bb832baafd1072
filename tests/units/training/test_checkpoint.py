"""A checkpoint is whole or refused, and a good one is never lost."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scorefield.foundation.errors import InputError
from scorefield.training import checkpoint as checkpoints

TENSORS = {
    "net.weight": torch.arange(12.0).reshape(3, 4).T,  # not contiguous
    "net.half": torch.ones(3, dtype=torch.bfloat16),
    "ema.weight": torch.tensor(2.5),
    "optimiser.step.weight": torch.empty(0),
}
FACTS = {"step": 7, "config": {"model": {"a": [1, None, "é"]}}}


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = checkpoints.path_of(tmp_path, 7)
    checkpoints.write(path, TENSORS, FACTS)
    back = checkpoints.read(path)
    assert back.facts == FACTS
    assert back.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert back.tensors[name].dtype == tensor.dtype and torch.equal(back.tensors[name], tensor)
    assert back.group("net").keys() == {"weight", "half"}
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]  # no temporary file is left


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = checkpoints.path_of(tmp_path, 7)
    checkpoints.write(path, TENSORS, FACTS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"not a whole safetensors file.*delete it"):
        checkpoints.read(path)


def test_one_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = checkpoints.path_of(tmp_path, 7)
    checkpoints.write(path, TENSORS, FACTS)
    whole = path.read_bytes()
    for position in (len(whole) - 1, whole.index(b'"step') + 10):  # in a tensor, and in the facts
        content = bytearray(whole)
        content[position] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="corrupt"):
            checkpoints.read(path)


def test_foreign_and_future_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.ones(2)}, path)
    with pytest.raises(InputError, match="not a checkpoint of scorefield"):
        checkpoints.read(path)
    save_file({"x": torch.ones(2)}, path, {"facts": json.dumps({}), "format": "99", "sha256": ""})
    with pytest.raises(InputError, match="upgrade"):
        checkpoints.read(path)
    with pytest.raises(InputError, match="no checkpoint"):
        checkpoints.read(tmp_path / "missing")


def test_a_full_disk_costs_only_the_new_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(checkpoints.path_of(tmp_path, 1), TENSORS, FACTS)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device.*the checkpoints before it are whole"):
        checkpoints.write(checkpoints.path_of(tmp_path, 2), TENSORS, FACTS)
    with pytest.raises(InputError, match="No space left"):  # the file that would be replaced survives too
        checkpoints.write(checkpoints.path_of(tmp_path, 1), {"net.weight": torch.zeros(1)}, {})
    monkeypatch.undo()
    assert checkpoints.steps(tmp_path) == [1]
    assert checkpoints.read(checkpoints.path_of(tmp_path, 1)).facts == FACTS
    assert len([*tmp_path.iterdir()]) == 1


def test_a_checkpoint_of_a_stop_is_gone_once_there_is_a_later_one(tmp_path: Path) -> None:
    """And has not cost one of those that a run which was never stopped would have."""
    for step in (4, 8, 12, 14, 16, 18):
        checkpoints.write(checkpoints.path_of(tmp_path, step), {}, {"step": step})
        checkpoints.prune(tmp_path, 3, every=4)
    assert checkpoints.steps(tmp_path) == [12, 16, 18]
    checkpoints.write(checkpoints.path_of(tmp_path, 20), {}, {"step": 20})
    checkpoints.prune(tmp_path, 3, every=4)
    assert checkpoints.steps(tmp_path) == [12, 16, 20]


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    for step in (1, 3, 20, 100):
        checkpoints.write(checkpoints.path_of(folder, step), {}, {"step": step})
    (folder / "step-mine.safetensors").touch()
    checkpoints.keep_best(folder, 3, "loss")
    checkpoints.prune(folder, 2)
    assert checkpoints.steps(folder) == [3, 20, 100]
    assert (folder / "step-mine.safetensors").exists()
    checkpoints.keep_best(folder, 20, "loss")  # a better one: the other is one of many again
    checkpoints.prune(folder, 1)
    assert checkpoints.steps(folder) == [20, 100]
    assert checkpoints.read(tmp_path / "best" / "loss.safetensors").facts == {"step": 20}


def test_where_a_file_has_but_one_name_the_best_is_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.write(checkpoints.path_of(tmp_path / "checkpoints", 3), {}, {"step": 3})

    def unknown(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", unknown)
    checkpoints.keep_best(tmp_path / "checkpoints", 3, "loss")
    assert checkpoints.read(tmp_path / "best" / "loss.safetensors").facts == {"step": 3}
