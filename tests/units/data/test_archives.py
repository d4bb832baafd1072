"""Archives of encoded images: what is read from the middle of files is what was put in; what is cut off is named."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scorefield.data import Loader
from scorefield.data.archives import Archived, FileArchive, RangeArchive, _header, tar_members
from scorefield.data.decode import Conversion, ImageFields
from scorefield.foundation.errors import InputError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
NAMES = [f"{i:02}.png" for i in range(len(PIXELS))]


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def folder(tmp_path: Path) -> FileArchive:
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        (tmp_path / name).write_bytes(png(pixels))
    (tmp_path / ".hidden.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    return FileArchive(tmp_path)


def zipped(tmp_path: Path, method: int = zipfile.ZIP_DEFLATED) -> FileArchive:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as file:
        for name, pixels in reversed(list(zip(NAMES, PIXELS, strict=True))):
            file.writestr(f"faces/{name}", png(pixels))
        file.writestr("__MACOSX/faces/._00.png", b"")
    return FileArchive(tmp_path / "a.zip")


def stored(tmp_path: Path) -> FileArchive:
    return zipped(tmp_path, zipfile.ZIP_STORED)


def tarred(tmp_path: Path) -> RangeArchive:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as file:
        for name, pixels in zip(NAMES, PIXELS, strict=True):
            add(file, name, png(pixels))
    members = list(tar_members(path))
    return RangeArchive(
        str(path), [path], np.array([(0, m.offset, m.size) for m in members]), [m.name for m in members]
    )


def add(tar: tarfile.TarFile, name: str, data: bytes, mtime: float = 0) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), mtime
    tar.addfile(info, io.BytesIO(data))


def rarely(tmp_path: Path) -> FileArchive:
    return zipped(tmp_path, zipfile.ZIP_LZMA)


@pytest.mark.parametrize("made", [folder, zipped, stored, rarely, tarred])
def test_pixels_come_back_in_threads_in_workers_and_from_copies(tmp_path: Path, made) -> None:
    decoder = Archived(made(tmp_path), Conversion())
    assert len(decoder.archive) == len(PIXELS) and decoder.name(3).endswith("03.png")
    assert all(np.array_equal(decoder(i), PIXELS[i]) for i in range(len(PIXELS)))
    copy = pickle.loads(pickle.dumps(decoder))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(copy, [*range(len(PIXELS))] * 3))
    assert np.array_equal(found, np.concatenate([PIXELS] * 3))
    fields = ImageFields(decoder, torch.arange(len(PIXELS)), None, ())
    batches = iter(Loader(fields, 4, workers=2))
    indices, x = zip(*((batch.key[:, 0], batch.x) for batch in (next(batches) for _ in range(3))), strict=True)
    seen = torch.cat(x)[torch.cat(indices).argsort()]
    assert np.array_equal(np.moveaxis(seen.numpy(), 1, -1), PIXELS)


def test_a_zip_that_is_cut_off_damaged_or_locked_is_named(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path).origin)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(InputError, match=r"a\.zip is not a readable zip file.*download it again"):
        FileArchive(path)
    place = whole.index(b"IDAT") if b"IDAT" in whole else 60
    path.write_bytes(whole[:place] + bytes(8) + whole[place + 8 :])
    decoder = Archived(FileArchive(path), Conversion())
    with pytest.raises(InputError, match=r"\.png of .*a\.zip is not a readable image"):
        [decoder._decode(i, 0) for i in range(len(PIXELS))]
    flag = whole.index(b"PK\x01\x02") + 8  # of the first entry of the directory
    path.write_bytes(whole[:flag] + b"\x01" + whole[flag + 1 :])
    with pytest.raises(InputError, match="protected by a password"):
        FileArchive(path)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_of_a_tar_are_those_that_tarfile_finds(tmp_path: Path, form: int) -> None:
    """Long names, times with fractions (which get a header of their own), folders, links and empty files among them."""
    path = tmp_path / "a.tar"
    long = "x" * (90 if form == tarfile.USTAR_FORMAT else 180)
    with tarfile.open(path, "w", format=form) as tar:
        folder = tarfile.TarInfo("d")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for i, name in enumerate(["d/a.jpg", f"d/{long}.jpg", "d/empty.txt", "d/ünïcode.cls"]):
            add(
                tar,
                name,
                b"%d" % i * (0 if "empty" in name else 700 * i + 1),
                mtime=1.5 if form == tarfile.PAX_FORMAT else 1,
            )
        link = tarfile.TarInfo("d/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
        tar.addfile(link)
    with tarfile.open(path) as tar:
        expected = {m.name: (m.offset_data, m.size) for m in tar.getmembers() if m.isreg()}
    assert {m.name: (m.offset, m.size) for m in tar_members(path)} == expected and len(expected) == 4


@pytest.mark.parametrize("size", [0, 8**11 - 1, 8**11, 2**43])
def test_sizes_in_a_tar_beyond_8_gib(size: int) -> None:
    entry = tarfile.TarInfo("large.jpg")
    entry.size = size
    assert _header(entry.tobuf(tarfile.GNU_FORMAT)) == ("large.jpg", size, tarfile.REGTYPE)


def test_tars_that_cannot_be_read_from_the_middle_are_named(tmp_path: Path) -> None:
    whole = Path(tarred(tmp_path).origin).read_bytes()
    path = tmp_path / "b.tar"
    for size in (1400, 512 * 3 + 100):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"b\.tar is (cut off|no tar, or damaged)"):
            list(tar_members(path))
    path.write_bytes(b"\x1f\x8b" + whole)
    with pytest.raises(InputError, match=r"b\.tar is compressed.*gunzip"):
        list(tar_members(path))
    path.write_bytes(b"no tar" * 200)
    with pytest.raises(InputError, match=r"b\.tar is no tar"):
        list(tar_members(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"b\.tar is empty"):
        list(tar_members(path))
    path.write_bytes(whole * 2)
    with pytest.raises(InputError, match=r"b\.tar holds several tars"):
        list(tar_members(path))
    path.write_bytes(whole.rstrip(b"\0") + bytes(-len(whole.rstrip(b"\0")) % 512))
    with pytest.raises(InputError, match=r"b\.tar is cut off"):
        list(tar_members(path))
    path.write_bytes(whole[:100])
    with pytest.raises(InputError, match=r"b\.tar is no tar"):
        list(tar_members(path))
