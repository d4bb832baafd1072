"""Functions: fields of any resolution, finer ones that agree with coarse ones, and pictures of their noise."""

from scorefield.functions.windows import Windows

__all__ = ["Windows"]
