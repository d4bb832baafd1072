"""The order of the data: position arithmetic, resuming, ranks, workers."""

from itertools import islice

import pytest
import torch
from torch.utils.data import Dataset, Subset

from scorefield.data import Dequantise, Flip, Loader, Sequential, Tensors, Wrapped
from scorefield.data.fields import DatasetFields
from scorefield.foundation.errors import InputError


def listed(items: list) -> DatasetFields:
    return DatasetFields(Subset(items, range(len(items))))


def numbered(n: int) -> DatasetFields:
    x = torch.arange(n, dtype=torch.float32)[:, None, None, None].expand(n, 1, 2, 3).contiguous()
    return listed(list(x))


def keys(loader: Loader, steps: int) -> torch.Tensor:
    return torch.cat([batch.key for batch in islice(loader, steps)])


@pytest.mark.parametrize(("n", "size"), [(10, 4), (7, 7), (3, 8), (12, 5)])
def test_each_epoch_visits_every_index_once(n, size) -> None:
    key = keys(Loader(numbered(n), size), 4 * n)
    for epoch in range(3):
        assert key[key[:, 1] == epoch, 0].sort().values.tolist() == list(range(n))
    assert (key[:, 1].diff() >= 0).all()


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    key = keys(Loader(numbered(50), 50), 2)
    other = keys(Loader(numbered(50), 50, seed=1), 1)
    assert key[:50, 0].tolist() != key[50:, 0].tolist() != other[:, 0].tolist() != key[:50, 0].tolist()


def test_key_belongs_to_its_field() -> None:
    for batch in islice(Loader(numbered(9), 4), 6):
        assert (batch.x[:, 0, 0, 0] == batch.key[:, 0]).all()


@pytest.mark.parametrize("start", [1, 5, 60])
def test_resuming_gives_the_batches_of_an_uninterrupted_run(start) -> None:
    fields, options = numbered(11), {"augment": (Flip(), Dequantise()), "accumulate": 2, "seed": 3}
    whole = islice(Loader(fields, 4, **options), 2 * start, 2 * start + 6)
    for batch, resumed in zip(whole, Loader(fields, 4, start=start, **options), strict=False):
        assert torch.equal(batch.x, resumed.x) and torch.equal(batch.key, resumed.key)


def test_a_distant_step_is_reached_without_replay() -> None:
    class Counting(Dataset):
        read = 0

        def __len__(self) -> int:
            return 100

        def __getitem__(self, index: int) -> torch.Tensor:
            self.read += 1
            return torch.zeros(1, 2)

    dataset = Counting()
    fields = DatasetFields(dataset)
    looked_at = dataset.read
    next(iter(Loader(fields, 4, start=10**9)))
    assert dataset.read == looked_at + 4


@pytest.mark.parametrize("accumulate", [1, 2])
def test_ranks_together_see_the_batch_of_one_process(accumulate) -> None:
    options = {"seed": 1, "augment": (Dequantise(),)}
    whole = Loader(numbered(10), 8, **options)
    ranks = [iter(Loader(numbered(10), 8, rank=r, ranks=2, accumulate=accumulate, **options)) for r in range(2)]
    for batch in islice(whole, 5):
        shares = [torch.cat([next(rank).x for _ in range(accumulate)]) for rank in ranks]
        assert torch.equal(torch.cat(shares), batch.x)


def test_workers_change_nothing() -> None:
    options = {"seed": 2, "augment": (Flip(), Dequantise()), "start": 3}
    alone, helped = (Loader(numbered(10), 6, workers=workers, **options) for workers in (0, 2))
    for one, other in islice(zip(alone, helped, strict=True), 5):
        assert torch.equal(one.x, other.x) and torch.equal(one.key, other.key)


def test_reading_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    next(iter(Loader(numbered(4), 2, augment=(Dequantise(),))))
    assert torch.equal(torch.rand(3), expected)


def test_sequential_gives_everything_once_in_order_on_any_number_of_ranks() -> None:
    fields = numbered(11)
    for ranks in (1, 2, 3):
        batches = [b for r in range(ranks) for b in Sequential(fields, 4, rank=r, ranks=ranks, epoch=7)]
        assert torch.cat([b.key[:, 0] for b in batches]).tolist() == list(range(11))
        assert all((b.key[:, 1] == 7).all() and (b.x[:, 0, 0, 0] == b.key[:, 0]).all() for b in batches)
    again = Sequential(fields, 4, augment=(Dequantise(),))
    assert len(again) == 3 and all(torch.equal(a.x, b.x) for a, b in zip(again, again, strict=True))


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(InputError, match="batch_size=10"):
        Loader(numbered(4), 10, ranks=2, accumulate=2)
    with pytest.raises(InputError, match="no data"):
        Loader(listed([]), 2)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_the_data_stays_one_line(workers) -> None:
    fields = listed([torch.zeros(1, 2, 2), torch.zeros(1, 3, 2)])
    with pytest.raises(InputError, match="several shapes") as caught:
        next(iter(Loader(fields, 2, workers=workers)))
    assert "\n" not in str(caught.value)


def test_labels_travel_with_their_fields() -> None:
    x = torch.arange(20.0).reshape(20, 1, 1)
    for source in (
        Tensors(x, x[:, 0, 0].long(), valid=5),
        Wrapped(Subset([(f, int(f)) for f in x], range(20)), valid=5),
    ):
        batch = next(iter(Loader(source.load("train"), 15)))
        assert torch.equal(batch.x[:, 0, 0].long(), batch.cond["label"])
        assert batch.cond["label"].dtype == torch.int64
