"""Verification on xarray: what exchangeable and spoilt ensembles get, on real fields too, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scorefield.cli import main
from scorefield.climate.files import open_dataset
from scorefield.climate.verification import boxes, job, pair
from scorefield.climate.verification.figures import skill
from scorefield.climate.verification.job import Verify
from scorefield.climate.verification.pair import pair_up
from scorefield.climate.verification.score import Options, score
from scorefield.foundation.errors import InputError

RANDOM = np.random.default_rng(0)


def smooth(*shape: int) -> np.ndarray:
    """Fields with a red spectrum, unit variance at each point, independent in all but the last two dimensions."""
    white = np.fft.rfft2(RANDOM.normal(size=shape))
    k = np.hypot(np.fft.fftfreq(shape[-2])[:, None], np.fft.rfftfreq(shape[-1]))
    k[0, 0] = 1 / shape[-1]
    field = np.fft.irfft2(white * k**-1.5, s=shape[-2:])
    return field / field.std()


def dataset(values: np.ndarray, name: str = "tas", units: str = "K", freq: str = "6h", **coords: object) -> xr.Dataset:
    dims = ("member", "time", "lat", "lon")[-values.ndim :]
    *_, n, height, width = values.shape
    axes = {
        "time": xr.date_range("2001-01-01", periods=n, freq=freq),
        "lat": np.linspace(60, 40, height),
        "lon": np.linspace(0, 20, width),
    }
    data = xr.Dataset({name: (dims, values.astype(np.float32), {"units": units})}, axes | coords)
    return data.assign_coords(lat=data["lat"].assign_attrs(units="degrees_north"))


@pytest.fixture(scope="module")
def exchangeable() -> tuple[xr.Dataset, xr.Dataset]:
    """8 members and a truth that could be one of them, a year of days."""
    common, own = smooth(360, 24, 20), smooth(9, 360, 24, 20)
    fields = common + 0.5 * own
    return dataset(fields[1:], freq="1D"), dataset(fields[0], freq="1D")


def test_an_ensemble_that_the_truth_belongs_to(exchangeable: tuple[xr.Dataset, xr.Dataset]) -> None:
    pair = pair_up(*exchangeable, blocks="month")
    found = score(pair, Options(replicates=60))["tas"].record
    assert set(found) >= {"all", "DJF", "MAM", "JJA", "SON", "cycles"}
    every = found["all"]
    assert every["spread_skill"]["value"] == pytest.approx(1, abs=0.02)
    assert every["log_spectral_distance"]["value"] < 0.3
    assert every["outside_ensemble"]["value"] == pytest.approx(1, abs=0.1)
    assert np.abs(np.array(every["rank_frequencies"]) - 1).max() < 0.1
    # the CRPS of N(0, s²) against a truth of the same law is s/√π
    assert every["crps"]["value"] == pytest.approx(0.5 / np.sqrt(np.pi), rel=0.03)
    assert every["crps"]["low"] < every["crps"]["value"] < every["crps"]["high"]
    for figure in every["quantiles"].values():
        assert figure["bias"]["value"] == pytest.approx(0, abs=0.25)
    assert every["boxes"]["tas"]["wasserstein"] < 0.15 and "rx1day" not in every["boxes"]["tas"]
    assert every["boxes"]["tas"]["yearly_maximum"] == pytest.approx(
        every["boxes"]["tas"]["yearly_maximum_truth"], rel=0.05
    )
    assert len(found["cycles"]["months"]["of"]) == 12 and "hours" not in found["cycles"]
    weighted = np.average([found[s]["crps"]["value"] for s in ("DJF", "MAM", "JJA", "SON")], weights=[84, 92, 92, 92])
    assert weighted == pytest.approx(every["crps"]["value"], rel=0.01)


def test_what_is_spoilt_is_seen(exchangeable: tuple[xr.Dataset, xr.Dataset]) -> None:
    pred, truth = (data.isel(time=slice(0, 90)) for data in exchangeable)
    mean = pred.mean("member")
    cases = {
        "narrow": mean + 0.5 * (pred - mean),
        "shifted": pred + 1,
        "noisy": pred + RANDOM.normal(size=(8, 90, 24, 20)),
    }
    options = Options(replicates=0)
    found = {name: score(pair_up(case, truth), options)["tas"].record["all"] for name, case in cases.items()}
    assert found["narrow"]["spread_skill"]["value"] == pytest.approx(0.5, abs=0.02)
    assert found["narrow"]["outside_ensemble"]["value"] > 1.5
    assert found["shifted"]["bias"]["value"] == pytest.approx(1, abs=0.03)
    assert found["shifted"]["boxes"]["tas"]["wasserstein"] == pytest.approx(1, abs=0.03)
    assert found["shifted"]["quantiles"]["0.5"]["bias"]["value"] == pytest.approx(1, abs=0.05)
    assert found["noisy"]["log_spectral_distance"]["value"] > 5
    assert all("low" not in one["crps"] for one in found.values())


def test_area_and_masks_weigh(exchangeable: tuple[xr.Dataset, xr.Dataset]) -> None:
    pred, truth = (data.isel(time=slice(0, 3)).copy(deep=True) for data in exchangeable)
    offset = xr.where(truth["lat"] > 50, 1.0, 0.0)
    biased = truth + offset
    expected = np.average(offset, weights=np.cos(np.deg2rad(truth["lat"])))
    found = score(pair_up(biased, truth), Options(replicates=0))["tas"]
    assert found.record["all"]["bias"]["value"] == pytest.approx(expected, rel=1e-4)
    truth["tas"][:, :4, :5] = np.nan
    masked = score(pair_up(pred, truth), Options(replicates=0))["tas"]
    assert np.isnan(masked.maps["crps"][:4, :5]).all() and np.isfinite(masked.maps["crps"][4:]).all()
    assert masked.record["all"]["log_spectral_distance"]["value"] < 3  # from the pairs of points that are known
    few = truth.where(truth["lat"] > 58)
    assert "log_spectral_distance" not in score(pair_up(pred, few), Options(replicates=0))["tas"].record["all"]
    rest = score(pair_up(pred.isel(lat=slice(4, None)), truth.isel(lat=slice(4, None))), Options(replicates=0))["tas"]
    np.testing.assert_allclose(masked.maps["crps"][4:], rest.maps["crps"])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Predictions as one file, with one member, and as several files, beside the truth."""
    folder = tmp_path_factory.mktemp("stored")
    draw = np.random.default_rng(1)
    pred, truth = (dataset(draw.normal(size=shape)) for shape in ((4, 1024, 16, 16), (1024, 16, 16)))
    for name, data in (("one.nc", pred), ("alone.nc", pred.isel(member=0)), ("truth.nc", truth)):
        data.to_netcdf(folder / name, engine="h5netcdf")
    (folder / "several").mkdir()
    for first in range(0, 1024, 256):
        part = pred.isel(time=slice(first, first + 256))
        part.to_netcdf(folder / "several" / f"{first:04d}.nc", engine="h5netcdf")
    return folder


