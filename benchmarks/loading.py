"""How fast data sets of many images start and are read, and whether their memory stays flat; what it prints goes into loading.md.

    python benchmarks/loading.py FOLDER [--images 100000] [--large 40] [--only NAME ...]

makes FOLDER with small PNG files (32×32, in 10 class folders, a zip, a tar, an LMDB and as CIFAR-10's tar) and large ones
(1024×1024, PNG and JPEG in folders, TFRecords), where there is none. Each row is a process of its own, with caches off so that
images are decoded as they are read: seconds until the source is loaded, until the first batch; images per second of processor
time, workers and the process that takes their batches together (that is, per core); the share of that process alone, which is
not divided by more cores; and the memory (PSS, of all processes) after the first tenth of the batches and at the end. The
target for 16 cores is 2000 images of 32² and 60 of 1024² a second: 125 and 3.75 per core.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SMALL, LARGE = 32, 1024  # pixels
WORKERS = 2


def pictures(n: int, size: int) -> Iterator[np.ndarray]:
    """Coloured patches under noise, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    for _ in range(n):
        patches = np.kron(rng.normal(size=(8, 8, 3)), np.ones((size // 8, size // 8, 1)))
        yield (40 * patches + 128 + rng.normal(size=(size, size, 3)) * 6).clip(0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **({"quality": 95} if kind == "jpeg" else {}))
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make(folder: Path, images: int, large: int) -> None:
    """All data; the small images repeat after 2000, since to make them takes long."""
    import lmdb

    from scorefield.datasets.tfrecords import masked_crc

    small = list(pictures(min(images, 2000), SMALL))
    files = [encoded(pixels, "png") for pixels in small]
    for label in range(10):
        (folder / "png32" / str(label)).mkdir(parents=True)
    with zipfile.ZipFile(folder / "png32.zip", "w") as packed, tarfile.open(folder / "png32.tar", "w") as tar:
        for i in range(images):
            data, name = files[i % len(files)], f"{i % 10}/{i:07}.png"
            (folder / "png32" / name).write_bytes(data)
            packed.writestr(name, data)
            add(tar, name, data)
            add(tar, name.replace("png", "cls"), str(i % 10).encode())
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz", compresslevel=1) as tar:
        for batch in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
            rows = [bytes([i % 10]) + small[i % len(small)].transpose(2, 0, 1).tobytes() for i in range(10000)]
            add(tar, f"cifar-10-batches-bin/{batch}.bin", b"".join(rows))
        add(tar, "cifar-10-batches-bin/batches.meta.txt", b"\n".join(b"class%d" % i for i in range(10)))
    with (
        lmdb.open(str(folder / "small_train_lmdb"), map_size=2**40) as database,
        database.begin(write=True) as transaction,
    ):
        for i in range(images):
            transaction.put(b"%040x" % i, files[i % len(files)])
    (folder / "png1024").mkdir()
    (folder / "jpg1024").mkdir()
    with (folder / "large-r10.tfrecords").open("wb") as records:
        for i, pixels in enumerate(pictures(large, LARGE)):
            (folder / "png1024" / f"{i:04}.png").write_bytes(encoded(pixels, "png"))
            (folder / "jpg1024" / f"{i:04}.jpg").write_bytes(encoded(pixels, "jpeg"))
            data = example(pixels.transpose(2, 0, 1))
            length = struct.pack("<Q", len(data))
            records.write(length + masked_crc(length) + data + bytes(4))  # the last check sum is not looked at


def example(pixels: np.ndarray) -> bytes:
    """A tf.train.Example with shape and data."""

    def part(number: int, data: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(data)) + data

    shape = part(1, b"".join(varint(size) for size in pixels.shape))
    first = part(1, part(1, b"shape") + part(2, part(3, shape)))
    return part(1, first + part(1, part(1, b"data") + part(2, part(1, part(1, pixels.tobytes())))))


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def sources(folder: Path) -> dict[str, tuple[Callable, int, int]]:
    """By name: the source, the batch, the batches that are read."""
    import scorefield as sf

    square = (SMALL, SMALL)
    return {
        "CIFAR10, tar.gz, in memory": (lambda: sf.CIFAR10(folder / "cifar-10-binary.tar.gz"), 128, 300),
        "Images, folder, 32²": (lambda: sf.Images(folder / "png32", cache_gib=0), 128, 300),
        "Images, folder, 32², kept": (lambda: sf.Images(folder / "png32"), 128, 300),
        "Images, zip, 32²": (lambda: sf.Images(folder / "png32.zip", cache_gib=0), 128, 300),
        "WebDataset, tar, 32²": (lambda: sf.WebDataset(str(folder / "png32.tar"), cache_gib=0), 128, 300),
        "LSUN, LMDB, 32²": (lambda: sf.LSUN(folder, valid=300, cache_gib=0), 128, 300),
        "Images, folder, PNG, 1024²": (lambda: sf.Images(folder / "png1024", cache_gib=0), 4, 30),
        "Images, folder, JPEG, 1024²": (lambda: sf.Images(folder / "jpg1024", cache_gib=0), 4, 30),
        "TFRecords, 1024²": (lambda: sf.TFRecords(folder / "large-r10.tfrecords", cache_gib=0), 4, 30),
        "TFRecords, 1024² to 32²": (lambda: sf.TFRecords(folder, size=square, cache_gib=0), 4, 30),
    }


def memory() -> float:
    """The proportional set size of this process and those that it started, in MiB."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    total = 0
    for process in (os.getpid(), *children):
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))
    return total / 1024


def measure(folder: Path, name: str) -> dict[str, float]:
    """One row."""
    import torch

    from scorefield.data import Loader

    torch.set_num_threads(1)
    make_source, batch, batches = sources(folder)[name]
    start, begun = time.perf_counter(), sum(os.times()[:2])
    source = make_source()
    fields = source.load("train")
    cpu = os.times()
    found: dict[str, float] = {"load": time.perf_counter() - start, "busy": cpu.user + cpu.system - begun}
    stream = iter(Loader(fields, batch, workers=WORKERS))
    next(stream)
    found["first"] = time.perf_counter() - start
    for i in range(1, batches):
        next(stream)
        if i == batches // 10:
            found["early"] = memory()
    found["late"] = memory()
    del stream  # waits for the workers, whose time counts from then on
    after = os.times()
    own = after.user + after.system - cpu.user - cpu.system
    workers = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    images = batch * (batches + 2 * WORKERS)  # those that were read ahead, too
    return found | {"core": images / (own + workers), "own": images / own}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=40)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--row")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.folder, arguments.row)))
        return
    if not arguments.folder.exists():
        make(arguments.folder, arguments.images, arguments.large)
    print("| | load, s | of processor time | first batch, s | images/s per core | receiving | MiB early | late |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in arguments.only or sources(arguments.folder):
        command = [sys.executable, __file__, str(arguments.folder), "--row", name]
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        cells = "{load:.1f} | {busy:.1f} | {first:.1f} | {core:.0f} | {own:.0f} | {early:.0f} | {late:.0f}".format(
            **row
        )
        print(f"| {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
