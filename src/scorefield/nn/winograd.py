"""The gradient of a 3×3 convolution's weight by minimal filtering (Winograd 1980), in a fraction of the multiplications.

With y = Aᵀ[(G w Gᵀ) ⊙ (Bᵀ x B)]A for each tile of m×m values of the result (Lavin & Gray 2016, eq. 8), a gradient g by y gives
that by the weight,

    ∂L/∂w = Gᵀ [Σ (A g Aᵀ) ⊙ (Bᵀ x B)] G,

summed over tiles and samples: a product of matrices for each of the (m + 2)² points of a tile, 36 multiplications for the 144 of
m = 4. The result itself is left to torch: forward, m = 4 would round five times as much as a convolution does.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

CHANNELS, LARGE = (
    64,
    16,
)  # below which the copies take longer than the multiplications that they spare; twice on smaller grids
BLOCK = 2**20  # numbers that are transformed at once: larger ones leave the cache, smaller ones add up too often
# By m: A, G and B of Lavin & Gray, for the points 0, ±1, ∞ and 0, ±1, ±2, ∞.
TRANSFORMS = {
    2: (
        ((1, 0), (1, 1), (1, -1), (0, -1)),
        ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
        ((1, 0, 0, 0), (0, 1, -1, 1), (-1, 1, 1, 0), (0, 0, 0, -1)),
    ),
    4: (
        ((1, 0, 0, 0), (1, 1, 1, 1), (1, -1, 1, -1), (1, 2, 4, 8), (1, -2, 4, -8), (0, 0, 0, 1)),
        (
            *((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6)),
            *((1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1)),
        ),
        (
            *((4, 0, 0, 0, 0, 0), (0, -4, 4, -2, 2, 4), (-5, -4, -4, -1, -1, 0)),
            *((0, 1, -1, 2, -2, -5), (1, 1, 1, 1, 1, 0), (0, 0, 0, 0, 0, 1)),
        ),
    ),
}


@lru_cache
def is_known_to_pay() -> bool:
    """Whether torch's own kernel is slow here: on AVX2, where it takes twice the time of the forward pass."""
    limited = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper().startswith("AVX2")
    return limited or torch.backends.cpu.get_cpu_capability() == "AVX2"


def applies(x: Tensor, weight: Tensor) -> bool:
    """Whether the gradient of a weight (out, 3, 3, in) is wanted, and found faster so than by torch's own kernel."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[1:-1] == (3, 3)
        and min(weight.shape[0], weight.shape[-1]) >= CHANNELS * (1 if min(x.shape[2:]) >= LARGE else 2)
        and weight.requires_grad
        and torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and is_known_to_pay()
    )


def tile(grid: torch.Size) -> int:
    """m for a result of some rows and columns; 0 where they are too few for tiles."""
    return 4 if min(grid) >= 16 else 2 if min(grid) >= 8 else 0


@lru_cache
def _transforms(m: int) -> tuple[Tensor, Tensor, Tensor]:
    """A ⊗ A, G ⊗ G and B ⊗ B."""
    return tuple(torch.kron(part, part) for part in map(torch.tensor, TRANSFORMS[m]))  # type: ignore[return-value]


def weight_gradient(x: Tensor, gradient: Tensor, padding: int, m: int) -> Tensor:
    """∂L/∂w as (out, 3, 3, in).

    Args:
        x: what was convolved, (batch, in, height, width).
        gradient: g, (batch, out, rows, columns).
        padding: zeros on either side of x.
        m: of `tile`.
    """
    a, g, b = (part.to(x) for part in _transforms(m))
    inputs, outputs, n = x.shape[1], gradient.shape[1], m + 2
    tiles = [-(-size // m) for size in gradient.shape[2:]]
    spare = [m * count - size for count, size in zip(tiles, gradient.shape[2:], strict=True)]
    rows, columns = ((padding, padding + more) for more in spare)
    seen = _tiles(F.pad(x.movedim(1, -1), (0, 0, *columns, *rows)), n, m, tiles)
    given = _tiles(F.pad(gradient.movedim(1, -1), (0, 0, 0, spare[1], 0, spare[0])), m, m, tiles)
    step = max(1, BLOCK // (n * n * math.prod(tiles) * max(inputs, outputs)))
    found = x.new_zeros(n * n, outputs, inputs)
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        left = (a @ given[:, :, part].reshape(m * m, -1)).view(n * n, -1, outputs)
        right = (b.t() @ seen[:, :, part].reshape(n * n, -1)).view(n * n, -1, inputs)
        found.baddbmm_(left.transpose(1, 2), right)
    return (g.t() @ found.view(n * n, -1)).view(3, 3, outputs, inputs).movedim(2, 0).contiguous()


def _tiles(x: Tensor, size: int, every: int, count: list[int]) -> Tensor:
    """The tiles of x, (batch, rows, columns, channels), by their points: (size, size, batch, *count, channels), not copied."""
    x = x.contiguous()
    batch, rows, columns, channels = x.stride()
    shape, strides = (size, size, len(x), *count, x.shape[-1]), (rows, columns, batch, every * rows, every * columns)
    return x.as_strided(shape, (*strides, channels))
