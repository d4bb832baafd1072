"""Gridded data in time: NetCDF and Zarr, on grids of the sphere, with what they are to be predicted from."""

from scorefield.data.climate.clock import DayOfYear, HourOfDay, Position, TimeFeature
from scorefield.data.climate.files import Cube, Variables
from scorefield.data.climate.regrid import Bilinear, Conservative, Nearest, Regrid
from scorefield.data.climate.source import Climate
from scorefield.data.climate.split import Bands, Blocks, Division, Periods, Seasons, Years
from scorefield.data.climate.tiles import Tiles

__all__ = [
    "Bands",
    "Bilinear",
    "Blocks",
    "Climate",
    "Conservative",
    "Cube",
    "DayOfYear",
    "Division",
    "HourOfDay",
    "Nearest",
    "Periods",
    "Position",
    "Regrid",
    "Seasons",
    "Tiles",
    "TimeFeature",
    "Variables",
    "Years",
]
