"""k-space: the centred Fourier transform, and parallel imaging, in which several receiver coils see one image, each with a
sensitivity of its own, in a part of k-space; with the reconstructions that know no prior but smoothness or sparsity.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, like, to_channels, to_complex
from scorefield.foundation.lazy import require
from scorefield.operators.operator import LinearOperator
from scorefield.operators.solve import least_squares


@dataclass(frozen=True)
class Fourier(LinearOperator):
    """y = F x, the centred orthonormal discrete Fourier transform over all grid axes of each complex channel: F* F = I.

    Sizes may be odd; frequency 0 and the centre of the image lie at index n // 2 of each axis.
    """

    def __call__(self, x: Tensor) -> Tensor:
        return like(centred(to_complex(x), range(2, x.ndim)), x)

    def adjoint(self, y: Tensor) -> Tensor:
        return like(centred(to_complex(y), range(2, y.ndim), inverse=True), y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return self.adjoint(y).expand_as(x)


@dataclass(frozen=True, eq=False)
class Coils(LinearOperator):
    """y_c = S_c x: one complex channel becomes one for each coil.

    Args:
        maps: S, complex, (coils, *grid).
    """

    maps: Tensor

    def __post_init__(self) -> None:
        check_maps(self.maps)

    def __call__(self, x: Tensor) -> Tensor:
        z = one_channel(x, self.maps)
        return like(self.maps.to(z) * z, x)

    def adjoint(self, y: Tensor) -> Tensor:
        z = to_complex(y)
        return like((self.maps.to(z).conj() * z).sum(1, keepdim=True), y)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        weight = self.maps.abs().square().sum(0)
        inside = weight > 0
        change = to_complex(self.adjoint(y - self(x))) / torch.where(inside, weight, 1)
        return x + like(torch.where(inside, change, 0), x)


class ParallelImaging(LinearOperator):
    """What several coils see of one image in a part of k-space. Abstract: how k-space is sampled is left open.

    Attributes:
        maps: S, complex, (coils, *grid).
        mask: which samples of k-space are used; y is (batch, 2 coils, *samples), and what it holds elsewhere is never read.
    """

    maps: Tensor
    mask: Tensor

    @property
    def chosen(self) -> Tensor:
        """Where k-space is sampled, as booleans."""
        return self.mask > 0

    @property
    @abstractmethod
    def compensation(self) -> Tensor:
        """How much of k-space each sample stands for, in cells of the grid; it broadcasts against y."""

    @abstractmethod
    def balanced(self, y: Tensor) -> tuple[ParallelImaging, Tensor]:
        """√W A and √W y, W proportional to `compensation`, singular values at most 1: least squares by it converge fast."""

    @abstractmethod
    def restricted(self, mask: Tensor) -> ParallelImaging:
        """That of other samples of the same scan."""

    @abstractmethod
    def to(self, device: torch.device | str) -> ParallelImaging:
        """The same on a device, so that nothing is copied there at each step."""


@dataclass(frozen=True, eq=False)
class Sense(ParallelImaging):
    """y = M F S x, the sampled k-space of every coil (Pruessmann et al. 2001): `Compose((Coils(S), Fourier(), Mask(M)))`, faster.

    With Σ_c |S_c|² <= 1 the singular values of A are at most 1. What y holds where M is 0 is never read.

    Args:
        maps: S, complex, (coils, *grid).
        mask: M, true where k-space is sampled, of the grid's shape, or with axes of length 1 along which it does not change.
        iterations: of the conjugate gradients in `project`.
        tolerance: of these.
    """

    maps: Tensor
    mask: Tensor
    iterations: int = 30
    tolerance: float = 1e-6
    _shifted: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_maps(self.maps)
        grid = self.maps.shape[1:]
        sizes_fit = self.mask.ndim == len(grid) and all(a in (1, b) for a, b in zip(self.mask.shape, grid, strict=True))
        if not sizes_fit:
            raise InputError(
                f"The mask {tuple(self.mask.shape)} does not fit coil maps of {tuple(grid)}: give one of their grid."
            )
        axes = tuple(range(len(grid)))
        mask = self.mask > 0
        for axis in axes:  # an axis along which the mask does not change needs no transform in A* A
            if bool((mask == mask.narrow(axis, 0, 1)).all()):
                mask = mask.narrow(axis, 0, 1)
        shifted = torch.fft.ifftshift(self.maps, tuple(a + 1 for a in axes)).contiguous()
        object.__setattr__(self, "_shifted", (shifted, torch.fft.ifftshift(mask, axes)))

    @property
    def compensation(self) -> Tensor:
        return torch.ones((), device=self.maps.device)

    def balanced(self, y: Tensor) -> tuple[Sense, Tensor]:
        return self, y

    def restricted(self, mask: Tensor) -> Sense:
        return replace(self, mask=mask)

    def to(self, device: torch.device | str) -> Sense:
        return replace(self, maps=self.maps.to(device), mask=self.mask.to(device))

    def __call__(self, x: Tensor) -> Tensor:
        z = one_channel(x, self.maps)
        coils = centred(self.maps.to(z) * z, range(2, z.ndim))
        return like(torch.where(self.chosen.to(z.device), coils, 0), x)

    def adjoint(self, y: Tensor) -> Tensor:
        z = of_all_coils(y, self.maps)
        coils = centred(torch.where(self.chosen.to(z.device), z, 0), range(2, z.ndim), inverse=True)
        return like((self.maps.to(z).conj() * coils).sum(1, keepdim=True), y)

    def normal(self, x: Tensor) -> Tensor:
        z = one_channel(x, self.maps)
        maps, mask = self._shifted[0].to(z), self._shifted[1].to(z.device)
        grid = tuple(range(2, z.ndim))
        moved = torch.fft.ifftshift(z, grid)
        coils = maps * moved
        along = tuple(axis for axis, size in zip(grid, mask.shape, strict=True) if size > 1)
        coils = torch.fft.ifftn(torch.fft.fftn(coils, dim=along) * mask, dim=along) if along else coils * mask
        return like(torch.fft.fftshift((maps.conj() * coils).sum(1, keepdim=True), grid), x)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        return x + least_squares(self, y - self(x), iterations=self.iterations, tolerance=self.tolerance)


def one_channel(x: Tensor, maps: Tensor) -> Tensor:
    """x as one complex channel on the grid of coil maps, or InputError."""
    z = to_complex(x)
    if z.shape[1] != 1 or z.shape[2:] != maps.shape[1:]:
        found = "×".join(map(str, z.shape[1:]))
        raise InputError(f"Coil maps of {tuple(maps.shape[1:])} see one complex field of that grid, not {found}.")
    return z


def of_all_coils(y: Tensor, maps: Tensor) -> Tensor:
    """y as one complex channel for each coil of maps, or InputError."""
    z = to_complex(y)
    if z.shape[1] != len(maps):
        raise InputError(
            f"k-space of {z.shape[1]} coils does not go with maps of {len(maps)}: give those of the same scan."
        )
    return z


def check_maps(maps: Tensor) -> None:
    """Refuse what are no coil maps."""
    if maps.ndim < 2 or not maps.is_complex():
        raise InputError(f"Coil maps are complex, (coils, *grid), not {maps.dtype} {tuple(maps.shape)}.")


# -------------------------------------------------------------------------------------------------------- no prior
def zero_filled(operator: ParallelImaging, y: Tensor) -> Tensor:
    """A* W y/Σ|S|², 0 where no coil sees: what was not sampled is taken for 0, and the coils are combined by their maps.

    W is 1 on a grid; elsewhere samples count by the part of k-space that each stands for.
    """
    weight = operator.maps.abs().square().sum(0)
    return operator.adjoint(operator.compensation.to(y.real) * y) / torch.where(weight > 0, weight, 1)


def cg_sense(operator: ParallelImaging, y: Tensor, *, damping: float = 0.0, iterations: int = 10) -> Tensor:
    """argmin ‖√W (A x − y)‖² + damping ‖x‖² by so many conjugate gradients (Pruessmann et al. 2001), W 1 on a grid.

    Where the sampling is sparse, later iterations amplify the noise: both numbers regularise, and are to be chosen on other data.
    """
    operator, y = operator.balanced(y)
    return least_squares(operator, y, damping=damping, iterations=iterations, tolerance=0.0)


def l1_wavelet(operator: ParallelImaging, y: Tensor, *, weight: float, iterations: int = 60) -> Tensor:
    """argmin ½‖√W (A x − y)‖² + weight ‖Ψ x‖₁, Ψ Daubechies' wavelets (Lustig et al. 2007) of sigpy, for one field of two
    channels; W is 1 on a grid.

    By accelerated proximal gradients with steps of 1: Σ|S|² must be at most 1.

    Args:
        operator: A.
        y: k-space (1, 2 coils, *samples).
        weight: in the units of x.
        iterations: of the accelerated proximal gradient method.
    """
    sigpy = require("sigpy", "The L1-wavelet baseline", "mri")
    wavelets = sigpy.linop.Wavelet(tuple(operator.maps.shape[1:]))
    shrink = sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(wavelets.oshape, weight), wavelets)
    operator, y = operator.balanced(y)
    pulled = to_complex(operator.adjoint(y))
    x = ahead = torch.zeros_like(pulled)
    speed = 1.0
    for _ in range(iterations):
        moved = ahead - to_complex(operator.normal(ahead)) + pulled
        found = torch.from_numpy(shrink(1.0, moved[0, 0].cpu().numpy())).to(pulled)[None, None]
        before, speed = speed, (1 + math.sqrt(1 + 4 * speed**2)) / 2
        x, ahead = found, found + (before - 1) / speed * (found - x)
    return to_channels(x)
