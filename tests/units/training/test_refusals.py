"""Numbers that nothing can be computed with are refused at once, in one line that names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch

from scorefield.core.denoiser import EDMPreconditioner
from scorefield.foundation.errors import InputError
from scorefield.losses import EDMWeight, LogNormal, UniformLevels
from scorefield.nn import FNO, NCSNpp
from scorefield.run.configuration import Parser
from scorefield.samplers import AnnealedLangevin, Langevin, NCSNLangevin, Sampler, StochasticHeun
from scorefield.training import Constant, CosineDecay, Trainer
from scorefield.training.sharding import shard
from scorefield.training.state import launch


def net(**arguments: object) -> Callable[[], NCSNpp]:
    return lambda: NCSNpp(1, 1, **{"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()} | arguments)


CASES = {
    "seed": lambda: Trainer(seed=-1),
    "workers": lambda: Trainer(workers=-1),
    "clip": lambda: Trainer(clip=0.0),
    "warmup": lambda: Constant(warmup=-1),
    "warmup >=": lambda: CosineDecay(warmup=-1),
    "floor": lambda: CosineDecay(floor=1.5),
    "accelerator": lambda: launch("abacus", 1, 1, "32-true"),
    "16-mixed": lambda: launch("cpu", 1, 1, "16-mixed"),
    "fsdp does not go with train.compile": lambda: Trainer(strategy="fsdp", compile=True),
    "fsdp does not go with train.precision": lambda: Trainer(strategy="fsdp", precision="16-mixed"),
    "fsdp cannot divide FNO": lambda: shard(FNO(1, 1, channels=8, modes=3, layers=1), cast(Any, None)),
    "sigma_data": lambda: EDMPreconditioner(sigma_data=0.0),
    "EDMWeight": lambda: EDMWeight(sigma_data=-1.0),
    "levels": lambda: UniformLevels(1),
    "std": lambda: LogNormal(std=0.0),
    "channels": net(channels=0),
    "positional": net(channels=3, embedding="positional"),
    "multipliers": net(multipliers=()),
    "multipliers is": net(multipliers=(1, 0)),
    "blocks": net(blocks=0),
    "dropout": net(dropout=1.0),
    "snr": lambda: Langevin(snr=0.0),
    "Langevin needs repeats": lambda: Langevin(repeats=0),
    "AnnealedLangevin needs repeats": lambda: AnnealedLangevin(repeats=0),
    "NCSNLangevin needs repeats": lambda: NCSNLangevin(repeats=0),
    "ratio_min": lambda: StochasticHeun(ratio_min=2.0, ratio_max=1.0),
}


@pytest.mark.parametrize("named", CASES)
def test_a_bad_number_is_named_in_one_line(named: str) -> None:
    with pytest.raises(InputError, match=named) as refused:
        CASES[named]()
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_an_absent_accelerator_is_named_in_one_line() -> None:
    with pytest.raises(InputError, match=r"train\.accelerator=cuda"):
        launch("cuda", 1, 1, "32-true")
    assert launch("auto", 1, 1, "32-true").device.type == "cpu"


@pytest.mark.parametrize(("option", "wrong"), [("corrector", "Heun"), ("step", "Langevin")])
def test_a_step_and_a_corrector_cannot_be_confused(option: str, wrong: str) -> None:
    parser = Parser.named("test", "")
    parser.add_argument("--sampler", type=Sampler, default=Sampler())
    parser.read(["--sampler.corrector", "Langevin", "--sampler.step", "NoPredictor"])
    with pytest.raises(InputError, match=wrong):
        parser.read([f"--sampler.{option}", wrong])
