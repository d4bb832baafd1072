"""How far the score of imported weights is from what the program that trained them computes.

    python benchmarks/parity.py CHECKPOINT SCORES [--config CONFIG]

CHECKPOINT and CONFIG are as `scorefield import` takes them; SCORES is an .npz of that program's own x, t or labels, cond if
there is any, score_raw and score_ema. Printed is max|Δ|/max|reference| of the worst example, of raw and of averaged weights.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import scorefield
from scorefield.jobs.import_weights import Import


def errors(run: Path, reference: dict[str, torch.Tensor]) -> list[float]:
    """Of raw and of averaged weights."""
    at = {"t": reference["t"]} if "t" in reference else {"label": reference["labels"]}
    cond = {"field": reference["cond"]} if "cond" in reference else None
    found = []
    for ema, name in ((False, "score_raw"), (True, "score_ema")):
        difference = scorefield.load(run, ema=ema).score(reference["x"], **at, cond=cond) - reference[name]
        worst = difference.flatten(1).abs().amax(1) / reference[name].flatten(1).abs().amax(1)
        found.append(float(worst.max()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scores", type=Path)
    parser.add_argument("--config", type=Path, default=None)
    arguments = parser.parse_args()
    with np.load(arguments.scores) as file:
        reference = {name: torch.from_numpy(file[name]) for name in file.files}
    with tempfile.TemporaryDirectory() as folder:
        Import(checkpoint=arguments.checkpoint, out=Path(folder) / "run", config=arguments.config).run()
        raw, averaged = errors(Path(folder) / "run", reference)
    print(f"{arguments.checkpoint}: raw {raw:.1e}, averaged {averaged:.1e}")


if __name__ == "__main__":
    main()
