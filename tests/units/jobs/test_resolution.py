"""Functions from the command line: other resolutions, super-resolution, conditions, pictures; what is no function is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
import tiny
from scorefield.cli import main
from scorefield.foundation import fourier
from scorefield.foundation.cosine import resample
from scorefield.foundation.errors import InputError
from scorefield.jobs.resolution import conditions, grid_of
from scorefield.jobs.sample import Sample
from scorefield.metrics.image import psnr

RECIPE = """
base: [parts/functions.yaml, parts/function-unet.yaml]
model:
  net:
    init_args: {channels: 4, multipliers: [1, 2], patch: 1}
  sde:
    noise:
      class_path: scorefield.core.noise.GaussianField
      init_args:
        density:
          class_path: scorefield.core.noise.Exponential
          init_args: {length: 0.3}
  sampler: {steps: 4}
DATA
train:
  {steps: 2, batch_size: 4, log_every: 1, validate_every: 2, validate_on: 4, preview_every: 9, checkpoint_every: 1}
"""
VOLCANO = """data:
  class_path: scorefield.datasets.Volcano
  init_args: {n: 8, size: 12, valid: 4}
"""
FLOW = """data:
  class_path: scorefield.functions.Windows
  init_args:
    radius: 1
    sequences:
      class_path: scorefield.datasets.NavierStokes
      init_args: {sequences: 3, frames: 4, interval: 0.1, spin_up: 0.1, step: 0.05, size: 16, valid: 1}
"""


def train(folder: Path, data: str, **overrides: object) -> Path:
    from scorefield.run import experiment as run

    path = tiny.recipe(folder, RECIPE.replace("DATA\n", data))
    run.train(*tiny.settings(path, **overrides), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("volcano"), VOLCANO)


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Conditioned on windows of a flow."""
    return train(tmp_path_factory.mktemp("flow"), FLOW, model__net__cond_channels=3)


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_a_field_model_is_sampled_on_any_grid_of_its_domain(run, tmp_path, capsys) -> None:
    options = ["-n", "2", "--chunk", "2", "--steps", "2"]
    for resolution, size in ((["18"], 18), (["7", "7"], 7), ([], 12)):
        out = tmp_path / f"s{size}"
        more = ["--resolution", *resolution] if resolution else []
        assert main(["sample", str(run), *options, "--out", str(out), *more]) == 0
        assert np.load(out / "samples.npy").shape == (2, 2, size, size)
        assert json.loads((out / "job.json").read_text())["shape"] == [2, size, size]
    assert "warning" not in capsys.readouterr().err
    refused(capsys, ["sample", str(run), *options, "--out", str(tmp_path / "s18")], "shape")
    refused(capsys, ["sample", str(run), *options, "--out", str(tmp_path / "x"), "--resolution", "12", "24"], "domain")


def test_white_noise_is_said_to_be_another_process_on_another_grid(tmp_path, capsys) -> None:
    white = train(tmp_path, VOLCANO, model__sde__noise="White")
    assert (
        main(["sample", str(white), "-n", "1", "--chunk", "1", "--resolution", "36", "--out", str(tmp_path / "s")]) == 0
    )
    said = capsys.readouterr().err
    assert "warning: the noise of this model is another process" in said and "0.11 times the variance" in said
    assert np.load(tmp_path / "s" / "samples.npy").shape == (1, 2, 36, 36)


def test_one_number_is_the_longest_axis() -> None:
    assert grid_of((72, 47), [144]) == (144, 94) and grid_of((72, 47), [144, 94]) == (144, 94)
    assert grid_of((10, 7), [25]) == (25, 18) and grid_of((8,), []) == (8,)
    for wrong in ([144, 47], [1, 2, 3], [0]):
        with pytest.raises(InputError):
            grid_of((72, 47), wrong)


def test_windows_condition_samples_on_any_grid(flow, tmp_path, capsys) -> None:
    out = tmp_path / "s"
    call = ["sample", str(flow), "-n", "3", "--chunk", "3", "--steps", "2", "--out", str(out), "--resolution", "24"]
    refused(capsys, call, "conditioned")
    assert main([*call, "--given", "valid"]) == 0
    assert np.load(out / "samples.npy").shape == (3, 1, 24, 24)
    refused(capsys, [*call, "--given", "train"], "given")
    fields = scorefield.run.loading.open_checkpoint(flow).source().load("valid")
    coarse, fine = (
        conditions(fields, torch.arange(3), (16, 16))["field"],
        conditions(fields, torch.arange(3), (24, 24))["field"],
    )
    torch.testing.assert_close(resample(fine, (16, 16)), coarse, atol=1e-5, rtol=0)


