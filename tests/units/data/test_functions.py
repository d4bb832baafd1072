"""Functions: any file, any coordinates of a regular grid, and no others; conditions that belong to them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.data import Functions, Loader, Tensors
from scorefield.data.functions import on_grid, positions
from scorefield.datasets import Interferograms, Terrain
from scorefield.foundation.cosine import resample
from scorefield.foundation.errors import AbsentDataError, InputError
from scorefield.functions import Forecasts, Windows
from scorefield.jobs.resolution import conditions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(10, 6, 8)).astype(np.float32)
GRID = {"y": np.linspace(0, 5, 6), "x_axis": np.arange(8) * 0.25}


def everything(fields):
    return fields.gather(torch.arange(len(fields)))


def write(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
    else:
        zarr = pytest.importorskip("zarr")
        group = zarr.open_group(str(path), mode="w")
        for name, array in arrays.items():
            group.create_array(name, data=array)
    return path


@pytest.mark.parametrize("name", ["f.npz", "f.h5", "f.zarr"])
def test_every_kind_of_file_gives_the_same_functions(tmp_path, name):
    path = write(tmp_path / name, {"u": X, "a": X + 1, **GRID})
    source = Functions(path, key="u", coordinates=("y", "x_axis"), domain=(6.0, 2.0), append=True, given="a", valid=3)
    train, valid = source.load("train"), source.load("valid")
    assert (len(train), len(valid)) == (7, 3)
    batch = train.gather(torch.tensor([4, 0, 4]))  # in any order, and twice
    assert batch.x.shape == (3, 1, 6, 8) and batch.x[0].equal(batch.x[2])
    torch.testing.assert_close(batch.cond["field"], batch.x + 1)
    coords = batch.cond["coords"]
    assert coords.shape == (3, 2, 6, 8) and coords[0, :, 5, 7].tolist() == [5.0, 1.75]
    found = torch.cat((everything(train).x, everything(valid).x))
    torch.testing.assert_close(found.sum(), torch.from_numpy(X).sum())
    batches = iter(Loader(train, 2, workers=1))  # an open file does not travel to a worker
    assert next(batches).x.shape == (2, 1, 6, 8)


def test_coordinates_are_positions_of_cells_in_their_domain_on_any_grid():
    coarse, fine = positions((2, 3)), positions((4, 6))
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(fine, 2), coarse)
    assert coarse[0, :, 0].tolist() == [0.25, 0.75]
    torch.testing.assert_close(on_grid(coarse[None], (4, 6))[0], fine)
    stored = 3 - 2 * fine[None]  # falling, and of another origin and length
    torch.testing.assert_close(on_grid(stored, (2, 3))[0], 3 - 2 * coarse)


@pytest.mark.parametrize(
    ("coordinates", "options", "words"),
    [
        ({"y": GRID["y"], "x_axis": GRID["x_axis"] ** 2}, {}, "irregular"),
        ({"y": GRID["y"], "x_axis": np.zeros((6, 8))}, {}, "regular grid"),
        ({"y": GRID["y"][:5], "x_axis": GRID["x_axis"]}, {}, "not 6 numbers"),
        (GRID, {"domain": (6.0, 4.0)}, "spans 2, not 4"),
        (GRID, {"domain": (6.0,)}, "one for each axis"),
        (GRID, {"domain": (6.0, 2.0), "coordinates": ()}, "without coordinates"),
        (GRID, {"given": "y"}, "give fields along"),
        (GRID, {"key": "v"}, "no 'v' but"),
    ],
)
@pytest.mark.parametrize("name", ["f.npz", "f.h5"])
def test_irregular_points_other_domains_and_wrong_names_are_refused(tmp_path, name, coordinates, options, words):
    path = write(tmp_path / name, {"u": X, **coordinates})
    given = {"path": path, "key": "u", "coordinates": ("y", "x_axis")} | options
    with pytest.raises(InputError, match=words):
        Functions(**given).load("train")


def test_files_that_are_absent_or_broken_are_named(tmp_path):
    for name in ("none.h5", "none.zarr", "none.npz"):
        with pytest.raises(AbsentDataError, match="correct the path"):
            Functions(tmp_path / name).load("train")
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    (tmp_path / "bad.zarr").mkdir()
    for name in ("bad.h5", "bad.zarr"):
        with pytest.raises(InputError, match="save it again"):
            Functions(tmp_path / name).load("train")


def test_darcy_and_burgers_are_functions(data_folder):
    folder = data_folder / "functions"
    darcy = Functions(folder / "darcy_train_16.npz", key="y", given="x", valid=100).load("train")
    batch = darcy.gather(torch.tensor([5, 3]))
    assert (
        len(darcy) == 900 and batch.x.shape == (2, 1, 16, 16) and set(batch.cond["field"].unique().tolist()) == {0, 1}
    )
    burgers = Functions(folder / "burgers_train_16.npz", held_out=folder / "burgers_test_16.npz", append=True)
    assert (len(burgers.load("train")), len(burgers.load("valid"))) == (800, 400)
    assert burgers.load("train")[0].cond["coords"].shape == (1, 16)
    sections = Functions(folder / "topobathy.npz", key="topo", coordinates=("longitude",), domain=(4.0,))
    assert sections.load("train")[0].x.shape == (1, 120)  # of the sea floor, 4 degrees long
    with pytest.raises(InputError, match="not 120 numbers"):
        replace(sections, coordinates=("latitude",)).load("train")


# ------------------------------------------------------------------------------------------------------ interferograms
def test_int_files_are_read_as_they_were_written(tmp_path):
    phase = RNG.uniform(-np.pi, np.pi, (3, 128, 128))
    size = RNG.uniform(0.1, 9, (3, 128, 128))
    z = (size * np.exp(1j * phase)).astype("<c8")
    z[0, 64, 64] = 0
    for i, each in enumerate(z):
        (tmp_path / "deep").mkdir(exist_ok=True)
        each.view("<f4").tofile(tmp_path / "deep" / f"{i}.int")
    fields = Interferograms(tmp_path, valid=1)
    batch = everything(fields.load("train"))
    assert len(fields.load("valid")) == 1 and batch.x.shape == (2, 2, 120, 120)
    whole = torch.cat([everything(fields.load(split)).x for split in ("train", "valid")])
    expected = torch.from_numpy(np.stack((np.cos(phase), np.sin(phase)), 1)[:, :, 4:124, 4:124]).float()
    expected[0, :, 60, 60] = 0
    order = torch.cdist(whole.flatten(1), expected.flatten(1)).argmin(1)
    torch.testing.assert_close(whole, expected[order], atol=1e-6, rtol=0)
    masks = torch.cat([everything(fields.load(split)).mask for split in ("train", "valid")])
    assert int((~masks).sum()) == 1


def test_real_unwrapped_phases_are_wrapped_and_their_gaps_masked(data_folder):
    path = data_folder / "functions" / "insar_pyrate_ifgs.npz"
    for key, shape, n in (("sydney_unw_rad", (72, 47), 17), ("mexico_unw_rad", (60, 100), 30)):
        fields = Interferograms(path, key=key, crop=None, valid=0.1).load("train")
        batch = everything(fields)
        assert batch.x.shape == (n - round(0.1 * n), 2, *shape)
        known = batch.mask[:, 0]
        torch.testing.assert_close(batch.x.square().sum(1), known.float())
        assert 0 < int((~known).sum()) < 0.3 * known.numel()


def test_wrong_interferograms_are_refused(tmp_path):
    np.zeros(10, "<f4").tofile(tmp_path / "a.int")
    with pytest.raises(InputError, match="40 bytes, not the 131072"):
        Interferograms(tmp_path).load("train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \.int"):
        Interferograms(tmp_path / "empty").load("train")
    with pytest.raises(AbsentDataError):
        Interferograms(tmp_path / "none").load("train")
    np.savez(tmp_path / "p.npz", x=np.ones((4, 30, 30), np.float32), i=np.ones((4, 30, 30), int))
    with pytest.raises(InputError, match="120×120"):
        Interferograms(tmp_path / "p.npz").load("train")
    with pytest.raises(InputError, match="of phases"):
        Interferograms(tmp_path / "p.npz", key="i").load("train")


# -------------------------------------------------------------------------------------------------------------- terrain
def test_patches_of_terrain_are_the_good_ones_of_their_tiles(tmp_path):
    tile = np.tile(np.arange(1, 17, dtype=np.int16) * 100, (16, 1))
    sea, void, flat = tile.copy(), tile.copy(), np.full((16, 16), 7, np.int16)
    sea[:8, :8] = 0
    void[3, 3] = -32768
    np.savez(tmp_path / "t.npz", a=tile, b=sea, c=void, d=flat)
    source = Terrain(tmp_path / "t.npz", patch=8, valid=1)
    assert [len(source.patches(each)) for each in (tile, sea, void, flat)] == [4, 3, 3, 0]
    patch = source.patches(tile)[0]
    torch.testing.assert_close(patch[0, 0], torch.arange(8) * 100.0 - 350)


def test_real_terrain_has_396_patches_and_a_coarse_one_is_the_fine_one_with_modes_removed(data_folder):
    path = data_folder / "functions" / "srtm3_volcano_tiles_dev8.npz"
    fine, coarse = (Terrain(path, size=size) for size in (None, 64))
    fields = {split: fine.load(split) for split in ("train", "valid")}
    assert 300 < sum(map(len, fields.values())) <= 396
    x = everything(fields["valid"]).x
    assert x.shape[1:] == (1, 128, 128) and x.mean((2, 3)).abs().max() < 1e-2 and x.std((1, 2, 3)).min() > 9
    small = everything(coarse.load("valid")).x
    torch.testing.assert_close(small, resample(x.double(), (64, 64)).float(), atol=2e-3, rtol=0)
    tiles = np.load(path)
    held = [name for name in tiles.files if bool(len(overlap := fine.patches(tiles[name]))) and x[0].equal(overlap[0])]
    train = everything(fields["train"]).x
    assert len(held) == 1 and not any(each.equal(x[0]) for each in train)


def test_terrain_without_a_good_patch_is_refused(tmp_path):
    np.savez(tmp_path / "t.npz", a=np.zeros((16, 16), np.int16), b=np.zeros((16, 16), np.int16))
    with pytest.raises(InputError, match="no patch of 8×8"):
        Terrain(tmp_path / "t.npz", patch=8, valid=1).load("train")
    with pytest.raises(InputError, match="size up to it"):
        Terrain(tmp_path / "t.npz", patch=8, size=9)


# -------------------------------------------------------------------------------------------------------------- windows
def test_a_window_is_what_is_left_of_the_times_around_a_field():
    x = torch.from_numpy(RNG.normal(size=(5, 7, 8, 8)).astype(np.float32))
    fields = Windows(Tensors(x, valid=2), radius=1, factor=4).load("train")
    assert len(fields) == 3 * 5
    batch = everything(fields)
    sequence = Tensors(x, valid=2).load("train")[1].x
    torch.testing.assert_close(batch.x[5 + 2, 0], sequence[3])
    assert batch.cond["field"].shape == (15, 3, 8, 8)
    coarse = resample(sequence[None, 2:5], (2, 2))
    torch.testing.assert_close(batch.cond["field"][7], resample(coarse, (8, 8))[0])
    again = resample(resample(batch.cond["field"], (16, 16)), (2, 2))  # the same functions on a finer grid
    torch.testing.assert_close(again[7], coarse[0])


def test_on_a_torus_the_modes_of_windows_are_fouriers():
    """A wave that the coarse grid holds is what is left of itself, on every grid; in cosines it is not."""

    def wave(points):
        at = 2 * torch.pi * torch.arange(points, dtype=torch.float64) / points
        return (at[:, None] + at + 0.3).sin().float().expand(3, 1, -1, -1)

    torus, edges = (Windows(Tensors(wave(16), valid=1), 0, 4, periodic).load("train") for periodic in (True, False))
    torch.testing.assert_close(torus[0].cond["field"], torus[0].x)
    torch.testing.assert_close(conditions(torus, torch.arange(1), (24, 24))["field"][0], wave(24)[0], rtol=0, atol=1e-6)
    assert float((edges[0].cond["field"] - edges[0].x).abs().max()) > 0.1


def test_windows_that_do_not_fit_are_refused():
    x = torch.zeros(4, 2, 8, 8)
    for options, words in (
        ({"radius": 1}, "no window"),
        ({"radius": -1}, "radius >= 0"),
        ({"radius": 0, "factor": 9}, "coarsened"),
    ):
        with pytest.raises(InputError, match=words):
            Windows(Tensors(x, valid=1), **options).load("train")


def test_where_sequences_are_not_known_goes_with_their_times(tmp_path):
    """The mask of windows and forecasts is that of the times that are drawn; coarse fields of what has holes are refused."""
    x = RNG.normal(size=(5, 4, 8, 8)).astype(np.float32)
    x[RNG.random(x.shape) < 0.2] = np.nan
    np.savez(tmp_path / "holes.npz", x=x)
    sequences = Functions(tmp_path / "holes.npz", channel_axis="first", valid=1)
    for source in (Windows(sequences, 1, None), Windows(sequences, 1, None, together=True), Forecasts(sequences)):
        batch = everything(source.load("train"))
        assert torch.equal(batch.mask, ~batch.x.isnan()) and not bool(batch.mask.all())
    with pytest.raises(InputError, match="factor: null"):
        everything(Windows(sequences, 1, 4).load("train"))


def test_labels_beside_functions_are_said_to_be_unused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 5)), labels=np.arange(9))
    assert "labels of" in Functions(tmp_path / "a.npz").load("train").notes[0]


def test_a_single_unknown_point_is_seen_and_none_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a small file at once; in a large one when its field is read, unless gaps are announced."""
    x = np.zeros((300, 6, 6), np.float32)
    x[211, 2, 3] = np.nan
    np.save(tmp_path / "x.npy", x)
    source = Functions(tmp_path / "x.npy", valid=1)
    assert source.load("train").gather(torch.arange(3)).mask is not None
    monkeypatch.setattr("scorefield.data.functions.LOOKED_AT", 0)
    monkeypatch.setattr("scorefield.data.functions.spread_rows", lambda count, each: np.arange(2))
    fields = source.load("train")
    assert fields.gather(torch.arange(3)).mask is None
    with pytest.raises(InputError, match=r"Field 211 has points that are not known .*--data.gaps true"):
        fields.gather(torch.arange(299))
    mask = replace(source, gaps=True).load("train").gather(torch.arange(299)).mask
    assert mask is not None and int((~mask).sum()) == 1
