"""Circular moments against closed forms; residues of vortices and of noise; what shuffled pixels do and do not change."""

import math

import pytest
import torch
from scipy.special import i0, i1, iv

from scorefield.foundation.cosine import dct, idct
from scorefield.foundation.errors import InputError
from scorefield.metrics.circular import (
    circular_distances,
    circular_moments,
    phase_spectrum,
    phasors,
    residue_density,
    shuffled,
)
from scorefield.metrics.comparison import Phases, Spectra, floor
from scorefield.metrics.spectrum import band_distance, cosine_spectrum

F64 = torch.float64


def fields(phase: torch.Tensor) -> torch.Tensor:
    return torch.stack((phase.cos(), phase.sin()), 1)


def noise(n, size, seed=0):
    return torch.randn(n, size, size, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_the_moments_are_those_of_their_laws():
    """Of N(0, s²) wrapped, R_p = exp(−p²s²/2); of von Mises(κ), R_1 = I_1(κ)/I_0(κ). Neither is skewed; 0.01 is 3 errors."""
    wrapped = circular_moments(fields(0.7 + noise(1, 300)))
    assert abs(float(wrapped.variance) - (1 - math.exp(-0.5))) < 0.01 and abs(float(wrapped.skewness)) < 0.03
    mises = torch.distributions.VonMises(torch.tensor(1.0, dtype=F64), torch.tensor(2.0, dtype=F64))
    torch.manual_seed(0)
    assert abs(float(circular_moments(fields(mises.sample((1, 300, 300)))).variance) - (1 - i1(2) / i0(2))) < 0.01
    assert iv(1, 2) == pytest.approx(i1(2))


def test_the_skewness_is_that_of_two_directions_and_undefined_of_one():
    """Shares 3/4 at 0 and 1/4 at π/2: R_1 e^(iT_1) = (3 + i)/4, R_2 e^(iT_2) = 1/2."""
    phase = torch.zeros(1, 8, 8, dtype=F64)
    phase[:, :2] = math.pi / 2
    first, second = complex(3, 1) / 4, 0.5
    expected = second * math.sin(-2 * math.atan2(1, 3)) / (1 - abs(first)) ** 1.5
    found = circular_moments(fields(phase))
    assert float(found.skewness) == pytest.approx(expected) and float(found.variance) == pytest.approx(1 - abs(first))
    assert float(circular_moments(fields(-phase)).skewness) == pytest.approx(-expected)
    assert bool(circular_moments(fields(0.1 * phase)).skewness.isnan())


def test_moments_know_no_unit_no_offset_and_nothing_of_what_is_missing():
    x = fields(noise(2, 12))
    turned = fields(noise(2, 12) + 2.0)
    torch.testing.assert_close(circular_moments(3 * x), circular_moments(x))
    torch.testing.assert_close(circular_moments(turned), circular_moments(x))
    holes = x.clone()
    holes[:, :, :6] = 0
    torch.testing.assert_close(circular_moments(holes), circular_moments(x[:, :, 6:]))
    assert residue_density(holes).equal(residue_density(x[:, :, 6:]))


def test_a_vortex_has_one_residue_and_noise_one_in_three():
    at = torch.arange(8, dtype=F64) - 3.5
    vortex = torch.atan2(at[:, None], at)[None]
    assert float(residue_density(fields(vortex))) == pytest.approx(1 / 49)
    assert float(residue_density(fields(3 * at.expand(1, 8, 8)))) == 0  # a steep ramp has none
    uniform = 2 * math.pi * torch.rand(1, 400, 400, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert abs(float(residue_density(fields(uniform))) - 1 / 3) < 0.01


def test_shuffled_pixels_score_zero_in_moments_but_not_in_space():
    smooth = torch.fft.ifft2(torch.fft.fft2(noise(8, 32)) * (torch.fft.fftfreq(32)[:, None].abs() < 0.1)).real * 4
    x = fields(smooth)
    control = Phases().control(x)
    assert control["w_total"] < 1e-12 and control["residues"] > 0.05 and control["phase_spectrum"] > 0.5
    mixed = shuffled(x)
    assert mixed.flatten(2).sort(2).values.equal(x.flatten(2).sort(2).values)
    assert circular_distances(x, x)["w_total"] == 0
    same = Phases()(x, x)
    assert same.pop("skewed") == 1 and set(same.values()) == {0.0}


def test_the_floor_falls_with_the_number_of_fields_and_is_below_a_difference():
    x = fields(noise(64, 12) * torch.linspace(0.5, 1.5, 64, dtype=F64)[:, None, None])
    other = fields(noise(64, 12, seed=1) * 1.5)
    few, many = floor(Phases(), x[::8]), floor(Phases(), x)
    assert many["w_total"] < few["w_total"] and 3 * many["w_var"] < Phases()(other, x)["w_var"]


def test_a_cosine_has_its_power_in_its_own_ring_and_white_noise_equal_power_in_all():
    """cos(πpu) cos(πqv) has the mean square 1/4, all of it in ring round(√(p² + q²))."""
    u = (torch.arange(16, dtype=F64) + 0.5) / 16
    x = torch.cos(3 * math.pi * u)[:, None] * torch.cos(4 * math.pi * u)
    found = cosine_spectrum(x)
    modes = sum(round(math.hypot(p, q)) == 5 for p in range(16) for q in range(16))
    expected = torch.zeros(15, dtype=F64)
    expected[4] = 0.25 / modes
    torch.testing.assert_close(found.power, expected, atol=1e-15, rtol=0)
    assert float(found.wavenumber[4]) == pytest.approx(5 / 32)
    white = cosine_spectrum(noise(400, 16)).power.mean(0)
    torch.testing.assert_close(white, torch.full((15,), 1 / 256, dtype=F64), rtol=0.2, atol=0)


def test_distances_of_spectra_are_logarithms_and_see_two_resolutions_of_one_domain():
    x = noise(16, 16)[:, None]
    figures = Spectra()(2 * x, x)
    assert figures["spectrum"] == pytest.approx(math.log(4)) and figures["values"] > 0.5
    assert band_distance(torch.ones(3, 2), torch.full((1, 2), math.e)).tolist() == pytest.approx([1.0, 1.0])
    assert Spectra("periodic")(x, x)["spectrum_worst"] == 0
    assert math.isfinite(Spectra()(noise(4, 32)[:, None], x)["spectrum"])


def test_new_bands_are_told_apart_with_their_sign():
    """A field with double amplitude from band 6 on: nothing is wrong with the five that are known, ln 4 is with the others."""
    x = noise(16, 16)[:, None]
    high = dct(x, (-1, -2))
    high[..., torch.arange(16)[:, None].square() + torch.arange(16).square() < 5.5**2] = 0
    high = idct(high, (-1, -2))
    figures = Spectra(known=5)(x + high, x)
    assert figures["spectrum_new"] == pytest.approx(math.log(4)) and figures["spectrum_worst"] < 1e-9
    assert Spectra(known=5)(x - 0.5 * high, x)["spectrum_new"] == pytest.approx(-math.log(4))
    assert "spectrum_new" not in Spectra()(x, x)
    with pytest.raises(InputError, match="known bands"):
        Spectra(known=-1)


def test_it_is_said_how_many_fields_have_a_skewness():
    """Fields of nearly equal phases have none; where all are such, their distance is no number."""
    skewed, quiet = fields(noise(4, 16)), fields(0.01 * noise(4, 16))
    assert circular_distances(skewed, torch.cat((skewed, quiet)))["skewed"] == 0.5
    found = circular_distances(quiet, quiet)
    assert found["skewed"] == found["w_var"] == 0 and math.isnan(found["w_skew"]) and math.isnan(found["w_total"])


def test_what_is_no_phase_is_refused():
    with pytest.raises(InputError, match="two channels"):
        phasors(torch.zeros(2, 3, 4, 4))
    with pytest.raises(InputError, match="two fields"):
        floor(Phases(), torch.zeros(1, 2, 4, 4))
    assert len(phase_spectrum(fields(noise(1, 8))).wavenumber) == 4
