"""Snapshots of EDM and EDM2 as their programs pickle them, with the source of their classes: read without running it, to 2e-5.

`edm.safetensors` holds the weights, inputs and x̂ of their own networks with random weights on 3 × 8 × 8: `ddpmpp`, of classes and
with augmentation, `ncsnpp`, `skip` (VPPrecond with both pyramids), and EDM2's `edm2`, class-conditional. The snapshots are
pickled here with the instructions of theirs; where they hold their source, these hold a line that would leave a file behind.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import scorefield
from scorefield.cli import main

SONG = {
    "img_resolution": 8, "img_channels": 3, "use_fp16": False, "model_type": "SongUNet", "model_channels": 8,
    "channel_mult": [1, 2], "num_blocks": 1,
}  # fmt: skip
DDPMPP = {"embedding_type": "positional", "channel_mult_noise": 1, "resample_filter": [1, 1]}
NCSNPP = {
    "embedding_type": "fourier",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
    "encoder_type": "residual",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpmpp": ("EDMPrecond", SONG | DDPMPP | {"attn_resolutions": [4], "label_dim": 3, "augment_dim": 9}),
    "ncsnpp": ("EDMPrecond", SONG | NCSNPP | {"attn_resolutions": [4], "label_dim": 0, "augment_dim": 9}),
    "skip": ("VPPrecond", SONG | DDPMPP | {"attn_resolutions": [8], "encoder_type": "skip", "decoder_type": "skip"}),
    "edm2": ("Precond", {
        "img_resolution": 8, "img_channels": 3, "label_dim": 3, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1,
        "attn_resolutions": [4], "channels_per_head": 8, "dropout": 0.1,
    }),
}  # fmt: skip


def _reconstruct_persistent_obj(meta: Any) -> None:
    raise AssertionError("never called: only its name is in the pickle")


class Persistent:
    """Pickled as an object of theirs."""

    def __init__(self, name: str, state: dict[str, Any], source: str) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": name, "state": state}

    def __reduce__(self) -> Any:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that their pickles ask for."""
    module = ModuleType("torch_utils.persistence")
    for name, value in (("torch_utils", ModuleType("torch_utils")), ("torch_utils.persistence", module)):
        monkeypatch.setitem(sys.modules, name, value)
    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(Path(__file__).with_name("edm.safetensors"))


def snapshot(file: Path, golden: dict[str, Tensor], case: str, **changes: Any) -> Path:
    """A file as their programs leave it, with other arguments."""
    name, arguments = CASES[case]
    source = f"open({str(file.with_suffix('.ran'))!r}, 'w')"

    def module(prefix: str, name: str, **more: Any) -> Any:
        inside = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        own = {key: nn.Parameter(value, requires_grad=False) for key, value in inside.items() if "." not in key}
        parts = dict.fromkeys(key.partition(".")[0] for key in inside if "." in key)
        inner = {part: module(f"{prefix}{part}.", part) for part in parts}
        if name in ("enc", "dec"):
            return nn.ModuleDict({part: Holder(value) for part, value in inner.items()})
        state = {"training": False, "_parameters": own, "_buffers": {"resample_filter": None}, "_modules": inner}
        return Persistent(name, state | more, source)

    network = module(f"{case}.weights.", name, _init_args=(), _init_kwargs=arguments | changes)
    file.write_bytes(pickle.dumps({"ema": network, "loss_fn": Persistent("EDMLoss", {"P_mean": -1.2}, source)}))
    return file


class Holder(nn.Module):
    """A module that is pickled as what it holds."""

    def __init__(self, held: Any) -> None:
        super().__init__()
        self.held = held

    def __reduce__(self) -> Any:
        return self.held.__reduce__()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.usefixtures("theirs")
