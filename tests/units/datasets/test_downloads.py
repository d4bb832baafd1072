"""Published data sets from files in exactly the layout in which they are downloaded, small ones made here."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.cli import main
from scorefield.data import FieldDataset
from scorefield.datasets import CIFAR10, CIFAR100, LSUN, MNIST, CelebA, TFRecords, WebDataset
from scorefield.datasets.tfrecords import masked_crc
from scorefield.foundation.errors import AbsentDataError, InputError

RNG = np.random.default_rng(0)


def everything(fields: FieldDataset) -> torch.Tensor:
    return fields.gather(torch.arange(len(fields))).x


def labels(fields: FieldDataset) -> list[int]:
    return fields.gather(torch.arange(len(fields))).cond["label"].tolist()


def same(fields: FieldDataset, x: np.ndarray) -> bool:
    """Whether fields are some images (N, channels, height, width), in any order."""
    found = everything(fields)
    return found.shape == x.shape and sorted(map(bytes, found.to(torch.uint8).numpy())) == sorted(map(bytes, x))


def message(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) <= 300 + text.count("/") * 60  # paths of tests are long
    return text


# ------------------------------------------------------------------------------------------------------------------ CIFAR
class Python2(pickle._Pickler):
    """Writes text and bytes as Python 2 did, whose pickles CIFAR's are."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

    def save_text(self, value) -> None:
        data = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(data)) + data)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_text


def python2(value) -> bytes:
    file = io.BytesIO()
    Python2(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


CIFAR_X = RNG.integers(0, 256, (60, 3, 32, 32), dtype=np.uint8)
FINE, COARSE = np.arange(60) % 10, np.arange(60) % 3
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]


def cifar10_files(version: str) -> dict[str, bytes]:
    parts = zip(BATCHES, np.split(CIFAR_X, 6), np.split(FINE, 6), strict=True)
    if version == "binary":
        rows = {name: np.hstack([y[:, None].astype(np.uint8), x.reshape(10, -1)]) for name, x, y in parts}
        files = {f"cifar-10-batches-bin/{name}.bin": data.tobytes() for name, data in rows.items()}
        return files | {"cifar-10-batches-bin/batches.meta.txt": ("\n".join(TEN) + "\n\n").encode()}
    files = {
        f"cifar-10-batches-py/{name}": python2(
            {"batch_label": "batch", "labels": y.tolist(), "data": x.reshape(10, -1), "filenames": ["a.png"] * 10}
        )
        for name, x, y in parts
    }
    meta = {"num_cases_per_batch": 10000, "label_names": TEN, "num_vis": 3072}
    return files | {"cifar-10-batches-py/batches.meta": python2(meta), "cifar-10-batches-py/readme.html": b"<html>"}


