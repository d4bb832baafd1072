"""Likelihoods by the flow, against densities in closed form; probes by their moments; codes by their round trip and their law."""

import math

import pytest
import torch

from laws.cases import LAWS, SCHEDULES, SIGNAL_ENDS, Draws, gaussian, keys, mixture, rarely, time
from scorefield.core.denoiser import Denoiser, EDMPreconditioner
from scorefield.core.noise import White
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE, expand_like
from scorefield.data import Standardise
from scorefield.data import batch as batches
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.model import Model
from scorefield.nn.network import Network
from scorefield.samplers import Exact, Normal, ProbabilityFlow, Rademacher, Sphere
from scorefield.samplers.flow import velocity
from scorefield.samplers.likelihood import bits_per_dimension, frozen, interpolate, with_divergence

F64 = torch.float64
FLOW = ProbabilityFlow(1e-5, Exact())
PROBES = {"Rademacher": Rademacher, "Normal": Normal, "Sphere": Sphere}
pytestmark = pytest.mark.usefixtures("unchecked")
every_schedule = pytest.mark.parametrize("name", SCHEDULES)
costly_schedules = pytest.mark.parametrize("name", rarely(SCHEDULES))
every_probe = pytest.mark.parametrize("probe", PROBES)


def difference(oracle, shape, flow, n=6):
    """In nats per dimension: to the density at t_min, of which x is α⁻¹ of a draw; the largest of n."""
    schedule = oracle.sde.schedule
    t_min, _ = flow.ends(schedule)
    x = oracle.marginal((n, *shape), t_min, generator=keys(n)) / schedule.alpha(t_min)
    found = flow.log_prob(oracle, x, generator=keys(n, seed=1))
    dimension, alpha = x[0].numel(), schedule.alpha(t_min)
    exact = oracle.log_density(alpha * x, t_min) + dimension * alpha.log()
    return ((found.nats - exact) / dimension).abs().max().item()


@pytest.mark.parametrize("law", LAWS)
@costly_schedules
def test_gaussian_densities_are_exact(name, law):
    """To 1e-4 nats per dimension, some ten steps of 1e-5; to 1e-2 where α(1) > 0 and N(0, σ²C) is not quite the law there."""
    oracle = gaussian(SCHEDULES[name], law, mean=0.3)
    assert difference(oracle, (1, 8), FLOW) < (1e-4 if name in SIGNAL_ENDS else 1e-2)


@every_schedule
def test_mixture_densities_are_exact(name):
    assert difference(mixture(SCHEDULES[name]), (1, 3), FLOW) < (2e-4 if name in SIGNAL_ENDS else 2e-2)


@pytest.mark.parametrize("name", ["VP", "SubVP", "Cosine", "Rectified"])
def test_against_the_law_of_the_data_themselves(name):
    """Where σ(0) = 0, with t_min at σ/α = 1e-3: 1e-2 nats per dimension for Gaussians, 2e-2 for mixtures."""
    for oracle, shape, bound in ((gaussian(SCHEDULES[name]), (1, 8), 1e-2), (mixture(SCHEDULES[name]), (1, 3), 2e-2)):
        x = oracle.marginal((6, *shape), time(0.0), generator=keys(6))
        found = FLOW.log_prob(oracle, x, generator=keys(6)).nats
        assert ((found - oracle.log_density(x, time(0.0))) / x[0].numel()).abs().max() < bound


def test_a_tighter_tolerance_is_kept():
    oracle = mixture(SCHEDULES["Cosine"])
    errors = [difference(oracle, (1, 3), ProbabilityFlow(tolerance, Exact())) for tolerance in (1e-3, 1e-5, 1e-8)]
    assert errors[0] < 2e-2 and errors[1] < 2e-4 and errors[2] < 2e-7


@every_probe
def test_probed_densities_are_right_on_average(probe):
    """log p is linear in zzᵀ: with E zzᵀ = 1 it is unbiased. Within 4 standard errors, on the same x with many draws."""
    oracle, n, count = gaussian(SCHEDULES["Cosine"]), 300, 2
    x = oracle.marginal((1, 1, 8), time(0.0), generator=keys(1))
    flow = ProbabilityFlow(1e-4, PROBES[probe](count))
    found = flow.log_prob(oracle, x.expand(n, 1, 8), generator=keys(n, seed=1))
    exact = ProbabilityFlow(1e-6, Exact()).log_prob(oracle, x, generator=keys(1)).nats
    assert found.nats.std() > 0.01  # there is something to average
    assert abs(found.nats.mean() - exact) < 4 * found.nats.std() / math.sqrt(n)


