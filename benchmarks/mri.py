"""Reconstruct MNI152 from simulated k-space with a prior learned from colin27, beside baselines; and k-space of a real scan.

    python benchmarks/mri.py brain-t1 --data $SCOREFIELD_DATA --out benchmarks/mri.json --slices 10 --masks 3

Every cell, slice, mask and kind of maps is a row of the JSON file; what is there is not computed again, so that a longer table
continues a shorter one. `--table` prints the rows as they are.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import scorefield
from scorefield.data.nifti import read_nifti
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.arithmetic import LOW, machine_of
from scorefield.foundation.files import write_text
from scorefield.foundation.fourier import fit_matrix
from scorefield.guidance import DPS, Method, MomentMatching, NoisyLikelihood, PiGDM
from scorefield.metrics.image import interval_coverage
from scorefield.model import Model
from scorefield.mri.coils import as_tensor, estimate_maps
from scorefield.mri.files import open_kspace
from scorefield.mri.masks import PoissonDisc, RandomLines, Sampling
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.posterior import CENTRE, FEW, OWN, OWN_METHOD, Posterior
from scorefield.mri.predictive_check import PredictiveCheck, held_out, inflated, predictive_check, without
from scorefield.mri.reconstruction_report import picture, summary
from scorefield.mri.scan import Baselines, Scan
from scorefield.mri.scan_loading import Scans
from scorefield.mri.simulated import Simulation, simulate
from scorefield.operators import cg_sense, l1_wavelet, to_complex
from scorefield.samplers import AnnealedLangevin, EDMGrid, LogSNRGrid, NoPredictor, Sampler

GRID = (192, 224)
KEPT_OUT = (104, 102, 106)  # slices of the slab of colin27, 100 to 107, that the recipe keeps out of training
CELLS: dict[str, Callable[[int], Sampling]] = {
    "a": lambda seed: RandomLines(4.0, 24, seed),
    "b": lambda seed: RandomLines(8.0, 0.04, seed),
    "c": lambda seed: PoissonDisc(8.0, (24, 24), seed),
}
METHOD, SAMPLER = OWN_METHOD, FEW  # as `scorefield reconstruct` has them
HELD_OUT, NO_CHECK = 0.03, PredictiveCheck()
# 250 levels of 8 steps, 2001 evaluations
LANGEVIN = Sampler(250, NoPredictor(), LogSNRGrid(t_min=0.0), AnnealedLangevin(snr=0.3, repeats=8))
METHODS = (
    METHOD,
    MomentMatching(),
    PiGDM(),
    DPS(),
    NoisyLikelihood(),
)  # each by SAMPLER, as `reconstruct --method` has it
DAMPINGS, ITERATIONS = (0.0, 1e-4, 1e-3, 1e-2), (5, 10, 20, 40, 80, 160)
WEIGHTS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3)
PICTURED = 95  # position of the slice in the picture
BASELINES = ("zero-filled", "CG-SENSE", "L1-wavelet")


def slices_of(data: Path, name: str) -> list[np.ndarray]:
    """Axial slices of a volume by position, each with 1 as its robust maximum."""
    if name == "brain7T":
        whole = np.load(data / "mri/brain7T_512_magnitude_pysap.npy")
        half = np.abs(whole.reshape(256, 2, 256, 2).mean((1, 3)))  # 512 → 256 points across the same head
        return [fit_matrix(half, GRID) / robust_maximum(half)]
    file = {"colin27": "colin27_t1_1mm.nii.gz", "MNI152": "mni_icbm152_t1_nlin_sym_09a.nii.gz"}[name]
    volume = fit_matrix(np.moveaxis(read_nifti(data / "mri" / file), 2, 0), GRID)
    return [image / robust_maximum(image) for image in volume]


def scan_of(simulation: Simulation, sampling: Sampling, maps: str, number: int, choice: Baselines) -> Scan:
    """What is reconstructed: the sampled part of k-space, with true maps or with those of its calibration region."""
    mask = sampling(GRID, number)
    found = simulation.maps if maps == "true" else estimate_maps(simulation.kspace, mask, noise=simulation.noise)
    return Scan(as_tensor(simulation.kspace), torch.from_numpy(mask), as_tensor(found), simulation.noise, choice)


def choose_baselines(data: Path, cell: str) -> tuple[Baselines, float]:
    """The settings with the best mean PSNR on two slices of the training volume; and that of 40 iterations without damping."""
    volume = slices_of(data, "colin27")
    cases = []
    for number in (70, 115):
        simulation = simulate(volume[number], seed=1, number=number)
        scan = scan_of(simulation, CELLS[cell](1), "true", number, Baselines())
        truth = torch.from_numpy(np.abs(simulation.image))
        cases.append((scan, truth, object_mask(truth)))

    def worth(reconstruct: Callable[[Scan], Tensor]) -> float:
        found = [masked_psnr(to_complex(reconstruct(scan))[0, 0].abs(), truth, inside) for scan, truth, inside in cases]
        return float(np.mean(found))

    sense = {
        (damping, count): worth(lambda s, d=damping, n=count: cg_sense(s.operator, s.y(1.0), damping=d, iterations=n))
        for damping in DAMPINGS
        for count in ITERATIONS
    }
    wavelet = {w: worth(lambda s, w=w: l1_wavelet(s.operator, s.y(1.0), weight=w)) for w in WEIGHTS}
    (damping, count), weight = max(sense, key=sense.__getitem__), max(wavelet, key=wavelet.__getitem__)
    return Baselines(damping, count, weight), sense[0.0, 40]


def row_of(
    scan: Scan, truth: Tensor, members: Tensor, seconds: float, check: PredictiveCheck = NO_CHECK
) -> dict[str, float]:
    """PSNR of everything, coverage, χ²/N and time of one reconstruction, and what held-out samples say of it."""
    inside = object_mask(truth)
    found = {name: masked_psnr(image.abs(), truth, inside) for name, image in scan.baseline_images().items()}
    found["mean"] = masked_psnr(members.mean(0).abs(), truth, inside)
    found["member"] = float(np.mean([masked_psnr(member.abs(), truth, inside) for member in members]))
    for name, x in (("coverage", members), ("coverage inflated", inflated(members, check.inflation))):
        found[name] = interval_coverage(x.abs()[:, inside], truth[inside][None])
    found["chi_square"] = float(scan.chi_square(members).mean())
    found["seconds per member"] = seconds / len(members)
    return found | dict(zip(("held out", "low", "high", "inflation"), check.numbers, strict=True))


def reconstruct(
    model: Model,
    scan: Scan,
    number: int,
    members: int,
    method: Method = METHOD,
    sampler: Sampler = SAMPLER,
    centre: int | None = None,
) -> tuple[Tensor, float]:
    """Members and the seconds of the processor that they took."""
    started = time.process_time()
    own = CENTRE if method.settles else 0
    evaluations = own if centre is None else centre
    posterior = Posterior(model, method, sampler, min(members, 4), bf16=model.drawn_in == LOW, centre=evaluations)
    found = posterior.draw(scan, members, number=number)
    return found, time.process_time() - started


def checked(
    model: Model, scan: Scan, number: int, members: int, sampler: Sampler = SAMPLER, centre: int | None = None
) -> PredictiveCheck:
    """What held-out samples say of members that have not seen them."""
    part = held_out(scan.mask, HELD_OUT, number)
    blind = reconstruct(model, without(scan, part), number, members, METHOD, sampler, centre)[0]
    return predictive_check(scan, part, blind, number)


def jobs(args: argparse.Namespace) -> Iterator[tuple[str, str, int, int, str]]:
    """(volume, cell, slice, mask, maps) in the order in which they matter."""
    numbers = np.linspace(45, 135, args.slices).round().astype(int).tolist() if args.slices > 1 else [90]
    for mask in range(args.masks):
        for number in sorted(numbers, key=lambda n: abs(n - 90)):
            for maps in args.maps:
                for cell in args.cells:
                    yield "MNI152", cell, number, mask, maps
    for cell in args.cells:
        for number in KEPT_OUT:
            yield "colin27", cell, number, 0, "true"
        yield "brain7T", cell, 0, 0, "true"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/mri.json"))
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--masks", type=int, default=3)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--cells", nargs="*", choices=CELLS, default=[*CELLS])
    parser.add_argument("--maps", nargs="*", choices=("true", "estimated"), default=["true", "estimated"])
    parser.add_argument("--least", type=float, default=SAMPLER.grid.ratio_min, help="noise at which members end")
    parser.add_argument("--check", action="store_true", help="hold samples out of other members, and compare")
    parser.add_argument("--steps", type=int, default=SAMPLER.steps, help="evaluations per member")
    parser.add_argument("--centre", type=int, default=CENTRE, help="evaluations for what members are centred at, or 0")
    parser.add_argument("--most", type=float, default=SAMPLER.grid.ratio_max, help="noise at which they begin")
    parser.add_argument("--spread", type=float, default=METHOD.spread, help="of `Proximal`")
    parser.add_argument(
        "--langevin", type=int, nargs="*", default=[], help="slices of cell a to draw by annealed Langevin"
    )
    parser.add_argument(
        "--methods",
        type=int,
        nargs="*",
        default=[],
        help="slices of cell a to draw by every method, each as it is by default",
    )
    parser.add_argument("--real", type=Path, default=None, help="PNG to write of the real scan")
    parser.add_argument("--picture", type=Path, default=None, help="PNG to write of a slice of MNI152 in cell a")
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="start nothing new after so much time of the processor"
    )
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out.exists() else {}
    if not args.table:
        torch.set_num_threads(1)
        compute(args, rows)
    print(table(rows))


def compute(args: argparse.Namespace, rows: dict) -> None:
    """Fill in what the table lacks."""
    model = scorefield.load(args.run)
    model.drawn_in = LOW if machine_of(model.device).bfloat16 else model.drawn_in
    volumes: dict[str, list[np.ndarray]] = {}
    sampler = replace(SAMPLER, steps=args.steps, grid=EDMGrid(ratio_min=args.least, ratio_max=args.most))
    method = replace(METHOD, spread=args.spread)

    def keep(name: str, row: dict) -> None:
        rows[name] = row
        write_text(args.out, json.dumps(rows, indent=1) + "\n")
        print(name, {k: round(v, 3) for k, v in row.items() if isinstance(v, float)}, flush=True)

    for cell in args.cells:
        if f"choice {cell}" not in rows:
            choice, late = choose_baselines(args.data, cell)
            keep(f"choice {cell}", {**vars(choice), "CG-SENSE after 40": late})

    def case(volume: str, cell: str, number: int, mask: int, maps: str) -> tuple[Scan, Tensor]:
        chosen = {name: value for name, value in rows[f"choice {cell}"].items() if name in vars(Baselines())}
        if volume not in volumes:
            volumes[volume] = slices_of(args.data, volume)
        simulation = simulate(volumes[volume][number], seed=0, number=number)
        scan = scan_of(simulation, CELLS[cell](100 + mask), maps, number, Baselines(**chosen))
        return scan, torch.from_numpy(np.abs(simulation.image))

    if args.real is not None and "real" not in rows:
        keep("real", real(model, args))
    if args.picture is not None:
        scan, truth = case("MNI152", "a", PICTURED, 0, "estimated")
        save(args.picture, scan, reconstruct(model, scan, PICTURED, args.members)[0], {"reference": truth})
    for volume, cell, number, mask, maps in jobs(args):
        name = f"{volume} {cell} slice {number} mask {mask} {maps} maps"
        name += "" if args.steps == SAMPLER.steps else f", {args.steps} evaluations"
        name += "" if args.centre == CENTRE else f", centre {args.centre}"
        if name not in rows and time.process_time() < 60 * args.minutes:
            scan, truth = case(volume, cell, number, mask, maps)
            found = reconstruct(model, scan, number, args.members, method, sampler, args.centre)
            check = checked(model, scan, number, args.members, sampler, args.centre) if args.check else NO_CHECK
            keep(name, row_of(scan, truth, *found, check))
    for number, other in product(args.methods, METHODS):
        name = f"{type(other).__name__} a slice {number}"
        if name not in rows:
            scan, truth = case("MNI152", "a", number, 0, "true")
            keep(
                name,
                row_of(
                    scan, truth, *reconstruct(model, scan, number, args.members, other, FEW if other.settles else OWN)
                ),
            )
    for number in args.langevin:
        name = f"Langevin a slice {number}"
        if name not in rows:
            scan, truth = case("MNI152", "a", number, 0, "true")
            ours = reconstruct(model, scan, number, args.members)
            keep(f"{args.members} members beside Langevin a slice {number}", row_of(scan, truth, *ours))
            found = reconstruct(model, scan, number, args.members, NoisyLikelihood(), LANGEVIN)
            keep(name, row_of(scan, truth, *found))


def real(model: Model, args: argparse.Namespace) -> dict:
    """The eight coils of a real scan, sampled to 12 %: no truth, but a residual."""
    scan, _, _ = Scans(open_kspace(args.data / "mri/brain8ch_R8_ksp_sigpy.npy")).scan(0)
    members, seconds = reconstruct(model, scan, 0, args.members)
    save(args.real, scan, members, {})
    each = scan.chi_square(members)
    row = {"chi_square": float(each.mean()), "least": float(each.min()), "most": float(each.max())}
    row["CG-SENSE"] = float(scan.chi_square(scan.baseline_images()["CG-SENSE"][None]))
    check = checked(model, scan, 0, args.members)
    row |= dict(zip(("held out", "low", "high", "inflation"), check.numbers, strict=True))
    return row | {"seconds per member": seconds / len(members)}


def save(path: Path, scan: Scan, members: Tensor, more: dict[str, Tensor]) -> None:
    """Draw the images of a scan side by side."""
    images = {name.replace("-", "_"): x for name, x in scan.baseline_images().items()}
    picture(path, {name: x.numpy() for name, x in (summary(members) | images | more).items()})


def table(rows: dict) -> str:
    """Mean ± standard error over slices and masks of each cell, of images and of what the mean of members is above them."""
    gains = [f"above {name}" for name in ("CG-SENSE", "L1-wavelet", "zero-filled")]
    columns = [*BASELINES, "member", "mean", *gains, "coverage", "chi_square", "seconds per member"]
    lines = [f"| test | maps | n | {' | '.join(columns)} |", "| --- " * (len(columns) + 3) + "|"]
    for volume, cell, maps in product(("MNI152", "colin27", "brain7T"), CELLS, ("true", "estimated")):
        found = [
            row for name, row in rows.items() if name.startswith(f"{volume} {cell} ") and name.endswith(f" {maps} maps")
        ]
        found = [row | {gain: row["mean"] - row[gain.removeprefix("above ")] for gain in gains} for row in found]
        if found:
            words = [spread([row[column] for row in found]) for column in columns]
            lines.append(f"| {volume} ({cell}) | {maps} | {len(found)} | {' | '.join(words)} |")
    others = [f"{name}: {row}" for name, row in rows.items() if not name.endswith(" maps")]
    return "\n".join([*lines, "", *others])


def spread(values: list[float]) -> str:
    """Mean ± standard error."""
    error = f" ± {np.std(values, ddof=1) / len(values) ** 0.5:.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{error}"


if __name__ == "__main__":
    main()
