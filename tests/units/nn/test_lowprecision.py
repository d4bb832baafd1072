"""The shortcuts of low precision have the values and gradients of what they stand for."""

import itertools

import pytest
import torch

from scorefield.nn import lowprecision
from scorefield.nn.layers import Convolution

GRIDS = [(9,), (6, 4), (4, 2, 3)]


def bits(*shape, seed=0, dtype=torch.bfloat16):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


def gradients(out, inputs, cotangent, **options):
    wanted = [value for value in inputs if value is not None]
    return torch.autograd.grad(out, wanted, cotangent.to(out.dtype), **options)


def assert_near(ours, exact):
    """To a few roundings of bfloat16, relative to the largest value."""
    for value, reference in zip(ours, exact, strict=True):
        assert (value.double() - reference.double()).abs().max() < 0.02 * reference.abs().max() + 1e-6


def test_normalise_takes_a_single_sample_in_any_layout():
    """As a convolution may leave it: from one sample to the next it may be any number of steps."""
    x, weight, bias = bits(1, 8, 8, 8).detach(), *(bits(8, seed=seed, dtype=torch.float32) for seed in (3, 4))
    loose = x.contiguous(memory_format=torch.channels_last).as_strided(x.shape, (8, 1, 64, 8))
    out = lowprecision.Normalise.apply(loose, None, weight, bias, 4, True)
    assert torch.equal(
        out, lowprecision.Normalise.apply(x.contiguous(memory_format=torch.channels_last), None, weight, bias, 4, True)
    )


@pytest.mark.parametrize(("grid", "shifted", "activate"), list(itertools.product(GRIDS, [True, False], [True, False])))
def test_normalise(grid, shifted, activate):
    x, cotangent = bits(2, 8, *grid), bits(2, 8, *grid, seed=1).detach()
    shift = bits(2, 8, seed=2, dtype=torch.float32) if shifted else None
    weight, bias = bits(8, seed=3, dtype=torch.float32), bits(8, seed=4, dtype=torch.float32)
    inputs = (x, shift, weight, bias)
    out = lowprecision.Normalise.apply(*inputs, 4, activate)
    exact = lowprecision.normalise(*(None if value is None else value.double() for value in inputs), 4, activate)
    assert out.dtype == torch.bfloat16
    assert_near([out], [exact])
    assert_near(gradients(out, inputs, cotangent), gradients(exact, inputs, cotangent))


def permuted(x, layout):
    if layout == "strided":
        return x.repeat_interleave(2, dim=-1)[..., ::2]
    return x.contiguous(memory_format=torch.channels_last if layout == "last" else torch.contiguous_format)


@pytest.mark.parametrize("layouts", list(itertools.product(["first", "last", "strided"], repeat=2)))
def test_memory_layouts_change_nothing(layouts):
    x, cotangent = bits(2, 8, 6, 4).detach(), bits(2, 8, 6, 4, seed=1).detach()
    weight, bias, results = bits(8, seed=2, dtype=torch.float32), bits(8, seed=3, dtype=torch.float32), []
    kernel = bits(8, 3, 3, 8, seed=4, dtype=torch.float32)
    for where in (("first", "first"), layouts):
        inputs = [permuted(x, where[0]).requires_grad_(), weight, bias]
        out = lowprecision.Normalise.apply(inputs[0], None, weight, bias, 4, True)
        results.append(gradients(out, inputs, permuted(cotangent, where[1])))
        out = lowprecision.Convolve.apply(inputs[0], kernel, bias, 1)
        results.append(gradients(out, [inputs[0], kernel, bias], permuted(cotangent, where[1])))
    for expected, found in zip(results[:2], results[2:], strict=True):
        assert_near(found, expected)


@pytest.mark.parametrize(("grid", "kernel"), list(itertools.product(GRIDS, [1, 3])))
def test_convolve(grid, kernel):
    x, cotangent = bits(2, 8, *grid), bits(2, 5, *grid, seed=1).detach()
    weight = bits(5, *(kernel,) * len(grid), 8, seed=2, dtype=torch.float32)
    inputs = (x, weight, bits(5, seed=3, dtype=torch.float32))
    out = lowprecision.Convolve.apply(*inputs, kernel // 2)
    exact = lowprecision.convolve(*(value.double() for value in inputs), 1, kernel // 2)
    assert out.dtype == torch.bfloat16
    assert_near([out], [exact])
    assert_near(gradients(out, inputs, cotangent), gradients(exact, inputs, cotangent))


@pytest.mark.parametrize("frozen", [False, True])
def test_second_derivatives(frozen):
    """Of |∂ sin(f)/∂x|², with the weights fixed or not."""
    x, shift = bits(2, 8, 4, 4), bits(2, 8, seed=1, dtype=torch.float32)
    scale, bias = bits(8, seed=2, dtype=torch.float32), bits(8, seed=3, dtype=torch.float32)
    weight = (0.1 * bits(8, 3, 3, 8, seed=4, dtype=torch.float32)).detach().requires_grad_()
    if frozen:
        for value in (shift, weight, scale, bias):
            value.requires_grad_(False)

    def twice(normalise, convolve, precision):
        h = normalise(x.to(precision), *(value.to(wide(precision)) for value in (shift, scale, bias)), 4, True)
        out = convolve(h, *(value.to(wide(precision)) for value in (weight, bias)))
        (first,) = torch.autograd.grad(out.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(first.double().square().sum(), [x] if frozen else [x, weight, scale])

    def wide(precision):
        return torch.promote_types(precision, torch.float32)

    ours = twice(lowprecision.Normalise.apply, lambda *values: lowprecision.Convolve.apply(*values, 1), torch.bfloat16)
    exact = twice(lowprecision.normalise, lambda *values: lowprecision.convolve(*values, 1, 1), torch.float64)
    for value, reference in zip(ours, exact, strict=True):
        assert (value.double() - reference.double()).norm() < 0.03 * reference.double().norm()


@pytest.mark.parametrize("grid", [(2, 16, 16), (16, 2, 16), (16, 16, 2)])
def test_weights_of_thin_volumes_get_no_gradient_from_what_was_in_memory(grid):
    """Of 2 points along an axis and 16 along the others torch's own gradient may be numbers that lay there before."""
    layer = Convolution(3, 64, 64)
    x, cotangent = bits(4, 64, *grid), bits(4, 64, *grid, seed=1).detach()
    exact = gradients(layer.double()(x.detach().double()), [layer.weight], cotangent)[0]
    layer.float()
    for _ in range(6):
        junk = [torch.full((layer.weight.numel(),), 1e30) for _ in range(4)]
        del junk
        with torch.autocast("cpu", torch.bfloat16):
            found = gradients(layer(x.contiguous(memory_format=torch.channels_last_3d)), [layer.weight], cotangent)[0]
        assert_near([found], [exact])
