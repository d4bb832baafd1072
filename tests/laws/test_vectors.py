"""Guidance by a vector c against closed forms, with the exact denoiser of a conditional Gaussian: no training, no Monte Carlo.

x | c ~ N(m c, v I) with c ~ N(0, 1), so that without c, x ~ N(0, v I + m mᵀ).
"""

import torch
from torch import nn

from laws.cases import keys, time
from scorefield.core.denoiser import DataPrediction, Times
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE, expand_like
from scorefield.data import Batch, Standardise
from scorefield.guidance import ClassifierFree
from scorefield.model import Model
from scorefield.nn import Network
from scorefield.samplers import Heun, LogSNRGrid, Sampler, sample

F64 = torch.float64
POINTS, V = 6, 0.3
M = torch.linspace(-1.0, 1.5, POINTS, dtype=F64)
NAN = float("nan")


class ExactNetwork(Network):
    """E[x | x_t, c] in closed form, with `DataPrediction` for its preconditioner, which hands it x_t and t as they are."""

    vector = 1

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule
        self.double_ = nn.Parameter(torch.zeros((), dtype=F64))

    def forward(self, x, label, cond=None):
        alpha, sigma = (expand_like(scale, x) for scale in self.schedule(label))
        c = (cond or {}).get("vector", torch.full((len(x), 1), NAN, dtype=F64))[:, None]
        told = M * c + alpha * V / (alpha**2 * V + sigma**2) * (x - alpha * M * c)
        along = (x @ M)[..., None] / (M @ M) * M
        power = V + M @ M
        free = alpha * V / (alpha**2 * V + sigma**2) * (x - along)
        free = free + alpha * power / (alpha**2 * power + sigma**2) * along
        return torch.where(c.isnan(), free, told)


def exact(schedule):
    net, units = ExactNetwork(schedule), DataPrediction(Times(1.0))
    return Model(SDE(schedule), net, units, Standardise(), shape=(1, POINTS)).denoiser


def test_the_weight_interpolates_and_extrapolates_the_score_at_every_level():
    """s_w = w s(x_t | c) + (1 − w) s(x_t), where s = −Λ⁻¹(x_t − α μ) of either law; each sample with its own c and t."""
    for schedule in (VP(), EDM()):
        net = exact(schedule)
        x_t, t = keys(3).randn((3, 1, POINTS), like=M), torch.tensor([0.1, 0.5, 0.9], dtype=F64)
        c = torch.tensor([[0.7], [-1.2], [2.0]], dtype=F64)
        for w in (0.0, 1.0, 1.5, 4.0):
            found = net.sde.score(ClassifierFree(net, w)(x_t, t, {"vector": c}), x_t, t)
            for i, (alpha, sigma) in enumerate(zip(*schedule(t), strict=True)):
                own = -(x_t[i, 0] - alpha * M * c[i]) / (alpha**2 * V + sigma**2)
                law = alpha**2 * (V * torch.eye(POINTS, dtype=F64) + torch.outer(M, M))
                free = -torch.linalg.solve(law + sigma**2 * torch.eye(POINTS, dtype=F64), x_t[i, 0])
                torch.testing.assert_close(found[i, 0], w * own + (1 - w) * free, rtol=1e-6, atol=1e-8)


