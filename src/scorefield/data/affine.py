"""Affine maps of images that the network is given, too: augmentation that samples do not show (Karras et al. 2022, appendix F.2).

A field is its cosine series, which goes on beyond the edges as its mirror image: it is evaluated between grid points, and modes
that the grid has not are left out of the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from scorefield.data.augment import Augment, draw, flip
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream

FINER = 4  # points of the cosine series, between which it is taken to be linear, for each of the grid
ENTRIES = 9


@dataclass(frozen=True)
class RandomAffine(Augment):
    """Mirrored, scaled, turned, stretched and shifted images, with what was done as `cond["augment"]`: 0 where nothing was.

    In this order (table 6 of Karras et al. 2022; a their parameters, entries of the vector in brackets; n ~ N(0, 1)):
    left-right with probability 1/2 [a₀]; and each with probability p: up-down [a₁]; by 2^{scale n} [n]; by an angle a₃ ~ U(−π, π)
    [cos a₃ − 1, sin a₃]; by 2^{anisotropy n} along an axis at a₄ ~ U(−π, π) and by its inverse across [n cos a₄, n sin a₄]; by
    translation n of the width and of the height [n, n']. Flips are exact; beyond its edges an image goes on as its mirror image.

    The network learns what each image is of, and is sampled without: of the data as they are. Theirs draws n of the stretch with
    either sign, which the vector then does not say; the law of images is the same here, where n >= 0 and the vector says all. A
    field that is conditioned on is changed alike.

    Args:
        probability: p; theirs is 0.12 for CIFAR-10 and 0.15 for FFHQ and AFHQv2.
        scale: standard deviation of the logarithm to base 2 of the size.
        anisotropy: of the stretch.
        translation: of the shift, in parts of the image.
        turned: whether images are turned and put upside down at all.

    Raises:
        InputError: other than two grid axes, images that are not known everywhere, and what cannot be changed with an image: a
            mask, a measurement, its noise.
    """

    probability: float = 0.12
    scale: float = 0.2
    anisotropy: float = 0.2
    translation: float = 0.125
    turned: bool = True
    entries = ENTRIES

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or min(self.scale, self.anisotropy, self.translation) < 0:
            raise InputError("RandomAffine needs a probability in [0, 1], and scale, anisotropy and translation >= 0.")

    def __call__(self, batch: Batch, seed: int) -> Batch:
        if batch.x.ndim != 4:
            raise InputError(
                f"RandomAffine changes images, and the fields have {batch.x.ndim - 2} grid axes: remove it."
            )
        found = (("y", batch.y), ("mask", batch.mask), ("noise", batch.noise), ("coords", batch.cond.get("coords")))
        if wrong := [name for name, value in found if value is not None]:
            raise InputError(f"RandomAffine changes images, and not their {wrong[0]}, which the data have: remove it.")
        field = batch.cond.get("field")
        if field is not None and field.shape[2:] != batch.x.shape[2:]:
            raise InputError(
                "RandomAffine changes images and fields of the same grid, and the field is on another: remove it."
            )
        if "augment" in batch.cond:
            raise InputError(
                "RandomAffine tells the network what it has done, and another before it has told its own: remove one."
            )
        if any(not bool(part.isfinite().all()) for part in (batch.x, field) if part is not None):
            raise InputError(
                "RandomAffine changes whole images, and NaN, or infinities, would spread over them: remove it."
            )
        vector = self.vector(draw(batch, seed, Stream.AFFINE, (13,)).double())
        x = self.applied(batch.x, vector)
        cond = {**batch.cond, "augment": vector.to(torch.float32)}
        return replace(batch, x=x, cond=cond if field is None else {**cond, "field": self.applied(field, vector)})

    def vector(self, u: Float[Tensor, "batch 13"]) -> Float[Tensor, "batch 9"]:
        """What is done to each image, of uniform numbers."""
        chosen = u[:, :5] < self.probability
        upside, size, turn, stretch, shift = chosen.unbind(1)
        left, up = (u[:, 5:7] < 0.5).to(u).unbind(1)
        a, b = ((2 * u[:, 7:9] - 1) * math.pi).unbind(1)
        n = torch.special.ndtri(u[:, 9:13].clamp(2**-25, 1 - 2**-25))
        turn, upside = turn & self.turned, upside & self.turned
        parts = (left, upside * up, size * n[:, 0], turn * (a.cos() - 1), turn * a.sin())
        parts += (stretch * n[:, 1] * b.cos(), stretch * n[:, 1] * b.sin(), shift * n[:, 2], shift * n[:, 3])
        return torch.stack(parts, dim=1)

    def matrix(self, vector: Float[Tensor, "batch 9"]) -> tuple[Float[Tensor, "batch 2 2"], Float[Tensor, "batch 2"]]:
        """All but the flips: what is at r, in grid points about the centre, goes to A r + b, b in parts of width and height."""
        _, _, size, cos, sin, along, across, *shift = vector.unbind(1)
        cos, n = cos + 1, torch.hypot(along, across)
        turn = torch.stack((cos, -sin, sin, cos), dim=1).unflatten(1, (2, 2))
        axis = torch.stack((along, across), dim=1) / n.clamp(min=1e-12)[:, None]
        both = axis[:, :, None] * axis[:, None]
        one = torch.eye(2, dtype=vector.dtype).expand_as(both)
        grow = torch.exp2(self.anisotropy * n)[:, None, None]
        stretch = torch.where((n > 0)[:, None, None], grow * both + (one - both) / grow, one)
        grown = torch.exp2(self.scale * size)[:, None, None]
        return stretch @ turn * grown, self.translation * torch.stack(shift, dim=1)

    def applied(self, x: Float[Tensor, "batch channels h w"], vector: Float[Tensor, "batch 9"]) -> Tensor:
        """The images of a vector. Each is computed by itself, so that it does not matter which others are beside it."""
        x = flip(x, {-1: vector[:, 0] > 0, -2: vector[:, 1] > 0})
        matrix, shift = self.matrix(vector)
        out = x.clone()
        for i in vector[:, 2:].any(dim=1).nonzero().flatten().tolist():
            out[i] = mapped(x[i].float(), matrix[i], shift[i]).to(x.dtype)
        return out


def mapped(x: Float[Tensor, "channels h w"], matrix: Float[Tensor, "2 2"], shift: Float[Tensor, "2"]) -> Tensor:
    """x(A⁻¹(r − b)) on the grid of x, r in grid points about its centre, (right, down); b in parts of the width and the height.

    With the cosine series on `FINER` as many points as a piecewise linear function, 0.31/L² off for waves of L points, and
    without the modes that the grid has not.
    """
    height, width = x.shape[1:]
    half = torch.tensor([width, height], dtype=matrix.dtype) / 2
    inverse = torch.linalg.inv(matrix)
    scaled = inverse * half[None] / half[:, None]  # affine_grid counts half a side as 1
    theta = torch.cat((scaled, -(inverse @ (2 * half * shift) / half)[:, None]), dim=1)
    rows, columns = cosines(height), cosines(width)
    fine = rows @ x @ columns.T
    places = F.affine_grid(theta[None], [1, 1, *fine.shape[1:]], align_corners=False).to(x.dtype)
    moved = F.grid_sample(fine[None], places, padding_mode="reflection", align_corners=False)[0]
    return rows.T @ moved @ columns / FINER**2


@lru_cache(maxsize=64)
def cosines(size: int) -> Tensor:
    """U (FINER · size, size) with U x the cosine series of x between its points, UᵀU = FINER: Uᵀ/FINER keeps its modes alone."""
    mode = torch.arange(size, dtype=torch.float64)
    coarse, fine = ((torch.arange(n, dtype=torch.float64) + 0.5) / n for n in (size, FINER * size))
    weight = torch.where(mode > 0, 2.0, 1.0) / size
    series = (math.pi * fine[:, None] * mode).cos() * weight @ (math.pi * mode[:, None] * coarse).cos()
    return series.float()
