"""No step of training or sampling asks the device for a value: on the device "meta", whose tensors have none, each of them runs.

A host that reads a value (`.item()`, `float`, `bool`, an index by a mask) waits until a GPU has done all that was queued; and so
it does for a copy to the device that may block. (What `torch.tensor(..., device=...)` copies is not seen.) Losses of noisy data
are not among the cases: they compare the noise of each batch with the levels of the schedule.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators.cpu import CPUAccelerator
from lightning_fabric.strategies.single_device import SingleDeviceStrategy
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import scorefield as sf
from often import crossed, rarely
from scorefield.core.denoiser import Denoiser
from scorefield.core.noise import GaussianField, Noise, Periodic, White
from scorefield.core.schedule import EDM, VE, VP, Rectified, Schedule
from scorefield.core.sde import SDE
from scorefield.core.spectrum import RadialSpectrum
from scorefield.core.wiener import Wiener
from scorefield.data.batch import Batch
from scorefield.data.normalise import Standardise
from scorefield.foundation.random import Generators
from scorefield.losses import Denoising, Loss
from scorefield.model import Model
from scorefield.nn import FNO, UNO, NCSNpp, Network, UNet
from scorefield.samplers import (
    DDIM,
    Ancestral,
    Corrector,
    DPMSolverPP2M,
    EulerMaruyama,
    Heun,
    Langevin,
    ReverseDiffusion,
    Sampler,
    Step,
    StochasticHeun,
    UniPC,
    WienerBeyond,
)
from scorefield.training.optimiser import Adam
from scorefield.training.state import State

META = torch.device("meta")
CHANNELS = {"in_channels": 1, "out_channels": 1}
FIELD = GaussianField(sf.Matern(smoothness=1.0, length=0.3), boundary=Periodic())


class NoBlockingCopies(TorchDispatchMode):
    """Refuses copies from the host to the device that the host would wait for."""

    def __torch_dispatch__(
        self,
        operation: Callable[..., Any],
        _: Any,
        arguments: tuple[Any, ...] = (),
        options: dict[str, Any] | None = None,
    ) -> Any:
        given, found = options or {}, operation(*arguments, **(options or {}))
        name = operation.__name__.split(".")[0]
        if name in ("_to_copy", "copy_") and isinstance(found, Tensor) and found.is_meta:
            source = arguments[1 if name == "copy_" else 0]
            waits = not (given.get("non_blocking") or (name == "copy_" and len(arguments) > 2 and arguments[2]))
            assert source.is_meta or not waits, f"{name} of {tuple(source.shape)} from the host"
        return found


def test_a_blocking_copy_would_be_found_out() -> None:
    with NoBlockingCopies():
        torch.ones(2).to(META, non_blocking=True)
        for copy in (lambda: torch.ones(()).to(META), lambda: torch.empty(2, device=META).copy_(torch.ones(2))):
            with pytest.raises(AssertionError, match="from the host"):
                copy()


@pytest.fixture(autouse=True)
def _meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch and Fabric have for real devices alone."""
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, **k: autocast("cpu" if device == "meta" else device, **k))
    monkeypatch.setattr(sys.modules["torch.optim.adam"], "_device_dtype_check_for_fused", lambda *_, **__: None)
    monkeypatch.setattr(CPUAccelerator, "setup_device", lambda *_: None)
    monkeypatch.setattr("lightning_fabric.fabric._has_meta_device_parameters_or_buffers", lambda *_, **__: False)


def model_of(schedule: Schedule, noise: Noise, net: Network) -> Model:
    model = Model(SDE(schedule, noise), net, sf.EDMPreconditioner(), Standardise(), shape=(1, 8, 8))
    model.fit([Batch(torch.randn(16, 1, 8, 8))])
    return model


def small(**more: object) -> NCSNpp:
    settings = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "dropout": 0.1}
    return NCSNpp(**CHANNELS, **(settings | more))


def batch(**more: torch.Tensor | dict[str, torch.Tensor]) -> Batch:
    return Batch(torch.rand(4, 1, 8, 8), key=torch.arange(8).view(4, 2), **more)


