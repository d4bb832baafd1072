"""What is kept of the features of a set of samples: moments in float64, some features, sums of class probabilities.

States of parts of a set are merged into the state of the whole, so that a set is streamed, resumed and shared between processes.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.files import replacing
from scorefield.metrics.frechet import Moments

FORMAT = 1
SPLITS = 10  # of the Inception score, customary
CLASS_SUMS = ("class_counts", "class_entropies", "class_sums")
BROKEN = (OSError, SafetensorError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile)


class InceptionScore(NamedTuple):
    """The Inception score: mean and standard deviation over the splits."""

    mean: float
    std: float
    splits: int


@dataclass(eq=False)
class Statistics:
    """The state of a set of samples. Merging the states of its parts, in order, gives that of the whole.

    Attributes:
        features: hash of what computed the features.
        keep: so many features are kept, those of the first samples.
        facts: what else is reported with the figures: of the data, the preprocessing, where they came from.
        n: the number of samples; 0 for moments of another program that does not tell.
        mean: of the features (dim), float64.
        covariance: (dim, dim), float64; zeros for one sample.
        kept: features of the first samples, in parts (_, dim), float32 or float64.
        class_counts: samples in each split (splits); sample i is in split i mod splits.
        class_entropies: Σ p log p over samples and classes (splits), nats.
        class_sums: Σ p over samples (splits, classes).
    """

    features: str = ""
    keep: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    n: int = 0
    mean: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float64))
    covariance: Tensor = field(default_factory=lambda: torch.empty(0, 0, dtype=torch.float64))
    kept: list[Tensor] = field(default_factory=list)
    class_counts: Tensor = field(default_factory=lambda: torch.zeros(SPLITS, dtype=torch.int64))
    class_entropies: Tensor = field(default_factory=lambda: torch.zeros(SPLITS, dtype=torch.float64))
    class_sums: Tensor = field(default_factory=lambda: torch.zeros(SPLITS, 0, dtype=torch.float64))

    def update(
        self, x: Float[Tensor, "batch dim"], probabilities: Float[Tensor, "batch classes"] | None = None, start: int = 0
    ) -> None:
        """Add the features of some samples, and their class probabilities.

        Args:
            x: the features.
            probabilities: of classes.
            start: the number of the first of them in the whole set, which decides their splits.
        """
        values = x.detach().double().cpu()
        mean = values.mean(0)
        part = Statistics(self.features, self.keep, n=len(x), mean=mean)
        part.covariance = (values - mean).T @ (values - mean) / max(1, len(x) - 1)
        part.kept = [x.detach().cpu().to(torch.promote_types(x.dtype, torch.float32))]
        if probabilities is not None:
            p = probabilities.detach().double().cpu()
            split = torch.arange(start, start + len(p)) % SPLITS
            part.class_counts = split.bincount(minlength=SPLITS)
            part.class_entropies.index_add_(0, split, torch.special.xlogy(p, p).sum(1))
            part.class_sums = p.new_zeros(SPLITS, p.shape[1]).index_add_(0, split, p)
        self.merge(part)

    def merge(self, other: Statistics) -> None:
        """Add the state of the samples that come next (Chan et al. 1983, eq. 2.1, for matrices)."""
        if other.n == 0:
            return
        if self.features != other.features or (self.n and self.mean.shape != other.mean.shape):
            raise InputError("Statistics of different features cannot be merged: compute all by the same features.")
        if self.n == 0:
            self.mean, self.covariance = torch.zeros_like(other.mean), torch.zeros_like(other.covariance)
            self.class_sums = torch.zeros_like(other.class_sums)
        n, shift = self.n + other.n, other.mean - self.mean
        scatters = [part.covariance * max(0, part.n - 1) for part in (self, other)]
        between = torch.outer(shift, shift) * (self.n * other.n / n)
        self.covariance = (scatters[0] + scatters[1] + between) / max(1, n - 1)
        self.mean = self.mean + shift * (other.n / n)
        self.n = n
        room = max(0, self.keep - sum(map(len, self.kept)))
        self.kept.append(other.vectors[:room])
        self.class_counts = self.class_counts + other.class_counts
        self.class_entropies = self.class_entropies + other.class_entropies
        self.class_sums = self.class_sums + other.class_sums

    @property
    def counted(self) -> bool:
        """Whether it is known of how many fields these are the moments."""
        return self.n > 0

    @property
    def moments(self) -> Moments:
        """Mean and covariance."""
        if self.n == 1 or len(self.mean) == 0:
            raise InputError(f"A covariance cannot be computed from {self.n} features: give at least two.")
        return Moments(self.n, self.mean, self.covariance, self.features)

    @property
    def vectors(self) -> Float[Tensor, "kept dim"]:
        """The features that were kept."""
        self.kept = [torch.cat(self.kept)] if self.kept else [torch.empty(0, len(self.mean))]
        return self.kept[0]

    @property
    def inception_score(self) -> InceptionScore | None:
        """exp E[KL(p(y|x) ‖ p(y))] (Salimans et al. 2016, section 4), on each split; None without classes."""
        used = self.class_counts > 0
        if self.class_sums.shape[1] == 0 or not bool(used.any()):
            return None
        n = self.class_counts[used].double()
        marginal = self.class_sums[used] / n[:, None]
        scores = (self.class_entropies[used] / n - torch.special.xlogy(marginal, marginal).sum(1)).exp()
        std = scores.std(correction=0) if len(scores) > 1 else torch.tensor(float("nan"))
        return InceptionScore(float(scores.mean()), float(std), len(scores))

    # ---------------------------------------------------------------------------------------------------------- files
    def save(self, path: Path | str) -> None:
        """Write to a .safetensors or .npz file, which appears whole or not at all; nothing in it is pickled.

        A .npz has `mu` and `sigma`, as other programs expect, of which `n` and our facts say what they are.
        """
        path = Path(path)
        about = json.dumps(
            {"format": FORMAT, "n": self.n, "features": self.features, "keep": self.keep, "facts": self.facts}
            | ({"hash": self.moments.hash} if self.n > 1 else {})
        )
        classes = {name: getattr(self, name) for name in CLASS_SUMS}
        with replacing(path) as temporary:
            if path.suffix == ".npz":
                moments = self.moments
                tensors = classes | {"features": self.vectors, "mu": moments.mean, "sigma": moments.covariance}
                arrays: dict[str, Any] = {name: value.numpy() for name, value in tensors.items()}
                with temporary.open("wb") as file:
                    np.savez(file, about=np.array(about), **arrays)
            else:
                tensors = classes | {"features": self.vectors, "mean": self.mean, "covariance": self.covariance}
                save_file(
                    {name: value.contiguous() for name, value in tensors.items()}, temporary, {"statistics": about}
                )

    @classmethod
    def load(cls, path: Path | str) -> Statistics:
        """Read what `save` wrote, or a .npz of another program that has `mu` and `sigma` alone.

        Raises:
            InputError: the file is missing, damaged, or something else.
        """
        path = Path(path)
        try:
            found = load_npz(path) if path.suffix == ".npz" else load_safetensors(path)
        except BROKEN as error:
            raise InputError(
                f"{path} does not hold statistics of features ({brief(error)}): make it by scorefield make-reference."
            ) from error
        return found


def load_safetensors(path: Path) -> Statistics:
    """A file of ours."""
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {})["statistics"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return restored(about, tensors)


def load_npz(path: Path) -> Statistics:
    """A file of ours, or any with `mu` and `sigma`, of which nothing is known but that they are moments."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "about"}
        about = json.loads(str(file["about"])) if "about" in file.files else None
    mean, covariance = (torch.from_numpy(np.asarray(arrays.pop(name), np.float64)) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"mu is {tuple(mean.shape)} and sigma {tuple(covariance.shape)}")
    if not bool(mean.isfinite().all() and covariance.isfinite().all()):
        raise ValueError("some of its numbers are not finite")
    if not torch.allclose(covariance, covariance.T, rtol=0, atol=1e-5 * float(covariance.abs().max())):
        raise ValueError("sigma is not symmetric")
    if about is None:
        return Statistics(mean=mean, covariance=covariance)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return restored(about, tensors | {"mean": mean, "covariance": covariance})


def restored(about: dict[str, Any], tensors: dict[str, Tensor]) -> Statistics:
    """The state that a file describes, if its numbers are those that were written."""
    if about["format"] != FORMAT:
        raise ValueError(f"format {about['format']}, this version reads {FORMAT}")
    kept = [tensors.pop("features")]
    found = Statistics(about["features"], about["keep"], about["facts"], about["n"], kept=kept, **tensors)
    if found.n > 1 and found.moments.hash != about["hash"]:
        raise ValueError("its numbers do not match their hash: the file is damaged")
    return found
