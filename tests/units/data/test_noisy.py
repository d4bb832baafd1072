"""Sources of fields that are only known with noise: theirs once and for all, and how much of it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from scorefield.data import Batch, Centre, Divide, Loader, Measured, Noisy, Standardise, Tensors
from scorefield.data.fields import stack
from scorefield.datasets import Channels
from scorefield.foundation.errors import InputError

CLEAN = torch.randn(60, 2, 8, 8, generator=torch.Generator().manual_seed(0))


def test_an_example_has_its_noise_once_and_for_all() -> None:
    clean, fields = Tensors(CLEAN).load("train"), Noisy(Tensors(CLEAN), 0.3).load("train")
    every = torch.arange(len(fields))
    noise = fields.gather(every).x - clean.gather(every).x
    assert float(noise.std()) == pytest.approx(0.3, rel=0.03)  # 3456 independent values: 1 %
    some = torch.tensor([7, 3, 7])
    torch.testing.assert_close(fields.gather(some).x, fields.gather(every).x[some], rtol=0, atol=0)
    assert torch.equal(fields.gather(some).noise, torch.full((3,), 0.3))
    epochs = [batch for batch, _ in zip(Loader(fields, len(fields)), range(2), strict=False)]
    order = [batch.key[:, 0].argsort() for batch in epochs]
    assert torch.equal(epochs[0].x[order[0]], epochs[1].x[order[1]])
    assert epochs[0].noise is not None
    other = Noisy(Tensors(CLEAN), 0.3, seed=1).load("train").gather(every).x - clean.gather(every).x
    valid = Noisy(Tensors(CLEAN), 0.3).load("valid").gather(torch.arange(6)).x
    heldout = valid - Tensors(CLEAN).load("valid").gather(torch.arange(6)).x
    for draw in (other, torch.cat([heldout] * 9)):
        correlation = float((draw * noise).mean() / 0.09)
        assert abs(correlation) < 0.1


def test_noise_may_differ_between_examples() -> None:
    fields = Noisy(Tensors(CLEAN), [0.1, 2.0]).load("train")
    every = torch.arange(len(fields))
    batch, clean = fields.gather(every), Tensors(CLEAN).load("train").gather(every).x
    assert batch.noise.min() < 0.4 and 1.6 < batch.noise.max() <= 2.0
    ratio = (batch.x - clean).flatten(1).std(1) / batch.noise
    torch.testing.assert_close(ratio, torch.ones(54), rtol=0, atol=0.3)  # of 128 values each: 6 %


def test_complex_noise_has_its_deviation_in_either_part() -> None:
    fields = Noisy(Tensors(torch.zeros(40, 1, 16, 16, dtype=torch.complex64), channel_axis="first"), 0.5).load("train")
    x = fields.gather(torch.arange(36)).x
    assert x.shape[1] == 2
    torch.testing.assert_close(x.std((0, 2, 3)), torch.tensor([0.5, 0.5]), rtol=0.03, atol=0)


def test_noise_that_was_measured_is_given(tmp_path: Path) -> None:
    source = Tensors(CLEAN)
    train, valid = Measured(source, 0.2).load("train"), Measured(source, 0.2).load("valid")
    assert torch.equal(train.gather(torch.tensor([4])).x, source.load("train").gather(torch.tensor([4])).x)
    assert valid.gather(torch.tensor([0, 1])).noise.tolist() == pytest.approx([0.2, 0.2])
    np.save(tmp_path / "noise.npy", np.arange(1, 61) / 10)
    each = Measured(source, tmp_path / "noise.npy")
    assert each.load("train").gather(torch.tensor([0, 53])).noise.tolist() == pytest.approx([0.1, 5.4])
    assert each.load("valid").gather(torch.tensor([0, 5])).noise.tolist() == pytest.approx([5.5, 6.0])
    np.save(tmp_path / "few.npy", np.ones(7))
    with pytest.raises(InputError, match="each of 60 fields"):
        Measured(source, tmp_path / "few.npy").load("train")
    with pytest.raises(InputError, match="> 0"):
        Measured(source, -1.0).load("train")
    with pytest.raises(InputError, match="one number > 0"):
        Noisy(source, [0.2, 0.1])
    with pytest.raises(InputError, match="noisy already"):
        Noisy(Noisy(source, 0.1), 0.1).load("train").gather(torch.tensor([0]))


def test_noise_goes_with_the_units() -> None:
    batch = Noisy(Tensors(CLEAN), 0.3).load("train").gather(torch.arange(4))
    for normaliser in (Divide(4.0), Centre(4.0)):
        normalised = batch.normalised(normaliser.fit([batch]))
        torch.testing.assert_close(normalised.noise, batch.noise / 4)
    uneven = torch.stack((batch.x[:, 0], 9 * batch.x[:, 1]), 1)
    with pytest.raises(InputError, match="such as Divide"):
        Batch(uneven, noise=batch.noise).normalised(Standardise().fit([Batch(uneven)]))
    with pytest.raises(InputError, match="such as Divide"):  # what is measured linearly may not be shifted either
        Batch(batch.x + 1, y=batch.x).normalised(Centre(4.0).fit([Batch(batch.x + 1)]))
    given = Batch(batch.x, y=batch.x, noise=batch.noise).normalised(Divide(4.0).fit([batch]))
    torch.testing.assert_close(given.y, batch.x / 4)


def test_batches_are_stacked_with_all_that_they_hold() -> None:
    single = [
        Batch(x, y=x[:1], given={"mask": x > 0}, noise=torch.tensor(0.5), key=torch.tensor([1, 2])) for x in CLEAN[:3]
    ]
    both = stack(single)
    assert (
        both.y.shape == (3, 1, 8, 8)
        and both.noise.tolist() == [0.5] * 3
        and both.given["mask"].shape == CLEAN[:3].shape
    )
    assert both.to("cpu").given["mask"].dtype == torch.bool


# -------------------------------------------------------------------------------------------------------------- channels
def test_channels_have_unit_power_and_few_directions() -> None:
    fields = Channels(n=400).load("train")
    x = fields.gather(torch.arange(400)).x
    assert x.shape == (400, 2, 16, 64)
    power = x.square().sum(1).mean()
    assert float(power) == pytest.approx(1, rel=0.1)  # gains of some 2 strong clusters in 400 channels: 3 %
    h = torch.complex(x[:, 0], x[:, 1])
    values = torch.linalg.svdvals(h)
    assert float((values[:, :4].square().sum(1) / values.square().sum(1)).mean()) > 0.9  # of 16: sparse in angle
    assert float(h.mean().abs()) < 0.05


def test_a_channel_depends_on_its_own_number_alone() -> None:
    law = Channels(n=10, receive=4, transmit=6)
    train, more = law.load("train"), Channels(n=99, receive=4, transmit=6).load("train")
    assert torch.equal(train.gather(torch.tensor([3])).x, more.gather(torch.tensor([8, 3])).x[1:])
    assert not torch.equal(train.gather(torch.tensor([3])).x, law.load("valid").gather(torch.tensor([3])).x)
    one = Channels(clusters=1, rays=1, spread=0.0, receive=3, transmit=5).load("train").gather(torch.tensor([0])).x
    h = torch.complex(one[0, 0], one[0, 1])
    assert float(torch.linalg.svdvals(h)[1]) < 1e-5  # one path: rank one, of one magnitude
    torch.testing.assert_close(h.abs(), h.abs()[:1, :1].expand(3, 5), rtol=1e-5, atol=0)
    with pytest.raises(InputError, match="at least 1"):
        Channels(n=0)
