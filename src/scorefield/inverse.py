"""Inverse problems in data units: fields that explain a measurement y = A x + n, or anything else that is known, under a model
of x.

A model works in units of its own, x = s z + b elementwise, b with the mean of its conditions. There, y is the measurement
y − A b = (A s) z + n of z. All three are divided by the largest s: methods then see an A of the size that it has in data units.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.noise import Noise
from scorefield.data.batch import Batch
from scorefield.foundation.arithmetic import at_once, autocast_of
from scorefield.foundation.errors import InputError
from scorefield.guidance import Guided, Measurement, Method, MomentMatching, Observation, PiGDM
from scorefield.model import Model
from scorefield.operators import LinearOperator, Operator, as_operator
from scorefield.operators.function import Linear
from scorefield.particles import Particles, Population
from scorefield.samplers import DPMSolverPP2M, Sampler

log = logging.getLogger("scorefield")

FEW = 5.0  # effective particles


@dataclass(frozen=True, eq=False)
class InverseProblem:
    """One field to restore, in data units.

    Attributes:
        operator: A.
        y: what was measured, (1, channels, *grid).
        noise: its standard deviation, or what else `Measurement` takes.
        truth: the field that was measured, where it is known; NaN where it is not.
        peak: its largest possible value, for PSNR.
        whole: whether values are 8-bit colours, so that results can be shown as such.
        shape: (channels, *grid) of the field, where A is not linear and has no adjoint to tell it.
    """

    operator: Operator
    y: Tensor
    noise: float | Tensor | Noise = 0.0
    truth: Tensor | None = None
    peak: float = 0.0
    whole: bool = False
    shape: tuple[int, ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        """What decides the result: hashes of y and of what A does."""
        linear = self.operator.linear
        shape = self.linear.adjoint(torch.zeros_like(self.y)).shape if linear else (1, *self.shape)
        probe = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        noise = _hash(self.noise) if isinstance(self.noise, Tensor) else self.noise
        noise = noise if isinstance(noise, float | int | str) else repr(noise)
        return {"observation": _hash(self.y), "operator": _hash(self.operator(probe)), "noise": noise}

    def measures(self, scale: Tensor) -> Tensor:
        """Which entries of y say something, where A is linear: not those of which every field gives 0.

        Args:
            scale: s of x = s z + b, by `units_of`; 0 where fields have no values, as outside a region.
        """
        probe = 1 + torch.rand(scale.shape, generator=torch.Generator().manual_seed(0)).to(scale)
        return self.operator(scale * probe) != 0

    @property
    def linear(self) -> LinearOperator:
        """A, where it is linear."""
        return cast(LinearOperator, self.operator)


def units_of(model: Model, shape: Sequence[int] = (), cond: Condition | None = None) -> tuple[Tensor, Tensor]:
    """s and b of x = s z + b, elementwise, (1, channels, *grid): data units of what is z in model space.

    Args:
        model: whose space it is.
        shape: (channels, *grid) of the fields, if not that of the model's data.
        cond: what the model is conditioned on, in data units, for one field.

    Raises:
        InputError: the normaliser is not affine.
    """
    zero = torch.zeros(1, *(shape or model.shape), dtype=torch.float64)
    one, probe = zero + 1, torch.randn(zero.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, given = model.enter(Batch(zero, cond or {}))
    inside = model.sde.noise.within
    shift, top, found = (inside(model.leave(z.to(model.device), given)) for z in (zero, one, inside(probe)))
    scale = top - shift
    near = 1e-4 * float(scale.abs().max())
    if not torch.allclose(found, shift + scale * inside(probe).to(found), rtol=1e-4, atol=near):
        raise InputError(
            f"{type(model.normaliser).__name__} is not affine, so that a linear measurement is none of normalised fields: "
            "train with Standardise, UnitRange or Centre."
        )
    return scale, shift


def in_model_space(
    model: Model, problem: InverseProblem | Observation, shape: Sequence[int] = (), cond: Condition | None = None
) -> Observation:
    """What is known of fields in data units as what is known of fields in model space, on the model's device.

    Args:
        model: whose space it is.
        problem: the measurement, or what else is known.
        shape: (channels, *grid) of the fields, if not that of the model's data.
        cond: what the model is conditioned on, in data units, for one field.

    Raises:
        InputError: the normaliser is not affine, or y is of another shape than what the operator measures.
    """
    scale, shift = units_of(model, shape, cond)
    if isinstance(problem, InverseProblem):
        measured = problem.operator(shift)
        if measured.shape != problem.y.shape:
            shapes = f"{tuple(problem.y.shape)}, where the operator makes {tuple(measured.shape)} of a field"
            raise InputError(f"y has the shape {shapes}: give y as it was measured, a batch of one.")
        y = problem.y
        if problem.operator.linear:  # what is measured of no field, as outside a region, is never read and may be NaN
            y = y.where(problem.measures(scale).to(y.device), 0)
        problem = Measurement(problem.operator, y, problem.noise)
    return problem.moved(scale, shift)


def posterior(
    model: Model,
    operator: Operator | Linear | Observation,
    y: Float[Tensor, "batch ..."] | None = None,
    noise: float | Tensor | Noise = 0.0,
    *,
    method: Method = MomentMatching(),  # noqa: B008 - immutable
    n: int = 8,
    seed: int = 0,
    sampler: Sampler | None = None,
    cond: Condition | None = None,
    label: int | None = None,
    shape: Sequence[int] = (),
    chunk: int | None = None,
    prior: DenoiserProtocol | None = None,
) -> Float[Tensor, "n channels *grid"]:
    """n draws of p(x | y) for y = A(x) + n, or whatever else is known of x, all in data units. Draw i depends on (seed, i) alone.

    Args:
        model: p(x).
        operator: A, which maps fields in data units: an operator, or a linear function of tensors, see `as_operator`; other
            functions are `Differentiable(f)`. Or any `Observation` of such fields (`Poisson`, `LogLikelihood`), which needs no
            y and noise.
        y: what was measured of one field, (1, channels, *grid); NaN where A hides it.
        noise: its standard deviation, one for each entry of y, or a `Noise` with a covariance, see `Measurement`.
        method: how p(y | x_t) is approximated.
        n: how many.
        seed: of the draws.
        sampler: another than the model's own, and for a flow map than DPM++ 2M SDE.
        cond: what the model is conditioned on, in data units, for this one field: tensors (1, ...).
        label: the class, of a network with labels.
        shape: (channels, *grid) of x, if not that of the training data.
        chunk: how many are computed at once, by default as `Model.sample` has it.
        prior: the denoiser of p(x), where it is not simply the model's own.

    Raises:
        InputError: y does not fit A or is not finite, more than one field, a class or a condition that the model does not
            know, a normaliser that is not affine.
    """
    posed = pose(model, operator, y, noise, label, cond, shape, prior)
    guided = Guided(posed.prior, posed.measurement, method)
    given = posed.cond
    each = {name: value.expand(n, *value.shape[1:]) for name, value in given.items()}
    return model.sample(
        n,
        seed=seed,
        sampler=sampler or model.stepwise,
        shape=shape or None,
        cond=each,
        chunk=None if chunk is None else min(chunk, max(n, 1)),
        denoiser=guided,
    )


@dataclass(frozen=True)
class Posed:
    """An inverse problem in model space, with its conditions in data units."""

    prior: DenoiserProtocol
    measurement: Observation
    cond: dict[str, Tensor]


def pose(
    model: Model,
    operator: Operator | Linear | Observation,
    y: Tensor | None,
    noise: float | Tensor | Noise,
    label: int | None,
    cond: Condition | None,
    shape: Sequence[int],
    prior: DenoiserProtocol | None,
) -> Posed:
    """What `posterior` is given, checked and in model space."""
    if (y is not None and len(y) != 1) or any(len(value) != 1 for value in (cond or {}).values()):
        raise InputError("posterior takes what was measured of one field, and its conditions: give batches of 1.")
    if isinstance(noise, float | int) and not 0 <= noise < math.inf:
        raise InputError(f"The noise of a measurement is a finite standard deviation of at least 0, not {noise}.")
    if label is not None and (isinstance(label, bool) or not 0 <= label < model.labels):
        known = f"0 to {model.labels - 1}" if model.labels else "none, the network knows no classes"
        raise InputError(f"There is no class {label}: give {known}.")
    given = dict(cond or {}) | ({} if label is None else {"label": torch.tensor([label])})
    given = model.asked(given, 1, (shape or model.shape)[1:], prior)
    observed = _observed(operator, y, noise, shape or model.shape)
    return Posed(prior or model.prior, in_model_space(model, observed, shape, given), given)


def _observed(
    operator: Operator | Linear | Observation, y: Tensor | None, noise: float | Tensor | Noise, shape: Sequence[int]
) -> Observation | InverseProblem:
    """What is known of a field, in data units."""
    if isinstance(operator, Observation):
        if y is not None:
            raise InputError("An Observation holds what was measured: leave out y and noise.")
        return operator
    if y is None:
        raise InputError("Give y, what was measured.")
    if isinstance(operator, Operator) and not operator.linear:
        return InverseProblem(operator, y, noise, shape=tuple(shape))
    linear = operator if hasattr(operator, "adjoint") else as_operator(operator, shape)
    return InverseProblem(cast(LinearOperator, linear), y, noise)


def weighed(
    model: Model,
    operator: Operator | Linear | Observation,
    y: Float[Tensor, "batch ..."] | None = None,
    noise: float | Tensor | Noise = 0.0,
    *,
    method: Method = PiGDM(),  # noqa: B008 - immutable
    particles: int = 100,
    seed: int = 0,
    sampler: Sampler | None = None,
    cond: Condition | None = None,
    label: int | None = None,
    shape: Sequence[int] = (),
    chunk: int | None = None,
    prior: DenoiserProtocol | None = None,
) -> Population:
    """Weighted particles of p(x | y), in data units, which are right for any method, and log p(y) with them.

    The law is p(x | y) as the number of particles grows; `Population.drawn` makes draws of them. log p(y) is in nats, with
    respect to Lebesgue measure of y in data units: of two models of the same data the one for which it is larger explains y
    better, as soon as the difference exceeds what it varies by from seed to seed.

    Args:
        model: p(x).
        operator: A, see `posterior`.
        y: what was measured of one field, (1, channels, *grid); NaN where A hides it.
        noise: see `posterior`; above 0.
        method: what proposes.
        particles: how many.
        seed: of all draws.
        sampler: its step is stochastic and evaluates once; by default that of `particle_sampler`.
        cond: what the model is conditioned on, in data units, for this one field: tensors (1, ...).
        label: the class, of a network with labels.
        shape: (channels, *grid) of x, if not that of the training data.
        chunk: how many are evaluated at once, by default as `Model.sample` has it.
        prior: the denoiser of p(x), where it is not simply the model's own.

    Raises:
        InputError: as `posterior`, and a noise of 0.
    """
    posed = pose(model, operator, y, noise, label, cond, shape, prior)
    size = tuple(shape or model.shape)
    run = Particles(
        method,
        particles,
        sampler or particle_sampler(model),
        chunk=chunk or at_once(particles, size[1:], model.device),
    )
    found = population(model, run, posed.measurement, seed=seed, shape=size, cond=posed.cond, prior=posed.prior)
    warn_of_few({"": min(found.effective)})
    return found


def particle_sampler(model: Model) -> Sampler:
    """How particles are drawn where no other way is given: DPM++ 2M SDE on the levels of the model's own sampler, 18 at least."""
    own = model.stepwise
    return replace(own, steps=max(18, own.steps), step=DPMSolverPP2M(eta=1.0), corrector=None, denoise=True)


