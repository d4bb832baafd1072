"""What launchers say of the processes that they started."""

from __future__ import annotations

import pytest

from scorefield.foundation.errors import InputError
from scorefield.foundation.processes import Started, is_first, started
from scorefield.training import Trainer
from scorefield.training.state import launch

TORCHRUN = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_ID": "0", "SLURM_NNODES": "2"}
BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4", "SLURM_NNODES": "2"}


def test_torchrun_and_srun_say_which_process_this_is() -> None:
    assert started(TORCHRUN) == Started("torchrun", 5, 8, 1, 2) and not is_first(TORCHRUN)
    assert started(SRUN) == Started("srun", 3, 4, 1, 2) and not is_first(SRUN)
    assert is_first(SRUN | {"SLURM_PROCID": "0"})


@pytest.mark.parametrize(
    "alone",
    [{}, BATCH, BATCH | {"SLURM_STEP_ID": str(2**32 - 5)}, SRUN | {"SLURM_NTASKS": "1"}, {"WORLD_SIZE": "2"}],
    ids=["none", "batch script", "its step", "one task", "what training leaves"],
)
def test_where_nobody_started_several_there_is_one(alone: dict[str, str]) -> None:
    assert started(alone) is None and is_first(alone)


def test_a_batch_script_trains_without_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (BATCH | {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "mine"}).items():
        monkeypatch.setenv(name, value)
    assert launch("cpu", 1, 1, "32-true").world_size == 1


def test_those_that_training_starts_itself_are_told_from_the_first() -> None:
    assert not is_first({"LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    assert not is_first({"LOCAL_RANK": "0", "NODE_RANK": "1", "WORLD_SIZE": "2"})
    assert not is_first(SRUN | {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "LOCAL_RANK": "1"})


def test_machines_with_different_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="5 processes on 2 machines"):
        started(SRUN | {"SLURM_NTASKS": "5"})


def test_a_plan_takes_the_processes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert Trainer(batch_size=16).processes == Trainer(batch_size=16, devices=4, nodes=2).processes == 8
    with pytest.raises(InputError, match=r"torchrun started 8 processes, but train\.devices × train\.nodes is 2"):
        Trainer(batch_size=16, devices=2)
    with pytest.raises(InputError, match="batch_size=12 cannot be shared by 8 processes"):
        Trainer(batch_size=12)
