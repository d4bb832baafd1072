"""DDPM's U-Net: the published size, any grid, heads of attention, classes, and what cannot be."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from scorefield.foundation.errors import InputError
from scorefield.nn import DDPMUNet
from scorefield.nn.layers import Attention, GroupNorm

SMALL = {"widths": (8, 16), "blocks": 1, "groups": 4, "dropout": 0.0}


def awake(**more: object) -> DDPMUNet:
    """One whose last layer is not zero."""
    torch.manual_seed(0)
    net = DDPMUNet(**{"in_channels": 2, "out_channels": 2, **SMALL, **more}).eval()
    with torch.no_grad():
        for value in net.parameters():
            value.add_(0.2 * torch.randn_like(value))
    return net


def test_the_default_has_the_published_number_of_parameters() -> None:
    """35.7 million for CIFAR-10 (Ho et al. 2020, appendix B)."""
    with torch.device("meta"):
        net = DDPMUNet(3, 3)
    assert sum(value.numel() for value in net.parameters()) == 35_746_307


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("grid", [(7,), (6, 9), (3, 5, 4)])
def test_any_grid_is_one_that_ends_in_zeros(grid: tuple[int, ...], centred: bool) -> None:
    net = awake(spatial=len(grid), attention=(), attention_middle=False, head=4, centred=centred)
    x, label = torch.randn(2, 2, *grid), torch.tensor([3.0, 400.0])
    whole = F.pad(x, [side for size in reversed(grid) for side in (0, -size % 2)])
    found, expected = net(x, label), net(whole, label)[(..., *(slice(size) for size in grid))]
    assert found.shape == x.shape
    torch.testing.assert_close(found, expected)


def test_attention_is_placed_by_level_on_either_way() -> None:
    net = awake(attention=(0,), attention_up=(1,), attention_middle=False)
    down = [[stage.attention is not None for stage in level.blocks] for level in net.down]
    up = [[stage.attention is not None for stage in level.blocks] for level in net.up]
    assert (down, up) == ([[True], [False]], [[True, True], [False, False]])
    assert all(stage.attention is None for stage in net.middle)


def test_heads_attend_each_to_its_channels() -> None:
    """softmax(QKᵀ/√c) V of every head by itself."""
    torch.manual_seed(0)
    layer, x = Attention(6, rescale=False, scale=1.0, heads=3, groups=2), torch.randn(2, 6, 4, 5)
    tokens = layer.norm(x).flatten(2).transpose(1, 2)
    query, key, value = layer.query_key_value(tokens).chunk(3, dim=-1)
    heads = []
    for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
        weight = (query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(2)).softmax(-1)
        heads.append(weight @ value[..., part])
    expected = x + layer.out(torch.cat(heads, dim=-1)).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), expected)


def test_epsilon_bounds_what_is_normalised() -> None:
    x = 1e-3 * torch.randn(1, 4, 8, 8)
    loose, tight = (GroupNorm(4, False, groups=2, epsilon=epsilon)(x) for epsilon in (1e-2, 1e-12))
    assert tight.std().item() == pytest.approx(1, rel=0.02) and loose.std().item() < 0.02


def test_classes_are_told_apart_and_a_jump_to_its_start_is_none() -> None:
    net, x, label = awake(labels=3, jumps=True), torch.randn(3, 2, 4, 4), torch.zeros(3)
    torch.nn.init.normal_(net.jump.out.weight)
    with torch.no_grad():
        none, null = net(x, label), net(x, label, {"label": torch.full((3,), -1)})
        first = net(x, label, {"label": torch.zeros(3, dtype=torch.long)})
        still = net(x, label, {"jump": torch.full((3, 2), 0.3)})
        jump = net(x, label, {"jump": torch.tensor([[0.3, -1.0]]).expand(3, 2)})
    assert torch.equal(none, null) and torch.equal(none, still)
    assert not torch.allclose(none, first) and not torch.allclose(none, jump)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_channels": 0}, "in_channels"),
        ({"spatial": 4}, "axes"),
        ({"groups": 3}, "3 groups"),
        ({"head": 3}, "heads"),
        ({"head": 64}, "heads"),
        ({"attention_up": (2,)}, "levels 0 to 1"),
        ({"widths": ()}, "channels"),
        ({"widths": (8, 0)}, "channels"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": 1.0}, "dropout"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        awake(**arguments)