def population(
    model: Model,
    run: Particles,
    measurement: Observation,
    *,
    seed: int,
    shape: Sequence[int],
    cond: Condition | None = None,
    prior: DenoiserProtocol | None = None,
) -> Population:
    """Particles of a measurement in model space, in data units.

    Args:
        model: p(x).
        run: how.
        measurement: from `in_model_space`.
        seed: of all draws.
        shape: (channels, *grid) of x.
        cond: what the model is conditioned on, in data units, for one field.
        prior: the denoiser of p(x), where it is not simply the model's own.

    Raises:
        InputError: particles that are not finite. That few of them count is for the caller to say, by `warn_of_few`.
    """
    given, like = model.given(cond), torch.empty(0, device=model.device, dtype=model.precision)
    with autocast_of(model.drawn_in, model.device):
        found = run(prior or model.prior, measurement, tuple(shape), seed=seed, like=like, cond=given or None)
    if not math.isfinite(found.log_evidence):
        raise InputError("Particles are not finite: take another grid or sampler, or more steps.")
    each = {name: value.expand(run.count, *value.shape[1:]) for name, value in given.items()}
    return replace(found, x=model.leave(found.x, each).cpu(), log_weights=found.log_weights.cpu())


def warn_of_few(effective: Mapping[str, float]) -> None:
    """Warn once, and with the worst figure, of populations in which fewer than 5 particles counted at some level.

    Args:
        effective: how many counted at the worst level, by what the population is of ("slice 3"; empty where there is but one).
    """
    few = {name: value for name, value in effective.items() if value < FEW}
    if not few:
        return
    worst = min(few, key=few.__getitem__)
    place = f", in {worst}, and fewer than {FEW:g} in {len(few)} of {len(effective)}" if len(effective) > 1 else ""
    log.warning(
        f"No more than {few[worst]:.1f} particles counted at some level{place}: their draws are alike, and log p(y) is "
        "uncertain by some nats. Take more particles, more steps, or another method."
    )


def _hash(x: Tensor) -> str:
    return hashlib.sha256(x.contiguous().numpy().tobytes()).hexdigest()
