"""Neural operators are functions of functions: of the grid they see only what it can carry."""

from __future__ import annotations

import importlib.metadata
import math
import sys
from collections.abc import Callable

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import resample
from scorefield.nn import FNO, UNO, Network
from scorefield.nn.spectral import SpectralConvolution

pytest.importorskip("neuralop")
RELEASE = importlib.metadata.version("neuraloperator")
upstream = pytest.mark.skipif(RELEASE != "2.0.0", reason=f"says what release 2.0.0 does, and this is {RELEASE}")
LABEL = torch.tensor([0.1, -0.7])


def waves(grid: tuple[int, ...], highest: int = 3, seed: int = 0, n: int = 2) -> torch.Tensor:
    """The same n functions on any grid: all modes |k| <= highest, random amplitudes and phases."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.meshgrid(*(torch.arange(size) / size for size in grid), indexing="ij")
    x = torch.zeros(n, 1, *grid)
    for k in torch.cartesian_prod(*(torch.arange(-highest, highest + 1),) * len(grid)).reshape(-1, len(grid)):
        phase = 2 * math.pi * sum(number * axis for number, axis in zip(k, axes, strict=True))
        for sample in range(n):
            a, b = torch.randn(2, generator=generator)
            x[sample, 0] += (a * phase.cos() + b * phase.sin()) / (2 * highest + 1) ** (len(grid) / 2)
    return x


def awake(net: Network) -> Network:
    """With modulations that are not zero any more, as after training."""
    torch.manual_seed(0)
    for name, parameter in net.named_parameters():
        if "modulate" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=["fno", "uno"])
def net(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    return awake(FNO(1, 1, channels=12, modes=32) if request.param == "fno" else UNO(1, 1, channels=8, modes=32))


# ------------------------------------------------------------------------------------------------------- networks
def test_a_band_limited_function_gives_the_same_on_every_grid(net: Network) -> None:
    """Within 1 % of its standard deviation at common points; fractions of the grid as levels would make it 57 % and more."""
    coarse = net(waves((32, 32)), LABEL)
    for n in (64, 128):
        fine = net(waves((n, n)), LABEL)[..., :: n // 32, :: n // 32]
        assert float((fine - coarse).abs().max() / coarse.std()) < 0.01


@pytest.mark.parametrize(
    "make", [lambda **how: FNO(1, 1, channels=12, **how), lambda **how: UNO(1, 1, channels=8, **how)]
)
def test_coordinates_are_those_of_the_centres_of_cells(make: Callable[..., Network]) -> None:
    """As of all data here, so that a padded network with coordinates, too, gives the same at common centres, those of every third
    cell: within 2 %, for padding cuts the waves and the cut is no band-limited function. Of corners it would be 4 % (FNO)."""
    torch.manual_seed(0)
    net = awake(make(modes=32, padding=0.25, coordinates=True))
    coarse, fine = (net(waves((2 * n, 2 * n))[..., 1::2, 1::2], LABEL) for n in (64, 192))
    assert float((fine[..., 1::3, 1::3] - coarse).abs().max() / coarse.std()) < 0.02


def test_levels_that_are_fractions_of_the_grid_make_another_operator() -> None:
    """What the absolute sizes are for: the same weights, with the modes and sizes of the inner levels scaled by the grid."""
    torch.manual_seed(0)
    net = awake(UNO(1, 1, channels=8, modes=32, sizes=(6, 4)))
    coarse = net(waves((32, 32)), LABEL)
    net.sizes = [[2 * n for n in size] for size in net.sizes]
    relative = net(waves((64, 64)), LABEL)[..., ::2, ::2]
    assert float((relative - coarse).abs().max() / coarse.std()) > 0.1


def test_a_shift_of_the_input_shifts_the_output(net: Network) -> None:
    """By whole points of the grid and of the inner ones, of 24 and 16."""
    x = waves((32, 32))
    shifted = net(x.roll((4, 8), (-2, -1)), LABEL)
    torch.testing.assert_close(shifted, net(x, LABEL).roll((4, 8), (-2, -1)), rtol=0, atol=1e-3 * float(shifted.std()))


@pytest.mark.parametrize("grid", [(20, 37), (33, 32), (9, 64), (7, 7)])
def test_any_size_goes_in_and_comes_out(net: Network, grid: tuple[int, int]) -> None:
    y = net(torch.randn(2, 1, *grid), LABEL)
    assert y.shape == (2, 1, *grid) and bool(torch.isfinite(y).all())


def test_every_sample_has_its_own_noise_level(net: Network) -> None:
    x = waves((32, 32))
    together = net(x, LABEL)
    alone = torch.cat([net(x[i : i + 1], LABEL[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert float((net(x, LABEL.flip(0)) - together).abs().max()) > 1e-3 * float(together.std())


@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize("kind", [FNO, UNO])
def test_one_and_three_dimensions(kind: type, spatial: int) -> None:
    torch.manual_seed(0)
    sizes = {"sizes": (6,)} if kind is UNO else {}
    small = awake(kind(1, 1, spatial=spatial, channels=8, modes=8, **sizes))
    coarse, fine = (small(waves((n,) * spatial, highest=1), LABEL) for n in (12, 24))
    common = fine[(..., *(slice(None, None, 2),) * spatial)]
    assert float((common - coarse).abs().max() / coarse.std()) < 0.03  # 12 points alias more of what GELU makes
    assert small(torch.randn(2, 1, *(9, 5, 4)[:spatial]), LABEL).shape == (2, 1, *(9, 5, 4)[:spatial])


@pytest.mark.parametrize("factorisation", ["tucker", "cp", "tt"])
def test_factorised_weights_are_fewer_and_save_and_load(factorisation: str) -> None:
    torch.manual_seed(0)
    dense, small = (FNO(1, 1, channels=12, modes=16, factorisation=name, rank=0.2) for name in ("dense", factorisation))
    count = [sum(p.numel() for p in each.parameters()) for each in (dense, small)]
    assert count[1] < 0.5 * count[0]
    assert all(not p.is_complex() for p in small.parameters())  # averages, optimisers and files know real numbers
    other = FNO(1, 1, channels=12, modes=16, factorisation=factorisation, rank=0.2)
    other.load_state_dict(small.state_dict(), strict=True)
    x = waves((16, 16))
    assert torch.equal(other(x, LABEL), small(x, LABEL))
    small(x, LABEL).square().sum().backward()
    missing = [name for name, p in small.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    assert [name for name in missing if "modulate" not in name and "level" not in name] == []


def test_a_fraction_of_the_modes() -> None:
    whole, part = FNO(1, 1, modes=32), FNO(1, 1, modes=32, fraction=0.5)
    assert whole.layers[0].block.convs[0].halves == [15, 15] and part.layers[0].block.convs[0].halves == [7, 7]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_spectral_part_keeps_its_digits(net: Network, dtype: torch.dtype) -> None:
    """On 20×37, for which no FFT in half precision exists."""
    x = torch.randn(2, 1, 20, 37, generator=torch.Generator().manual_seed(0))
    exact = net(x, LABEL)
    with torch.autocast("cpu", dtype=dtype):
        low = net(x, LABEL)
        convolution = SpectralConvolution(2, 2, [8, 8])
        y = torch.randn(1, 2, 20, 37)
        spectral = convolution(y)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0, atol=0.05 * float(exact.abs().max()))
    assert torch.equal(spectral, convolution(y))


# -------------------------------------------------------------------------------------- padding, coordinates, conditions
def test_a_padding_must_be_whole_points_at_every_resolution() -> None:
    padded = awake(FNO(1, 1, channels=8, modes=16, padding=0.125))
    for n in (16, 32, 40):
        assert padded(waves((n, n)), LABEL).shape[2:] == (n, n)
    with pytest.raises(
        InputError, match=r"2.5 points of 20.*nearest padding is 1/10 = 0.1. With 0.125 take a multiple of 8"
    ):
        padded(waves((20, 20)), LABEL)


def test_padding_ends_the_periodicity() -> None:
    """With it the two ends of the domain are no neighbours: shifting the input does not simply shift the output."""
    plain, padded = (awake(FNO(1, 1, channels=8, modes=16, padding=p)) for p in (0.0, 0.25))
    x = waves((16, 16))
    for network, periodic in ((plain, True), (padded, False)):
        same = torch.allclose(network(x.roll(5, -1), LABEL), network(x, LABEL).roll(5, -1), rtol=0, atol=1e-4)
        assert same is periodic


def test_coordinates_tell_where() -> None:
    net = awake(FNO(1, 1, channels=8, modes=16, coordinates=True))
    constant = torch.ones(2, 1, 16, 16)
    assert float(net(constant, LABEL).std((2, 3)).min()) > 1e-3
    assert float(awake(FNO(1, 1, channels=8, modes=16))(constant, LABEL).std((2, 3)).max()) < 1e-5


@pytest.mark.parametrize("kind", [FNO, UNO])
def test_a_field_to_be_conditioned_on_is_heeded(kind: type) -> None:
    net = awake(kind(1, 1, cond_channels=2, channels=8, modes=24))
    x, field = waves((24, 24)), torch.randn(2, 2, 24, 24)
    assert not torch.allclose(net(x, LABEL, {"field": field}), net(x, LABEL, {"field": -field}))


def grid_coordinates(n: int, length: float) -> torch.Tensor:
    line = torch.arange(n) * length / n
    return torch.stack(torch.meshgrid(line, 2 * line, indexing="ij"))[None]


def test_irregular_points_and_other_domains_are_refused() -> None:
    net, x = awake(FNO(1, 1, channels=8, modes=8, domain=[1.0, 2.0])), waves((16, 16))
    expected = net(x, LABEL)
    assert torch.equal(net(x, LABEL, {"coords": grid_coordinates(16, 1.0)}), expected)
    assert net(waves((32, 32)), LABEL, {"coords": grid_coordinates(32, 1.0)}).shape[-1] == 32
    with pytest.raises(InputError, match=r"span 2 along axis 0, and the network was made for 1"):
        net(x, LABEL, {"coords": grid_coordinates(16, 2.0)})
    with pytest.raises(InputError, match="no regular grid along axis 1"):
        net(x, LABEL, {"coords": grid_coordinates(16, 1.0) ** 2 * torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1) + 0.0
                       + grid_coordinates(16, 1.0) * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1)})  # fmt: skip
    with pytest.raises(InputError, match="shape"):
        net(x, LABEL, {"coords": torch.rand(1, 2, 256)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (FNO, "no channels"),
        (UNO, "no channels"),
        (lambda: FNO(1, 1, modes=[8]), "one each"),
        (lambda: FNO(1, 1, fraction=0.0), "fraction"),
        (lambda: FNO(1, 1, layers=0), "layers >= 1"),
        (lambda: FNO(1, 1, rank=0.0), r"fraction in \(0, 1\]"),
        (lambda: UNO(1, 1, padding=-0.1), "padding"),
        (lambda: UNO(1, 1, modes=16, sizes=(24, 16)), "fall from at most 16"),
    ],
)
def test_what_makes_no_network_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "neuralop"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'scorefield\[functions\]'"):
        FNO(1, 1)


# -------------------------------------------------------------------------------------------- resampling and convolution
@pytest.mark.parametrize("old", [(8, 9), (7, 12)])
@pytest.mark.parametrize("new", [(16, 10), (9, 31)])
def test_resampling_evaluates_the_function_on_another_grid(old: tuple[int, int], new: tuple[int, int]) -> None:
    torch.testing.assert_close(resample(waves(old), new), waves(new), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [8, 9])
def test_up_and_down_again_is_the_identity(n: int) -> None:
    """For what holds the last mode of an even grid too."""
    x = torch.randn(2, 3, n, n + 1, dtype=torch.float64)
    for size in ((16, 17), (13, 30)):
        torch.testing.assert_close(resample(resample(x, size), x.shape[2:]), x, rtol=0, atol=1e-12)


def identity_on(modes: int, rank: int, kind: type) -> torch.nn.Module:
    """A convolution that leaves the modes it keeps as they are."""
    convolution = kind(1, 1, [modes] * rank)
    with torch.no_grad():
        for name, parameter in convolution.named_parameters():
            parameter.zero_()
            if "weight" in name:
                (parameter[..., 0] if not parameter.is_complex() else parameter).fill_(1.0)
    return convolution


@pytest.mark.parametrize("grid", [(16,), (17,), (16, 16), (17, 15), (15, 16), (9, 10, 11)])
def test_modes_are_where_they_belong_on_odd_and_even_grids(grid: tuple[int, ...]) -> None:
    highest = 2 if len(grid) > 2 else 3
    x = waves(grid, highest)
    torch.testing.assert_close(identity_on(9, len(grid), SpectralConvolution)(x), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(24, 24), (24, 16), (16, 24), (12, 13), (31, 9)])
def test_a_convolution_resamples_along_every_axis(size: tuple[int, int]) -> None:
    y = identity_on(7, 2, SpectralConvolution)(waves((16, 16)), output_shape=list(size))
    torch.testing.assert_close(y, waves(size), rtol=0, atol=1e-5)


# ------------------------------------------------------------------------- why not neuraloperator's own (release 2.0.0)
@upstream
def test_upstream_misplaces_modes_on_odd_grids() -> None:
    from neuralop.layers.spectral_convolution import SpectralConv

    even, odd = waves((16, 16)), waves((17, 17))
    theirs = identity_on(12, 2, SpectralConv).requires_grad_(False)
    torch.testing.assert_close(theirs(even), even, rtol=0, atol=1e-5)
    assert float((theirs(odd) - odd).abs().max()) > 0.1 * float(odd.std())


@upstream
def test_upstream_resamples_wrongly_along_every_axis_but_the_last() -> None:
    from neuralop.layers.spectral_convolution import SpectralConv

    theirs = identity_on(12, 2, SpectralConv)
    torch.testing.assert_close(theirs(waves((16, 16)), output_shape=[16, 24]), waves((16, 24)), rtol=0, atol=1e-5)
    wrong = theirs(waves((16, 16)), output_shape=[24, 16])
    assert float((wrong - waves((24, 16))).abs().max()) > 0.1 * float(wrong.std())


@upstream
def test_upstream_uno_returns_another_size() -> None:
    from neuralop import models

    theirs = models.UNO(
        1, 1, hidden_channels=8, uno_out_channels=[8, 8, 8], uno_n_modes=[[6, 6]] * 3,
        uno_scalings=[[0.67, 0.67], [1.0, 1.0], [1.33, 1.33]], n_layers=3, channel_mlp_skip="linear",
    )  # fmt: skip
    assert theirs(torch.randn(1, 1, 40, 40)).shape[2:] != (40, 40)  # the ancestor's scalings: 0.67 · 1.33 is not 1


@upstream
def test_upstream_has_one_embedding_per_batch() -> None:
    from neuralop.layers.normalization_layers import AdaIN

    layer = AdaIN(4, 2)
    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        layer.set_embedding(torch.randn(3, 4))
        layer(torch.randn(3, 2, 8, 8))
