"""A description of a few bytes that asks for a network of any size is refused before it is built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import scorefield
from scorefield.foundation.errors import InputError
from scorefield.nn import FNO, NCSN, UNO, Encoder, NCSNpp, NCSNv2, UNet
from scorefield.nn.size import limited_to
from scorefield.training import checkpoint as checkpoints

STORED = Path(__file__).parents[2] / "cases" / "before" / "stored" / "digits"


def tampered(path: Path, change: object = None, **facts: object) -> Path:
    """A stored checkpoint with a right digest, of which something is said that is not so."""
    good = checkpoints.read(next((STORED / "checkpoints").glob("*.safetensors")))
    described = json.loads(json.dumps(good.facts)) | facts
    if change is not None:
        described["config"]["model"]["net"]["init_args"] |= change
    checkpoints.write(path, good.tensors, described)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 10**9},
        {"channels": 10**5},
        {"channels": 10**30},
        pytest.param({"multipliers": [1] * 20_000}, marks=pytest.mark.slow),
        {"multipliers": [10**9]},
        {"multipliers": [1] * 200_000},
        {"blocks": 10**9},
        {"in_channels": 10**9},
        {"labels": 10**9},
        {"cond_channels": 2**40},
        {"patch": 2**20, "channels": 2**60},
    ],
)
def test_a_network_larger_than_its_weights_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bad\.safetensors") as raised:
        scorefield.load(tampered(tmp_path / "bad.safetensors", change))
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_a_network_is_built_within_the_size_of_its_weights() -> None:
    sizes = list(NCSNpp(1, 1, channels=8).state_dict().values())
    with limited_to(sizes, "x"):
        assert NCSNpp(1, 1, channels=8).state_dict().keys()
    for larger in ({"channels": 256}, {"channels": 8, "blocks": 1000}, {"channels": 8, "labels": 2**24}):
        with pytest.raises(InputError, match="x describes a network of more"), limited_to(sizes, "x"):
            NCSNpp(1, 1, **larger)
    NCSNpp(1, 1, channels=8, blocks=6)  # outside, nothing is counted


@pytest.mark.parametrize(
    "build",
    [
        lambda channels: NCSNpp(1, 1, channels=channels),
        lambda channels: Encoder(1, classes=2, channels=channels),
        lambda channels: UNet(1, 1, channels=channels),
        lambda channels: NCSN(1, 1, levels=4, channels=channels),
        lambda channels: NCSNv2(1, 1, channels=channels),
        lambda channels: FNO(1, 1, channels=channels, modes=4),
        lambda channels: UNO(1, 1, channels=channels, modes=4),
    ],
)
def test_channels_beyond_memory_are_refused_before_anything_is_made(build: Callable[[int], nn.Module]) -> None:
    """By ourselves, or by torch at the first tensor."""
    made: list[object] = []

    class Made(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None
        ) -> object:
            found = func(*args, **kwargs or {})
            made.extend(size for size in [getattr(found, "nbytes", 0)] if size > 2**20)
            return found

    with (
        Made(),
        pytest.raises((MemoryError, RuntimeError), match=r"a layer of 1000000000 channels|can't allocate memory"),
    ):
        build(10**9)
    assert not made


@pytest.mark.parametrize("facts", ["[1]", "{", '"x"', "[" * 100_000, "{}", "null", '{"step": -1}', '{"step": true}'])
def test_what_a_checkpoint_says_of_itself_must_make_sense(facts: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {"net.a": torch.ones(3)}
    metadata = {"format": "1", "sha256": checkpoints.digest(tensors, facts), "facts": facts}
    save_file(tensors, tmp_path / "bad.safetensors", metadata=metadata)
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        checkpoints.read(tmp_path / "bad.safetensors")


def test_a_configuration_of_no_model_is_refused(tmp_path: Path) -> None:
    for config in (None, 3, {"model": 3}, {"model": {}}, {"model": {"net": 3}}, {"model": {"net": {"class_path": 3}}}):
        with pytest.raises(InputError, match=r"bad\.safetensors"):
            scorefield.load(tampered(tmp_path / "bad.safetensors", config=config))


@pytest.mark.parametrize("shape", [[-1, 8, 8], [0, 8, 8], [1, 2**31, 2**31]])
def test_a_shape_that_no_field_has_is_refused(shape: list[int], tmp_path: Path) -> None:
    good = checkpoints.read(next((STORED / "checkpoints").glob("*.safetensors")))
    config = json.loads(json.dumps(good.facts["config"]))
    config["model"]["shape"] = shape
    with pytest.raises(InputError, match="shape"):
        scorefield.load(tampered(tmp_path / "bad.safetensors", config=config))


def test_an_honest_checkpoint_is_loaded(tmp_path: Path) -> None:
    shutil.copytree(STORED, tmp_path / "run")
    assert scorefield.load(tmp_path / "run").shape == (1, 8, 8)
