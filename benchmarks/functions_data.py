"""Score models of real terrain and of wrapped phases, trained for CPU-minutes, beside the floors of the data themselves.

    SCOREFIELD_DATA=... python benchmarks/functions_data.py terrain|phases|sequences [--out FOLDER] [--only NAME] [--minutes 4]

Everything goes through the command line of scorefield, and can be interrupted: training and sampling go on where they stopped.
A case trains as many steps as a budget of process CPU time allows, by the time of a few steps before the first.

terrain   patches of 128² of SRTM tiles, coarsened to 64² in their modes, split by tile; sampled at 64² and at 128², and drawn at
          128² given the coarse ones of held-out tiles. Figures are mean |E ln P − E ln P_data| over the bands of the cosine
          series, ln taken per patch: bands of training, and the new ones with their sign; and the Wasserstein distance of the
          values over their standard deviation. Beside them: two halves of the tiles, held-out tiles, and interpolations of the
          coarse patches, cubic and by their modes alone. What agrees with given patches has besides its distance from them,
          √(mean square), in metres. `WienerBeyond` is fitted to the spectrum of the coarse training patches.
phases    interferograms of the generator, 44², against middles and parts of the 47 real ones; sampled at 44² and 88². Figures are
          those of `scorefield.metrics.comparison.Phases`, beside halves of the real ones and their shuffled pixels.
sequences turbulence, 64², of sequences that were held out, given three coarse fields around each; drawn at 64², and at 128² and
          cut to 64² in their modes. Figures are the distance from the field that was computed, √(mean square), over its
          standard deviation, of draws and of the coarse field alone, and mean |ln P/P_data| over bands of the shared modes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import zoom
from scipy.stats import wasserstein_distance
from torch import Tensor

from scorefield import load
from scorefield.core.spectrum import RadialSpectrum
from scorefield.data import Batch, Loader
from scorefield.data.fields import FieldDataset
from scorefield.datasets import Interferograms, Terrain, Volcano
from scorefield.foundation.cosine import resample
from scorefield.foundation.files import write_text
from scorefield.guidance import Guided, Replacement
from scorefield.inverse import InverseProblem, in_model_space
from scorefield.metrics.comparison import Phases, Spectra, floor
from scorefield.metrics.spectrum import cosine_spectrum
from scorefield.operators import CosineCoarsen
from scorefield.run.configuration import find_recipe, read_recipe
from scorefield.run.experiment import prepare
from scorefield.run.loading import open_checkpoint
from scorefield.run.recipe import recipe_parser
from scorefield.samplers import Extrapolate, Finer, WienerBeyond
from scorefield.training import checkpoint as checkpoints
from scorefield.training.state import State, launch

SAMPLES, STEPS = 48, 16
COMMON = "--train.validate_on=64 --train.accelerator=cpu --train.keep=2 --train.ema=0.99 --train.checkpoint_every=100"
WHITE = (
    "--model.sde.noise=White --model.sde.schedule.sigma_max=300 --model.sde.schedule.sigma_min=0.005 "
    "--train.loss.time.mean=0.5 --train.loss.time.std=2.0"
)
UNO = "--model.net.channels=16 --model.net.modes=48"  # of the recipes', a third of the time for a step
TERRAIN = {  # name: bases, options
    "U-NO, field noise": (["terrain-grf"], UNO),
    "U-Net, field noise": (["terrain-grf", "parts/function-unet.yaml"], ""),
    "U-NO, white noise": (["terrain-grf"], f"{UNO} {WHITE}"),
    "U-Net, white noise": (["terrain-grf", "parts/function-unet.yaml"], WHITE),
}
# The real fields are of quiet ground, were averaged and filtered: of four settings the one with the nearest circular moments.
GENERATOR = Volcano(
    size=44, looks=32, coherence=(0.9, 0.995), atmosphere=(0.3, 2.0), volume=(0.1, 10.0), depth=(4.0, 12.0)
)
OWN = (
    "--data.size=44 --data.looks=32 --data.coherence=[0.9,0.995] --data.atmosphere=[0.3,2.0] --data.volume=[0.1,10.0] "
    "--data.depth=[4.0,12.0]"
)
GIVEN = CosineCoarsen((128, 128), (64, 64))
PHASES = {
    "U-Net, field noise": (["volcano-grf", "parts/function-unet.yaml"], ""),
    "U-Net, white noise": (["volcano-indep", "parts/function-unet.yaml"], ""),
    "U-NO, field noise": (["volcano-grf"], UNO),
    "U-NO, white noise": (["volcano-indep"], UNO),
}


def command(*words: str) -> float:
    """Run scorefield in a process of its own; returns its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "scorefield", *words], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_per_step(recipe: str, options: list[str], steps: int = 4) -> float:
    """CPU time of an optimiser step, after a first one."""
    parser = recipe_parser()
    settings = parser.read(options, parser.read_object(read_recipe(find_recipe(recipe)), recipe))
    experiment = prepare(parser, settings)
    trainer = experiment.trainer
    state = State(experiment.model, trainer.optimiser, trainer.ema, 0, launch("cpu", 1, 1, trainer.precision))
    batches, started = iter(Loader(experiment.train, trainer.batch_size, augment=trainer.augment)), 0.0
    for step in range(steps + 1):
        started = time.process_time() if step == 1 else started
        state.advance(islice(batches, 1), trainer.loss, clip=trainer.clip, steps=trainer.steps)
    return (time.process_time() - started) / steps


