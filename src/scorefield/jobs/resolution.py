"""Sampling at another resolution than that of training: the same domain on another grid, with what a sample is conditioned on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.data.fields import FieldDataset
from scorefield.data.functions import on_grid, span
from scorefield.data.source import Split
from scorefield.foundation import cosine, fourier
from scorefield.foundation.errors import InputError, brief
from scorefield.model import Model
from scorefield.run.verb import log
from scorefield.samplers import Continued, Finer

MEASURED = 512  # training fields that a spectrum is measured on
FAR = 10.0  # standard deviations of training, beyond which fields are in other units, or of another kind
SAME = 1e-6  # of the noise's mean mode on two grids, where it is one process


def fitted(
    beyond: Finer | None, model: Model, load: Callable[[Split], FieldDataset], grid: Sequence[int]
) -> Finer | None:
    """A way beyond the band with what it has to know of the training data; the default where none is asked for, see `_default`.

    Args:
        beyond: the way, where one is asked for.
        model: whose normaliser and noise they are seen by.
        load: the data of training, of which a split is read where it is needed.
        grid: that is drawn on.

    Raises:
        InputError: they are needed for what was asked for, and not at hand.
    """

    def fields() -> Tensor:
        try:
            train = load("train")
        except InputError as error:
            raise InputError(
                f"{type(beyond or Continued()).__name__} takes the spectrum from the training data, which are not at hand "
                f"({brief(error)}): give "
                '--beyond.spectrum \'{"exponent": ..., "bands": [...]}\', which `suggest --wiener` prints where they are.'
            ) from error
        return model.enter(train.gather(spread(len(train), MEASURED)))[0].cpu()

    if beyond is not None:
        return beyond.fitted(fields, model.sde.noise)
    return _default(model, fields, grid)


def _default(model: Model, fields: Callable[[], Tensor], grid: Sequence[int]) -> Finer | None:
    """`Continued` on a finer grid, where the noise is one process in modes of the grid and the new ones are the model's alone.

    Else none: what fields are conditioned on may know their finer modes, a draw in one evaluation has no noise level to filter
    by, and where the spectrum cannot be measured a warning says so.
    """
    trained, noise = model.shape[1:], model.sde.noise
    denoiser = model.generative
    if (
        all(n <= m for n, m in zip(grid, trained, strict=True))
        or denoiser.net.cond_channels
        or denoiser.precondition.one_step
    ):
        return None
    try:
        before, now = (float(noise.eigenvalues(points).flatten()[0]) for points in (trained, grid))
        noise.basis(len(grid))
    except InputError:  # diagonal in no modes
        return None
    if abs(now / before - 1) > SAME:
        return None
    try:
        return Continued().fitted(fields, noise)
    except InputError as error:
        log.warning(
            f"the modes that the training grid lacked are the network's own guess (--beyond Extrapolate), for {brief(error)}"
        )
        return None


def beyond_grid(beyond: Finer | None, model: Model, denoiser: DenoiserProtocol | None) -> DenoiserProtocol | None:
    """A denoiser, by default the model's own, that knows the modes beyond the training grid; as it is where there is no way."""
    return denoiser if beyond is None else beyond(denoiser or model.prior, model.shape[1:])


