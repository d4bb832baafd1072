"""Gridded fields with a small spread about a large offset: their digits are kept from the files to the prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate import Climate, Cube, Variables
from scorefield.climate.split import Blocks
from scorefield.climate.times import dates_of
from scorefield.climate.verification.pair import Pair
from scorefield.data import Standardise
from scorefield.data.loader import Sequential
from weather import dataset, described, recipe, save

OFFSET, SPREAD = 250_000.0, 0.01


def offset(n: int = 40) -> xr.Dataset:
    """Fields of a spread of a hundredth about 250000, float64."""
    data = dataset(n)
    waves = (data.tas - 280).astype("float64") / 5
    return data.assign(tas=(OFFSET + SPREAD * waves).assign_attrs(data.tas.attrs))


@pytest.mark.parametrize("name", ["x.nc", "x", "packed.nc"])
def test_fields_are_read_with_their_digits(name: str, tmp_path: Path) -> None:
    data = offset()
    if name == "packed.nc":
        data.tas.encoding = {
            "dtype": "int16",
            "scale_factor": SPREAD / 1000,
            "add_offset": OFFSET,
            "_FillValue": -(2**15),
        }
    path = save(data, tmp_path / name)
    for memory in (4.0, 0.0):
        source = Climate(Variables(path, ["tas"]), Blocks(8, 4, (3,), (2,)), coarsen=4, memory=memory)
        fields = source.load("train")
        batch = next(iter(Sequential(fields, 100)))
        assert batch.x.dtype == batch.cond["field"].dtype == torch.float64
        truth = data.tas.values[[fields.place(i).number for i in range(len(fields))]]
        np.testing.assert_allclose(batch.x[:, 0], truth, rtol=0, atol=SPREAD / 1000)
        z = Standardise().fit(Sequential(fields))(batch.x)
        assert float(z.std()) == pytest.approx(1, abs=1e-3) and len(z.float().unique()) > 1000
        assert any(f"std {batch.x.std(correction=0):.4g}" in line and "249999.9" in line for line in fields.metadata)


def test_ordinary_fields_stay_float32(tmp_path: Path) -> None:
    data = dataset(40)
    for name, tas in (("a.nc", data.tas), ("b.nc", data.tas.astype("float64"))):
        assert Cube(Variables(save(data.assign(tas=tas), tmp_path / name), ["tas"])).dtype == np.float32


def test_predictions_are_written_with_their_digits(tmp_path: Path) -> None:
    path = save(offset(), tmp_path / "fine.nc")
    settings = recipe(described(path), normaliser="Standardise", predictors="Standardise")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    assert main(["train", str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run")]) == 0
    for name in ("p.nc", "p.zarr"):
        words = [
            "downscale",
            str(tmp_path / "run"),
            "valid",
            "--out",
            str(tmp_path / name),
            "--members",
            "2",
            "--steps",
            "3",
        ]
        truth = tmp_path / f"truth-{name}"
        assert main([*words, "--chunk", "4", "--reach", "50", "--most", "2", "--truth", str(truth)]) == 0
        options = {"engine": "h5netcdf"} if name == "p.nc" else {"engine": "zarr", "consolidated": False}
        with xr.open_dataset(tmp_path / name, **options) as drawn, xr.open_dataset(truth, **options) as known:
            assert drawn.tas.dtype == known.tas.dtype == np.float64
            assert np.abs(drawn.tas.values - OFFSET).max() < 100 and len(np.unique(drawn.tas)) == drawn.tas.size
            assert float(known.tas.std()) < 2 * SPREAD and len(np.unique(known.tas)) > 0.9 * known.tas.size


def test_verification_keeps_them(tmp_path: Path) -> None:
    values = offset(4).tas.values
    truth = xr.Dataset({"tas": (("time", "y", "x"), values)})
    pred = xr.Dataset({"tas": (("member", "time", "y", "x"), np.stack((values, values + SPREAD)))})
    pair = Pair(pred, truth, np.ones(values.shape[1:]), np.arange(4), dates_of(truth), 24.0)
    ours, theirs = pair.at("tas", time=slice(0, 2))
    np.testing.assert_allclose((ours - theirs).mean((1, 2, 3)), [0, SPREAD], atol=1e-9)
    warm = 280 + 500 * (values - OFFSET)
    apart = Pair(pred * 0 + warm, truth * 0 + warm, pair.area, pair.block, pair.dates, pair.hours)
    assert all(part.dtype == np.float32 for part in apart.at("tas"))