def cifar100_files(version: str) -> dict[str, bytes]:
    parts = (("train", slice(0, 50)), ("test", slice(50, 60)))
    fine, coarse = [f"fine{i}" for i in range(10)], [f"coarse{i}" for i in range(3)]
    if version == "binary":
        rows = {
            name: np.hstack([np.stack((COARSE[s], FINE[s]), 1).astype(np.uint8), CIFAR_X[s].reshape(-1, 3072)])
            for name, s in parts
        }
        files = {f"cifar-100-binary/{name}.bin": data.tobytes() for name, data in rows.items()}
        names = {"fine": fine, "coarse": coarse}
        return files | {f"cifar-100-binary/{k}_label_names.txt": "\n".join(v).encode() for k, v in names.items()}
    files = {
        f"cifar-100-python/{name}": python2(
            {
                "filenames": ["a.png"],
                "batch_label": "b",
                "fine_labels": FINE[s].tolist(),
                "coarse_labels": COARSE[s].tolist(),
                "data": CIFAR_X[s].reshape(-1, 3072),
            }
        )
        for name, s in parts
    }
    meta = {"fine_label_names": fine, "coarse_label_names": coarse}
    return files | {"cifar-100-python/meta": python2(meta), "cifar-100-python/file.txt~": b""}


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def unpacked(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path / next(iter(files)).split("/", maxsplit=1)[0]


@pytest.mark.parametrize("version", ["binary", "python"])
@pytest.mark.parametrize("form", ["tar.gz", "folder", "the folder above"])
def test_cifar10(tmp_path: Path, version: str, form: str) -> None:
    files = cifar10_files(version)
    path = packed(tmp_path / "a.tar.gz", files) if form == "tar.gz" else unpacked(tmp_path, files)
    source = CIFAR10(tmp_path if form == "the folder above" else path, valid=8)
    train, valid, test = (source.load(split) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (42, 8, 10)
    assert torch.equal(everything(test), torch.from_numpy(CIFAR_X[50:]).float()) and labels(test) == FINE[50:].tolist()
    assert same(train, np.delete(CIFAR_X[:50], numbers(valid), axis=0)) and same(valid, CIFAR_X[numbers(valid)])
    assert labels(valid) == FINE[numbers(valid)].tolist() and train.classes == tuple(TEN)
    assert (train.quantum, train.dtype) == (1.0, "uint8")
    assert not torch.equal(everything(CIFAR10(path, valid=8, seed=1).load("valid")), everything(valid))


def numbers(fields: FieldDataset) -> list[int]:
    """Which of CIFAR_X fields are."""
    places = {bytes(x): i for i, x in enumerate(CIFAR_X)}
    return [places[bytes(x)] for x in everything(fields).to(torch.uint8).numpy()]


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar100_has_fine_and_coarse_classes(tmp_path: Path, version: str) -> None:
    path = packed(tmp_path / "a.tar.gz", cifar100_files(version))
    fine, coarse = CIFAR100(path).load("test"), CIFAR100(path, labels="coarse").load("test")
    assert labels(fine) == FINE[50:].tolist() and labels(coarse) == COARSE[50:].tolist()
    assert fine.classes[3] == "fine3" and coarse.classes == ("coarse0", "coarse1", "coarse2")
    assert torch.equal(everything(fine), torch.from_numpy(CIFAR_X[50:]).float())
    assert len(CIFAR100(path, valid=0.2).load("valid")) == 10


def test_both_versions_of_cifar_are_the_same(tmp_path: Path) -> None:
    one, other = (
        CIFAR10(packed(tmp_path / f"{v}.tar.gz", cifar10_files(v))).load("train") for v in ("binary", "python")
    )
    assert torch.equal(everything(one), everything(other)) and labels(one) == labels(other)


def test_a_cifar_that_is_cut_off_incomplete_or_another_is_named(tmp_path: Path) -> None:
    files = cifar10_files("binary")
    path = packed(tmp_path / "a.tar.gz", files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.tar\.gz is cut off.*download it again") as error:
        CIFAR10(path).load("train")
    message(error)
    del files["cifar-10-batches-bin/data_batch_3.bin"]
    with pytest.raises(InputError, match=r"lacks data_batch_3\.bin"):
        CIFAR10(packed(path, files)).load("train")
    short = cifar10_files("binary")
    short["cifar-10-batches-bin/data_batch_3.bin"] = short["cifar-10-batches-bin/data_batch_3.bin"][:-1]
    with pytest.raises(InputError, match=r"data_batch_3\.bin of .*multiple of 3073"):
        CIFAR10(packed(path, short)).load("train")
    with pytest.raises(InputError, match=r"lacks .* give the whole download"):
        CIFAR10(packed(path, cifar100_files("binary"))).load("train")
    with pytest.raises(AbsentDataError, match="no file or folder"):
        CIFAR10(tmp_path / "gone.tar.gz").load("train")
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(InputError, match="cut off, or no tar"):
        CIFAR10(path).load("train")


class Attack:
    def __reduce__(self):
        return exec, ("raise SystemExit('pickled code ran')",)


@pytest.mark.parametrize("hostile", [Attack(), {"data": np.array([Attack()], dtype=object)}, {"data": 1}, [1], {}])
def test_code_in_a_cifar_is_not_run(tmp_path: Path, hostile: object) -> None:
    files = cifar10_files("python") | {"cifar-10-batches-py/test_batch": pickle.dumps(hostile, protocol=2)}
    with pytest.raises(InputError, match="test_batch of"):
        CIFAR10(packed(tmp_path / "a.tar.gz", files)).load("test")


# ------------------------------------------------------------------------------------------------------------------ MNIST
def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


MNIST_X, MNIST_Y = RNG.integers(0, 256, (30, 28, 28), dtype=np.uint8), np.arange(30) % 10


@pytest.mark.parametrize("form", ["{}-{}-{}-ubyte.gz", "{}-{}-{}-ubyte", "{}-{}.{}-ubyte"])
def test_mnist(tmp_path: Path, form: str) -> None:
    for part, chosen in (("train", slice(20)), ("t10k", slice(20, 30))):
        for what, kind, array in (("images", "idx3", MNIST_X), ("labels", "idx1", MNIST_Y)):
            data = idx(array[chosen])
            name = form.format(part, what, kind)
            (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    source = MNIST(tmp_path, valid=5)
    train, valid, test = (source.load(split) for split in ("train", "valid", "test"))
    assert (len(train), len(valid), train[0].x.shape) == (15, 5, (1, 28, 28))
    assert (
        torch.equal(everything(test)[:, 0], torch.from_numpy(MNIST_X[20:]).float())
        and labels(test) == MNIST_Y[20:].tolist()
    )
    assert train.classes == tuple("0123456789") and train.quantum == 1 and train.dtype == "uint8"
    path = next(tmp_path.glob("t10k-images*"))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"t10k-images.*(cannot be unpacked|values for the shape).*download it again"):
        source.load("test")
    path.write_bytes(idx(MNIST_Y))
    with pytest.raises(InputError, match=r"t10k-images.*no idx file"):
        source.load("test")
    path.unlink()
    with pytest.raises(InputError, match=r"lacks t10k-images-idx3-ubyte\.gz"):
        source.load("test")
    with pytest.raises(AbsentDataError, match="no folder"):
        MNIST(tmp_path / "gone").load("train")
    (tmp_path / "mnist.npz").write_bytes(b"")
    with pytest.raises(InputError, match="--data Arrays"):
        MNIST(tmp_path / "mnist.npz").load("train")


# ----------------------------------------------------------------------------------------------------------------- CelebA
FACES = RNG.integers(0, 256, (10, 22, 18, 3), dtype=np.uint8)
ATTRIBUTES = ["5_o_Clock_Shadow", "Smiling", "Young"]
SMILES = np.array([1, -1, 1, -1, -1, 1, 1, -1, 1, -1])
PARTITION = [0, 0, 2, 0, 1, 0, 0, 1, 0, 2]


def encoded(pixels: np.ndarray, kind: str = "png") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"lossless": True} if kind == "webp" else {}))
    return file.getvalue()


