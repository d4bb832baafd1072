"""Baselines on data where their answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from scorefield.climate.baselines import (
    BCSD,
    Baseline,
    Bilinear,
    DressedBilinear,
    DressedRidge,
    HourlyResidual,
    QuantileMap,
    Ridge,
    When,
)
from scorefield.climate.regrid import block_mean
from scorefield.foundation.errors import InputError

RANDOM = np.random.default_rng(0)
DAYS, HOURS = 30, 6
WHEN = When(np.tile(np.arange(HOURS), DAYS), np.repeat(np.arange(DAYS), HOURS))
N = DAYS * HOURS


def pairs(noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Coarse fields and fine ones that are linear in them and in the hour, up to noise."""
    coarse = RANDOM.normal(size=(N, 3, 4))
    pattern = np.random.default_rng(1).normal(size=(12, 48)) / 4
    fine = (coarse.reshape(N, 12) @ pattern).reshape(N, 6, 8) + np.sin(WHEN.hour)[:, None, None]
    return coarse.astype(np.float32), (fine + noise * RANDOM.normal(size=fine.shape)).astype(np.float32)


EVERY = [Bilinear(), HourlyResidual(), DressedBilinear(), Ridge(), DressedRidge(), BCSD(), BCSD(ratio=True, wet=0.1)]


@pytest.mark.parametrize("baseline", EVERY, ids=lambda b: type(b).__name__)
def test_a_member_depends_on_seed_member_and_time_alone(baseline: Baseline) -> None:
    coarse, fine = pairs(0.1)
    baseline.fit(coarse, np.abs(fine), WHEN)
    drawn = baseline.draw(coarse[:5], 3, 7, When(*(part[:5] for part in WHEN)))
    assert drawn.shape == (3, 5, 6, 8) and np.isfinite(drawn).all()
    np.testing.assert_array_equal(drawn[:2, :2], baseline.draw(coarse[:2], 2, 7, When(*(part[:2] for part in WHEN))))
    other = baseline.draw(coarse[:5], 3, 8, When(*(part[:5] for part in WHEN)))
    chance = isinstance(baseline, DressedBilinear | DressedRidge)
    assert np.array_equal(drawn, other) != chance and np.array_equal(drawn[0], drawn[1]) != chance


def test_block_means_weigh_by_area_and_undo_bilinear_interpolation_of_planes() -> None:
    area = np.array([[1.0, 1.0], [3.0, 3.0]])
    np.testing.assert_allclose(block_mean(np.array([[1.0, 3.0], [5.0, 7.0]]), (2, 2), area), [[(4 + 36) / 8]])
    y, x = np.mgrid[0:4, 0:5]
    plane = (2.0 * y - 3.0 * x + 1)[None]
    fine = Bilinear().fit(plane, np.zeros((1, 12, 10)), When.unknown(1)).draw(plane, 1, 0, When.unknown(1))[0]
    inner = block_mean(fine, (3, 2))[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, plane[:, 1:-1, 1:-1], atol=1e-5)
    with pytest.raises(InputError, match="4×5 boxes does not divide one of 13×10"):
        Bilinear().fit(plane, np.zeros((1, 13, 10)), When.unknown(1))


def test_ridge_finds_what_is_linear_and_shrinks_what_is_not_there() -> None:
    coarse, fine = pairs()
    found = Ridge().fit(coarse, fine, WHEN)
    assert found.chosen == min(found.left_out)  # without noise nothing is gained by a penalty
    np.testing.assert_allclose(found.draw(coarse, 1, 0, WHEN)[0], fine, atol=1e-2)
    noise = RANDOM.normal(size=fine.shape)
    assert Ridge().fit(coarse, noise, WHEN).chosen > 100
    constant = np.ones_like(coarse)
    np.testing.assert_allclose(
        Ridge().fit(constant, fine, WHEN).draw(constant, 1, 0, WHEN)[0].mean(), fine.mean(), atol=1e-3
    )


def test_the_errors_that_dress_ridge_are_those_of_days_it_has_not_seen() -> None:
    coarse, fine = pairs(noise=0.5)
    dressed = DressedRidge(1e-3).fit(coarse, fine, WHEN)
    fresh_coarse, fresh = pairs(noise=0.5)
    drawn = dressed.draw(fresh_coarse, 20, 0, WHEN)
    error = (drawn.mean(0) - fresh).std()
    assert drawn.std(0, ddof=1).mean() == pytest.approx(
        error, rel=0.06
    )  # in-sample errors would be 5 % too small at least
    chance = drawn - drawn.mean(0)
    assert abs(np.corrcoef(chance[..., 0, 0].ravel(), chance[..., 0, 1].ravel())[0, 1]) < 0.05


def test_the_hourly_residual_is_the_mean_error_of_each_hour() -> None:
    coarse = RANDOM.normal(size=(N, 3, 4))
    smooth = Bilinear().fit(coarse, np.zeros((N, 6, 8)), WHEN).draw(coarse, 1, 0, WHEN)[0]
    pattern = RANDOM.normal(size=(HOURS, 6, 8))
    found = HourlyResidual().fit(coarse, smooth + pattern[WHEN.hour], WHEN).draw(coarse, 1, 0, WHEN)[0]
    np.testing.assert_allclose(found, smooth + pattern[WHEN.hour], atol=1e-5)


