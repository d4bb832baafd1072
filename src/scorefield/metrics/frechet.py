"""Fréchet distance between the Gaussians of two sets of features, from moments that are summed in float64."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics import Metric

from scorefield.errors import InputError
from scorefield.files import replacing

CUSTOMARY = 10_000  # fewer samples than this give a distance that is visibly biased upward


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (dim) and covariance (dim, dim) of n features, float64, and the hash of what computed the features."""

    n: int
    mean: Tensor
    covariance: Tensor
    features: str = ""

    @classmethod
    def of(cls, batches: Iterable[Float[Tensor, "_ dim"]], features: str = "") -> Moments:
        """The moments of all features in some batches, about the mean of the first batch, which loses no digits."""
        n, origin, total, outer = 0, None, None, None
        for batch in batches:
            x = batch.detach().double()
            if origin is None or total is None or outer is None:
                origin = x.mean(0)
                total, outer = torch.zeros_like(origin), origin.new_zeros(len(origin), len(origin))
            x = x - origin
            n, total, outer = n + len(x), total + x.sum(0), outer + x.T @ x
        if origin is None or total is None or outer is None:
            raise InputError("There are no features to take moments of: give at least two.")
        return cls.from_sums(n, total, outer, origin, features)

    @classmethod
    def from_sums(cls, n: int, total: Tensor, outer: Tensor, origin: Tensor, features: str = "") -> Moments:
        """From n, Σ(x - o) and Σ(x - o)(x - o)ᵀ, where o is any origin near the mean."""
        if n < 2:
            raise InputError(f"A covariance cannot be computed from {n} features: give at least two.")
        offset = total / n
        covariance = (outer - n * torch.outer(offset, offset)) / (n - 1)
        return cls(n, origin + offset, (covariance + covariance.T) / 2, features)

    @property
    def hash(self) -> str:
        """SHA-256 of the numbers, to say in a result what it was compared with."""
        digest = hashlib.sha256(f"{self.n} {self.features}".encode())
        for tensor in (self.mean, self.covariance):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path | str) -> None:
        """Write to a .safetensors file, which appears whole or not at all."""
        about = {"n": self.n, "features": self.features}
        tensors = {"mean": self.mean.cpu().contiguous(), "covariance": self.covariance.cpu().contiguous()}
        with replacing(Path(path)) as temporary:
            save_file(tensors, temporary, {"moments": json.dumps(about)})

    @classmethod
    def load(cls, path: Path | str) -> Moments:
        """Read what `save` wrote."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["moments"])
                return cls(about["n"], file.get_tensor("mean"), file.get_tensor("covariance"), about["features"])
        except (OSError, SafetensorError, KeyError) as error:
            raise InputError(
                f"{path} does not hold moments of features ({error!r}): make it by Moments.save."
            ) from error


class Frechet(NamedTuple):
    """A Fréchet distance and what it was computed from.

    Args:
        distance: ‖μ₁ - μ₂‖² + Tr(C₁ + C₂ - 2 (C₁C₂)^½).
        n: the number of samples.
        n_reference: the number of features in the reference.
        reference: the hash of the reference.
        note: what limits the meaning of the figure; empty if nothing does.
    """

    distance: float
    n: int
    n_reference: int
    reference: str
    note: str


class FrechetDistance(Metric):
    """Fréchet distance of features to a reference (Heusel et al. 2017, eq. 6), streamed; distributed = one process.

    Args:
        reference: the moments of the features of the data.
    """

    higher_is_better = False
    full_state_update = False
    n: Tensor
    origin: Tensor
    total: Tensor
    outer: Tensor

    def __init__(self, reference: Moments) -> None:
        super().__init__()
        self.reference = reference
        dim = len(reference.mean)
        self.register_buffer("origin", reference.mean.double(), persistent=False)
        self.add_state("n", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, features: Float[Tensor, "batch dim"]) -> None:
        """Add the features of some samples."""
        if features.ndim != 2 or features.shape[1] != len(self.total):
            expected = f"(batch, {len(self.total)})"
            raise InputError(
                f"Features are {tuple(features.shape)}, the reference has {expected}: use the same features."
            )
        x = features.detach().double() - self.origin
        self.n += len(x)
        self.total += x.sum(0)
        self.outer += x.T @ x

    def moments(self) -> Moments:
        """The moments of all features so far, of this process."""
        return Moments.from_sums(int(self.n), self.total, self.outer, self.origin, self.reference.features)

    def compute(self) -> Frechet:
        """The distance, over all processes."""
        moments, reference = self.moments(), self.reference
        distance = frechet_distance(moments, reference)
        n, m = moments.n, reference.n
        return Frechet(distance, n, m, reference.hash, note_on(min(n, m), len(reference.mean)))


def frechet_distance(first: Moments, second: Moments) -> float:
    """Squared 2-Wasserstein distance of two Gaussians, ‖μ₁ - μ₂‖² + Tr(C₁ + C₂ - 2 (C₁C₂)^½).

    The trace of the root is the sum of the singular values of C₁^½ C₂^½. The roots come from symmetric eigenproblems,
    which are stable for singular covariances, where a matrix square root is not.
    """
    if first.mean.shape != second.mean.shape:
        dims = f"{len(first.mean)} and {len(second.mean)}"
        raise InputError(f"Features of {dims} dimensions cannot be compared: compute both by the same features.")
    if first.features and second.features and first.features != second.features:
        raise InputError("The moments are of different features: compute both by the same features.")
    mean = (first.mean - second.mean.to(first.mean)).square().sum()
    covariances = first.covariance, second.covariance.to(first.covariance)
    roots = [root(covariance) for covariance in covariances]
    cross = torch.linalg.svdvals(roots[0].T @ roots[1]).sum()
    return float(mean + covariances[0].trace() + covariances[1].trace() - 2 * cross)


def root(covariance: Tensor) -> Tensor:
    """R with R Rᵀ = C; eigenvalues within rounding of 0 are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    if values[0] < -1e3 * floor:
        raise InputError(f"The covariance has an eigenvalue {float(values[0]):g} below 0: its file is damaged.")
    return vectors * values.where(values > floor, 0.0).sqrt()


def note_on(n: int, dim: int) -> str:
    """What the number of samples does to the distance."""
    if n <= dim:
        return f"n = {n} ≤ {dim} dimensions: singular covariance, strongly biased upward"
    return f"n = {n} < {CUSTOMARY}: biased upward, compare at equal n only" if n < CUSTOMARY else ""
