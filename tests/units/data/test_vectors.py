"""Labels that are numbers: read as vectors and said so, dropped, standardised, and refused where they make no sense."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from scorefield.data import Arrays, Batch, DropLabel, Tensors, Wrapped
from scorefield.data.inspect import inspect
from scorefield.data.normalise import Standardise, VectorUnits
from scorefield.foundation.errors import InputError

N = 12
X = np.random.default_rng(0).normal(size=(N, 1, 6)).astype(np.float32)
YEARS = 2000.0 + np.arange(N) + 0.5
PAIRS = np.stack((YEARS, np.linspace(-1, 1, N)), axis=1)
NAN = float("nan")


class Items(Dataset):
    """Some items, as a data set of a user's own."""

    def __init__(self, *items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int):
        return self.items[index]


def saved(path, **arrays):
    np.savez(path / "data.npz", **arrays)
    return path / "data.npz"


def vectors(fields) -> torch.Tensor:
    return fields.gather(torch.arange(len(fields))).cond["vector"]


# -------------------------------------------------------------------------------------------------------------- sources
@pytest.mark.parametrize(("given", "entries"), [(YEARS, 1), (YEARS[:, None], 1), (PAIRS, 2), (PAIRS.astype("f4"), 2)])
def test_labels_that_are_floats_are_vectors(tmp_path, given, entries) -> None:
    """Of a .npz, of a second .npy, of tensors: the same numbers in float64, no classes, and a note that says it."""
    path = saved(tmp_path, x=X, c=given)
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "c.npy", given)
    second = Arrays(tmp_path / "x.npy", labels=str(tmp_path / "c.npy"), valid=2)
    for source in (Arrays(path, labels="c", valid=2), second, Tensors(torch.tensor(X), torch.tensor(given), valid=2)):
        fields = source.load("train")
        found = vectors(fields)
        expected = given.reshape(N, -1)[fields.indices.numpy()].astype("f8")
        assert found.dtype == torch.float64 and found.shape == (N - 2, entries)
        np.testing.assert_array_equal(found.numpy(), expected)
        assert fields.classes == () and "label" not in fields[0].cond
        assert any("floats" in note and f"vectors of {entries} number" in note for note in fields.notes)


def test_integers_are_vectors_where_that_is_asked_for(tmp_path) -> None:
    years, classes = np.arange(2000, 2000 + N), np.arange(N) % 3
    path = saved(tmp_path, x=X, year=years, y=classes)
    fields = Arrays(path, vector="year", valid=2).load("train")
    batch = fields.gather(torch.arange(3))
    assert batch.cond["vector"].flatten().tolist() == years[fields.indices[:3]].tolist()
    assert batch.cond["label"].tolist() == classes[fields.indices[:3]].tolist()  # classes and vectors side by side
    assert fields.classes == ("0", "1", "2") and fields.notes == ()
    assert vectors(Tensors(torch.tensor(X), vector=torch.tensor(years), valid=2).load("valid")).shape == (2, 1)
    items = TensorDataset(torch.tensor(X), torch.tensor(years))
    assert vectors(Wrapped(items, valid=2, vector=True).load("valid")).shape == (2, 1)
    assert "label" in Wrapped(items, valid=2).load("valid")[0].cond


def test_floats_that_were_not_asked_for_are_said_and_left_alone(tmp_path) -> None:
    fields = Arrays(saved(tmp_path, x=X, y=YEARS), valid=2).load("train")
    assert fields[0].cond == {} and any("y of" in note and "not used" in note for note in fields.notes)


def test_one_hot_floats_are_classes(tmp_path) -> None:
    one_hot = np.eye(3)[np.arange(N) % 3]
    assert Arrays(saved(tmp_path, x=X, c=one_hot), labels="c", valid=2).load("train").classes == ("0", "1", "2")
    assert vectors(Arrays(saved(tmp_path, x=X, c=one_hot), vector="c", valid=2).load("train")).shape == (N - 2, 3)


def test_the_splits_of_a_file_have_their_own_vectors(tmp_path) -> None:
    path = saved(tmp_path, x_train=X[:8], x_valid=X[8:], c_train=PAIRS[:8], c_valid=PAIRS[8:])
    for source in (Arrays(path, labels="c"), Arrays(path, vector="c")):
        np.testing.assert_array_equal(vectors(source.load("train")).numpy(), PAIRS[:8])
        np.testing.assert_array_equal(vectors(source.load("valid")).numpy(), PAIRS[8:])


@pytest.mark.parametrize("label", [0.3, np.float32(0.3), torch.tensor(0.3), (0.1, 0.2), torch.tensor([0.1, 0.2])])
def test_items_with_floats_have_vectors(label) -> None:
    found = vectors(Wrapped(Items(*[(torch.zeros(1, 4), label)] * 3), valid=1).load("train"))
    expected = np.atleast_1d(np.asarray(label))
    assert found.shape == (2, len(expected))
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-6)


