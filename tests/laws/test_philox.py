"""Random numbers made on a device: the published integers, the laws of what is made of them, and streams that do not meet."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from scorefield.foundation.philox import Philox, philox
from scorefield.foundation.random import Generators

CPU = torch.device("cpu")
PUBLISHED = (  # counter, key and numbers that the authors of Philox4x32-10 give to check implementations with
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "numbers"), PUBLISHED)
def test_the_integers_are_the_published_ones(counter, key, numbers):
    words = philox([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert tuple(int(word) for word in words) == numbers


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_draws_have_their_laws(dtype):
    stream = Philox(range(50), CPU)
    normal, uniform = stream.randn((50, 2, 1001), dtype), stream.rand((50, 2001), dtype)
    assert normal.dtype == uniform.dtype == dtype
    assert stats.kstest(normal.flatten().double(), "norm").pvalue > 1e-3
    assert stats.kstest(uniform.flatten().double(), "uniform").pvalue > 1e-3
    assert uniform.min() >= 0 and uniform.max() < 1
    rows = torch.cat((normal.flatten(1), math.sqrt(12) * (uniform - 0.5)), dim=1).double()
    correlation = torch.corrcoef(rows) - torch.eye(50)
    assert correlation.abs().max() < 5.5 / math.sqrt(rows.shape[1])
    halves = normal[:, 0].double(), normal[:, 1].double()  # made of the same two numbers: independent all the same
    assert abs(float((halves[0] * halves[1]).mean())) < 5 / math.sqrt(50 * 1001)
    assert abs(float((halves[0].square() * halves[1].square()).mean()) - 1) < 5 * math.sqrt(8 / (50 * 1001))


def test_a_stream_depends_on_its_key_alone_and_goes_on():
    """One sample of many is what it is alone, and what comes later is new."""
    many, alone = Philox([3, 2**63 + 5, 7], CPU), Philox([2**63 + 5], CPU)
    for shape in ((4, 5), (3,), (7,)):
        whole = many.randn((3, *shape), torch.float32)
        assert torch.equal(whole[1:2], alone.randn((1, *shape), torch.float32))
    first, second = alone.rand((1, 1000), torch.float64), alone.rand((1, 1000), torch.float64)
    assert not torch.isin(first, second).any()


def test_generators_draw_on_the_device_of_what_they_are_like():
    like = torch.empty(1, device="meta", dtype=torch.float64)
    generators = Generators([(0, 1), (0, 2)])
    for draw in (generators.randn, generators.rand, generators.rademacher):
        drawn = draw((2, 3), like=like)
        assert (drawn.device.type, drawn.dtype, drawn.shape) == ("meta", torch.float64, (2, 3))
    with pytest.raises(ValueError, match="2 generators cannot draw a batch of 3"):
        generators.randn((3, 4), like=like)
