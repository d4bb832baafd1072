"""log p(y) by the probability flow, where y is a whole field with the noise of the process: a marginal density of the process.

With y = x + n and n of the law of σ ξ, α_t y is x_t at the level σ_t/α_t = σ, hence log p(y) = log p_t(α_t y) + d log α_t: by the
flow from t to 1 it is found as log p(x) is from 0 to 1 (Song et al. 2021, appendix D), without particles, and exactly but for the
solver's tolerance and, where probes are drawn, for their spread. Other measurements need particles: `scorefield.inverse.weighed`.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scorefield.core.denoiser import Condition, DenoiserProtocol
from scorefield.core.noise import Noise
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.guidance import NoisyField, Observation
from scorefield.inverse import pose
from scorefield.model import Model
from scorefield.operators import Operator
from scorefield.operators.function import Linear
from scorefield.samplers.likelihood import Likelihood, ProbabilityFlow


def log_evidence(
    model: Model,
    operator: Operator | Linear | Observation,
    y: Tensor | None = None,
    noise: float | Tensor | Noise = 0.0,
    *,
    repeats: int = 4,
    seed: int = 0,
    flow: ProbabilityFlow = ProbabilityFlow(),  # noqa: B008 - immutable
    cond: Condition | None = None,
    label: int | None = None,
    shape: Sequence[int] = (),
    prior: DenoiserProtocol | None = None,
) -> Likelihood:
    """log p(y) in nats, several times with probes of their own; with respect to Lebesgue measure of y in data units.

    Args:
        model: p(x).
        operator: A, see `posterior`: the identity, a factor, or any unitary map.
        y: what was measured of one field, (1, channels, *grid).
        noise: see `posterior`: in model space a multiple of the noise of the process, so that all channels must have one scale.
        repeats: how often; computed once where the probes are not drawn, and the same each time.
        seed: of the probes.
        flow: the solver's tolerance and the probes; it starts at the level of the noise.
        cond: what the model is conditioned on, in data units, for this one field: tensors (1, ...).
        label: the class, of a network with labels.
        shape: (channels, *grid) of x, if not that of the training data.
        prior: the denoiser of p(x), where it is not simply the model's own.

    Raises:
        InputError: as `posterior`; another measurement, or a noise that is no level of the process.
    """
    posed = pose(model, operator, y, noise, label, cond, shape, prior)
    field = posed.measurement.as_noisy_field(posed.prior.sde.noise, tuple(shape or model.shape))
    if field is None:
        raise InputError(
            "The measurement is not a whole field with the noise of the process, of which alone the flow knows log p(y): take "
            "`weighed`, which estimates that of any."
        )
    generator = Generators((seed, 0, index, Stream.PROBE) for index in range(repeats))
    return by_flow(model, field, flow, generator=generator, cond=posed.cond, prior=posed.prior)


def by_flow(
    model: Model,
    field: NoisyField,
    flow: ProbabilityFlow,
    *,
    generator: Generators,
    cond: Condition | None = None,
    prior: DenoiserProtocol | None = None,
) -> Likelihood:
    """log p(y) of a measurement that is a field with noise, once for each stream of probes.

    Args:
        model: p(x).
        field: y, by `as_noisy_field` of what `in_model_space` gives.
        flow: the solver's tolerance and the probes.
        generator: of the probes.
        cond: what the model is conditioned on, in data units, for one field.
        prior: the denoiser of p(x), where it is not simply the model's own.

    Raises:
        InputError: a noise that is no level of the process.
    """
    prior, count = prior or model.prior, len(generator) if flow.probes.drawn else 1
    started = flow.from_level(prior.sde.schedule, field.level)
    x = field.x.to(model.device, model.precision).expand(count, *field.x.shape[1:])
    given = {name: value.expand(count, *value.shape[1:]) for name, value in model.given(cond).items()}
    found = started.log_prob(prior, x, generator=generator, cond=given or None)
    found = found._replace(nats=found.nats + field.log_det)
    return Likelihood(*(value.expand(len(generator), *value.shape[1:]) for value in found))