def spread(count: int, at_most: int) -> Tensor:
    """So many of the indices below a count, drawn at random but always the same, in order."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))[:at_most].sort().values


def grid_of(known: Sequence[int], resolution: Sequence[int]) -> tuple[int, ...]:
    """The grid that is asked for; of a single number, in the proportions of the known one.

    Args:
        known: the grid of training.
        resolution: points along the longest axis, or along each axis; none for the known grid.

    Raises:
        InputError: other proportions, which are another domain.
    """
    if not resolution:
        return tuple(known)
    wanted = tuple(resolution)
    if min(wanted) < 1 or len(wanted) not in (1, len(known)):
        numbers = "one number" if len(known) == 1 else f"one number, or {len(known)},"
        raise InputError(f"--resolution {' '.join(map(str, wanted))}: give {numbers} of points.")
    if len(wanted) == 1:
        scale = wanted[0] / max(known)
        grid = tuple(max(1, round(scale * points)) for points in known)
    else:
        grid = wanted
    check_domain(known, grid)
    return grid


def check_domain(known: Sequence[int], grid: Sequence[int]) -> None:
    """Refuse a grid whose cells, were it of the known domain, had other proportions: it is of another domain."""
    scales = [n / points for n, points in zip(grid, known, strict=True)]
    if any(abs(n - max(scales) * points) >= 1 for n, points in zip(grid, known, strict=True)):
        raise InputError(
            f"A grid of {'×'.join(map(str, grid))} is not the domain of {'×'.join(map(str, known))} on other points: a model "
            "knows functions on one domain; keep its proportions."
        )


def warn_of_mesh(model: Model, grid: Sequence[int]) -> None:
    """Say so where the noise is another process on another grid, as white noise is: there, less of it in every mode."""
    if tuple(grid) == model.shape[1:]:
        return

    def level(points: Sequence[int]) -> float:
        """The variance of the noise's mean over the domain, ⟨1, C 1⟩/N²."""
        one = torch.ones(1, 1, *points, dtype=torch.float64)
        return float(model.sde.noise.covariance(one).mean()) / math.prod(points)

    ratio = level(grid) / level(model.shape[1:])
    if not 0.5 < ratio < 2:
        log.warning(
            f"the noise of this model is another process on this grid: its large scales have {ratio:.2g} times the variance that "
            "they had in training. Train with scorefield.GaussianField to sample at any resolution."
        )


def conditions(fields: FieldDataset, rows: Tensor, grid: Sequence[int]) -> dict[str, Tensor]:
    """What samples are conditioned on: sample i on what goes with field i, over again where there are fewer, on a grid.

    Args:
        fields: those it goes with.
        rows: i of each.
        grid: points along each axis.

    Conditioning fields are taken for functions with no more modes than their grid has points, which is exact for the windows of
    `scorefield.functions.Windows`.
    """
    batch = fields.gather(rows % len(fields))
    cond = dict(batch.cond)
    if "field" in cond:
        resample = fourier.resample if fields.periodic else cosine.resample
        cond["field"] = resample(cond["field"], grid)
    if "coords" in cond:
        cond["coords"] = on_grid(cond["coords"], grid)
    return cond


def axes_on(
    axes: Mapping[str, np.ndarray], fields: int, known: Sequence[int], grid: Sequence[int]
) -> dict[str, np.ndarray]:
    """Coordinates along the axes of a grid, on another grid of the same domain: of its cells' middles where they are equally
    spaced. Others are left out, which a warning says.

    Args:
        axes: by their names.
        fields: how many there are: what is as long may be an axis of these, such as times, and is left out of another grid.
        known: the grid that they belong to.
        grid: that they are wanted on.
    """
    found = {}
    for name, values in axes.items():
        wanted = {m for n, m in zip(known, grid, strict=True) if n == len(values)}
        steps = np.diff(values.astype(np.float64))
        if wanted == {len(values)}:
            found[name] = values
        elif len(wanted) == 1 and len(values) != fields and np.allclose(steps, steps[0], rtol=1e-3, atol=0):
            (m,) = wanted
            width = len(values) * steps.mean() / m
            found[name] = values[0] - 0.5 * steps.mean() + width * (np.arange(m) + 0.5)
        else:
            log.warning("%s of --given is not equally spaced, or may belong to several axes: it is left out", name)
    return found


