"""Every method of guidance on Gaussian data: mean and covariance of its samples beside the exact posterior's: docs/guidance.md.

    python benchmarks/posterior_gaussian.py [--out docs/guidance.md]

Where a method is affine in x_t, so is the sampler, and the law of its samples is read off unit impulses, without Monte Carlo. DPS
is not; its row is of 20 000 samples, which leaves about 1 % in the mean and 4 % in the covariance.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from laws.cases import gaussian, keys  # noqa: E402
from laws.posterior import F64, Exact, affine_law, operators  # noqa: E402
from scorefield.core.schedule import EDM  # noqa: E402
from scorefield.guidance import DPS, Guided, Measurement, Method, MomentMatching, PiGDM, Replacement  # noqa: E402
from scorefield.samplers import Ancestral, Heun, LogSNRGrid, Step, sample  # noqa: E402

SHAPE, LEVELS, DRAWS, MEAN = (3, 2, 4), 65, 20_000, 0.3
METHODS: dict[str, Method] = {
    "Replacement": Replacement(),
    "DPS": DPS(),
    "ΠGDM": PiGDM(iterations=100, tolerance=1e-10),
    "MomentMatching": MomentMatching(iterations=100, tolerance=1e-10),
}
STEPS: dict[str, tuple[Step, int]] = {"Heun": (Heun(), 1), "Ancestral": (Ancestral(), LEVELS)}
CASES = (("Mask", 0.0), ("Grey", 0.0), ("Coarsen", 0.0), ("Coarsen", 0.2), ("Blur", 0.2))


def law_of(guided: Guided, times: Tensor, step: Step, draws: int, *, affine: bool) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the samples."""
    if affine:
        return affine_law(guided, times, step, SHAPE, draws)
    generator = keys(DRAWS)
    x_1 = guided.sde.prior((DRAWS, *SHAPE), times[0], generator=generator, like=torch.empty(0, dtype=F64))
    x = sample(guided, x_1, times, step, generator=generator).flatten(1)
    return x.mean(0), x.T.cov()


def errors(
    method: Method, case: tuple[str, float], law: str, step: Step, draws: int, *, affine: bool
) -> tuple[float, float]:
    """Of the mean, over the posterior's root mean square spread, and of the covariance, over its Frobenius norm."""
    name, noise = case
    prior = gaussian(EDM(), law, SHAPE[1:], MEAN)
    exact = Exact(prior, operators(SHAPE[1:])[name], SHAPE, noise)
    measured: Measurement = exact.measure()
    times = LogSNRGrid(0.0, 1.0)(EDM(), LEVELS)
    mean, covariance = law_of(Guided(prior, measured, method), times, step, draws, affine=affine)
    expected_mean, expected = exact.posterior(measured.y)
    return (
        float((mean - expected_mean).norm() / expected.trace().sqrt()),
        float((covariance - expected).norm() / expected.norm()),
    )


def cell(label: str, case: tuple[str, float], law: str, step: str) -> str:
    if label == "Replacement" and (case[1] or case[0] == "Blur"):
        return "–"
    found = errors(METHODS[label], case, law, *STEPS[step], affine=label != "DPS")
    return " · ".join(f"{error:.2g}" if error >= 1e-3 else f"{error:.0e}".replace("e-0", "e-") for error in found)


def table() -> str:
    head = [f"{name}, noise {noise:g}" for name, noise in CASES]
    rows = [["data, step", "method", *head], ["---"] * (len(CASES) + 2)]
    for law in ("white", "coloured data", "coloured both"):
        for step in STEPS:
            for label in METHODS:
                rows.append([f"{law}, {step}", label, *(cell(label, case, law, step) for case in CASES)])
                print(" | ".join(rows[-1]), file=sys.stderr, flush=True)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "guidance.md")
    out = parser.parse_args().out
    started = time.perf_counter()
    before, mark, rest = out.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end of table -->\n")
    assert mark and end, f"{out} has no marks of a table"
    made = (
        f"Made by `python benchmarks/posterior_gaussian.py` in {{}} s; torch {torch.__version__}, "
        f"Python {platform.python_version()}."
    )
    text = table() + "\n\n" + made.format(round(time.perf_counter() - started)) + "\n"
    out.write_text(f"{before}{mark}\n{text}\n{end}{after}")


if __name__ == "__main__":
    main()
