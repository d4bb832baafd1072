"""Spectra of fields whose spectrum is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.metrics.comparison import Boundary, Spectra
from scorefield.metrics.spectrum import cosine_spectrum, enough, log_spectral_distance, radial_spectrum


def power_law(height: int, width: int, exponent: float, n: int) -> torch.Tensor:
    """Gaussian fields, periodic, whose modes have E|x_k|² ∝ |k|^exponent, k in cycles per grid spacing."""
    k = (torch.fft.fftfreq(height)[:, None] ** 2 + torch.fft.rfftfreq(width) ** 2).sqrt().double()
    k[0, 0] = math.inf if exponent < 0 else 0.0
    white = torch.randn(n, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.fft.irfft2(torch.fft.rfft2(white) * k ** (exponent / 2), s=(height, width))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (65, 33)])
@pytest.mark.parametrize("exponent", [-3.0, -5 / 3, 0.0])
def test_the_slope_of_a_ring_mean_is_that_of_the_modes(height: int, width: int, exponent: float) -> None:
    spectrum = radial_spectrum(power_law(height, width, exponent, 40))
    far = (
        spectrum.wavenumber >= 4 * spectrum.wavenumber[0]
    )  # rings of one or two modes vary, and are wide for their radius
    k, power = spectrum.wavenumber[far].log().numpy(), spectrum.power.mean(0)[far].log().numpy()
    assert np.polyfit(k, power, 1)[0] == pytest.approx(exponent, abs=0.1)


def test_a_wave_lies_in_its_ring_whatever_its_direction_and_the_units() -> None:
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    for spacing, wave, k in (
        ((1.0, 1.0), torch.sin(2 * math.pi * 6 * y / 48), 6 / 48),
        ((1.0, 1.0), torch.sin(2 * math.pi * 5 * x / 64), 5 / 64),
        ((8.0, 8.0), torch.sin(2 * math.pi * (3 * y / 48 + 4 * x / 64)), math.hypot(3 / 48, 4 / 64) / 8),
        ((2.0, 1.0), torch.sin(2 * math.pi * 6 * y / 48), 6 / 96),
    ):
        spectrum = radial_spectrum(wave, spacing)
        longest = max(48 * spacing[0], 64 * spacing[1])
        strongest = int(spectrum.power.argmax())
        assert abs(float(spectrum.wavenumber[strongest]) - k) * longest <= 0.5
        assert spectrum.power[strongest] > 1e6 * spectrum.power.sort().values[-2]


def test_white_noise_has_its_variance_over_the_number_of_modes_in_every_ring_tapered_or_not() -> None:
    x = 3 * torch.randn(200, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for taper in (False, True):
        power = radial_spectrum(x, taper=taper).power.mean(0) * 32 * 32
        assert float(power[3:].mean()) == pytest.approx(9, rel=0.02)
        assert power[3:].sub(9).abs().max() < 9 * 0.15  # 5 standard errors of the fourth ring


@pytest.mark.parametrize("grid", [(64,), (17,), (12, 16, 10)])
def test_lines_and_volumes_have_spectra_too(grid: tuple[int, ...]) -> None:
    """White noise has its variance in every mode, and a wave lies in its ring, in one and three dimensions."""
    spacing, count = (1.0,) * len(grid), math.prod(grid)
    x = 3 * torch.randn(400, *grid, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for found in (radial_spectrum(x, spacing), radial_spectrum(x, spacing, taper=True), cosine_spectrum(x, spacing)):
        power = found.power.mean(0) * count
        assert power[3:].sub(9).abs().max() < 9 * 0.4 and float(power[3:].mean()) == pytest.approx(9, rel=0.05)
    places = torch.arange(grid[0], dtype=torch.float64).reshape(-1, *(1,) * (len(grid) - 1)).expand(grid)
    for found, wave in (
        (radial_spectrum, torch.sin(2 * math.pi * 3 * places / grid[0])),
        (cosine_spectrum, torch.cos(math.pi * 3 * (places + 0.5) / grid[0])),
    ):
        power = found(wave, spacing).power
        assert int(power.argmax()) + 1 == round(3 * max(grid) / grid[0]) and power.max() > 1e6 * power.sort().values[-2]


@pytest.mark.parametrize("boundary", ["cosine", "taper", "periodic"])
@pytest.mark.parametrize("grid", [(64,), (8, 8, 8)])
def test_models_of_lines_and_volumes_are_compared_by_their_spectra(grid: tuple[int, ...], boundary: Boundary) -> None:
    one, other = (torch.randn(300, 1, *grid, generator=torch.Generator().manual_seed(n)) for n in (0, 1))
    found = Spectra(boundary)(2 * one, other)
    assert found["spectrum"] == pytest.approx(math.log(4), abs=0.1) and found["values"] > 0.5
    assert Spectra(boundary)(one, other)["spectrum"] < 0.1


def test_a_taper_takes_away_the_jump_of_a_field_that_is_not_periodic() -> None:
    part = power_law(128, 128, -5.0, 20)[:, :64, :64]
    slopes = []
    for taper in (False, True):
        spectrum = radial_spectrum(part, taper=taper)
        slopes.append(np.polyfit(spectrum.wavenumber[5:].log(), spectrum.power.mean(0)[5:].log(), 1)[0])
    assert slopes[0] > -4 and slopes[1] == pytest.approx(-5, abs=0.3)


def test_the_distance_of_spectra_in_decibels() -> None:
    one = torch.rand(3, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1
    assert log_spectral_distance(one, one).abs().max() == 0
    torch.testing.assert_close(log_spectral_distance(2 * one, one), torch.full((3,), 10 * math.log10(2)).double())
    torch.testing.assert_close(log_spectral_distance(one, 2 * one), log_spectral_distance(2 * one, one))


def test_a_point_has_no_spectrum() -> None:
    with pytest.raises(InputError, match="1×1"):
        radial_spectrum(torch.zeros(1, 1))


@pytest.mark.parametrize("exponent", [-2.0, 0.0])
def test_the_spectrum_of_what_is_known_is_that_of_the_whole(exponent: float) -> None:
    """With 30 % masked, scattered or as a sea: without bias in any ring, where zeros in the gaps are off by a third."""
    fields = power_law(32, 48, exponent, 400)
    whole = radial_spectrum(fields).power.mean(0)
    scattered = torch.rand(fields.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    sea = torch.ones(fields.shape, dtype=torch.bool)
    sea[:, 14:, 22:] = False
    for valid in (scattered, sea):
        assert 0.6 < valid.double().mean() < 0.75 and bool(enough(valid).all())
        found = radial_spectrum(fields, valid=valid).power.mean(0)
        assert float((found / whole).log().mean().abs()) < 0.05
        assert float(log_spectral_distance(found, whole)) < (0.5 if valid is scattered else 1.0)
    torch.testing.assert_close(radial_spectrum(fields, valid=torch.ones_like(sea)).power.mean(0), whole)
    sea[:, :, 20:] = False
    assert not bool(enough(sea).any())
