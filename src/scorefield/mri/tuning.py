"""Baselines at their best on the scan itself: CG-SENSE by images like its own, L1-wavelet by k-space that was held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from scorefield.foundation.fourier import centred
from scorefield.foundation.random import Stream, seed_of
from scorefield.mri.metrics import object_mask
from scorefield.mri.scan import Baselines, Scan
from scorefield.operators import l1_wavelet, to_channels, to_complex
from scorefield.operators.solve import conjugate_gradients

RULE = "images alike"  # in the digest of what is reconstructed: another rule gives other baselines
DAMPINGS, ITERATIONS = (0.0, 1e-3, 1e-2), (3, 4, 5, 8, 12, 16, 20, 30, 40)
WEIGHTS = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)  # relative to the foreground

PARTS = 10  # of k-space, which are held out in turn
LONG, SHORT = 60, 20  # iterations of L1-wavelet, and of it for each of them
RINGS = 12  # of k-space, in each of which what is missed has one strength
NEAR = 9  # points along either axis, within which is counted how many were sampled
FINE = 32  # rings of k-space off the grid, whose samples share their area
DRAWS = 2  # images like that of the scan


def tuned(scan: Scan, given: Baselines) -> Baselines:
    """Settings, of which those that are not given are chosen on the scan itself.

    Those of CG-SENSE are the best for images like that of the scan: k-space of such images, which are known, is simulated with
    its maps, mask and noise (a parametric bootstrap, Efron and Tibshirani 1993, section 6.5), and the settings are taken whose
    magnitudes have the least squared error in the object. The weight of L1-wavelet predicts best a part of k-space that was held
    out: it is by L1-wavelet that those images are made, so that they would favour the weight which they were made by.

    Args:
        scan: a slice.
        given: what is given is kept.
    """
    if given.damping is None or given.iterations is None:
        alike = Alike(scan, _predicting_weight(scan, SHORT))
        dampings = DAMPINGS if given.damping is None else (given.damping,)
        counts = ITERATIONS if given.iterations is None else (given.iterations,)
        errors = np.sum([_cg_errors(scan, alike.draw(number), number, dampings, counts) for number in range(DRAWS)], 0)
        row, column = np.unravel_index(errors.argmin(), errors.shape)
        given = replace(given, damping=dampings[row], iterations=counts[column])
    if given.wavelet is None:
        given = replace(given, wavelet=_predicting_weight(scan))
    return given


@dataclass(frozen=True, eq=False)
class Alike:
    """Images like that of a scan: x + t, x that of L1-wavelet and t = F* √P F(|x| ξ) a random texture, since x is too simple.

    P, a number for each ring of k-space, is the power that x lacks relative to what a texture of P = 1 has there. Where k-space
    was not sampled, it is that of what L1-wavelet misses of samples which are held out, without that of their noise; on a grid
    these count by the share of points nearby that were not sampled, as little is missed inside of a fully sampled region. Where
    k-space was sampled on a grid, it is what x has less than the samples, without that of their noise.

    Args:
        scan: a slice.
        weight: of L1-wavelet, relative to the foreground.
    """

    scan: Scan
    weight: float

    def draw(self, number: int) -> Tensor:
        """An image, complex (height, width)."""
        texture = centred(self._texture(self.missed, number))
        if self.scan.places is None:
            texture = torch.where(self.scan.mask > 0, centred(self._texture(self.shrunk, number)), texture)
        return self.image + centred(texture, inverse=True)

    @cached_property
    def image(self) -> Tensor:
        """x."""
        scan = self.scan
        return to_complex(l1_wavelet(scan.operator, scan.y(1.0), weight=self.weight * scan.scale))[0, 0]

    @cached_property
    def missed(self) -> Tensor:
        """P where k-space was not sampled, (rings); 0 where nothing was held out."""
        scan, mask = self.scan, self.scan.mask > 0
        sparse, y = _sparseness(scan), scan.y(1.0)
        total, unit = torch.zeros(2, RINGS, dtype=torch.float64)
        for part in (held_out(mask, fold) for fold in range(PARTS)):
            if not bool((sparse * part).any()):
                continue
            known, unknown = scan.operator.restricted(mask & ~part), scan.operator.restricted(part)
            x = l1_wavelet(known, y, weight=self.weight * scan.scale, iterations=SHORT)
            total += self._by_ring(torch.where(part, y, 0) - unknown(x), sparse * part, noise=1.0)
            unit += self._by_ring(self._of_texture, sparse * part)
        return torch.where(unit > 0, total / unit, 0).clamp(min=0)

    @cached_property
    def shrunk(self) -> Tensor:
        """P where k-space was sampled, (rings)."""
        scan, used = self.scan, (self.scan.mask > 0).float()
        lacks = self._by_ring(scan.y(1.0), used, noise=1.0)
        lacks -= self._by_ring(scan.operator(to_channels(self.image[None, None])), used)
        unit = self._by_ring(self._of_texture, used)
        return torch.where(unit > 0, lacks / unit, 0).clamp(min=0)

    def _by_ring(self, y: Tensor, weight: Tensor, noise: float = 0.0) -> Tensor:
        """The weighed energy of k-space in each ring, without that of so many times its noise."""
        each = to_complex(y)[0].abs().square().sum(0) - 2 * noise * self.scan.noise**2 * len(self.scan.kspace)
        found = torch.zeros(RINGS, dtype=torch.float64)
        return found.index_add_(0, self._rings_of_samples.flatten(), (weight * each).flatten().double())

    @cached_property
    def _of_texture(self) -> Tensor:
        """k-space of a texture of P = 1."""
        return self.scan.operator(to_channels(self._texture(torch.ones(RINGS), DRAWS)[None, None]))

    def _texture(self, power: Tensor, number: int) -> Tensor:
        """F* √P F(|x| ξ)."""
        white = _white(self.image, number)
        rings = _rings(_distance(self.scan.grid))
        return centred(power.sqrt()[rings].to(white) * centred(self.image.abs() * white), inverse=True)

    @cached_property
    def _rings_of_samples(self) -> Tensor:
        scan = self.scan
        if scan.places is None:
            return _rings(_distance(scan.grid))
        return _rings((scan.places / (torch.tensor(scan.grid) / 2)).norm(dim=-1))


def held_out(mask: Tensor, fold: int) -> Tensor:
    """A part of what was sampled, (height, width): lines where all points of these are, else points."""
    sampled = mask.any(0) if bool((mask == mask.any(0)).all()) else mask
    order = np.random.default_rng(seed_of(0, Stream.MASK)).permutation(int(sampled.sum()))
    chosen = sampled.clone()
    chosen[sampled] = torch.from_numpy(order % PARTS == fold)
    return chosen & mask


def _predicting_weight(scan: Scan, iterations: int = LONG) -> float:
    """The weight of L1-wavelet that predicts best a part of k-space which was held out; samples off the grid by their area."""
    part, y = held_out(scan.mask > 0, 0), scan.y(1.0)
    known, unknown = scan.operator.restricted((scan.mask > 0) & ~part), scan.operator.restricted(part)
    area = torch.ones(()) if scan.places is None else _areas(scan.places, scan.grid)

    def error(weight: float) -> float:
        x = l1_wavelet(known, y, weight=weight * scan.scale, iterations=iterations)
        return float((area * (unknown(x) - torch.where(part, y, 0)).square()).sum())

    return min(WEIGHTS, key=error)


def _areas(places: Tensor, grid: Sequence[int]) -> Tensor:
    """The area of its ring about the middle of k-space that a sample stands for, (samples, readouts), up to a factor.

    Of spokes it grows with the radius, also where they are further apart than density compensation reaches: there the noise lies.
    """
    radius = (places / (torch.tensor(grid) / 2)).norm(dim=-1)
    ring = (radius * FINE).long()
    return ((ring + 0.5) / torch.bincount(ring.flatten())[ring]).to(torch.float32)


def _cg_errors(scan: Scan, image: Tensor, number: int, dampings: Sequence[float], counts: Sequence[int]) -> np.ndarray:
    """The errors of CG-SENSE of an image that is known, (dampings, counts), the numbers of iterations of one run each."""
    known, y = scan.operator.balanced(_measured(scan, image, number))
    pulled, error = known.adjoint(y), _error(image)
    rows = []
    for damping in dampings:
        found: dict[int, Tensor] = {0: torch.zeros_like(pulled)}
        conjugate_gradients(
            lambda x, damping=damping: known.normal(x) + damping * x,
            pulled,
            iterations=max(counts),
            tolerance=0.0,
            seen=found.__setitem__,
        )
        rows.append([error(found[min(count, max(found))]) for count in counts])  # a run that converges ends before
    return np.array(rows)


def _measured(scan: Scan, image: Tensor, number: int) -> Tensor:
    """k-space of an image as the scan would have it, as pairs of channels."""
    clean = scan.operator(to_channels(image[None, None]))
    noise = to_channels(_white(torch.empty(scan.kspace.shape), number, 1)[None])
    return torch.where(scan.mask > 0, clean + scan.noise * noise, 0)


def _error(image: Tensor) -> Callable[[Tensor], float]:
    """The squared error of magnitudes in the object, of pairs of channels."""
    truth = image.abs()
    inside = object_mask(truth)
    return lambda x: float((to_complex(x)[0, 0].abs() - truth)[inside].square().sum())


def _sparseness(scan: Scan) -> Tensor:
    """The share of the points near each one that were not sampled; off the grid 1."""
    if scan.places is not None:
        return torch.ones(scan.mask.shape)
    mask = (scan.mask > 0).float()[None, None]
    return 1 - F.avg_pool2d(mask, NEAR, 1, NEAR // 2, count_include_pad=False)[0, 0]


def _distance(grid: Sequence[int]) -> Tensor:
    """Of each point of k-space from its middle, 1 at the ends of the axes."""
    axes = [(torch.arange(size) - size // 2) / (size / 2) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).norm(dim=0)


def _rings(distance: Tensor) -> Tensor:
    return (distance * RINGS).long().clamp(max=RINGS - 1)


def _white(like: Tensor, *key: int) -> Tensor:
    """Complex numbers with independent parts of variance 1, of a shape."""
    drawn = np.random.default_rng(seed_of(*key, Stream.TUNING)).standard_normal((2, *like.shape), np.float32)
    return torch.complex(*torch.from_numpy(drawn))
