"""Crops: which part of an image is used, decided by its size alone, before it is resized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from scorefield.foundation.errors import InputError

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two exclusive


class Crop(ABC):
    """Which part of an image is used."""

    @abstractmethod
    def __call__(self, height: int, width: int) -> Box:
        """The part of an image of that size."""


@dataclass(frozen=True)
class CentreCrop(Crop):
    """The middle of an image; half a pixel too much goes to the far side. Smaller images raise InputError.

    Args:
        height: of the part, in pixels.
        width: of the part, in pixels.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise InputError(f"CentreCrop needs height and width >= 1, not {self.height} and {self.width}.")

    def __call__(self, height: int, width: int) -> Box:
        if height < self.height or width < self.width:
            raise InputError(f"is {height}×{width}, too small for a crop of {self.height}×{self.width}: remove it.")
        left, top = (width - self.width) // 2, (height - self.height) // 2
        return left, top, left + self.width, top + self.height


@dataclass(frozen=True)
class Square(Crop):
    """The largest square in the middle of an image."""

    def __call__(self, height: int, width: int) -> Box:
        side = min(height, width)
        return CentreCrop(side, side)(height, width)
