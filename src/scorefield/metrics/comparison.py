"""Figures of fields as such, without features: what a comparison of samples with data is, and two of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Literal

import torch
from torch import Generator, Tensor

from scorefield.foundation.errors import InputError
from scorefield.metrics.circular import circular_distances, phase_spectrum, residue_density, shuffled
from scorefield.metrics.spectrum import Spectrum, band_distance, cosine_spectrum, radial_spectrum

HALVES = 16  # random halvings of the data, for the floor
VALUES = 200_000  # values whose law is compared, at most

Boundary = Literal["cosine", "taper", "periodic"]


class Comparison(ABC):
    """Figures by name of two sets of fields (n, channels, *grid) in data units: 0 if nothing tells them apart, less is better."""

    @abstractmethod
    def __call__(self, x: Tensor, data: Tensor) -> dict[str, float]: ...


@dataclass(frozen=True)
class Phases(Comparison):
    """Wrapped phases (cos φ, sin φ): distances w_var, w_skew, w_total of circular moments, the difference of the densities of
    residues, and the mean over bands of |ln of the ratio of the spectra of e^{iφ}|. Moments do not see order in space, these do.
    """

    def __call__(self, x: Tensor, data: Tensor) -> dict[str, float]:
        figures = circular_distances(x, data)
        figures["residues"] = float((residue_density(x).mean() - residue_density(data).mean()).abs())
        if x.shape[2:] == data.shape[2:]:
            figures["phase_spectrum"] = float(band_distance(phase_spectrum(x).power, phase_spectrum(data).power).mean())
        return figures

    def control(self, data: Tensor) -> dict[str, float]:
        """What the data score against themselves with their pixels shuffled: 0 in all that is blind to space."""
        return self(shuffled(data), data)


@dataclass(frozen=True)
class Spectra(Comparison):
    """Real fields on grids of one to three axes: the mean over bands of |ln of the ratio of mean powers|, the largest such, and
    the Wasserstein distance of the values over their standard deviation; where any is NaN, all have the mean of the data.

    Args:
        boundary: the modes: of the cosine series, of the Fourier series under a Hann window, or of periodic fields.
        known: how many bands are compared so; of the others, which are new on a finer grid, the mean ln of the ratio has
            its sign: above 0 for too much power. 0 compares all that both have.
    """

    boundary: Boundary = "cosine"
    known: int = 0

    def __post_init__(self) -> None:
        if self.known < 0:
            raise InputError(f"Spectra of {self.known} known bands: give 1 or more, or 0 for all.")

    def __call__(self, x: Tensor, data: Tensor) -> dict[str, float]:
        from scipy.stats import wasserstein_distance  # a second to load

        x, data, values = _known(x, data)
        ours, theirs = self.spectrum(x).power, self.spectrum(data).power
        shared = min(ours.shape[1], theirs.shape[1])  # of two grids of one domain
        known = min(self.known or shared, shared)
        distance = band_distance(ours[:, :known], theirs[:, :known])
        values = [part[:: max(1, part.numel() // VALUES)].double().numpy() for part in values]
        new = (ours[:, known:shared].mean(0) / theirs[:, known:shared].mean(0)).log()
        beyond = {"spectrum_new": float(new.mean())} if known < shared else {}
        return beyond | {
            "spectrum": float(distance.mean()),
            "spectrum_worst": float(distance.max()),
            "values": float(wasserstein_distance(*values)) / (float(values[1].std(ddof=1)) or 1.0),
        }

    def spectrum(self, x: Tensor) -> Spectrum:
        """The spectrum of each channel of each field, over wavenumbers per side; (n · channels, bands)."""
        fields, spacing = x.flatten(0, 1).double(), (1.0,) * (x.ndim - 2)
        if self.boundary == "cosine":
            return cosine_spectrum(fields, spacing)
        return radial_spectrum(fields, spacing, taper=self.boundary == "taper")


def _known(x: Tensor, data: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """Both with the mean of the data where any of them is NaN, and the values that are left.

    The edge of what is known has a spectrum, too, and both have the same.
    """
    if bool(x.isfinite().all() and data.isfinite().all()):
        return x, data, (x.flatten(), data.flatten())
    if x.shape[2:] != data.shape[2:]:
        raise InputError("Fields that are not known everywhere have spectra to compare on one grid alone.")
    known = x.isfinite().all(0) & data.isfinite().all(0)
    if not bool(known.flatten(1).any(1).all()):
        raise InputError("No point is known in all fields, so that they have no spectra to compare.")
    mean = torch.stack([part[:, inside].mean() for part, inside in zip(data.movedim(1, 0), known, strict=True)])
    filled = [part.where(known, mean.reshape(-1, *(1,) * (x.ndim - 2))) for part in (x, data)]
    return filled[0], filled[1], (x[:, known].flatten(), data[:, known].flatten())


def floor(comparison: Comparison, data: Tensor, *, halves: int = HALVES, seed: int = 0) -> Mapping[str, float]:
    """What two random halves of the data score against each other, on average: no model can be asked to do better with so few.

    Args:
        comparison: what is measured.
        data: at least two fields.
        halves: how many times they are halved.
        seed: of the halves.
    """
    if len(data) < 2:
        raise InputError("A floor needs at least two fields.")
    generator, half = Generator().manual_seed(seed), len(data) // 2
    orders = [torch.randperm(len(data), generator=generator) for _ in range(halves)]
    rows = [comparison(data[order[:half]], data[order[half:]]) for order in orders]
    return {name: mean(row[name] for row in rows) for name in rows[0]}
