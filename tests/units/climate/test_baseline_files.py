"""The baseline verb and the driving check of verify, on files of real temperatures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from scorefield.cli import main
from scorefield.climate.baselines import Bilinear, DressedRidge, When
from scorefield.climate.baselines.job import DrawBaseline
from scorefield.climate.regrid import block_mean
from scorefield.climate.verification.driving import consistency
from scorefield.climate.verification.job import driven
from scorefield.climate.verification.pair import pair_up
from scorefield.foundation.errors import InputError


@pytest.fixture(scope="module")
def files(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six-hourly fields of 15 days to learn from, 5 to draw for; coarse ones on a grid of their own, four times as coarse."""
    folder = tmp_path_factory.mktemp("baselines")
    fine = xr.open_dataset(data_folder / "climate/era5_t2m_uk_201903.nc").isel(
        latitude=slice(0, 16), longitude=slice(0, 24)
    )
    coarse = fine.coarsen(latitude=4, longitude=4).mean()
    for name, part in (("train", slice(0, 360, 6)), ("test", slice(384, 504, 6))):
        fine.isel(time=part).to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
        coarse.isel(time=part).to_netcdf(folder / f"{name}-coarse.nc", engine="h5netcdf")
    return folder


def call(files: Path, out: Path, *more: str, name: str = "DressedRidge") -> list[str]:
    words = ["baseline", name, str(files / "test-coarse.nc"), "--train-predictors", str(files / "train-coarse.nc")]
    return [
        *words,
        "--train-truth",
        str(files / "train.nc"),
        "--target",
        "t2m",
        "--members",
        "4",
        "--out",
        str(out),
        *more,
    ]


def test_what_is_drawn_is_a_file_that_can_be_verified(files: Path, tmp_path: Path) -> None:
    assert main(call(files, tmp_path / "pred.nc", "--seed", "3")) == 0
    pred = xr.open_dataset(tmp_path / "pred.nc")
    truth = xr.open_dataset(files / "test.nc")
    assert pred["t2m"].dims == ("member", "time", "latitude", "longitude") and pred["t2m"].attrs["units"] == "K"
    np.testing.assert_array_equal(pred["latitude"], truth["latitude"])
    np.testing.assert_array_equal(pred["time"], truth["time"])
    before = (tmp_path / "pred.nc").stat().st_mtime_ns
    assert main(call(files, tmp_path / "pred.nc", "--seed", "3")) == 0
    assert main(call(files, tmp_path / "pred.nc", "--seed", "4")) == 2  # another job's
    assert main(call(files, tmp_path / "pred.nc", "--seed", "3", "--baseline.penalty", "2")) == 2
    assert (tmp_path / "pred.nc").stat().st_mtime_ns == before
    assert main(call(files, tmp_path / "again.nc", "--seed", "3")) == 0
    xr.testing.assert_equal(pred, xr.open_dataset(tmp_path / "again.nc"))
    verb = DrawBaseline(
        baseline=DressedRidge(),
        predictors=files / "test-coarse.nc",
        train_predictors=files / "train-coarse.nc",
        train_truth=files / "train.nc",
        target="t2m",
        members=4,
        seed=3,
        out=tmp_path / "python.nc",
    )
    xr.testing.assert_equal(pred, xr.open_dataset(verb.run()))
    words = ["verify", str(tmp_path / "pred.nc"), str(files / "test.nc"), "--replicates", "0"]
    assert main([*words, "--driving", str(files / "test-coarse.nc"), "--out", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "verification.json").read_text())
    figures, driving = record["variables"]["t2m"]["all"], record["driving"]["t2m"]
    assert 0.6 < figures["spread_skill"]["value"] < 1.5 and figures["crps"]["value"] < 0.5
    assert driving["correlation_truth"] > 0.99999 and 0.99 < driving["lowest_correlation"] <= driving["correlation"] < 1
    assert 0 < driving["rmse"] < 1


