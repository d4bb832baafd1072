"""A first look at data: their facts, what would go wrong, and the scales a model of them needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Generator, Tensor

from scorefield.data.batch import Batch
from scorefield.data.fields import FieldDataset
from scorefield.data.loader import Sequential
from scorefield.data.manifest import class_lines
from scorefield.data.normalise import Identity, Normaliser, VectorUnits
from scorefield.data.picture import save_grid
from scorefield.data.statistics import largest_distance, measure
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import seed_of

EFFORT = 2**36  # multiplications spent on distances: a second or two
PICTURED = 64  # samples in a preview


@dataclass(frozen=True)
class Facts:
    """What `inspect` found. Statistics are in data units and over known, finite values.

    Args:
        n: the number of fields.
        shape: (channels, *grid).
        dtype: the number type in which they are stored.
        quantum: the step between neighbouring values; 0 for continuous data.
        classes: the number of classes; 0 without labels.
        names: of the classes.
        members: how many of the fields each class has.
        minimum: the smallest value.
        maximum: the largest.
        bad: how many known values are NaN or infinite.
        missing: the fraction of values that a mask hides.
        mean: per channel.
        std: per channel.
        sigma_data: the standard deviation of the normalised data about 0, for preconditioning; NaN if unknown.
        sigma_max: the largest distance between two normalised fields, for the largest noise level; NaN if unknown.
        compared: of how many fields all pairs were compared to find it; if fewer than n, it is a lower bound.
        warnings: what is likely to go wrong, one line each.
        metadata: what the files say about themselves, one line each.
        examples: a few fields, for the preview.
        data: what they are made of: files, sizes, modes, a digest, one line each.
        vector: the smallest and the largest value of each number that fields are conditioned on.
    """

    n: int
    shape: tuple[int, ...]
    dtype: str
    quantum: float
    classes: int
    names: tuple[str, ...]
    members: tuple[int, ...]
    minimum: float
    maximum: float
    bad: int
    missing: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    sigma_data: float
    sigma_max: float
    compared: int
    warnings: tuple[str, ...]
    metadata: tuple[str, ...]
    examples: Tensor = field(repr=False, compare=False)
    data: tuple[str, ...] = ()
    vector: tuple[tuple[float, float], ...] = ()

    def table(self) -> str:
        """The facts as text, one a line."""
        note = f" (all pairs of {self.compared} of {self.n} fields)" if self.compared < self.n else ""
        least = min((std for std in self.std if std > 0), default=0.0)
        rows = {
            "fields": f"{self.n} of shape {' × '.join(map(str, self.shape))}",
            "stored as": self.dtype + (f", step {self.quantum:g}" if self.quantum else ""),
            "classes": self._classes() if self.classes else "no labels",
            "range": f"{written(self.minimum, least, 6)} to {written(self.maximum, least, 6)}",
            "NaN or inf": str(self.bad),
            "masked": f"{self.missing:.1%}",
            "mean": shorten(self.mean, least),
            "std": shorten(self.std),
            "sigma_data": f"{self.sigma_data:.4g}",
            "sigma_max": f"{self.sigma_max:.4g}{note}",
        }
        if self.vector:
            ranges = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in self.vector[:4])
            count = f"{len(self.vector)} number{'s' if len(self.vector) > 1 else ''}"
            rows["vector"] = f"{count}: {ranges}{' …' if len(self.vector) > 4 else ''}"
        lines = [*(f"{name:<12}{value}" for name, value in rows.items()), *self.data]
        lines += [f"{'':<12}{note}" for note in self.metadata]
        return "\n".join(lines + [f"warning     {text}" for text in self.warnings])

    def _classes(self) -> str:
        """How many classes there are; the number, name and members of the first, below each other."""
        return "\n".join([str(self.classes), *(f"{'':<12}{line}" for line in class_lines(self.names, self.members))])

    def preview(self, path: Path | str) -> None:
        """Write a picture of some fields, spread evenly over the data."""
        save_grid(path, self.examples)


def inspect(
    fields: FieldDataset,
    normaliser: Normaliser,
    *,
    valid: FieldDataset | None = None,
    compare: int = 2000,
    seed: int = 0,
    workers: int = 0,
) -> Facts:
    """Look through all fields, up to three times.

    Args:
        fields: the data.
        normaliser: how they will be normalised; if it is not fitted, a copy is fitted to these fields.
        valid: held-out fields, looked through once for what is wrong with them; the facts are not of them.
        compare: among how many fields the largest distance is sought; fewer if they are large.
        seed: draws which ones.
        workers: how many processes read the data.
    """
    batches = Sequential(fields, workers=workers)
    members = torch.zeros(len(fields.classes), dtype=torch.int64)
    copies = Copies()
    vectors: list[Tensor] = []
    statistics = measure(collect(copies.counted(tally(batches, members)), vectors))
    n, pictured = len(fields), min(PICTURED, len(fields))
    examples = fields.gather(torch.arange(pictured) * n // pictured).x
    compared = min(compare, n, max(2, math.isqrt(EFFORT // examples[0].numel())))
    real = fields.dtype.startswith("complex") and not bool(statistics.std[1::2].any() or statistics.mean[1::2].any())
    warnings = [*fields.notes, *copies.warnings(), *warn(statistics.std, members, fields.classes, real=real)]
    warnings += [] if valid is None else held_out(valid, workers)
    if not fields.classes and "label" in fields.gather(torch.arange(1)).cond:
        warnings.append(
            "The labels have no names, so they are not counted here: give them, such as --data.classes [a,b]."
        )
    ranges, wrong = look_at(vectors)
    warnings += wrong
    try:
        own = Identity() if real else normaliser  # of magnitudes, half of the channels have no scale
        fitted = normaliser if normaliser.fitted else deepcopy(own).fit(batches)
        sigma_data = root_mean_square(fitted, batches)
        order = torch.randperm(n, generator=Generator().manual_seed(seed_of(seed)))[:compared].sort().values
        sigma_max = largest_distance(fitted, fields, order)
    except InputError as error:
        sigma_data = sigma_max = math.nan
        warnings.append(str(error))
    return Facts(
        n=n,
        shape=tuple(examples.shape[1:]),
        dtype=fields.dtype,
        quantum=fields.quantum,
        classes=len(fields.classes),
        names=tuple(fields.classes),
        members=tuple(members.tolist()),
        minimum=float(statistics.minimum.min()),
        maximum=float(statistics.maximum.max()),
        bad=statistics.bad,
        missing=1 - (float(statistics.count.sum()) + statistics.bad) / (n * examples[0].numel()),
        mean=tuple(statistics.mean.tolist()),
        std=tuple(statistics.std.tolist()),
        sigma_data=sigma_data,
        sigma_max=sigma_max,
        compared=compared,
        warnings=tuple(warnings),
        metadata=fields.metadata,
        examples=examples,
        vector=ranges,
    )


def tally(batches: Iterable[Batch], members: Tensor) -> Iterator[Batch]:
    """Pass batches on and count the members of each class, (classes) int, on the way."""
    for batch in batches:
        if len(members) and "label" in batch.cond:
            if int(batch.cond["label"].min()) < 0:
                raise InputError(f"There is a label {int(batch.cond['label'].min())}: number the classes from 0.")
            counts = batch.cond["label"].bincount(minlength=len(members))
            if len(counts) > len(members):
                raise InputError(
                    f"There is a label {len(counts) - 1} but only {len(members)} classes: name all classes."
                )
            members += counts
        yield batch


def collect(batches: Iterable[Batch], vectors: list[Tensor]) -> Iterator[Batch]:
    """Pass batches on and keep the numbers that they are conditioned on."""
    for batch in batches:
        if "vector" in batch.cond:
            vectors.append(batch.cond["vector"])
        yield batch


def look_at(vectors: list[Tensor]) -> tuple[tuple[tuple[float, float], ...], list[str]]:
    """The range of each number that fields are conditioned on, and what is wrong with them."""
    if not vectors:
        return (), []
    whole = torch.cat(vectors).double()
    low, high = whole.nan_to_num(math.inf).amin(0), whole.nan_to_num(-math.inf).amax(0)
    low, high = (torch.where(low > high, math.nan, bound) for bound in (low, high))  # where all are unknown
    ranges = tuple(zip(low.tolist(), high.tolist(), strict=True))
    unknown = int(whole.isnan().all(dim=1).sum())
    found = [f"The vector of {unknown} fields is unknown (NaN)."] if unknown else []
    try:
        VectorUnits(whole.shape[1]).fit([Batch(whole, {"vector": whole})])
    except InputError as error:
        found.append(str(error))
    return ranges, found


class Copies:
    """Counts fields that are copies of ones before."""

    def __init__(self) -> None:
        self.n, self.seen = 0, set[int]()

    def counted(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on and look at their fields on the way."""
        for batch in batches:
            self.n += len(batch)
            self.seen.update(hash(row.tobytes()) for row in batch.x.numpy())
            yield batch

    def warnings(self) -> list[str]:
        """How many there are."""
        found = self.n - len(self.seen)
        return (
            [f"{found} of {self.n} fields are copies of others: remove them, or count them as they are."]
            if found
            else []
        )


