"""What a run will cost: a few real steps, or, where they would take too much, what follows from one sample."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.losses.loss import Loss
from scorefield.training.state import State

MOMENTS = 2  # numbers per parameter that an optimiser keeps from its first step on
BACKWARD = 1.25  # what a step takes beside the weights over what autograd keeps: measured, U-Nets and RefineNets
PATIENCE = 60.0  # seconds that a step may take and be made


class Rehearsal(NamedTuple):
    """What a run will cost.

    Attributes:
        parameters: how many are trained.
        seconds_per_step: of an optimiser step.
        memory_bytes: at the peak.
        notes: what else there is to know of these figures, one line each.
    """

    parameters: int
    seconds_per_step: float
    memory_bytes: int
    notes: tuple[str, ...] = ()


class Probe(NamedTuple):
    """What one sample costs: seconds of a forward and a backward pass, and bytes that the one keeps for the other."""

    seconds: float
    kept: int


def probe(state: State, loss: Loss, batch: Batch) -> Probe:
    """The cost of a batch of one, from its second pass: the first has the setting up of every layer in it."""
    for _ in range(2):
        started, kept = time.perf_counter(), Kept(state.module.parameters())
        with torch.autograd.graph.saved_tensors_hooks(kept.count, lambda tensor: tensor):
            value = state.loss(loss, state.module, batch).mean()
        state.fabric.backward(value)
        float(value.detach())  # waits for the device
        state.optimiser.zero_grad()
    return Probe(time.perf_counter() - started, kept.bytes)


class Kept:
    """Counts the bytes that autograd keeps, each storage once, the weights themselves not at all."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        self.bytes = 0
        self._seen = {weight.untyped_storage().data_ptr() for weight in weights}

    def count(self, tensor: Tensor) -> Tensor:
        """Count a tensor and hand it on."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def extrapolated(state: State, one: Probe, batch_size: int, micro_batch: int) -> Rehearsal | None:
    """The cost of a step that cannot be made here for want of memory or time; None where it can.

    Args:
        state: what is trained.
        one: the cost of one sample.
        batch_size: samples that a device sees per optimiser step.
        micro_batch: samples that it sees at once.
    """
    parameters, now = count_parameters(state), peak_memory(state.fabric.device)
    fixed = now + MOMENTS * 4 * parameters
    each = round(BACKWARD * one.kept)
    need, room = fixed + (micro_batch - 1) * each, now + available_memory(state.fabric.device)
    seconds = batch_size * one.seconds
    if need > room:
        fitting = 1 + max(0, math.floor((room - fixed) / each))
        advice = f"accumulate at least {math.ceil(batch_size / fitting)} micro-batches (train.accumulate)"
        why = f"a step needs {need / 2**30:.1f} GiB of {room / 2**30:.1f}: {advice}"
    elif seconds > PATIENCE:
        why = f"a step takes more than {PATIENCE:.0f} s"
    else:
        return None
    return Rehearsal(parameters, seconds, need, (f"No step was made, all follows from one sample: {why}.",))


def measured(state: State, advance: Callable[[], Tensor], steps: int) -> Rehearsal:
    """The cost of real steps, the first of which does not count where there is time for another."""
    seconds: list[float] = []
    while len(seconds) <= steps and sum(seconds) < PATIENCE:
        started = time.perf_counter()
        float(advance())  # waits for the device
        seconds.append(time.perf_counter() - started)
    counted: Sequence[float] = seconds[1:] or seconds
    return Rehearsal(count_parameters(state), sum(counted) / len(counted), peak_memory(state.fabric.device))


def count_parameters(state: State) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in state.model.denoiser.parameters())


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on a CUDA device, or resident in this process; 0 where the system does not tell (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: torch.device) -> float:
    """Bytes that can still be had; infinitely many where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):  # not Linux
        names = getattr(os, "sysconf_names", {})
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else math.inf