def test_guided_samples_have_the_law_that_the_guided_flow_has():
    """dx/dσ = −σ s_w is linear. Across m its solution scales the noise by H(0)/H(S), H² = v + σ²; along m by the same with
    H² = (v + σ²)^w (v + |m|² + σ²)^(1−w), beside a mean ∫ σ w m c/(v + σ²) H(0)/H(σ) dσ.
    """
    schedule, w, c = EDM(), 2.5, 0.8
    power = float(V + M @ M)
    first, last = schedule.sigma(time(0.0)), schedule.sigma(time(1.0))
    sigma = torch.logspace(float(first.log10()), float(last.log10()), 40_001, dtype=F64)

    def along(s):
        return (V + s**2) ** (w / 2) * (power + s**2) ** ((1 - w) / 2)

    mean = torch.trapezoid(sigma * w * c / (V + sigma**2) * along(first) / along(sigma), sigma)
    unit = M / M.norm()
    across = torch.linalg.svd(torch.eye(POINTS, dtype=F64) - torch.outer(unit, unit))[0][:, 0]
    x_1 = torch.stack((torch.zeros(POINTS, dtype=F64), last * unit, last * across))[:, None]
    given, times = {"vector": torch.full((3, 1), c, dtype=F64)}, LogSNRGrid(0.0, 1.0)(schedule, 201)
    guided = ClassifierFree(exact(schedule), w)
    found = sample(guided, x_1, times, Heun(), cond=given, denoise=False, generator=keys(3))[:, 0]
    torch.testing.assert_close(found[0], mean * M, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(found[1] - found[0], last * along(first) / along(last) * unit, rtol=2e-3, atol=1e-4)
    plain = last * ((V + first**2) / (V + last**2)).sqrt()
    torch.testing.assert_close(found[2] - found[0], plain * across, rtol=2e-3, atol=1e-4)


# ---------------------------------------------------------------------------------------- what the model makes of a vector
class Seen(Network):
    """Returns the sum of the vector in every point, 18 where there is none, −18 where it is NaN."""

    vector = 2

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x, label, cond=None):
        told = (cond or {}).get("vector", torch.full((len(x), 2), 9.0))
        return (told.nan_to_num(-9.0).sum(1)[:, None, None] + self.weight).expand(x.shape)


def fitted(dtype=torch.float32):
    model = Model(SDE(EDM()), Seen(), DataPrediction(), Standardise(), sampler=Sampler(steps=1), shape=(1, 3))
    data = torch.stack((2000 + 10.0 * torch.arange(9), torch.arange(9) % 3 * 1e-3), dim=1).double()
    model.fit([Batch(torch.randn(9, 1, 3, generator=torch.Generator().manual_seed(0)), {"vector": data})])
    seen = []
    model.denoiser.net.register_forward_hook(lambda _, args, out: seen.append(float(out.flatten()[0])))
    return model.to(dtype), data, seen


def test_vectors_are_given_in_the_units_of_the_data_wherever_a_model_is_asked():
    """enter, score, sample, log_prob, encode, denoise: the network sees them standardised."""
    model, data, seen = fitted()
    year = torch.tensor([[2050.0, 1e-3]], dtype=F64)
    expected = float(((year - data.mean(0)) / data.std(0, correction=0)).sum())
    x = torch.zeros(1, 1, 3)
    _, given = model.enter(Batch(x, {"vector": year}))
    assert abs(float(given["vector"].sum()) - expected) < 1e-5 and given["vector"].dtype == torch.float32
    model.score(x, 0.5, cond={"vector": year})
    model.sample(1, cond={"vector": year}, chunk=2)
    model.denoise(x, 0.1, cond={"vector": year})
    model.encode(x, cond={"vector": year})
    model.log_prob(x, cond={"vector": year})
    assert len(seen) > 5 and all(abs(one - expected) < 1e-5 for one in seen)


def test_the_null_vector_is_nan_or_nothing():
    model, _, seen = fitted()
    x, unknown = torch.zeros(1, 1, 3), torch.full((1, 2), NAN)
    _, given = model.enter(Batch(x, {"vector": unknown}))
    assert given["vector"].isnan().all()
    model.score(x, 0.5)
    model.score(x, 0.5, cond={"vector": unknown})
    assert seen == [18.0, -18.0]


def test_half_precision_loses_no_year():
    model, _, _ = fitted(torch.bfloat16)
    years = torch.tensor([[2050.0, 0.0], [2050.1, 0.0]], dtype=F64)
    _, given = model.enter(Batch(torch.zeros(2, 1, 3), {"vector": years}))
    assert given["vector"][0, 0] < given["vector"][1, 0]
