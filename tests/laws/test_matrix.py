"""Every sampler on every schedule: exact moments, stated order, or an error that says why the cell is empty."""

import pytest
import torch

from laws.cases import NOISE_ENDS, OFTEN, SCHEDULES, gaussian, keys, time
from laws.matrix import BIAS, MEAN, METHODS, NAMES, errors, run, undefined
from often import crossed
from scorefield.core.oracle import Gaussian
from scorefield.core.sde import SDE
from scorefield.foundation.errors import InputError
from scorefield.samplers import Adaptive, LogSNRGrid, UniformGrid

F64 = torch.float64
pytestmark = pytest.mark.usefixtures("unchecked")
every_method = pytest.mark.parametrize("method", METHODS)


@pytest.mark.parametrize(("name", "method"), crossed(NAMES, METHODS, OFTEN))
def test_the_matrix(name, method):
    """Between t = 0.999 and t = 1e-3, on grids uniform in log-SNR."""
    schedule, cell = SCHEDULES[name], METHODS[method]
    oracle = gaussian(schedule, grid=(4,), mean=MEAN)
    if reason := undefined(name, method, whole=False):
        with pytest.raises(InputError) as refused:
            errors(oracle, cell, LogSNRGrid(1e-3, 0.999)(schedule, 5))
        assert reason in str(refused.value)
    elif isinstance(cell.predictor, Adaptive):
        check_adaptive(oracle)
    elif not cell.affine:
        check_in_many_dimensions(name, cell)
    elif cell.corrector:
        check_corrected(oracle, cell)
    else:
        check_order(oracle, cell)


def check_order(oracle, cell):
    """Variance and mean: both errors fall at the order of the method, at least 0.15 below it, from 100 to 200 steps."""
    coarse, fine = (errors(oracle, cell, LogSNRGrid(1e-3, 0.999)(oracle.sde.schedule, n + 1)) for n in (100, 200))
    rate = 2 ** (cell.order - 0.15)
    floor = (
        2e-3 if cell.order == 1 else 0.0
    )  # EulerFlow on sub-VP: the first order all but cancels, and shows from 400 steps on
    assert fine[0].abs().max() < max(coarse[0].abs().max() / rate, floor)
    limit = (2**cell.order * fine[0] - coarse[0]) / (2**cell.order - 1)  # extrapolated: the next order is left
    worst = coarse[0].abs().max()
    assert limit.abs().max() < worst**2 + (
        0.01 if cell.order == 1 else 0.003
    )  # 0.003: DPMSolverPP2M starts at first order
    assert abs(fine[1]) < max(abs(coarse[1]) / rate, 1e-13)


def check_corrected(oracle, cell):
    """With a corrector it converges all the same, at first order; not to 0 but to within what a finite step may add."""
    variances = [errors(oracle, cell, LogSNRGrid(1e-3, 0.999)(oracle.sde.schedule, n + 1))[0] for n in (50, 100, 200)]
    first, second = (change.abs().max() for change in torch.stack(variances).diff(dim=0))
    assert second < first / 2**0.85
    limit = 2 * variances[2] - variances[1]
    assert (limit > -0.03).all() and (limit < BIAS + 0.03).all()  # of an extrapolation over changes of up to 0.1


def check_adaptive(oracle):
    """Of some 15 steps each errs by the tolerance, as a mean over the field."""
    t, s = time(0.999), time(1e-3)
    x = oracle.marginal((4, 1, 4), t, generator=keys(4))
    for tolerance in (1e-4, 1e-7):
        found, _ = Adaptive(tolerance)(oracle, x, t, s, None, generator=keys(4), memory=None)
        assert (found - oracle.flow(x, t, s)).abs().max() < 20 * tolerance


def check_in_many_dimensions(name, cell):
    """Song's Langevin step depends on norms, which in 8192 dimensions hardly fluctuate: it mends a third of what 20 levels err.

    One sample tells: the variance of 8192 values has a standard error of 1.6 %, at t = 0.05 where the noise still matters.
    """
    schedule, size = SCHEDULES[name], 8192
    oracle = Gaussian(SDE(schedule), torch.full((1, size), 0.01, dtype=F64))
    times = LogSNRGrid(0.05, 0.999)(schedule, 21)
    x = oracle.marginal((1, 1, size), times[0], generator=keys(1))
    off = [
        run(oracle, way, times, x, keys(1, seed=1)).square().mean() / oracle.variance(times[-1])[0, 0] - 1
        for way in (cell, METHODS["Ancestral"])
    ]
    assert abs(off[0]) < 0.65 * abs(off[1])


@every_method
@pytest.mark.parametrize("name", [name for name in NAMES if name in NOISE_ENDS])
def test_from_pure_noise_to_pure_data(name, method):
    """From t = 1 to t = 0, where α = 0 or σ = 0: finite, or refused with the reason."""
    oracle, cell = gaussian(SCHEDULES[name], grid=(4,), mean=MEAN), METHODS[method].at(SCHEDULES[name], 20)
    x = oracle.marginal((2, 1, 4), time(1.0), generator=keys(2))
    times = UniformGrid(0.0, 1.0)(SCHEDULES[name], 21)
    if reason := undefined(name, method, whole=True):
        with pytest.raises(InputError) as refused:
            run(oracle, cell, times, x, keys(2))
        assert reason in str(refused.value)
    else:
        assert run(oracle, cell, times, x, keys(2)).isfinite().all()
