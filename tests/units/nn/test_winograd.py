"""Minimal filtering gives the gradient of a convolution's weight to float32's digits, and is used where it is known to pay."""

import pytest
import torch
import torch.nn.functional as F

from scorefield.nn import winograd
from scorefield.nn.layers import Convolution


@pytest.mark.parametrize(("m", "grid", "padding"), [(2, (8, 9), 1), (2, (6, 5), 0), (4, (16, 19), 1), (4, (10, 6), 0)])
def test_the_gradient_is_that_of_the_convolution(m, grid, padding, monkeypatch):
    monkeypatch.setattr(winograd, "BLOCK", 2000)  # samples one by one
    torch.manual_seed(0)
    x, weight = torch.randn(3, 5, *grid), torch.randn(7, 5, 3, 3, dtype=torch.float64, requires_grad=True)
    out = F.conv2d(x.double(), weight, padding=padding)
    gradient = torch.randn(out.shape)
    (exact,) = torch.autograd.grad(out, weight, gradient.double())
    for layout in (torch.contiguous_format, torch.channels_last):
        found = winograd.weight_gradient(x.contiguous(memory_format=layout), gradient, padding, m)
        assert (found.movedim(-1, 1) - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize(("size", "channels"), [(4, 128), (9, 128), (16, 64)])
def test_a_layer_has_the_gradients_of_torch(size, channels, monkeypatch):
    layer, results = Convolution(2, channels, channels), []
    x = torch.randn(2, channels, size, size, requires_grad=True)
    for on in (False, True):
        monkeypatch.setattr(winograd, "is_known_to_pay", lambda on=on: on)
        out = layer(x).sin()
        assert type(layer(x).grad_fn).__name__.startswith("Convolve") is on
        first = torch.autograd.grad(out.sum(), (x, layer.weight, layer.bias), create_graph=True)
        results.append((out, *first, *torch.autograd.grad(first[0].square().sum(), layer.weight)))
    for theirs, ours in zip(*results, strict=True):
        assert (ours - theirs).abs().max() <= 2e-5 * theirs.abs().max()


def test_it_is_used_where_it_is_known_to_pay(monkeypatch):
    """On AVX2, for gradients of wide layers in float32; never where nothing is learnt, in other types, or under autocast."""
    x, weight = torch.randn(1, 64, 16, 16), torch.randn(64, 3, 3, 64, requires_grad=True)
    for capability, limit, pays in (
        ("AVX2", "", True),
        ("AVX512", "", False),
        ("AVX512", "avx2", True),
        ("SVE256", "", False),
    ):
        winograd.is_known_to_pay.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
            patch.setenv("ONEDNN_MAX_CPU_ISA", limit)
            assert winograd.applies(x, weight) is pays
    winograd.is_known_to_pay.cache_clear()
    monkeypatch.setattr(winograd, "is_known_to_pay", lambda: True)
    narrow, long = torch.randn(32, 3, 3, 64, requires_grad=True), torch.randn(64, 5, 5, 64, requires_grad=True)
    small, wide = torch.randn(1, 128, 8, 8), torch.randn(128, 3, 3, 128, requires_grad=True)
    assert winograd.applies(small, wide) and not winograd.applies(x[..., :8], weight)
    assert not winograd.applies(x, narrow) and not winograd.applies(x, long)
    assert not winograd.applies(x, weight.detach()) and not winograd.applies(x.double(), weight)
    with torch.no_grad():
        assert not winograd.applies(x, weight)
    with torch.autocast("cpu", torch.bfloat16):
        assert not winograd.applies(x, weight)
    assert [winograd.tile(torch.Size(grid)) for grid in ((7, 64), (8, 64), (16, 16))] == [0, 2, 4]
