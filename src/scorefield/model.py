"""A score model: the law, the network, the units, and how it is best sampled. All that a checkpoint must give back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.core.classifier import Classifier
from scorefield.core.denoiser import ONE_STEP, Condition, Denoiser, DenoiserProtocol, Preconditioner
from scorefield.core.residual import ConditionalMean
from scorefield.core.schedule import time_of_noise
from scorefield.core.sde import SDE, expand_like
from scorefield.data.batch import Batch, Changed, Conditions
from scorefield.data.manifest import Manifest
from scorefield.data.normalise import Identity, Normaliser, VectorUnits
from scorefield.foundation.arithmetic import FULL, at_once, autocast_of
from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.precision import wide
from scorefield.foundation.random import Generators, Stream
from scorefield.nn.network import Network
from scorefield.samplers import DPMSolverPP2M, Sampler
from scorefield.samplers.learned_likelihood import LearnedLikelihood
from scorefield.samplers.likelihood import Likelihood, ProbabilityFlow
from scorefield.samplers.loop import Callback

LARGEST = 2**40  # numbers in one field


class Drawn(NamedTuple):
    """Samples in data units, and the same in model space."""

    x: Tensor
    z: Tensor


class Model(nn.Module):
    """A denoiser with the units of its data; or, where its network has classes, a noise-conditional classifier in its place.

    Fields, their noise and what they are conditioned on are in data units wherever they are given or returned. In model space
    are x_t, scores and latents alone.

    Args:
        sde: the law of x_t in model space.
        net: the network F.
        precondition: the coefficients around F.
        normaliser: between data units and model space.
        predictors: the same for the field that x is conditioned on, which is 0 where it is not known; null to leave it as it is.
        mean: a mean m(cond) that is subtracted from x in model space, so that only the rest is drawn; null for none.
        sampler: how samples are drawn where no other way is given.
        shape: (channels, *grid) of the fields; taken from the data in training.

    Attributes:
        manifest: what the data of training are made of; None where that is not known.
        drawn_in: the precision in which `draw` and `sample` evaluate the network, 32-true or bf16-mixed.
        knows_none: whether the network may have learnt to do without its class or vector, by `DropLabel`.

    Raises:
        InputError: a shape that no field has, or noise labels that the network does not take.
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
        entries = max(net.vector, 0 if mean is None else mean.vector)
        self.vectors = VectorUnits(entries) if entries else None
        self.register_buffer("template", torch.empty(0, dtype=torch.uint8))
        self.sampler = sampler
        self.shape = tuple(shape)
        if self.shape and (min(self.shape) < 1 or math.prod(self.shape) > LARGEST):
            raise InputError(f"model.shape is {brief(self.shape)}: give (channels, *grid), or leave it to the data.")
        self.manifest: Manifest | None = None
        self.drawn_in: str = FULL
        self.knows_none = True
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
    def precision(self) -> torch.dtype:
        """Of what is in model space: the network's own, or float32 where that is half precision, in which only F is computed."""
        return wide(self.denoiser.net.dtype)

    @property
    def labels(self) -> int:
        """How many classes the network tells apart; 0 without any."""
        return self.denoiser.net.labels

    @property
    def class_names(self) -> tuple[str, ...]:
        """The name of each class in the data of training, none where they are not known; a network may have room for more."""
        names = () if self.manifest is None else self.manifest.classes
        return names if len(names) <= (self.labels or self.classes) else ()

    @property
    def vector(self) -> int:
        """How many entries `cond["vector"]` has; 0 where the network takes none."""
        return 0 if self.vectors is None else self.vectors.entries

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

    @property
    def prior(self) -> Denoiser:
        """The denoiser at every noise level: of a density. Raises InputError where the model draws in one step, and has none."""
        if self.denoiser.precondition.one_step:
            raise InputError(ONE_STEP)
        return self.generative

    @property
    def stepwise(self) -> Sampler:
        """How p(x | y) is drawn from where no other way is given: as p(x) is; of a flow map, which only its x̂ guides, in 18 steps
        of DPM++ 2M SDE.
        """
        return Sampler(18, DPMSolverPP2M(eta=1.0)) if self.sampler.step.jumps else self.sampler

    def check_sampler(self, sampler: Sampler) -> None:
        """Raise InputError where the sampler takes more steps than the one in which the model draws, or jumps where it cannot."""
        once = sampler.steps == 1 and sampler.denoise and sampler.corrector is None
        if self.denoiser.precondition.one_step and not once:
            raise InputError(ONE_STEP)
        if sampler.step.jumps and not self.denoiser.net.jumps:
            raise InputError(
                "Jump is for a flow map, which this model is not: scorefield train flow-map --init RUN makes one of it."
            )

    def check_cond(self, cond: Condition | None, n: int | None = None) -> None:
        """Raise InputError where the network needs a field that `cond` lacks, knows no such class, or makes no fields.

        Args:
            cond: in data units.
            n: for how many fields it has to be, if that is known.
        """
        channels, given = self.generative.net.cond_channels, cond or {}
        if channels and "field" not in given:
            advice = "take `scorefield downscale`, `sample --given valid`, or in Python cond={'field': ...}"
            raise InputError(f"The network is conditioned on a field of {channels} channels: {advice}.")
        if channels and given["field"].shape[1] != channels:
            raise InputError(f"The network is conditioned on {channels} channels, not on {given['field'].shape[1]}.")
        if wrong := next((name for name, value in given.items() if n is not None and len(value) != n), None):
            raise InputError(f"cond has {len(given[wrong])} of {wrong} for {n} fields: give one for each.")
        if self.labels and "label" in given and len(given["label"]):
            low, high = (int(label) for label in torch.aminmax(given["label"]))
            if low < 0 or high >= self.labels:
                wrong_one = low if low < 0 else high
                raise InputError(f"There is no class {wrong_one}: give labels from 0 to {self.labels - 1}.")

    def asked(
        self, cond: Mapping[str, Any] | None, n: int, grid: Sequence[int] = (), other: DenoiserProtocol | None = None
    ) -> dict[str, Tensor]:
        """cond as a caller gives it, as tensors: a single label is that of all, and labels may be a list.

        Raises InputError for what the network does not take, or what `check_cond` refuses.

        Args:
            cond: in data units.
            n: of how many fields.
            grid: of the fields, where it is known.
            other: a denoiser to use instead of the network, which may take what that does not.
        """
        given = {name: torch.as_tensor(value) for name, value in (cond or {}).items()}
        takes = self._takes(self.generative.net)
        for name, value in given.items():
            if name in takes and not takes[name] and other is None:
                raise InputError(f"The network takes no {name}: leave cond[{name!r}] out.")
            if name not in takes and (near := get_close_matches(name, takes)):
                raise InputError(f"cond has {brief(repr(name))}, which is unknown: is it {near[0]!r}?")
            if value.ndim == 0 and name != "label":
                raise InputError(f"cond[{name!r}] is a single number: give a batch of {n}.")
        if "label" in given:
            label = given["label"]
            if label.is_floating_point() or label.is_complex() or label.dtype == torch.bool or label.ndim > 1:
                kind = f"{str(label.dtype).removeprefix('torch.')} of shape {tuple(label.shape)}"
                raise InputError(f"cond['label'] is {kind}: give the whole number of a class for each field.")
            given["label"] = label.expand(n) if label.ndim == 0 else label
        if "field" in given and grid and given["field"].shape[2:] != (*grid,):
            sizes = f"{tuple(given['field'].shape[2:])}, and x is on one of {tuple(grid)}"
            raise InputError(f"cond['field'] is on a grid of {sizes}: give both on the same grid.")
        self.check_cond(given, n)
        for name, lacks in (
            ("label", self.labels and "label" not in given),
            ("vector", self.vector and "vector" not in given),
        ):
            if lacks and not self.knows_none and other is None:
                raise InputError(
                    f"The network has learnt each field's {name}, and never to do without: give cond[{name!r}]."
                )
        return given

    @torch.no_grad()
    def score(
        self,
        x: Float[Tensor, "batch channels *grid"],
        t: Tensor | float | None = None,
        *,
        label: Tensor | None = None,
        cond: Condition | None = None,
    ) -> Float[Tensor, "batch channels *grid"]:
        """C ∇log p(x_t) at x_t = x, in model space: a field of data has no noise level that it would be x_t of.

        Args:
            x: x_t in model space, such as α z + σ ξ with the z of `enter`.
            t: times in [0, 1], shape () or (batch).
            label: noise labels in the network's own convention (an index, for tabulated models) instead of t.
            cond: what the model is conditioned on, in data units as everywhere.
        """
        cond = self.asked(cond, len(x), x.shape[2:])
        if label is not None and t is None:
            t = self.denoiser.precondition.label.invert(self.sde.schedule, label.double())
        elif t is None or label is not None:
            raise InputError("score needs either t or label, not both and not neither.")
        times = torch.as_tensor(t, dtype=None if isinstance(t, Tensor) else torch.float64)
        if label is None and not bool(((times >= 0) & (times <= 1)).all()):
            raise InputError(f"score takes times t from 0 to 1, not {brief(times.tolist())}.")
        return self.prior.score(self._own(x), times, self.given(cond))

    # ------------------------------------------------------------------------------------------ data units, model space
    def enter(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """z and cond in model space, of x and cond in data units: the only way in, and `leave` the only way out.

        z is x normalised, without the mean where the model has one, 0 where x is not known or has no noise. Of cond, `field` is
        in the units of its own normaliser and 0 where it is NaN, `vector` is standardised entry by entry and NaN where it is;
        anything else stays as it is. Both are on the model's device and in its `precision`.
        """
        inside = self.prepare(batch)
        return inside.x, dict(inside.cond)

    def leave(self, z: Tensor, cond: Condition) -> Tensor:
        """x in data units, of z and cond in model space, in float32 at least; in float64 where the units need it.

        NaN where there is no noise, outside the region of a `MaskedField`: fields are not known there.
        """
        z = z.to(self.device, torch.promote_types(z.dtype, self.precision))
        x = self.normaliser.inverse(z if self.mean is None else self.mean.add(z, cond))
        if (inside := self.sde.noise.support(x.shape[2:])) is not None:
            x = x.where(inside.to(x.device), math.nan)
        return x.to(torch.promote_types(z.dtype, self.normaliser.precision))

    def prepare(self, batch: Batch, *, fitted: bool = False) -> Batch:
        """A batch in data units as the denoiser learns it: x and cond as they `enter`, y and the noise in the units of z.

        Args:
            batch: in data units.
            fitted: whether the model was fitted to these fields: then the mean is that of the others.
        """
        inside = self._in_units(batch)
        inside = inside if self.mean is None else self.mean.subtract(inside, fitted=fitted)
        return replace(inside, x=self.sde.noise.within(inside.x.to(self.precision)))

    def _in_units(self, batch: Batch) -> Batch:
        """A batch in model space before the mean is subtracted, without what the model takes none of."""
        batch = replace(batch, cond=self.taken(batch.cond)).to(self.device)
        x = batch.x.to(torch.promote_types(batch.x.dtype, self.precision))
        return replace(batch, x=x, cond=self.given(batch.cond)).normalised(self.normaliser)

    def taken(self, cond: Condition) -> dict[str, Tensor]:
        """Of what data come with, all but the fields, labels and vectors that the model takes none of."""
        takes = self._takes(self.denoiser.net)
        return {name: value for name, value in cond.items() if takes.get(name, True)}

    def _takes(self, net: Network) -> dict[str, bool]:
        """Whether the model takes a field, a label, which a classifier learns from, and a vector."""
        return {
            "field": net.cond_channels > 0 or self.mean is not None,
            "label": (self.labels or self.classes) > 0,
            "vector": self.vector > 0,
        }

    def given(self, cond: Condition | None) -> dict[str, Tensor]:
        """cond in data units as the network is given it."""
        given = dict(cond or {})
        if self.vectors is not None and "vector" in given:
            given["vector"] = self.vectors(given["vector"])
        given = {name: value.to(self.device) for name, value in given.items()}
        if "field" in given:
            field = given["field"].to(torch.promote_types(given["field"].dtype, self.precision))
            given["field"] = self.predictors(field).nan_to_num(0.0, 0.0, 0.0)
        return {name: value.to(self.precision) if value.is_floating_point() else value for name, value in given.items()}

    def log_det(self, x: Float[Tensor, "batch channels *grid"]) -> Float[Tensor, " batch"]:
        """log |det ∂z/∂x| of the way in at x in data units, summed over all elements of each field that have noise."""
        x = x.to(self.device, torch.promote_types(x.dtype, self.precision))
        if (inside := self.sde.noise.support(x.shape[2:])) is not None:
            x = x[..., inside.to(x.device)]
        found = self.normaliser.log_det(x)
        return found if self.mean is None else found + self.mean.residual.log_det(x)

    def _whole(self, x: Tensor, cond: Condition | None) -> tuple[Tensor, dict[str, Tensor]]:
        """`enter` for fields of which all has to be known."""
        z, given = self.enter(Batch(x, self._check_fields(x, cond)))
        if not bool(z.isfinite().all()):
            raise InputError("Fields that are known in part have no density and no latent: give fields without NaN.")
        return z, given

    def _check_fields(self, x: Tensor, cond: Condition | None) -> dict[str, Tensor]:
        """What fields are conditioned on; refuse what is no batch of this model's fields."""
        if x.ndim != 2 + len(self.shape[1:] or x.shape[2:]) or len(x) < 1:
            raise InputError(
                f"The model takes a batch (n, channels, *grid) of at least one field, not {tuple(x.shape)}."
            )
        return self.asked(cond, len(x), x.shape[2:])

    def fixed(self) -> list[tuple[str, nn.Module]]:
        """What is not trained but stored, by the names that it has in a checkpoint."""
        parts: list[tuple[str, nn.Module]] = [("normaliser", self.normaliser), ("predictors", self.predictors)]
        parts += [] if self.mean is None else [("mean", self.mean)]
        return parts if self.vectors is None else [*parts, ("vector", self.vectors)]

    def fit(self, batches: Iterable[Batch]) -> None:
        """Fit all that is to be fitted to training data, in data units: the units first, then what the mean leaves.

        Raises:
            InputError: fields that are known where there is no noise, or none to condition on that have units to be found.
        """
        self._check_region(next(iter(batches), None))
        if not has_learnt(self.normaliser):
            self.normaliser.fit(batches)
        if not has_learnt(self.predictors):
            self.predictors.fit(Conditions(batches))
        if self.vectors is not None and not self.vectors.fitted:
            self.vectors.fit(batches)
        if self.mean is not None:
            self.mean.fit(Changed(batches, self._in_units))

    def _check_region(self, batch: Batch | None) -> None:
        """Refuse fields that are known where the noise is not."""
        if batch is None or (inside := self.sde.noise.support(batch.x.shape[2:])) is None:
            return
        known = batch.x.isfinite() if batch.mask is None else batch.mask.bool().expand_as(batch.x)
        if beyond := int((known & ~inside).flatten(2).any(2).sum()):
            raise InputError(
                f"{beyond} of the first {known.flatten(2)[:, :, 0].numel()} fields are known outside the region of the noise, "
                "where nothing is drawn: set them to NaN there, or take a noise whose region holds them, by suggest --region."
            )

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
            cond: what the model is conditioned on, in data units.
            chunk: how many are computed at once.

        Raises:
            InputError: a σ that is no level of the model's schedule, or that the normaliser makes uneven.
        """
        given = self._check_fields(y, cond)
        if chunk < 1 or not bool(y.isfinite().all()):
            raise InputError("denoise needs chunk >= 1 and fields of finite values, of which none is missing.")
        levels = torch.as_tensor(noise, dtype=self.precision).expand(len(y))
        whole = self.prepare(Batch(y, given, noise=levels))
        z, t = whole.x, time_of_noise(self.sde.schedule, cast(Tensor, whole.noise))
        found = []
        for rows in torch.arange(len(z)).split(chunk):
            alpha = expand_like(self.sde.schedule.alpha(t[rows]), z)
            part = {name: value[rows] for name, value in whole.cond.items()}
            found.append(self.leave(self.prior(alpha * z[rows], t[rows], part), part).cpu())
        return torch.cat(found)

    def _own(self, x: Tensor) -> Tensor:
        """x in model space where the network is, in its precision."""
        return x.to(self.device, self.precision)

    @torch.no_grad()
    def draw(
        self,
        generator: Generators,
        shape: Sequence[int],
        *,
        sampler: Sampler | None = None,
        cond: Condition | None = None,
        denoiser: DenoiserProtocol | None = None,
        callback: Callback | None = None,
    ) -> Drawn:
        """A sample for each of some streams of noise: what `sample` draws chunk by chunk, for jobs that name their own.

        Args:
            generator: one stream for each sample.
            shape: (channels, *grid).
            sampler: another than the model's own.
            cond: what to condition on, in data units, a batch of as many.
            denoiser: one to sample with instead of the model's own.
            callback: called with (level, t, x_t) at every level, in model space.
        """
        given, like = self.given(cond), torch.empty(0, device=self.device, dtype=self.precision)
        own, size = sampler or self.sampler, (len(generator), *shape)
        self.check_sampler(own)
        with autocast_of(self.drawn_in, self.device):
            z = own(denoiser or self.generative, size, generator=generator, like=like, cond=given, callback=callback)
        return Drawn(self.leave(z, given), z)

    def example(self, n: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise and conditions in model space such as the network takes, for trials of how long it needs."""
        net, shape = self.denoiser.net, (n, *self.shape)
        cond = {"label": torch.full((n,), -1, device=self.device)} if net.labels else {}
        if net.cond_channels:
            cond["field"] = torch.zeros(n, net.cond_channels, *self.shape[1:], device=self.device, dtype=self.precision)
        if net.vector:
            cond["vector"] = torch.zeros(n, net.vector, device=self.device, dtype=self.precision)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, self.precision), cond

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        sampler: Sampler | None = None,
        shape: Sequence[int] | None = None,
        cond: Condition | None = None,
        chunk: int | None = None,
        callback: Callback | None = None,
        denoiser: DenoiserProtocol | None = None,
    ) -> Float[Tensor, "n channels *grid"]:
        """n samples in data units. Sample i depends on (seed, i) alone, of models of the same precision.

        Args:
            n: how many.
            seed: of the draws.
            sampler: another than the model's own.
            shape: another (channels, *grid) than that of the training data.
            cond: what to condition on, in data units, a batch of n.
            chunk: how many are computed at once, by default by n and by grid; another size agrees to about 1e-4, not bitwise.
            callback: called with (level, t, x_t) at every level of every chunk, in model space.
            denoiser: one to sample with instead of the model's own, which it usually wraps (`scorefield.guidance`).
        """
        if chunk is None:
            chunk = at_once(n, (shape or self.shape)[1:], self.device)
        if n < 0 or chunk < 1:
            raise InputError(f"sample needs n >= 0 and chunk >= 1, not {n} and {chunk}.")
        cond = self.asked(cond, n, (shape or self.shape)[1:], denoiser)
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
        self.check_cond(cond, n)
        for start in starts:
            rows = range(start, start + chunk)
            given = {name: _take(value, rows) for name, value in (cond or {}).items()}
            generator = Generators((seed, index, Stream.SAMPLE) for index in rows)
            drawn = self.draw(generator, shape, sampler=sampler, cond=given, denoiser=denoiser, callback=callback)
            yield drawn.x[: n - start].cpu()

    def log_prob(
        self,
        x: Float[Tensor, "batch channels *grid"],
        *,
        generator: Generators | None = None,
        flow: ProbabilityFlow | LearnedLikelihood = ProbabilityFlow(),  # noqa: B008 - immutable
        cond: Condition | None = None,
    ) -> Likelihood:
        """log p(x) in nats, the latent and the evaluations for each x, a batch in data units.

        The density is with respect to Lebesgue measure on the values of the grid, in data units. Quantised data have none until
        noise is added: see `scorefield.samplers.likelihood.bits_per_dimension`.

        Args:
            x: fields in data units.
            generator: one stream of probes per field; by default the probes of field i depend on i alone.
            flow: the solver's tolerance, the probes, the ends; or a path and a head that were fitted to the model.
            cond: what the model is conditioned on, in data units.
        """
        z, given = self._whole(x, cond)
        generator = generator or Generators((0, index, Stream.PROBE) for index in range(len(x)))
        found = flow.log_prob(self.prior, z, generator=generator, cond=given)
        return found._replace(nats=found.nats + self.log_det(x).to(found.nats))

    def encode(
        self,
        x: Float[Tensor, "batch channels *grid"],
        *,
        flow: ProbabilityFlow = ProbabilityFlow(),  # noqa: B008 - immutable
        cond: Condition | None = None,
    ) -> Float[Tensor, "batch channels *grid"]:
        """The latents z of fields in data units, of the law N(0, C) where x is of the model's."""
        z, given = self._whole(x, cond)
        return flow.encode(self.prior, z, cond=given).x

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
            cond: what the model is conditioned on, in data units.
        """
        given = self.given(self.asked(cond, len(latent), latent.shape[2:]))
        return self.leave(flow.decode(self.prior, temperature * self._own(latent), cond=given).x, given)


def has_learnt(normaliser: Normaliser) -> bool:
    """Whether it was fitted before; one with nothing to learn is fitted again at no cost."""
    return normaliser.fitted and any(True for _ in normaliser.buffers())


def _take(value: Tensor, rows: range) -> Tensor:
    """Rows of a condition; the last one again where a chunk reaches beyond it."""
    return value[torch.arange(rows.start, rows.stop).clamp(max=len(value) - 1)]
