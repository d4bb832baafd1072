"""Functions: fields of any resolution, finer ones that agree with coarse ones, and pictures of their noise."""

from scorefield.foundation.lazy import lazily
from scorefield.functions.forecasts import Forecasts
from scorefield.functions.windows import Windows

# What the room does, as dataclasses; the command line has them by their names.
__getattr__, __dir__, VERBS = lazily(
    __name__, {"noise_plots": "Plot", "spectrum_check": "Suggest", "super_resolution": "SuperResolve"}
)
__all__ = [  # noqa: PLE0604
    "Forecasts",
    "Windows",
    *VERBS,
]  # pyright: ignore[reportUnsupportedDunderAll]
