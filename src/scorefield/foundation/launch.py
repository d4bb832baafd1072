"""Which process this is of how many, as torchrun, Slurm or Lightning say in the environment: nothing else reads their numbers."""

from __future__ import annotations

import os
from typing import NamedTuple

from scorefield.foundation.errors import InputError

BATCH_STEP = 2**32 - 256  # numbers from here on are steps of Slurm's own, such as the batch script, and not of srun
TASK = "SLURM_ARRAY_TASK_"  # how the numbers of a job array begin: ID, MIN, MAX, STEP, COUNT


class Place(NamedTuple):
    """One process of several.

    Attributes:
        number: from 0.
        of: how many there are.
    """

    number: int
    of: int


ALONE = Place(0, 1)


class Started(NamedTuple):
    """One of several processes that have to find each other, as those of a training do.

    Attributes:
        by: who started them.
        rank: its number of all.
        count: how many there are.
        local: its number on its machine.
        nodes: how many machines there are, with as many processes each.
    """

    by: str
    rank: int
    count: int
    local: int
    nodes: int


def started() -> Started | None:
    """Which process this is of those that torchrun or srun started; None where neither did. InputError where machines have not
    as many each.
    """
    by, (rank, count) = _starter(), place_among()
    if by is None or count == 1:
        return None
    here = place_here()
    nodes = -(-count // here.of) if by == "torchrun" else _whole("SLURM_STEP_NUM_NODES", _whole("SLURM_NNODES", 1))
    if count % nodes:
        raise InputError(f"{by} started {count} processes on {nodes} machines: give each as many.")
    return Started(by, rank, count, here.number, nodes)


def _starter() -> str | None:
    """A batch script has most of Slurm's variables, and is one process."""
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        return "torchrun"
    if {"SLURM_STEP_ID", "SLURM_PROCID", "SLURM_LOCALID"} <= os.environ.keys():
        return "srun" if _whole("SLURM_STEP_ID") < BATCH_STEP else None
    return None


def is_first() -> bool:
    """Whether this process is the first of its launch, which speaks for all. Lightning numbers those of each machine anew."""
    return place_among().number == 0 and _whole("NODE_RANK", 0) == 0


def place_among() -> Place:
    """Where this process is among those that one launch started: RANK of WORLD_SIZE by torchrun, LOCAL_RANK of WORLD_SIZE by
    Lightning, else SLURM_PROCID of SLURM_NTASKS where Slurm runs several tasks. InputError for numbers that cannot be.
    """
    if "RANK" in os.environ:
        return _place("RANK", "WORLD_SIZE")
    if _whole("WORLD_SIZE", 1) != 1:
        return _place("LOCAL_RANK" if "LOCAL_RANK" in os.environ else "RANK", "WORLD_SIZE")
    of_batch = _whole("SLURM_STEP_ID", 0) >= BATCH_STEP
    if "SLURM_PROCID" in os.environ and _whole("SLURM_NTASKS", 1) > 1 and not of_batch:  # salloc's shell has no number
        return _place("SLURM_PROCID", "SLURM_NTASKS")
    return ALONE


def place_among_all() -> Place:
    """Where it is among those of all elements of a Slurm array, each of which launches as many: element · processes + number."""
    array, launched = _array(), place_among()
    return Place(array.number * launched.of + launched.number, array.of * launched.of)


def place_here() -> Place:
    """Where it is among those of its launch on this machine, which share its processors and its GPUs."""
    number, of = 0, 1
    if "LOCAL_RANK" in os.environ:
        number, of = _whole("LOCAL_RANK"), _whole("LOCAL_WORLD_SIZE", _whole("WORLD_SIZE", 1))
    elif "SLURM_STEP_ID" in os.environ and "SLURM_LOCALID" in os.environ:  # not so in a script that is one task itself
        number, of = _whole("SLURM_LOCALID"), -(-_whole("SLURM_NTASKS", 1) // max(_whole("SLURM_NNODES", 1), 1))
    return Place(number, max(of, number + 1))


def threads() -> int | None:
    """How many processors this process may keep busy, where an engine deals them out; None where nobody does.

    torchrun binds its processes to no processors, so they divide those that they see. Slurm's tasks may be bound, and see their
    own, or not, and divide what Slurm reserved.
    """
    seen = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    reserved, here = _whole("SLURM_CPUS_ON_NODE", seen), place_here().of
    if "LOCAL_RANK" in os.environ:
        return max(min(seen, reserved) // here, 1)
    return max(min(seen, reserved // here), 1) if "SLURM_CPUS_ON_NODE" in os.environ else None


def _array() -> Place:
    """The element of a Slurm array; of one with gaps, such as 1,3,7, among all from its first to its last."""
    if (
        not {f"{TASK}{name}" for name in ("ID", "MAX")} <= os.environ.keys()
    ):  # one element that is tried by hand does all
        return ALONE
    first, step = _whole(f"{TASK}MIN", 0), max(_whole(f"{TASK}STEP", 1), 1)
    task, last = _whole(f"{TASK}ID"), _whole(f"{TASK}MAX")
    if not first <= task <= last:
        raise InputError(
            f"{TASK}ID is {task}, not from {first} to {last} as {TASK}MIN and MAX say: unset them, or correct them."
        )
    return Place((task - first) // step, (last - first) // step + 1)


def _place(number: str, of: str) -> Place:
    """A place by the names of its two numbers."""
    for name, other in ((number, of), (of, number)):
        if name not in os.environ:
            raise InputError(f"{other} is set and {name} is not: set both, as torchrun does, or unset {other}.")
    found = Place(_whole(number), _whole(of))
    if found.number >= found.of:
        raise InputError(
            f"{number} is {found.number} and {of} is {found.of}: the {found.of} processes have the numbers 0 to {found.of - 1}; "
            "correct them, or unset both."
        )
    return found


def _whole(name: str, default: int | None = None) -> int:
    """A number in the environment. InputError for anything else, and for none without a default."""
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise InputError(f"{name} is {text[:40]!r} in the environment: set it to a whole number, or unset it.")
    return int(text)
