"""What a run will cost: from a few real steps, or, where these would take too much, from smaller ones."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from operator import mul
from pathlib import Path
from statistics import linear_regression, median
from typing import NamedTuple

import torch
from torch import Tensor

from scorefield.data.batch import Batch
from scorefield.losses.loss import Loss
from scorefield.training.state import State

MOMENTS = 2  # numbers per parameter that an optimiser keeps from its first step on
BACKWARD = 1.25  # what a step takes beside the weights over what autograd keeps: measured, U-Nets and RefineNets
PATIENCE = 20.0  # seconds for all steps that are counted
REPEATS = 5  # whole steps that are counted
BUSY = 0.75  # load per core from which on times say little
WAITING = 0.15  # share of the time, likewise


class Cost(NamedTuple):
    """What a run will cost.

    Attributes:
        parameters: how many are trained.
        seconds_per_step: of an optimiser step.
        spread: the shortest and the longest time that the measurements give for it.
        memory_bytes: at the peak.
        notes: what else there is to know of these figures, one line each.
    """

    parameters: int
    seconds_per_step: float
    spread: tuple[float, float]
    memory_bytes: int
    notes: tuple[str, ...] = ()

    def table(self, steps: int, batch_size: int) -> str:
        """Lines for people, of a run of so many steps on batches of this size."""
        low, high = self.spread
        rows = (
            ("parameters", f"{self.parameters:,}"),
            ("peak memory", f"{self.memory_bytes / 2**30:.2f} GiB"),
            ("seconds per step", f"{self.seconds_per_step:.3g}   ({low:.3g} to {high:.3g}; batch of {batch_size})"),
            ("whole run", f"{self.seconds_per_step * steps / 3600:.2f} h for {steps} steps"),
            *(("note", note) for note in self.notes),
        )
        return "\n".join(f"{name:<20}{value}" for name, value in rows)


class Timing(NamedTuple):
    """Seconds of an optimiser step, the range of what was measured, and whether steps of the whole batch were made for it."""

    seconds: float
    spread: tuple[float, float]
    made: bool


class Probe(NamedTuple):
    """What one sample costs: seconds of a forward and a backward pass, and bytes that the one keeps for the other."""

    seconds: float
    kept: int


def probe(state: State, loss: Loss, batch: Batch) -> Probe:
    """The cost of a batch of one, from its second pass: the first has the setting up of every layer in it."""
    for _ in range(2):
        started, kept = time.perf_counter(), Kept(state.module.parameters())
        with state.keyed(batch):
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


def cost(state: State, one: Probe, step: Callable[[int], None], batch_size: int, micro_batch: int) -> Cost:
    """The cost of a run: measured, or extrapolated where memory or time do not allow for whole steps.

    Args:
        state: what is trained.
        one: the cost of one sample.
        step: makes an optimiser step with so many samples, and waits for the device.
        batch_size: samples that a device sees per optimiser step.
        micro_batch: samples that it sees at once.
    """
    parameters, now, agreed = count_parameters(state), peak_memory(state.fabric.device), largest(state)
    held = sum(map(Tensor.numel, state.ema.shares()))
    fixed = now + MOMENTS * 4 * held
    each = max(1, round(BACKWARD * one.kept))
    room = now + available_memory(state.fabric.device)
    spare, wanted = -agreed(fixed - room), (micro_batch - 1) * each  # for all samples of a micro-batch but the first
    fitting = micro_batch if wanted <= spare else 1 + max(0, math.floor(spare / each))
    if spare < 0:
        timing = on_a_line([(1, one.seconds)], batch_size)
    else:
        timing = timed(step, batch_size, micro_batch, fitting, slowest=agreed)
    if timing.made:
        return Cost(parameters, timing.seconds, timing.spread, peak_memory(state.fabric.device))
    if wanted > spare:
        advice = f"accumulate at least {math.ceil(batch_size / fitting)} micro-batches (train.accumulate)"
        why = f"a step needs {(fixed + wanted) / 2**30:.1f} GiB of {room / 2**30:.1f}: {advice}"
    else:
        why = f"a few whole steps take more than {PATIENCE:.0f} s"
    notes = (f"No step of the whole batch was made, its time follows from those of smaller ones: {why}.",)
    return Cost(parameters, timing.seconds, timing.spread, fixed + wanted, notes)


def timed(
    step: Callable[[int], None],
    batch_size: int,
    micro_batch: int,
    fitting: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    slowest: Callable[[float], float] = float,
) -> Timing:
    """Time whole steps as soon as the times of growing batches, 1, 2, 4, ..., say that a few take no longer than `PATIENCE`.

    The first step at each size is not counted: it sets up every layer for it, and compiles.

    Args:
        step: makes an optimiser step with so many samples.
        batch_size: samples of a whole step.
        micro_batch: those of them that are in memory at once.
        fitting: how many fit into memory at once.
        clock: seconds.
        slowest: of all processes, which have to decide as one.
    """

    def seconds(size: int) -> float:
        started = clock()
        step(size)
        return slowest(clock() - started)

    points: list[tuple[int, float]] = []
    size = 1
    while True:
        seconds(size)
        points += [(size, seconds(size)) for _ in range(2)]
        left = PATIENCE - sum(time for _, time in points)
        larger = min(2 * size, micro_batch, fitting)
        if size == batch_size or (micro_batch <= fitting and REPEATS * on_a_line(points, batch_size).seconds <= left):
            break
        if larger == size or 2 * on_a_line(points, larger).seconds > left:
            return on_a_line(points, batch_size)
        size = larger
    if size != batch_size:
        seconds(batch_size)
    whole = [time for at, time in points if at == batch_size]
    while not whole or (len(whole) < REPEATS and sum(whole) < PATIENCE):
        whole.append(seconds(batch_size))
    return Timing(median(whole), (min(whole), max(whole)), made=True)


def on_a_line(points: Sequence[tuple[int, float]], size: int) -> Timing:
    """The time at a size on the line of least squares through times at others; in proportion to the size, where there is but one.

    The spread is that of the measured times about the line.
    """
    sizes, times = zip(*points, strict=True)
    slope, start = linear_regression(sizes, times) if len(set(sizes)) > 1 else (-1.0, 0.0)
    if min(slope, start) < 0:  # no step is free, and none costs less for more samples
        slope, start = sum(map(mul, sizes, times)) / sum(map(mul, sizes, sizes)), 0.0
    ratios = [seconds / (start + slope * at) for at, seconds in points]
    found = start + slope * size
    return Timing(found, (found * min(ratios), found * max(ratios)), made=False)


def largest(state: State) -> Callable[[float], float]:
    """The largest of a number's values in all processes."""

    def agreed(number: float) -> float:
        return float(state.over_all(torch.tensor(number, dtype=torch.float64, device=state.fabric.device), "max"))

    return agreed


