"""What a run will cost: counted where it can be, said where it cannot."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from scorefield.cli import main
from scorefield.data.batch import Batch
from scorefield.run import experiment as run
from scorefield.training import dry_run
from scorefield.training.dry_run import (
    PATIENCE,
    REPEATS,
    Cost,
    Kept,
    Probe,
    Timing,
    Use,
    busy,
    on_a_line,
    timed,
)
from scorefield.training.state import State


def test_what_autograd_keeps_is_counted_once_and_without_the_weights() -> None:
    """exp keeps its result, which sin keeps, too; the matrix product keeps that of sin, and its weight, which is no cost."""
    layer = nn.Linear(10, 3, bias=False, dtype=torch.float64)
    x = torch.randn(7, 10, dtype=torch.float64, requires_grad=True)
    kept = Kept(layer.parameters())
    with torch.autograd.graph.saved_tensors_hooks(kept.count, lambda tensor: tensor):
        layer(x.exp().sin())
    assert kept.bytes == 2 * 7 * 10 * 8


def cost(folder: Path, **overrides: object) -> Cost:
    return run.dry_run(*tiny.settings(tiny.recipe(folder), **overrides))


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_run, "WAITING", 1.0)


class Machine:
    """A clock that steps put forward: one with n samples takes a + bn seconds, the first of each size much more."""

    def __init__(self, start: float, each: float, cold: float = 100.0) -> None:
        self.start, self.each, self.cold = start, each, cold
        self.now, self.sizes = 0.0, []

    def step(self, size: int) -> None:
        self.now += (self.start + self.each * size) * (self.cold if size not in self.sizes else 1)
        self.sizes.append(size)

    def timed(self, batch: int, micro: int = 0, fitting: int = 10**9) -> Timing:
        return timed(self.step, batch, micro or batch, fitting, clock=lambda: self.now)


def test_whole_steps_are_timed_where_they_are_fast_and_the_cold_ones_do_not_count() -> None:
    machine = Machine(start=0.05, each=0.003)
    seconds, spread, made = machine.timed(128)
    assert made and seconds == pytest.approx(0.05 + 0.003 * 128) and spread == pytest.approx((seconds, seconds))
    assert machine.sizes == [1] * 3 + [2] * 3 + [128] * (1 + REPEATS)  # 128 times a step of one seemed too long


def test_whole_steps_end_where_they_take_longer_than_the_small_ones_promised() -> None:
    machine = Machine(start=0.0, each=0.001, cold=1.0)

    def step(size: int) -> None:
        machine.step(size)
        machine.now += PATIENCE * (size == 64)

    assert timed(step, 64, 64, 64, clock=lambda: machine.now).made and machine.sizes.count(64) == 2


def test_the_time_of_slow_steps_lies_on_the_line_through_those_of_growing_batches() -> None:
    machine = Machine(start=0.5, each=0.1, cold=1.0)
    seconds, _, made = machine.timed(4096)
    assert not made and seconds == pytest.approx(0.5 + 0.1 * 4096) and machine.now < 2 * PATIENCE
    assert sorted(set(machine.sizes)) == [1, 2, 4, 8, 16, 32]
    slow = Machine(start=0.0, each=60.0)
    assert slow.timed(16).seconds == pytest.approx(16 * 60) and slow.sizes == [1] * 3


def test_no_batch_is_larger_than_memory_or_a_micro_batch() -> None:
    machine = Machine(start=0.01, each=0.001)
    assert machine.timed(64, fitting=5).seconds == pytest.approx(0.01 + 0.001 * 64) and max(machine.sizes) == 5
    parts = Machine(start=0.5, each=0.1, cold=1.0)
    assert not parts.timed(64, micro=4).made and max(parts.sizes) == 4


def test_the_spread_is_that_of_the_measurements() -> None:
    times = iter([9.0, 0.10, 0.12, 9.0, 0.4, 0.3, 0.5, 0.45, 0.35])
    clock = [0.0]

    def step(size: int) -> None:
        clock[0] += next(times)

    assert timed(step, 4, 4, 4, clock=lambda: clock[0]) == (pytest.approx(0.4), pytest.approx((0.3, 0.5)), True)
    found = on_a_line([(1, 2.0), (1, 4.0), (3, 6.0), (3, 8.0)], 10)  # about 1 + 2n
    assert found.seconds == pytest.approx(21) and found.spread == pytest.approx((21 * 2 / 3, 21 * 4 / 3))
    assert on_a_line([(1, 3.0), (2, 2.0)], 10).seconds == pytest.approx(10 * (3 + 4) / 5)  # no line falls


def test_a_busy_machine_is_stated() -> None:
    """By what the steps waited, where that is counted: then neither our own load nor an idle minute before deceives."""
    assert busy(9.0, 2, Use(10.0, 1.0), 0.9) == ()
    (note,) = busy(0.1, 2, Use(10.0, 30.0), 0.8)
    assert "75% of their time" in note and "Alone, a step takes at most 0.2 s" in note
    assert busy(1.0, 2, None, 0.8) == () and "a load of 3.2 on 2 cores" in busy(3.2, 2, None, 0.8)[0]


def test_computing_is_told_from_waiting() -> None:
    before = Use.so_far()
    if before is None:
        pytest.skip("this system does not count it")
    started = time.process_time()
    while time.process_time() < started + 0.05:
        pass
    found = Use.since(before)
    assert found is not None and found.computing >= 0.04 and found.waiting >= 0
    assert Use.since(None) is None


def test_the_cost_of_a_small_run_is_that_of_real_steps(idle: None, tmp_path: Path) -> None:
    found = cost(tmp_path)
    assert found.notes == () and found.memory_bytes > 0
    assert 0 < found.spread[0] <= found.seconds_per_step <= found.spread[1]
    table = found._replace(seconds_per_step=0.4512, spread=(0.44, 0.47)).table(8000, 128)
    assert "0.451   (0.44 to 0.47; batch of 128)" in table and "1.00 h for 8000 steps" in table


def test_a_step_that_does_not_fit_is_not_made(idle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 samples at 1.25 × 0.8 MiB, where 3.5 MiB are left beside the moments, 1 + 3 fit: 4 micro-batches are needed."""
    mib, moments = 2**20, 2 * 4 * cost(tmp_path).parameters
    monkeypatch.setattr(dry_run, "probe", lambda *_: Probe(0.5, round(0.8 * mib)))
    monkeypatch.setattr(dry_run, "peak_memory", lambda _: 100 * mib)
    monkeypatch.setattr(dry_run, "available_memory", lambda _: moments + 3.5 * mib)
    made: list[int] = []
    advance = State.advance

    def counted(self: State, batches: Iterable[Batch], *arguments: object, **options: object) -> tuple[Tensor, Tensor]:
        batches = list(batches)
        made.append(sum(len(batch.x) for batch in batches))
        return advance(self, batches, *arguments, **options)

    monkeypatch.setattr(State, "advance", counted)
    found = cost(tmp_path)
    assert abs(found.memory_bytes - (100 * mib + moments + 15 * mib)) < 100 and max(made) == 4
    assert "accumulate at least 4 micro-batches" in found.notes[0]
    monkeypatch.setattr(dry_run, "available_memory", lambda _: moments - mib)  # no room for a step at all
    made.clear()
    assert cost(tmp_path).seconds_per_step == 16 * 0.5 and not made


SMALL = ["--model.net.channels=8", "--model.net.blocks=1", "--train.batch_size=4", "--train.accelerator=cpu"]


def test_without_data_random_ones_stand_in_and_are_stated(
    idle: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL, "--model.net.labels=10"]) == 0
    out = capsys.readouterr().out
    assert "Random fields of shape [3, 32, 32] stand in for the data. There is no file or folder cifar-10-binary" in out
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL, "--data=Digits"]) == 0
    assert "stand in" not in capsys.readouterr().out
    assert main(["train", "images", "--dry-run", "--model.shape=[]"]) == 2
    assert "give their shape: --model.shape" in capsys.readouterr().err
    (tmp_path / "cifar-10-binary.tar.gz").mkdir()
    assert main(["train", "cifar10-ddpmpp-vp", "--dry-run", *SMALL]) == 2  # data that are wrong are not absent
    assert "give the whole download" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cifar-10-binary.tar.gz"]
    assert (
        main(["train", "cifar10-ddpmpp-vp", "--out=run", "--data.path=gone", *SMALL]) == 2
    )  # only a dry run does that