def test_a_density_depends_on_its_own_probe_alone():
    oracle, flow = gaussian(SCHEDULES["VP"]), ProbabilityFlow(1e-4, Normal(2))
    x = oracle.marginal((4, 1, 8), time(0.0), generator=keys(4))
    together = flow.log_prob(oracle, x, generator=keys(4, seed=1))
    alone = flow.log_prob(oracle, x[2:3], generator=Generators([(1, 2)]))
    torch.testing.assert_close(alone.nats[0], together.nats[2], rtol=0, atol=1e-10)
    assert alone.evaluations[0] == together.evaluations[2]


# ------------------------------------------------------------------------------------------------- probes, drift, divergence
@every_probe
def test_probes_are_white(probe):
    """E zzᵀ = 1, each of n entries of the mean within 4.5 standard errors; all on one sphere where they are to be."""
    n = 4000
    z = PROBES[probe]()((n, 1, 6), generator=keys(n), like=torch.empty(0, dtype=F64))[0].flatten(1)
    products = z[:, :, None] * z[:, None]
    error = products.std(0) / math.sqrt(n)
    assert ((products.mean(0) - torch.eye(6, dtype=F64)).abs() <= 4.5 * error + 1e-12).all()
    if probe != "Normal":
        torch.testing.assert_close(z.norm(dim=1), torch.full((n,), math.sqrt(6), dtype=F64))


@pytest.mark.parametrize(("probe", "variance"), [("Rademacher", "off"), ("Normal", "all")])
def test_probes_have_the_variance_they_state(probe, variance):
    """2 Σ J_ij² for symmetric J, without the diagonal for coins. The spread of a variance of n draws is some √(8/n) of it."""
    n, J = 8000, torch.tensor([[2.0, 0.5, 0.1], [0.5, -1.0, 0.3], [0.1, 0.3, 0.7]], dtype=F64)
    z = PROBES[probe]()((n, 1, 3), generator=keys(n), like=J)[0].flatten(1)
    stated = 2 * (J - torch.diag(J.diag()) if variance == "off" else J).square().sum()
    assert torch.einsum("ni,ij,nj->n", z, J, z).var() == pytest.approx(stated.item(), rel=4 * math.sqrt(8 / n))


class Bumps(Network):
    """A nonlinear network whose divergence is no constant, with a parameter."""

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(0.7, dtype=F64))

    def forward(self, x, label, cond=None):
        return (self.gain * (x + 0.5 * x.roll(1, -1))).sin() + 0.1 * expand_like(label, x).cos()


@pytest.mark.parametrize("name", ["VE", "SubVP", "Rectified"])
def test_drift_and_divergence_from_one_evaluation(name):
    """Against the Jacobian by torch, sample by sample; zᵀJz for given probes, its trace for all axes."""
    denoiser = Denoiser(Bumps(), SDE(SCHEDULES[name]), EDMPreconditioner(0.5))
    u, phi = keys(3).randn((3, 1, 5), like=torch.empty(0, dtype=F64)), torch.tensor([0.2, 0.7, 1.3], dtype=F64)
    calls = []
    denoiser.net.register_forward_hook(lambda *_: calls.append(1))
    z = torch.stack([keys(3, seed).randn((3, 1, 5), like=u) for seed in (1, 2)])
    axes = Exact()((3, 1, 5), generator=keys(3), like=u)
    (v, probed), (_, trace) = (with_divergence(denoiser, u, phi, None, probes) for probes in (z, axes))
    assert len(calls) == 2
    torch.testing.assert_close(v, velocity(denoiser, u, phi, None).detach(), rtol=1e-14, atol=0)
    for i in range(3):
        J = torch.func.jacrev(lambda x: velocity(denoiser, x[None], phi[i : i + 1], None)[0])(u[i])  # noqa: B023
        J = J.reshape(5, 5)
        torch.testing.assert_close(trace[i], J.trace(), rtol=1e-10, atol=1e-12)
        flat = z[:, i].reshape(2, 5)
        torch.testing.assert_close(probed[i], torch.einsum("ki,ij,kj->k", flat, J, flat).mean(), rtol=1e-10, atol=1e-12)