def held_out(fields: FieldDataset, workers: int) -> list[str]:
    """What is wrong with held-out fields."""
    members = torch.zeros(len(fields.classes), dtype=torch.int64)
    found = measure(tally(Sequential(fields, workers=workers), members))
    where = f"the first in {found.first_bad}: mask or replace them"
    return [f"{found.bad} known held-out values are NaN or infinite, {where}."] if found.bad else []


def warn(std: Tensor, members: Tensor, classes: tuple[str, ...], *, real: bool = False) -> list[str]:
    """What is likely to go wrong in training.

    Args:
        std: deviations (channels) in data units.
        members: how many fields each class has.
        classes: their names.
        real: whether the data are complex, and their imaginary parts 0 everywhere.
    """
    constant = [i for i in (std == 0).nonzero().flatten().tolist() if not (real and i % 2)]
    warnings = [f"Channel {i} is constant: a model cannot learn it." for i in constant]
    if real:
        warnings.append(
            "The imaginary part is 0 everywhere: a prior of complex images learns phases from train.augment "
            "scorefield.mri.RandomPhase, as in brain-t1-small. Scales are those without a normaliser."
        )
    spread = std[std > 0]
    if len(spread) and spread.max() > 100 * spread.min():
        warnings.append("Channels differ more than 100-fold in spread: normalise each by itself.")
    absent = [classes[i] for i in (members == 0).nonzero().flatten().tolist()]
    if absent and members.any():
        warnings.append(f"Classes without a field: {', '.join(absent[:8])}{' …' if len(absent) > 8 else ''}.")
    if members.any() and members.max() > 10 * members.clamp(min=1).min():
        warnings.append("The largest class is more than 10 times the smallest.")
    return warnings


def root_mean_square(normaliser: Normaliser, batches: Iterable[Batch]) -> float:
    """The standard deviation of normalised data about 0, over all channels."""
    normalised = measure(replace(batch, x=normaliser(batch.x)) for batch in batches).check()
    squares = normalised.squares + normalised.count * normalised.mean.square()
    return float((squares.sum() / normalised.count.sum()).sqrt())


def shorten(values: tuple[float, ...], spread: float = 0.0) -> str:
    """The first few of some numbers, with a digit more than their spread needs where that is known."""
    return ", ".join(written(value, spread, 4) for value in values[:8]) + (" …" if len(values) > 8 else "")


def written(value: float, spread: float, digits: int) -> str:
    """A number of at least so many digits, and as many as show what a small spread about it tells apart."""
    if 0 < spread < abs(value) < math.inf:
        digits = max(digits, 3 + math.ceil(math.log10(abs(value) / spread)))
    return f"{value:.{digits}g}"
