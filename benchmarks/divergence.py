"""What one evaluation of the likelihood's flow costs: drift and divergence from one evaluation of the network, or separately.

    python benchmarks/divergence.py [--channels 32] [--batch 16] [--repeats 7]

Together: the divergence is a vector-Jacobian product of the very evaluation that gave the drift, with frozen parameters, as the
library does it. Separately: the drift alone, without a gradient, then the divergence from an evaluation of its own, as the
ancestor does it; its parameters, too, are left asking for gradients. Third, the same with frozen parameters. In turns.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.core.denoiser import Denoiser, EDMPreconditioner
from scorefield.core.schedule import VE
from scorefield.core.sde import SDE
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.samplers.flow import velocity
from scorefield.samplers.likelihood import frozen, with_divergence

SIZE = 32


def ways(denoiser: Denoiser, u: Tensor, phi: Tensor, probes: Tensor) -> dict[str, Callable[[], tuple[Tensor, Tensor]]]:
    def together() -> tuple[Tensor, Tensor]:
        with frozen(denoiser):
            return with_divergence(denoiser, u, phi, None, probes)

    def separately() -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            drift = velocity(denoiser, u, phi, None)
        return drift, with_divergence(denoiser, u, phi, None, probes)[1]

    def separately_frozen() -> tuple[Tensor, Tensor]:
        with frozen(denoiser):
            return separately()

    return {"together": together, "separately": separately, "separately, frozen": separately_frozen}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("channels", 32), ("batch", 16), ("repeats", 7), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    net = NCSNpp(3, 3, channels=arguments.channels, blocks=2, dropout=0.0).eval()
    denoiser = Denoiser(net, SDE(VE()), EDMPreconditioner(0.5))
    u = torch.randn(arguments.batch, 3, SIZE, SIZE)
    phi = torch.linspace(0.1, 1.5, arguments.batch, dtype=torch.float64)
    probes = torch.randint(2, (1, *u.shape)) * 2.0 - 1
    candidates = ways(denoiser, u, phi, probes)
    results = [way() for way in candidates.values()]
    for drift, divergence in results[1:]:
        torch.testing.assert_close(drift, results[0][0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(divergence, results[0][1], rtol=1e-4, atol=1e-2)

    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(arguments.repeats):
        for name, way in candidates.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"NCSN++ of {parameters:,} parameters, {arguments.batch} × 3 × {SIZE} × {SIZE}, {arguments.threads} thread(s)"
    )
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, Python {platform.python_version()}"
    )
    for name, values in seconds.items():
        ratios = [value / own for value, own in zip(values, seconds["together"], strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  {name:22s}{statistics.median(values):7.3f} s   × {statistics.median(ratios):.2f}   ({spread})")


if __name__ == "__main__":
    main()
