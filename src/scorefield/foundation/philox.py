"""Random numbers as a function of key and position, made on any device at once: Philox4x32-10 (Salmon et al. 2011, SC11).

Ten rounds of multiplication turn a counter of 128 bits and a key of 64 into four numbers of 32 bits. They are the same integers
on every device; the normals made of them agree to what a device's sine and logarithm are worth, about 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Size, Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what is added to the key after each round
LOW = 0xFFFFFFFF


def philox(counter: Sequence[Tensor], key: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four numbers of 32 bits for each counter and key, all in int64 (torch has no arithmetic of unsigned numbers).

    Args:
        counter: four words of 32 bits, of shapes that broadcast.
        key: two such words.
    """
    a, b, c, d = counter
    first, second = key
    for round in range(ROUNDS):
        low, high = a * MULTIPLIERS[0], c * MULTIPLIERS[1]  # wraps at 64 bits, as an unsigned product does
        a, b, c, d = (high >> 32 & LOW) ^ b ^ first, high & LOW, (low >> 32 & LOW) ^ d ^ second, low & LOW
        if round < ROUNDS - 1:
            first, second = first + WEYL[0] & LOW, second + WEYL[1] & LOW
    return a, b, c, d


class Philox:
    """A stack of streams, one per key, that are drawn from together.

    Args:
        keys: a number of 64 bits for each stream.
        device: where the numbers are made.

    Attributes:
        position: how many blocks of four numbers of each stream are used up.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        words = torch.tensor([[key & LOW, key >> 32] for key in keys], dtype=torch.int64).reshape(-1, 2)
        self._keys = words.to(device, non_blocking=True)[..., None].unbind(1)  # two of (batch, 1)
        self.position = 0

    def randn(self, shape: Sequence[int] | Size, dtype: torch.dtype) -> Tensor:
        """Standard normal draws of the full shape (batch, ...), by Box's and Muller's formula (1958)."""
        count = math.prod(shape[1:])
        radius, angle = self._uniform(2 * ((count + 1) // 2), dtype).unflatten(1, (2, -1)).unbind(1)
        radius = (-2 * torch.log1p(-radius)).sqrt()
        angle = 2 * math.pi * angle
        drawn = torch.cat((radius * angle.cos(), radius * angle.sin()), dim=1)
        return drawn[:, :count].reshape(tuple(shape))

    def rand(self, shape: Sequence[int] | Size, dtype: torch.dtype) -> Tensor:
        """Uniform draws in [0, 1) of the full shape (batch, ...)."""
        return self._uniform(math.prod(shape[1:]), dtype).reshape(tuple(shape))

    def _uniform(self, count: int, dtype: torch.dtype) -> Tensor:
        """(batch, count) in float64 or float32: of 53 or 24 bits, so that no number is rounded to 1."""
        if dtype == torch.float64:
            a, b, c, d = self._blocks((count + 1) // 2)
            high, low = torch.cat((a, c), dim=1), torch.cat((b, d), dim=1)
            return ((high >> 5) * 2**26 + (low >> 6))[:, :count].double() * 2.0**-53
        words = torch.cat(self._blocks((count + 3) // 4), dim=1)[:, :count]
        return (words >> 8).float() * 2.0**-24

    def _blocks(self, count: int) -> tuple[Tensor, ...]:
        """The next blocks of each stream: four words, each (batch, count)."""
        place = torch.arange(self.position, self.position + count, device=self._keys[0].device)
        self.position += count
        zero = torch.zeros_like(place)
        return philox((place & LOW, place >> 32, zero, zero), self._keys)
