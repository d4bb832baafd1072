"""The mean by least squares: what is linear is found exactly, what is left is orthogonal to what it was fitted to."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol, EDMPreconditioner
from scorefield.core.residual import LinearMean
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Batch, Standardise
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.loss import Loss
from scorefield.model import Model
from scorefield.nn import UNet
from scorefield.training.validation import losses_of

N, GRID = 12, (6, 7)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(slopes: Tensor, at: Tensor, c: Tensor) -> Tensor:
    return torch.einsum("tk,bk...->bt...", slopes, c) + at


def cut(x: Tensor, c: Tensor, mask: Tensor | None = None) -> list[Batch]:
    """Batches of five."""
    parts = (None,) * 3 if mask is None else mask.split(5)
    return [Batch(x, {"field": c}, mask=m) for x, c, m in zip(x.split(5), c.split(5), parts, strict=True)]


@pytest.mark.parametrize("places", [True, False])
def test_what_is_linear_is_found(places: bool) -> None:
    c, slopes = draw(N, 3, *GRID), draw(2, 3, seed=1)
    x = linear(slopes, draw(2, *(GRID if places else (1, 1)), seed=2), c)
    mean = LinearMean(places=places)
    mean.learn(cut(x, c))
    torch.testing.assert_close(mean.weight, slopes, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean(x, {"field": c}), x, rtol=1e-4, atol=1e-4)
    new = draw(2, 3, *GRID, seed=3)
    torch.testing.assert_close(
        mean(draw(2, 2, *GRID), {"field": new}), linear(slopes, mean.intercept, new), rtol=1e-4, atol=1e-4
    )


def test_the_units_of_predictors_change_nothing() -> None:
    """Pascal beside kilograms in a kilogram, seven orders apart: what is predicted is the same."""
    c, x, factor = draw(N, 3, *GRID), draw(N, 2, *GRID, seed=4), torch.tensor([1e4, 1.0, 1e-3]).reshape(3, 1, 1)
    x = x + linear(draw(2, 3, seed=1), draw(2, 1, 1, seed=2), c)
    one, other = LinearMean(), LinearMean()
    one.learn(cut(x, c))
    other.learn(cut(x, factor * c))
    torch.testing.assert_close(other(x, {"field": factor * c}), one(x, {"field": c}), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_what_is_left_is_orthogonal_to_the_predictors_at_known_places(masked: bool) -> None:
    """The normal equations: Σ r = 0 at every place, and Σ c r = 0, whatever x is; in batches as at once."""
    c, x = draw(N, 3, *GRID), draw(N, 2, *GRID, seed=4) ** 3
    mask = (draw(N, 2, *GRID, seed=5) > -1) & (draw(2, *GRID, seed=6) > -1.5) if masked else None
    known = torch.ones_like(x) if mask is None else mask.float()
    mean, whole = LinearMean(), LinearMean()
    mean.learn(cut(x * known, c, mask))
    whole.learn([Batch(x * known, {"field": c}, mask=mask)])
    torch.testing.assert_close(mean.weight, whole.weight)
    rest = (x - mean(x, {"field": c})) * known
    assert float(rest.sum(0).abs().max()) < 1e-4
    assert float(torch.einsum("bt...,bk...->tk", rest, c).abs().max()) < 1e-3
    more = ((x - mean(x, {"field": 1.01 * c})) * known).square().sum()
    assert rest.square().sum() < more


def test_a_filter_of_the_neighbourhood_is_found() -> None:
    """White noise of each point is filtered away by neighbours that have the same signal."""
    signal = draw(40, 1, 1, 1).expand(40, 1, 9, 9)
    c = signal + draw(40, 1, 9, 9, seed=1)
    near, alone = LinearMean(radius=1, spacing=2), LinearMean()
    for mean in (near, alone):
        mean.learn([Batch(signal.contiguous(), {"field": c})])
    errors = [float((signal - mean(signal, {"field": c}))[..., 2:-2, 2:-2].square().mean()) for mean in (near, alone)]
    assert near.weight.shape == (1, 9)
    assert errors[0] < 0.35 * errors[1]  # in the mean (1 + 9)⁻¹ against (1 + 1)⁻¹ of the signal's variance
    shifted = LinearMean(radius=1, spacing=2)
    x = c.roll((2, -2), (2, 3))
    mask = torch.zeros(40, 1, 9, 9, dtype=torch.bool)
    mask[..., 2:-2, 2:-2] = True
    shifted.learn([Batch(x * mask, {"field": c}, mask=mask)])
    expected = torch.zeros(1, 9)
    expected[0, 2] = 1  # two rows above, two columns to the right
    torch.testing.assert_close(shifted.weight, expected, rtol=1e-4, atol=1e-5)


def test_a_model_learns_its_mean_and_what_enters_leaves_as_it_was() -> None:
    c, slopes = 1000 + 20 * draw(N, 3, *GRID), draw(2, 3, seed=1)
    x = 280 + linear(slopes, draw(2, *GRID, seed=2), c) + draw(N, 2, *GRID, seed=3)

    def made() -> Model:
        net = UNet(2, 2, 3, channels=8, multipliers=(1,))
        return Model(
            SDE(EDM()),
            net,
            EDMPreconditioner(),
            Standardise(),
            predictors=Standardise(),
            mean=LinearMean(),
            shape=(2, 6, 7),
        )

    model = made()
    model.fit(cut(x, c))
    z, cond = model.enter(Batch(x, {"field": c}))
    assert float(z.std()) == pytest.approx(1 - 1 / N, rel=0.02) and abs(float(z.mean())) < 1e-4  # 1 of fields left out
    torch.testing.assert_close(model.leave(z, cond), x, rtol=1e-5, atol=1e-2)
    assert model.mean is not None
    left = float((model.mean.residual.scale * model.normaliser.scale).mean())  # in data units
    assert left == pytest.approx((1 - 1 / N) ** -0.5, rel=0.03)
    new = made()
    new.mean.load_state_dict(model.mean.state_dict())  # type: ignore[union-attr]
    torch.testing.assert_close(new.mean(z, cond), model.mean(z, cond))  # type: ignore[misc]


def test_what_is_left_of_a_field_of_the_fit_is_as_if_it_had_not_been_in_it() -> None:
    """Without predictors m is the mean at each place, and the rest x_i − mean of the others, of the variance of new fields."""
    x, nothing = draw(N, 1, 30, 40), torch.zeros(N, 1, 30, 40)
    mask = draw(N, 1, 30, 40, seed=1) > -0.5
    mean, batch = LinearMean(), Batch(x * mask, {"field": nothing}, mask=mask)
    mean.fit([batch])
    n = mask.sum(0)
    others = ((x * mask).sum(0) - x) / (n - 1)
    rest = mean.residual.inverse(mean.subtract(batch, fitted=True).x)
    known = mask & (n > 1)
    torch.testing.assert_close(rest[known], (x - others)[known], rtol=1e-4, atol=1e-4)
    new = draw(200, 1, 30, 40, seed=2)
    error = new - mean(new, {"field": nothing[:1].expand_as(new)})
    assert float(rest[known].std()) == pytest.approx(float(error[:, n > 1].std()), rel=0.02)
    assert float((mean.subtract(batch).x[known] / mean.subtract(batch, fitted=True).x[known]).max()) < 1


class Entered(Loss):
    """The mean of what a denoiser is taught."""

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Tensor:
        return batch.x.flatten(1).mean(1)


def test_a_model_is_taught_by_fields_left_out_and_validated_by_new_ones() -> None:
    c, x = draw(4, 1, 8, 8), draw(4, 1, 8, 8, seed=1)
    net = UNet(1, 1, 1, channels=8, multipliers=(1,))
    model = Model(
        SDE(EDM()),
        net,
        EDMPreconditioner(),
        Standardise(),
        predictors=Standardise(),
        mean=LinearMean(),
        shape=(1, 8, 8),
    )
    batch = Batch(x, {"field": c}, key=torch.zeros(4, 2, dtype=torch.long))
    model.fit([batch])
    loss, found = Entered(), []
    for training in (True, False):
        model.denoiser.train(training)
        found.append(losses_of(loss, model.denoiser, model, batch, seed=0, autocast=nullcontext()))
    shift = float(model.mean.residual.shift)  # type: ignore[union-attr]
    scale = float(model.mean.residual.scale)  # type: ignore[union-attr]
    torch.testing.assert_close(found[0] * scale + shift, (found[1] * scale + shift) * 4 / 3, rtol=1e-4, atol=1e-4)


def test_what_it_cannot_use_is_one_line() -> None:
    c, x = draw(4, 1, *GRID), draw(4, 1, *GRID, seed=1)
    mean = LinearMean()
    with pytest.raises(InputError, match="not fitted"):
        mean(x, {"field": c})
    with pytest.raises(InputError, match="the data have none"):
        mean.learn([Batch(x)])
    with pytest.raises(InputError, match="no known values"):
        mean.learn([Batch(x, {"field": c}, mask=torch.zeros_like(x, dtype=torch.bool))])
    mean.learn([Batch(x, {"field": c.expand(-1, 2, -1, -1)})])  # two that say the same
    assert torch.isfinite(mean.weight).all()
    with pytest.raises(InputError, match=r"a grid of \(6, 7\) and is given one of \(3, 3\)"):
        mean(x, {"field": c.expand(-1, 2, -1, -1)[..., :3, :3]})
    with pytest.raises(InputError, match="2 predictors and is given 1"):
        mean(x, {"field": c})
    with pytest.raises(InputError, match="radius >= 0"):
        LinearMean(-1)
