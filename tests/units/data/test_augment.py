"""Augmentation depends on the key of a sample alone, and does what it says."""

from dataclasses import replace

import pytest
import torch

from scorefield.data import Batch, Dequantise, DropLabel, Flip
from scorefield.foundation.errors import InputError

AUGMENTS = [Flip((-1,)), Flip((-1, -2)), Dequantise(0.5)]


def batch(n: int = 6, shape: tuple[int, ...] = (2, 4, 5)) -> Batch:
    x = torch.arange(float(n * 40)).reshape(n, *shape)
    return Batch(x, key=torch.stack((torch.arange(n), torch.full((n,), 3)), dim=1))


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_sample_is_changed_alike_in_any_batch(augment) -> None:
    whole, order = batch(), torch.tensor([4, 0, 5])
    some = Batch(whole.x[order], key=whole.key[order])
    assert torch.equal(augment(some, 7).x, augment(whole, 7).x[order])


@pytest.mark.parametrize("augment", AUGMENTS)
def test_seed_index_and_epoch_all_matter(augment) -> None:
    one = batch(1)
    fields = Batch(one.x.expand(64, -1, -1, -1), key=torch.tensor([[i, 0] for i in range(64)]))
    epochs = replace(fields, key=fields.key.flip(1))
    results = [augment(fields, 0).x, augment(fields, 1).x, augment(epochs, 0).x]
    assert not any(torch.equal(a, b) for a in results for b in results if a is not b)
    assert len(results[0].unique(dim=0)) > 1 and len(results[2].unique(dim=0)) > 1


def test_flips_are_fair_and_take_the_mask_and_conditioning_field_along() -> None:
    n = 400
    x = torch.arange(3.0).expand(n, 1, 3)
    both = Batch(
        x,
        {"field": 2 * x, "vector": x[:, 0]},
        mask=(x < 1),
        key=torch.stack((torch.arange(n), torch.zeros(n).long()), 1),
    )
    flipped = Flip()(both, 0)
    turned = flipped.x[:, 0, 0] == 2
    assert abs(turned.float().mean() - 0.5) < 0.1
    assert torch.equal(flipped.cond["field"], 2 * flipped.x) and torch.equal(flipped.mask, flipped.x < 1)
    assert torch.equal(flipped.cond["vector"], both.cond["vector"])


def test_dequantised_values_fall_in_their_own_interval_uniformly() -> None:
    many = Batch(torch.zeros(200, 1, 50), key=torch.tensor([[i, 1] for i in range(200)]))
    u = Dequantise(2.0)(many, 0).x / 2
    assert (u >= 0).all() and (u < 1).all()
    assert abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.002


def test_what_cannot_be_augmented_is_refused() -> None:
    with pytest.raises(InputError, match="key"):
        Flip()(replace(batch(), key=None), 0)
    with pytest.raises(InputError, match="measurement"):
        Flip()(replace(batch(), y=torch.zeros(6)), 0)
    with pytest.raises(InputError, match="rank 2"):
        Flip((-3,))(batch(), 0)


def test_labels_are_dropped_by_each_samples_own_key() -> None:
    n = 2000
    keys = torch.stack((torch.arange(n), torch.zeros(n, dtype=torch.long)), dim=1)
    whole = Batch(torch.zeros(n, 1, 2), cond={"label": torch.arange(n) % 7}, key=keys)
    dropped = DropLabel(0.2)(whole, 3).cond["label"]
    assert abs((dropped == -1).float().mean() - 0.2) < 0.03
    assert torch.equal(dropped[dropped >= 0], whole.cond["label"][dropped >= 0])
    some = torch.tensor([5, 3, 900])
    part = Batch(whole.x[some], cond={"label": whole.cond["label"][some]}, key=keys[some])
    assert torch.equal(DropLabel(0.2)(part, 3).cond["label"], dropped[some])
    assert not torch.equal(DropLabel(0.2)(whole, 4).cond["label"], dropped)
    for probability, expected in ((0.0, whole.cond["label"]), (1.0, torch.full((n,), -1))):
        assert torch.equal(DropLabel(probability)(whole, 3).cond["label"], expected)


def test_labels_that_are_not_there_cannot_be_dropped() -> None:
    with pytest.raises(InputError, match="no class labels"):
        DropLabel()(batch(), 0)
    with pytest.raises(InputError, match="probability"):
        DropLabel(1.5)