def test_samples_are_conditioned_on_a_file(flow, tmp_path, capsys) -> None:
    """As on the held-out fields that the file holds, on their grid or another one; another file is another job."""
    fields = scorefield.run.loading.open_checkpoint(flow).source().load("valid")
    known = conditions(fields, torch.arange(3), (16, 16))["field"]
    np.save(tmp_path / "a.npy", known.numpy())
    np.save(tmp_path / "one.npy", known[:1].numpy())

    def cond(given: str, **more: object) -> torch.Tensor:
        return Sample(run=flow, n=3, out=tmp_path / "never", given=given, **more).job().cond["field"]

    for more in ({}, {"resolution": (24,)}):
        torch.testing.assert_close(cond(str(tmp_path / "a.npy"), **more), cond("valid", **more), rtol=1e-5, atol=1e-5)
    assert torch.equal(cond(str(tmp_path / "one.npy")), cond("valid")[:1].expand(3, -1, -1, -1))
    call = ["sample", str(flow), "-n", "3", "--chunk", "3", "--steps", "2"]
    assert main([*call, "--given", str(tmp_path / "a.npy"), "--out", str(tmp_path / "file")]) == 0
    refused(capsys, [*call, "--out", str(tmp_path / "file"), "--given", str(tmp_path / "one.npy")], "given")
    holes = known.numpy().copy()
    holes[1, 0, :4] = np.nan
    np.save(tmp_path / "holes.npy", holes)
    np.save(tmp_path / "empty.npy", np.where(np.arange(3)[:, None, None, None] == 2, np.nan, holes))
    assert main([*call, "--given", str(tmp_path / "holes.npy"), "--out", str(tmp_path / "holes")]) == 0
    assert "of --given is not known (NaN)" in capsys.readouterr().err
    finer = ["--resolution", "24", "--given", str(tmp_path / "holes.npy"), "--out", str(tmp_path / "x")]
    refused(capsys, [*call, *finer], "not of the grid 24×24")
    refused(capsys, [*call, "--given", str(tmp_path / "empty.npy"), "--out", str(tmp_path / "x")], "of field 2, which")
    np.save(tmp_path / "wrong.npy", np.zeros((2, 9, 16, 16), np.float32))
    for wrong, words in (("wrong.npy", "9×16×16"), ("absent.npy", "no file")):
        refused(capsys, [*call, "--out", str(tmp_path / "x"), "--given", str(tmp_path / wrong)], words)
    refused(capsys, [*call, "--out", str(tmp_path / "x"), "--given", "test"], "no file test")


