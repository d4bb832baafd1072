"""The numbers of engines: read where there are any, and refused in one line where they contradict each other."""

from __future__ import annotations

import os

import pytest

from scorefield.cli import main
from scorefield.foundation import launch
from scorefield.foundation.errors import InputError
from scorefield.foundation.launch import Started, is_first, place_among, place_among_all, place_here, started, threads
from scorefield.run.runner import our_share_first
from scorefield.training import Trainer
from scorefield.training.state import launch as launched

ENGINES = ("RANK", "WORLD_SIZE", "LOCAL_", "SLURM_", "NODE_RANK")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(ENGINES):
            monkeypatch.delenv(name)


def say(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for word in text.split():
        monkeypatch.setenv(*word.split("="))


@pytest.mark.parametrize(
    ("said", "launched", "all_of_them"),
    [
        ("", (0, 1), (0, 1)),
        ("RANK=1 WORLD_SIZE=3 LOCAL_RANK=1 LOCAL_WORLD_SIZE=3", (1, 3), (1, 3)),
        ("LOCAL_RANK=1 WORLD_SIZE=2", (1, 2), (1, 2)),  # Lightning
        ("WORLD_SIZE=1", (0, 1), (0, 1)),
        ("LOCAL_RANK=1", (0, 1), (0, 1)),  # chooses a GPU
        ("SLURM_PROCID=2 SLURM_NTASKS=4", (2, 4), (2, 4)),
        ("SLURM_PROCID=0 SLURM_NTASKS=1", (0, 1), (0, 1)),
        ("SLURM_NTASKS=4", (0, 1), (0, 1)),  # the shell of salloc
        ("SLURM_PROCID=0 SLURM_NTASKS=2 RANK=3 WORLD_SIZE=4", (3, 4), (3, 4)),  # torchrun on two machines of Slurm
    ],
)
def test_the_place_is_what_the_engine_says(
    said: str, launched: tuple[int, int], all_of_them: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, said)
    assert place_among() == launched and place_among_all() == all_of_them


@pytest.mark.parametrize(
    ("array", "place"),
    [
        ("ID=1 MIN=0 MAX=2 STEP=1 COUNT=3", (1, 3)),
        ("ID=15 MIN=5 MAX=25 STEP=5 COUNT=5", (2, 5)),
        ("ID=3 MIN=1 MAX=7 STEP=1 COUNT=3", (2, 7)),  # 1,3,7
        ("ID=4", (0, 1)),  # tried by hand
    ],
)
def test_an_array_has_as_many_places_as_elements_times_tasks(
    array: str, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, " ".join(f"SLURM_ARRAY_TASK_{word}" for word in array.split()))
    assert place_among_all() == place and place_among() == (0, 1)  # each element says what it found
    say(monkeypatch, "SLURM_PROCID=1 SLURM_NTASKS=2")
    assert place_among_all() == (2 * place[0] + 1, 2 * place[1]) and place_among() == (1, 2)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("RANK=0", "RANK is set and WORLD_SIZE is not"),
        ("WORLD_SIZE=2", "WORLD_SIZE is set and RANK is not"),
        ("RANK=2 WORLD_SIZE=2", "the numbers 0 to 1"),
        ("RANK=0 WORLD_SIZE=0", "WORLD_SIZE is 0"),
        ("RANK=-1 WORLD_SIZE=2", "'-1'"),
        ("RANK=a WORLD_SIZE=2", "'a'"),
        ("SLURM_PROCID=2 SLURM_NTASKS=2", "SLURM_NTASKS is 2"),
        ("SLURM_ARRAY_TASK_ID=3 SLURM_ARRAY_TASK_MAX=2", "not from 0 to 2"),
    ],
)
def test_wrong_numbers_are_refused_in_one_line(said: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, said)
    with pytest.raises(InputError, match=why) as error:
        our_share_first(3)
    assert len(str(error.value)) <= 280


