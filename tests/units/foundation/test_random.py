"""The draws of a sample depend on its own key alone."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators, Stream, seed_of

LIKE = torch.empty(0, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("draw", ["randn", "rand", "rademacher"])
def test_same_key_same_draws_whatever_the_batch(draw, dtype):
    like = torch.empty(0, dtype=dtype)
    batch = Generators([(7, 0), (7, 1), (7, 2)])
    backwards = Generators([(7, 2), (7, 1), (7, 0)])
    alone = Generators([(7, 1)])
    for shape in ((2, 5), (), (3, 17)):  # several draws in a row, of several sizes
        x = getattr(batch, draw)((3, *shape), like=like)
        assert x.shape == (3, *shape) and x.dtype == dtype
        assert torch.equal(x[1:2], getattr(alone, draw)((1, *shape), like=like))
        assert torch.equal(x.flip(0), getattr(backwards, draw)((3, *shape), like=like))


def test_every_part_of_a_key_matters():
    parts = list(itertools.chain.from_iterable(itertools.product((0, 1, 2, 300), repeat=n) for n in (1, 2, 3)))
    assert len({seed_of(*key) for key in parts}) == len(parts)  # (1,) is not (1, 0)


def test_streams_have_a_number_each_and_stand_in_one_table():
    assert len({stream.value for stream in Stream.__members__.values()}) == len(Stream.__members__)
    assert seed_of(7, 0, Stream.SHUFFLE) == seed_of(7, 0, 100)  # what a stored run drew
    for path in Path(scorefield.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.elts if isinstance(node, ast.Tuple) else node.args if isinstance(node, ast.Call) else []
            if len(parts) > 1 and ast.unparse(parts[0]).endswith("seed"):
                last = ast.unparse(parts[-1])
                assert not last.isupper() and not last.isdigit(), f"{path}: {ast.unparse(node)} has a stream of its own"


def test_near_keys_give_unrelated_draws():
    n, length = 64, 4096
    x = Generators([(seed, index, epoch) for seed in range(4) for index in range(4) for epoch in range(4)]).randn(
        (n, length), like=LIKE
    )
    correlation = torch.corrcoef(x) - torch.eye(n, dtype=torch.float64)
    assert correlation.abs().max() < 5 / np.sqrt(length)  # 2016 pairs: the largest of a normal sample lies near 3.5 σ


def test_draws_have_their_law():
    generators = Generators([(0, 0), (0, 1)])
    normal, uniform = generators.randn((2, 50_000), like=LIKE), generators.rand((2, 50_000), like=LIKE)
    error = 4 / np.sqrt(100_000)
    assert abs(normal.mean()) < error and abs(normal.var() - 1) < error * np.sqrt(2)
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < error * np.sqrt(1 / 12)


def test_random_signs_are_the_uniform_draws_below_and_above_a_half():
    signs, uniform = (Generators([(0, 0), (0, 1)]) for _ in range(2))
    found = signs.rademacher((2, 50_000), like=LIKE)
    assert torch.equal(found < 0, uniform.rand((2, 50_000), like=LIKE) < 0.5) and bool((found.abs() == 1).all())


def test_a_negative_key_or_another_batch_size_raises():
    with pytest.raises(InputError, match="A seed is -1"):
        seed_of(0, -1)
    with pytest.raises(ValueError, match="2 generators cannot draw a batch of 3"):
        Generators([(0,), (1,)]).randn((3, 4), like=LIKE)