def celeba(path: Path, images: str = "zip", lists: str = "txt", nested: bool = True) -> Path:
    names = [f"{i + 1:06}.{'png' if 'png' in images else 'jpg'}" for i in range(10)]
    img, anno, evaluation = ((path / name if nested else path) for name in ("Img", "Anno", "Eval"))
    for folder in (img, anno, evaluation):
        folder.mkdir(parents=True, exist_ok=True)
    data = {name: encoded(face) for name, face in zip(names, FACES, strict=True)}  # lossless, under any name
    if images == "zip":
        with zipfile.ZipFile(img / "img_align_celeba.zip", "w") as file:
            file.writestr("img_align_celeba/", "")
            for name, content in data.items():
                file.writestr(f"img_align_celeba/{name}", content)
    else:
        (img / images).mkdir()
        for name, content in data.items():
            (img / images / name).write_bytes(content)
    stems = [f"{i + 1:06}.jpg" for i in range(10)]
    rows = [(stem, ("-1", f"{smile:2}", " 1")) for stem, smile in zip(stems, SMILES, strict=True)]
    if lists == "txt":
        text = "10\n" + " ".join(ATTRIBUTES) + " \n" + "".join(f"{s} {' '.join(v)}\n" for s, v in rows)
        parts = "".join(f"{s} {p}\n" for s, p in zip(stems, PARTITION, strict=True))
    else:
        head = "image_id," + ",".join(ATTRIBUTES) + "\n"
        text = head + "".join(f"{s},{','.join(x.strip() for x in v)}\n" for s, v in rows)
        parts = "image_id,partition\n" + "".join(f"{s},{p}\n" for s, p in zip(stems, PARTITION, strict=True))
    (anno / f"list_attr_celeba.{lists}").write_text(text)
    (evaluation / f"list_eval_partition.{lists}").write_text(parts)
    return path


