"""Coverage and PSNR by number of coils and by precision of the file, by `scorefield reconstruct` as one types it.

    python benchmarks/coils.py brain-t1 --data $SCOREFIELD_DATA --folder FOLDER

Slices 75 and 90 of MNI152 and 102 of colin27, fully sampled in .npy files, noise of one strength per coil (that of eight coils
30 dB below their energy), R = 4 by random lines; maps by ESPIRiT from the 24 lines in the middle, noise from k-space.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch

from mri import slices_of
from scorefield.foundation.fourier import centred
from scorefield.mri import Reconstruct
from scorefield.mri.simulated import simulate

SLICES = (("MNI152", 75), ("MNI152", 90), ("colin27", 102))
COLUMNS = ("zero-filled", "CG-SENSE", "L1-wavelet", "posterior mean", "coverage", "chi_square", "held_out")


def written(path: Path, data: Path, coils: int, dtype: str, slices: Sequence[tuple[str, int]]) -> Path:
    """A file of k-space (slices, coils, height, width)."""
    found = []
    for name, number in slices:
        simulation = simulate(slices_of(data, name)[number], coils=coils, decibels=30 + 10 * math.log10(8 / coils))
        white = np.random.default_rng(number).standard_normal((2, *simulation.kspace.shape))
        clean = centred(simulation.maps.astype(np.complex128) * simulation.image)
        found.append(
            clean + simulation.noise * (white[0] + 1j * white[1])
        )  # numbers that single precision has to round
    np.save(path, np.stack(found).astype(dtype))
    return path


def noises(data: Path, coils: int, slices: Sequence[tuple[str, int]]) -> np.ndarray:
    """The standard deviation of each slice's noise."""
    louder = 30 + 10 * math.log10(8 / coils)
    return np.array([simulate(slices_of(data, name)[n], coils=coils, decibels=louder).noise for name, n in slices])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--coils", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--slices", type=int, nargs="+", default=[0, 1, 2], help="which of the three, from 0")
    parser.add_argument("--dtypes", nargs="+", default=["complex64", "complex128"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    slices = [SLICES[i] for i in args.slices]
    args.folder.mkdir(exist_ok=True)
    print(f"| coils | file | {' | '.join(COLUMNS)} | coverage of slices | noise/true | s |")
    for dtype in args.dtypes:
        for coils in args.coils:
            path, out = args.folder / f"{coils}-{dtype}.npy", args.folder / f"{coils}-{dtype}.h5"
            begun = time.process_time()
            job = Reconstruct(
                run=args.run, kspace=written(path, args.data, coils, dtype, slices), out=out, acceleration=4.0
            )
            rows = list(job.run()["slices"].values())
            path.unlink()
            with h5py.File(out) as file:
                noise = np.asarray(file["noise"])
            right = noises(args.data, coils, slices)
            units = float(np.mean(noise / right))
            each = " ".join(f"{row['coverage']:.2f}" for row in rows)
            means = " | ".join(f"{np.mean([row[name] for row in rows]):.2f}" for name in COLUMNS)
            print(
                f"| {coils} | {dtype} | {means} | {each} | {units:.2f} | {time.process_time() - begun:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
