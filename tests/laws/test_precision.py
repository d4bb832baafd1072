"""A loaded model in any precision: all that it can do, near what it does in float32."""

from __future__ import annotations

import pytest
import torch

from often import crossed
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.noise import GaussianField, Matern, White
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Standardise
from scorefield.model import Model
from scorefield.nn import FNO, UNO, NCSNpp, Network, UNet
from scorefield.samplers import ProbabilityFlow, Sampler

FIELD = GaussianField(Matern(0.3, 1.0, nugget=1e-3))
NETWORKS = {
    "NCSNpp": (
        lambda: NCSNpp(1, 1, 1, channels=8, multipliers=(1, 2), blocks=1, attention=(1,), init_scale=0.3),
        White(),
    ),
    "positional": (
        lambda: NCSNpp(1, 1, 1, channels=8, multipliers=(1,), blocks=1, attention=(), embedding="positional", labels=3),
        White(),
    ),
    "UNet": (lambda: UNet(1, 1, 1, channels=8, multipliers=(1, 2)), White()),
    "FNO": (lambda: FNO(1, 1, 1, channels=8, modes=4), FIELD),
    "UNO": (lambda: UNO(1, 1, 1, channels=8, modes=8, sizes=(8, 4), factorisation="tucker", rank=0.5), FIELD),
}
DTYPES = {torch.float64: 1e-3, torch.bfloat16: 0.3, torch.float16: 0.1}


def make(name: str) -> Model:
    torch.manual_seed(0)
    net, noise = NETWORKS[name][0](), NETWORKS[name][1]
    assert isinstance(net, Network)
    net.label_range = None
    model = Model(SDE(EDM(), noise), net, EDMPreconditioner(), Standardise(), Sampler(4), (1, 8, 8), Standardise())
    for normaliser, shift, scale in ((model.normaliser, 280.37, 7.0), (model.predictors, 1013.0, 11.0)):
        normaliser.shift, normaliser.scale = torch.tensor([shift]), torch.tensor([scale])
    return model.eval()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(("dtype", "name"), crossed(DTYPES, NETWORKS, DTYPES))
def test_a_model_of_another_precision_does_what_it_did(name: str, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(1)
    z, noise = torch.randn(2, 1, 8, 8, generator=draw), torch.randn(2, 1, 8, 8, generator=draw)
    x, cond = 280.37 + 7 * z, {"field": 1013 + 11 * torch.randn(2, 1, 8, 8, generator=draw)}
    flow = ProbabilityFlow(5e-2, ratio_min=0.1)

    def found(model: Model) -> dict[str, torch.Tensor]:
        nats, latent, _ = model.log_prob(x, cond=cond, flow=flow)
        return {
            "score": model.score(z, 0.6, cond=cond),
            "denoise": model.denoise(x, 7.0, cond=cond) / 7,
            "encode": model.encode(x, cond=cond, flow=flow),
            "decode": model.decode(noise, cond=cond, flow=flow) / 7,
            "latent": latent,
            "nats": 1e-2 * nats / 64,  # by other probes in float64
        }

    plain, other = found(make(name)), found(model := make(name).to(dtype))
    for key, value in other.items():
        difference = (value.double() - plain[key].double()).abs().max()
        assert difference < DTYPES[dtype], (key, float(difference))
    sample = model.sample(2, cond=cond)
    assert bool(sample.isfinite().all()) and sample.dtype == model.precision
    if dtype != torch.float64:  # whose draws are others
        assert (sample - make(name).sample(2, cond=cond)).abs().max() < 7 * 3 * DTYPES[dtype]
