"""Generated functions obey the equations that they are said to: Navier-Stokes, Mogi, turbulence, speckle."""

import math

import numpy as np
import pytest
import torch

from scorefield.datasets import NavierStokes, Volcano
from scorefield.datasets.volcano import decorrelate, mogi, towards_radar, turbulence
from scorefield.datasets.vorticity import Flow, budget, initial
from scorefield.foundation.errors import InputError

F64 = torch.float64


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# -------------------------------------------------------------------------------------------------------- Navier-Stokes
def test_a_taylor_green_vortex_decays_as_it_must():
    """ω = 2 cos 2πx cos 2πy e^(−8π²νt): its advection vanishes, and the viscous term is integrated exactly."""
    at = 2 * math.pi * torch.arange(16, dtype=F64) / 16
    vortex = 2 * at.cos()[:, None] * at.cos()
    found = Flow(viscosity=0.01, forcing=0.0).run(vortex[None], 1.5, 10)
    torch.testing.assert_close(found[0], vortex * math.exp(-8 * math.pi**2 * 0.01 * 1.5), atol=1e-13, rtol=0)


def test_energy_and_enstrophy_are_conserved_without_viscosity_to_the_order_of_the_steps():
    """Galerkin truncation conserves both exactly; halving the step divides the error by 2⁴ or more."""
    start = Flow(0.0, 0.0).run(initial(24, 0, range(2)) * 4, 0.1, 40)  # past the cut of aliases
    before = budget(start)
    errors = [
        [float((b / a - 1).abs().max()) for a, b in zip(before, budget(Flow(0.0, 0.0).run(start, 1.0, n)), strict=True)]
        for n in (20, 40)
    ]
    for coarse, fine in zip(*errors, strict=True):
        assert 1e-12 < fine < coarse / 14 and coarse < 1e-3


def test_energy_falls_by_viscosity_and_rises_by_forcing():
    """dE/dt = −2νZ + ⟨ψ f⟩, by central differences of second order."""
    flow, dt = Flow(viscosity=5e-3, forcing=0.3), 1e-3
    w = Flow(5e-3, 0.3).run(initial(24, 1, range(1)), 1.0, 100)
    middle, after = flow.run(w, dt, 1), flow.run(w, 2 * dt, 2)
    change = (budget(after)[0] - budget(w)[0]) / (2 * dt)
    at = 2 * math.pi * torch.arange(24, dtype=F64) / 24
    force = 0.3 * ((at[:, None] + at).sin() + (at[:, None] + at).cos())
    psi = force / (8 * math.pi**2)  # −Δψ = f, and ⟨ψ(ω) f⟩ = ⟨ω ψ(f)⟩
    expected = -2 * 5e-3 * budget(middle)[1] + (middle * psi).mean((1, 2))
    torch.testing.assert_close(change, expected, rtol=1e-4, atol=0)


def test_a_flow_is_the_same_on_a_finer_grid_and_its_sequences_know_their_number_alone():
    coarse, fine = initial(32, 0, range(2)), initial(64, 0, range(2))
    torch.testing.assert_close(fine[:, ::2, ::2], coarse)
    resolved = [Flow(viscosity=1e-3).run(start, 1.0, 20) for start in (coarse, fine)]
    torch.testing.assert_close(resolved[1][:, ::2, ::2], resolved[0], atol=1e-3, rtol=0)
    assert initial(16, 3, range(1, 2)).equal(initial(16, 3, range(2))[1:])
    assert coarse.mean((1, 2)).abs().max() < 1e-15


def test_sequences_are_kept_and_others_are_not_taken_for_them(tmp_path):
    source = NavierStokes(4, frames=3, size=8, interval=0.1, spin_up=0.1, step=0.05, cache=tmp_path / "ns.npz", valid=1)
    first = source.load("train").gather(torch.arange(3)).x
    assert first.shape == (3, 3, 8, 8) and first.isfinite().all() and not first[:, 0].equal(first[:, 2])
    assert source.load("train").gather(torch.arange(3)).x.equal(first)
    other = NavierStokes(4, frames=2, size=8, interval=0.1, spin_up=0.1, step=0.05, cache=tmp_path / "ns.npz", valid=1)
    with pytest.raises(InputError, match="other sequences"):
        other.load("train")
    (tmp_path / "ns.npz").write_bytes(b"")
    with pytest.raises(InputError, match="delete it"):
        source.load("train")
    with pytest.raises(InputError, match="unstable"):
        NavierStokes(1, 2, 40.0, 0.0, 16, 20.0, viscosity=0.0, forcing=1e6, valid=0).load("train")
    with pytest.raises(InputError, match="step <= interval"):
        NavierStokes(step=2.0)


