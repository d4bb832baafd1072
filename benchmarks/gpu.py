"""What a GPU makes of training, sampling and likelihoods; one command of a few minutes, which writes a page.

    python benchmarks/gpu.py --out benchmarks/gpu.md [--ancestor PATH] [--minutes 8]
    python benchmarks/gpu.py --accelerator cpu --small          # does it run at all

Networks are those of the shipped recipes with random weights and random images. Training is the trainer's own step with batches
copied ahead; TFLOP/s counts the multiplications and additions of one forward and backward pass. A wait is a call of the
driver that holds the host until the device is done, counted by torch's profiler over some steps after the first. The best
rate of the card is that of a product of matrices of 8192² in bfloat16, measured here. What would begin after so many minutes
is left out, and said.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent))
import train_step
from scorefield.data.batch import Batch
from scorefield.data.loader import Loader
from scorefield.data.source import Tensors
from scorefield.foundation.arithmetic import (
    LOW,
    Choice,
    allow_tf32,
    autocast_of,
    machine_of,
    synchronise,
)
from scorefield.foundation.files import write_text
from scorefield.foundation.random import Generators
from scorefield.run.configuration import find_recipe, read_recipe
from scorefield.run.experiment import prepare
from scorefield.run.recipe import recipe_parser
from scorefield.samplers import DPMSolverPP2M, ProbabilityFlow, Sampler
from scorefield.training.state import State

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "hipStreamSynchronize")
SMALL = {"model.net.channels": 16}  # of a network that is only to be seen to run


class Bench:
    """Measures on one device until the time is up.

    Args:
        accelerator: "cuda", or "cpu".
        small: shrink everything.
        minutes: after which nothing new is begun.
    """

    def __init__(self, accelerator: str, small: bool, minutes: float) -> None:
        self.accelerator, self.small, self.end = accelerator, small, time.monotonic() + 60 * minutes
        self.device = torch.device(accelerator)
        self.lines: list[str] = []
        allow_tf32(self.device)

    def row(self, *cells: object) -> None:
        self.lines.append("| " + " | ".join(map(str, cells)) + " |")
        print(self.lines[-1], flush=True)

    def head(self, title: str, *columns: str) -> None:
        self.lines += ["", f"## {title}", ""]
        print(f"\n## {title}", flush=True)
        self.row(*columns)
        self.row(*["---"] * len(columns))

    def attempt(self, name: str, work: Callable[[], None]) -> None:
        """A row or several, or why there are none."""
        if time.monotonic() > self.end:
            self.row(name, "left out: the time was up")
            return
        try:
            work()
        except torch.OutOfMemoryError:
            self.row(name, "does not fit into memory")
        finally:
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

    def seconds(self, work: Callable[[], object], repeats: int) -> float:
        """Of one call, over some that are queued after each other."""
        work()
        synchronise(self.device)
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        synchronise(self.device)
        return (time.perf_counter() - started) / repeats

    def memory(self) -> str:
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if self.device.type == "cuda" else "-"

    def best_rate(self) -> float:
        """FLOP/s of a product of large matrices in bfloat16."""
        n = 512 if self.small else 8192
        a = torch.randn(n, n, device=self.device, dtype=torch.bfloat16)
        return 2 * n**3 / self.seconds(lambda: a @ a, 10)

    # ------------------------------------------------------------------------------------------------------ the networks
    def built(self, recipe: str, shape: tuple[int, ...], batch: int) -> tuple[Any, State, Iterator[Batch]]:
        """Plan and state of a recipe with random data of a shape, and its batches on the device."""
        parser = recipe_parser(data_required=False)
        words = [f"--{name}={value}" for name, value in SMALL.items()] if self.small else []
        settings = parser.read(
            [*words, f"--train.accelerator={self.accelerator}"],
            parser.read_object(read_recipe(find_recipe(recipe)), recipe),
        )
        experiment = prepare(parser, settings, source=Tensors(torch.rand(2 * batch, *shape), valid=0))
        state = experiment.trainer.launch(experiment.model)
        state.compute_in(Choice(LOW, machine_of(self.device).kind))
        return experiment.trainer, state, Loader(experiment.train, batch).on(self.device)

    def training(self, name: str, recipe: str, shape: tuple[int, ...], batches: tuple[int, ...], best: float) -> None:
        flops = 0.0
        for batch in batches:

            def measure(batch: int = batch) -> None:
                nonlocal flops
                plan, state, data = self.built(recipe, shape, batch)
                net = state.model.denoiser.net
                flops = flops or count(net, torch.rand(1, *shape, device=self.device))

                def step() -> None:
                    state.advance([next(data)], plan.loss, clip=plan.clip, steps=plan.steps)

                for _ in range(2):
                    step()
                seconds = self.seconds(step, 3 if self.small else 20)
                rate = flops * batch / seconds
                waits = self.waits(step)
                self.row(
                    name,
                    batch,
                    f"{batch / seconds:.0f}",
                    f"{rate / 1e12:.1f}",
                    f"{rate / best:.0%}",
                    waits,
                    self.memory(),
                )

            self.attempt(f"{name}, {batch}", measure)

    def waits(self, step: Callable[[], None], steps: int = 5) -> str:
        """How often the host waited for the device in a step."""
        if self.device.type != "cuda":
            return "-"
        synchronise(self.device)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
            for _ in range(steps):
                step()
        calls = sum(event.count for event in found.key_averages() if event.key in WAITS)
        return f"{max(0, calls - 1) / steps:.1f}"  # the profiler's own wait at its end

    def sampling(self, recipe: str, shape: tuple[int, ...], n: int) -> None:
        _, state, _ = self.built(recipe, shape, 2)
        model = state.model.eval()
        like = torch.empty(0, device=self.device)
        for steps in (18, 4):

            def draw(steps: int = steps) -> Tensor:
                sampler = Sampler(steps, DPMSolverPP2M())
                generator = Generators((0, i) for i in range(n))
                with torch.no_grad(), autocast_of("bf16-mixed", self.device):
                    return sampler(model.generative, (n, *shape), generator=generator, like=like)

            seconds = self.seconds(draw, 1 if self.small else 3)
            self.row(f"{recipe}, {steps} evaluations", n, f"{n / seconds:.1f}", self.memory())

    def likelihood(self, recipe: str, shape: tuple[int, ...], n: int) -> None:
        _, state, _ = self.built(recipe, shape, 2)
        denoiser = state.model.eval().generative
        x, generator = torch.rand(n, *shape, device=self.device), Generators((0, i) for i in range(n))
        started = time.perf_counter()
        found = ProbabilityFlow(tolerance=1e-2).log_prob(denoiser, x, generator=generator)
        synchronise(self.device)
        evaluations = float(torch.as_tensor(found.evaluations).double().mean())
        self.row(recipe, n, f"{(time.perf_counter() - started) / n:.3f}", f"{evaluations:.0f}")

    def ancestor(self, checkout: Path, batch: int) -> None:
        """Its own network and step on this device, in float32 as it comes."""
        step = train_step.ancestor_step(batch, checkout, "own", self.device)
        self.row("score_sde_pytorch", batch, f"{batch / self.seconds(step, 5):.0f}", self.memory())


def count(net: torch.nn.Module, x: Tensor) -> float:
    """Multiplications and additions of one forward and backward pass on one field."""
    with FlopCounterMode(display=False) as counter:
        net(x, torch.zeros(1, device=x.device)).float().sum().backward()
    net.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accelerator", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tiny networks and batches, to see that all of it runs")
    parser.add_argument("--minutes", type=float, default=7.0, help="nothing new is begun afterwards")
    parser.add_argument(
        "--ancestor", type=Path, help="checkout of score_sde_pytorch, whose step is measured beside ours"
    )
    parser.add_argument("--out", type=Path, help="page to write")
    given = parser.parse_args()
    if given.accelerator == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no CUDA device here; --accelerator cpu --small shows that the script runs.")
    bench = Bench(given.accelerator, given.small, given.minutes)
    allow_tf32(bench.device)
    name = torch.cuda.get_device_name() if given.accelerator == "cuda" else platform.processor()
    best = bench.best_rate()
    bench.lines += [
        f"# One GPU: `python benchmarks/gpu.py {' '.join(sys.argv[1:])}`",
        "",
        f"{name}, torch {torch.__version__}, Python {platform.python_version()}; its best rate is {best / 1e12:.1f} TFLOP/s.",
    ]
    small = given.small
    colour = (3, 32, 32)
    batches = (2,) if small else (128, 256, 512)
    bench.head(
        "Training", "network", "batch", "images/s", "TFLOP/s", "share of the best rate", "waits a step", "memory"
    )
    for title, recipe in (("NCSN++", "cifar10-ncsnpp-ve"), ("DDPM++", "cifar10-ddpmpp-vp")):
        bench.training(title, recipe, colour, batches, best)
    if given.ancestor is not None:
        bench.attempt("score_sde_pytorch", lambda: bench.ancestor(given.ancestor, batches[0]))
    bench.training("FNO", "terrain-grf", (1, 16, 16) if small else (1, 64, 64), batches[:1], best)
    bench.training("NCSN++ at 1024²", "ffhq-1024-ncsnpp-ve", (3, 64, 64) if small else (3, 1024, 1024), (1,), best)
    bench.head("Sampling", "recipe", "images at once", "images/s", "memory")
    bench.attempt("sampling", lambda: bench.sampling("cifar10-edm-ncsnpp", colour, 2 if small else 512))
    bench.head("Likelihood, tolerance 0.01", "recipe", "images at once", "seconds an image", "evaluations")
    bench.attempt("likelihood", lambda: bench.likelihood("cifar10-ddpmpp-vp", colour, 2 if small else 128))
    if given.out is not None:
        write_text(given.out, "\n".join(bench.lines) + "\n")


if __name__ == "__main__":
    main()
