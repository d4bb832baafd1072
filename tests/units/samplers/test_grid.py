"""Time grids fall from where they are told to start to where they are told to end."""

import pytest
import torch

from laws.cases import NOISE_ENDS, SCHEDULES, SIGNAL_ENDS
from scorefield.core.schedule import EDM, VE, VP, Rectified, geometric
from scorefield.foundation.errors import InputError
from scorefield.samplers import EDMGrid, LogSNRGrid, TimeTable, UniformGrid

F64 = torch.float64

every_schedule = pytest.mark.parametrize("name", SCHEDULES)


def ratio(schedule, t):
    return (-schedule.log_snr(t) / 2).exp()


def test_the_edm_grid_is_karras_equation_5():
    times = EDMGrid()(EDM(), 18)
    i = torch.arange(18, dtype=F64)
    expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(EDM().sigma(times), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(times, 1 - i / 17, rtol=0, atol=1e-14)  # in EDM's own time it is uniform


@pytest.mark.parametrize("rho", [3.0, 7.0])
@every_schedule
def test_the_edm_grid_is_that_in_sigma_over_alpha(name, rho):
    schedule = SCHEDULES[name]
    times = EDMGrid(rho)(schedule, 11)
    lowest, highest = ratio(schedule, torch.tensor([0.0, 1.0], dtype=F64)).tolist()
    first, last = (80.0 if name in SIGNAL_ENDS else highest), (0.002 if name in NOISE_ENDS else lowest)
    roots = torch.linspace(0, 1, 11, dtype=F64) * (last ** (1 / rho) - first ** (1 / rho)) + first ** (1 / rho)
    torch.testing.assert_close(ratio(schedule, times), roots**rho, rtol=1e-10, atol=0)
    assert (times.diff() < 0).all() and times.dtype == F64 and times[0] <= 1 and times[-1] >= 0


def test_the_edm_grid_takes_other_ends_and_stays_within_the_schedule():
    times = EDMGrid(ratio_min=0.1, ratio_max=10.0)(VP(), 5)
    torch.testing.assert_close(ratio(VP(), times[[0, -1]]), torch.tensor([10.0, 0.1], dtype=F64), rtol=1e-12, atol=0)
    beyond = EDMGrid(ratio_min=1e-9, ratio_max=1e9)(VE(), 5)  # no level twice
    torch.testing.assert_close(beyond, EDMGrid()(VE(), 5), rtol=0, atol=0)
    assert (beyond.diff() < 0).all()


@every_schedule
def test_the_log_snr_grid_is_uniform_in_log_snr(name):
    schedule = SCHEDULES[name]
    times = LogSNRGrid(1e-3, 0.999)(schedule, 33)
    assert times[0] == 0.999 and times[-1] == 1e-3 and times.dtype == F64
    steps = schedule.log_snr(times).diff()
    torch.testing.assert_close(steps, steps.mean().expand(32), rtol=1e-10, atol=0)


@pytest.mark.parametrize("levels", [2, 10, 232])
def test_the_uniform_grid_is_the_table(levels):
    """With as many levels as a table has, every time is an entry."""
    table = geometric(0.01, 50.0, levels)
    times = UniformGrid(0.0, 1.0)(table, levels)
    assert times[0] == 1 and times[-1] == 0
    assert torch.equal(table.sigma(times), table.sigmas.flip(0))


@pytest.mark.parametrize("grid", [UniformGrid(1e-5, 0.9), LogSNRGrid(1e-5, 0.9), EDMGrid()])
@pytest.mark.parametrize("levels", [1, 2, 3, 1000])
def test_levels_are_counted_and_fall(grid, levels):
    times = grid(VP(), levels)
    assert len(times) == levels and (times.diff() < 0).all()
    if not isinstance(grid, EDMGrid):
        assert times[0] == 0.9 and (levels == 1 or times[-1] == 1e-5)


def test_a_time_table_is_taken_as_it_is():
    assert TimeTable((0.9, 0.5, 0.0))(VP(), 3).tolist() == [0.9, 0.5, 0.0]


@pytest.mark.parametrize(
    ("grid", "schedule", "levels"),
    [
        (UniformGrid(), VP(), 0),
        (UniformGrid(0.5, 0.5), VP(), 3),
        (UniformGrid(-0.1, 1.0), VP(), 3),
        (UniformGrid(0.0, 1.1), VP(), 3),
        (LogSNRGrid(0.0, 1.0), VP(), 3),  # σ(0) = 0
        (LogSNRGrid(1e-3, 1.0), Rectified(), 3),  # α(1) = 0
        (EDMGrid(), VP(), 0),
        (EDMGrid(rho=0.0), VP(), 3),
        (EDMGrid(ratio_min=10.0, ratio_max=0.1), VP(), 3),
        (EDMGrid(ratio_min=-1.0), VP(), 3),
        (EDMGrid(ratio_min=100.0), VE(), 3),  # above the schedule's reach
        (TimeTable((0.9, 0.5)), VP(), 3),
        (TimeTable((0.5, 0.9)), VP(), 2),
        (TimeTable((1.1, 0.5)), VP(), 2),
        (TimeTable((0.5, -0.1)), VP(), 2),
    ],
)
def test_a_grid_that_is_none_raises(grid, schedule, levels):
    with pytest.raises(InputError):
        grid(schedule, levels)