class Conditional(Bumps):
    def forward(self, x, label, cond=None):
        return super().forward((1 + 5 * cond["vector"][:, :, None]) * x, label)


def test_each_sample_keeps_its_condition_when_others_have_arrived():
    denoiser, flow = Denoiser(Conditional(), SDE(VP()), EDMPreconditioner(0.5)), ProbabilityFlow(1e-5, Exact())
    x = keys(3).randn((3, 1, 5), like=torch.empty(0, dtype=F64))
    vector = torch.tensor([[0.0], [2.0], [0.7]], dtype=F64)
    together = flow.log_prob(denoiser, x, generator=keys(3), cond={"vector": vector})
    assert len(together.evaluations.unique()) > 1
    codes = flow.encode(denoiser, x, cond={"vector": vector}).x
    for i in range(3):
        row = slice(i, i + 1)
        alone = flow.log_prob(denoiser, x[row], generator=keys(1), cond={"vector": vector[row]})
        torch.testing.assert_close(alone.nats[0], together.nats[i], rtol=0, atol=1e-8)
        torch.testing.assert_close(codes[i], alone.latent[0], rtol=0, atol=1e-3)


def test_evaluations_are_those_of_the_network_and_parameters_are_left_alone():
    denoiser, seen = Denoiser(Bumps(), SDE(VP()), EDMPreconditioner(0.5)), []
    denoiser.net.register_forward_hook(lambda net, given, out: seen.append((len(out), net.gain.requires_grad)))
    x = keys(3).randn((3, 1, 5), like=torch.empty(0, dtype=F64))
    found = ProbabilityFlow(1e-4).log_prob(denoiser, x, generator=keys(3))
    assert sum(rows for rows, _ in seen) == found.evaluations.sum() and len(seen) == found.evaluations.max()
    assert not any(asked for _, asked in seen)
    assert denoiser.net.gain.requires_grad and denoiser.net.gain.grad is None and not found.nats.requires_grad
    with pytest.raises(RuntimeError), frozen(denoiser):
        raise RuntimeError
    assert denoiser.net.gain.requires_grad


def test_what_cannot_be_asked_raises():
    with pytest.raises(InputError, match="Rademacher"):
        Exact(limit=7)((2, 1, 8), generator=keys(2), like=torch.empty(0))
    for probe in PROBES.values():
        with pytest.raises(InputError, match="At least one"):
            probe(0)
    for arguments in ({"tolerance": 0.0}, {"ratio_min": 0.0}, {"ratio_min": 2.0, "ratio_max": 1.0}):
        with pytest.raises(InputError, match="ratio_min"):
            ProbabilityFlow(**arguments)
    with pytest.raises(InputError, match="quantum"):
        bits_per_dimension(torch.zeros(1), 0.0, 8)


# ------------------------------------------------------------------------------------------------------------------- codes
@costly_schedules
def test_decoding_undoes_encoding(name):
    for oracle, shape in ((gaussian(SCHEDULES[name], mean=0.3), (1, 8)), (mixture(SCHEDULES[name]), (1, 3))):
        x = oracle.marginal((4, *shape), time(1e-3), generator=keys(4))
        for tolerance in (1e-4, 1e-7):
            flow = ProbabilityFlow(tolerance)
            back = flow.decode(oracle, flow.encode(oracle, x).x)
            assert (
                back.x - x
            ).abs().max() < 200 * tolerance  # two ways of some ten steps, and the latents are blown up by 1/√S


@every_schedule
def test_codes_are_those_of_the_closed_form_and_of_the_law_of_the_noise(name):
    """x_1/σ by the exact flow; of the covariance C, up to α² S/σ²."""
    oracle, flow = gaussian(SCHEDULES[name]), ProbabilityFlow(1e-6)
    t_min, t_max = flow.ends(oracle.sde.schedule)
    z = torch.eye(8, dtype=F64)[:, None]
    x_t = oracle.marginal(z.shape, t_min, generator=Draws(z))
    latent = flow.encode(oracle, x_t / oracle.sde.schedule.alpha(t_min)).x
    sigma = oracle.sde.schedule.sigma(t_max)
    torch.testing.assert_close(latent, oracle.flow(x_t, t_min, t_max) / sigma, rtol=0, atol=1e-4)
    power = torch.fft.fft(latent, dim=2, norm="ortho").abs().square().sum((0, 1))  # of the images of all axes
    torch.testing.assert_close(power / 8, oracle.noise_spectrum[0] / 8, rtol=2e-2, atol=1e-4)


