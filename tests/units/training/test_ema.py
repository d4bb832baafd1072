"""The average of the weights."""

from __future__ import annotations

import torch
from torch import nn

from scorefield.training.ema import EMA


def test_it_covers_every_parameter_by_name_and_is_the_weighted_sum() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    ema = EMA(module, decay=0.9)
    assert ema.average.keys() == dict(module.named_parameters()).keys()
    expected = {name: parameter.detach().double().clone() for name, parameter in module.named_parameters()}
    for step in range(300):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, average in ema.average.items():
        torch.testing.assert_close(average.double(), expected[name], rtol=1e-5, atol=1e-5)


def test_applying_it_changes_nothing_afterwards() -> None:
    module = nn.Linear(2, 3)
    ema = EMA(module, decay=0.5)
    with torch.no_grad():
        module.weight.add_(1)
    before, average = module.weight.clone(), ema.average["weight"].clone()
    with ema.applied():
        assert torch.equal(module.weight, average)
    assert torch.equal(module.weight, before) and torch.equal(ema.average["weight"], average)


def test_no_decay_keeps_the_weights_themselves() -> None:
    module = nn.Linear(2, 3)
    ema = EMA(module, decay=0.0)
    with torch.no_grad():
        module.weight.add_(1)
    ema.update(0)
    assert torch.equal(ema.average["weight"], module.weight)
