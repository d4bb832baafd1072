"""What a downscaling model has to beat: interpolation, regression, and corrections of quantiles, with and without chance added.

All work on arrays: coarse fields (time, Y, X), or (time, variables, Y, X), and fine ones (time, y, x), on any two `Grids`;
without any given, fine boxes divide the coarse ones evenly. NaN are left out, and points that are never known stay so.
"""

from scorefield.climate.baselines.analogues import Analogues
from scorefield.climate.baselines.baseline import Baseline, When
from scorefield.climate.baselines.bcsd import BCSD
from scorefield.climate.baselines.grids import AnyGrids, Blocks, Grids
from scorefield.climate.baselines.interpolation import Bilinear, DressedBilinear, HourlyResidual
from scorefield.climate.baselines.mapped import Dressed, MappedBilinear
from scorefield.climate.baselines.quantiles import QuantileMap
from scorefield.climate.baselines.ridge import DressedRidge, Ridge

__all__ = [
    "BCSD", "Analogues", "AnyGrids", "Baseline", "Bilinear", "Blocks", "Dressed", "DressedBilinear", "DressedRidge", "Grids",
    "HourlyResidual", "MappedBilinear", "QuantileMap", "Ridge", "When",
]  # fmt: skip
