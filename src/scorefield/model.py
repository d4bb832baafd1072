"""A score model: the law, the network, the units, and how it is best sampled. All that a checkpoint must give back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.core.classifier import Classifier
from scorefield.core.denoiser import Condition, Denoiser, DenoiserProtocol, Preconditioner
from scorefield.core.residual import ConditionalMean
from scorefield.core.schedule import time_of_noise
from scorefield.core.sde import SDE, expand_like
from scorefield.data.batch import Batch, Conditions
from scorefield.data.normalise import Identity, Normaliser
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream
from scorefield.nn.network import Network
from scorefield.samplers import Sampler
from scorefield.samplers.likelihood import Likelihood, ProbabilityFlow
from scorefield.samplers.loop import Callback


class Model(nn.Module):
    """A denoiser with the units of its data; or, where its network has classes, a noise-conditional classifier in its place.

    Args:
        sde: the law of x_t in model space.
        net: the network F.
        precondition: the coefficients around F.
        normaliser: between data units and model space.
        predictors: the same for the field that x is conditioned on, which is 0 where it is not known; null to leave it as it is.
        mean: a mean m(cond) that is taken off x in model space, so that only the rest is drawn; null for none.
        sampler: how samples are drawn unless told otherwise.
        shape: (channels, *grid) of the fields; taken from the data in training.
    """

    template: Tensor

    def __init__(
        self,
        sde: SDE,
        net: Network,
        precondition: Preconditioner,
        normaliser: Normaliser,
        sampler: Sampler = Sampler(),  # noqa: B008 - immutable
        shape: Sequence[int] = (),
        predictors: Normaliser | None = None,
        mean: ConditionalMean | None = None,
    ) -> None:
        super().__init__()
        self.denoiser: Denoiser | Classifier = (Classifier if net.logits else Denoiser)(net, sde, precondition)
        self.normaliser, self.predictors, self.mean = normaliser, predictors or Identity(), mean
        self.register_buffer("template", torch.empty(0, dtype=torch.uint8))
        self.sampler = sampler
        self.shape = tuple(shape)
        self._check_labels()

    def _check_labels(self) -> None:
        """Refuse a network that cannot take the noise labels it will be given."""
        if (known := self.denoiser.net.label_range) is None:
            return
        given = self.denoiser.precondition.label(self.sde.schedule, torch.tensor([0.0, 1.0], dtype=torch.float64))
        ends = (float(given.min()), float(given.max()))
        if known != ends:
            raise InputError(
                f"{type(self.denoiser.net).__name__} takes noise labels from {known[0]:g} to {known[1]:g}, and is given those "
                f"from {ends[0]:g} to {ends[1]:g}: set model.precondition.label to Index and its levels to those of the network."
            )

    @property
    def sde(self) -> SDE:
        return self.denoiser.sde

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def labels(self) -> int:
        """How many classes the network tells apart; 0 without any."""
        return self.denoiser.net.labels

    @property
    def classes(self) -> int:
        """How many classes a classifier tells apart; 0 for a model of fields."""
        return self.denoiser.net.logits

    @property
    def generative(self) -> Denoiser:
        """The denoiser. Raises InputError where the model is a classifier."""
        if self.classes:
            raise InputError(
                "The run is a classifier, which can guide a model but draws nothing itself: give the run of a model of fields."
            )
        return cast(Denoiser, self.denoiser)

    def check_cond(self, cond: Condition | None) -> None:
        """Raise InputError where the network needs a field that `cond` lacks, or makes no fields."""
        channels = self.generative.net.cond_channels
        if channels and "field" not in (cond or {}):
            advice = "take `scorefield downscale`, `sample --given valid`, or in Python Model.sample(n, cond=...)"
            raise InputError(f"The network is conditioned on a field of {channels} channels: {advice}.")

    @torch.no_grad()
    def score(
        self,
        x: Float[Tensor, "batch channels *grid"],
        t: Tensor | float | None = None,
        *,
        label: Tensor | None = None,
        cond: Condition | None = None,
    ) -> Float[Tensor, "batch channels *grid"]:
        """C ∇log p(x_t) at x_t = x, in model space.

        Args:
            x: x_t in model space.
            t: times in [0, 1], shape () or (batch).
            label: noise labels in the network's own convention (an index, for tabulated models) instead of t.
            cond: what the model is conditioned on.
        """
        if label is not None and t is None:
            t = self.denoiser.precondition.label.invert(self.sde.schedule, label.double())
        elif t is None or label is not None:
            raise InputError("score needs either t or label, not both and not neither.")
        times = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
        return self.generative.score(self._own(x), times, cond)

    # ------------------------------------------------------------------------------------------ data units, model space
    def condition(self, cond: Condition | None) -> dict[str, Tensor]:
        """Conditions in data units as the network is given them."""
        given = dict(cond or {})
        if "field" in given:
            given["field"] = self.predictors(given["field"]).nan_to_num(0.0, 0.0, 0.0)
        return given

    def prepare(self, batch: Batch) -> Batch:
        """A batch in data units as the denoiser learns it: x and its conditions in model space, x without the mean."""
        batch = replace(batch.normalised(self.normaliser), cond=self.condition(batch.cond))
        if self.mean is None:
            return batch
        x = self.mean.take_off(batch.x, batch.cond)
        return replace(batch, x=x if batch.mask is None else x.where(batch.mask.bool(), 0.0))

    def restore(self, x: Tensor, cond: Condition) -> Tensor:
        """What the denoiser draws, in data units; `cond` as the network was given it."""
        return self.normaliser.inverse(x if self.mean is None else self.mean.put_back(x, cond))

    def fixed(self) -> list[tuple[str, nn.Module]]:
        """What is not trained but stored, by the names that it has in a checkpoint."""
        parts: list[tuple[str, nn.Module]] = [("normaliser", self.normaliser), ("predictors", self.predictors)]
        return parts if self.mean is None else [*parts, ("mean", self.mean)]

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit all that is to be fitted to training data, in data units: the units first, then what the mean leaves."""
        if not has_learnt(self.normaliser):
            self.normaliser.fit(batches)
        if not has_learnt(self.predictors):
            self.predictors.fit(Conditions(batches))
        if self.mean is not None:
            self.mean.fit(replace(b.normalised(self.normaliser), cond=self.condition(b.cond)) for b in batches)

    @torch.no_grad()
    def denoise(
        self,
        y: Float[Tensor, "batch channels *grid"],
        noise: Float[Tensor, " batch"] | float,
        *,
        cond: Condition | None = None,
        chunk: int = 16,
    ) -> Float[Tensor, "batch channels *grid"]:
        """E[x | y] for y = x + σ n, n white: what was measured without its noise, in data units.

        Args:
            y: in data units.
            noise: σ in data units, per real component, one number or one for each field.
            cond: what the model is conditioned on.
            chunk: how many are computed at once.

        Raises:
            InputError: a σ that is no level of the model's schedule, or that the normaliser makes uneven.
        """
        levels = torch.as_tensor(noise, dtype=torch.float32).expand(len(y))
        given = self.condition({name: value.to(self.device) for name, value in (cond or {}).items()})
        whole = Batch(y, given, noise=levels).to(self.device).normalised(self.normaliser)
        x, noise = self._own(whole.x), self._own(cast(Tensor, whole.noise))
        t = time_of_noise(self.sde.schedule, noise)
        found = []
        for rows in torch.arange(len(x)).split(chunk):
            alpha = expand_like(self.sde.schedule.alpha(t[rows]), x)
            part = {name: value[rows] for name, value in given.items()}
            found.append(self.normaliser.inverse(self.generative(alpha * x[rows], t[rows], part)).cpu())
        return torch.cat(found)

    def _own(self, x: Tensor) -> Tensor:
        """x where the network is, in its precision."""
        return x.to(next(self.denoiser.parameters()))

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        shape: Sequence[int] | None = None,
        cond: Condition | None = None,
        chunk: int = 64,
        callback: Callback | None = None,
        denoiser: DenoiserProtocol | None = None,
    ) -> Float[Tensor, "n channels *grid"]:
        """n samples in data units. Sample i depends on (seed, i) alone.

        Args:
            n: how many.
            seed: of the draws.
            sampler: another than the model's own.
            shape: another (channels, *grid) than that of the training data.
            cond: what to condition on, a batch of n.
            chunk: how many are computed at once; another chunk size agrees to about 1e-4, not bitwise.
            callback: called with (level, t, x_t) at every level of every chunk, in model space.
            denoiser: one to sample with instead of the model's own, which it usually wraps (`scorefield.guidance`).
        """
        if n < 0 or chunk < 1:
            raise InputError(f"sample needs n >= 0 and chunk >= 1, not {n} and {chunk}.")
        parts = self.chunks(range(0, n, chunk), n, seed, sampler, shape, cond, chunk, callback, denoiser)
        return torch.cat(list(parts)) if n else torch.empty(0, *(shape or self.shape))

    @torch.no_grad()
    def chunks(
        self,
        starts: Sequence[int],
        n: int,
        seed: int,
        sampler: Sampler | None,
        shape: Sequence[int] | None,
        cond: Condition | None,
        chunk: int,
        callback: Callback | None = None,
        denoiser: DenoiserProtocol | None = None,
    ) -> Iterator[Tensor]:
        """The chunks of n samples that begin at given numbers, each computed at full size and cut to what is asked for.

        Full size, so that a sample's last bits do not depend on n or on where an interrupted run had stopped.
        """
        shape, sampler = tuple(shape or self.shape), sampler or self.sampler
        if not shape:
            raise InputError("The model does not know the shape of its fields: give shape=(channels, *grid).")
        self.check_cond(cond)
        denoiser = denoiser or self.generative
        for start in starts:
            rows = range(start, start + chunk)
            given = {name: _take(value, rows).to(self.device) for name, value in (cond or {}).items()}
            generator = Generators((seed, index, Stream.SAMPLE) for index in rows)
            like = torch.empty(0, device=self.device)
            given = self.condition(given)
            x = sampler(denoiser, (chunk, *shape), generator=generator, like=like, cond=given, callback=callback)
            yield self.restore(x, given)[: n - start].cpu()

    def log_prob(
        self,
        x: Float[Tensor, "batch channels *grid"],
        *,
        generator: Generators | None = None,
        flow: ProbabilityFlow = ProbabilityFlow(),  # noqa: B008 - immutable
        cond: Condition | None = None,
    ) -> Likelihood:
        """log p(x) in nats, the latent and the evaluations for each x, a batch in data units.

        The density is with respect to Lebesgue measure on the values of the grid, in data units. Quantised data have none until
        noise is added: see `scorefield.samplers.likelihood.bits_per_dimension`.

        Args:
            x: fields in data units.
            generator: one stream of probes per field; by default the probes of field i depend on i alone.
            flow: the solver's tolerance, the probes, the ends.
            cond: what the model is conditioned on.
        """
        x = x.to(self.device)
        z = self._own(self.normaliser(x))
        generator = generator or Generators((0, index, Stream.PROBE) for index in range(len(x)))
        found = flow.log_prob(self.generative, z, generator=generator, cond=cond)
        return found._replace(nats=found.nats + self.normaliser.log_det(x).to(found.nats))

    def encode(
        self,
        x: Float[Tensor, "batch channels *grid"],
        *,
        flow: ProbabilityFlow = ProbabilityFlow(),  # noqa: B008 - immutable
        cond: Condition | None = None,
    ) -> Float[Tensor, "batch channels *grid"]:
        """The latents z of fields in data units, of the law N(0, C) where x is of the model's."""
        return flow.encode(self.generative, self._own(self.normaliser(x.to(self.device))), cond=cond).x

    def decode(
        self,
        latent: Float[Tensor, "batch channels *grid"],
        *,
        temperature: float = 1.0,
        flow: ProbabilityFlow = ProbabilityFlow(),  # noqa: B008 - immutable
        cond: Condition | None = None,
    ) -> Float[Tensor, "batch channels *grid"]:
        """The fields of latents, in data units: the inverse of `encode`.

        Args:
            latent: of the law N(0, C) where the fields are to be of the model's; between two, `scorefield.samplers.interpolate`.
            temperature: multiplies the latents: below 1 more typical fields, above 1 rarer ones.
            flow: the solver's tolerance and the ends.
            cond: what the model is conditioned on.
        """
        latent = temperature * self._own(latent)
        return self.normaliser.inverse(flow.decode(self.generative, latent, cond=cond).x)


def has_learnt(normaliser: Normaliser) -> bool:
    """Whether it was fitted before; one with nothing to learn is fitted again at no cost."""
    return normaliser.fitted and any(True for _ in normaliser.buffers())


def _take(value: Tensor, rows: range) -> Tensor:
    """Rows of a condition; the last one again where a chunk reaches beyond it."""
    return value[torch.arange(rows.start, rows.stop).clamp(max=len(value) - 1)]
