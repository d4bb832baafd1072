"""bfloat16 where the machine has it and a trial finds it faster; what was begun goes on as it was, or says what it does."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest
import torch

from scorefield.foundation import arithmetic
from scorefield.foundation.arithmetic import Choice, Machine, Seconds, at_once, choose, machine_of, timed
from scorefield.foundation.errors import InputError

NEW, OLD = Machine("AVX512 avx512_bf16", True), Machine("AVX2", False)
FASTER, EVEN, SLOWER = Seconds(3.0, 1.0), Seconds(1.05, 1.0), Seconds(0.5, 4.3)


def never() -> Seconds:
    pytest.fail("a trial was made")


@pytest.mark.parametrize(
    ("machine", "seconds", "expected"),
    [(NEW, FASTER, "bf16-mixed"), (NEW, EVEN, "32-true"), (NEW, SLOWER, "32-true")],
)
def test_auto_is_bfloat16_only_where_a_trial_confirms_it(machine: Machine, seconds: Seconds, expected: str) -> None:
    assert choose("precision", "auto", machine, lambda: seconds) == Choice(expected, machine.kind, seconds)


def test_without_instructions_auto_is_float32_and_nothing_is_tried() -> None:
    assert choose("precision", "auto", OLD, never) == Choice("32-true", "AVX2")
    assert choose("precision", "32-true", NEW, never) == Choice("32-true", NEW.kind)


def test_a_precision_that_is_asked_for_is_taken_and_said_to_be_slow(caplog: pytest.LogCaptureFixture) -> None:
    assert (
        choose("train.precision", "bf16-mixed", NEW, lambda: FASTER).precision == "bf16-mixed" and not caplog.messages
    )
    assert choose("train.precision", "bf16-mixed", OLD, lambda: SLOWER).precision == "bf16-mixed"
    (message,) = caplog.messages
    assert "train.precision=bf16-mixed is slow here (AVX2): 4.3 s" in message and "0.5 s in float32" in message


def test_what_was_chosen_holds_on_the_same_kind_of_machine_and_elsewhere_the_change_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = Choice("bf16-mixed", NEW.kind, FASTER)
    assert Choice.read(before.facts()) == before and Choice.read(None) is None
    assert choose("train.precision", "auto", NEW, never, before) == before and not caplog.messages
    assert choose("train.precision", "auto", OLD, never, before).precision == "32-true"
    assert "auto was bf16-mixed (AVX512 avx512_bf16, 3 s in float32" in caplog.messages[0]
    assert caplog.messages[0].endswith("Here it is 32-true (AVX2).")
    for broken in ({}, "bf16", {"precision": "int8", "kind": "", "seconds": None}):
        with pytest.raises(InputError, match="precision is"):
            Choice.read(broken)


def test_a_processor_has_bfloat16_where_torch_names_instructions_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for name, able in (("avx512_bf16", True), ("amx_bf16", True), ("bf16", True), ("avx512_f", False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda name=name: {name: True, "avx2": True}, raising=False)
        found = machine_of(cpu)
        assert found.bfloat16 is able and (name in found.kind) is able
    assert machine_of(torch.device("mps")) == Machine("mps", False)


class Work:
    """A pass over n samples takes n/10 s in float32 and a number of times as long in bfloat16, the first of all much longer."""

    def __init__(self, times: float) -> None:
        self.now, self.times, self.made = 0.0, times, []

    def __call__(self, size: int, autocast: AbstractContextManager[object]) -> None:
        with autocast:
            low = torch.is_autocast_enabled("cpu")
        self.now += (size / 10) * (self.times if low else 1) + 100 * (not self.made)
        self.made.append((size, low))


def test_a_trial_grows_the_batch_and_compares_in_turns() -> None:
    work = Work(times=0.4)
    found = timed(work, int, torch.device("cpu"), 64, clock=lambda: work.now)
    assert found == pytest.approx((0.4, 0.16)) and {size for size, _ in work.made} == {1, 2, 4}
    assert [low for _, low in work.made[-6:]] == [False, True] * arithmetic.REPEATS
    small = Work(times=0.4)
    assert timed(small, int, torch.device("cpu"), 3, clock=lambda: small.now) == pytest.approx((0.3, 0.12))


def test_a_trial_of_what_is_hopelessly_slow_is_one_pass() -> None:
    work = Work(times=1000.0)
    assert timed(work, int, torch.device("cpu"), 1, clock=lambda: work.now) == pytest.approx((0.1, 100.0))
    assert work.made == [(1, False), (1, False), (1, True)]


def test_a_trial_of_a_large_network_ends_after_some_seconds() -> None:
    work = Work(times=0.8)
    assert timed(work, lambda _: 60, torch.device("cpu"), 64, clock=lambda: work.now) == pytest.approx((6.0, 4.8))
    assert work.made == [(60, False)] * 2 + [(60, True)] + [(60, False), (60, True)]


def test_float32_on_a_gpu_may_be_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", seen.append)
    for device in ("cpu", "cuda"):
        arithmetic.allow_tf32(torch.device(device))
    assert seen == ["high"]


@pytest.mark.parametrize(
    ("n", "grid", "device", "expected"),
    [
        (1000, (8, 8), "cpu", 256),
        (1000, (64, 64), "cpu", 16),
        (1000, (100, 100), "cpu", 4),
        (1000, (1024, 1024), "cpu", 1),
        (3, (8, 8), "cpu", 4),
        (3, (100, 100), "cpu", 4),
        (8, (8, 8), "cpu", 8),
        (0, (), "cpu", 1),
        (1000, (1024, 1024), "cuda", 1),
        (1000, (128, 128), "cuda", 64),
    ],
)
def test_chunks_hold_as_many_points_as_are_fast(n: int, grid: tuple[int, ...], device: str, expected: int) -> None:
    assert at_once(n, grid, torch.device(device)) == expected