def test_predictions_get_the_truths_quantiles_in_each_box(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An ensemble that is 2 K too warm and varies twice too much in training: afterwards it has the truth's law of training."""
    truth = xr.open_dataset(files / "train.nc")
    mean = truth["t2m"].mean("time")
    wrong = (mean + 2 + 2 * (truth["t2m"] - mean)).astype("f4").expand_dims(member=3).assign_attrs(units="K")
    wrong.to_dataset(name="t2m").to_netcdf(tmp_path / "wrong.nc", engine="h5netcdf")
    words = ["correct", str(tmp_path / "wrong.nc"), "--train-samples", str(tmp_path / "wrong.nc"), "--target", "t2m"]
    words += ["--train-truth", str(files / "train.nc"), "--out"]
    assert main([*words, str(tmp_path / "right.nc"), "--map.levels", "60"]) == 0
    before = (tmp_path / "right.nc").stat().st_mtime_ns
    assert main([*words, str(tmp_path / "right.nc"), "--map.levels", "60"]) == 0
    assert main([*words, str(tmp_path / "right.nc"), "--map.levels", "61"]) == 2
    assert (
        "is the result of another job" in capsys.readouterr().err
        and (tmp_path / "right.nc").stat().st_mtime_ns == before
    )
    right = xr.open_dataset(tmp_path / "right.nc")
    assert right["t2m"].dims == ("member", "time", "latitude", "longitude") and right["t2m"].attrs["units"] == "K"
    np.testing.assert_allclose(right["t2m"][1], truth["t2m"], atol=1e-3)
    np.testing.assert_array_equal(right["time"], truth["time"])
    words[1] = str(files / "test-coarse.nc")
    assert main([*words, str(tmp_path / "other.nc")]) == 2
    assert "The grids differ along y" in capsys.readouterr().err
    turned = xr.open_dataset(tmp_path / "wrong.nc").isel(latitude=slice(None, None, -1))
    turned.to_netcdf(tmp_path / "turned.nc", engine="h5netcdf")
    words[1], words[3] = (str(tmp_path / "turned.nc"),) * 2
    assert main([*words, str(tmp_path / "again.nc"), "--map.levels", "60"]) == 0
    xr.testing.assert_equal(xr.open_dataset(tmp_path / "again.nc"), right)


@pytest.fixture(scope="module")
def coarse(files: Path) -> dict[str, Path]:
    """The coarse fields to draw for, as they are, told in another way, and as they must not be."""
    data = xr.open_dataset(files / "test-coarse.nc").load()
    warm = data.copy(deep=True)
    warm["t2m"] = (data["t2m"] - 273.15).assign_attrs(units="degC")
    changed = {
        "turned": data.isel(latitude=slice(None, None, -1)).assign_coords(longitude=data["longitude"] + 360),
        "celsius": warm,
        "pascal": data.assign(t2m=data["t2m"].assign_attrs(units="Pa")),
        "moved": data.assign_coords(longitude=data["longitude"] + 0.25),
        "broken": data.where(data["latitude"] > data["latitude"].min(), np.inf),
    }
    for name, one in changed.items():
        one.to_netcdf(files / f"{name}.nc", engine="h5netcdf")
    return {name: files / f"{name}.nc" for name in changed} | {"same": files / "test-coarse.nc"}


def test_rows_and_longitudes_told_in_another_way_are_the_same_fields(
    files: Path, coarse: dict[str, Path], tmp_path: Path
) -> None:
    pair = pair_up(xr.open_dataset(files / "test.nc"), xr.open_dataset(files / "test.nc"))
    assert driven(pair, coarse["turned"]) == driven(pair, coarse["same"])
    for name, given in coarse.items():
        if name in ("same", "turned", "celsius"):
            words = call(files, tmp_path / f"{name}.nc", name="Bilinear")
            words[2] = str(given)
            assert main(words) == 0
    same, turned, warm = (xr.open_dataset(tmp_path / f"{name}.nc") for name in ("same", "turned", "celsius"))
    xr.testing.assert_equal(same, turned)
    xr.testing.assert_allclose(same, warm, atol=1e-3)
    assert driven(pair, coarse["celsius"])["t2m"]["rmse"] == pytest.approx(
        driven(pair, coarse["same"])["t2m"]["rmse"], rel=1e-2
    )


@pytest.mark.parametrize(
    ("name", "words", "of_driving"),
    [
        ("pascal", "Pa", "Pa"),
        ("moved", "grids differ along x", "grids differ along x"),
        ("broken", "infinite values", None),
    ],
)
def test_other_units_and_places_are_refused(
    files: Path,
    coarse: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
    of_driving: str | None,
) -> None:
    arguments = call(files, tmp_path / "pred.nc", name="Bilinear")
    arguments[2] = str(coarse[name])
    assert main(arguments) == 2 and words in capsys.readouterr().err and not (tmp_path / "pred.nc").exists()
    if of_driving:
        pair = pair_up(xr.open_dataset(files / "test.nc"), xr.open_dataset(files / "test.nc"))
        with pytest.raises(InputError, match=of_driving):
            driven(pair, coarse[name])


def test_options_of_a_baseline(files: Path, tmp_path: Path) -> None:
    assert main(call(files, tmp_path / "a.nc", "--baseline.bins", "3", name="DressedBilinear")) == 0
    assert main(call(files, tmp_path / "b.nc", name="Bilinear")) == 0
    a, b = (xr.open_dataset(tmp_path / f"{name}.nc")["t2m"] for name in "ab")
    assert float(a.std("member").mean()) > 0.1 and float(b.std("member").max()) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--target": "tas"}, ["no variable tas", "t2m"]),
        ({"--out": "pred.zarr"}, ["pred.zarr", ".nc"]),
        ({"--members": "0"}, ["--members is 0"]),
        ({"baseline": "Bilinea"}, ["Bilinea"]),
        ({"--train-predictors": "{files}/train.nc"}, ["grids differ along"]),
        ({"--train-truth": "{files}/test.nc"}, ["lacks 20 of the 20 times"]),
        ({"--train-truth": "{files}/gone.nc"}, ["no file", "gone.nc"]),
    ],
)
def test_what_cannot_be_used_is_refused(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], words: list[str]
) -> None:
    arguments = call(files, tmp_path / "pred.nc")
    for option, value in change.items():
        arguments[arguments.index(option) + 1] = value.format(files=files)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words) and error.count("\n") == 1 and not list(tmp_path.iterdir()), error


