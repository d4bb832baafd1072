"""Transforms: what goes there comes back, to a millionth; the Jacobian is theirs; the atom at zero is spread and returns."""

import pytest
import torch

from scorefield.data import Batch, Standardise, UnitRange
from scorefield.data.moments import MatchMoments, PixelStandardise, matched_to
from scorefield.data.quantile import QuantileNormal
from scorefield.data.transform import (
    Chain,
    Clip,
    Fraction,
    Largest,
    Log1p,
    PerVariable,
    RawMoment,
    Recentre,
    Root,
    Tail,
)
from scorefield.foundation.errors import InputError

NEW = {
    "root2": lambda: Root(2),
    "root3": lambda: Root(3),
    "root4": lambda: Root(4),
    "log1p": lambda: PerVariable([Log1p(0.1), Standardise()]),
    "largest": Largest,
    "raw moment": lambda: RawMoment(3),
    "recentre": Recentre,
    "fraction": Fraction,
    "per pixel": PixelStandardise,
    "matched": MatchMoments,
    "quantile": QuantileNormal,
    "sqrturrecen": lambda: Chain([Root(2), Clip(), Largest(), Recentre()]),
    "log standard": lambda: PerVariable([Chain([Log1p(0.1), Standardise()]), UnitRange()]),
    "tail": lambda: Chain([Tail(), Log1p(0.1), Standardise()]),
    "each its own": lambda: PerVariable([Chain([Root(4), UnitRange()]), Standardise()]),
}
SMOOTH = [name for name in NEW if name not in ("sqrturrecen",)]


