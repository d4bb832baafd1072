"""In which precision a network is computed: bfloat16 where the machine has its instructions and a trial finds them faster.

A choice is stored with what was made by it, and holds on machines of its kind: a trial may end otherwise the next time.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError

log = logging.getLogger("scorefield")

Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
FULL: Precision = "32-true"
LOW: Precision = "bf16-mixed"
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16")  # of processors, as torch calls them; the last are ARM's
GAIN = 1.1  # how many times as fast bfloat16 has to be: by less, trials end one way and the other
ENOUGH = 0.3  # seconds of one pass, from which on a trial takes no larger batch
REPEATS = 3
PATIENCE = 10.0  # seconds, after which passes are not repeated
HOPELESS = 10.0  # times as slow as float32, from which on a first pass need not be repeated
Batch = TypeVar("Batch")


class Machine(NamedTuple):
    """What computes.

    Attributes:
        kind: the card, or the instruction set of the processor: what a choice of kernels depends on.
        bfloat16: whether it has instructions for bfloat16.
    """

    kind: str
    bfloat16: bool


class Seconds(NamedTuple):
    """What the same work takes in float32 and in bfloat16."""

    full: float
    low: float


class Choice(NamedTuple):
    """A precision that was chosen.

    Attributes:
        precision: which.
        kind: of the machine that it was chosen on.
        seconds: of the trial; None where it needed none.
    """

    precision: str
    kind: str
    seconds: Seconds | None = None

    @classmethod
    def read(cls, stored: object) -> Choice | None:
        """The choice that a checkpoint stores, None in one of before. InputError for anything else."""
        if stored is None:
            return None
        try:
            assert isinstance(stored, Mapping)
            seconds = stored["seconds"]
            found = cls(stored["precision"], str(stored["kind"]), None if seconds is None else Seconds(*seconds))
            assert found.precision in (FULL, LOW, "16-mixed")
        except (AssertionError, KeyError, TypeError) as error:
            raise InputError(
                f"The checkpoint's precision is {str(stored)[:80]}, which this version never wrote."
            ) from error
        return found

    def facts(self) -> dict[str, Any]:
        """In JSON's types."""
        return self._asdict()

    def __str__(self) -> str:
        how = (
            ""
            if self.seconds is None
            else f", {self.seconds.full:.3g} s in float32, {self.seconds.low:.3g} s in bfloat16"
        )
        return f"{self.precision} ({self.kind}{how})"


def machine_of(device: torch.device) -> Machine:
    """What computes on a device; on one that is neither processor nor CUDA's or ROCm's, float32 is all that is known to work."""
    if device.type == "cuda":
        return Machine(torch.cuda.get_device_name(device), torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return Machine(device.type, False)
    known = getattr(torch.cpu, "get_capabilities", dict)()
    if not known:  # before torch 2.11
        known = {"avx512_bf16": torch.cpu._is_avx512_bf16_supported(), "amx_bf16": torch.cpu._is_amx_tile_supported()}
    found = [name for name in INSTRUCTIONS if known.get(name)]
    return Machine(" ".join((torch.backends.cpu.get_cpu_capability(), *found)), bool(found))


def choose(
    name: str,
    asked: str,
    machine: Machine,
    trial: Callable[[], Seconds],
    before: Choice | None = None,
    *,
    say: Callable[[str], None] = log.warning,
) -> Choice:
    """The precision to compute in.

    A trial is made where bfloat16 is asked for, to warn where it is slow, and for `auto` where the machine has instructions for
    it and nothing is known from before.

    Args:
        name: of the setting, for messages.
        asked: what it is.
        machine: what computes.
        trial: times the work in both.
        before: what was chosen when the work began.
        say: warns.
    """
    if asked == LOW:
        seconds = trial()
        if seconds.low > seconds.full:
            say(
                f"{name}={LOW} is slow here ({machine.kind}): {seconds.low:.3g} s for what takes {seconds.full:.3g} s in "
                f"float32. {name}=auto takes it where it pays."
            )
        return Choice(LOW, machine.kind, seconds)
    if asked != "auto":
        return Choice(asked, machine.kind)
    if before is not None and before.kind == machine.kind and before.precision != "16-mixed":
        return before
    seconds = trial() if machine.bfloat16 else None
    pays = seconds is not None and seconds.full >= GAIN * seconds.low
    found = Choice(LOW if pays else FULL, machine.kind, seconds)
    if before is not None:
        say(f"{name}=auto was {before}. Here it is {found}.")
    return found


def timed(
    work: Callable[[Batch, AbstractContextManager[object]], object],
    batch: Callable[[int], Batch],
    device: torch.device,
    most: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Time work in float32 and in bfloat16, in turns, at the largest batch of 1, 2, 4, ... that takes no longer than `ENOUGH`.

    Args:
        work: what is timed, on a batch, with the context to evaluate the network in.
        batch: makes one of so many samples, which takes no part of the time.
        device: that computes.
        most: samples that a batch may have.
        clock: seconds.
    """

    def seconds(precision: str, given: Batch) -> float:
        synchronise(device)
        started = clock()
        work(given, autocast_of(precision, device))
        synchronise(device)
        return clock() - started

    size, given = 1, batch(1)
    seconds(FULL, given)  # which sets up every layer
    full = seconds(FULL, given)
    while size < most and full < ENOUGH:
        try:
            larger = min(2 * size, most)
            wider = batch(larger)
            seconds(FULL, wider)
            size, given, full = larger, wider, seconds(FULL, wider)
        except torch.OutOfMemoryError:
            break
    low = seconds(LOW, given)
    if low > HOPELESS * full + ENOUGH or low > max(full, PATIENCE):
        return Seconds(full, low)
    began, pairs = clock(), [(seconds(FULL, given), seconds(LOW, given))]
    while len(pairs) < REPEATS and clock() < began + PATIENCE:
        pairs.append((seconds(FULL, given), seconds(LOW, given)))
    return Seconds(*map(min, zip(*pairs, strict=True)))


def synchronise(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def at_once(n: int, grid: Sequence[int], device: torch.device) -> int:
    """How many of n fields on a grid to compute at once where nobody says, a power of two: of 2¹⁶ points together on processors,
    whose caches hold about that much of a network, and of 2²⁰ on GPUs; 256 at most, and no more than make one chunk of all n.
    """
    points = 2**20 if device.type == "cuda" else 2**16
    fast = min(max(points // math.prod(grid), 1), 256)
    return min(2 ** (fast.bit_length() - 1), 2 ** (max(n, 1) - 1).bit_length())


def placed(value: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device. There a number of the host's is made anew, by value: for a copy the host would wait."""
    if value.ndim or value.device == device or value.device.type != "cpu" or value.requires_grad:
        return value.to(device)
    return torch.full((), value.item(), dtype=value.dtype, device=device)


def autocast_of(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a precision on a device; float16 is for GPUs alone."""
    if precision == LOW:
        return torch.autocast(device.type, torch.bfloat16)
    if precision == "16-mixed" and device.type != "cpu":
        return torch.autocast(device.type, torch.float16)
    return nullcontext()


def uncompiled() -> AbstractContextManager[object]:
    """Inside, nothing is compiled, and what was compiled runs as it was written."""
    if "torch._dynamo" not in sys.modules:  # whose import takes a second, and which compiles whatever is compiled
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


def allow_tf32(device: torch.device) -> None:
    """Let matrix products of a CUDA device in float32 round their factors to TF32, as its convolutions do anyway."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