def test_a_verb_refuses_them_before_its_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say(monkeypatch, "RANK=2 WORLD_SIZE=2")
    assert main(["recipes"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("scorefield: error: RANK is 2") and said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("said", "seen", "number"),
    [
        ("", 8, None),
        ("RANK=0 WORLD_SIZE=3", 8, None),  # on which machines is unknown
        ("LOCAL_RANK=1 LOCAL_WORLD_SIZE=3", 8, 2),
        ("LOCAL_RANK=1 LOCAL_WORLD_SIZE=3", 2, 1),
        ("LOCAL_RANK=0 WORLD_SIZE=2", 8, 4),
        ("SLURM_CPUS_ON_NODE=4 SLURM_NTASKS=2", 8, 4),  # the script of a job, no task of it
        ("SLURM_CPUS_ON_NODE=4 SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_STEP_ID=0 SLURM_LOCALID=1", 8, 2),  # not bound
        ("SLURM_CPUS_ON_NODE=4 SLURM_NTASKS=2 SLURM_STEP_ID=0 SLURM_LOCALID=1", 2, 2),  # bound to two
        ("SLURM_CPUS_ON_NODE=6 SLURM_NTASKS=1 LOCAL_RANK=2 LOCAL_WORLD_SIZE=3", 8, 2),  # torchrun in it
    ],
)
def test_processes_on_a_machine_divide_its_processors(
    said: str, seen: int, number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(monkeypatch, said)
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: set(range(seen)))
    assert threads() == number


@pytest.mark.parametrize(
    ("given", "becomes", "said"), [(None, "4", ""), ("1", "1", "OMP_NUM_THREADS=4"), ("3", "3", "")]
)
def test_threads_are_divided_unless_the_environment_says_how_many(
    given: str | None,
    becomes: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    say(monkeypatch, "LOCAL_RANK=0 LOCAL_WORLD_SIZE=2 RANK=0 WORLD_SIZE=2")
    monkeypatch.setattr(launch.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setenv("OMP_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    assert main(["recipes"]) == 0 and os.environ["OMP_NUM_THREADS"] == becomes
    assert said in capsys.readouterr().err


def test_tasks_of_slurm_take_turns_with_gpus_as_ranks_do(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, "SLURM_STEP_ID=0 SLURM_LOCALID=1 SLURM_NTASKS=2 SLURM_NNODES=1 SLURM_PROCID=1")
    assert place_here() == (1, 2)
    say(monkeypatch, "LOCAL_RANK=3 LOCAL_WORLD_SIZE=4")
    assert place_here() == (3, 4)


@pytest.mark.parametrize("count", [0, 1, 5, 12])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shares_are_a_partition_and_the_rest_follows(count: int, of: int, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = []
    for number in range(of):
        say(monkeypatch, f"RANK={number} WORLD_SIZE={of}")
        orders.append(our_share_first(count))
        assert sorted(orders[-1]) == list(range(count))
        assert orders[-1][: len(range(number, count, of))] == list(range(number, count, of))
    if (count, of) == (12, 3):
        assert orders[1] == [1, 4, 7, 10, 11, 8, 5, 2, 9, 6, 3, 0]  # what others come to last first


TORCHRUN = "RANK=5 LOCAL_RANK=1 WORLD_SIZE=8 LOCAL_WORLD_SIZE=4"
SRUN = "SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NTASKS=4 SLURM_STEP_ID=0 SLURM_NNODES=2"
BATCH = "SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=4 SLURM_NNODES=2 SLURM_JOB_ID=7 SLURM_JOB_NAME=mine"


def test_torchrun_and_srun_say_what_a_training_is_one_of(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, SRUN)
    assert started() == Started("srun", 3, 4, 1, 2) and not is_first()
    say(monkeypatch, "SLURM_PROCID=0")
    assert is_first()
    say(monkeypatch, TORCHRUN)
    assert started() == Started("torchrun", 5, 8, 1, 2) and not is_first()


@pytest.mark.parametrize(
    "alone",
    ["", BATCH, f"{BATCH} SLURM_STEP_ID={2**32 - 5}", f"{SRUN} SLURM_NTASKS=1 SLURM_PROCID=0"],
    ids=["none", "batch script", "its step", "one task"],
)
def test_where_nobody_started_several_there_is_one(alone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, alone)
    assert started() is None and is_first()
    assert launched("cpu", 1, 1, "32-true").world_size == 1


@pytest.mark.parametrize("by", ["LOCAL_RANK=1 WORLD_SIZE=2", "LOCAL_RANK=0 NODE_RANK=1 WORLD_SIZE=2"])
def test_those_that_training_starts_itself_are_told_from_the_first(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, by)
    assert not is_first()


def test_machines_with_different_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, f"{SRUN} SLURM_NTASKS=5")
    with pytest.raises(InputError, match="5 processes on 2 machines"):
        started()


def test_a_plan_takes_the_processes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    say(monkeypatch, TORCHRUN)
    assert Trainer(batch_size=16).processes == Trainer(batch_size=16, devices=4, nodes=2).processes == 8
    with pytest.raises(InputError, match=r"torchrun started 8 processes, but train\.devices × train\.nodes is 2"):
        Trainer(batch_size=16, devices=2)
    with pytest.raises(InputError, match="batch_size=12 cannot be shared by 8 processes"):
        Trainer(batch_size=12)