@pytest.mark.parametrize("name", ["one.nc", "alone.nc", "several"])
def test_what_exceeds_memory_is_read_in_parts_to_the_same_figures(
    name: str, stored: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    for module in (pair, boxes):
        monkeypatch.setattr(module, "VALUES", 2**15)
    monkeypatch.setattr(boxes, "SAMPLED", 2**12)
    files, every = [stored / name, stored / "truth.nc"], {"all": np.ones(1024, bool)}
    held = pair_up(*[open_dataset(file).load() for file in files], blocks="month")
    tracemalloc.start()
    lazy = pair_up(*[open_dataset(file) for file in files], blocks="month")
    found, ranges = boxes.box_figures(lazy, every)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * (held.pred["tas"].nbytes + held.truth["tas"].nbytes)
    for part in ({"time": slice(7, 300)}, {"y": slice(3, 6)}):  # as every figure reads them
        assert all(map(np.array_equal, lazy.at("tas", **part), held.at("tas", **part)))
    expected, values = boxes.box_figures(held, every)
    for key, figure in expected["all"].maps["tas"].items():
        np.testing.assert_allclose(found["all"].maps["tas"][key], figure, rtol=1e-12)
    assert ranges["tas"].sample.equal(values["tas"].sample)


def test_memory_and_the_correlation_of_variables() -> None:
    noise = RANDOM.normal(size=(4, 2500, 2, 2))
    series = np.zeros_like(noise)
    for t in range(1, 2500):
        series[:, t] = 0.8 * series[:, t - 1] + 0.6 * noise[:, t]
    other = 0.5 * series + np.sqrt(0.75) * RANDOM.normal(size=series.shape)
    both = [dataset(x).merge(dataset(y, "pr", "mm/h")) for x, y in ((series[1:], other[1:]), (noise[0], noise[0]))]
    boxes = score(pair_up(*both), Options(replicates=0))["tas"].record["all"]["boxes"]
    assert boxes["tas"]["lag1_correlation"] == pytest.approx(0.8, abs=0.03)
    assert boxes["tas"]["lag1_correlation_truth"] == pytest.approx(0, abs=0.03)
    assert boxes["tas × pr"]["correlation"] == pytest.approx(0.5, abs=0.03)
    assert boxes["tas × pr"]["correlation_truth"] == pytest.approx(1)


def test_spells_are_the_mean_lengths_of_what_is_wet_and_dry() -> None:
    days = np.zeros((12, 2, 2))
    days[[1, 2, 3, 7]] = 5.0  # wet for 3 and 1 days, dry for 1, 3 and 4
    truth, wetter = (dataset(x, "pr", "mm/day", "1D") for x in (days, np.maximum(days, np.roll(days, 1, 0))))
    found = score(pair_up(wetter, truth), Options(replicates=0))["pr"].record["all"]["boxes"]["pr"]
    assert found["wet_spell_truth"] == pytest.approx(2) and found["dry_spell_truth"] == pytest.approx(8 / 3)
    assert found["wet_spell_error"] == pytest.approx(1) and found["dry_spell_error"] == pytest.approx(2 - 8 / 3)
    holes = truth.isel(time=[0, 1, 2, 4, 5, 6, 7])  # a spell does not go on across days that are not there
    found = score(pair_up(holes, holes), Options(replicates=0))["pr"].record["all"]["boxes"]["pr"]
    assert found["wet_spell"] == pytest.approx(3 / 2) and found["dry_spell"] == pytest.approx(4 / 2)


def test_the_median_of_rain_that_mostly_does_not_fall_is_zero() -> None:
    rain = np.maximum(np.random.default_rng(0).normal(-1, 1, (40, 8, 8)), 0)
    found = score(pair_up(*[dataset(rain, "pr", "mm/h")] * 2), Options(replicates=0))["pr"].record["all"]["quantiles"][
        "0.5"
    ]
    assert found["prediction"]["value"] == found["truth"]["value"] == 0 and "ratio" not in found


def test_bands_hold_an_ensemble_that_the_truth_belongs_to_and_not_a_narrow_one() -> None:
    fields = smooth(9, 150, 8, 8)
    pred, truth = dataset(fields[1:], freq="1D"), dataset(fields[0], freq="1D")
    outside = {}
    for name, case in (("good", pred), ("narrow", pred * 0.4)):
        every = score(pair_up(case.assign(tas=case["tas"].assign_attrs(units="K")), truth), Options(replicates=100))[
            "tas"
        ].record["all"]
        low, high = map(np.array, every["rank_band"])
        ranks = np.array(every["rank_frequencies"])
        outside[name] = np.mean((ranks < low) | (ranks > high))
        reliability = every["reliability"][min(every["reliability"], key=float)]
        assert len(reliability["observed"]) == 9 == len(reliability["band"][0]) and sum(
            reliability["share"]
        ) == pytest.approx(1)
    assert outside["good"] <= 0.25 and outside["narrow"] > 0.5


def test_the_bootstrap_of_skill_covers_the_true_skill() -> None:
    """Scores of blocks with chance of their own: the central 95 % has the true ratio in it about as often."""
    random, hits = np.random.default_rng(0), 0
    for number in range(200):
        theirs = random.gamma(4, 1, 40)
        ours = 0.9 * theirs + random.normal(0, 0.5, 40)
        found = skill(torch.from_numpy(ours), torch.from_numpy(theirs), 200, number)
        hits += found["low"] <= 0.1 <= found["high"]
    assert 0.89 < hits / 200 < 0.99


def test_the_first_line_says_where_predictions_lose(
    exchangeable: tuple[xr.Dataset, xr.Dataset],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job, "draw", lambda *_, **__: None)  # pictures have a test of their own
    pred, truth = (data.isel(time=slice(0, 20), lat=slice(0, 12), lon=slice(0, 10)) for data in exchangeable)
    for name, data in (("pred", pred), ("truth", truth), ("good", truth), ("bad", pred + 3)):
        data["tas"].attrs["units"] = "K"
        data.isel(lat=slice(None, None, -1)).to_netcdf(tmp_path / f"{name}.nc", engine="h5netcdf")
    words = ["verify", str(tmp_path / "pred.nc"), str(tmp_path / "truth.nc"), "--replicates", "20", "--baselines"]
    for bases, first in ((["good", "bad"], "LOSES: tas to good (CRPS "), (["bad"], "Better than bad by CRPS")):
        files = json.dumps({name: str(tmp_path / f"{name}.nc") for name in bases})
        assert main([*words, files, "--out", str(tmp_path / first[:5])]) == 0
        assert capsys.readouterr().out.startswith(first)
    record = json.loads((tmp_path / "LOSES" / "verification.json").read_text())
    assert record["baselines"]["bad"]["tas"]["skill"]["low"] > 0.5
    assert record["baselines"]["bad"]["tas"]["crps"] == pytest.approx(
        record["variables"]["tas"]["all"]["crps"]["value"]
    )


def test_extremes_of_rain_are_those_of_days_whatever_the_step() -> None:
    hourly = np.zeros((24 * 30, 2, 2))
    hourly[24 * 3 : 24 * 4], hourly[24 * 9 : 24 * 10, 0] = 0.5, 2.0  # 12 mm on one day, 48 mm on another in one row
    truth, wetter = (dataset(x, "pr", "mm/h", "1h") for x in (hourly, 2 * hourly))
    found = score(pair_up(wetter, truth), Options(replicates=0))["pr"].record["all"]
    boxes = found["boxes"]["pr"]
    area = np.cos(np.deg2rad([60, 40]))
    assert boxes["rx1day_truth"] == pytest.approx(np.average([48, 12], weights=area))
    assert boxes["sdii_truth"] == pytest.approx(np.average([30, 12], weights=area))
    assert boxes["rx1day"] == pytest.approx(2 * boxes["rx1day_truth"]) and boxes["sdii"] == pytest.approx(
        2 * boxes["sdii_truth"]
    )
    assert found["wet_share_ratio"]["value"] == pytest.approx(1) and found["wet_intensity_ratio"][
        "value"
    ] == pytest.approx(2)


def test_a_day_of_exactly_1_mm_is_wet() -> None:
    """Rain is often rounded: what lies on the threshold is as wet in the shares as in the intensity of wet days."""
    days = np.zeros((10, 2, 2))
    days[:3], days[3] = 1.0, 0.9
    rain = dataset(days, "pr", "mm/day", "1D")
    found = score(pair_up(rain, rain), Options(replicates=0))["pr"].record["all"]
    assert found["wet_share"]["value"] == pytest.approx(0.3) and found["boxes"]["pr"]["sdii"] == pytest.approx(1)
    skill = score(pair_up(rain, rain), Options(replicates=0, thresholds=(1.0,)))["pr"].record["all"]["fractions_skill"]
    assert skill["1"]["1"]["value"] == 1  # not NaN, as if nothing were there


@pytest.mark.parametrize("said", ["bounds", "frequency", "resolution", "methods", "steps"])
@pytest.mark.parametrize(("freq", "hours"), [("1h", 1), ("1D", 24)])
def test_a_series_that_lacks_times_is_as_wet_as_the_whole(said: str, freq: str, hours: int) -> None:
    """Rain in mm is an amount: how much is wet depends on how long it fell, not on which fields are scored."""
    rain = dataset(np.random.default_rng(2).gamma(0.3, 2, (240, 4, 4)), "pr", "mm", freq)
    iso = {1: "PT1H", 24: "P1D"}[hours]
    bounds = rain["time"].data[:, None] + np.array([0, hours]) * np.timedelta64(1, "h")
    if said == "bounds":
        rain = rain.assign_coords(bnds=(("time", "two"), bounds))
        rain["time"].attrs["bounds"] = "bnds"
    elif said == "methods":
        rain["pr"].attrs["cell_methods"] = f"time: sum (interval: {hours} hour)"
    elif said != "steps":
        key = {"frequency": "frequency", "resolution": "time_coverage_resolution"}[said]
        rain.attrs[key] = iso if said == "resolution" else {1: "1hr", 24: "day"}[hours]
    few = rain.isel(time=[0, 11, 22, 34, 45])
    truth = rain if said == "steps" else few
    pair = pair_up(few, truth)
    assert pair.hours == hours
    expected = float((few["pr"] >= (0.1 if hours == 1 else 1.0)).mean())
    found = score(pair, Options(replicates=0))["pr"].record["all"]
    assert found["wet_share"]["value"] == pytest.approx(expected, abs=0.01)
    assert ("rx1day" in found["boxes"]["pr"]) == (hours == 24)  # five hours of other days are no day


def test_grids_that_are_told_in_another_way_are_one(exchangeable: tuple[xr.Dataset, xr.Dataset]) -> None:
    pred, truth = (data.isel(time=slice(0, 5)) for data in exchangeable)
    expected = score(pair_up(pred, truth), Options(replicates=0))["tas"].record["all"]["crps"]["value"]
    truth = (
        truth.rename(lat="latitude", lon="longitude")
        .sortby("latitude")
        .assign_coords(longitude=truth["lon"].data + 360.0)
    )
    pred = pred.rename(tas="pred_tas").transpose("time", "lat", "member", "lon")
    found = score(pair_up(pred, truth), Options(replicates=0))["tas"].record["all"]["crps"]["value"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_what_cannot_be_compared_is_refused(exchangeable: tuple[xr.Dataset, xr.Dataset]) -> None:
    pred, truth = (data.isel(time=slice(0, 5)) for data in exchangeable)
    celsius = truth.copy()
    celsius["tas"].attrs["units"] = "mm"
    later = truth.assign_coords(time=truth["time"] + np.timedelta64(3, "D"))
    for other, words in (
        (celsius, ["K", "mm", "convert"]),
        (later, ["lacks 3 of the 5 times", "2001-01-01"]),
        (truth.convert_calendar("noleap"), ["calendar", "noleap"]),
        (truth.assign_coords(lon=truth["lon"] + 0.3), ["grids differ along x"]),
        (truth.isel(lat=slice(5, None)), ["grids differ along y", "60"]),
        (truth.rename(tas="pr"), ["no field of one name", "--variables"]),
        (pred, ["8 members"]),
        (truth.rename(tas="x"), ["no field of one name"]),
        (truth.isel(lat=0), ["dimensions time, lon"]),
    ):
        with pytest.raises(InputError) as caught:
            pair_up(pred, other)
        assert all(word in str(caught.value) for word in words), caught.value
    with pytest.raises(InputError, match="called x, as an axis is"):
        pair_up(pred.rename(tas="x"), truth.rename(tas="x"))
    for blocks in ("week", "0D", "xD"):
        with pytest.raises(InputError, match=f"--blocks {blocks}"):
            pair_up(pred, truth, blocks=blocks)


def test_the_command_on_real_temperatures(
    data_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = xr.open_dataset(data_folder / "climate/era5_t2m_uk_201903.nc").isel(time=slice(0, 120, 8))
    noise = np.random.default_rng(1).normal(size=(4, *truth["t2m"].shape)).astype(np.float32)
    pred = truth + xr.DataArray(noise, dims=("member", *truth["t2m"].dims))
    pred.to_netcdf(tmp_path / "pred.nc", engine="h5netcdf")
    pred.to_zarr(tmp_path / "pred.zarr")
    truth.to_netcdf(tmp_path / "truth.nc", engine="h5netcdf")
    out = tmp_path / "out"
    call = ["verify", str(tmp_path / "pred.nc"), str(tmp_path / "truth.nc"), "--replicates", "5"]
    call += ["--regions", '{"Ireland": "51.5:55.4,350:354.5"}', "--scales", "[1,5]", "--thresholds", "[280]"]
    assert main([*call, "--out", str(out)]) == 0
    assert "t2m (K)" in capsys.readouterr().out
    record = json.loads((out / "verification.json").read_text())
    figures = record["variables"]["t2m"]["all"]
    # |N(0,1)| less half of |N(0,2)|, whatever the number of members
    assert figures["crps"]["value"] == pytest.approx(np.sqrt(2 / np.pi) - 1 / np.sqrt(np.pi), abs=0.01)
    assert record["facts"]["blocks"] == 5 and list(figures["fractions_skill"]) == ["280"]
    assert record["regions"]["Ireland"]["t2m"]["all"]["crps"]["value"] == pytest.approx(
        figures["crps"]["value"], abs=0.02
    )
    assert {path.name for path in out.glob("*.png")} == {
        f"t2m-{word}.png" for word in ("maps", "spectrum", "ranks", "reliability", "quantiles", "cycles")
    }
    monkeypatch.setattr(job, "draw", lambda *_, **__: None)
    before = (out / "verification.json").stat().st_mtime_ns
    assert main([*call, "--out", str(out)]) == 0 and (out / "verification.json").stat().st_mtime_ns == before
    assert main([*call, "--seed", "1", "--out", str(out)]) == 2
    assert "is the result of another job, with seed = 0, not 1" in capsys.readouterr().err
    found = Verify(
        pred=tmp_path / "pred.nc",
        truth=tmp_path / "truth.nc",
        replicates=5,
        regions={"Ireland": "51.5:55.4,350:354.5"},
        scales=(1, 5),
        thresholds=(280.0,),
        out=tmp_path / "python",
    ).run()
    assert found == json.loads((tmp_path / "python" / "verification.json").read_text()) == record
    call[1], call[-3:] = str(tmp_path / "pred.zarr"), ["1", "5", "--thresholds=[280]"]
    assert main([*call, "--out", str(tmp_path / "again")]) == 0
    again = json.loads((tmp_path / "again" / "verification.json").read_text())
    assert again["variables"] == record["variables"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--regions", '{"x": "0:1,0:1"}'], "No box lies in 0:1,0:1"),
        (["--regions", '{"x": "0:1"}'], "--regions: x is '0:1', not south:north,west:east"),
        (["--replicates", "-1"], "--replicates is -1: give a whole number of at least 0"),
        (["--seed", "-1"], "--seed is -1"),
        (["--scales", "[0]"], "--scales is 0"),
        (["--thresholds", "x"], "thresholds"),
        (["--blocks", "week"], "--blocks week"),
        (["--driving", "{folder}/gone.nc"], "gone.nc"),
        (["--variables", '{"tas": "gone"}'], "The truth have no variable gone"),
    ],
)
def test_what_the_command_cannot_use_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    dataset(smooth(4, 8, 8)).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    call = ["verify", str(tmp_path / "x.nc"), str(tmp_path / "x.nc"), "--out", str(tmp_path / "a" / "out")]
    assert main([*call, *(word.replace("{folder}", str(tmp_path)) for word in options)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "warning" not in line]
    assert len(errors) == 1 and words in errors[0] and len(errors[0]) <= 300, errors
    assert [path.name for path in tmp_path.iterdir()] == ["x.nc"]