# ---------------------------------------------------------------------------------------------------------------- Mogi
def test_a_mogi_source_lifts_the_ground_as_its_volume_demands():
    """Above the source u_z = (1 − ν)ΔV/(πD²); the volume of the uplift is 2(1 − ν)ΔV; u_r/u_z = r/D."""
    depth, volume = torch.tensor(3e3, dtype=F64), torch.tensor(1e6, dtype=F64)
    zero = torch.zeros((), dtype=F64)
    _, _, peak = mogi(zero, zero, depth, volume)
    assert float(peak) == pytest.approx(0.75 * 1e6 / (math.pi * 9e6))
    r = torch.linspace(0, 3e6, 2_000_001, dtype=F64)
    across, _, up = mogi(r, torch.zeros_like(r), depth.expand_as(r), volume.expand_as(r))
    torch.testing.assert_close(across, up * r / 3e3)
    lifted = torch.trapezoid(2 * math.pi * r * up, r)
    assert float(lifted) == pytest.approx(2 * 0.75 * 1e6, rel=2e-3)  # beyond 3000 km are 2 D/R of it


def test_uplift_comes_nearer_to_the_radar_and_motion_along_its_flight_does_not():
    incidence, heading = torch.tensor(0.6, dtype=F64), torch.tensor(-0.2, dtype=F64)
    one, none = torch.ones((), dtype=F64), torch.zeros((), dtype=F64)
    assert float(towards_radar(none, none, one, incidence, heading)) == pytest.approx(math.cos(0.6))
    along = towards_radar(heading.sin(), heading.cos(), none, incidence, heading)
    away = towards_radar(heading.cos(), -heading.sin(), none, incidence, heading)  # to the right, where it looks
    assert abs(float(along)) < 1e-15 and float(away) == pytest.approx(-math.sin(0.6))


# ---------------------------------------------------------------------------------------------------------- atmosphere
def test_turbulence_falls_by_its_power_and_has_unit_variance():
    fields = turbulence(randn(400, 64, 64), outer=0.5)
    assert float(fields.square().mean()) == pytest.approx(1, abs=0.05)
    power = torch.fft.fft2(fields).abs().square().mean(0)
    k = torch.arange(6, 30, dtype=F64)
    line = np.polyfit(np.log(k.numpy()), np.log((power[0, 6:30] + power[6:30, 0]).numpy()), 1)
    assert line[0] == pytest.approx(-11 / 3, abs=0.1)  # 0.05 is its error with so many fields


@pytest.mark.parametrize("gamma", [0.2, 0.6, 0.9])
def test_the_phase_of_one_look_varies_as_its_coherence_says(gamma):
    """Var φ = π²/3 − π asin γ + asin² γ − Li₂(γ²)/2 (Bamler and Hartl 1998); 0.03 is 4 errors of 4·10⁴ draws or more."""
    phase = torch.zeros(1, 200, 200, dtype=F64)
    z = decorrelate(phase, torch.full_like(phase, gamma), randn(1, 1, 4, 200, 200))
    dilogarithm = sum(gamma ** (2 * k) / k**2 for k in range(1, 400))
    expected = math.pi**2 / 3 - math.pi * math.asin(gamma) + math.asin(gamma) ** 2 - dilogarithm / 2
    assert float(z.angle().square().mean()) == pytest.approx(expected, rel=0.03)


def test_looks_average_the_noise_away_and_full_coherence_has_none():
    phase = torch.full((1, 100, 100), 0.4, dtype=F64)
    z = decorrelate(phase, torch.full_like(phase, 0.9), randn(1, 64, 4, 100, 100))
    assert float((z.angle() - 0.4).square().mean()) == pytest.approx((1 - 0.81) / (2 * 64 * 0.81), rel=0.05)
    sure = decorrelate(phase, torch.ones_like(phase), randn(1, 1, 4, 100, 100))
    torch.testing.assert_close(sure.angle(), phase)


def test_interferograms_know_their_number_alone_and_are_on_the_circle():
    source = Volcano(n=8, size=16, valid=4)
    train, valid = source.load("train"), source.load("valid")
    batch = train.gather(torch.tensor([5, 2])).x
    assert batch.shape == (2, 2, 16, 16) and batch[1].equal(train[2].x) and not batch[0].equal(valid[0].x)
    torch.testing.assert_close(batch.square().sum(1), torch.ones(2, 16, 16))
    for options, words in (
        ({"coherence": (0.5, 1.5)}, "coherence"),
        ({"looks": 0}, "looks"),
        ({"depth": (0.0, 1.0)}, "depth"),
    ):
        with pytest.raises(InputError, match=words):
            Volcano(**options)
