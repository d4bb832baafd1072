"""Magnitudes of noisy coils: their moments, what takes the bias of noise away, and the noise of a background."""

import pytest
import torch

from scorefield.data.magnitude import background_noise, expected_magnitude, unbiased_square, without_bias
from scorefield.foundation.errors import InputError

F64, DRAWS = torch.float64, 100_000
every_number_of_coils = pytest.mark.parametrize("coils", [1, 4, 32, 64, 100])


def magnitudes(x, noise, coils, seed=0):
    """√Σ|x_c + n_c|² of coils that see unequal parts of x."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.arange(1, coils + 1, dtype=F64)
    weight = (weight / weight.norm()).reshape(-1, *(1,) * x.ndim)
    white = torch.view_as_complex(torch.randn(coils, *x.shape, 2, generator=generator, dtype=F64))
    return (weight * x + noise * white).abs().square().sum(0).sqrt()


@every_number_of_coils
@pytest.mark.parametrize("ratio", [0.0, 0.7, 3.0, 60.0])
def test_the_second_moment_is_unbiased_and_the_first_is_the_formula(ratio, coils):
    noise = 2.5
    x = torch.full((DRAWS,), noise * ratio, dtype=F64)
    m = magnitudes(x, noise, coils)

    def is_mean(values, expected):
        return abs(float(values.mean()) - expected) < 4 * float(values.std()) / DRAWS**0.5

    assert is_mean(unbiased_square(m, noise, coils), (noise * ratio) ** 2)
    assert is_mean(m, float(expected_magnitude(x[:1], noise, coils)))
    assert ratio > 10 or not is_mean(m, noise * ratio)
    found = float(without_bias(m.mean()[None], noise, coils))
    slope = 0.3 if ratio == 0 else 0.02  # at 0 the mean hardly depends on x
    assert found == pytest.approx(noise * ratio, abs=slope * noise * coils**0.5)


@every_number_of_coils
def test_bias_is_taken_away_exactly_where_the_mean_is_known(coils):
    x = torch.linspace(0, 400, 2001, dtype=F64)
    accuracy = max(5e-3, 2e-3 * coils**0.5)  # of a table in steps of σ √L/100
    torch.testing.assert_close(without_bias(expected_magnitude(x, 1.5, coils), 1.5, coils), x, rtol=0, atol=accuracy)
    assert float(without_bias(torch.zeros(1), 1.5, coils)) == 0


@pytest.mark.parametrize("coils", [33, 128])
def test_the_mean_of_many_coils_is_that_of_poisson_many_central_degrees(coils):
    """M²/σ² is χ² with 2(L + j) degrees, j Poisson with mean x²/2σ²: the sum over j of their means."""
    x, j = torch.linspace(0, 30, 31, dtype=F64), torch.arange(2000, dtype=F64)
    weight = (torch.xlogy(j, x[:, None] ** 2 / 2) - x[:, None] ** 2 / 2 - torch.lgamma(j + 1)).exp()
    means = 2**0.5 * (torch.lgamma(coils + j + 0.5) - torch.lgamma(coils + j)).exp()
    torch.testing.assert_close(expected_magnitude(x, 1.0, coils), (weight * means).sum(1), rtol=0, atol=2e-5)


@every_number_of_coils
def test_noise_is_found_in_a_background_and_refused_where_there_is_none(coils):
    x = 300 * torch.rand(200, 200, dtype=F64, generator=torch.Generator().manual_seed(1))
    for share, accuracy in ((200, 0.01), (80, 0.05)):  # lines of air; some of the object is as dark as its noise
        x_here = x.clone()
        x_here[:share] = 0
        m = magnitudes(x_here, 7.0, coils)
        m[:, :20] = 0  # as scanners fill images up
        assert background_noise(m, coils) == pytest.approx(7.0, rel=accuracy)
    with pytest.raises(InputError, match="No background"):
        background_noise(magnitudes(200 + 0 * x, 7.0, 1), 1)
    with pytest.raises(InputError, match="too few"):
        background_noise(torch.zeros(30, 30))