def test_members_that_keep_the_driving_field_correlate_perfectly_with_it() -> None:
    random = np.random.default_rng(0)
    coarse = random.gamma(1, 2, (6, 3, 4))
    axes = {"time": np.arange(6), "lat": [50.0, 40.0, 30.0, 20.0, 10.0, 0.0], "lon": np.arange(8.0)}
    fine = np.kron(coarse, np.ones((1, 2, 2)))
    truth = xr.Dataset({"pr": (("time", "lat", "lon"), fine.astype(np.float32))}, axes)
    noise = random.normal(size=(3, *fine.shape))
    area = np.broadcast_to(np.cos(np.deg2rad(axes["lat"]))[:, None], (6, 8))
    balanced = noise - np.kron(block_mean(noise, (2, 2), area), np.ones((2, 2)))
    for extra, expected in ((balanced, 1.0), (noise, np.nan)):
        pair = pair_up(
            xr.Dataset({"pr": (("member", "time", "lat", "lon"), (fine + extra).astype(np.float32))}, axes), truth
        )
        found = consistency(pair, "pr", coarse)
        if expected == 1:
            assert found["lowest_correlation"] == pytest.approx(1, abs=1e-6) and found["rmse"] < 1e-5
        else:
            means = block_mean(fine + extra, (2, 2), area)
            each = [np.corrcoef(one.ravel(), coarse.ravel())[0, 1] for one in means]
            assert found["correlation"] == pytest.approx(np.mean(each), abs=1e-5)
            assert found["rmse"] == pytest.approx(np.sqrt(np.square(means - coarse).mean((1, 2, 3))).mean(), rel=1e-4)
    smooth = Bilinear().fit(coarse, fine, When.unknown(6)).draw(coarse, 1, 0, When.unknown(6))
    assert smooth.shape == (1, 6, 6, 8)


FILLS = {"-9999": ({}, -9999.0), "1e20": ({}, 1e20), "packed": ({"dtype": "i2", "scale_factor": 0.01}, -327.68)}


