"""Divisions: the parts are disjoint, guards keep them apart, calendars are followed."""

import numpy as np
import pytest

from scorefield.climate import Bands, Blocks, Periods, Seasons, Years
from scorefield.climate.tiles import Tiles
from scorefield.climate.time_features import DayOfYear, HourOfDay, Position
from scorefield.foundation.errors import InputError
from weather import times

DAYS = {calendar: np.asarray(times(1080, calendar)) for calendar in ("standard", "360_day", "noleap")}
DIVISIONS = [
    Years(valid=(2001,), test=(2002,)),
    Seasons(valid=("JJA",), test=("DJF",)),
    Blocks(days=15, cycle=6, valid=(4,), test=(5,), guard=3),
    Periods(("2000-01-01", "2000-12-20"), ("2001-01-05", "2001-06-30"), ("2001-07-10", "2002-12-30")),
]


@pytest.mark.parametrize("calendar", DAYS)
@pytest.mark.parametrize("division", DIVISIONS)
def test_parts_are_disjoint_and_not_empty(division, calendar) -> None:
    parts = np.stack([division.times(DAYS[calendar], split) for split in ("train", "valid", "test")])
    assert (parts.sum(0) <= 1).all() and (parts.sum(1) > 100).all()


def test_a_guard_keeps_training_away_from_what_is_held_out() -> None:
    division = Blocks(days=15, cycle=6, valid=(4,), test=(5,), guard=3)
    train, valid, test = (np.flatnonzero(division.times(DAYS["360_day"], s)) for s in ("train", "valid", "test"))
    held = np.concatenate((valid, test))
    assert np.abs(train[:, None] - held[None]).min() > 3
    bands = Bands(count=10, valid=(2,), test=(7,), guard=8)
    columns = [np.flatnonzero(bands.places((4, 200), s)[0]) for s in ("train", "valid", "test")]
    assert np.abs(columns[0][:, None] - np.concatenate(columns[1:])[None]).min() > 8
    assert len(columns[1]) == len(columns[2]) == 20 and len(columns[0]) == 160 - 4 * 8


def test_seasons_and_whole_days_of_a_period() -> None:
    assert {t.month for t in DAYS["360_day"][Seasons(valid=("JJA",)).times(DAYS["360_day"], "valid")]} == {6, 7, 8}
    hours = np.asarray(times(72, freq="h"))
    assert Periods(("2000-01-01", "2000-01-02"), ("2000-01-03", "2000-01-03")).times(hours, "train").sum() == 48


@pytest.mark.parametrize(
    ("first", "last"), [("2000-01-01T12:00", "2000-01-02T12:00"), ("2000-01-01 12", "2000-01-02T12:00:00Z")]
)
def test_a_period_by_hours_is_the_same_with_a_t_and_with_a_blank(first: str, last: str) -> None:
    hours = np.asarray(times(16, freq="6h"))
    for when in (hours, np.array([t.isoformat() for t in hours], "datetime64[ns]")):
        found = Periods((first, last), ("2001", "2001")).times(when, "train")
        assert found.nonzero()[0].tolist() == [2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("division", "message"),
    [
        (Periods(("2000", "2001-06"), ("2001-06-30", "2002")), "train, 2000 to 2001-06, and valid, 2001-06-30 to 2002, overlap"),
        (Periods(("2000", "2001"), ("2003", "2003"), ("2001-12-31T18:00", "2002")), "overlap"),
        (Periods(("2000", "2001"), ("1999", "2005")), "overlap"),
        (Periods(("2002", "2001"), ("2003", "2003")), "train ends at 2001, before it begins"),
        (Periods(("1.1.2000", "2001"), ("2003", "2003")), "1.1.2000 is no date"),
        (Years((2001, 2002), (2002,)), "2002 is held out in valid and in test"),
        (Bands(4, (1,), (1,)), "1 is held out in valid and in test"),
    ],
)  # fmt: skip
def test_parts_that_overlap_are_refused(division, message: str) -> None:
    with pytest.raises(InputError, match=message):
        division.check()
    for apart in (
        *DIVISIONS,
        Periods(("2000", "2000-06"), ("2000-07-01", "2000-07-01T11"), ("2000-07-01 12", "2000-08")),
    ):
        apart.check()


def test_a_test_part_that_is_not_there_is_refused() -> None:
    for division in (Years(valid=(2001,)), Periods(("2000", "2000"), ("2001", "2001")), Bands(4, valid=(1,))):
        with pytest.raises(InputError, match="no split test"):
            division.times(DAYS["standard"], "test"), division.places((4, 8), "test")
    with pytest.raises(InputError, match="no band 9"):
        Bands(4, valid=(9,))


def test_tiles_lie_within_their_part_and_are_known_and_wet() -> None:
    places = np.zeros((40, 60), bool)
    places[3:, 17:50] = True
    tiles = Tiles((8, 8), least_wet=0.25, wet=1.0)
    corners = tiles.corners(places)
    assert {tuple(c) for c in corners} == {(r, c) for r in range(8, 33, 8) for c in (24, 32, 40)}
    field = np.zeros((1, 40, 60), np.float32)
    field[0, 8:16, 24:27] = 2.0  # 3/8 wet
    field[0, 16:24, 32:34] = 2.0  # 1/4 wet: not more than that
    field[0, 8:16, 26] = np.nan
    assert tiles.fitting(field, corners).sum() == 0
    assert Tiles((8, 8), least_wet=0.2, wet=1.0, most_missing=0.2).fitting(field, corners).sum() == 2


@pytest.mark.parametrize("calendar", DAYS)
def test_time_features_go_round_with_the_calendar(calendar) -> None:
    days = DAYS[calendar]
    angle = DayOfYear()(days)
    np.testing.assert_allclose(np.hypot(*angle.T), 1, rtol=1e-6)
    starts = [i for i, t in enumerate(days) if (t.month, t.day) == (1, 1)]
    np.testing.assert_allclose(angle[starts], [[0, 1]] * len(starts), atol=1e-6)
    assert Position(2000, 2002)(days)[0] == 0 and 0.9 < Position(2000, 2002)(days)[-1] <= 1
    np.testing.assert_allclose(HourOfDay()(np.asarray(times(24, calendar, "h")))[6], [1, 0], atol=1e-6)