def stored(path, arrays) -> None:
    """Named arrays in a file of the kind that its name says."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, values in arrays.items():
                file[name] = values
    elif path.suffix == ".mat":
        pytest.importorskip("scipy.io").savemat(path, arrays)
    else:
        xarray = pytest.importorskip("xarray")
        axes = {name: (name, values) for name, values in arrays.items() if values.ndim == 1}
        variable = (("field", "channel", "lat", "lon"), arrays["vorticity"])
        file = xarray.Dataset({"vorticity": variable}, axes)
        file.to_netcdf(path) if path.suffix == ".nc" else file.to_zarr(path)


@pytest.mark.parametrize("name", ["a.npz", "a.h5", "a.nc", "a.zarr", "a.mat"])
def test_conditions_are_read_from_files_of_named_arrays_and_keep_their_coordinates(
    flow, tmp_path, capsys, name
) -> None:
    """As from a .npy; coordinates as they are on the same grid, and the middles of cells on another."""
    fields = scorefield.run.loading.open_checkpoint(flow).source().load("valid")
    known = conditions(fields, torch.arange(2), (16, 16))["field"].numpy()
    lat, lon = np.linspace(40, 47.5, 16), np.linspace(350, 320, 16)
    stored(tmp_path / name, {"vorticity": known, "lat": lat, "lon": lon})
    np.save(tmp_path / "a.npy", known)
    call = ["sample", str(flow), "-n", "4", "--chunk", "4", "--steps", "2"]
    for out, given in (("named", name), ("plain", "a.npy")):
        assert main([*call, "--given", str(tmp_path / given), "--out", str(tmp_path / out)]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "named/samples.npy"), np.load(tmp_path / "plain/samples.npy"))
    with np.load(tmp_path / "named/coordinates.npz") as axes:
        assert {*axes.files} == {"lat", "lon"}
        np.testing.assert_allclose(axes["lat"], lat)
        np.testing.assert_allclose(axes["lon"], lon)
    finer = [*call, "--resolution", "32", "--given", str(tmp_path / name), "--out", str(tmp_path / "finer")]
    assert main(finer) == 0
    with np.load(tmp_path / "finer/coordinates.npz") as axes:
        np.testing.assert_allclose(
            axes["lat"].reshape(16, 2).mean(1), lat
        )  # a cell of the old grid is two of the new one
        np.testing.assert_allclose(np.diff(axes["lon"]), -1)
    assert not (tmp_path / "plain/coordinates.npz").exists()
    capsys.readouterr()
    if name == "a.npz":
        extra = {"dt": np.float64(0.1), "who": np.array(["me"]), "time": np.arange(16.0)}
        stored(
            tmp_path / "long.npz", {"vorticity": np.repeat(known, 8, 0), "lat": lat, **extra}
        )  # as many fields as rows
        for grid, kept in (("16", {"lat", "time"}), ("32", None)):
            out = ["--resolution", grid, "--given", str(tmp_path / "long.npz"), "--out", str(tmp_path / grid)]
            assert main([*call, *out]) == 0
            there = tmp_path / grid / "coordinates.npz"
            assert there.exists() == (kept is not None) and (kept is None or {*np.load(there).files} == kept)
        assert "time of --given" in capsys.readouterr().err
        stored(tmp_path / "two.npz", {"a": known, "b": known})
        stored(tmp_path / "none.npz", {"a": known[:, :, 0], "b": lat})
        for wrong, words in (("two.npz", "several arrays"), ("none.npz", "no array of fields")):
            refused(capsys, [*call, "--given", str(tmp_path / wrong), "--out", str(tmp_path / "x")], words)


@pytest.mark.usefixtures("unchecked")
def test_super_resolution_agrees_with_what_is_known(run, tmp_path, capsys) -> None:
    """In the modes of the model's noise, those of a torus."""
    truth = scorefield.run.loading.open_checkpoint(run).source().load("valid")[0].x
    coarse = fourier.resample(truth[None], (6, 6))[0]
    np.save(tmp_path / "coarse.npy", coarse.numpy())
    np.save(tmp_path / "truth.npy", truth.numpy())
    out = tmp_path / "fine"
    call = ["superres", str(run), str(tmp_path / "coarse.npy"), "-n", "2", "--steps", "3"]
    truth_file = ["--truth", str(tmp_path / "truth.npy")]
    assert main([*call, "--out", str(out), "--method", "Replacement", *truth_file, "--noise", "0"]) == 0
    members, smooth = (torch.from_numpy(np.load(out / f"{name}.npy")) for name in ("samples", "interpolation"))
    assert members.shape == (2, 2, 12, 12)
    assert (
        "PSNR of interpolation  " + f"{float(psnr(smooth[None], truth[None], float(np.ptp(coarse.numpy())))):.2f}"
        in (capsys.readouterr().out)
    )
    torch.testing.assert_close(fourier.resample(members, (6, 6)), coarse.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    torch.testing.assert_close(fourier.resample(smooth[None], (6, 6))[0], coarse, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        fourier.resample(smooth[None], (24, 24))[0], fourier.resample(coarse[None], (24, 24))[0], atol=1e-5, rtol=0
    )
    found = []
    for name, more in (("finer", []), ("beyond", ["--beyond", "WienerBeyond"])):  # than training
        assert main([*call, "--resolution", "24", "--out", str(tmp_path / name), *more]) == 0
        found.append(torch.from_numpy(np.load(tmp_path / name / "samples.npy")))
        torch.testing.assert_close(fourier.resample(found[-1], (6, 6)), coarse.expand(2, -1, -1, -1), atol=1e-4, rtol=0)
    assert found[0].shape == (2, 2, 24, 24) and not torch.allclose(*found)
    weighed = [*call, "--particles", "4", "--steps", "3", "--resolution", "24"]
    assert main([*weighed, "--noise", "0.5", "--method", "PiGDM", "--out", str(tmp_path / "weighed")]) == 0
    assert np.load(tmp_path / "weighed/samples.npy").shape == (2, 2, 24, 24)
    assert "log p(y) in nats" in capsys.readouterr().out
    refused(capsys, [*weighed, "--out", str(tmp_path / "x")], "--noise above 0")
    refused(capsys, [*call, "--resolution", "4", "--out", str(tmp_path / "x")], "no finer grid")
    np.save(tmp_path / "other.npy", np.zeros((2, 6, 9), np.float32))
    refused(capsys, ["superres", str(run), str(tmp_path / "other.npy"), "--out", str(tmp_path / "x")], "domain")
    np.save(tmp_path / "flat.npy", np.zeros(6, np.float32))
    refused(capsys, ["superres", str(run), str(tmp_path / "flat.npy"), "--out", str(tmp_path / "x")], "2 axes")


def test_pictures_of_noise_are_written_twice(run, tmp_path, capsys) -> None:
    assert main(["plot", str(run), "-n", "2", "--out", str(tmp_path)]) == 0
    for name in ("noise", "covariance", "noised", "samples"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    refused(capsys, ["plot", str(run), "-n", "0", "--out", str(tmp_path)], "at least 1")
    (tmp_path / "job.json").touch()
    refused(capsys, ["plot", str(run), "-n", "2", "--out", str(tmp_path)], "another verb")


@pytest.mark.usefixtures("unchecked")
def test_every_evaluation_is_a_line_and_the_best_checkpoint_by_each_figure_is_kept(run, capsys) -> None:
    """And outlives those that training prunes."""
    options = ["-n", "4", "--seeds", "1", "--steps", "2", "--comparison", "Phases", "--checkpoints", "all"]
    assert main(["evaluate", str(run), *options]) == 0
    assert "circular variance + skewness" in capsys.readouterr().out
    lines = [json.loads(line) for line in (run / "evaluation" / "results.jsonl").read_text().splitlines()]
    assert [line["model"]["step"] for line in lines] == [1, 2] and {"w_var", "w_total"} <= lines[0]["figures"].keys()
    best = min(lines, key=lambda line: line["figures"]["w_var"])["model"]["step"]
    kept = scorefield.run.loading.open_checkpoint(run / "best" / "w_var.safetensors")
    assert kept.checkpoint.facts["step"] == best
    assert (run / "best" / "w_var.safetensors").samefile(
        kept.path.parent.parent / "checkpoints" / f"step-{best:08d}.safetensors"
    )
    assert main(["sample", str(run), "--best", "w_var", "-n", "1", "--chunk", "1", "--out", str(run.parent / "b")]) == 0


@pytest.mark.usefixtures("unchecked")
def test_what_is_sampled_on_a_finer_grid_is_evaluated(run, tmp_path, capsys) -> None:
    """By a comparison alone where the data are of the training grid; by everything where they are as fine as the samples."""
    call = ["evaluate", str(run), "-n", "4", "--seeds", "1", "--steps", "2", "--resolution", "24"]
    refused(capsys, call, "give --data of that grid")
    assert main([*call, "--comparison", "Phases"]) == 0
    coarse = json.loads((run / "metrics.json").read_text())
    assert "w_var" in coarse["figures"] and "fréchet" not in coarse["figures"]
    assert coarse["model"]["resolution"] == [24, 24]
    data = ["--data", "Volcano", "--data.n", "8", "--data.size", "24", "--data.valid", "4"]
    assert main([*call, "--comparison", "Spectra", "--comparison.known", "11", *data]) == 0
    assert {"fréchet", "spectrum", "spectrum_new"} <= json.loads((run / "metrics.json").read_text())["figures"].keys()


def test_a_conditioned_run_is_evaluated_given_what_goes_with_the_held_out_data(flow, tmp_path) -> None:
    assert main(["evaluate", str(flow), "-n", "4", "--seeds", "1", "--steps", "2", "--comparison", "Spectra"]) == 0
    record = json.loads((flow / "metrics.json").read_text())
    assert record["model"]["given"] == "valid" and record["evaluations_per_sample"] == 3
    assert {"fréchet", "spectrum"} <= record["figures"].keys() and record["held_out_data"]["spectrum"] >= 0
    assert (flow / "best" / "spectrum.safetensors").exists()
