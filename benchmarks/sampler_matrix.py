"""Error against evaluations of every sampler on every schedule, in closed form, as one table: docs/samplers.md.

    python benchmarks/sampler_matrix.py [--out docs/samplers.md]

The law of the samples is exact (see tests/laws/matrix.py) but for two rows: Song's Langevin corrector, whose step depends on
norms, is run in many dimensions, and the adaptive solver is compared with the closed-form flow sample by sample.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from laws.cases import SCHEDULES, keys  # noqa: E402
from laws.matrix import MEAN, METHODS, NAMES, Method, law, run, undefined  # noqa: E402
from scorefield.core.oracle import Gaussian  # noqa: E402
from scorefield.core.schedule import Schedule  # noqa: E402
from scorefield.core.sde import SDE  # noqa: E402
from scorefield.samplers import Adaptive, LogSNRGrid  # noqa: E402

BUDGETS = (20, 60, 180)
TOLERANCES = (1e-2, 1e-4, 1e-8)
T_MIN, T_MAX = 1e-3, 0.999
MODES, COPIES, BATCH = 16, 512, 32
ROUNDING = 1e-15

TEXT = """# Samplers

Every step on every schedule, on data whose denoiser is known in closed form: fields of {modes} pixels with the mean {mean} and
the spectrum 0.5/(1 + k²), under white noise. All start from the exact law at t = {t_max} and go on a grid uniform in log-SNR to
t = {t_min}. A cell has the error after {budgets} evaluations of the denoiser: the Wasserstein-2 distance between the law of the
samples and the exact one, over the root mean square of the data.

{table}

Stated orders, as the tests hold them (tests/laws/test_matrix.py): {orders}.

- Rows are named by their steps: EulerFlow and ReverseDiffusionFlow are EulerMaruyama and ReverseDiffusion with
  probability_flow=True, Ancestral(upper) has upper=True, DDIM(η), DPMSolverPP2M(η) and StochasticHeun(churn) their argument, and
  StochasticHeun a churn of 8/N; DPMSolverPP2M(1) is DPM++ 2M SDE.
- Rows with a corrector name it where it comes: before predicting, as in Song's code, or after, as in his paper. Their
  signal-to-noise ratio is r = 0.3, and they converge to the bias of a finite step, at most r²/(1 − r²) = 0.1 of the variance
  where the noise dominates. AnnealedLangevin makes 2 corrections a level.
- Langevin depends on norms: Monte Carlo of {batch} fields of {pixels} pixels of the same spectrum, which leaves about 0.005.
- NoPredictor is none: annealed Langevin sampling, by Song's rule and NCSNv2's, with 5 steps a level. NCSNLangevin measures its
  step by σ(0), which must be above 0.
- Adaptive has the tolerances {tolerances} instead of a number of levels; in brackets the evaluations it took. Its cost is that
  of the law of the data, whatever the schedule, and of the range of noise.
- At t = 1, where α = 0 for Cosine and Rectified, EulerMaruyama, ReverseDiffusion and NoPredictor are undefined and say so; give
  them a grid with t_max < 1. All others are finite there, and at σ = 0.