TRAINED: dict[str, tuple[Schedule, Noise, Network, Loss, Batch]] = {
    "white": (EDM(), White(), small(), Denoising(), batch()),
    "masked": (VE(), White(), small(), Denoising(), batch(mask=torch.ones(4, 1, 8, 8))),
    "labels": (VP(), White(), small(labels=3), Denoising(), batch(cond={"label": torch.zeros(4, dtype=torch.long)})),
    "given": (EDM(), White(), small(cond_channels=1), Denoising(), batch(cond={"field": torch.zeros(4, 1, 8, 8)})),
    "field": (EDM(), FIELD, FNO(**CHANNELS, channels=8, modes=3, layers=1), Denoising(), batch()),
    "operators": (Rectified(), FIELD, UNO(**CHANNELS, channels=8, modes=3, sizes=(2,)), Denoising(), batch()),
    "unet": (Rectified(), White(), UNet(**CHANNELS, channels=8, multipliers=(1, 2)), Denoising(), batch()),
}


@pytest.mark.parametrize("case", rarely(TRAINED, ("masked", "given", "operators")))
def test_a_training_step_asks_for_no_value(case: str) -> None:
    schedule, noise, net, loss, data = TRAINED[case]
    model = model_of(schedule, noise, net)
    fabric = Fabric(strategy=SingleDeviceStrategy(device=META, accelerator=CPUAccelerator()))
    state = State(model.to(META).train(), Adam(), 0.999, 0, fabric)
    for repeated in range(2):
        with NoBlockingCopies() if repeated else nullcontext():  # the first step makes what is kept on the device
            found, norm = state.advance([data, data], loss, clip=1.0, steps=10)
        assert found.is_meta and norm.is_meta
        with pytest.raises((RuntimeError, NotImplementedError)):  # which shows that asking would have been found out
            float(found)


DRAWN: dict[str, tuple[Step, Corrector | None]] = {
    "heun": (Heun(), None),
    "stochastic": (StochasticHeun(churn=0.2), None),
    "multistep": (DPMSolverPP2M(), None),
    "predictor and corrector": (UniPC(), None),
    "ddim": (DDIM(), None),
    "ancestral": (Ancestral(), None),
    "euler": (EulerMaruyama(), None),
    "corrected": (ReverseDiffusion(), Langevin()),
}


NOISES = {"white": White(), "field": FIELD}


@pytest.mark.parametrize(("noise", "case"), crossed(NOISES, DRAWN, NOISES))
def test_a_sampling_step_asks_for_no_value(noise: str, case: str) -> None:
    step, corrector = DRAWN[case]
    denoiser = model_of(EDM(), NOISES[noise], small()).to(META).generative
    sampler = Sampler(4, step, corrector=corrector)
    like = torch.empty(0, device=META)
    draws = Generators([(0,), (1,)])
    sampler(denoiser, (2, 1, 8, 8), generator=draws, like=like)  # which makes what is kept on the device
    with NoBlockingCopies():
        drawn = sampler(denoiser, (2, 1, 8, 8), generator=draws, like=like)
    assert drawn.is_meta and drawn.shape == (2, 1, 8, 8)


def test_scores_and_coefficients_per_mode_ask_for_no_value() -> None:
    spectrum = RadialSpectrum([0.2, 0.1, 0.03], 5.0)
    net, t, x = (
        FNO(**CHANNELS, channels=8, modes=3, layers=1),
        torch.tensor(0.5).double(),
        torch.empty(2, 1, 8, 8, device=META),
    )
    per_mode = Denoiser(net, SDE(EDM(), FIELD), Wiener(spectrum, 64)).to(META)
    plain = Denoiser(net, SDE(EDM(), FIELD), sf.EDMPreconditioner()).to(META)
    beyond = WienerBeyond(spectrum)(per_mode, (4, 4))
    calls = (per_mode, per_mode.score, plain.score, beyond)
    for call in calls:
        call(x, t)  # which makes what is kept on the device
    with NoBlockingCopies():
        assert all(call(x, t).is_meta for call in calls)
