"""The magnitude-preserving network: any grid, weights of unit magnitude in training, classes that count."""

from __future__ import annotations

import pytest
import torch

from scorefield.nn import MagnitudeUNet

SHAPE = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "head": 8}
SMALL = {"in_channels": 1, "out_channels": 1, **SHAPE}


def awake(**more: object) -> MagnitudeUNet:
    """With gains that are not 0, so that every part counts."""
    torch.manual_seed(0)
    net = MagnitudeUNet(**SMALL, **more)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.endswith("gain"):
                weight.fill_(1.0)
    return net


@pytest.mark.parametrize("grid", [(7,), (5, 6), (3, 4, 5)])
def test_any_grid_keeps_its_size_and_about_its_magnitude(grid: tuple[int, ...]) -> None:
    x = torch.randn(4, 1, *grid, generator=torch.Generator().manual_seed(1))
    found = awake(spatial=len(grid)).eval()(x, torch.zeros(4))
    assert found.shape == x.shape and 0.2 < float(found.std()) < 5


def test_training_keeps_weights_at_unit_magnitude_and_evaluating_leaves_them() -> None:
    net, x = awake(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(3)
    before = net.first.weight.clone()
    net.eval()(x, torch.zeros(2))
    assert torch.equal(net.first.weight, before)
    net.train()(x, torch.zeros(2)).square().mean().backward()
    size = net.first.weight.flatten(1).square().mean(1).sqrt()
    torch.testing.assert_close(size, torch.ones_like(size), rtol=1e-3, atol=0)
    assert all(weight.grad is not None for weight in net.parameters())


def test_each_class_counts_and_minus_one_is_none() -> None:
    net, x = awake(labels=3).eval(), torch.randn(4, 1, 8, 8)
    x = x[:1].expand(4, -1, -1, -1)
    found = net(x, torch.zeros(4), {"label": torch.tensor([0, 1, 2, -1])})
    assert min(float((found[i] - found[j]).abs().max()) for i in range(4) for j in range(i)) > 1e-3
    torch.testing.assert_close(found[3:], net(x[:1], torch.zeros(1)))