def trained(run: Path, bases: list[str], options: list[str], minutes: float) -> dict[str, float]:
    """Train as many steps as the budget of CPU time allows, fixed before the first; returns what was spent."""
    recipe = str(run.with_name(f"{run.name}.yaml"))
    write_text(Path(recipe), f"base: {json.dumps(bases)}\n")
    plan = run.with_name(f"{run.name}.json")
    if not plan.is_file():
        steps = int(60 * minutes / seconds_per_step(recipe, options))
        write_text(plan, json.dumps({"steps": steps, "cpu_seconds": 0.0}))
    facts = json.loads(plan.read_text())
    done = max(checkpoints.steps(run / "checkpoints"), default=0)
    if done < facts["steps"]:
        begun = [f"--train.steps={facts['steps']}", "--out", str(run), *(["--resume"] if done else [])]
        facts["cpu_seconds"] += command("train", recipe, *options, *begun)
        write_text(plan, json.dumps(facts))
    return facts


def sampled(run: Path, name: str, size: int, *more: str) -> Tensor:
    """Samples on a grid, drawn once."""
    out = run / name
    numbers = ["-n", str(SAMPLES), "--chunk", "16", "--steps", str(STEPS), "--resolution", str(size), *more]
    command("sample", str(run), *numbers, "--out", str(out))
    return torch.from_numpy(np.load(out / "samples.npy"))


def everything(fields: FieldDataset) -> Tensor:
    return fields.gather(torch.arange(len(fields))).x


# -------------------------------------------------------------------------------------------------------------- terrain
def log_spectrum(x: Tensor) -> Tensor:
    """E ln P over patches, per band of the cosine series."""
    return cosine_spectrum(x[:, 0].double()).power.clamp(min=1e-30).log().mean(0)


