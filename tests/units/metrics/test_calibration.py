"""Calibration: draws of the law itself stay within chance, others do not, and the conformal factor keeps its promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.calibration import (
    Verdict,
    band_power,
    by_chance,
    conformal_factor,
    rank_distance,
    ranks,
    verdict,
)

GRID = (1, 6, 6)


def smooth(count: int, seed: int) -> Tensor:
    """Fields with neighbours that have much to do with one another."""
    white = torch.randn((count, *GRID), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return white + white.roll(1, -1) + white.roll(1, -2) + 2 * white.mean((-1, -2), keepdim=True)


def verdicts(fields: int, wider: float, shift: float = 0.0, n: int = 8) -> list[Verdict]:
    """Of draws with `wider` times the spread of the truth's law, shifted."""
    generator, found = torch.Generator().manual_seed(9), []
    for seed in range(fields):
        draws = smooth(n + 1, 7000 + seed)
        found.append(verdict(draws[0], wider * draws[1:] + shift, generator=generator))
    return found


def figures(found: list[Verdict]) -> dict[str, bool]:
    coverage = by_chance(torch.stack([one.covered for one in found]))
    reliability = torch.stack([torch.stack((one.error, one.spread), -1) for one in found])
    ratios = [by_chance(reliability[:, :, band], "ratio") for band in range(2)]
    distance = rank_distance(torch.stack([one.ranks for one in found]))
    return {"coverage": coverage.kept, "ratio": all(r.kept for r in ratios), "ranks": distance.kept}


def test_draws_of_the_law_stay_within_chance_and_others_do_not() -> None:
    assert all(figures(verdicts(60, 1.0)).values())
    assert not any(figures(verdicts(60, 0.6)).values())
    assert not any(figures(verdicts(60, 1.8)).values())
    assert not figures(verdicts(60, 1.0, shift=1.0))["ranks"]


def test_bands_of_chance_hold_what_they_say() -> None:
    """In 95 of 100 repetitions, with pixels that have much to do with one another."""
    kept = 0
    for repeat in range(40):
        generator = torch.Generator().manual_seed(repeat)
        rows = [smooth(7, 1000 * repeat + seed) for seed in range(20)]
        found = torch.stack([verdict(row[0], row[1:], generator=generator).covered for row in rows])
        kept += by_chance(found, draws=400).kept
    assert kept >= 33  # 38 of 40 expected, 1.4 of spread


def test_the_spread_is_what_the_error_should_be() -> None:
    """In the mean over draws: E|x_0 − mean|² = (1 + 1/n) times the variance, band by band."""
    found = verdicts(300, 1.0)
    error, spread = (torch.stack([getattr(one, name)[0] for one in found]).mean(0) for name in ("error", "spread"))
    assert float((error / spread - 1)[:3].abs().max()) < 0.2


def test_ranks_count_those_below_and_split_equal_ones_evenly() -> None:
    generator = torch.Generator().manual_seed(0)
    found = ranks(torch.tensor([[0.5], [3.0], [-1.0], [2.0]]), generator)
    assert found.flatten().tolist() == [1, 3, 0, 2]
    equal = ranks(torch.zeros(4, 4000), generator)[0].bincount(minlength=4)
    assert float((equal / 1000 - 1).abs().max()) < 0.1


def test_bands_share_the_power_of_white_noise_equally() -> None:
    x = torch.randn((4000, 1, 8, 6), generator=torch.Generator().manual_seed(0))
    power = band_power(x).mean(0)
    assert float((power - 1).abs().max()) < 0.05


@pytest.mark.parametrize("wrong", [0.3, 1.0, 3.0])
def test_with_the_conformal_factor_intervals_hold_ninety_percent_of_new_fields(wrong: float) -> None:
    """Whatever the draws are: in the mean over fields and over calibrations, no less, and with 24 fields hardly more."""
    held = []
    for repeat in range(25):
        generator = torch.Generator().manual_seed(repeat)
        scores = []
        for seed in range(26):
            draws = smooth(6, 5000 * repeat + seed)
            scores.append(verdict(draws[0], wrong * draws[1:].abs(), generator=generator).score)
        factor = conformal_factor(scores[:24])
        held += [float((score <= factor).double().mean()) for score in scores[24:]]
    mean, error = float(torch.tensor(held).mean()), float(torch.tensor(held).std()) / math.sqrt(len(held))
    assert 0.9 - 2.5 * error < mean < 0.9 + 0.05 + 2.5 * error


def test_too_few_fields_promise_nothing() -> None:
    with pytest.raises(InputError, match="--fields 9"):
        conformal_factor([torch.rand(5)] * 8)
    assert conformal_factor([torch.rand(5, dtype=torch.float64)] * 9) > 0
    with pytest.raises(InputError, match="at least 3 members"):
        verdict(torch.zeros(GRID), torch.zeros(2, *GRID), generator=torch.Generator())


def test_what_all_agree_on_is_left_out_and_what_they_agree_on_wrongly_is_not() -> None:
    x = smooth(6, 3)
    x[:, :, :2] = 1.0  # measured without noise
    one = verdict(x[0], x[1:], generator=torch.Generator().manual_seed(0))
    assert len(one.score) == 24 and bool(one.inside[:, :2].isnan().all())
    alike = x[1:2].expand(5, -1, -1, -1)
    wrong = verdict(x[0], alike, generator=torch.Generator().manual_seed(0))
    assert float(wrong.covered[0]) == 0 and conformal_factor([wrong.score] * 9) > 1e3
