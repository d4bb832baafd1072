"""The processes that torchrun or Slurm's srun started for one run, as their environment variables tell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from scorefield.foundation.errors import InputError

BATCH_STEP = 2**32 - 256  # numbers from here on are steps of Slurm's own, such as the batch script, and not of srun


class Started(NamedTuple):
    """One process of several.

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


def started(environment: Mapping[str, str] = os.environ) -> Started | None:
    """Which process this is; None where nobody started several. InputError where machines have not as many each."""
    found = _by_torchrun(environment) or _by_slurm(environment)
    if found is None or found.count == 1:
        return None
    if found.count % found.nodes:
        raise InputError(f"{found.by} started {found.count} processes on {found.nodes} machines: give each as many.")
    return found


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the first of several, by these or by the numbers that training gives to those it starts itself."""
    found = started(environment)
    own = ("NODE_RANK", "LOCAL_RANK")
    return all(int(environment.get(name, "0")) == 0 for name in own) if found is None else found.rank == 0


def _by_torchrun(environment: Mapping[str, str]) -> Started | None:
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= environment.keys():
        return None
    number, count, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    nodes = count // int(environment.get("LOCAL_WORLD_SIZE", count))
    return Started("torchrun", number, count, local, nodes)


def _by_slurm(environment: Mapping[str, str]) -> Started | None:
    """Of srun alone: a batch script has most of its variables, and is one process."""
    needed = ("SLURM_STEP_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
    if not set(needed) <= environment.keys():
        return None
    step, number, count, local = (int(environment[name]) for name in needed)
    nodes = int(environment.get("SLURM_STEP_NUM_NODES", environment.get("SLURM_NNODES", "1")))
    return None if step >= BATCH_STEP else Started("srun", number, count, local, nodes)