def test_dressed_values_have_the_law_of_their_bin() -> None:
    coarse = np.where(RANDOM.random((400, 2, 2)) < 0.5, 0.0, RANDOM.gamma(2, 2, (400, 2, 2)))
    flat = coarse[:, :1, :1].repeat(2, 1).repeat(2, 2)  # constant fields: bilinear values are theirs
    truth = (np.kron(flat, np.ones((1, 4, 4))) * RANDOM.gamma(1, 1, (400, 8, 8))).astype(np.float32)
    baseline = DressedBilinear(bins=20).fit(flat, truth, When.unknown(400))
    drawn = baseline.draw(flat, 2, 0, When.unknown(400))
    wet = flat[:, 0, 0] > 0
    assert (drawn[:, ~wet] == 0).all()  # dry points have a bin of their own
    ratio = drawn[:, wet].mean((0, 2, 3)) / flat[wet, 0, 0]
    assert np.median(ratio) == pytest.approx(1, abs=0.1)
    assert drawn[:, wet].std() == pytest.approx(truth[wet].std(), rel=0.03)


def test_a_quantile_map_makes_one_law_of_another_and_goes_on_beyond() -> None:
    source, truth = RANDOM.gamma(2, 3, (4000, 2)), RANDOM.gamma(2, [[1.0, 2.0]], (5000, 2)) + 1
    for ratio in (False, True):
        mapped = QuantileMap(200, ratio=ratio).fit(source, truth)(source)
        np.testing.assert_allclose(
            np.quantile(mapped, [0.1, 0.5, 0.99], 0), np.quantile(truth, [0.1, 0.5, 0.99], 0), rtol=0.03
        )
    far = source.max(0) + 10
    np.testing.assert_allclose(QuantileMap().fit(source, truth)(far[None])[0], truth.max(0) + 10, rtol=1e-5)
    np.testing.assert_allclose(
        QuantileMap(ratio=True).fit(source, truth)(far[None])[0], truth.max(0) * far / source.max(0), rtol=1e-5
    )


@pytest.mark.parametrize(("often", "kept"), [(0.7, 0.4), (0.2, 0.2)])
def test_wet_days_are_as_frequent_as_in_truth_or_as_the_source_has_them(often: float, kept: float) -> None:
    def rain(share: float, n: int) -> np.ndarray:
        return np.where(RANDOM.random((n, 1)) < share, RANDOM.gamma(1, 3, (n, 1)) + 1, 0.0)

    source, truth = rain(often, 6000), rain(0.4, 6000) * 2
    mapped = QuantileMap(wet=1.0, ratio=True).fit(source, truth)(source)
    assert (mapped >= 1).mean() == pytest.approx(kept, abs=0.01) and ((mapped == 0) | (mapped >= 1)).all()
    if often > 0.4:
        assert mapped.mean() == pytest.approx(truth.mean(), rel=0.05)
    dry = QuantileMap(wet=1.0).fit(source, 0 * truth)(source)
    assert (dry == 0).all()


def test_bcsd_corrects_a_biased_model_and_adds_the_fine_climate() -> None:
    climate = np.exp(RANDOM.normal(size=(8, 8)) / 2)
    amount = RANDOM.gamma(2, 1, (N, 1, 1)) * np.ones((1, 2, 2))
    fine = np.kron(amount, np.ones((1, 4, 4))) * climate
    model = 2 * block_mean(fine, (4, 4))  # twice too wet
    for baseline in (BCSD(ratio=True), BCSD(ratio=True, wet=1e-3)):
        found = baseline.fit(model, fine, When.unknown(N)).draw(model, 1, 0, When.unknown(N))[0]
        np.testing.assert_allclose(found.mean(0), fine.mean(0), rtol=0.02)
        assert np.corrcoef(found.ravel(), fine.ravel())[0, 1] > 0.99
    moved = block_mean(fine, (4, 4)) + 5
    shifted = BCSD().fit(moved, fine, When.unknown(N)).draw(moved, 1, 0, When.unknown(N))[0]
    np.testing.assert_allclose(shifted.mean(0), fine.mean(0), rtol=0.02)


def test_bcsd_spreads_evenly_what_falls_where_it_never_fell() -> None:
    fine = RANDOM.gamma(0.5, 5, (N, 12, 12))
    fine[:, 4:8, 4:8] = 0
    coarse = block_mean(fine, (4, 4))
    given = coarse[:5].copy()
    given[:, 1, 1] = 3
    found = BCSD(ratio=True).fit(coarse, fine, When.unknown(N)).draw(given, 1, 0, When.unknown(5))[0]
    np.testing.assert_allclose(found[:, 4:8, 4:8], 3, rtol=1e-6)
    assert found.max() < 10 * fine.max()