@pytest.mark.parametrize(
    ("images", "lists", "nested", "given"),
    [
        ("zip", "txt", True, "."),
        ("zip", "txt", False, "."),
        ("zip", "txt", True, "Img/img_align_celeba.zip"),
        ("img_align_celeba", "csv", False, "."),
        ("img_align_celeba", "txt", False, "img_align_celeba"),
        ("img_align_celeba_png", "txt", True, "."),
    ],
)
@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_celeba(tmp_path: Path, images: str, lists: str, nested: bool, given: str, cache: float) -> None:
    source = CelebA(celeba(tmp_path / "celeba", images, lists, nested) / given, attribute="Smiling", cache_gib=cache)
    for number, split in enumerate(("train", "valid", "test")):
        chosen = np.flatnonzero(np.array(PARTITION) == number)
        fields = source.load(split)
        assert np.array_equal(everything(fields).numpy(), np.moveaxis(FACES[chosen], -1, 1))
        assert labels(fields) == (SMILES[chosen] > 0).tolist() and fields.classes == ("not Smiling", "Smiling")
    assert CelebA(tmp_path / "celeba" / given).load("train").classes == ()


def test_images_in_no_list_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = celeba(tmp_path, "img_align_celeba", nested=False)
    (path / "img_align_celeba" / "000099.jpg").write_bytes(encoded(FACES[0]))
    assert len(CelebA(path, attribute="Young").load("train")) == PARTITION.count(0)
    assert "1 images that are in no list" in caplog.text