Made by `python benchmarks/sampler_matrix.py` in {seconds:.0f} s; torch {torch}, Python {python}.
"""


def spectrum(copies: int = 1) -> Tensor:
    """0.5/(1 + k²) for modes k = 0 to 8; each of them many times over for many copies."""
    modes = torch.fft.fftfreq(MODES * copies, 1 / (MODES * copies), dtype=torch.float64).abs() / copies
    return 0.5 / (1 + modes.round() ** 2)[None]


def wasserstein(mean: Tensor, variance: Tensor, oracle: Gaussian, t: Tensor) -> float:
    """Between Gaussians with a constant mean and a variance per mode, relative to the size of the data."""
    exact, alpha = oracle.variance(t)[0], oracle.sde.schedule.alpha(t)
    square = (mean - alpha * MEAN) ** 2 + (variance.sqrt() - exact.sqrt()).square().mean()
    return float((square / ((alpha * MEAN) ** 2 + exact.mean())).sqrt())


def affine_error(schedule: Schedule, method: Method, levels: int) -> float:
    oracle = Gaussian(SDE(schedule), spectrum(), MEAN)
    times = LogSNRGrid(T_MIN, T_MAX)(schedule, levels + 1)
    return wasserstein(*law(oracle, method.at(schedule, levels), times), oracle, times[-1])


def sampled_error(schedule: Schedule, method: Method, levels: int) -> float:
    oracle = Gaussian(SDE(schedule), spectrum(COPIES), MEAN)
    times = LogSNRGrid(T_MIN, T_MAX)(schedule, levels + 1)
    x = oracle.marginal((BATCH, 1, MODES * COPIES), times[0], generator=keys(BATCH))
    x = run(oracle, method, times, x, keys(BATCH, seed=1))
    power = torch.fft.fft(x - x.mean(), norm="ortho")[:, 0].abs().square().mean(0)
    band = (torch.fft.fftfreq(MODES * COPIES, 1 / (MODES * COPIES)).abs() / COPIES).round().long()
    variance = torch.stack([power[band == k].mean() for k in range(int(band.max()) + 1)])[band]
    return wasserstein(x.mean(), variance, oracle, times[-1])


def adaptive_error(schedule: Schedule, tolerance: float) -> tuple[float, int]:
    oracle, calls = Gaussian(SDE(schedule), spectrum(), MEAN), []
    oracle.register_forward_hook(lambda *_: calls.append(1))
    t, s = (torch.tensor(end, dtype=torch.float64) for end in (T_MAX, T_MIN))
    x = oracle.marginal((BATCH, 1, MODES), t, generator=keys(BATCH))
    found, _ = Adaptive(tolerance)(oracle, x, t, s, None, generator=keys(BATCH), memory=None)
    exact = oracle.flow(x, t, s)
    return float((found - exact).norm() / exact.norm()), len(calls)


def cell(name: str, label: str) -> str:
    schedule, method = SCHEDULES[name], METHODS[label]
    if reason := undefined(name, label, whole=False):
        return f"undefined: {reason}"
    if isinstance(method.predictor, Adaptive):
        found = [adaptive_error(schedule, tolerance) for tolerance in TOLERANCES]
        return " · ".join(f"{short(error)} ({calls})" for error, calls in found)
    measure = affine_error if method.affine else sampled_error
    return " · ".join(short(measure(schedule, method, max(1, budget // method.evaluations))) for budget in BUDGETS)


def short(error: float) -> str:
    if error < ROUNDING or not math.isfinite(error):
        return "0" if error < ROUNDING else "∞"
    return f"{error:.2g}" if error >= 1e-3 else f"{error:.0e}".replace("e-0", "e-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "samplers.md")
    out = parser.parse_args().out
    started = time.perf_counter()
    rows = [["", *NAMES], ["---"] * (len(NAMES) + 1)]
    for label in METHODS:
        rows.append([label, *(cell(name, label) for name in NAMES)])
        print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    orders = ", ".join(f"{name} {method.order}" for name, method in METHODS.items() if method.corrector is None)
    text = TEXT.format(
        table="\n".join(f"| {' | '.join(row)} |" for row in rows),
        orders=orders,
        mean=MEAN,
        modes=MODES,
        pixels=MODES * COPIES,
        batch=BATCH,
        t_min=T_MIN,
        t_max=T_MAX,
        budgets=", ".join(map(str, BUDGETS)),
        tolerances=", ".join(f"{tolerance:g}" for tolerance in TOLERANCES),
        seconds=time.perf_counter() - started,
        torch=torch.__version__,
        python=platform.python_version(),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)


if __name__ == "__main__":
    main()
