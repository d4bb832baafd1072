"""Memory and time of the largest distance between all pairs of fields on disk.

    python benchmarks/distances.py [--n 10000] [--size 384] [--spread 0.2] [--folder DIR]

White noise, whose fields all lie equally far from their middle: no pair can be left out. With --spread the strength of each field
is drawn log-normally, as that of images differs, and most blocks of pairs are left out. Memory is what the process holds beside
the pages of the file (RssAnon), sampled every 50 ms, less what it held before.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from scorefield.data import Identity
from scorefield.data.arrays import Arrays
from scorefield.data.statistics import largest_distance


def anonymous() -> int:
    """Bytes of this process that are no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("RssAnon")))


class Peak(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.bytes, self.running = 0, True

    def run(self) -> None:
        while self.running:
            self.bytes = max(self.bytes, anonymous())
            time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=384)
    parser.add_argument("--spread", type=float, default=0.0, help="standard deviation of the logarithm of strengths")
    parser.add_argument("--folder", type=Path, default=None, help="where the file is written for the while")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path, shape = Path(folder) / "x.npy", (asked.n, 1, asked.size, asked.size)
        array = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        generator = np.random.default_rng(0)
        for row in array:
            strength = np.float32(np.exp(asked.spread * generator.standard_normal()))
            row[:] = strength * generator.standard_normal(row.shape, dtype=np.float32)
        array.flush()
        del array
        fields = Arrays(path, valid=1, channel_axis="first").load("train")
        before, peak = anonymous(), Peak()
        peak.start()
        wall, cpu = time.perf_counter(), time.process_time()
        found = largest_distance(Identity(), fields, torch.arange(len(fields)))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak.running = False
        peak.join()
    memory = (peak.bytes - before) / 2**30
    print(f"{asked.n} fields of {asked.size}²: {found:.2f}; {memory:.2f} GiB, {cpu:.0f} s of CPU, {wall:.0f} s")


if __name__ == "__main__":
    main()
