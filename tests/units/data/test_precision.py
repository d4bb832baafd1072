"""Numbers with a small spread about a large offset keep their digits, on the way in and on the way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from scorefield.cli import main
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Arrays, Batch, Centre, Divide, Images, Loader, Standardise, Tensors, UnitRange, Wrapped
from scorefield.data.fields import ArrayFields, FieldDataset
from scorefield.data.functions import Functions
from scorefield.data.inspect import inspect
from scorefield.data.loader import Sequential
from scorefield.data.moments import MatchMoments, PixelStandardise
from scorefield.data.precision import needed
from scorefield.data.quantile import QuantileNormal
from scorefield.data.single import read_field
from scorefield.data.transform import Chain, Log1p, PerVariable
from scorefield.foundation.errors import InputError
from scorefield.model import Model
from scorefield.nn import UNet
from scorefield.run.experiment import suspicions

OFFSET, SPREAD = 250_000.0, 0.01
Z = np.random.default_rng(0).standard_normal((300, 1, 8, 8))
X = OFFSET + SPREAD * Z  # float64, of which float32 keeps 7 values
COUNTS = 2**30 + np.random.default_rng(1).integers(0, 4, (300, 1, 8, 8))  # int64, of which float32 keeps 1 value


def everything(fields: FieldDataset) -> torch.Tensor:
    return fields.gather(torch.arange(len(fields))).x


def held(x: np.ndarray, folder: Path, kind: str) -> FieldDataset:
    """Some fields as each kind of source gives them."""
    if kind == "tensors":
        return Tensors(torch.from_numpy(x), valid=0).load("train")
    if kind == "wrapped":
        return Wrapped(Subset(list(torch.from_numpy(x)), range(len(x))), valid=0).load("train")
    if kind == "labelled":
        return Wrapped(Subset([(torch.from_numpy(a), 0) for a in x], range(len(x))), valid=0).load("train")
    if kind == "batches":
        return Wrapped(Subset([Batch(torch.from_numpy(a)) for a in x], range(len(x))), valid=0).load("train")
    path = folder / f"x.{kind}"
    if kind == "npy":
        np.save(path, x)
    elif kind == "npz":
        np.savez(path, x=x)
    elif kind == "h5":
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["x"] = x
    else:
        zarr = pytest.importorskip("zarr")
        zarr.save_array(str(path), x)
    source = Functions(path, valid=0) if kind in ("h5", "zarr") else Arrays(path, valid=0)
    return source.load("train")


KINDS = ("npy", "npz", "h5", "zarr", "tensors", "wrapped", "labelled", "batches")


@pytest.mark.parametrize("kind", KINDS)
def test_a_small_spread_about_a_large_offset_is_normalised_as_it_is(kind: str, tmp_path: Path) -> None:
    fields = held(X, tmp_path, kind)
    normaliser = Standardise().fit(Sequential(fields))
    z = normaliser(next(iter(Sequential(fields, 300))).x).float()
    expected = (Z - Z.mean()) / Z.std()
    np.testing.assert_allclose(z.numpy(), expected, atol=1e-5)  # 250000 has 3e-11 in float64: 3e-9 of the spread
    assert len(z.unique()) > 19_000
    back = normaliser.inverse(z)
    assert back.dtype == torch.float64 and float((back - torch.from_numpy(X)).abs().max()) < 1e-5 * SPREAD


@pytest.mark.parametrize("kind", KINDS)
def test_integers_above_2_to_the_24_stay_apart(kind: str, tmp_path: Path) -> None:
    fields = held(COUNTS, tmp_path, kind)
    x = everything(fields)
    assert x.dtype == torch.float64 and np.array_equal(x.numpy(), COUNTS)
    z = Standardise().fit(Sequential(fields))(x).float()
    assert len(z.unique()) == 4 and float(z.std()) == pytest.approx(1, abs=0.01)


def test_integers_that_float64_rounds_are_refused() -> None:
    with pytest.raises(InputError, match=r"beyond 2\^53"):
        ArrayFields(2**60 + np.arange(40).reshape(10, 4), "none", origin="x.npy")


@pytest.mark.parametrize(
    "x",
    [
        280 + 5 * Z,
        OFFSET + 10 * Z,  # a spread of 4e-5 of the offset: float32 rounds by a 2000th of it
        np.arange(19_200).reshape(Z.shape) % 2**24,
        np.full(Z.shape, 0.1),
        np.repeat(Z[:1], 300, 0),
        np.concatenate((Z, np.full(Z.shape, 0.1)), 1),
    ],
    ids=["kelvin", "near", "integers", "constant", "copies", "one constant channel"],
)
def test_what_float32_holds_stays_float32(x: np.ndarray) -> None:
    assert everything(ArrayFields(x, "first")).dtype == torch.float32
    assert (
        everything(Wrapped(Subset(list(torch.from_numpy(x)), range(len(x))), valid=0).load("train")).dtype
        == torch.float32
    )


def test_what_counts_is_the_spread_from_field_to_field_too() -> None:
    """A height that varies by kilometres over the grid and by a tenth of a millimetre in time."""
    x = 4000 * np.random.default_rng(2).random((1, 1, 8, 8)) + 1e-4 * Z
    assert everything(ArrayFields(x, "first")).dtype == torch.float64
    x[0, 0, 0, 0] = np.nan
    assert needed(x, "x") == torch.float64
    assert needed(np.full((3, 1, 2), np.nan), "x") == torch.float32


def test_complex_numbers_and_one_channel_of_several() -> None:
    assert everything(Tensors(torch.from_numpy(X + 1j * Z), valid=0).load("train")).dtype == torch.float64
    x = np.concatenate((Z, X), 1)
    fields = ArrayFields(x, "first")
    z = Standardise().fit(Sequential(fields))(everything(fields))
    assert float((z.std((0, 2, 3)) - 1).abs().max()) < 1e-3


def test_images_of_32_bits(tmp_path: Path) -> None:
    for i, x in enumerate(COUNTS[:5, 0]):
        Image.fromarray(x.astype(np.int32)).save(tmp_path / f"{i}.tif")
    for cache in (2.0, 0.0):
        x = everything(Images(tmp_path, valid=0, cache_gib=cache).load("train"))
        assert np.array_equal(x[:, 0].numpy(), COUNTS[:5, 0])
    assert np.array_equal(read_field(tmp_path / "0.tif", (1, 8, 8))[0].numpy(), COUNTS[0])


@pytest.mark.parametrize(
    "make",
    [
        Standardise,
        UnitRange,
        lambda: Centre(SPREAD),
        PixelStandardise,
        MatchMoments,
        QuantileNormal,
        lambda: Chain([Log1p(), Standardise()]),
        lambda: Chain([Standardise()]),
        lambda: PerVariable([Standardise()]),
    ],
    ids=lambda make: getattr(make, "__name__", "made"),
)
def test_every_normaliser_comes_back_and_is_stored_with_its_digits(make) -> None:
    fields = ArrayFields(X, "first")
    normaliser, x = make().fit(Sequential(fields)), everything(fields)
    z = normaliser(x).float()
    assert normaliser.precision == torch.float64 and len(z.unique()) > 15_000
    stored = {name: value.clone() for name, value in normaliser.state_dict().items()}
    again = make()
    again.load_state_dict(stored)
    again.to(torch.bfloat16)
    assert again.precision == torch.float64 and torch.equal(again(x), normaliser(x))
    back = again.inverse(z)
    # log(1 + x) has a spread of 4e-8 about 12.4, which float64 knows to 2e-8 of it; ranks end where the data do.
    assert back.dtype == torch.float64 and float((back - x).abs().median()) < 1e-4 * SPREAD


def test_units_of_ordinary_data_stay_as_they_were() -> None:
    fields = ArrayFields((280 + 5 * Z).astype(np.float32), "first")
    normaliser = Standardise().fit(Sequential(fields))
    assert normaliser.shift.dtype == normaliser.precision == torch.float32
    assert normaliser.inverse(normaliser(everything(fields))).dtype == torch.float32


def test_noise_and_coins_of_training_do_not_depend_on_the_type() -> None:
    from scorefield.data.augment import Dequantise, Flip
    from scorefield.data.noisy import Noisy

    pairs = []
    for x in (torch.from_numpy(X - OFFSET).float(), torch.from_numpy(X)):
        fields = Tensors(x, valid=0).load("train")
        batch = Loader(fields, 50, augment=(Flip(), Dequantise(SPREAD))).batch(0)
        noisy = Noisy(Tensors(x, valid=0), SPREAD).load("train").gather(torch.arange(50)).x
        pairs.append((batch.x, noisy))
    for near, far in zip(*pairs, strict=True):
        assert far.dtype == torch.float64
        torch.testing.assert_close(far - OFFSET, near.double(), atol=1e-7, rtol=0)


def test_facts_show_as_many_digits_as_tell_values_apart() -> None:
    facts = inspect(ArrayFields(X, "first"), Standardise())
    assert facts.sigma_data == pytest.approx(1, abs=1e-5) and facts.sigma_max > 5
    table = facts.table()
    assert f"{X.min():.5f}" in table and f"{X.max():.5f}" in table and f"{X.mean():.5f}" in table, table


def test_a_normaliser_that_leaves_the_offset_is_said() -> None:
    fields = ArrayFields(X, "first")
    for normaliser in (Standardise(), Divide()):
        net = UNet(1, 1, channels=2, multipliers=(1,))
        model = Model(SDE(EDM()), net, EDMPreconditioner(), normaliser.fit(Sequential(fields)), shape=(1, 8, 8))
        said = any("leaves an offset" in text for text in suspicions(model, fields))
        assert said == isinstance(normaliser, Divide)


def test_samples_come_back_in_float64_from_training_to_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    np.save("y.npy", X[0])
    small = [
        "--model.net.channels",
        "8",
        "--model.net.blocks",
        "1",
        "--model.net.attention",
        "[]",
        "--model.net.labels",
        "0",
    ]
    words = [
        "train",
        "digits",
        "--data",
        "Arrays",
        "--data.path",
        "x.npy",
        "--train.steps",
        "2",
        "--train.batch_size",
        "16",
    ]
    assert (
        main([*words, *small, "--model.normaliser", "Standardise", "--train.accelerator", "cpu", "--out", "run"]) == 0
    )
    assert main(["sample", "run", "-n", "4", "--steps", "3", "--out", "s"]) == 0
    x = np.load("s/samples.npy")
    assert x.dtype == np.float64 and abs(x.mean() - OFFSET) < 100 and len(np.unique(x)) == x.size
    hole = ["--task", "inpaint", "--task.start", "[2,2]", "--task.size", "[3,3]", "--method", "Replacement"]
    assert main(["restore", "run", "y.npy", "--degrade", *hole, "-n", "2", "--steps", "3", "--out", "r"]) == 0
    restored = np.load("r/samples.npy")
    known = np.ones((8, 8), bool)
    known[2:5, 2:5] = False
    assert np.abs((restored - X[0])[..., known]).max() < 1e-4 * SPREAD
    assert main(["evaluate", "run", "-n", "20", "--seeds", "1", "--steps", "3"]) == 0
    assert main(["compare", "s", "x.npy", "--out", "c.json"]) == 0
