"""What a downscaling model has to beat: interpolation, regression, and corrections of quantiles, with and without chance added.

All work on arrays: coarse fields (time, Y, X) and fine ones (time, y, x) whose boxes divide the coarse ones evenly.
"""

from scorefield.climate.baselines.baseline import Baseline, When
from scorefield.climate.baselines.bcsd import BCSD
from scorefield.climate.baselines.interpolation import Bilinear, DressedBilinear, HourlyResidual
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.climate.baselines.ridge import DressedRidge, Ridge

__all__ = [
    "BCSD", "Baseline", "Bilinear", "DressedBilinear", "DressedRidge", "HourlyResidual", "QuantileMap", "Ridge",
    "When",
]  # fmt: skip
