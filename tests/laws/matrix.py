"""Every sampler, and the exact law of its samples under a Gaussian oracle: no Monte Carlo.

With that oracle a sampler whose steps do not look at x is affine in its start and in all its noise, and diagonal in the Fourier
modes. One run on a batch of unit impulses, one row for the start and one for each draw, gives all its coefficients.
"""

from dataclasses import dataclass, replace

import torch

from laws.cases import DETERMINISTIC, NOISE_ENDS, SIGNAL_ENDS, STOCHASTIC
from scorefield.foundation.random import Generators
from scorefield.samplers import (
    Adaptive,
    Ancestral,
    AnnealedLangevin,
    DPMSolverPP2M,
    EulerMaruyama,
    Langevin,
    NCSNLangevin,
    NoPredictor,
    ReverseDiffusion,
    Step,
    StochasticHeun,
    sample,
)
from scorefield.samplers.langevin import Corrector

F64 = torch.float64
MEAN = 0.3
NAMES = ("VE", "VP", "SubVP", "Cosine", "EDM", "Rectified", "NCSN", "DDPM")


R = 0.3  # the signal-to-noise ratio of all correctors; NCSNLangevin's step for the same is 2 R² σ(0)²
BIAS = R**2 / (1 - R**2)  # the variance that a finite step adds, where the noise dominates, relatively


@dataclass(frozen=True)
class Method:
    """A way of sampling: the steps, their order, and the evaluations of a level.

    With a corrector the order is that in which the error tends to a constant: the bias of a finite step, at most `BIAS`.
    """

    predictor: Step
    order: int
    evaluations: int = 1
    corrector: Corrector | None = None
    correct_first: bool = True

    @property
    def affine(self) -> bool:
        return not isinstance(self.predictor, Adaptive) and not isinstance(self.corrector, Langevin)

    def at(self, schedule, levels: int) -> "Method":
        """For a number of levels, as the papers have it: churn S/N; and the step of NCSNLangevin in units of σ(0)²."""
        if isinstance(self.predictor, StochasticHeun) and self.predictor.churn:
            return replace(self, predictor=StochasticHeun(churn=8 / max(levels, 20)))
        if isinstance(self.corrector, NCSNLangevin):
            smallest = schedule.sigma(torch.zeros((), dtype=F64)).item()
            return replace(self, corrector=replace(self.corrector, step=2 * R**2 * (smallest or 1.0) ** 2))
        return self


METHODS = (
    {name: Method(step, order, 2 if "Heun" in name else 1) for name, (step, order) in DETERMINISTIC.items()}
    | {name: Method(step, 1) for name, step in STOCHASTIC.items()}
    | {
        "StochasticHeun": Method(StochasticHeun(), 2, 2),
        "DPMSolverPP2M(1)": Method(DPMSolverPP2M(1.0), 2),
        "Adaptive": Method(Adaptive(), 5),
        "Langevin, Ancestral": Method(Ancestral(), 1, 2, Langevin(R)),
        "Ancestral, Langevin": Method(Ancestral(), 1, 2, Langevin(R), correct_first=False),
        "AnnealedLangevin, Ancestral": Method(Ancestral(), 1, 3, AnnealedLangevin(R, 2)),
        "Ancestral, AnnealedLangevin": Method(Ancestral(), 1, 3, AnnealedLangevin(R, 2), correct_first=False),
        "NoPredictor, AnnealedLangevin": Method(NoPredictor(), 1, 5, AnnealedLangevin(R, 5), correct_first=False),
        "NoPredictor, NCSNLangevin": Method(NoPredictor(), 1, 5, NCSNLangevin(repeats=5), correct_first=False),
    }
)


def undefined(name: str, method: str, *, whole: bool) -> str | None:
    """What the error says, for a cell that cannot be: on a grid from t = 1 to t = 0, or within."""
    plain = isinstance(METHODS[method].predictor, EulerMaruyama | ReverseDiffusion | NoPredictor)
    if plain and whole and name in SIGNAL_ENDS:
        return "t_max < 1"
    return "σ(0) = 0" if method == "NoPredictor, NCSNLangevin" and name in NOISE_ENDS else None


class Impulses(Generators):
    """The m-th batch that is drawn is zero but for an impulse in row m + 2."""

    def __init__(self):
        self.drawn = 0

    def randn(self, shape, *, like):
        z = torch.zeros(tuple(shape), dtype=like.dtype)
        z[self.drawn + 2].view(-1)[0] = 1
        self.drawn += 1
        return z


def run(oracle, method, times, x, generator):
    return sample(
        oracle,
        x,
        times,
        method.predictor,
        corrector=method.corrector,
        correct_first=method.correct_first,
        denoise=False,
        generator=generator,
    )


def law(oracle, method, times):
    """Mean, a constant field, and variance per mode at times[-1], from the exact marginal at times[0]."""
    draws = len(times) * (1 + (method.corrector.repeats if method.corrector else 0))
    x = torch.zeros(draws + 2, 1, *oracle.grid, dtype=F64)
    x[1].view(-1)[0] = 1
    modes = torch.fft.fftn(run(oracle, method, times, x, Impulses()), dim=tuple(range(2, x.ndim)))[:, 0]
    start = oracle.sde.schedule.alpha(times[0]) * MEAN
    weight = (modes[1:] - modes[0]).abs().square()
    variance = weight[0] * oracle.variance(times[0])[0] + weight[1:].sum(0)
    first = (0,) * len(oracle.grid)  # the mean is constant: mode 0 alone
    mean = modes[0][first].real / x[0].numel() + (modes[1] - modes[0])[first].real * start
    return mean, variance


def errors(oracle, method, times):
    """Of the variance per mode, relative and signed; of the mean."""
    mean, variance = law(oracle, method.at(oracle.sde.schedule, len(times) - 1), times)
    return variance / oracle.variance(times[-1])[0] - 1, mean - oracle.sde.schedule.alpha(times[-1]) * MEAN
