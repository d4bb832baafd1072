"""Schedules against the numbers of their authors, and what they refuse."""

import json
import math

import pytest
import torch

from scorefield.core.schedule import EDM, VE, VP, Cosine, SubVP, Tabulated, ddpm, geometric, level_ratio
from scorefield.foundation.errors import InputError

TABLES = {"VE(0.01,50)": VE(), "VP(0.1,20)": VP(), "SubVP(0.1,20)": SubVP()}


@pytest.fixture(scope="module")
def tables(golden_folder):
    return json.loads((golden_folder / "sde_tables.json").read_text())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)], ids=["float64", "float32"]
)
@pytest.mark.parametrize("name", TABLES)
def test_song(tables, name, dtype, tolerance):
    """Relative, from t = 1e-5 on, where Song's own float32 σ is 0.6 % off."""
    t, schedule = torch.tensor(tables["t"], dtype=dtype), TABLES[name]
    for key, function in (
        ("alpha", "alpha"),
        ("sigma", "sigma"),
        ("drift_at_x=1", "drift"),
        ("diffusion", "diffusion"),
    ):
        expected = torch.tensor(tables[name][key], dtype=torch.float64)
        torch.testing.assert_close(getattr(schedule, function)(t).double(), expected, rtol=tolerance, atol=0)


def test_level_ratio(tables):
    for dimension, gamma in tables["ncsnv2_technique2_ratio_gamma"].items():
        assert level_ratio(int(dimension)) == pytest.approx(gamma, abs=1e-9)


@pytest.mark.parametrize("dimension", [5, 6, 10, 64, 3072, 10**7])
def test_level_ratio_makes_neighbours_overlap_by_half(dimension):
    gamma, phi = level_ratio(dimension), torch.special.ndtr
    shift, spread = torch.tensor([math.sqrt(2 * dimension) * (gamma - 1), 3 * gamma], dtype=torch.float64)
    assert gamma > 1
    # the root is found to 1e-14 and the overlap moves by at most √(2D)·φ(0) ≈ 1800 times as much
    assert phi(shift + spread) - phi(shift - spread) == pytest.approx(0.5, abs=1e-9)


def test_nichol():
    """α² = f(t)/f(0), f = cos²((t + s)/(1 + s) π/2): Nichol and Dhariwal 2021, eq. 17."""
    t = torch.linspace(0, 0.999, 50, dtype=torch.float64)
    f = (((t + 0.008) / 1.008) * math.pi / 2).cos() ** 2
    alpha, sigma = Cosine(0.008)(t)
    torch.testing.assert_close(alpha**2, f / f[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(sigma**2, 1 - f / f[0], rtol=1e-12, atol=1e-15)


def test_geometric_levels_have_one_ratio():
    table = geometric(0.01, 50.0, 232)
    assert (table.alphas == 1).all()
    torch.testing.assert_close(
        table.sigmas[[0, -1]], torch.tensor([0.01, 50.0], dtype=torch.float64), rtol=1e-13, atol=0
    )
    ratios = table.sigmas[1:] / table.sigmas[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(231), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: VE(0.0, 1.0),
        lambda: VE(2.0, 1.0),
        lambda: VP(-0.1, 20.0),
        lambda: SubVP(20.0, 0.1),
        lambda: VP(0.0, 0.0),
        lambda: EDM(rho=0.0),
        lambda: EDM(80.0, 0.002),
        lambda: Cosine(-0.1),
        lambda: Tabulated([1.0], [0.1]),
        lambda: Tabulated([1.0, 1.0], [0.1]),
        lambda: Tabulated([1.0, 1.0], [0.2, 0.1]),
        lambda: Tabulated([1.0, 0.0], [0.1, 1.0]),
        lambda: Tabulated([1.0, 1.0], [0.0, 1.0]),
        lambda: geometric(0.0, 1.0, 10),
        lambda: geometric(1.0, 1.0, 10),
        lambda: geometric(0.1, 1.0, 1),
        lambda: ddpm(levels=10),  # β = 2
        lambda: level_ratio(4),
    ],
)
def test_arguments_that_are_no_schedule_raise(build):
    with pytest.raises(InputError):
        build()