def rain(n: int = 60, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Two variables: hourly amounts up to some 100 mm with a heavy tail, and a temperature."""
    generator = torch.Generator().manual_seed(seed)
    amounts = torch.randn(n, 1, 8, 9, generator=generator, dtype=torch.float64).mul(1.3).exp() * 0.5
    warmth = 280 + 9 * torch.randn(n, 1, 8, 9, generator=generator, dtype=torch.float64)
    return torch.cat((amounts, warmth), dim=1).to(dtype)


def batches(x: torch.Tensor) -> list[Batch]:
    return [Batch(part) for part in x.split(17)]


@pytest.mark.parametrize("name", NEW)
def test_round_trip(name) -> None:
    """To 1e-6 of the training range in float32; to 1e-6 of each value in float64; zeros included."""
    x = rain()
    x[0, 0, 0, 0] = 0.0 if name != "quantile" else x[:, 0].min()
    transform = NEW[name]().fit(batches(x))
    reach = (x.amax((0, 2, 3)) - x.amin((0, 2, 3))).reshape(-1, 1, 1)
    assert ((transform.inverse(transform(x)) - x).abs() <= 1e-6 * reach).all()
    exact = x.double()
    torch.testing.assert_close(transform.double().inverse(transform(exact)), exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_log_det_is_that_of_the_jacobian(name) -> None:
    transform = NEW[name]().fit(batches(rain())).double()
    x = rain(3, torch.float64, seed=1).requires_grad_()
    (slope,) = torch.autograd.grad(transform(x).sum(), x)
    expected = slope.abs().log().flatten(1).sum(1)
    torch.testing.assert_close(transform.log_det(x.detach()), expected, rtol=1e-6, atol=1e-6)


def test_what_loses_something_has_no_density_and_says_what() -> None:
    for lossy in (NEW["sqrturrecen"](), QuantileNormal(wet=0.1)):
        with pytest.raises(InputError, match="bijection"):
            lossy.fit(batches(rain())).log_det(rain(2))
        assert "ossy" in (type(lossy).__doc__ or "") + (Clip.__doc__ or "")


def test_a_chain_fits_each_step_to_what_those_before_it_make() -> None:
    x = rain(400)
    chain = Chain([Root(2), Clip(), Largest(), Recentre()]).fit(batches(x))
    z = chain(x)
    assert float(z.amax()) == pytest.approx(1, abs=1e-6) and float(z.amin()) > -1
    assert float(chain.inverse(torch.full_like(z, -2.0)).amax()) <= 4 * float(
        x.amax()
    )  # cut off at (2x - 1) = -1 ... 0
    assert (chain.inverse(torch.full_like(z, -1.2)) == 0).all()


def test_fitted_transforms_are_filled_from_a_checkpoint() -> None:
    x = rain()
    for name, new in NEW.items():
        fresh = new()
        fresh.load_state_dict(new().fit(batches(x)).state_dict(), strict=True)
        assert fresh.fitted, name
        assert torch.equal(fresh(x), new().fit(batches(x))(x)), name


def test_masked_values_do_not_enter_the_fit() -> None:
    x = rain()
    mask = torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) > 0.3
    holes = x.where(mask, 1e9)
    for new in (PixelStandardise, QuantileNormal, lambda: RawMoment(2), NEW["log standard"]):
        transform = new().fit([Batch(holes, mask=mask)])
        assert all(buffer.abs().max() < 1e6 for buffer in transform.buffers())


def test_pixel_standardise_has_the_moments_of_every_point() -> None:
    x = rain(300)
    z = PixelStandardise().fit(batches(x))(x).double()
    torch.testing.assert_close(z.mean(0), torch.zeros(2, 8, 9).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.var(0, correction=0), torch.ones(2, 8, 9).double(), atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="no tiles"):
        PixelStandardise().fit(batches(x))(x[..., :4])


def test_matched_moments_take_the_bias_of_another_model_away() -> None:
    """A model that is warmer and livelier at some points gets the moments of the one trained on, and its own field else."""
    ours = rain(500)
    bias, gain = 3 * torch.rand(2, 8, 9), 0.5 + torch.rand(2, 8, 9)
    theirs = (rain(500, seed=5) - 280) * gain + 280 + bias
    fitted = MatchMoments().fit(batches(ours))
    corrected = matched_to(fitted, batches(theirs))(theirs).double()
    torch.testing.assert_close(corrected.mean(0), ours.double().mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(corrected.std(0), ours.double().std(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(matched_to(fitted, batches(ours))(ours), ours, rtol=1e-4, atol=1e-3)
    with pytest.raises(InputError, match="has kept none"):
        matched_to(Standardise().fit(batches(ours)), batches(theirs))


# -------------------------------------------------------------------------------------------------------- quantiles
def drizzle(n: int = 200) -> torch.Tensor:
    x = rain(n)[:, :1]
    dry = torch.rand(x.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    return x.clamp(min=0.1).where(~dry, 0.0)


def test_the_atom_is_spread_over_its_ranks_and_comes_back_as_zero() -> None:
    x = drizzle()
    transform = QuantileNormal(wet=0.1).fit(batches(x))
    z = transform(x)
    grid = torch.linspace(-2.5, 2.5, 41)
    empirical = (z.flatten()[None] < grid[:, None]).float().mean(1)
    assert (empirical - torch.special.ndtr(grid)).abs().max() < 5e-3  # no spike anywhere: N(0, 1) throughout
    back = transform.inverse(z)
    assert torch.equal(back == 0, x == 0)
    assert ((back - x).abs() <= 1e-6 * x.max()).all()
    assert torch.equal(transform(x), z)  # the draws follow from the field
    other = QuantileNormal(wet=0.1, seed=1).fit(batches(x))(x)
    assert not torch.equal(other[x == 0], z[x == 0]) and torch.equal(other[x > 0], z[x > 0])
    spread = z[:, 0].where(x[:, 0] == 0, 0.0).flatten(1)
    assert torch.corrcoef(spread[:50]).fill_diagonal_(0).abs().max() < 0.6  # each field has draws of its own


def test_beyond_the_training_range_it_goes_on_straight() -> None:
    x = drizzle()
    transform = QuantileNormal(wet=0.1).fit(batches(x))
    beyond = torch.tensor([1.0, 1.2, 1.5]).reshape(-1, 1, 1, 1) * x.max()
    z = transform(beyond).flatten()
    assert (z.diff() > 0).all()
    torch.testing.assert_close(transform.inverse(transform(beyond)), beyond, rtol=1e-5, atol=0)
    slopes = beyond.flatten().diff() / z.diff()
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=0)


def test_bad_arguments_are_refused() -> None:
    for make, message in (
        (lambda: Root(0), "power > 0"),
        (lambda: Log1p(-1), "scale > 0"),
        (lambda: Clip(None), "nothing"),
        (lambda: QuantileNormal(knots=3), "16 knots"),
        (lambda: PerVariable([]), "no transforms"),
        (lambda: PerVariable([Root(), Root(), Root()]).fit(batches(rain())), "3 transforms for 2"),
        (lambda: Largest().fit(batches(-rain())), "never above 0"),
        (lambda: QuantileNormal(wet=1e9).fit(batches(rain())), "fewer than two values"),
    ):
        with pytest.raises(InputError, match=message):
            make()


@pytest.mark.parametrize("anything", [3.0, 20.0, 1e3, 1e30, float("inf")])
def test_a_tail_bounds_the_way_back_whatever_comes(anything: float) -> None:
    x = rain(200)
    tail = Tail(times=100)
    fitted = Chain([tail, Log1p(0.1), Standardise()]).fit(batches(x))
    found = fitted.inverse(torch.full((1, 2, 8, 9), anything))
    assert (found.amax((0, 2, 3)) <= tail.bound * (1 + 1e-6)).all()
    assert (x.amax((0, 2, 3)) < tail.bound).all() and tail.bound[0] < 20 * x[:, 0].max()


def test_a_tail_changes_nothing_that_was_seen_and_keeps_the_order_beyond() -> None:
    x = rain(100)
    tail = Tail().fit(batches(x))
    assert tail(x).equal(x) and tail.inverse(x).equal(x)
    further = x.amax((0, 2, 3)).reshape(1, 2, 1, 1) + (tail.bound - tail.largest).reshape(1, 2, 1, 1) * torch.linspace(
        0, 3, 30
    )
    beyond = tail.inverse(further.double().expand(1, 2, 1, 30))
    assert (beyond.diff(dim=-1) > 0).all()
    torch.testing.assert_close(tail(beyond), further.double().expand(1, 2, 1, 30))
    again = Tail()
    again.load_state_dict(tail.state_dict())
    assert again.inverse(beyond).equal(tail.inverse(beyond))


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_the_bound_of_a_tail_is_the_level_exceeded_once_in_so_many_times_the_data(shape: float) -> None:
    """Of generalised Pareto values whose quantiles are known."""
    n, times = 400_000, 10
    u = torch.rand(n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = (u**-shape - 1) / shape if shape else -u.log()
    tail = Tail(times).fit([Batch(part.reshape(-1, 1, 10, 10)) for part in x.split(100_000)])
    rarity = torch.tensor(float(n * times), dtype=torch.float64)
    level = (rarity**shape - 1) / shape if shape else rarity.log()
    assert 0.8 < float(tail.bound[0] / level) < 1.35
