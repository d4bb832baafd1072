"""Normalisers: bijections with the right Jacobian, fitted once, at home in a checkpoint."""

import pytest
import torch

from scorefield.data import Batch, Centre, Identity, Standardise, UnitRange
from scorefield.foundation.errors import InputError

NORMALISERS = [Standardise, Centre, lambda: Centre(3.5), UnitRange, lambda: UnitRange(0.0, 5.0), Identity]
GRIDS = [(7,), (3, 5), (2, 3, 4)]


def data(n: int = 40, channels: int = 3, grid: tuple[int, ...] = (3, 5), seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = 10.0 ** torch.arange(channels).reshape(-1, *(1,) * len(grid))
    return spread * (2 + torch.randn(n, channels, *grid, generator=generator))


def batches(x: torch.Tensor, size: int = 7) -> list[Batch]:
    return [Batch(part) for part in x.split(size)]


@pytest.mark.parametrize("new", NORMALISERS)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("scale", [1.0, 1e-4, 1e4])
def test_round_trip_is_exact_to_a_millionth_of_the_range(new, grid, scale) -> None:
    x = scale * data(grid=grid)
    normaliser = new().fit(batches(x))
    back = normaliser.inverse(normaliser(x))
    reach = (x.amax((0, *range(2, x.ndim))) - x.amin((0, *range(2, x.ndim)))).reshape(-1, *(1,) * len(grid))
    assert ((back - x).abs() <= 1e-6 * reach).all()


@pytest.mark.parametrize("new", NORMALISERS)
@pytest.mark.parametrize("grid", GRIDS)
def test_log_det_is_that_of_the_jacobian(new, grid) -> None:
    x = data(2, 2, grid)
    normaliser = new().fit(batches(data(channels=2, grid=grid)))
    for sample, log_det in zip(x.double(), normaliser.log_det(x), strict=True):
        jacobian = torch.autograd.functional.jacobian(
            lambda flat, s=sample: normaliser(flat.reshape(s[None].shape)), sample.flatten()
        )
        expected = torch.linalg.slogdet(jacobian.reshape(sample.numel(), -1)).logabsdet
        torch.testing.assert_close(log_det.double(), expected, rtol=1e-6, atol=1e-5)


def test_fitted_data_have_the_promised_moments_and_range() -> None:
    x = data(500)
    z = Standardise().fit(batches(x))(x).double()
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    z = UnitRange(-1.0, 1.0).fit(batches(x))(x)
    assert z.amin((0, 2, 3)).tolist() == pytest.approx([-1] * 3) and z.amax((0, 2, 3)).tolist() == pytest.approx(
        [1] * 3
    )
    z = Centre(2.0).fit(batches(x))(x)
    torch.testing.assert_close(z.std((0, 2, 3)), x.std((0, 2, 3)) / 2)


def test_fit_does_not_depend_on_the_batches_and_keeps_digits_that_float32_would_lose() -> None:
    x = 1e6 + data(300, 1)
    exact = x.double()
    for size in (1, 7, 300):
        normaliser = Standardise().fit(batches(x, size))
        assert float(normaliser.scale) == pytest.approx(float(exact.std(correction=0)), rel=1e-6)
        assert float(normaliser.shift) == pytest.approx(float(exact.mean()), rel=1e-7)


def test_masked_values_do_not_enter_the_fit_even_as_nan() -> None:
    x = data(50)
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    holes = x.where(mask, torch.nan)
    normaliser = Standardise().fit([Batch(holes[:20], mask=mask[:20]), Batch(holes[20:], mask=mask[20:])])
    known = x[:, 1][mask[:, 1]].double()
    assert float(normaliser.shift[1]) == pytest.approx(float(known.mean()), rel=1e-6)
    assert float(normaliser.scale[1]) == pytest.approx(float(known.std(correction=0)), rel=1e-6)


def test_nan_is_refused_with_place_and_number() -> None:
    x = data(20)
    x[13, 1, 2, 4] = torch.nan
    x[17, 0] = torch.inf
    with pytest.raises(InputError, match=r"16 known values .* sample 13, channel 1, at \(2, 4\)"):
        Standardise().fit(batches(x))


def test_a_constant_or_unknown_channel_is_named() -> None:
    x = data(20)
    x[:, 2] = 0.1
    for new in (Standardise, UnitRange):
        with pytest.raises(InputError, match=r"Channel 2 is constant at 0\.1"):
            new().fit(batches(x, 6))
    mask = torch.ones_like(x)
    mask[:, 1] = 0
    with pytest.raises(InputError, match="Channel 1 has no known value"):
        Standardise().fit([Batch(x, mask=mask)])


@pytest.mark.parametrize("new", NORMALISERS[:-1])
def test_one_that_is_not_fitted_says_so(new) -> None:
    normaliser = new()
    assert not normaliser.fitted
    for use in (normaliser, normaliser.inverse, normaliser.log_det):
        with pytest.raises(InputError, match="not fitted"):
            use(data())


def test_it_is_fitted_once_and_to_some_channels() -> None:
    normaliser = Standardise().fit(batches(data()))
    with pytest.raises(InputError, match="fitted already"):
        normaliser.fit(batches(data()))
    with pytest.raises(InputError, match="3 channels and is given 2"):
        normaliser(data(channels=2))
    with pytest.raises(InputError, match="no data"):
        Standardise().fit([])


@pytest.mark.parametrize("new", NORMALISERS)
def test_a_new_one_is_filled_from_a_checkpoint_without_data(new) -> None:
    x = data()
    outer = torch.nn.ModuleDict({"normaliser": new().fit(batches(x))})
    fresh = torch.nn.ModuleDict({"normaliser": new()})
    fresh.load_state_dict(outer.state_dict(), strict=True)
    assert fresh["normaliser"].fitted
    assert torch.equal(fresh["normaliser"](x), outer["normaliser"](x))
    state = fresh.state_dict()
    for value in outer.state_dict().values():
        value.zero_()
    assert all(value.abs().sum() > 0 for value in state.values())  # a copy, not the checkpoint's memory


def test_a_checkpoint_without_it_is_refused() -> None:
    with pytest.raises(RuntimeError, match="shift"):
        Standardise().load_state_dict({}, strict=True)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="low below high"):
        UnitRange(1.0, 1.0)
    with pytest.raises(InputError, match="positive"):
        Centre(-1.0)