def test_the_latent_of_a_density_is_the_code():
    oracle = mixture(SCHEDULES["VP"])
    x = oracle.marginal((3, 1, 3), time(0.0), generator=keys(3))
    flow = ProbabilityFlow(1e-7)
    found = flow.log_prob(oracle, x, generator=keys(3))
    torch.testing.assert_close(found.latent, flow.encode(oracle, x).x, rtol=0, atol=1e-5)


def test_temperature_scales_the_samples_of_a_centred_gaussian():
    oracle, flow = gaussian(SCHEDULES["Cosine"]), ProbabilityFlow(1e-7)
    z = keys(3).randn((3, 1, 8), like=oracle.spectrum)
    warm, cool = flow.decode(oracle, z).x, flow.decode(oracle, 0.6 * z).x
    torch.testing.assert_close(cool, 0.6 * warm, rtol=0, atol=1e-5)


def test_interpolation_goes_along_the_sphere():
    like = torch.empty(0, dtype=F64)
    a, b = keys(2).randn((2, 1, 50), like=like), keys(2, seed=1).randn((2, 1, 50), like=like)
    a, b = (x / x.flatten(1).norm(dim=1)[:, None, None] for x in (a, b))
    path = interpolate(a, b, torch.linspace(0, 1, 5, dtype=F64))
    torch.testing.assert_close(path[0], a, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(path[-1], b, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(path.flatten(2).norm(dim=2), torch.ones(5, 2, dtype=F64))
    steps = path.diff(dim=0).flatten(2).norm(dim=2)
    torch.testing.assert_close(steps, steps[:1].expand_as(steps))  # equal arcs
    torch.testing.assert_close(interpolate(a, 2 * a, torch.tensor([0.5], dtype=F64))[0], 1.5 * a)


# -------------------------------------------------------------------------------------------------------------- data units
class Zero(Network):
    def forward(self, x, label, cond=None):
        return 0 * x


def exact_model(data):
    """Exact for normal data: standardised they are N(0, 1), of which Karras' skip connection alone is the denoiser."""
    model = Model(SDE(EDM(), White()), Zero(), EDMPreconditioner(), Standardise(), shape=data.shape[1:])
    model.normaliser.fit([batches.Batch(data)])
    model.denoiser.register_parameter("where", torch.nn.Parameter(torch.empty(0)))  # a model has a device
    return model


def test_densities_are_in_data_units():
    """N(mean, std²) per channel, of the moments that the normaliser found; in float32, with EDM's σ_min = 0.002."""
    data = torch.tensor([3.0, 40.0])[:, None] * torch.randn(500, 2, 4, generator=torch.Generator().manual_seed(0)) + 100
    model = exact_model(data)
    mean, std = model.normaliser.shift[:, None], model.normaliser.scale[:, None]
    found = model.log_prob(data[:5])
    exact = torch.distributions.Normal(mean, std).log_prob(data[:5]).flatten(1).sum(1)
    assert ((found.nats - exact).abs() / 8).max() < 1e-4
    latent = model.encode(data[:5])
    torch.testing.assert_close(latent, (data[:5] - mean) / std, rtol=0, atol=1e-3)
    torch.testing.assert_close(model.decode(latent), data[:5], rtol=0, atol=40 * 1e-3)
    assert torch.equal(model.decode(latent, temperature=0.7), model.decode(0.7 * latent))


def test_bits_per_dimension():
    """Of K values that are equally likely, with the density 1/(K q) on [0, K q): log₂ K bits, whatever the quantum q."""
    for quantum in (1.0, 1 / 255, 2.0):
        nats = torch.tensor([-7 * math.log(16 * quantum)], dtype=F64)
        assert bits_per_dimension(nats, quantum, 7).item() == pytest.approx(4.0, abs=1e-12)