@pytest.mark.parametrize(
    ("role", "units", "fill"),
    [
        ("train-coarse", "K", "-9999"),
        ("train-fine", "degC", "1e20"),
        ("test-coarse", "K", "packed"),
        ("pred", "K", "-9999"),
        ("pred", "degC", "packed"),
    ],
)
def test_a_fill_value_that_no_file_names_is_refused_whatever_the_units(
    role: str, units: str, fill: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is seen as it is stored: -9999 K is -10272.15 °C."""
    encoding, value = FILLS[fill]
    random = np.random.default_rng(0)
    for name, size in (("train-coarse", 2), ("train-fine", 4), ("test-coarse", 2), ("test-fine", 4), ("pred", 4)):
        axes = {
            "time": xr.date_range("2001-01-01", periods=3),
            **{a: (np.arange(size) + 0.5) * 8 / size for a in ("lat", "lon")},
        }
        values = (5 + random.normal(size=(3, size, size))).astype("f4")
        if name == role:
            values[1, 0, 1] = value
        data = xr.Dataset({"tas": (("time", "lat", "lon"), values, {"units": units if name == role else "degC"})}, axes)
        data.to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf", encoding={"tas": {"_FillValue": None, **encoding}})
    paths = {
        name: str(tmp_path / f"{name}.nc")
        for name in ("train-coarse", "train-fine", "test-coarse", "pred", "test-fine")
    }
    learnt = ["--train-truth", paths["train-fine"], "--target", "tas"]
    calls = [["baseline", "Bilinear", paths["test-coarse"], "--train-predictors", paths["train-coarse"], *learnt],
             ["correct", paths["test-coarse"], "--train-samples", paths["train-coarse"], *learnt]]  # fmt: skip
    if role == "pred":
        calls = [["verify", paths["pred"], paths["test-fine"], "--replicates", "0"],
                 ["verify", paths["test-fine"], paths["test-fine"], "--driving", paths["pred"], "--replicates", "0"]]  # fmt: skip
    for words in calls:
        assert main([*words, "--out", str(tmp_path / "out.nc")]) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "can only stand for unknown" in said and "tas is " in said, said
        assert ("predictions" if words[1] == paths["pred"] else f"{role}.nc") in said
        assert not (tmp_path / "out.nc").exists()


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Observations of 19×29 with a sea; predictors of 6×8 in °C with a second variable; members of 6×8."""
    folder, random = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0)
    times = xr.date_range("2001-01-01", periods=40)

    def placed(values: np.ndarray, units: str) -> tuple:
        return (("member", "time", "lat", "lon")[-values.ndim :], values.astype("f4"), {"units": units})

    axes = [
        {"time": times, "lat": 40 + (np.arange(n) + 0.5) * 10 / n, "lon": (np.arange(m) + 0.5) * 12 / m}
        for n, m in ((19, 29), (6, 8))
    ]
    fine = xr.Dataset({"tas": placed(280 + random.normal(size=(40, 19, 29)), "K")}, axes[0])
    fine.where((fine["lon"] < 8) & (fine["tas"] > 277.5)).to_netcdf(folder / "fine.nc", engine="h5netcdf")
    coarse = xr.Dataset(
        {
            "tas": placed(9 + random.normal(size=(40, 6, 8)), "degC"),
            "psl": placed(1e5 + random.normal(size=(40, 6, 8)), "Pa"),
        },
        axes[1],
    )
    for name, part in (("train", slice(0, 30)), ("test", slice(30, 40))):
        coarse.isel(time=part).to_netcdf(folder / f"{name}.nc", engine="h5netcdf")
        coarse.isel(time=part)[["tas"]].expand_dims(member=2).to_netcdf(
            folder / f"{name}-members.nc", engine="h5netcdf"
        )
    for name, part in (("train", slice(0, 30)), ("test", slice(30, 40))):
        xr.open_dataset(folder / "fine.nc").isel(time=part).to_netcdf(folder / f"{name}-fine.nc", engine="h5netcdf")
    return folder


@pytest.mark.slow
def test_a_real_pair_has_baselines_and_corrections(uneven: Path, tmp_path: Path) -> None:
    truth, out = str(uneven / "train-fine.nc"), str(tmp_path / "pred.nc")
    words = ["baseline", "Ridge", str(uneven / "test.nc"), "--train-predictors", str(uneven / "train.nc")]
    words += ["--train-truth", truth, "--target", "tas", "--members", "5"]
    assert main([*words, "--dressed", "--predictor", "tas", "psl", "--out", out]) == 0
    words = ["correct", str(uneven / "test-members.nc"), "--train-samples", str(uneven / "train-members.nc")]
    assert main([*words, "--train-truth", truth, "--target", "tas", "--out", str(tmp_path / "right.nc")]) == 0
    for name in ("pred", "right"):
        found = xr.open_dataset(tmp_path / f"{name}.nc")["tas"]
        land = found["lon"] < 8
        assert found.attrs["units"] == "K" and found.sizes["lat"] == 19
        assert bool((found.notnull() == land).all()) and abs(float(found.mean()) - 280) < 1
        words = ["verify", str(tmp_path / f"{name}.nc"), str(uneven / "test-fine.nc"), "--replicates", "0"]
        assert main([*words, "--out", str(tmp_path / name)]) == 0
