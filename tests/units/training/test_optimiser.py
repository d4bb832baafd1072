"""Learning rates."""

from __future__ import annotations

import pytest

from scorefield.training import Constant, CosineDecay


def test_warm_up_is_linear_and_never_zero() -> None:
    factors = [Constant(warmup=4)(step, 100) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert Constant()(0, 10) == 1.0


def test_cosine_ends_at_the_floor() -> None:
    rate = CosineDecay(warmup=10, floor=0.1)
    assert rate(10, 110) == pytest.approx(1.0)
    assert rate(60, 110) == pytest.approx(0.55)
    assert rate(110, 110) == pytest.approx(0.1)
    assert all(rate(step, 110) > 0 for step in range(110))
