"""What is dropped of a sample is a function of its own key, and as random as it has to be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scorefield.foundation.random import odd_numbers
from scorefield.nn import Encoder, NCSNpp
from scorefield.nn.dropout import Dropout, keyed_dropout, keyed_layers

CPU = torch.device("cpu")


def keys(n: int, epoch: int = 0) -> Tensor:
    return torch.stack((torch.arange(n), torch.full((n,), epoch)), dim=1)


def dropped(layers: nn.Module, key: Tensor, shape: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Where each layer drops."""
    layers.train()
    with keyed_dropout(keyed_layers(layers), seed, key, CPU):
        return [layer(torch.ones(len(key), *shape)) == 0 for layer in layers.modules() if isinstance(layer, Dropout)]


@pytest.mark.parametrize("shape", [(4, 40, 9, 11), (3, 5, 7), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_mean_stays_and_the_gradient_is_that_of_what_is_left(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer = Dropout(0.25)
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    with keyed_dropout(keyed_layers(layer), 0, keys(shape[0]), CPU):
        out = layer(x)
        out.sum().backward()
    assert out.dtype == dtype and set(out.unique().tolist()) == {0.0, torch.tensor(1 / 0.75, dtype=dtype).item()}
    assert abs((out == 0).float().mean() - 0.25) < 3 * (0.25 * 0.75 / x.numel()) ** 0.5
    assert torch.equal(x.grad, out)


def test_a_sample_is_dropped_alike_in_every_batch_and_layout() -> None:
    layers = nn.Sequential(Dropout(0.3), Dropout(0.3))
    whole = dropped(layers, keys(6), (8, 5, 7))
    for mask, alone in zip(whole, dropped(layers, keys(6)[3:4], (8, 5, 7)), strict=True):
        assert torch.equal(mask[3:4], alone)
    x = torch.randn(6, 8, 5, 7)
    with keyed_dropout(keyed_layers(layers), 0, keys(6), CPU):
        assert torch.equal(layers(x), layers(x.contiguous(memory_format=torch.channels_last)))


def test_layers_samples_epochs_and_seeds_drop_independently() -> None:
    """The correlation of any two is that of 10⁵ fair draws: below 5/√10⁵."""
    layers, shape = nn.Sequential(Dropout(0.5), Dropout(0.5)), (100, 1000)
    masks = [mask for drawn in (dropped(layers, keys(2), shape),) for layer in drawn for mask in layer]
    masks += [dropped(layers, keys(1, epoch=1), shape)[0][0], dropped(layers, keys(1), shape, seed=1)[0][0]]
    signs = torch.stack([1 - 2 * mask.float().flatten() for mask in masks])
    products = (signs @ signs.T / signs.shape[1]).fill_diagonal_(0)
    assert products.abs().max() < 5 / signs.shape[1] ** 0.5
    shifted = (signs[:, 1:] * signs[:, :-1]).mean(1)  # and of neighbouring values
    assert shifted.abs().max() < 5 / signs.shape[1] ** 0.5


def test_a_value_is_dropped_as_often_as_told_over_many_samples() -> None:
    """Over the samples of an epoch, too, each value has its chance, and two of them drop together by chance alone."""
    (mask,) = dropped(Dropout(0.1), keys(4000), (50,))
    rates = mask.float().mean(0)
    assert (rates - 0.1).abs().max() < 5 * (0.09 / 4000) ** 0.5
    centred = (mask.float() - 0.1) / 0.3
    together = (centred.T @ centred / 4000).fill_diagonal_(0)
    assert together.abs().max() < 5 / 4000**0.5


def test_it_is_torchs_own_without_keys_and_nothing_in_evaluation() -> None:
    layer, x = Dropout(0.2), torch.randn(3, 4, 5)
    torch.manual_seed(0)
    first = layer(x)
    torch.manual_seed(0)
    assert torch.equal(first, nn.functional.dropout(x, 0.2)) and not torch.equal(layer(x), first)
    with keyed_dropout(keyed_layers(layer), 0, keys(3), CPU):
        pass
    assert layer.factors is None
    layer.eval()
    with keyed_dropout(keyed_layers(layer), 0, keys(3), CPU):
        assert layer(x) is x


def test_odd_numbers_are_spread_over_all_of_their_range() -> None:
    drawn = odd_numbers(2**63 - 1, keys(5000), 4)
    assert drawn.dtype == torch.int32 and drawn.shape == (4, 5000) and bool((drawn % 2 != 0).all())
    assert len(drawn.unique()) > 19_990
    assert abs(drawn.double().mean()) < 5 * 2**31 / 3**0.5 / 20_000**0.5


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    small = {"channels": 8, "blocks": 1, "attention": (1,), "multipliers": (1, 2), "dropout": 0.1}
    return {
        "ncsnpp": NCSNpp(1, 1, **small, init_scale=1.0),
        "recomputed": NCSNpp(1, 1, **small, init_scale=1.0, gradient_checkpointing=True),
        "line": NCSNpp(1, 1, **small, init_scale=1.0, spatial=1),
        "encoder": Encoder(1, 10, **small),
    }


@pytest.mark.parametrize("name", networks())
def test_the_gradient_of_a_batch_is_the_sum_of_those_of_its_parts(name: str) -> None:
    """In float64, where nothing but the zeros could make a difference."""
    net = networks()[name].double().train()
    grid = (8,) if name == "line" else (8, 8)
    generator = torch.Generator().manual_seed(0)
    x, label = torch.randn(6, 1, *grid, generator=generator).double(), torch.rand(6, generator=generator).double()

    def gradients(parts: list[slice]) -> list[Tensor]:
        net.zero_grad()
        for part in parts:
            with keyed_dropout(keyed_layers(net), 3, keys(6)[part], CPU):
                net(x[part], label[part]).square().sum().backward()
        return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]

    whole, parts = gradients([slice(0, 6)]), gradients([slice(0, 1), slice(1, 4), slice(4, 6)])
    assert len(whole) > 10
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)
    net.eval()
    with torch.no_grad(), keyed_dropout(keyed_layers(net), 3, keys(6), CPU):
        assert torch.equal(net(x, label), net(x, label))


def test_keyed_dropout_is_one_graph(unchecked):
    """A break in every block would make many small graphs of a network, which take minutes to compile and save nothing."""
    layer = Dropout(0.5)
    layer.factors = odd_numbers(0, torch.tensor([[0, 0], [1, 0]]), 1)[0]
    x = torch.randn(2, 3, 4, 4)
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), layer(x))
