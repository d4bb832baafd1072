"""The formulas as published, bit for bit in the order of operations of the ancestor."""

import math

import pytest
import torch

from scorefield.nn.embedding import GaussianFourier, Sinusoidal


def test_gaussian_fourier():
    torch.manual_seed(0)
    embedding = GaussianFourier(8, scale=16.0)
    label = torch.tensor([-4.6, 0.0, 3.9])
    phase = label[:, None] * embedding.frequencies[None, :] * 2 * math.pi
    assert torch.equal(embedding(label), torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1))


def test_frequencies_are_fixed_but_saved():
    torch.manual_seed(0)
    embedding = GaussianFourier(20000, scale=16.0)
    assert not list(embedding.parameters()) and set(embedding.state_dict()) == {"frequencies"}
    assert abs(embedding.frequencies.std() - 16) < 0.3


@pytest.mark.parametrize("channels", [16, 17])
def test_sinusoidal(channels):
    label = torch.tensor([0.0, 1.0, 432.5, 999.0])
    out = Sinusoidal(channels)(label)
    assert out.shape == (4, channels)
    frequencies = torch.exp(torch.arange(8, dtype=torch.float32) * -(math.log(10000) / 7))
    phase = label[:, None] * frequencies[None, :]
    assert torch.equal(out[:, :16], torch.cat([torch.sin(phase), torch.cos(phase)], dim=1))
    assert not out[:, 16:].any()
