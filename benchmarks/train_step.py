"""How long one optimiser step of NCSN++ takes, and how far that is from what the machine's convolutions can do.

    python benchmarks/train_step.py [--ancestor PATH] [--operation own|plain] [--precision auto] [--batch 8] [--threads 2]

The step is forward, backward, clipping, Adam and the moving average, for the network of 62.8 million parameters that Song
et al. (2021) publish for CIFAR-10. With the path of a checkout of score_sde_pytorch, its own step is measured too, in
float32 and in turns with ours. Its resampling operation is compiled for GPUs only: on a CPU it runs its own code in torch
(`own`), or here, for comparison, a faster one by a depthwise convolution (`plain`). With one thread, seconds are those
of the processor, which other processes disturb less. Peak memory is that of a process which does nothing else.
"""

from __future__ import annotations

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
import torch.utils.cpp_extension
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from scorefield.core.denoiser import ScorePrediction
from scorefield.core.schedule import VE
from scorefield.core.sde import SDE
from scorefield.data import Batch, Identity
from scorefield.foundation.arithmetic import machine_of
from scorefield.losses import SNR, Denoising, UniformTime
from scorefield.model import Model
from scorefield.nn import NCSNpp
from scorefield.training import Adam
from scorefield.training.state import State, launch

Step = Callable[[], object]
SIZE = 32


def our_step(batch: int, precision: str) -> Step:
    """The trainer's own step on the recipe's model, with bfloat16 in the network alone where that is the precision."""
    torch.manual_seed(0)
    model = Model(SDE(VE()), NCSNpp(3, 3), ScorePrediction(), Identity(), shape=(3, SIZE, SIZE))
    state = State(model, Adam(), ema=0.999, seed=0, fabric=launch("cpu", 1, 1, precision))
    loss, steps = Denoising(UniformTime(), SNR()), 100
    x, key = torch.rand(batch, 3, SIZE, SIZE), torch.arange(2 * batch).reshape(batch, 2)
    return lambda: state.advance([Batch(x, key=key)], loss, clip=1.0, steps=steps)


def ancestor_step(batch: int, checkout: Path, operation: str, device: torch.device = torch.device("cpu")) -> Step:  # noqa: B008
    """The ancestor's own network, loss, optimiser, clipping and average."""
    sys.path.insert(0, str(checkout))
    configuration = types.ModuleType("ml_collections")
    configuration.ConfigDict = Attributes  # type: ignore[attr-defined]
    sys.modules["ml_collections"] = configuration
    if operation == "plain":
        sys.modules["op"] = types.ModuleType("op")
        sys.modules["op"].upfirdn2d = upfirdn2d  # type: ignore[attr-defined]
    if device.type == "cpu":
        torch.utils.cpp_extension.load = lambda *_, **__: None  # it compiles for a GPU when it is imported

    import losses
    import models.ncsnpp  # noqa: F401 - it registers itself
    import sde_lib
    from configs.ve.cifar10_ncsnpp_continuous import get_config
    from models.ema import ExponentialMovingAverage
    from models.utils import create_model

    config = get_config()
    config.device = device
    torch.manual_seed(0)
    model = create_model(config)
    state = {
        "model": model,
        "optimizer": losses.get_optimizer(config, model.parameters()),
        "ema": ExponentialMovingAverage(model.parameters(), decay=config.model.ema_rate),
        "step": 1,
    }
    sde = sde_lib.VESDE(config.model.sigma_min, config.model.sigma_max, config.model.num_scales)
    step = losses.get_step_fn(sde, train=True, optimize_fn=losses.optimization_manager(config))
    x = torch.rand(batch, 3, SIZE, SIZE, device=device)
    return lambda: step(state, x)


