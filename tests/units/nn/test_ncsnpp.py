"""What every network of this family obeys, whatever its switches."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from often import each, seldom
from scorefield.foundation.errors import InputError
from scorefield.losses import Hutchinson
from scorefield.nn.layers import Attention, Convolution, GroupNorm, attend, initialise_
from scorefield.nn.ncsnpp import NCSNpp
from scorefield.nn.resample import gather_patches, spread_patches
from scorefield.nn.wrappers import Affine

SMALL = {"in_channels": 2, "out_channels": 3, "channels": 8, "multipliers": (1, 2, 2), "blocks": 1, "dropout": 0.0}
SWITCHES = [
    {},
    {"embedding": "positional", "filter": "box", "progressive_input": "none"},
    {"progressive": "output_skip", "progressive_input": "input_skip", "combine": "cat", "blocks": 2},
    {"progressive": "output_skip", "progressive_input": "input_skip", "combine": "sum", "conditional": False},
    {"progressive": "residual", "resblock": "ddpm"},
    {"progressive": "residual", "resblock": "ddpm", "filter": "box", "attention": (), "skip_rescale": False},
    {"resblock": "ddpm", "resample_with_conv": False, "filter": "box", "progressive_input": "none"},
]


def network(**switches):
    """A small network in evaluation mode whose output depends on everything in it."""
    torch.manual_seed(0)
    net = NCSNpp(**{**SMALL, "init_scale": 1.0, **switches}).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def field(*shape, dtype=torch.float32):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


LABEL = torch.tensor([0.3, -1.2, 2.0])


def test_the_default_is_the_published_network():
    with torch.device("meta"):
        net = NCSNpp(3, 3)
    assert sum(parameter.numel() for parameter in net.parameters()) == 62_758_787


@pytest.mark.parametrize("switches", SWITCHES)
@torch.no_grad()
def test_transposed_kernels_transpose_the_output(switches):
    net = network(**switches)
    mirror = copy.deepcopy(net)
    for module in mirror.modules():
        if isinstance(module, Convolution):
            module.weight.copy_(module.weight.transpose(1, 2).clone())
    x = field(3, 2, 8, 16)
    torch.testing.assert_close(mirror(x.mT, LABEL).mT, net(x, LABEL), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switches", SWITCHES)
@torch.no_grad()
def test_samples_do_not_see_each_other(switches):
    net = network(**switches)
    x = field(3, 2, 8, 8)
    together = net(x, LABEL)
    for i in range(3):
        torch.testing.assert_close(net(x[i : i + 1], LABEL[i : i + 1])[0], together[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("switches", [switch for switch in SWITCHES if switch.get("conditional", True)])
@torch.no_grad()
def test_a_label_changes_its_own_sample_alone(switches):
    net = network(**switches)
    x = field(3, 2, 8, 8)
    changed = (net(x, LABEL) - net(x, LABEL + torch.tensor([0.0, 0.5, 0.0]))).flatten(1).abs().amax(1)
    assert changed[1] > 1e-3 and changed[0] == changed[2] == 0


@pytest.mark.parametrize("grid", [(9,), (16,), (7, 10), (1, 3), (8, 4), (3, 5, 6)])
@pytest.mark.parametrize(
    "switches", [*SWITCHES, {"patch": 2, "channels": 24}, {"patch": 3, "progressive": "residual", "channels": 84}]
)
@torch.no_grad()
def test_any_grid_of_any_rank(switches, grid):
    net = network(spatial=len(grid), **switches)
    x = field(2, 2, *grid)
    out = net(x, LABEL[:2])
    assert out.shape == (2, 3, *grid)
    missing = [-size % (4 * net.patch) for size in grid]
    filled = nn.functional.pad(x, [side for extra in reversed(missing) for side in (0, extra)])
    kept = (..., *(slice(size) for size in grid))
    torch.testing.assert_close(net(filled, LABEL[:2])[kept], out)


@torch.no_grad()
def test_a_line_is_a_row_of_a_plane_whose_rows_do_not_mix():
    line, plane = network(spatial=1, multipliers=(1,), attention=()), network(multipliers=(1,), attention=())
    for name, parameter in plane.named_parameters():
        source = line.get_parameter(name)
        if parameter.ndim == 4 and parameter.shape[1] == 3:
            parameter.zero_()
            parameter[:, 1] = source
        else:
            parameter.copy_(source.reshape(parameter.shape))
    plane.embedding.frequencies.copy_(line.embedding.frequencies)
    x = field(3, 2, 9)
    torch.testing.assert_close(
        plane(x[:, :, None].expand(-1, -1, 5, -1), LABEL)[:, :, 2], line(x, LABEL), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("switches", SWITCHES)
def test_gradient_checkpointing_changes_no_gradient(switches):
    gradients = []
    for checkpointing in (False, True):
        net = network(gradient_checkpointing=checkpointing, dropout=0.3, **switches).train()
        x = field(3, 2, 8, 8).requires_grad_()
        torch.manual_seed(2)
        net(x, LABEL).square().sum().backward()
        gradients.append([x.grad] + [p.grad for p in net.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert plain is None or torch.equal(plain, checkpointed)


@pytest.mark.parametrize("switches", SWITCHES)
def test_every_parameter_gets_a_gradient(switches):
    net = network(cond_channels=1, labels=4, **switches)
    cond = {"field": field(3, 1, 8, 8), "label": torch.tensor([0, 3, 1])}
    net(field(3, 2, 8, 8), LABEL, cond).square().sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("switches", SWITCHES)
@torch.no_grad()
def test_initial_output_is_near_zero(switches):
    torch.manual_seed(0)
    net = NCSNpp(**{**SMALL, **switches}).eval()
    assert net(field(3, 2, 8, 8), LABEL).abs().max() < 1e-3


@torch.no_grad()
def test_initial_weights_have_the_variance_of_their_fans():
    torch.manual_seed(0)
    weight = torch.empty(64, 32, 3, 3)
    initialise_(weight, 0.5)
    assert abs(weight.var() / (0.5 / (48 * 9)) - 1) < 0.05
    assert abs(weight.abs().max() / math.sqrt(3 * 0.5 / (48 * 9)) - 1) < 0.01


@pytest.mark.parametrize("size", [8, seldom(32)])
def test_low_precision_is_close(size):
    net, results = network(channels=32, multipliers=(1, 2), blocks=2), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = net(field(3, 2, size, size), LABEL)
        gradient = torch.autograd.grad(out.square().sum(), net.parameters())
        results.append((out, torch.cat([part.flatten() for part in gradient])))
    for exact, rounded in zip(*results, strict=True):
        assert rounded.dtype == torch.float32
        assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("switches", each(SWITCHES, 3))
def test_second_derivatives(switches):
    net = network(**{**switches, "multipliers": (1, 1), "attention": (0,)}).double()
    x, label = field(1, 2, 2, 4, dtype=torch.float64).requires_grad_(), LABEL[:1].double()
    assert torch.autograd.gradcheck(lambda x: net(x, label), x, fast_mode=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda x: net(x, label), x, fast_mode=True, atol=1e-4)


TOKENS = torch.randn(3, 2, 40, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def attention(tokens):
    """Its definition."""
    query, key, value = tokens
    return (query @ key.mT / math.sqrt(query.shape[2])).softmax(dim=-1) @ value


def test_attention_is_its_definition_with_every_derivative():
    """In reverse mode, by itself and mapped over; in forward mode and twice where the kernel is one that has these."""
    run, defined = (lambda tokens: attend(*tokens)), attention
    torch.testing.assert_close(run(TOKENS), defined(TOKENS))
    torch.testing.assert_close(run(TOKENS.float()), defined(TOKENS).float())

    def gradients(function):
        gradient = torch.func.grad(lambda tokens: function(tokens).sin().sum())
        each = torch.func.vmap(lambda tokens: gradient(tokens[:, None]), in_dims=1, out_dims=1)
        return gradient(TOKENS), each(TOKENS)[:, :, 0], torch.func.jacrev(function)(TOKENS[:, :1, :5])

    def further(function):
        gradient = torch.func.grad(lambda tokens: function(tokens).sin().sum())
        turned = torch.func.vjp(gradient, TOKENS)[1](TOKENS.flip(2))
        return torch.func.jvp(function, (TOKENS,), (TOKENS.flip(2),))[1], *turned

    torch.testing.assert_close(gradients(run), gradients(defined))
    with sdpa_kernel(SDPBackend.MATH):
        torch.testing.assert_close(further(run), further(defined))


def test_a_divergence_through_attention_can_be_minimised():
    """Its gradient by the weights is the limit of differences, whatever kernels torch chooses by default."""
    net = network(multipliers=(1, 1), attention=(0,), out_channels=2).double()
    y, z = (field(1, 2, 2, 4, dtype=torch.float64).roll(shift, -1) for shift in (0, 1))
    weight = next(layer for layer in net.modules() if isinstance(layer, Attention)).query_key_value.weight

    def divergence():
        return Hutchinson()(lambda x: net(x, LABEL[:1].double()), y, z, torch.ones(1))[1].sum()

    (slope,) = torch.autograd.grad(divergence(), weight)
    direction, step = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), 1e-4
    with torch.no_grad():
        weight += step * direction
        above = divergence()
        weight -= 2 * step * direction
        below = divergence()
    torch.testing.assert_close((slope * direction).sum(), (above - below) / (2 * step), rtol=1e-5, atol=0)


@torch.no_grad()
def test_conditions_are_seen():
    net = network(cond_channels=1, labels=4)
    x, cond = field(3, 2, 8, 8), {"field": field(3, 1, 8, 8), "label": torch.tensor([0, 3, 1])}
    out = net(x, LABEL, cond)
    for name, other in (("field", cond["field"] + 1), ("label", torch.tensor([0, 2, 1]))):
        changed = (net(x, LABEL, {**cond, name: other}) - out).flatten(1).abs().amax(1)
        assert changed[1] > 1e-3 and (name == "field" or changed[0] == changed[2] == 0)


@torch.no_grad()
def test_affine_maps_its_input():
    net, x = network(), field(3, 2, 8, 8)
    assert torch.equal(Affine(net)(x, LABEL), net(2 * x - 1, LABEL))


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (64, 16), (48, 12), (2, 1), (144, 24), (20, 5)])
def test_groups_divide_the_channels(channels, groups):
    assert GroupNorm(channels).groups == groups


@pytest.mark.parametrize("wrong", [{"in_channels": 0}, {"spatial": 4}, {"attention": (3,)}])
def test_contradictions_are_refused(wrong):
    with pytest.raises(InputError):
        NCSNpp(**{**SMALL, **wrong})


@torch.no_grad()
def test_all_in_low_precision():
    net = network(channels=32, multipliers=(1, 2), embedding="positional")  # Fourier phases need their digits
    exact = net(field(3, 2, 8, 8), LABEL)
    rounded = net.bfloat16()(field(3, 2, 8, 8).bfloat16(), LABEL.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert (rounded - exact).norm() < 0.1 * exact.norm()


@torch.no_grad()
def test_no_class_is_a_class_of_its_own():
    net, x = network(labels=4), field(3, 2, 8, 8)
    null = net(x, LABEL, {"label": torch.tensor([-1, -1, -1])})
    assert torch.equal(net(x, LABEL), null)
    mixed = net(x, LABEL, {"label": torch.tensor([-1, 3, 0])})
    torch.testing.assert_close(mixed[0], null[0])
    assert (mixed - null)[1:].flatten(1).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_ddpm_has_32_groups_and_no_rescaled_sums():
    ddpm = {"embedding": "positional", "resblock": "ddpm", "filter": "box", "progressive_input": "none"}
    net = NCSNpp(3, 3, channels=32, multipliers=(1, 2), blocks=2, skip_rescale=False, group=1, **ddpm)
    assert {module.groups for module in net.modules() if isinstance(module, GroupNorm)} == {32}
    assert net(field(2, 3, 8, 8), torch.tensor([0.0, 999.0])).shape == (2, 3, 8, 8)


@torch.no_grad()
def test_a_network_of_patches_is_the_network_of_their_values():
    """In 2-D against torch's own pixel shuffle, with the weights of one network in the other."""
    patched = network(patch=2, channels=16)
    inner = network(in_channels=8, out_channels=12, channels=16)
    inner.load_state_dict(patched.state_dict())
    x = field(3, 2, 16, 24)
    expected = nn.functional.pixel_shuffle(inner(nn.functional.pixel_unshuffle(x, 2), LABEL), 2)
    torch.testing.assert_close(patched(x, LABEL), expected)


