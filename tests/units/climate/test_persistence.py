"""`downscale --persistence`: members that go on from one time to the next, whatever is drawn together."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml

from scorefield.cli import main
from scorefield.climate.persistence import steps_of
from scorefield.climate.predictors import EnsembleInput
from scorefield.foundation.errors import InputError
from weather import dataset, described, recipe, save, times

PHI = 0.7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network is still 0, so that what it draws is its noise in other units; and predictors of 24 days."""
    folder = tmp_path_factory.mktemp("persistence")
    fine = dataset(40)
    content = recipe(described(save(fine, folder / "fine.nc"))) | {"base": ["parts/edm-fields.yaml"]}
    content["train"] |= {"steps": 1, "preview_every": 1, "checkpoint_every": 1}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["train", str(folder / "recipe.yaml"), "--out", str(folder / "run")]) == 0
    coarse = fine.coarsen(lat=4, lon=4).mean()
    save(coarse.isel(time=slice(24)), folder / "days.nc"), save(coarse.isel(time=slice(20, 24)), folder / "last.nc")
    uneven = coarse.isel(time=slice(3)).assign_coords(time=times(24, "360_day", "6h")[[0, 4, 11]])
    save(uneven, folder / "uneven.nc")
    return folder


def drawn(folder: Path, given: str, *more: str, chunk: int = 40) -> xr.DataArray:
    """The members in model space."""
    out = folder / f"{given}-{chunk}-{'-'.join(more)}.nc"
    words = ["downscale", str(folder / "run"), str(folder / f"{given}.nc"), "--out", str(out), "--raw", *more]
    assert main([*words, "--members", "4", "--steps", "3", "--chunk", str(chunk), "--reach", ".inf"]) == 0
    with xr.open_dataset(out, engine="h5netcdf") as found:
        return found["raw_tas"].load()


def lag_one(x: xr.DataArray) -> float:
    away = (x - x.mean()).transpose("member", "time", ...).values
    return float((away[:, 1:] * away[:, :-1]).mean() / away.var())


def test_members_persist_whatever_is_drawn_together(folder: Path) -> None:
    persistent = ["--persistence", str(PHI)]
    whole = drawn(folder, "days", *persistent)
    assert lag_one(whole) == pytest.approx(PHI, abs=0.03)
    xr.testing.assert_allclose(whole, drawn(folder, "days", *persistent, chunk=30), atol=1e-4)
    xr.testing.assert_allclose(whole[:, 20:], drawn(folder, "last", *persistent), atol=1e-4)
    members = np.corrcoef(whole.values.reshape(4, -1)) - np.eye(4)
    assert np.abs(members).max() < 0.1


@pytest.mark.parametrize(
    ("given", "correlation", "said"),
    [
        ("days", "1", "from 0 to 0.99"),
        ("days", "-0.1", "from 0 to 0.99"),
        ("uneven", "0.5", "no whole steps of 1440 min"),
    ],
)
def test_what_is_no_correlation_or_no_step_is_refused(
    folder: Path, tmp_path: Path, given: str, correlation: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["downscale", str(folder / "run"), str(folder / f"{given}.nc"), "--persistence", correlation]
    assert main([*words, "--out", str(tmp_path / "out.nc")]) == 2
    assert said in capsys.readouterr().err and not [*tmp_path.iterdir()]


@dataclass(frozen=True, eq=False)
class Dated(EnsembleInput):  # pyright: ignore[reportAbstractUsage]
    """Dates alone."""

    dates: list

    def __len__(self) -> int:
        return len(self.dates)

    def date(self, position: int) -> object:
        return self.dates[position]


Dated.__abstractmethods__ = frozenset()


@pytest.mark.parametrize("calendar", ["standard", "360_day"])
@pytest.mark.parametrize("freq", ["YS", "MS", "D", "6h", "14min", "28D", "365D"])
def test_steps_are_counted_by_the_calendar(calendar: str, freq: str) -> None:
    found = steps_of(Dated([*times(30, calendar, freq)]))
    assert (np.diff(found) == 1).all()
    if freq not in ("28D", "365D"):  # steps that are nearly those of a calendar are counted as the file's own
        assert np.array_equal(steps_of(Dated([*times(30, calendar, freq)][11:])), found[11:])


def test_a_single_time_has_no_step_and_a_hole_is_as_long_as_it_is() -> None:
    assert steps_of(Dated([*times(1)])).tolist() == [0]
    days = [*times(30)]
    rounded = [day + timedelta(seconds=offset) for day, offset in zip(days, [0.5, -0.5] * 15, strict=True)]
    assert np.diff(steps_of(Dated(rounded))).tolist() == [1] * 29
    assert np.diff(steps_of(Dated([*days[:3], *days[9:12]]))).tolist() == [1, 1, 7, 1, 1]
    with pytest.raises(InputError, match="whole steps"):
        steps_of(Dated([*times(3), *times(2, freq="D", start="2000-01-04T05:00")]))
