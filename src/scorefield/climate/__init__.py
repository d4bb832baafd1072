"""Gridded data in time: NetCDF and Zarr, on grids of the sphere, with what they are to be predicted from."""

from scorefield.climate.files import Cube, Variables
from scorefield.climate.regrid import Bilinear, Conservative, Nearest, Regrid
from scorefield.climate.source import Climate, FurtherPredictors
from scorefield.climate.split import Bands, Blocks, Division, Periods, Seasons, Years
from scorefield.climate.tiles import Tiles
from scorefield.climate.time_features import DayOfYear, HourOfDay, Position, TimeFeature
from scorefield.foundation.lazy import lazily

# What the room does, as dataclasses; the command line has them by their names.
__getattr__, __dir__, VERBS = lazily(
    __name__,
    {
        "downscaling": "Downscale",
        "verification.job": "Verify",
        "baselines.job": "DrawBaseline Correct",
        "mlbench.job": "MLBenchPrepare MLBenchTrain MLBenchPredict MLBenchValidate",
    },
)
__all__ = [  # noqa: PLE0604
    "Bands", "Bilinear", "Blocks", "Climate", "Conservative", "Cube", "DayOfYear", "Division",
    "FurtherPredictors", "HourOfDay",
    "Nearest", "Periods", "Position", "Regrid", "Seasons", "Tiles", "TimeFeature", "Variables", "Years", *VERBS,
]  # pyright: ignore[reportUnsupportedDunderAll]  # fmt: skip
