"""Sampling up and down equals its definition, and each is the other's adjoint."""

import itertools

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from scorefield.nn import resample

GRIDS = [(8,), (7,), (6, 4), (5, 8), (3, 7), (4, 2, 6), (3, 4, 5)]
TAPS = [1 / 8, 3 / 8, 3 / 8, 1 / 8]


def filtered(x, before, after):
    """The definition along the last axis: pad, then slide the four taps over it."""
    padded = torch.cat((x.new_zeros(*x.shape[:-1], before), x, x.new_zeros(*x.shape[:-1], after)), dim=-1)
    return sum(tap * padded[..., k : padded.shape[-1] - 3 + k] for k, tap in enumerate(TAPS))


def inserted(x):
    z = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])
    z[..., ::2] = x
    return z


def along_every_axis(x, operation):
    for axis in range(2, x.ndim):
        x = operation(x.movedim(axis, -1)).movedim(-1, axis)
    return x


DEFINITIONS = {
    resample.fir_up: lambda x: 2 * filtered(inserted(x), 2, 1),
    resample.fir_up_extended: lambda x: 2 * filtered(inserted(x), 3, 2),
    resample.fir_down: lambda x: filtered(x, 1, 1)[..., ::2],
    resample.fir_filter: lambda x: filtered(x, 2, 2),
    resample.repeat: lambda x: x.repeat_interleave(2, dim=-1),
    resample.average: lambda x: x[..., : x.shape[-1] // 2 * 2].unflatten(-1, (-1, 2)).mean(-1),
}
BOTH = list(itertools.product(DEFINITIONS, GRIDS))


def field(grid, dtype=torch.float64, channels=3):
    return torch.randn(2, channels, *grid, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("operation", "grid"), BOTH)
def test_definition(operation, grid):
    x = field(grid)
    torch.testing.assert_close(operation(x), along_every_axis(x, DEFINITIONS[operation]))


@pytest.mark.parametrize(("operation", "grid"), BOTH)
def test_gradient_is_the_definitions(operation, grid):
    x = field(grid).requires_grad_()
    y = operation(x)
    cotangent = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(1))
    (ours,) = torch.autograd.grad(y, x, cotangent)
    (theirs,) = torch.autograd.grad(along_every_axis(x, DEFINITIONS[operation]), x, cotangent)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("grid", [(3,), (3, 2), (2, 2, 3)])
@pytest.mark.parametrize(
    "operation", [resample.fir_up, resample.fir_down, resample.fir_filter, resample.fir_up_extended]
)
def test_derivatives_of_first_and_second_order(operation, grid):
    x = field(grid, channels=1)[:1].requires_grad_()
    assert gradcheck(operation, x)
    assert gradgradcheck(lambda x: operation(x).sin(), x)


@pytest.mark.parametrize("operation", DEFINITIONS)
def test_jacobian_by_transformed_functions(operation):
    x = field((3, 4), channels=1)[:1]
    ours = torch.func.jacrev(operation)(x)
    theirs = torch.func.jacrev(lambda x: along_every_axis(x, DEFINITIONS[operation]))(x)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("grid", [(8,), (6, 4), (4, 2, 6)])
@pytest.mark.parametrize(("up", "down"), [(resample.fir_up, resample.fir_down), (resample.repeat, resample.average)])
def test_up_is_a_multiple_of_the_adjoint_of_down(up, down, grid):
    x, y = field([2 * size for size in grid]), field(grid)
    torch.testing.assert_close((down(x) * y).sum() * 2 ** len(grid), (x * up(y)).sum())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("operation", DEFINITIONS)
def test_precision_and_layout_are_kept(operation, dtype, layout):
    x = field((6, 10), dtype, channels=16).contiguous(memory_format=layout)
    with torch.autocast("cpu", torch.bfloat16):
        y = operation(x)
    assert y.dtype == dtype and y.is_contiguous(memory_format=layout)
    exact = along_every_axis(x.double(), DEFINITIONS[operation])
    torch.testing.assert_close(y.double(), exact, rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)
