"""Baselines on data where their answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from scorefield.climate.baselines import (
    BCSD,
    Analogues,
    AnyGrids,
    Baseline,
    Bilinear,
    Blocks,
    Dressed,
    DressedBilinear,
    DressedRidge,
    HourlyResidual,
    MappedBilinear,
    QuantileMap,
    Ridge,
    When,
)
from scorefield.climate.baselines.ridge import _solve
from scorefield.climate.grid import Grid, edges_between
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


@pytest.mark.parametrize("times", [5, 40])
def test_ridge_minimises_the_penalised_squares_with_more_times_or_more_predictors(times: int) -> None:
    """Where the gradient is zero: Xᵀ(Xβ − y) + λβ = 0 about the means."""
    random = np.random.default_rng(2)
    x, y = random.normal(size=(times, 12)), random.normal(size=(times, 7))
    slope, intercept = np.split(_solve(x, y, 0.3), [-1])
    rest = x @ slope + intercept - y
    np.testing.assert_allclose((x - x.mean(0)).T @ rest + 0.3 * slope, 0, atol=1e-12)
    np.testing.assert_allclose(rest.mean(0), 0, atol=1e-12)


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


def grid(rows: int, columns: int) -> Grid:
    """Of a region of 10° × 12°, cells equally large."""
    y, x = ((np.arange(n) + 0.5) * size / n for n, size in ((rows, 10.0), (columns, 12.0)))
    return Grid(40 + y, x, edges_between(40 + y), edges_between(x))


def real_pairs() -> tuple[np.ndarray, np.ndarray, AnyGrids, np.ndarray]:
    """Two coarse variables of 6×8 and a fine one of 19×29, with gaps in all and a sea."""
    random, grids = np.random.default_rng(5), AnyGrids(grid(6, 8), grid(19, 29))
    coarse = random.gamma(1, 2, (60, 2, 6, 8)).astype(np.float32)
    fine = np.abs(grids.up(coarse[:, 0]) + random.normal(size=(60, 19, 29))).astype(np.float32)
    sea = np.zeros((19, 29), bool)
    sea[:, 20:] = True
    fine[:, sea] = np.nan
    fine[3, 4, 5] = fine[7:9, 0] = np.nan
    coarse[:, :, :, 7], coarse[2, 1, 1, 1] = np.nan, np.nan
    return coarse, fine, grids, sea


PLAIN = [Bilinear(), HourlyResidual(), Ridge(), Analogues(), BCSD(), BCSD(ratio=True, wet=0.1), MappedBilinear()]


@pytest.mark.parametrize("dressed", [False, True])
@pytest.mark.parametrize("baseline", [*PLAIN, DressedBilinear(), DressedRidge()], ids=lambda b: type(b).__name__)
def test_gaps_any_two_grids_and_several_predictors(baseline: Baseline, dressed: bool) -> None:
    if dressed and baseline not in PLAIN:
        return
    coarse, fine, grids, sea = real_pairs()
    baseline = Dressed(baseline) if dressed else baseline
    drawn = baseline.fit(coarse, fine, When.unknown(60), grids).draw(coarse[:4], 3, 0, When.unknown(4))
    assert drawn.shape == (3, 4, 19, 29) and np.isfinite(drawn[..., ~sea]).all()
    assert (drawn[0] != drawn[1])[:, ~sea].any() == (dressed or baseline not in PLAIN)
    again = baseline.draw(coarse[:2], 2, 0, When.unknown(2))
    np.testing.assert_array_equal(drawn[:2, :2], again)
    assert np.abs(drawn[..., ~sea].mean() - np.nanmean(fine)) < 0.6


def test_grids_that_divide_evenly_are_the_same_either_way() -> None:
    coarse, fine = RANDOM.normal(size=(3, 5, 6)), RANDOM.normal(size=(3, 15, 24))
    fine[0, :2, :3] = np.nan
    even, some = Blocks((3, 4)), AnyGrids(grid(5, 6), grid(15, 24))
    np.testing.assert_allclose(some.up(coarse), even.up(coarse), atol=1e-5)
    np.testing.assert_allclose(some.down(fine), even.down(fine), atol=0.05)  # by area, and by number
    np.testing.assert_array_equal(some.spread(coarse), even.spread(coarse))


def test_a_fine_grid_far_beyond_the_coarse_one_is_refused() -> None:
    with pytest.raises(InputError, match="does not cover"):
        AnyGrids(grid(6, 8).crop(slice(0, 3), slice(None)), grid(19, 29)).up(np.zeros((3, 8)))


@pytest.mark.parametrize("wet", [None, 1.0])
def test_quantiles_are_the_truths_and_one_gap_changes_little(wet: float | None) -> None:
    random = np.random.default_rng(3)
    source, truth = random.gamma(2, 3, (400, 2, 3)), random.gamma(0.5, 8, (300, 2, 3))
    whole = QuantileMap(300, wet=wet).fit(source, truth)(source)
    levels = [0.1, 0.3, 0.5, 0.7, 0.9, 0.99]
    expected = np.quantile(np.where(truth >= (wet or 0), truth, 0), levels, axis=0)
    np.testing.assert_allclose(np.quantile(whole, levels, axis=0), expected, rtol=0.1, atol=0.15)
    source[5, 0, 0] = truth[9, 1, 2] = np.nan
    source[:, 1, 0] = np.nan
    broken = QuantileMap(300, wet=wet).fit(source, truth)(source)
    assert np.isnan(broken[5, 0, 0]) and np.isnan(broken[:, 1, 0]).all()
    near, same = (np.nanquantile(x[:, [0, 1], [0, 2]], levels, axis=0) for x in (broken, whole))
    np.testing.assert_allclose(near, same, rtol=0.1, atol=0.15)


@pytest.mark.parametrize("baseline", [Bilinear(), Ridge(), MappedBilinear()], ids=lambda b: type(b).__name__)
def test_a_dressed_baseline_is_calibrated(baseline: Baseline) -> None:
    """Errors that do not depend on the day: the truth of other days has every rank equally often, and all of the spread."""
    random, members, n = np.random.default_rng(4), 9, 400
    coarse = random.normal(size=(2 * n, 2, 2)).astype(np.float32)
    fine = Blocks((2, 2)).up(coarse) + random.gamma(2, 1, (2 * n, 4, 4))
    train, test = slice(0, n), slice(n, None)
    fitted = Dressed(baseline).fit(coarse[train], fine[train].astype(np.float32), When.unknown(n))
    drawn = fitted.draw(coarse[test], members, 0, When.unknown(n))
    frequency = np.bincount((drawn < fine[test]).sum(0).ravel(), minlength=members + 1) / fine[test].size
    assert np.abs(frequency * (members + 1) - 1).max() < 0.2
