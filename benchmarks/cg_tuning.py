"""How far CG-SENSE and L1-wavelet, tuned on the scan itself, are below the best of all settings by the truth: benchmarks/mri.md.

    python benchmarks/cg_tuning.py --data $SCOREFIELD_DATA [--cases fitted kept-out radial] [--only 45R4]

Known maps of 8 coils unless a case says otherwise, `simulate(seed=1)`. "fitted" are the slices by which the rule was found.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import radial
from scorefield.data.nifti import read_nifti
from scorefield.data.statistics import robust_maximum
from scorefield.mri.coils import as_tensor
from scorefield.mri.masks import PoissonDisc, RandomLines
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.scan import Baselines, Scan
from scorefield.mri.simulated import simulate
from scorefield.mri.tuning import DAMPINGS, ITERATIONS, WEIGHTS, tuned
from scorefield.operators import l1_wavelet, to_complex
from scorefield.operators.solve import conjugate_gradients

Case = tuple[str, Callable[[], tuple[Scan, Tensor]]]
LINES = {"R2": RandomLines(2.0), "R3": RandomLines(3.0), "R4": RandomLines(4.0), "R8": RandomLines(8.0, 0.04)}
MASKS = LINES | {"disc4": PoissonDisc(4.0), "disc8": PoissonDisc(8.0)}
FILES = {"MNI152": "mni_icbm152_t1_nlin_sym_09a.nii.gz", "colin27": "colin27_t1_1mm.nii.gz"}


def head(data: Path, volume: str, index: int, step: int) -> np.ndarray:
    """An axial slice at 1 or 2 mm, or brain7T at half its size."""
    if volume == "brain7T":
        found = np.load(data / "mri" / "brain7T_512_magnitude_pysap.npy").squeeze()[::2, ::2]
    else:
        found = read_nifti(data / "mri" / FILES[volume])[::step, ::step, index]
    return found / robust_maximum(found)


def on_grid(
    image: Callable[[], np.ndarray], mask: str, decibels: float, coils: int = 8, seed: int = 1
) -> tuple[Scan, Tensor]:
    simulation = simulate(image(), seed=seed, decibels=decibels, coils=coils)
    used = torch.from_numpy(MASKS[mask](simulation.image.shape))
    maps = as_tensor(simulation.maps)
    return Scan(as_tensor(simulation.kspace), used, maps, simulation.noise), torch.from_numpy(np.abs(simulation.image))


def fitted(data: Path) -> Iterator[Case]:
    for mask, decibels in (("R4", 30), ("R8", 30), ("disc8", 30), ("disc4", 30), ("R2", 20)):
        image = partial(head, data, "MNI152", 85, 1)
        yield f"MNI152 85, 1 mm, {mask}, {decibels}", partial(on_grid, image, mask, decibels)
    for index, masks in ((45, ("R2", "R3", "R4", "disc4")), (90, ("R8", "disc4"))):
        for mask, decibels in product(masks, (30, 20, 15)):
            image = partial(head, data, "MNI152", index, 2)
            yield f"MNI152 {index}, 2 mm, {mask}, {decibels}", partial(on_grid, image, mask, decibels)


def kept_out(data: Path) -> Iterator[Case]:
    cells = (("R4", 30, 8, 2), ("disc4", 18, 8, 3), ("R8", 25, 8, 2), ("R3", 15, 4, 3), ("R2", 20, 1, 2))
    for volume, index, step in (("MNI152", 70, 2), ("colin27", 104, 2), ("brain7T", 0, 1), ("MNI152", 100, 1)):
        for mask, decibels, coils, seed in cells[: 5 if step == 2 else 2]:
            name = f"{volume} {index}, {step} mm, {mask}, {decibels}, {coils} coils, seed {seed}"
            yield name, partial(on_grid, partial(head, data, volume, index, step), mask, decibels, coils, seed)


def off_grid(data: Path) -> Iterator[Case]:
    for number, part in product((80, 100), (4, 8)):
        yield f"MNI152 {number}, radial 1/{part}, 30", partial(spokes, data, number, part)


def spokes(data: Path, number: int, part: int) -> tuple[Scan, Tensor]:
    simulation = simulate(radial.slices_of(data, "MNI152")[number], number=number)
    scan = radial.scan_of(simulation, radial.ALL // part, number)
    return replace(scan, baselines=Baselines(1e-3, 20, 1e-3)).scan(0)[0], torch.from_numpy(np.abs(simulation.image))


def all_settings(scan: Scan, truth: Tensor) -> tuple[dict[tuple[float, int], float], dict[float, float]]:
    """PSNR of CG-SENSE by damping and iterations, and of L1-wavelet by weight."""
    inside = object_mask(truth)

    def worth(x: Tensor) -> float:
        return masked_psnr(to_complex(x)[0, 0].abs(), truth, inside)

    operator, y = scan.operator.balanced(scan.y(1.0))
    linear: dict[tuple[float, int], float] = {}
    for damping in DAMPINGS:
        found: dict[int, float] = {}
        conjugate_gradients(
            lambda x, damping=damping: operator.normal(x) + damping * x,
            operator.adjoint(y),
            iterations=max(ITERATIONS),
            tolerance=0.0,
            seen=lambda count, x, found=found: found.update({count: worth(x)}),
        )
        linear |= {(damping, count): found[min(count, max(found))] for count in ITERATIONS}
    return linear, {w: worth(l1_wavelet(scan.operator, scan.y(1.0), weight=w * scan.scale)) for w in WEIGHTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", nargs="+", choices=["fitted", "kept-out", "radial"], default=["fitted"])
    parser.add_argument("--only", default="", help="cases whose names hold this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.cases:
        lost: list[tuple[float, float]] = []
        for case, made in {"fitted": fitted, "kept-out": kept_out, "radial": off_grid}[name](args.data):
            if args.only not in case:
                continue
            scan, truth = made()
            started = time.process_time()
            found = tuned(scan, Baselines())
            seconds = time.process_time() - started
            linear, sparse = all_settings(scan, truth)
            best = max(linear, key=linear.__getitem__)
            assert found.damping is not None and found.iterations is not None and found.wavelet is not None
            lost.append(
                (
                    linear[best] - linear[found.damping, found.iterations],
                    max(sparse.values()) - sparse[found.wavelet],
                )
            )
            print(
                f"{case}: CG-SENSE {linear[best]:.2f} dB at {best}, {lost[-1][0]:.2f} below by {found.damping:g}, "
                f"{found.iterations}; L1-wavelet {max(sparse.values()):.2f}, {lost[-1][1]:.2f} below by {found.wavelet:g}; "
                f"{seconds:.1f} s",
                flush=True,
            )
        each = np.array(lost)
        if not lost:
            continue
        print(
            f"{name}, {len(each)} cases: CG-SENSE {each[:, 0].mean():.3f} dB below in the mean, {each[:, 0].max():.2f} at most; "
            f"L1-wavelet {each[:, 1].mean():.3f} and {each[:, 1].max():.2f}"
        )


if __name__ == "__main__":
    main()
