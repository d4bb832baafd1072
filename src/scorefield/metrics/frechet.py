"""Fréchet distance between the Gaussians of two sets of features, in float64."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError

SINGLE = 1e-5  # of the largest eigenvalue: how far below 0 rounding to float32 may bring the smallest
CUSTOMARY = 10_000  # fewer samples than this give a distance that is visibly biased upward


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean (dim) and covariance (dim, dim) of n features, float64, and the hash of what computed the features."""

    n: int
    mean: Tensor
    covariance: Tensor
    features: str = ""

    @property
    def hash(self) -> str:
        """SHA-256 of the numbers, to say in a result what it was compared with."""
        digest = hashlib.sha256(f"{self.n} {self.features}".encode())
        for tensor in (self.mean, self.covariance):
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def frechet_distance(first: Moments, second: Moments) -> float:
    """‖μ₁ - μ₂‖² + Tr(C₁ + C₂ - 2 (C₁C₂)^½), the squared 2-Wasserstein distance of two Gaussians (Heusel et al. 2017, eq. 6).

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
    """R with R Rᵀ = C; eigenvalues within rounding of 0, and those that a covariance kept in float32 has below it, are 0."""
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[-1].clamp(min=0) * len(values) * torch.finfo(values.dtype).eps
    if values[0] < -SINGLE * values[-1].abs():
        raise InputError(f"The covariance has an eigenvalue {float(values[0]):g} below 0: its file is damaged.")
    return vectors * values.where(values > floor, 0.0).sqrt()


def note_on(n: int, dim: int) -> str:
    """What the number of samples does to the distance."""
    if n <= dim:
        return f"n = {n} ≤ {dim} dimensions: singular covariance, strongly biased upward"
    return f"n = {n} < {CUSTOMARY}: biased upward, compare at equal n only" if n < CUSTOMARY else ""