class Attributes(dict):
    """As much of a configuration dictionary as the ancestor's configurations need."""

    __getattr__ = dict.__getitem__
    __setattr__ = dict.__setitem__


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
    """Insert zeros, pad, filter, and keep every `down`-th value."""
    batch, channels, height, width = x.shape
    if up > 1:
        spread = x.new_zeros(batch, channels, height, up, width, up)
        spread[:, :, :, 0, :, 0] = x
        x = spread.flatten(4).flatten(2, 3)
    kernel = kernel.to(x).flip(0, 1).expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(x, (*pad, *pad)), kernel, groups=channels, stride=down)


def timed(step: Step) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    return clock() - start


def flops(batch: int) -> int:
    """Multiplications and additions of one forward and backward pass."""
    net = NCSNpp(3, 3, dropout=0.0)
    with FlopCounterMode(display=False) as counter:
        net(torch.randn(1, 3, SIZE, SIZE), torch.zeros(1)).sum().backward()
    return counter.get_total_flops() * batch


def convolution_rate(batch: int, dtype: torch.dtype) -> float:
    """The best rate of a 3x3 convolution with channels innermost, in FLOP/s, at the network's own sizes."""
    best = 0.0
    for channels, size in ((128, SIZE), (256, SIZE), (256, SIZE // 2)):
        x = torch.randn(batch, channels, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        weight = torch.randn(channels, channels, 3, 3, dtype=x.dtype).contiguous(memory_format=torch.channels_last)
        seconds = min(timed(lambda x=x, weight=weight: F.conv2d(x, weight, padding=1)) for _ in range(20))
        best = max(best, 2 * 9 * channels * channels * size**2 * batch / seconds)
    return best


def peak_memory(name: str) -> float:
    """The largest resident size, in GiB, of a process that makes three steps."""
    command = [sys.executable, *sys.argv, "--memory-of", name]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def resident() -> float:
    """The largest size of this process so far, in GiB; `getrusage` would report its parent's if that is larger."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ancestor", type=Path, help="checkout of score_sde_pytorch")
    parser.add_argument("--operation", choices=("own", "plain"), default="own", help="how the ancestor resamples")
    parser.add_argument("--precision", choices=("auto", "bf16-mixed", "32-true"), default="auto")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory-of", choices=("ours", "ancestor"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.precision == "auto":
        arguments.precision = "bf16-mixed" if machine_of(torch.device("cpu")).bfloat16 else "32-true"

    def build(name: str) -> Step:
        if name == "ours":
            return our_step(arguments.batch, arguments.precision)
        return ancestor_step(arguments.batch, arguments.ancestor, arguments.operation)

    if arguments.memory_of:
        step = build(arguments.memory_of)
        for _ in range(3):
            step()
        print(resident())
        return
    report(arguments, build)


def report(arguments: argparse.Namespace, build: Callable[[str], Step]) -> None:
    names = ["ours", "ancestor"] if arguments.ancestor else ["ours"]
    steps = {name: build(name) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for step in steps.values():
        step(), step()
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    best = convolution_rate(arguments.batch, torch.bfloat16 if arguments.precision == "bf16-mixed" else torch.float32)
    steps.clear()

    machine = (
        f"{cpu()}, {machine_of(torch.device('cpu')).kind}, {arguments.threads} threads, ours in {arguments.precision}"
    )
    print(f"python {platform.python_version()}, torch {torch.__version__}, {machine}")
    total = flops(arguments.batch)
    for name in names:
        median = statistics.median(seconds[name])
        print(
            f"{name:8}  {median:.3f} s per step (median of {arguments.repeats}, from {min(seconds[name]):.3f} to"
            f" {max(seconds[name]):.3f}), {total / median / 1e12:.3f} TFLOP/s = {total / median / best:.0%} of the best"
            f" convolution's {best / 1e12:.3f}, peak memory {peak_memory(name):.2f} GiB"
        )
    if arguments.ancestor:
        each = [theirs / ours for theirs, ours in zip(seconds["ancestor"], seconds["ours"], strict=True)]
        median = statistics.median(seconds["ancestor"]) / statistics.median(seconds["ours"])
        print(f"ratio {median:.2f} (pair by pair {', '.join(f'{ratio:.2f}' for ratio in each)})")


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
