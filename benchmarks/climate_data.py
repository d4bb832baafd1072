"""The pairs of coarse and fine fields on which downscaling is measured. SCOREFIELD_DATA is the folder of the data.

Radar: NOAA MRMS precipitation rate of 10 June 2019 on 0.01°, 6 frames 14 minutes apart, as the recipe precip-edm divides it:
tiles of 64×64 without NaN of which more than 20 % are wet (> 0.1 mm/h), coarsened 8×; whole bands of longitude are for testing,
and a tile's width beside them for nothing. The frames repeat each place: places, not tiles, are independent.

Temperature: ERA5 2 m temperature, March 2019, 33×49 points of which the first 32 and 48 are taken; coarsened 4×. Days 1-20 are
for training, 23-31 for testing. Days are taken for independent, which they are not quite.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from scorefield.climate.baselines.baseline import When
from scorefield.climate.regrid import bilinear, block_mean
from scorefield.run.configuration import find_recipe, read_recipe
from scorefield.run.recipe import build, data_parser

COARSENING = {"mrms": 8, "t2m": 4}
LATITUDE = np.linspace(58, 50.25, 32)  # of the rows of temperature
DAYS = {"train": range(1, 21), "test": range(23, 32)}
DAYS |= {"early": range(1, 15), "late": range(17, 21)}  # of training: to choose by, with the same gap between them


@dataclass(frozen=True)
class Part:
    """Fields of one split.

    Args:
        fine: (n, y, x), in mm/h or K.
        coarse: their block means, (n, Y, X).
        smooth: the coarse fields interpolated bilinearly, as a model is given them; for tiles with their neighbours' values.
        when: what baselines are told of time.
        block: which fields are not independent of each other.
        cond: all that a model is given, (n, channels, y, x), where a recipe says what that is.
    """

    fine: np.ndarray
    coarse: np.ndarray
    smooth: np.ndarray
    when: When
    block: np.ndarray
    cond: torch.Tensor | None = None

    def thinned(self, n: int) -> Part:
        """About n of the fields, evenly spaced."""
        kept = np.unique(np.linspace(0, len(self.fine) - 1, n).round().astype(int))
        cond = None if self.cond is None else self.cond[kept]
        when = When(*(value[kept] for value in self.when))
        return Part(self.fine[kept], self.coarse[kept], self.smooth[kept], when, self.block[kept], cond)


def mrms(split: str) -> Part:
    """Tiles of radar precipitation."""
    parser = data_parser()
    groups = {"data": read_recipe(find_recipe("precip-edm"))["data"]}
    fields = build(parser, parser.read_object(groups, "precip-edm")).data.load(split)
    batch = fields.gather(torch.arange(len(fields)))
    fine, cond = batch.x[:, 0].numpy(), batch.cond["field"]
    place = np.unique(fields.places[:, 1:], axis=0, return_inverse=True)[1].ravel()
    coarse = block_mean(fine, (COARSENING["mrms"],) * 2).astype(np.float32)
    when = When(np.zeros(len(fine), int), place)
    return Part(fine, coarse, cond[:, 0].numpy(), when, place, cond)


def t2m(split: str) -> Part:
    """Hours of temperature."""
    path = Path(os.environ["SCOREFIELD_DATA"]) / "climate/era5_t2m_uk_201903.nc"
    field = xr.open_dataset(path)["t2m"].isel(latitude=slice(0, 32), longitude=slice(0, 48))
    field = field.isel(time=np.isin(field["time"].dt.day, list(DAYS[split])))
    factor = (COARSENING["t2m"],) * 2
    coarse = block_mean(field.to_numpy(), factor, area(field.shape[1:], field["latitude"].to_numpy())).astype(
        np.float32
    )
    when = When(field["time"].dt.hour.to_numpy(), field["time"].dt.day.to_numpy())
    return Part(field.to_numpy(), coarse, bilinear(coarse, factor), when, when.day)


def area(shape: tuple[int, ...], latitude: np.ndarray) -> np.ndarray:
    """Relative areas of boxes."""
    return np.broadcast_to(np.cos(np.deg2rad(latitude))[:, None], shape)
