"""What NCSN and NCSNv2 obey, in every depth, and that they learn."""

import pytest
import torch
from torch import nn

from often import seldom
from scorefield.core.denoiser import Denoiser, Index, ScorePrediction
from scorefield.core.schedule import geometric
from scorefield.core.sde import SDE
from scorefield.data import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import Denoising
from scorefield.losses.times import UniformLevels
from scorefield.nn import NCSN, NCSNv2
from scorefield.nn.refine import InstanceNormPlus

KINDS = [(NCSNv2, depth) for depth in ("low", "medium", "large")] + [(NCSN, "low"), (NCSN, "medium")]
LABEL = torch.tensor([0.0, 2.0, 1.5])


def network(kind, depth="low", **given):
    torch.manual_seed(0)
    arguments = {"in_channels": 2, "out_channels": 3, "channels": 4, "depth": depth, **given}
    net = kind(**(arguments | ({"levels": 5} if kind is NCSN else {}))).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def field(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("kind", "depth"), KINDS)
@torch.no_grad()
def test_samples_do_not_see_each_other(kind, depth):
    net, x = network(kind, depth), field(3, 2, 16, 16)
    together = net(x, LABEL)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], LABEL[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("grid", [(9,), (16,), (7, 10), (1, 3), (8, 4), (3, 5, 6)])
@pytest.mark.parametrize(("kind", "depth"), KINDS)
@torch.no_grad()
def test_any_grid_of_any_rank(kind, depth, grid):
    net, x = network(kind, depth, spatial=len(grid)), field(2, 2, *grid)
    out = net(x, LABEL[:2])
    assert out.shape == (2, 3, *grid)
    missing = [-size % 2 ** {"low": 1, "medium": 2, "large": 3}[depth] for size in grid]
    filled = nn.functional.pad(x, [side for extra in reversed(missing) for side in (0, extra)])
    torch.testing.assert_close(net(filled, LABEL[:2])[(..., *(slice(size) for size in grid))], out)


@pytest.mark.parametrize(("kind", "depth"), KINDS)
def test_every_parameter_gets_a_gradient(kind, depth):
    net = network(kind, depth, cond_channels=1)
    net(field(3, 2, 16, 16), LABEL, {"field": field(3, 1, 16, 16)}).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@torch.no_grad()
def test_ncsn_sees_the_level_of_each_sample_and_ncsnv2_sees_none():
    x, other = field(3, 2, 8, 8), LABEL + torch.tensor([0.0, 0.5, 0.0])
    net = network(NCSN)
    changed = (net(x, LABEL) - net(x, other)).flatten(1).abs().amax(1)
    assert changed[1] > 1e-3 and changed[0] == changed[2] == 0
    net = network(NCSNv2)
    assert torch.equal(net(x, LABEL), net(x, other))


@torch.no_grad()
def test_normalisation_keeps_the_differences_of_the_channels_means():
    torch.manual_seed(0)
    norm = InstanceNormPlus(6)
    norm.table.copy_(torch.tensor([1.0, 1.0, 0.0]).reshape(1, 3, 1).expand(1, 3, 6))
    x = 3 * field(4, 6, 40, 40) + torch.arange(6.0).reshape(1, 6, 1, 1)
    y = norm(x, torch.zeros(4))
    means = x.mean((2, 3))
    centred = (means - means.mean(1, keepdim=True)) / means.std(1, keepdim=True)
    torch.testing.assert_close(y.mean((2, 3)), centred, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(y.std((2, 3), correction=0), torch.ones(4, 6), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm(5 * x, torch.zeros(4)), y, rtol=1e-3, atol=1e-3)  # blind to the scale


@torch.no_grad()
def test_between_two_levels_the_normalisation_is_their_mixture():
    torch.manual_seed(0)
    norm, x = InstanceNormPlus(3, levels=4), field(1, 3, 5, 5)
    norm.table.normal_()
    norm.table[:, 1] = 0.5  # γ α is a product: linear in the label for one of them alone
    at = {position: norm(x, torch.tensor([position])) for position in (-1.0, 0.0, 1.0, 1.25, 2.0, 3.0, 7.0)}
    torch.testing.assert_close(at[1.25], 0.75 * at[1.0] + 0.25 * at[2.0])
    assert torch.equal(at[-1.0], at[0.0]) and torch.equal(at[7.0], at[3.0])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", [NCSNv2, seldom(NCSN)])
def test_training_lowers_the_loss(kind):
    torch.manual_seed(0)
    levels, n = 8, 32
    schedule = geometric(0.05, 5.0, levels)
    given = {"levels": levels} if kind is NCSN else {}
    precondition = ScorePrediction(Index(levels, reverse=True))
    denoiser = Denoiser(kind(1, 1, channels=8, **given), SDE(schedule), precondition)
    loss = Denoising(UniformLevels(levels))
    phase = torch.rand(n, generator=torch.Generator().manual_seed(0))[:, None, None]
    wave = torch.sin(6.28 * (torch.arange(12) / 6 + phase)).expand(n, 12, 12)[:, None]

    def measure(step):
        return loss(denoiser, Batch(wave), generator=Generators((step, i) for i in range(n))).mean()

    optimiser = torch.optim.Adam(denoiser.parameters(), lr=2e-3)
    with torch.no_grad():
        before = measure(0)
    for step in range(1, 31):
        optimiser.zero_grad()
        measure(step).backward()
        optimiser.step()
    with torch.no_grad():
        after = measure(0)
    assert after < 0.7 * before and after < 0.7  # F = 0 has the loss 1


@pytest.mark.parametrize("kind", [NCSNv2, NCSN])
@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"spatial": 4}, {"channels": 1}])
def test_contradictions_are_refused(kind, wrong):
    with pytest.raises(InputError):
        kind(**{"in_channels": 2, "out_channels": 2, "channels": 4, **wrong})