class Use(NamedTuple):
    """Seconds that the threads of this process computed, and that they were ready to, but waited for a processor."""

    computing: float
    waiting: float

    @classmethod
    def so_far(cls) -> Use | None:
        """Since the process began; None where the system does not count them (only Linux does)."""
        try:
            counts = [path.read_text().split() for path in Path("/proc/self/task").glob("*/schedstat")]
            return cls(*(sum(int(count[place]) for count in counts) / 1e9 for place in (0, 1))) if counts else None
        except (OSError, ValueError, IndexError):
            return None

    @classmethod
    def since(cls, before: Use | None) -> Use | None:
        """Since another time."""
        now = cls.so_far()
        if now is None or before is None:
            return None
        return cls(*(max(0.0, late - early) for late, early in zip(now, before, strict=True)))


def load() -> float:
    """How many programs compute or wait to, on average over the last minute; 0 where the system does not count them (Windows)."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def busy(before: float, cores: int, use: Use | None, seconds: float) -> tuple[str, ...]:
    """A line if other programs took processors from the steps, or, where nobody counts that, kept the machine busy before them.

    Args:
        before: the load before the first step, which has none of this process in it.
        cores: processors.
        use: of processors while steps were made.
        seconds: that a step took.
    """
    if use is None or not use.computing > 0:
        note = f"The machine is busy (a load of {before:.1f} on {cores} cores before the first step): alone, a run is faster."
        return (note,) if before >= BUSY * cores else ()
    share = use.waiting / (use.computing + use.waiting)
    if share < WAITING:
        return ()
    return (
        f"The machine is busy: {share:.0%} of their time the steps were ready and waited for one of the {cores} cores (a load of "
        f"{before:.1f} before the first). Alone, a step takes at most {seconds * (1 - share):.3g} s.",
    )


def count_parameters(state: State) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in state.model.denoiser.parameters())


def peak_memory(device: torch.device) -> int:
    """Peak bytes: allocated on a CUDA device, or resident in this process; 0 where the system does not report it (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def available_memory(device: torch.device) -> float:
    """Bytes that can still be had; infinitely many where the system does not report them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024.0 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable")))
    except (OSError, StopIteration):  # not Linux
        names = getattr(os, "sysconf_names", {})
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if "SC_PHYS_PAGES" in names else math.inf