def directed(
    axes: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray], origin: str, grid: Sequence[int] = ()
) -> tuple[dict[str, np.ndarray], tuple[int, ...], tuple[str, ...]]:
    """Coordinates along the axes of a grid in the direction of those of training, which axes of its fields are turned for that,
    and what is odd about them, such as a domain of the same length elsewhere, one line each.

    Args:
        axes: by their names.
        trained: those of training, in the order of its axes; what `axes` lacks of them is not compared.
        origin: where `axes` are from.
        grid: points along each axis, as many as coordinates have to be.

    Raises:
        InputError: not equally spaced, or of a domain of another length, by more than a cell.
    """
    found, turned, odd = dict(axes), [], []
    for axis, (name, known) in enumerate(trained.items()):
        if name not in axes:
            continue
        values, what = axes[name], f"{name} of {origin}"
        points = grid[axis] if grid else len(values)
        lengths = [span(known, len(known), f"{name} of training"), span(values, points, what)]
        cell = max(length / len(one) for length, one in zip(lengths, (known, values), strict=True))
        if abs(lengths[0] - lengths[1]) > cell:
            raise InputError(
                f"{what} spans {lengths[1]:g}, and in training {lengths[0]:g}: a model knows functions on one domain; give "
                "fields of that, or train another model."
            )
        if (values[-1] < values[0]) != (known[-1] < known[0]):
            found[name] = values[::-1]
            turned.append(axis)
            odd.append(
                f"{what} runs the other way than in training: its fields are turned, and drawn as those of training"
            )
        if abs(values.mean() - known.mean()) > cell:
            ends = [f"{one.min():g} to {one.max():g}" for one in (values, known)]
            odd.append(f"{what} is {ends[0]}, and in training {ends[1]}: the model takes it for the same place")
    return found, tuple(turned), tuple(odd)


def warn_of_units(model: Model, field: Tensor) -> None:
    """Say so where what the network is given is far from all that it was trained on, as it is in other units."""
    seen = model.given({"field": field})["field"].cpu()
    if torch.equal(seen, field.to(seen).nan_to_num(0.0, 0.0, 0.0)):  # as it is: nothing is known of what training had
        return
    far, varies = float(seen.square().mean().sqrt()), float(seen.std()) if seen.numel() > 1 else 1.0
    if far > FAR or varies < 1 / FAR**2:
        log.warning(
            f"--given is {far:.2g} standard deviations of training from its mean, and varies by {varies:.2g} of them: "
            "is it in the units of training?"
        )


def given_by(
    fields: FieldDataset,
    n: int,
    grid: Sequence[int],
    load: Callable[[], FieldDataset],
    turned: Sequence[int] = (),
) -> tuple[dict[str, Tensor], str]:
    """Fields that n samples are conditioned on, sample i on field i, over again where there are fewer, on a grid; and a digest.

    What of them is not known (NaN) enters networks as 0, the mean of training where they standardise it, which a warning says.

    Args:
        fields: in the units of what the network was conditioned on.
        n: how many samples.
        grid: points along each axis.
        load: the training data, which say whether fields are periodic; called where they are brought onto another grid.
        turned: axes of the grid that run the other way than in training.

    Raises:
        InputError: nothing is known of a field, or not all of one that is to be brought onto another grid.
    """
    x = fields.gather(torch.arange(min(n, len(fields)))).x
    x = x.flip([axis + 2 for axis in turned]) if turned else x
    if bool((known := x.isfinite()).logical_not().any()):
        if bool((empty := ~known.flatten(1).any(1)).any()):
            raise InputError(
                f"--given: nothing is known of field {int(empty.nonzero()[0])}, which is all NaN: leave it out."
            )
        if tuple(x.shape[2:]) != tuple(grid):
            size = "×".join(map(str, grid))
            raise InputError(
                f"--given has points that are not known (NaN), and is not of the grid {size}: give it there."
            )
        share = 100 * float((~known).double().mean())
        log.warning(f"{share:.2g} % of --given is not known (NaN): it enters the network as 0 in its own units")
    content = sha256(repr((tuple(x.shape), len(fields))).encode() + x.numpy().tobytes()).hexdigest()
    if tuple(x.shape[2:]) != tuple(grid):
        x = (fourier.resample if load().periodic else cosine.resample)(x, grid)
    return {"field": x[torch.arange(n) % len(x)]}, content
