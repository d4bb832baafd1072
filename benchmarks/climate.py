"""Downscaling of radar precipitation, 8× finer, against what it has to beat.

    python benchmarks/climate.py --samples DIR [--run NAME=RUN[,steps=4,step=SDE,rho=7,low=0.1,high=20] ...]

RUN is a run of the recipe precip-edm or of one with the same data, drawn as its recipe says but for the steps, the step and the
exponent and the ends σ/α of the grid that are given. Its members for the test tiles are drawn once and kept in DIR.
Prints a table; every interval is the central 95 % of 1000 draws of places with replacement.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scorefield
from climate_data import COARSENING, Part, mrms
from climate_scores import Judge, System, markdown, percent, ratio, told
from scorefield.climate.baselines import BCSD, Bilinear, DressedBilinear
from scorefield.climate.regrid import block_mean
from scorefield.foundation.files import replacing
from scorefield.samplers import DDIM, DPMSolverPP2M, EDMGrid, Heun, Sampler, Step, StochasticHeun

SEED = 0
STEPS: dict[str, Step] = {
    "DDIM": DDIM(),
    "DPMSolverPP2M": DPMSolverPP2M(),
    "SDE": DPMSolverPP2M(eta=1.0),
    "Heun": Heun(),
    "StochasticHeun": StochasticHeun(churn=0.2),
}


def baselines(train: Part, test: Part, count: int) -> dict[str, np.ndarray]:
    """So many members by name. Interpolation knows the neighbours of a tile, as the model does."""
    found = {"bilinear": test.smooth[None]}
    dressed = DressedBilinear().fit(train.smooth, train.fine, train.when)
    found["bilinear, dressed"] = dressed.draw(test.smooth, count, SEED, test.when)
    for name, one in (("bilinear within tiles", Bilinear()), ("BCSD, wet days", BCSD(ratio=True, wet=0.1))):
        found[name] = one.fit(train.coarse, train.fine, train.when).draw(test.coarse, 1, SEED, test.when)
    return found


def sampler_of(own: Sampler, words: Mapping[str, str]) -> Sampler:
    """A sampler with the changes that a command line names."""
    ends = {"rho": "rho", "low": "ratio_min", "high": "ratio_max"}
    changes: dict[str, Any] = {"steps": int(words["steps"])} if "steps" in words else {}
    changes |= {"step": STEPS[words["step"]]} if "step" in words else {}
    given = {name: float(words[word]) for word, name in ends.items() if word in words}
    return replace(own, **changes, **({"grid": EDMGrid(**given)} if given else {}))


def drawn(
    run: Path, words: Mapping[str, str], test: Part, kept: Path, count: int, precision: str
) -> tuple[np.ndarray, float]:
    """Members of a model, (member, tile, y, x), kept in a file member by member, and the CPU-seconds that one took to draw.

    A network that is given no noise has one member, whatever its seed.
    """
    model = scorefield.load(run)
    model.drawn_in = precision
    sampler = sampler_of(model.sampler, words)
    described = sha256(f"{len(test.fine)} {test.fine.sum()} {sampler}".encode()).hexdigest()[:16]
    members, seconds = [], []
    for member in range(1 if "Deterministic" in repr(model.denoiser.net) else count):
        path = kept / f"{run.name}-{described}-{member}.npz"
        if not path.exists():
            begin = time.process_time()
            torch.set_num_threads(1)
            x = model.sample(len(test.fine), seed=SEED + member, sampler=sampler, cond={"field": test.cond}, chunk=32)
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, x=x[:, 0].numpy(), seconds=time.process_time() - begin)
        with np.load(path) as found:
            members.append(found["x"])
            seconds.append(float(found["seconds"]))
    return np.stack(members), min(seconds)


def rescaled(members: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Every block multiplied so that its mean is the coarse value; a block that is dry throughout stays so."""
    factor = COARSENING["mrms"]
    means = block_mean(members, (factor, factor))
    scale = np.where(means > 0, coarse / np.maximum(means, 1e-9), 1.0)
    return (members * scale.repeat(factor, -2).repeat(factor, -1)).astype(np.float32)


def row(one: System, bilinear: System, dressed: System) -> list[str]:
    figures, q = one.figures, one.figures["quantiles"]
    return [
        one.name,
        told(figures["crps"]),
        percent(ratio(one, bilinear, "crps", "absolute")),
        percent(ratio(one, dressed)),
        f"{figures['log_spectral_distance']['value']:.2f}",
        told(figures["spread_skill"], 3) if "spread_skill" in figures else "",
        f"{100 * (figures['wet_share_ratio']['value'] - 1):+.1f} %",
        f"{100 * (q['0.99']['ratio']['value'] - 1):+.1f} %",
        f"{100 * (q['0.999']['ratio']['value'] - 1):+.1f} %",
        f"{one.driving:.4f}",
        f"{1e4 * one.above:.2f}",
        told(figures["energy_score"], 3),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True)
    parser.add_argument("--run", action="append", default=[], help="NAME=RUN, and how to draw")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--precision", default="32-true", help="of the network in drawing, or bf16-mixed")
    parser.add_argument("--valid", action="store_true", help="judge validation tiles, to choose by, and not test tiles")
    parser.add_argument("--tiles", type=int, default=None, help="only about so many tiles, evenly spaced")
    parser.add_argument("--json", type=Path, default=None, help="all figures")
    settings = parser.parse_args()
    settings.samples.mkdir(parents=True, exist_ok=True)
    train, test = mrms("train"), mrms("valid" if settings.valid else "test")
    test = test if settings.tiles is None else test.thinned(settings.tiles)
    judge = Judge(test, "mm/h", float(train.fine.max()))
    systems = [judge(name, members) for name, members in baselines(train, test, settings.members).items()]
    for one in settings.run:
        name, _, rest = one.partition("=")
        path, *how = rest.split(",")
        words = dict(word.split("=") for word in how)
        members, seconds = drawn(Path(path), words, test, settings.samples, settings.members, settings.precision)
        print(f"{name}: {seconds:.1f} CPU-s for a member of {len(test.fine)} tiles", flush=True)
        systems += [judge(name, members), judge(f"{name}, rescaled", rescaled(members, test.coarse))]
    for part, fields in (("training", train), ("judged", test)):
        print(f"{len(fields.fine)} {part} tiles at {len(set(fields.block.tolist()))} places")
    for level in ("0.99", "0.999"):
        print(f"quantile {level} of the truth: {told(systems[0].figures['quantiles'][level]['truth'])} mm/h")
    header = [
        "system",
        "fair CRPS, mm/h",
        "against bilinear's MAE",
        "against dressed bilinear",
        "spectra, dB",
        "spread/skill",
    ]
    header += ["wet area", "q99", "q99.9", "driving r", "above max, 1e-4", "energy score"]
    print("\n" + markdown(header, [row(one, systems[0], systems[1]) for one in systems]))
    if settings.json is not None:
        settings.json.write_text(json.dumps({one.name: one.figures for one in systems}, indent=1))


if __name__ == "__main__":
    main()
