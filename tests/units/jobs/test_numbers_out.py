"""Numbers on their way out: depth of pictures, PSNR, masks with alpha, comparisons; and files that are named in odd ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from scorefield.cli import main
from scorefield.data.single import peak_of, read_alpha, read_array
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError
from scorefield.jobs.outputs import Pixels, write_pictures
from scorefield.jobs.sample import Sample
from scorefield.jobs.tasks import inpaint
from scorefield.metrics.figures import figures
from scorefield.metrics.statistics import Statistics


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    tiny.train(folder, folder / "run", train__steps=2, train__checkpoint_every=2)
    np.save(folder / "digit.npy", Digits().load("valid")[0].x.numpy())
    return folder / "run"


def refuse(capsys: pytest.CaptureFixture[str], arguments: list[str], *words: str) -> None:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and len(lines[0]) <= 300 and all(word.lower() in lines[0].lower() for word in words), lines


# --------------------------------------------------------------------------------------------------------------- pictures
def test_pictures_have_the_depth_of_what_was_trained_on(tmp_path: Path) -> None:
    x = torch.tensor([[[[0.0, 241.0], [479.6, 480.0]]]])
    pixels = Pixels.as_stored("uint16")
    pixels.check_range(x)
    write_pictures(tmp_path / "png", 1, [x.numpy()], pixels)
    with Image.open(tmp_path / "png" / "000000.png") as picture:
        found = np.asarray(picture)
    assert found.dtype == np.uint16 and found.tolist() == [[0, 241], [480, 480]]
    assert Pixels.as_stored("bool")(torch.tensor([0.0, 1.0])).tolist() == [0, 255]
    for other in ("uint8", "float32", None):
        assert Pixels.as_stored(other) == Pixels(certain=False)


def test_samples_that_a_range_would_cut_are_refused() -> None:
    x = torch.linspace(0, 480, 64).reshape(1, 1, 8, 8)
    with pytest.raises(InputError, match=r"from 0 to 480, .*give --range"):
        Pixels(certain=False).check_range(x)
    Pixels(certain=False).check_range(torch.linspace(-20, 275, 64))  # overshoot of 8-bit images
    Pixels().check_range(x)  # which was asked for


def test_the_depth_comes_from_the_checkpoint(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = Sample(run=run, out=tmp_path / "s", png=True)
    assert verb._pixels() == Pixels(certain=False)
    monkeypatch.setitem(verb.checkpoint.checkpoint.facts, "data", {"dtype": "uint16"})
    assert verb._pixels() == Pixels(0.0, 65535.0)
    assert Sample(run=run, out=tmp_path / "s", png=True, range=(0.0, 16.0))._pixels() == Pixels(0.0, 16.0)


# ------------------------------------------------------------------------------------------------------------------- PSNR
def test_what_psnr_is_relative_to() -> None:
    assert peak_of(np.array([3, 9], np.uint8)) == 255 and peak_of(np.array([True])) == 1
    assert peak_of(np.array([0, 480], np.uint16)) == 480 and peak_of(np.array([-5, 480], np.int64)) == 485
    assert peak_of(np.array([-1.0, np.nan, 3.0])) == 4


def test_the_peak_can_be_given(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "restore",
        str(run),
        str(run.parent / "digit.npy"),
        "-n",
        "2",
        "--steps",
        "2",
        "--task",
        "superres",
        "--task.factor",
        "2",
    ]
    found = []
    for peak in ([], ["--peak", "160"]):
        out = tmp_path / f"r{len(peak)}"
        assert main([*words, "--degrade", *peak, "--out", str(out)]) == 0
        found.append(json.loads((out / "restoring.json").read_text()))
    own = float(np.ptp(np.load(run.parent / "digit.npy")))
    assert [row["peak"] for row in found] == [own, 160]
    assert found[1]["psnr_of_mean"] - found[0]["psnr_of_mean"] == pytest.approx(20 * np.log10(160 / own), abs=1e-6)
    refuse(capsys, [*words, "--peak", "160", "--out", str(tmp_path / "r")], "--peak", "--truth")


# ------------------------------------------------------------------------------------------------------------------ masks
def test_a_transparent_hole_is_what_is_to_be_filled_in(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hole = np.zeros((8, 8), bool)
    hole[2:5, 3:6] = True
    for name, colours in (("white", 255), ("photo", 90)):
        mask = np.full((8, 8, 4), colours, np.uint8)
        mask[..., 3] = np.where(hole, 0, 255)
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
        x = torch.ones(1, 1, 8, 8)
        assert torch.equal(inpaint(tmp_path / f"{name}.png")(x)[0, 0] > 0, torch.from_numpy(~hole))
    grey = Image.fromarray(np.full((8, 8), 255, np.uint8)).convert("LA")
    grey.putalpha(Image.fromarray(np.where(hole, 0, 255).astype(np.uint8)))
    grey.save(tmp_path / "grey.png")
    palette = Image.fromarray(hole.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.save(tmp_path / "palette.png", transparency=1)
    for name in ("grey", "palette"):
        assert np.array_equal(read_alpha(tmp_path / f"{name}.png") == 0, hole)
    Image.fromarray(np.full((8, 8, 4), 255, np.uint8)).save(tmp_path / "whole.png")
    assert read_alpha(tmp_path / "whole.png") is None
    words = ["restore", str(run), str(run.parent / "digit.npy"), "--task", "inpaint", "--out", str(tmp_path / "r")]
    refuse(capsys, [*words, "--task.known", str(tmp_path / "whole.png")], "hides nothing")
    assert not (tmp_path / "r").exists()


def test_a_stack_is_read_with_all_its_pages(tmp_path: Path) -> None:
    pages = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)
    first, *rest = map(Image.fromarray, pages)
    first.save(tmp_path / "x.tif", save_all=True, append_images=rest)
    assert np.array_equal(read_array(tmp_path / "x.tif"), pages)


# ------------------------------------------------------------------------------------------------------------ comparisons
def test_kernel_distances_do_not_depend_on_the_units() -> None:
    """Pixels of a folder against itself: near 0 in any units, and as it is for customary features."""
    x = torch.rand(60, 40, generator=torch.Generator().manual_seed(0))

    def state(values: torch.Tensor) -> Statistics:
        found = Statistics(keep=60)
        found.update(values)
        return found

    small, large = (figures(state(s * x + s), state(s * x + s), customary=False)["kernel"] for s in (1.0, 255.0))
    assert small == pytest.approx(large, rel=1e-3) and abs(small) < 0.3
    assert figures(state(255 * x), state(255 * x))["kernel"] < -1e6


def test_fields_of_other_sizes_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).random((12, 6, 8))
    for name, values in (("a", x), ("b", x.transpose(0, 2, 1)), ("c", x[:, :4])):
        np.save(tmp_path / f"{name}.npy", values)
    a, b, c, reference = (str(tmp_path / name) for name in ("a.npy", "b.npy", "c.npy", "a.safetensors"))
    assert main(["make-reference", a, "--out", reference]) == 0
    for other in (b, c):
        for against in (reference, a):
            refuse(capsys, ["compare", other, against, "--out", str(tmp_path / "m.json")], Path(other).name, "6×8")
    assert not (tmp_path / "m.json").exists()


# ---------------------------------------------------------------------------------------------------------- looking, names
def test_check_data_knows_what_a_file_is(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    h5py = pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        file["x"] = np.random.default_rng(0).random((20, 6, 8))
    assert main(["check-data", "x.h5"]) == 0
    assert "18 of shape 1 × 6 × 8" in "".join(capsys.readouterr())
    Path("notes.txt").write_text("words")
    refuse(capsys, ["check-data", "notes.txt"], "notes.txt", "no folder")
    Path("same").mkdir()
    for i in range(20):
        Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).save(f"same/{i}.png")
    assert main(["check-data", "same", "--data.valid", "2"]) == 0
    out = "".join(capsys.readouterr())
    assert "17 of 18 fields are copies" in out and "sigma_max   0" in out


def test_denoise_refuses_nan(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.load(run.parent / "digit.npy")
    x[0, 3, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    for noise in ([], ["--noise", "1"]):
        refuse(
            capsys,
            ["denoise", str(run), str(tmp_path / "x.npy"), *noise, "--out", str(tmp_path / "d")],
            "x.npy",
            "not finite",
        )
    assert not (tmp_path / "d").exists()


def test_paths_with_brackets_are_paths(tmp_path: Path) -> None:
    pytest.importorskip("cf_xarray")
    import weather
    from scorefield.climate.files import files_of

    path = weather.save(weather.dataset(4), tmp_path / "c[2].nc")
    weather.save(weather.dataset(4), tmp_path / "c2.nc")
    assert files_of(path) == [path]
    assert files_of(str(tmp_path / "c[12].nc")) == [str(tmp_path / "c2.nc")]