def test_items_of_several_kinds_are_refused() -> None:
    items = [(torch.zeros(1, 4), 1), (torch.zeros(1, 4), 0.5), torch.zeros(1, 4)]
    for some in (items[:2], items[1:], [items[1], (torch.zeros(1, 4), (0.1, 0.2))]):
        with pytest.raises(InputError, match="several kinds"):
            vectors(Wrapped(Items(*some, *some), valid=1).load("train"))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (PAIRS[:-1], "each of 12 fields"),
        (PAIRS[:, :, None], "each of 12 fields"),
        (np.where(np.arange(N)[:, None] == 3, [[NAN, 1.0]], PAIRS), "Vector 3 .* nan, 1"),
        (np.where(np.arange(N) == 4, np.inf, YEARS), "Vector 4 .* inf"),
        (np.array(["a"] * N), "Vectors of"),
    ],
)
def test_what_is_no_vector_is_refused(tmp_path, given, says) -> None:
    with pytest.raises(InputError, match=says):
        Arrays(saved(tmp_path, x=X, c=given), vector="c", valid=2).load("train")


def test_a_row_of_nan_is_a_field_whose_vector_is_unknown(tmp_path) -> None:
    given = PAIRS.copy()
    given[::3] = NAN
    fields = Arrays(saved(tmp_path, x=X, c=given), labels="c", valid=2).load("train")
    assert vectors(fields).isnan().all(1).sum() == np.isnan(given[fields.indices]).all(1).sum()


# ----------------------------------------------------------------------------------------------------------- check-data
def test_check_data_says_what_it_took_for_vectors() -> None:
    fields = Tensors(torch.tensor(X), torch.tensor(PAIRS), valid=2).load("train")
    low, high = vectors(fields)[:, 0].aminmax()
    table = inspect(fields, Standardise()).table()
    assert f"2 numbers: {float(low):.6g} to {float(high):.6g}, " in table and "no classes" in table


def test_check_data_warns_of_vectors_that_may_be_classes_or_teach_nothing() -> None:
    whole = inspect(Tensors(torch.tensor(X), torch.arange(N) % 3 * 1.0, valid=2).load("train"), Standardise())
    assert any("save them as integers" in warning for warning in whole.warnings)
    same = torch.tensor(PAIRS)
    same[:, 1] = 7
    found = inspect(Tensors(torch.tensor(X), same, valid=2).load("train"), Standardise())
    assert any("Entry 1" in warning and "7" in warning for warning in found.warnings)


# ----------------------------------------------------------------------------------------------------------------- units
def units(vector: torch.Tensor) -> VectorUnits:
    found = VectorUnits(vector.shape[1])
    found.fit([Batch(torch.zeros(len(part), 1, 2), {"vector": part}) for part in vector.split(5)])
    return found


def test_entries_are_standardised_each_by_itself_and_unknown_ones_are_left_out() -> None:
    known = torch.tensor(PAIRS)
    found = units(torch.cat((known[:4], torch.full((2, 2), NAN, dtype=torch.float64), known[4:])))
    torch.testing.assert_close(found(known), (known - known.mean(0)) / known.std(0, correction=0), atol=1e-4, rtol=1e-4)
    assert found(torch.full((1, 2), NAN)).isnan().all() and found(known).dtype == torch.float64


def test_a_small_difference_on_a_large_offset_is_kept() -> None:
    """Seconds since 1970, an hour apart: float32 knows multiples of 128 of them."""
    seconds = 1.7e9 + 3600.0 * torch.arange(N, dtype=torch.float64)[:, None]
    steps = units(seconds)(seconds).diff(dim=0)
    torch.testing.assert_close(steps, steps[:1].expand(N - 1, 1), rtol=1e-6, atol=0)


def test_units_survive_storing_and_half_precision() -> None:
    vector = torch.tensor(PAIRS)
    first, second = units(vector), VectorUnits(2)
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first(vector), second.bfloat16()(vector))


def test_vectors_that_make_no_sense_have_no_units() -> None:
    fitted, good = units(torch.tensor(PAIRS)), torch.tensor(PAIRS)
    with pytest.raises(InputError, match=r"\(batch, 2\)"):
        fitted(good[:, :1])
    with pytest.raises(InputError, match="Vector 1 of cond"):
        fitted(torch.tensor([[0.0, 0.0], [NAN, 0.0]]))
    with pytest.raises(InputError, match="Entry 1"):
        units(good * torch.tensor([1.0, 0.0]))
    with pytest.raises(InputError, match="no vectors"):
        VectorUnits(2).fit([Batch(torch.zeros(3, 1, 2))])


# -------------------------------------------------------------------------------------------------------------- dropping
def test_vectors_are_dropped_by_each_samples_own_key_together_with_classes() -> None:
    n = 2000
    keys = torch.stack((torch.arange(n), torch.zeros(n, dtype=torch.long)), dim=1)
    vector, label = torch.randn(n, 3, generator=torch.Generator().manual_seed(0)), torch.arange(n) % 7
    whole = Batch(torch.zeros(n, 1, 2), {"vector": vector, "label": label}, key=keys)
    dropped = DropLabel(0.2)(whole, 3).cond
    gone = dropped["vector"].isnan()
    assert abs(gone.all(1).float().mean() - 0.2) < 0.03 and torch.equal(gone.any(1), gone.all(1))
    assert torch.equal(dropped["label"] == -1, gone.all(1))
    assert torch.equal(dropped["vector"][~gone.all(1)], vector[~gone.all(1)])
    some = torch.tensor([5, 3, 900])
    part = replace(whole, x=whole.x[some], cond={"vector": vector[some]}, key=keys[some])
    torch.testing.assert_close(DropLabel(0.2)(part, 3).cond["vector"], dropped["vector"][some], equal_nan=True)
    assert DropLabel(1.0)(whole, 3).cond["vector"].isnan().all()
