"""Maps of the grid that a network learns: they are parameters like others, and belong to one grid."""

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.nn import LearnedPositionMaps, NCSNpp
from scorefield.training.ema import EMA


def located(cond: int = 2, maps: int = 3) -> LearnedPositionMaps:
    net = NCSNpp(1, 1, cond + maps, channels=8, multipliers=(1, 2), blocks=1, attention=(), init_scale=1.0)
    return LearnedPositionMaps(net, maps, (8, 6))


def test_maps_are_trained_clipped_averaged_and_stored() -> None:
    net = located()
    assert net.cond_channels == 2 and "maps" in net.state_dict()
    cond = {"field": torch.randn(4, 2, 8, 6)}
    average = EMA(net, 0.5)
    optimiser = torch.optim.SGD(net.parameters(), lr=1.0)
    net(torch.randn(4, 1, 8, 6), torch.rand(4), cond).square().sum().backward()
    assert net.maps.grad is not None and bool((net.maps.grad != 0).all())
    total = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e-2)
    assert float(total) > 1e-2 and float(net.maps.grad.norm()) < 1e-2
    optimiser.step()
    average.update(0)
    assert "maps" in average.average and float(average.average["maps"].abs().sum()) > 0


def test_the_same_field_is_another_at_another_place() -> None:
    net = located(cond=0).eval()
    x = torch.zeros(1, 1, 8, 6)
    before = net(x, torch.zeros(1))
    with torch.no_grad():
        net.maps[0, 2, 3] += 1
    assert not torch.allclose(before, net(x, torch.zeros(1)))


def test_another_grid_and_too_few_channels_are_refused() -> None:
    with pytest.raises(InputError, match=r"grid of \(8, 6\) and is given \(8, 8\)"):
        located()(torch.zeros(1, 1, 8, 8), torch.zeros(1), {"field": torch.zeros(1, 2, 8, 8)})
    with pytest.raises(InputError, match="adds 3 maps to a network that takes 1"):
        LearnedPositionMaps(NCSNpp(1, 1, 1, channels=8, multipliers=(1,), blocks=1, attention=()), 3, (4, 4))
    with pytest.raises(InputError, match="sizes of the grid"):
        LearnedPositionMaps(NCSNpp(1, 1, 1, channels=8, multipliers=(1,), blocks=1, attention=()))