def test_a_celeba_that_is_not_whole_is_named(tmp_path: Path) -> None:
    path = celeba(tmp_path, "img_align_celeba", nested=False)
    with pytest.raises(InputError, match=r"no attribute 'Smilling': did you mean Smiling\?"):
        CelebA(path, attribute="Smilling").load("train")
    lists = path / "list_attr_celeba.txt"
    lists.write_text(lists.read_text().replace("000003.jpg -1", "000003.jpg"))
    with pytest.raises(InputError, match="broken line for 000003"):
        CelebA(path, attribute="Smiling").load("train")
    lists.write_text(lists.read_text().split("000003")[0])
    with pytest.raises(InputError, match="lacks 000003"):
        CelebA(path, attribute="Smiling").load("train")
    (path / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(InputError, match="lacks 1 of the 10 listed images, such as 000004"):
        CelebA(path).load("train")
    (path / "list_eval_partition.txt").write_text("000001.jpg 7\n")
    with pytest.raises(InputError, match=r"line '000001\.jpg 7'"):
        CelebA(path).load("train")
    (path / "list_eval_partition.txt").unlink()
    with pytest.raises(InputError, match=r"no list_eval_partition\.txt"):
        CelebA(path).load("train")
    with pytest.raises(AbsentDataError, match="correct the path"):
        CelebA(path / "gone").load("train")


# ------------------------------------------------------------------------------------------------------------------- LSUN
ROOMS = RNG.integers(0, 256, (9, 12, 16, 3), dtype=np.uint8)


def database(path: Path, pixels: np.ndarray, kind: str = "webp") -> Path:
    lmdb = pytest.importorskip("lmdb", reason="the extra scorefield[lsun] is not installed")
    with lmdb.open(str(path), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i, image in enumerate(pixels):
            transaction.put(b"%040x" % i, encoded(image, kind))
    return path


@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_lsun(tmp_path: Path, cache: float) -> None:
    database(tmp_path / "bedroom_train_lmdb", ROOMS[:7])
    database(tmp_path / "bedroom_val_lmdb", ROOMS[7:], "png")
    for path in (tmp_path, tmp_path / "bedroom_train_lmdb"):
        for split, expected in (("train", ROOMS[:7]), ("valid", ROOMS[7:])):
            fields = LSUN(path, cache_gib=cache).load(split)
            assert np.array_equal(everything(fields).numpy(), np.moveaxis(expected, -1, 1)) and fields.classes == ()
    database(tmp_path / "church_outdoor_train_lmdb", ROOMS[:4])
    church = LSUN(tmp_path, "church_outdoor", valid=1, cache_gib=cache)
    assert (len(church.load("train")), len(church.load("valid"))) == (3, 1)
    with pytest.raises(InputError, match="bedroom, church_outdoor: give one of them as category"):
        LSUN(tmp_path).load("train")
    with pytest.raises(InputError, match="no validation database beside it"):
        LSUN(tmp_path, "church_outdoor").load("valid")


def test_a_database_that_is_cut_off_or_none_is_named(tmp_path: Path) -> None:
    path = database(tmp_path / "bedroom_train_lmdb", ROOMS)
    whole = (path / "data.mdb").read_bytes()
    for data in (whole[:9000], whole[:-4096]):
        (path / "data.mdb").write_bytes(data)
        with pytest.raises(InputError, match=r"data\.mdb is cut off"):
            LSUN(path).load("train")
    for data in (b"", b"no database" * 900):
        (path / "data.mdb").write_bytes(data)
        with pytest.raises(InputError, match=r"bedroom_train_lmdb.* (is no LMDB database|is cut off)"):
            LSUN(path).load("train")
    (path / "data.mdb").unlink()
    with pytest.raises(InputError, match="unzip the download there"):
        LSUN(tmp_path).load("train")
    (tmp_path / "bedroom_train_lmdb.zip").write_bytes(b"PK")
    with pytest.raises(AbsentDataError, match="unzip it"):
        LSUN(tmp_path / "bedroom_train_lmdb.zip").load("train")


# -------------------------------------------------------------------------------------------------------------- TFRecords
def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def part(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def example(image: np.ndarray, packed: bool = True) -> bytes:
    """tf.train.Example with shape as an Int64List, data as a BytesList, as dataset_tool.py of StyleGAN writes it."""
    sizes = [varint(n) for n in image.shape]
    shape = part(1, b"".join(sizes)) if packed else b"".join(b"\x08" + size for size in sizes)
    entries = part(1, part(1, b"shape") + part(2, part(3, shape)))
    entries += part(1, part(1, b"data") + part(2, part(1, part(1, image.tobytes()))))
    return part(1, entries)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked_crc(length) + data + masked_crc(data)


def records(path: Path, images: np.ndarray, packed: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(record(example(image, packed)) for image in images))
    return path


def test_check_sums_are_those_of_the_standard() -> None:
    """CRC-32C of "123456789" is 0xE3069283; RFC 3720, B.4: of 32 zeros 0x8A9136AA."""
    for data, crc in ((b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)):
        turned = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        assert masked_crc(data) == struct.pack("<I", turned)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_tfrecords(tmp_path: Path, packed: bool, channels: int) -> None:
    x = {lod: RNG.integers(0, 256, (10, channels, 2**lod, 2**lod), dtype=np.uint8) for lod in (2, 3, 4)}
    for lod, images in x.items():
        records(tmp_path / "ffhq" / f"ffhq-r{lod:02}.tfrecords", images, packed)
    fields = TFRecords(tmp_path / "ffhq", valid=0).load("train")
    assert np.array_equal(everything(fields).numpy(), x[4]) and fields.classes == ()
    for size, lod in (((8, 8), 3), ((5, 8), 3), ((32, 32), 4)):
        fields = TFRecords(tmp_path / "ffhq", valid=2, size=size, cache_gib=0).load("train")
        assert len(fields) == 8 and fields[0].x.shape == (channels, *size)
        if size == (8, 8):
            assert same(TFRecords(tmp_path / "ffhq", valid=0, size=size).load("train"), x[lod])


def test_labels_beside_tfrecords(tmp_path: Path) -> None:
    path = records(tmp_path / "cifar10-r05.tfrecords", CIFAR_X)
    for y in (np.eye(10, dtype=np.float32)[FINE], FINE):
        with (tmp_path / "cifar10-rxx.labels").open("wb") as file:
            np.save(file, y)
        fields = TFRecords(path, valid=0).load("train")
        assert labels(fields) == FINE.tolist() and len(fields.classes) == 10
    with (tmp_path / "cifar10-rxx.labels").open("wb") as file:
        np.save(file, RNG.random((60, 4)))
    with pytest.raises(InputError, match=r"cifar10-rxx\.labels.*no classes"):
        TFRecords(path).load("train")


def test_tfrecords_of_several_lengths(tmp_path: Path) -> None:
    """All are found where the records differ in length, and where the file's length is a multiple of the first's all the same."""
    small, large = example(np.zeros((1, 4, 4), np.uint8)), example(np.zeros((1, 20, 4), np.uint8))
    path = tmp_path / "a.tfrecords"
    path.write_bytes(b"".join(map(record, (small, large, small))))
    fields = TFRecords(path, valid=0, size=(4, 4), cache_gib=0).load("train")
    assert len(fields) == 3 and everything(fields).shape == (3, 1, 4, 4)


def test_records_that_are_cut_off_damaged_or_others_are_named(tmp_path: Path) -> None:
    path = records(tmp_path / "a-r05.tfrecords", CIFAR_X)
    whole = path.read_bytes()
    for data, found in (
        (whole[:-1], "is cut off in its last record"),
        (whole[:-3095], "is (cut off|no TFRecord file, or damaged)"),
        (b"<html>" * 9, "is no TFRecord file"),
        (b"", "is empty"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"a-r05\.tfrecords {found}.*download it again"):
            TFRecords(path).load("train")
    path.write_bytes(record(part(1, part(1, part(1, b"image/encoded") + part(2, part(1, part(1, b"x")))))))
    with pytest.raises(InputError, match=r"Record 0 of .*a-r05\.tfrecords.*image/encoded, not shape and data"):
        TFRecords(path, valid=0).load("train")
    for data in (b"\xff" * 30, b"\x0a\xff\x01", b"\x0b"):
        path.write_bytes(record(data))
        with pytest.raises(InputError, match=r"Record 0 of .*no tf\.train\.Example"):
            TFRecords(path, valid=0).load("train")
    records(tmp_path / "b-r05.tfrecords", CIFAR_X[:2])
    with pytest.raises(InputError, match="several data sets"):
        TFRecords(tmp_path).load("train")
    with pytest.raises(AbsentDataError, match="correct the path"):
        TFRecords(tmp_path / "gone").load("train")


# ------------------------------------------------------------------------------------------------------------- WebDataset
def shard(path: Path, numbers: range, **extra: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for i in numbers:
            files = {"png": encoded(ROOMS[i]), "cls": b"%d" % (i % 3), "json": b"{}"} | extra
            for ending, data in files.items():
                info = tarfile.TarInfo(f"set/{i:04}.{ending}")
                info.size, info.mtime = len(data), 1.5
                tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("pattern", ["", "train-{000..002}.tar", "train-*.tar"])
@pytest.mark.parametrize("cache", [2.0, 0.0])
def test_webdataset(tmp_path: Path, pattern: str, cache: float) -> None:
    for i in range(3):
        shard(tmp_path / "shards" / f"train-{i:03}.tar", range(2 * i, 2 * i + 2))
    shard(tmp_path / "val.tar", range(6, 9))
    path = str(tmp_path / "shards" / pattern)
    train = WebDataset(path, valid=str(tmp_path / "val.tar"), cache_gib=cache).load("train")
    valid = WebDataset(path, valid=str(tmp_path / "val.tar"), cache_gib=cache).load("valid")
    assert np.array_equal(everything(train).numpy(), np.moveaxis(ROOMS[:6], -1, 1)) and labels(train) == [0, 1, 2] * 2
    assert np.array_equal(everything(valid).numpy(), np.moveaxis(ROOMS[6:], -1, 1)) and labels(valid) == [0, 1, 2]
    assert train.classes == valid.classes == ("0", "1", "2")
    assert len(WebDataset(path, valid=2, cache_gib=cache).load("valid")) == 2


def test_shards_that_do_not_fit_are_named(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.tar", range(4))
    with pytest.raises(AbsentDataError, match=r"b\.tar"):
        WebDataset(str(tmp_path / "b.tar")).load("train")
    with pytest.raises(AbsentDataError, match=r"no .*a-3\.tar"):
        WebDataset(str(tmp_path / "a-{3..4}.tar")).load("train")
    with pytest.raises(InputError, match=r"no images that end in \.jpg"):
        WebDataset(str(path), image="jpg").load("train")
    with pytest.raises(InputError, match=r"no \.txt for set/0000\.png"):
        WebDataset(str(path), label="txt").load("train")
    with pytest.raises(InputError, match="several images"):
        WebDataset(str(shard(path, range(4), **{"mask.png": b""}))).load("train")
    masks = WebDataset(str(shard(path, range(4), **{"mask.png": encoded(ROOMS[0][:2])})), image="mask.png", valid=0)
    assert everything(masks.load("train")).shape == (4, 3, 2, 16)
    with pytest.raises(InputError, match=r"set/0000\.cls of .*a\.tar holds b'cat'"):
        WebDataset(str(shard(path, range(4), cls=b"cat"))).load("train")
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"a\.tar is cut off"):
        WebDataset(str(path)).load("train")


def test_the_tars_of_both_parts_are_known(tmp_path: Path) -> None:
    for name in ("a-0", "a-1", "val"):
        shard(tmp_path / f"{name}.tar", range(4))
    source = WebDataset(str(tmp_path / "a-{0..1}.tar"), valid=str(tmp_path / "val.tar"))
    before = source.manifest(source.load("train"), source.load("valid"))
    assert before.files == 3
    shard(tmp_path / "a-0.tar", range(3, -1, -1))
    now = source.manifest(source.load("train"), source.load("valid"))
    assert "other content of files" in before.changes(now)
    assert "files" not in " ".join(replace(before, files=0, bytes=0, names="", content="").changes(now))


def test_a_tar_of_the_present_folder_holds_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(shard(tmp_path / "b.tar", range(4)), "./ignored.tar")
        for i in range(4):
            info, content = tarfile.TarInfo(f"./{i}.png"), encoded(ROOMS[i])
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert len(WebDataset(str(tmp_path / "a.tar"), valid=0).load("train")) == 4


# ------------------------------------------------------------------------------------------------------------ command line
def test_all_are_named_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cifar = packed(tmp_path / "cifar-10-binary.tar.gz", cifar10_files("binary"))
    celeba(tmp_path / "celeba")
    records(tmp_path / "a-r05.tfrecords", CIFAR_X)
    shard(tmp_path / "train-00.tar", range(6))
    shard(tmp_path / "val-00.tar", range(6, 9))
    shards = str(tmp_path / "{}-{{00..00}}.tar")
    calls = [
        (["CIFAR10", "--data.path", str(cifar), "--data.valid", "8"], "42 of shape 3 × 32 × 32", "10"),
        (
            ["CelebA", "--data.path", str(tmp_path / "celeba"), "--data.attribute", "Young"],
            "6 of shape 3 × 22 × 18",
            "2",
        ),
        (
            ["TFRecords", "--data.path", str(tmp_path / "a-r05.tfrecords"), "--data.size", "[8,8]"],
            "3 × 8 × 8",
            "no labels",
        ),
        (
            ["WebDataset", "--data.path", shards.format("train"), "--data.valid", shards.format("val")],
            "6 of shape",
            "3",
        ),
    ]
    for words, shape, classes in calls:
        assert main(["check-data", "--data", *words]) == 0
        out = capsys.readouterr().out
        assert shape in out and f"classes     {classes}" in out
    assert main(["check-data", "--data", "CIFAR100", "--data.path", str(cifar)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("first", [b"no image", encoded(np.zeros((4, 4), np.uint8))], ids=["corrupt", "grey"])
def test_the_first_image_of_an_archive_does_not_decide_for_all(first: bytes, tmp_path: Path) -> None:
    colour = [encoded(RNG.integers(0, 256, (4, 4, 3), dtype=np.uint8)) for _ in range(30)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, content in enumerate([first, *colour]):
            info = tarfile.TarInfo(f"{i:02}.png")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    fields = WebDataset(str(tmp_path / "a.tar"), valid=0).load("train")
    assert everything(fields).shape == (31 if first.startswith(b"\x89PNG") else 30, 3, 4, 4)
