"""The plain U-Net: any rank, size and number of channels, heeding noise and condition, and quick to learn to denoise."""

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.nn import UNet


def outputs_of(net, *arguments):
    with torch.no_grad():
        for parameter in net.parameters():  # its last layer starts at 0
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        return net(*arguments)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize("grid", [(13,), (9, 14), (8, 8), (5, 4, 7)])
def test_fields_keep_their_size(grid, patch):
    net = UNet(2, 3, spatial=len(grid), channels=4, multipliers=(1, 2, 2), patch=patch)
    y = outputs_of(net, torch.randn(2, 2, *grid), torch.tensor([0.1, 0.7]))
    assert y.shape == (2, 3, *grid) and y.isfinite().all() and y.std() > 0


def test_it_sees_the_noise_the_condition_and_each_sample_by_itself():
    net = UNet(1, 1, cond_channels=2, channels=4, multipliers=(1, 2))
    x, label = torch.randn(2, 1, 8, 8), torch.tensor([-1.0, 0.5])
    cond = {"field": torch.randn(2, 2, 8, 8)}
    y = outputs_of(net, x, label, cond)
    with torch.no_grad():
        assert not torch.allclose(net(x, label + 0.3, cond), y)
        assert not torch.allclose(net(x, label, {"field": cond["field"] + 1}), y)
        torch.testing.assert_close(net(x[1:], label[1:], {"field": cond["field"][1:]}), y[1:])


@pytest.mark.parametrize(("patch", "multipliers"), [(1, (1, 2, 2)), (4, (1, 2))])
def test_a_grid_that_does_not_halve_is_filled_up_with_zeros(patch, multipliers):
    net = UNet(1, 1, channels=4, multipliers=multipliers, patch=patch)
    x = torch.zeros(1, 1, 8, 8)
    x[..., :7, :6] = torch.randn(1, 1, 7, 6)
    whole = outputs_of(net, x, torch.zeros(1))
    with torch.no_grad():
        torch.testing.assert_close(net(x[..., :7, :6], torch.zeros(1)), whole[..., :7, :6])


def test_patches_are_put_back_where_they_were():
    """Without anything else, a first and a last convolution that only copy leave every point in its place."""
    net = UNet(1, 1, channels=4, multipliers=(1,), patch=2)
    with torch.no_grad():
        for convolution in (net.first, net.last):
            convolution.weight.zero_()
            convolution.weight[:, 1, 1] = torch.eye(4)
        net.down[0][0].second.weight.zero_()
        x = torch.randn(2, 1, 6, 7)
        torch.testing.assert_close(net(x, torch.zeros(2)), x)


def test_weak_noise_survives_low_precision():
    """In bfloat16 1 + 0.002 is 1: what the network sees of such noise must not be lost before its first layer."""
    net = UNet(1, 1, channels=8, multipliers=(1,))
    clean, noise = torch.ones(1, 1, 16, 16), 0.002 * torch.randn(1, 1, 16, 16)
    seen = []
    net.down[0][0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].detach().float()))
    with torch.autocast("cpu", torch.bfloat16):
        net(clean, torch.zeros(1)), net(clean + noise, torch.zeros(1))
    torch.testing.assert_close(
        seen[1] - seen[0],
        torch.nn.functional.conv2d(noise, net.first.weight.movedim(-1, 1), padding=1),
        atol=1e-4,
        rtol=1e-2,
    )


def test_numbers_that_no_network_has_are_refused():
    for arguments in ({"in_channels": 0}, {"multipliers": ()}, {"blocks": 0}, {"spatial": 4}, {"patch": 0}):
        with pytest.raises(InputError):
            UNet(**{"in_channels": 1, "out_channels": 1, **arguments})