def terrain_figures(x: Tensor, data: Tensor, trained_bands: int = 63) -> dict[str, float]:
    """Of fields in metres, against data on the same grid."""
    difference = log_spectrum(x) - log_spectrum(data)
    values = [part.flatten()[:: max(1, part.numel() // 200_000)].double().numpy() for part in (x, data)]
    row = {"bands 1-63": float(difference[:trained_bands].abs().mean())}
    if len(difference) > trained_bands:
        row["bands 64-127"] = float(difference[trained_bands:].mean())
    return row | {"values": float(wasserstein_distance(*values)) / float(data.std())}


def terrain_floors(path: Path) -> dict[str, dict[str, float]]:
    """Halves of the tiles, held-out tiles, and cubic interpolation, at both resolutions."""
    rows: dict[str, dict[str, float]] = {}
    held = torch.empty(0)
    for size in (64, 128):
        source = Terrain(path, size=size)
        tiles = [source.patches(tile) for tile in np.load(path).values()]
        halves = [set(half) for half in combinations(range(len(tiles)), len(tiles) // 2) if 0 in half]
        pairs = [
            [torch.cat([tiles[i] for i in range(len(tiles)) if (i in half) == side]) for side in (True, False)]
            for half in halves
        ]
        each = [terrain_figures(one, other) for one, other in pairs]
        rows[f"two halves of the tiles, {size}"] = {key: float(np.mean([row[key] for row in each])) for key in each[0]}
        held = everything(source.load("valid"))
        rows[f"held-out tiles, {size}"] = terrain_figures(held, everything(source.load("train")))
    held = held[:SAMPLES]
    cubic = torch.from_numpy(zoom(GIVEN(held).numpy(), (1, 1, 2, 2), order=3, mode="reflect", grid_mode=True))
    for name, guess in (("cubic interpolation", cubic), ("modes alone", resample(GIVEN(held), (128, 128)))):
        rows[f"{name}, held-out tiles, 128"] = terrain_figures(guess, held) | {"RMSE": rmse(guess, held)}
    return rows


def rmse(x: Tensor, y: Tensor) -> float:
    return float((x - y).double().square().mean().sqrt())


def refined(run: Path, name: str, fine: Tensor, way: Finer) -> Tensor:
    """A draw for each coarse patch of held-out tiles, of p(fine | coarse); kept."""
    path = run / f"{name}.npy"
    if not path.is_file():
        model, parts = load(run), []
        prior, sampler = way(model.generative, model.shape[1:]), replace(model.sampler, steps=STEPS)
        for part in fine.split(16):
            measurement = in_model_space(model, InverseProblem(GIVEN, GIVEN(part)), (1, 128, 128))
            denoiser = Guided(prior, measurement, Replacement())
            parts.append(
                model.sample(16, seed=len(parts), sampler=sampler, shape=(1, 128, 128), denoiser=denoiser, chunk=16)
            )
        np.save(path, torch.cat(parts).numpy())
    return torch.from_numpy(np.load(path))


def terrain(folder: Path, out: Path, only: str, minutes: float) -> dict[str, dict[str, float]]:
    path = folder / "functions" / "srtm3_volcano_tiles_dev8.npz"
    rows = terrain_floors(path)
    for name, (bases, options) in TERRAIN.items():
        if only not in name:
            continue
        run = out / f"terrain {name}".replace(",", "").replace(" ", "-")
        facts = trained(run, bases, [f"--data.path={path}", *options.split(), *COMMON.split()], minutes)
        for size in (64, 128):
            data = everything(Terrain(path, size=size).load("train"))
            rows[f"{name}, {size}"] = terrain_figures(sampled(run, f"samples-{size}", size), data) | facts
        held, ways = everything(Terrain(path, size=128).load("valid"))[:SAMPLES], {"": Extrapolate()}
        if "field" in name:
            model = load(run)
            coarse, _ = model.enter(Batch(everything(Terrain(path, size=64).load("train"))))
            spectrum = RadialSpectrum.measure(coarse, model.sde.noise)
            more = [
                f"--beyond.spectrum.bands={list(spectrum.bands)}",
                f"--beyond.spectrum.exponent={spectrum.exponent}",
            ]
            x = sampled(run, "samples-128-wiener", 128, "--beyond=WienerBeyond", *more)
            rows[f"{name}, 128, WienerBeyond"] = terrain_figures(x, data)
            ways |= {", WienerBeyond": WienerBeyond(spectrum)}
        for key, way in ways.items():
            draws = refined(run, f"refined{key[2:]}", held, way)
            rows[f"{name}, 128, given the coarse{key}"] = terrain_figures(draws, held) | {"RMSE": rmse(draws, held)}
    return rows


# --------------------------------------------------------------------------------------------------------------- phases
def real_phases(folder: Path) -> dict[str, Tensor]:
    """Parts of 44² of the fields of both stacks, without overlap."""
    path, found = folder / "functions" / "insar_pyrate_ifgs.npz", {}
    for stack in ("sydney", "mexico"):
        source = Interferograms(path, key=f"{stack}_unw_rad", crop=None, valid=1)
        x = torch.cat([everything(source.load(split)) for split in ("train", "valid")])
        parts = [x[:, :, 44 * i : 44 * (i + 1), 44 * j : 44 * (j + 1)] for i in range(2) for j in range(3)]
        found[stack] = torch.cat([part for part in parts if part.shape[2:] == (44, 44)])
    return found


def phases(folder: Path, out: Path, only: str, minutes: float) -> dict[str, dict[str, float]]:
    compare, real = Phases(), real_phases(folder)
    generated = everything(replace(GENERATOR, n=SAMPLES, seed=1).load("train"))
    finer = everything(
        replace(GENERATOR, n=SAMPLES, seed=1, size=88, looks=8).load("train")
    )  # of a quarter of the area
    rows: dict[str, dict[str, float]] = {}
    for stack, x in real.items():
        rows[f"two halves of {stack}, {len(x)} parts"] = dict(floor(compare, x))
        rows[f"{stack} with shuffled pixels"] = compare.control(x)
        rows[f"generator against {stack}"] = compare(generated, x)
    rows["two halves of the generator, 44"] = dict(floor(compare, generated))
    rows["two halves of the generator, 88"] = dict(floor(compare, finer))
    for name, (bases, options) in PHASES.items():
        if only not in name:
            continue
        run = out / f"phases {name}".replace(",", "").replace(" ", "-")
        facts = trained(run, bases, [*OWN.split(), *options.split(), *COMMON.split()], minutes)
        x = sampled(run, "samples-44", 44)
        rows[f"{name}, 44, against the generator"] = compare(x, generated) | facts
        for stack, fields in real.items():
            rows[f"{name}, 44, against {stack}"] = compare(x, fields)
        rows[f"{name}, 88, against the generator"] = compare(sampled(run, "samples-88", 88), finer) | facts
    return rows


# ------------------------------------------------------------------------------------------------------------ sequences
def sequences(folder: Path, out: Path, only: str, minutes: float) -> dict[str, dict[str, float]]:
    out.mkdir(parents=True, exist_ok=True)
    options = ["--data.sequences.sequences=32", f"--data.sequences.cache={out / 'sequences.npz'}", *UNO.split()]
    run, compare = out / "sequences", Spectra(boundary="periodic")
    facts = trained(run, ["navier-stokes-window"], [*options, *COMMON.split()], minutes)
    batch = open_checkpoint(run).source().load("valid").gather(torch.arange(SAMPLES))

    def figures(x: Tensor) -> dict[str, float]:
        return {"RMSE": rmse(x, batch.x) / float(batch.x.std()), "spectrum": compare(x, batch.x)["spectrum"]}

    fine = resample(sampled(run, "samples-128", 128, "--given", "valid"), batch.x.shape[2:])
    return {
        "the coarse field": figures(batch.cond["field"][:, 1:2]),
        "U-NO, field noise, 64": figures(sampled(run, "samples-64", 64, "--given", "valid")) | facts,
        "U-NO, field noise, 128": figures(fine),
    }


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown."""
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    lines = ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns)]
    for name, row in rows.items():
        cells = (f"{row[key]:.3g}" if key in row else "" for key in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["terrain", "phases", "sequences"])
    parser.add_argument("--out", type=Path, default=Path("runs/functions-data"))
    parser.add_argument("--only", default="", help="cases whose name has this")
    parser.add_argument("--minutes", type=float, default=4.0, help="CPU-minutes of training for each case")
    arguments = parser.parse_args()
    folder = Path(os.environ["SCOREFIELD_DATA"])
    work: Callable[..., dict[str, dict[str, float]]] = {
        "terrain": terrain,
        "phases": phases,
        "sequences": sequences,
    }[arguments.what]
    rows = work(folder, arguments.out, arguments.only, arguments.minutes)
    write_text(arguments.out / f"{arguments.what}{arguments.only}.json", json.dumps(rows, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
