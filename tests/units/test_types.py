"""The signatures are checked while the tests run: without this the shapes in them would be decoration."""

import pytest
import torch
from jaxtyping import TypeCheckError

from laws.cases import keys
from scorefield.core.schedule import VP
from scorefield.core.sde import SDE


def test_a_wrong_rank_raises():
    with pytest.raises(TypeCheckError):
        SDE(VP()).perturb(torch.zeros(3), torch.tensor(0.5), generator=keys(3))


def test_a_wrong_dtype_raises():
    with pytest.raises(TypeCheckError):
        VP().alpha(torch.tensor(1))


def test_a_wrong_type_raises():
    with pytest.raises(TypeCheckError):
        SDE(VP()).perturb(torch.zeros(3, 1, 4), 0.5, generator=keys(3))