def test_x_hat_is_that_of_their_network(golden: dict[str, Tensor], case: str, tmp_path: Path) -> None:
    """Over noise of 0.05 to 30 times the data, with classes and, for a row of zeros, without."""
    file = snapshot(tmp_path / f"{case}.pkl", golden, case)
    assert main(["import", str(file), "--out", str(tmp_path / "run")]) == 0
    assert not file.with_suffix(".ran").exists()
    model = scorefield.load(tmp_path / "run")
    x, sigma, expected = (golden[f"{case}.{name}"] for name in ("x", "sigma", "denoised"))
    t = model.sde.schedule.time(-2 * sigma.double().log())
    cond = {"label": torch.tensor([0, 2, -1])} if "label_dim" in CASES[case][1] and CASES[case][1]["label_dim"] else {}
    with torch.no_grad():
        found = model.denoiser(x * model.sde.schedule.alpha(t).to(x)[:, None, None, None], t.float(), cond)
    sizes = expected.flatten(1).abs().amax(1)
    assert ((found - expected).flatten(1).abs().amax(1) / sizes).max() < 2e-5


@pytest.mark.usefixtures("theirs")
def test_it_is_sampled_by_its_own_steps_and_trained_on(golden: dict[str, Tensor], tmp_path: Path) -> None:
    file = snapshot(tmp_path / "ddpmpp.pkl", golden, "ddpmpp")
    assert main(["import", str(file), "--out", str(tmp_path / "run")]) == 0
    model = scorefield.load(tmp_path / "run")
    assert (model.sampler.steps, type(model.sampler.step).__name__) == (18, "Heun")
    drawn = [
        "sample",
        str(tmp_path / "run"),
        "-n",
        "2",
        "--label",
        "1",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "drawn"),
    ]
    assert main(drawn) == 0
    generator = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), y=np.arange(12) % 3)
    data = ["--data", "Arrays", "--data.path", str(tmp_path / "d.npz"), "--data.key", "x", "--data.labels", "y"]
    short = [
        "--train.steps",
        "2",
        "--train.batch_size",
        "2",
        "--train.validate_every",
        "0",
        "--train.preview_every",
        "0",
    ]
    assert main(["train", "--init", str(tmp_path / "run"), *data, *short, "--out", str(tmp_path / "more")]) == 0
    more = scorefield.load(tmp_path / "more", ema=False)
    moved = [float((a - b).abs().max()) for a, b in zip(more.parameters(), model.parameters(), strict=True)]
    assert max(moved) > 0


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("ddpmpp", {"model_type": "DhariwalUNet"}, "DhariwalUNet"),
        ("ncsnpp", {"resample_filter": [1, 1]}, "resample_filter"),
        ("ddpmpp", {"channel_mult_emb": 2}, "channel_mult_emb"),
        ("ddpmpp", {"num_blocks": 2}, "another network's weights"),
        ("edm2", {"attn_balance": 0.1}, "attn_balance"),
        ("edm2", {"clip_act": None}, "clip_act"),
        ("edm2", {"channels_per_head": 3}, "heads of 3"),
    ],
)
@pytest.mark.usefixtures("theirs")
def test_what_is_not_ours_is_refused_by_name(
    golden: dict[str, Tensor], case: str, changes: dict[str, Any], said: str, tmp_path: Path, capsys: Any
) -> None:
    file = snapshot(tmp_path / "x.pkl", golden, case, **changes)
    assert main(["import", str(file), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


class Command:
    def __reduce__(self) -> Any:
        import os

        return os.system, ("true",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"ema": Command()}), "to be called"),
        (pickle.dumps({"ema": 3}), "no network"),
        (pickle.dumps([1, 2]), "no network"),
        (pickle.dumps({"ema": Command()})[:-3], "cannot be read safely"),
    ],
)
def test_pickles_that_are_none_of_theirs(content: bytes, said: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "x.pkl").write_bytes(content)
    assert main(["import", str(tmp_path / "x.pkl"), "--out", str(tmp_path / "run")]) == 2
    assert said in capsys.readouterr().err
