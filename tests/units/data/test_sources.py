"""Sources: splits, layouts, depths; what they must read and what they must refuse."""

import io
import math
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

from scorefield.data import Arrays, Batch, Images, Loader, Tensors, Wrapped
from scorefield.data.decode import is_deep
from scorefield.data.fields import find_channels
from scorefield.data.source import check_split
from scorefield.datasets import Digits
from scorefield.foundation.errors import InputError


def wrapped(items: list, **options) -> Wrapped:
    return Wrapped(Subset(items, range(len(items))), **options)


def everything(fields) -> torch.Tensor:
    return fields.gather(torch.arange(len(fields))).x


def save(path: Path, array: np.ndarray, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six grey images of 5×7 in two classes."""
    for i in range(6):
        save(tmp_path / "scans" / f"class{i % 2}" / f"{i}.png", np.full((5, 7), 40 * i, np.uint8))
    return tmp_path / "scans"


# ---------------------------------------------------------------------------------------------------- splits
def test_digits_are_split_as_promised() -> None:
    train, valid = Digits().load("train"), Digits().load("valid")
    assert (len(train), len(valid)) == (1297, 500)
    assert train[0].x.shape == (1, 8, 8) and train[0].x.dtype == torch.float32
    assert train.quantum == 1 and train.classes == tuple("0123456789")
    assert everything(train).unique().tolist() == list(range(17))


@pytest.mark.parametrize("valid", [7, 0.35])
def test_splits_are_disjoint_complete_and_fixed_by_the_seed(valid) -> None:
    x = torch.arange(20.0).reshape(20, 1, 1)
    for source in (Tensors(x, valid=valid), wrapped(list(x), valid=valid)):
        parts = [everything(source.load(split)).flatten().tolist() for split in ("train", "valid")]
        assert len(parts[1]) == 7 and sorted(parts[0] + parts[1]) == list(range(20))
        assert parts == [everything(source.load(split)).flatten().tolist() for split in ("train", "valid")]
    assert everything(Tensors(x, valid=valid, seed=1).load("valid")).flatten().tolist() != parts[1]


@pytest.mark.parametrize("valid", [20, 1.0, -1, -0.5])
def test_a_split_without_training_data_is_refused(valid) -> None:
    with pytest.raises(InputError, match="valid="):
        Tensors(torch.zeros(20, 1, 1), valid=valid).load("train")


def test_an_empty_or_unknown_split_is_refused() -> None:
    source = Tensors(torch.zeros(20, 1, 1), valid=0)
    assert len(source.load("train")) == 20
    with pytest.raises(InputError, match="holds out none"):
        source.load("valid")
    with pytest.raises(InputError, match="no split 'test'"):
        check_split("test")


def test_items_have_no_batch_dimension_and_end() -> None:
    fields = Tensors(torch.zeros(5, 2, 3), torch.arange(5), valid=1).load("train")
    items = list(fields)
    assert len(items) == 4 and items[0].x.shape == (2, 3) and items[0].cond["label"].shape == ()


# ---------------------------------------------------------------------------------------------------- arrays
@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [
        ((9, 30), "auto", (1, 30)),
        ((9, 28, 28), "auto", (1, 28, 28)),
        ((9, 28, 20, 3), "auto", (3, 28, 20)),
        ((9, 3, 28, 20), "auto", (3, 28, 20)),
        ((9, 2, 30), "auto", (2, 30)),
        ((9, 30, 2), "auto", (2, 30)),
        ((9, 1, 8, 9, 10), "auto", (1, 8, 9, 10)),
        ((9, 20, 28, 28), "first", (20, 28, 28)),
        ((9, 20, 28, 28), "none", (1, 20, 28, 28)),
        ((9, 3, 28, 3), "last", (3, 3, 28)),
    ],
)
def test_layouts(tmp_path: Path, shape, axis, expected) -> None:
    array = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    np.save(tmp_path / "a.npy", array)
    fields = Arrays(tmp_path / "a.npy", channel_axis=axis, valid=0).load("train")
    assert fields[0].x.shape == expected
    moved = np.moveaxis(array, -1, 1) if expected[0] == shape[-1] and expected[1:] == shape[1:-1] else array
    assert np.array_equal(everything(fields).numpy().ravel(), moved.ravel())


@pytest.mark.parametrize("shape", [(9, 20, 28, 28), (9, 3, 28, 3), (9, 2, 2), (9, 8, 9, 10, 11)])
def test_ambiguous_layouts_are_refused(shape) -> None:
    with pytest.raises(InputError, match="give channel_axis"):
        find_channels(shape, "auto", "x.npy")


def test_impossible_layouts_are_refused() -> None:
    for shape, axis in (((9, 3), "first"), ((9, 5, 5, 5, 5), "none"), ((9,), "auto"), ((0, 3, 3), "auto")):
        with pytest.raises(InputError):
            find_channels(shape, axis, "x.npy")


def test_complex_becomes_two_channels_without_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(6, 3, 4, 5, dtype=torch.complex64, generator=generator)
    x = everything(Tensors(z, valid=0).load("train"))
    assert x.shape == (6, 6, 4, 5)
    assert torch.equal(torch.complex(x[:, 0::2], x[:, 1::2]), z)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, ">f4", np.float64, np.float16, bool])
def test_number_types(tmp_path: Path, dtype) -> None:
    array = (np.arange(60).reshape(5, 12) % 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    fields = Arrays(tmp_path / "a.npy", valid=0).load("train")
    assert everything(fields).dtype == torch.float32 and np.array_equal(everything(fields)[:, 0].numpy(), array)
    assert fields.quantum == (0.0 if np.dtype(dtype).kind == "f" else 1.0)


def test_npy_is_memory_mapped_and_can_have_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((9, 5, 6), np.float32))
    np.save(tmp_path / "y.npy", np.arange(9) % 3)
    fields = Arrays(tmp_path / "a.npy", labels=str(tmp_path / "y.npy")).load("train")
    assert isinstance(fields.fields.array, np.memmap) and fields.classes == ("0", "1", "2")


def test_splits_of_an_npz_are_used_as_given(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz",
        x_train=np.zeros((9, 5)),
        y_train=np.arange(9) % 2,
        x_test=np.ones((4, 5)),
        y_test=np.arange(4),
    )
    train, valid = (Arrays(tmp_path / "a.npz").load(split) for split in ("train", "valid"))
    assert len(train) == 9 and len(valid) == 4 and everything(valid).min() == 1
    assert train.classes == valid.classes == ("0", "1", "2", "3")


def test_regression_targets_are_not_taken_for_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 5)), y=np.zeros((9, 5)))
    assert Arrays(tmp_path / "a.npz").load("train").classes == ()
    asked_for = Arrays(tmp_path / "a.npz", labels="y").load("train")[0]
    assert set(asked_for.cond) == {"vector"} and asked_for.cond["vector"].shape == (5,)


def test_labels_that_are_text_are_classes_in_natural_order(tmp_path: Path) -> None:
    named, ids = np.array(["10", "9", "1"] * 3), np.array([f"a{i}" for i in range(9)])
    np.savez(tmp_path / "a.npz", x=np.arange(45.0).reshape(9, 5), labels=named.astype("S"))
    fields = Arrays(tmp_path / "a.npz", valid=0).load("train")
    assert fields.classes == ("1", "9", "10") and fields.gather(torch.arange(3)).cond["label"].tolist() == [2, 1, 0]
    np.savez(tmp_path / "b.npz", x_train=np.zeros((9, 5)), y_train=named, x_test=np.ones((4, 5)), y_test=named[2:6])
    fields = Arrays(tmp_path / "b.npz").load("test")
    assert fields.classes == ("1", "9", "10") and fields.gather(torch.arange(2)).cond["label"].tolist() == [0, 2]
    np.savez(tmp_path / "c.npz", x=np.zeros((9, 5)), y=ids)
    fields = Arrays(tmp_path / "c.npz", valid=0).load("train")
    assert not fields.classes and "is not used" in fields.notes[0]


def test_names_of_classes_that_are_not_utf8_stay_apart(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 5)), labels=np.array([b"\xe9", b"\xe8"] * 2))
    fields = Arrays(tmp_path / "a.npz", valid=0).load("train")
    assert fields.classes == ("\\xe8", "\\xe9") and fields.labels.tolist() == [1, 0, 1, 0]


def test_arrays_and_lists_are_taken_as_tensors_are() -> None:
    x, classes = np.arange(12, dtype=">f4").reshape(4, 1, 3), [0, 1, 1, 0]
    for given in (x, x.tolist(), torch.from_numpy(x.astype("f4"))):
        fields = Tensors(given, labels=classes, valid=0, vector=[0.5, 1, 2, 3]).load("train")
        assert everything(fields).flatten().tolist() == list(range(12))
        cond = fields.gather(torch.arange(4)).cond
        assert cond["label"].tolist() == classes and cond["vector"].flatten().tolist() == [0.5, 1, 2, 3]
    with pytest.raises(InputError, match="labels is no array"):
        Tensors(x, labels=[[0], [1, 2], 0, 0]).load("train")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(8), "one integer for each of 9"),
        (np.arange(9) - 1, "down to -1"),
        (np.arange(9) + 10**9, "up to 1000000008"),
        (np.zeros(0, int), "one integer for each of 9"),
    ],
)
def test_wrong_labels_are_never_dropped(tmp_path: Path, labels, message) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 5)), y=labels)
    with pytest.raises(InputError, match=message):
        Arrays(tmp_path / "a.npz").load("train")
    np.savez(tmp_path / "b.npz", x_train=np.zeros((9, 5)), y_train=labels, x_test=np.ones((4, 5)), y_test=np.arange(4))
    with pytest.raises(InputError, match=message) as caught:
        Arrays(tmp_path / "b.npz").load("train")
    assert "\n" not in str(caught.value)


def test_labels_of_one_split_alone_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((9, 5)), y_train=np.arange(9), x_test=np.ones((4, 5)))
    with pytest.raises(InputError, match="y_train but none in y_test"):
        Arrays(tmp_path / "a.npz").load("train")


def test_single_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.float32(3))
    with pytest.raises(InputError, match="single number"):
        Arrays(tmp_path / "x.npy").load("train")
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 5)), y=np.int64(3))
    with pytest.raises(InputError, match="single number"):
        Arrays(tmp_path / "a.npz").load("train")


def test_bad_array_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.zeros((9, 5)), b=np.zeros((9, 5)))
    with pytest.raises(InputError, match="no 'x' but a, b: correct key"):
        Arrays(tmp_path / "two.npz").load("train")
    with pytest.raises(InputError, match="no 'c' but a, b: correct labels"):
        Arrays(tmp_path / "two.npz", key="a", labels="c").load("train")
    with pytest.raises(InputError, match=r"no file .*absent\.npy"):
        Arrays(tmp_path / "absent.npy").load("train")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(InputError, match="not numbers"):
        Arrays(tmp_path / "text.npy").load("train")
    whole = (tmp_path / "two.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.npz"):
        Arrays(tmp_path / "cut.npz").load("train")
    np.save(tmp_path / "whole.npy", np.zeros((9, 50)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.npy"):
        Arrays(tmp_path / "cut.npy").load("train")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("planted",)


@pytest.mark.parametrize("kind", ["npy", "npz", "pickle"])
def test_nothing_is_ever_unpickled(tmp_path: Path, monkeypatch, kind) -> None:
    monkeypatch.chdir(tmp_path)
    path, array = tmp_path / f"a.{kind}", np.array([Bomb()], dtype=object)
    if kind == "npy":
        np.save(path, array, allow_pickle=True)
    elif kind == "npz":
        np.savez(path, x=array)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError):
        Arrays(path).load("train")
    assert not Path("planted").exists()


# ---------------------------------------------------------------------------------------------------- images
def test_folders_become_classes_alike_from_a_folder_and_a_zip(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
        archive.writestr("__MACOSX/scans/._0.png", b"junk")
        archive.writestr("scans/.hidden.png", b"junk")
        archive.writestr("scans/notes.txt", b"words")
    for path in (folder, tmp_path / "scans.zip"):
        for cache in (2.0, 0.0):
            fields = Images(path, valid=0, cache_gib=cache).load("train")
            assert fields.classes == ("class0", "class1") and fields[0].x.shape == (1, 5, 7)
            batch = fields.gather(torch.tensor([5, 0, 3]))
            assert (batch.x[:, 0, 0, 0] / 40 % 2 == batch.cond["label"]).all()
            assert sorted(everything(fields)[:, 0, 0, 0].tolist()) == [0, 40, 80, 120, 160, 200]


def test_one_folder_is_no_class(folder: Path) -> None:
    fields = Images(folder / "class0", valid=0).load("train")
    assert fields.classes == () and fields[0].cond == {}


def test_workers_decode_what_one_process_does(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.zip", "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.relative_to(tmp_path))
    fields = Images(tmp_path / "scans.zip", valid=0, cache_gib=0.0).load("train")
    loaders = [iter(Loader(fields, 4, workers=workers)) for workers in (0, 2)]
    for _ in range(4):
        one, other = (next(loader) for loader in loaders)
        assert torch.equal(one.x, other.x)


def test_depth_is_kept(tmp_path: Path) -> None:
    deep = np.arange(30, dtype=np.uint16).reshape(5, 6) * 2000 + 7
    save(tmp_path / "deep" / "a.png", deep)
    save(tmp_path / "tiff" / "a.tif", deep)
    save(tmp_path / "float" / "a.tif", deep.astype(np.float32) / 7)
    save(tmp_path / "bit" / "a.png", deep % 4000 > 1000)
    for kind in ("deep", "tiff"):
        fields = Images(tmp_path / kind, valid=0).load("train")
        assert np.array_equal(fields[0].x[0].numpy(), deep) and fields.dtype == "uint16"
    assert np.array_equal(Images(tmp_path / "float", valid=0).load("train")[0].x[0], deep.astype(np.float32) / 7)
    fields = Images(tmp_path / "bit", valid=0).load("train")
    assert np.array_equal(fields[0].x[0].numpy(), deep % 4000 > 1000) and fields.dtype == "bool"
    assert Images(tmp_path / "deep", valid=0, channels=3).load("train")[0].x.shape == (3, 5, 6)


def test_deep_images_are_resized_at_their_depth(tmp_path: Path) -> None:
    x = np.linspace(0, 65535, 40, dtype=np.uint16)[None].repeat(40, 0)
    save(tmp_path / "a" / "a.png", x)
    small = Images(tmp_path / "a", size=(10, 20), valid=0).load("train")[0].x[0]
    assert small.shape == (10, 20) and small.max() > 60000 and len(small.unique()) == 20
    assert torch.allclose(small[:, 5:15], torch.from_numpy(x[:10].reshape(10, 20, 2).mean(-1)).float()[:, 5:15], atol=2)


def test_channels_follow_the_images_or_the_argument(tmp_path: Path) -> None:
    colour = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    save(tmp_path / "a" / "0.png", colour)
    save(tmp_path / "a" / "1.png", colour[..., 0])
    fields = Images(tmp_path / "a", valid=0).load("train")
    assert np.array_equal(fields[0].x.numpy(), colour.transpose(2, 0, 1))
    assert torch.equal(fields[1].x, torch.from_numpy(colour[..., 0]).float().expand(3, 5, 6))
    grey = Images(tmp_path / "a", channels=1, valid=0).load("train")
    assert grey[0].x.shape == (1, 5, 6) and np.array_equal(grey[1].x[0].numpy(), colour[..., 0])


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    stripes = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    save(tmp_path / "a" / "0.png", stripes)
    small = Images(tmp_path / "a", size=(8, 4), valid=0).load("train")[0].x
    assert small.shape == (1, 8, 4) and (small - 127.5).abs().max() < 2


@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_bad_images_are_named(folder: Path, cache) -> None:
    def load():
        return everything(Images(folder, valid=0, cache_gib=cache).load("train"))

    bad = folder / "class1" / "9.png"
    noise = np.random.default_rng(0).integers(0, 255, (5, 7), dtype=np.uint8)
    save(bad, noise)
    save(bad, np.zeros((4, 7), np.uint8))
    with pytest.raises(InputError, match=r"class1/9\.png is 4×7 but class0/0\.png is 5×7: give size"):
        load()
    save(bad, np.zeros((5, 7), np.uint16))
    with pytest.raises(InputError, match=r"class1/9\.png of .* is uint16 but class0/0\.png is uint8"):
        load()


def test_mixed_sizes_are_resized_on_request(folder: Path) -> None:
    save(folder / "class1" / "9.png", np.zeros((4, 9), np.uint8))
    assert everything(Images(folder, size=(6, 3), valid=0).load("train")).shape == (7, 1, 6, 3)


def test_deep_colour_is_refused_since_it_would_be_cut(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = zlib.compress(b"".join(b"\0" + bytes(2 * 6) for _ in range(2)))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    (tmp_path / "a").mkdir()
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "a" / "deep.png").write_bytes(png)
    with pytest.raises(InputError, match=r"deep\.png .* colours of more than 8 bits"):
        Images(tmp_path / "a", valid=0).load("train")


@pytest.mark.parametrize("width", [160, 16, 5])
def test_8_bit_colours_are_read_whatever_their_width(tmp_path: Path, width: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, width, 3), np.uint8)
    for kind in ("bmp", "png", "ppm", "tif", "jp2"):
        save(tmp_path / kind / f"a.{kind}", pixels)
        found = everything(Images(tmp_path / kind, valid=0).load("train"))
        assert kind == "jp2" or np.array_equal(found[0].numpy(), np.moveaxis(pixels, -1, 0))
    deep = Image.open(tmp_path / "jp2" / "a.jp2")
    deep.tile = [(*deep.tile[0][:3], (0, 0, 0, 1216, 1216))]
    assert not is_deep(deep)


@pytest.mark.parametrize("kind", ["jp2", "j2k"])
def test_deep_jpeg_2000_colours_are_refused(tmp_path: Path, kind: str) -> None:
    """Pillow writes none: the bits of the second channel are raised in the header, which is all that is read of it."""
    save(tmp_path / f"a.{kind}", np.zeros((20, 30, 3), np.uint8))
    code = bytearray((tmp_path / f"a.{kind}").read_bytes())
    place = code.find(b"\xff\x4f\xff\x51") + 45
    assert code[place] == 7
    code[place] = 11
    (tmp_path / f"a.{kind}").write_bytes(code)
    with pytest.raises(InputError, match="colours of more than 8 bits"):
        Images(tmp_path, valid=0).load("train")


def test_a_negative_cache_is_refused(folder: Path) -> None:
    for gib in (-1, math.nan):
        with pytest.raises(InputError, match="cache_gib"):
            Images(folder, valid=0, cache_gib=gib).load("train")


def test_deep_ppm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 65535\n" + bytes(6))
    with pytest.raises(InputError, match="colours of more than 8 bits"):
        Images(tmp_path, valid=0).load("train")


def test_both_byte_orders_of_16_bits_are_one_type(tmp_path: Path) -> None:
    for i, mode in enumerate(("I;16", "I;16B")):
        Image.frombytes(mode, (3, 2), np.arange(6, dtype="<u2" if i == 0 else ">u2").tobytes()).save(
            tmp_path / f"{i}.tif"
        )
    fields = Images(tmp_path, valid=0).load("train")
    assert fields.dtype == "uint16" and everything(fields).flatten().tolist() == 2 * list(range(6))


def test_empty_and_broken_collections_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("no images")
    with pytest.raises(InputError, match="holds no images"):
        Images(tmp_path / "empty").load("train")
    with pytest.raises(InputError, match="no folder or zip"):
        Images(tmp_path / "absent").load("train")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for file in folder.rglob("*.png"):
            archive.write(file, file.name)
    (tmp_path / "cut.zip").write_bytes(buffer.getvalue()[:-60])
    with pytest.raises(InputError, match="not a readable zip"):
        Images(tmp_path / "cut.zip").load("train")


# ------------------------------------------------------------------------------------------------- anything else
def test_items_of_other_datasets() -> None:
    x = torch.zeros(1, 3, dtype=torch.float64)
    mask = torch.ones(1, 3)
    assert wrapped([x, x], valid=1).load("train")[0].x.dtype == torch.float32
    assert wrapped([(x, 2), (x, 2)], valid=1).load("train")[0].cond["label"] == 2
    batch = Batch(x, {"vector": torch.ones(4)}, mask=mask)
    item = wrapped([batch, batch], valid=1).load("train")[0]
    assert torch.equal(item.mask, mask) and item.cond["vector"].shape == (4,)
    with pytest.raises(InputError, match="Item 0 of the dataset is dict"):
        wrapped([{"x": x}], valid=0).load("train")[0]


def test_bad_labels_are_refused() -> None:
    x = torch.zeros(4, 1, 2)
    for labels in (torch.zeros(3).long(), torch.zeros(4, 2).long(), torch.tensor([-1, 0, 0, 0])):
        with pytest.raises(InputError, match="Labels of x"):
            Tensors(x, labels).load("train")


def test_wrapped_items_are_held_to_what_arrays_are() -> None:
    z = torch.complex(torch.arange(6.0).reshape(2, 3), torch.ones(2, 3))
    x = wrapped([z, z.conj()], valid=0).load("train")
    assert torch.equal(x[0].x, everything(Tensors(torch.stack((z, z)), valid=0).load("train"))[0])
    assert x[1].x[1].tolist() == [-1, -1, -1] and x.fields.dtype == "complex64"
    item = wrapped([Batch(z, mask=torch.ones(2, 3))], valid=0).load("train")[0]
    assert item.x.shape == item.mask.shape == (4, 3)
    x = torch.zeros(1, 3)
    assert wrapped([(x, torch.tensor([2]))], valid=0).load("train")[0].cond["label"].shape == ()
    for label in ([0.5, float("nan")], [1, 2], -1, "cat", None):
        with pytest.raises(InputError, match="item 0 of the dataset"):
            wrapped([(x, label)], valid=0).load("train")
    for odd in (x.to_sparse(), torch.zeros(3), torch.zeros(1, 2, 2, 2, 2)):
        with pytest.raises(InputError, match="item 0 of the dataset"):
            wrapped([odd], valid=0).load("train")
    with pytest.raises(InputError, match="to_dense"):
        Tensors(torch.zeros(4, 1, 3).to_sparse()).load("train")


# ------------------------------------------------------------------------------------------------- kinds of images
@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_images_are_in_colour_if_any_is(tmp_path: Path, cache) -> None:
    colour = np.arange(90, dtype=np.uint8).reshape(5, 6, 3)
    save(tmp_path / "a" / "0.png", colour[..., 0])
    save(tmp_path / "a" / "1.png", colour)
    Image.fromarray(colour).quantize(256).save(tmp_path / "a" / "2.png")
    fields = Images(tmp_path / "a", valid=0, cache_gib=cache).load("train")
    assert torch.equal(fields[0].x, torch.from_numpy(colour[..., 0]).float().expand(3, 5, 6))
    assert np.array_equal(fields[1].x.numpy(), colour.transpose(2, 0, 1)) and fields[2].x.shape == (3, 5, 6)
    assert Images(tmp_path / "a", valid=0, cache_gib=cache, channels=1).load("train")[1].x.shape == (1, 5, 6)


def test_colour_that_is_met_late_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("scorefield.data.decode.Decoder.looked_at", 2)
    for i in range(3):
        save(tmp_path / f"{i}.png", np.zeros((5, 6, 3) if i == 1 else (5, 6), np.uint8))
    with pytest.raises(InputError, match=r"1\.png of .* is in colour, .* give channels 3"):
        everything(Images(tmp_path, valid=0, cache_gib=0.0).load("train"))


def test_one_depth_for_all(tmp_path: Path) -> None:
    save(tmp_path / "0.png", np.full((5, 6), 200, np.uint8))
    save(tmp_path / "1.png", np.full((5, 6), 200 * 257, np.uint16))
    save(tmp_path / "2.png", np.ones((5, 6), bool))
    with pytest.raises(InputError, match=r"1\.png of .* is uint16 but 0\.png is uint8: give depth"):
        everything(Images(tmp_path, valid=0).load("train"))
    for depth, white in ((8, 255), (16, 65535)):
        fields = Images(tmp_path, valid=0, depth=depth).load("train")
        assert fields.dtype == f"uint{depth}"
        assert everything(fields)[:, 0, 0, 0].tolist() == [200 * white / 255, 200 * white / 255, white]
    save(tmp_path / "3.tif", np.zeros((5, 6), np.float32))
    with pytest.raises(InputError, match=r"3\.tif of .* holds float32"):
        everything(Images(tmp_path, valid=0, depth=8).load("train"))


@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_pages_are_fields_volumes_or_refused(tmp_path: Path, cache) -> None:
    stacks = np.random.default_rng(0).integers(0, 2**16, (3, 4, 5, 6), dtype=np.uint16)
    for i, pages in enumerate(stacks):
        first, *rest = (Image.fromarray(page) for page in pages)
        (tmp_path / str(i % 2)).mkdir(exist_ok=True)
        first.save(tmp_path / str(i % 2) / f"{i}.tif", save_all=True, append_images=rest)
    order = stacks[[0, 2, 1]]  # by folder

    def load(pages, **options):
        return Images(tmp_path, valid=0, cache_gib=cache, pages=pages, **options).load("train")

    with pytest.raises(InputError, match=r"0/0\.tif of .* has 4 pages: give pages frames, volume or first"):
        everything(load(None))
    assert np.array_equal(everything(load("first"))[:, 0].numpy(), order[:, 0])
    volumes, frames = load("volume"), load("frames")
    assert volumes[0].x.shape == (1, 4, 5, 6) and np.array_equal(everything(volumes)[:, 0].numpy(), order)
    assert np.array_equal(everything(frames)[:, 0].numpy(), order.reshape(12, 5, 6))
    assert frames.gather(torch.arange(12)).cond["label"].tolist() == [0] * 8 + [1] * 4
    held = Images(tmp_path, valid=1, pages="frames").load("valid")
    assert len(held) == 4  # all frames of a file
    single = Images(tmp_path / "1", valid=1, pages="frames", cache_gib=cache)
    parts = [everything(single.load(split))[:, 0].numpy() for split in ("train", "valid")]
    assert len(parts[1]) == 1 and sum(map(len, parts)) == 4
    first, *rest = (Image.fromarray(page) for page in stacks[0, :2])
    first.save(tmp_path / "1" / "9.tif", save_all=True, append_images=rest)
    with pytest.raises(InputError, match=r"1/9\.tif is 2×5×6 but 0/0\.tif is 4×5×6: volumes need as many pages"):
        everything(load("volume"))


def test_animated_images_are_not_cut_silently(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((5, 6, 3), (60 * i, 0, 200), np.uint8)) for i in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=r"a\.gif of .* has 3 pages"):
        everything(Images(tmp_path, valid=0).load("train"))
    assert len(Images(tmp_path, valid=0, pages="frames").load("train")) == 3


def test_transparency_is_said_to_be_dropped(tmp_path: Path) -> None:
    for i, channels in enumerate((3, 4, 4)):
        save(tmp_path / f"{i}.png", np.full((5, 6, channels), 7, np.uint8))
    for cache in (2.0, 0.0):
        (note,) = Images(tmp_path, valid=0, cache_gib=cache).load("train").notes
        assert "2 of 3 images have an alpha channel" in note and "1.png" in note


def test_bombs_and_locked_archives_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    save(tmp_path / "a" / "big.png", np.zeros((5, 6), np.uint8))
    with pytest.raises(InputError, match=r"big\.png of .* is not a readable image \(Image size"):
        Images(tmp_path / "a", valid=0).load("train")
    with zipfile.ZipFile(tmp_path / "locked.zip", "w") as archive:
        archive.write(tmp_path / "a" / "big.png", "big.png")
    data = bytearray((tmp_path / "locked.zip").read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1  # as a zip with a password has it
    (tmp_path / "locked.zip").write_bytes(data)
    with pytest.raises(InputError, match=r"locked\.zip is protected by a password, as big\.png is"):
        Images(tmp_path / "locked.zip", valid=0).load("train")


# ------------------------------------------------------------------------------------------------- real data
def test_mnist(data_folder: Path) -> None:
    source = Arrays(data_folder / "images" / "mnist_70k.npz")
    train, valid = source.load("train"), source.load("valid")
    assert (len(train), len(valid)) == (60000, 10000) and train[0].x.shape == (1, 28, 28)
    assert len(train.classes) == 10 and int(train[0].cond["label"]) == 5
    x = everything(valid)
    assert x.min() == 0 and x.max() == 255


def test_sign_digits(data_folder: Path) -> None:
    source = Images(data_folder / "images" / "sign_digits_100px_2059.zip", size=(16, 20), valid=59)
    train, valid = source.load("train"), source.load("valid")
    assert (len(train), len(valid)) == (2000, 59) and train[0].x.shape == (3, 16, 20)
    assert train.classes == valid.classes == tuple("0123456789")


def test_omniglot_is_one_bit(data_folder: Path) -> None:
    fields = Images(data_folder / "images" / "omniglot_images_background_small1.zip", cache_gib=0.0).load("valid")
    assert len(fields) == 272 and fields.dtype == "bool" and len(fields.classes) == 136
    assert fields.gather(torch.arange(4)).x.unique().tolist() == [0, 1] and fields[0].x.shape == (1, 105, 105)