@pytest.mark.parametrize("grid", [(12,), (6, 9), (3, 6, 12)])
def test_patches_come_back_as_they_went(grid):
    x = field(2, 5, *grid)
    values = gather_patches(x, 3)
    assert values.shape == (2, 5 * 3 ** len(grid), *(size // 3 for size in grid))
    assert torch.equal(spread_patches(values, 3), x)
    first = (slice(None), slice(None), *(slice(3) for _ in grid))
    assert torch.equal(values[(slice(None), slice(None), *(0 for _ in grid))], x[first].flatten(1))


def test_a_first_level_too_narrow_for_its_patches_is_refused():
    """A patch of 4 × 4 points in 3 colours has 48 values: what 32 channels cannot carry would stay noise."""
    with pytest.raises(InputError, match=r"48 values.*channels=32.*channels >= 48"):
        NCSNpp(3, 3, channels=32, multipliers=(1, 2), patch=4)
    assert NCSNpp(3, 3, channels=48, multipliers=(1, 2), patch=4).patch == 4


def test_a_single_sample_on_a_single_point_is_normalised_in_training() -> None:
    """As in the trial of precisions on a small grid whose coarsest level is one point."""
    norm = GroupNorm(4, activate=False, group=1).train()
    norm.bias.data = torch.arange(4.0)
    assert torch.equal(norm(torch.randn(1, 4, 1, 1)), torch.arange(4.0).reshape(1, 4, 1, 1))
