"""Which of two ways to compute the same is faster on this machine: what the choices of kernels in `scorefield.nn` rest on.

    python benchmarks/kernels.py

Seconds of the processor with one thread, the two in turns: the least of each, and the median of the ratios, as rows of speed.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scorefield.foundation.arithmetic import machine_of
from scorefield.foundation.random import odd_numbers
from scorefield.nn import NCSNpp, winograd
from scorefield.nn.dropout import Dropout
from scorefield.nn.layers import attend

PAIRS = 7
LAST = torch.channels_last
SETTINGS = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)  # of a 3×3 convolution that keeps the size
SMALL = {"multipliers": (1, 2, 2), "dropout": 0.0, "filter": "box", "progressive_input": "none"}


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(what: str, ours: Callable[[], object], other: Callable[[], object]) -> None:
    """Print a row of a table: what, ours and the other in ms, how many times as long the other takes."""
    for work in (ours, other) * 2:
        work()
    pairs = [(seconds(ours), seconds(other)) for _ in range(PAIRS)]
    first, second = (1e3 * min(times) for times in zip(*pairs, strict=True))
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    print(f"| {what} | {first:.2f} | {second:.2f} | {ratio:.2f} |", flush=True)


def attention(batch: int, points: int, channels: int) -> None:
    tokens = torch.randn(3, batch, points, channels)

    def matrix() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return attend(*tokens)

    compare(f"attention, {batch} × {points} points × {channels}: fused, by a matrix", lambda: attend(*tokens), matrix)


def dropout(*shape: int) -> None:
    x = torch.randn(shape).contiguous(memory_format=LAST).requires_grad_()
    layer, plain, given = Dropout(0.1), Dropout(0.1), torch.ones_like(x)
    layer.factors = odd_numbers(0, torch.arange(2 * len(x)).view(-1, 2), 1)[0]

    def both(by: Dropout) -> object:
        return torch.autograd.grad(by(x), x, given)

    compare(f"dropout of {list(shape)}, both ways: by key, torch's", lambda: both(layer), lambda: both(plain))


def layouts(batch: int, channels: int, size: int) -> None:
    x, weight = torch.randn(batch, channels, size, size), torch.randn(channels, channels, 3, 3)
    last = x.contiguous(memory_format=LAST), weight.contiguous(memory_format=LAST)
    what = f"3×3, {batch} × {channels} × {size}²: channels innermost, outermost"
    compare(what, lambda: F.conv2d(*last, padding=1), lambda: F.conv2d(x, weight, padding=1))


def weight_gradient(batch: int, channels: int, out: int, size: int) -> None:
    x, gradient = (torch.randn(batch, c, size, size).contiguous(memory_format=LAST) for c in (channels, out))
    weight, m = torch.randn(out, 3, 3, channels).movedim(-1, 1), winograd.tile(x.shape[2:])
    native = torch.ops.aten.convolution_backward
    compare(
        f"weight's gradient, {batch} × {channels} to {out} × {size}²: tiles of {m}, torch's",
        lambda: winograd.weight_gradient(x, gradient, 1, m),
        lambda: native(gradient, x, weight, None, *SETTINGS, [False, True, False]),
    )


def precision(net: NCSNpp, *shape: int) -> None:
    x, label = torch.randn(shape), torch.zeros(shape[0])

    def low() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return net(x, label)

    compare(f"forward of {list(shape)}: float32, bfloat16", lambda: net(x, label), low)


def chunks(what: str, net: NCSNpp, shape: tuple[int, ...], sizes: tuple[int, ...]) -> None:
    """Print the milliseconds of a sample at each size, the sizes in turns."""
    each: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(PAIRS):
        for size, times in each.items():
            x, label = torch.randn(size, *shape), torch.zeros(size)
            times.append(1e3 * seconds(lambda x=x, label=label: net(x, label)) / size)
    print(
        f"{what}: ms a sample at once "
        + ", ".join(f"{size}: {statistics.median(t[1:]):.2f}" for size, t in each.items())
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {machine_of(torch.device('cpu')).kind}")
    dropout(128, 32, 8, 8)
    dropout(8, 128, 32, 32)
    for sizes in ((4, 128, 128, 32), (4, 256, 128, 32), (4, 256, 256, 16), (4, 512, 256, 16), (4, 256, 256, 8)):
        weight_gradient(*sizes)
    with torch.no_grad():
        for shape in ((16, 1024, 16), (16, 1024, 64), (8, 256, 256), (128, 16, 64)):
            attention(*shape)
        for shape in ((8, 128, 32), (8, 256, 8), (64, 32, 8), (4, 64, 64)):
            layouts(*shape)
        digits = NCSNpp(1, 1, channels=32, blocks=2, attention=(1,), **SMALL).eval()
        fields = NCSNpp(1, 1, channels=32, blocks=1, attention=(), **SMALL).eval()
        precision(digits, 64, 1, 8, 8)
        precision(fields, 4, 1, 64, 64)
        chunks("digits, 8²", digits, (1, 8, 8), (16, 32, 64, 128, 256))
        chunks("fields, 64²", fields, (1, 64, 64), (2, 4, 8, 16, 64))


if __name__ == "__main__":
    main()
