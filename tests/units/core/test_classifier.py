"""Noise-conditional classifiers: the network, its loss, and the model that holds it."""

from __future__ import annotations

import pytest
import torch

from laws.cases import keys, mixture, time
from scorefield.core.classifier import Classifier
from scorefield.core.denoiser import EDMPreconditioner
from scorefield.core.schedule import EDM, VP
from scorefield.core.sde import SDE
from scorefield.data import Batch, Identity
from scorefield.foundation.errors import InputError
from scorefield.losses import CrossEntropy, LogNormal, UniformTime
from scorefield.model import Model
from scorefield.nn import Encoder


def encoder(spatial: int = 2, **settings: object) -> Encoder:
    torch.manual_seed(0)
    net = Encoder(2, 3, spatial=spatial, channels=8, multipliers=(1, 2), blocks=1, **settings).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # away from the start, where the last layer of every branch is 0
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    return net


@pytest.mark.parametrize("grid", [(9,), (6, 7), (3, 4, 6)], ids=["1-D", "2-D", "3-D"])
@pytest.mark.parametrize("embedding", ["fourier", "positional"])
@pytest.mark.parametrize("patch", [1, 2])
def test_logits_follow_field_and_noise_one_sample_by_itself(grid: tuple[int, ...], embedding: str, patch: int) -> None:
    net = encoder(len(grid), embedding=embedding, attention=(1,), patch=patch)
    x, label = torch.randn(4, 2, *grid), torch.tensor([0.1, 0.5, 0.5, 0.9])
    logits = net(x, label)
    assert logits.shape == (4, 3) and net.logits == 3
    torch.testing.assert_close(net(x[2:3], label[2:3]), logits[2:3], rtol=1e-4, atol=1e-5)
    for other in (net(x, label + 0.3), net(x.flip(-1) * 2, label)):
        assert (other - logits).abs().amax(1).min() > 1e-3


def test_bad_settings_are_named() -> None:
    for build, words in (
        (lambda: Encoder(0, 3), "in_channels"),
        (lambda: Encoder(1, 1), "classes"),
        (lambda: Encoder(1, 3, spatial=4), "spatial"),
        (lambda: Encoder(1, 3, attention=(5,)), "attention"),
        (lambda: Encoder(1, 3, dropout=1.0), "dropout"),
        (lambda: Encoder(1, 3, patch=0), "patch"),
    ):
        with pytest.raises(InputError, match=words):
            build()


class Exactly:
    """The logits of a mixture's components; with a wrong sense of certainty unless sharpness is 1."""

    def __init__(self, sharpness: float = 1.0) -> None:
        self.oracle, self.sharpness = mixture(VP()), sharpness

    @property
    def sde(self) -> SDE:
        return self.oracle.sde

    def __call__(self, x_t: torch.Tensor, t: torch.Tensor, cond: object = None) -> torch.Tensor:
        alpha, sigma = (scale.reshape(-1, 1) for scale in self.sde.schedule(t))
        variance = alpha**2 * self.oracle.variances + sigma**2
        apart = (x_t[:, None, 0] - alpha[..., None] * self.oracle.means[:, 0]).square().sum(-1)
        return self.sharpness * (self.oracle.log_weights - 0.5 * apart / variance - 1.5 * variance.log())


def test_cross_entropy_is_least_for_the_true_classifier() -> None:
    """Of 4000 draws of the mixture, at all noise levels: more certain or less is worse."""
    oracle, n = mixture(VP()), 4000
    label = (keys(n).rand((n,), like=oracle.means) > oracle.log_weights.exp()[0]).long()
    z = keys(n, 1).randn((n, 1, 3), like=oracle.means)
    batch = Batch(oracle.means[label] + oracle.variances[label].sqrt()[:, None, None] * z, {"label": label})
    losses = {s: CrossEntropy()(Exactly(s), batch, generator=keys(n, 2)).mean() for s in (0.8, 1.0, 1.25)}
    assert losses[1.0] < min(losses[0.8], losses[1.25]) - 1e-3


def test_cross_entropy_leaves_out_the_null_class_and_names_what_is_missing() -> None:
    x, label = torch.randn(3, 1, 3, dtype=torch.float64), torch.tensor([0, -1, 1])
    loss = CrossEntropy(UniformTime(0.1))
    found = loss(Exactly(), Batch(x, {"label": label}), generator=keys(3))
    assert found[1] == 0 and (found[[0, 2]] > 0).all()
    with pytest.raises(InputError, match="class labels"):
        loss(Exactly(), Batch(x), generator=keys(3))
    with pytest.raises(InputError, match="Encoder"):
        loss(mixture(VP()), Batch(x, {"label": label}), generator=keys(3))


def test_an_encoder_learns_the_classes_of_noisy_data() -> None:
    """Two levels apart by 2 standard deviations of the noise on 16 pixels are told apart; at ten times that noise hardly."""
    sde, label = SDE(EDM()), torch.arange(64) % 2
    x = (2.0 * label - 1)[:, None, None, None].expand(-1, 1, 4, 4)
    torch.manual_seed(0)
    model = Classifier(Encoder(1, 2, channels=8, multipliers=(1,), blocks=1, dropout=0.0), sde, EDMPreconditioner())
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for step in range(40):
        loss = CrossEntropy(LogNormal(0.0, 1.0))(model, Batch(x, {"label": label}), generator=keys(64, step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    right = []
    for sigma in (1.0, 30.0):
        t = sde.schedule.time(-2 * time(sigma).log())
        logits = model(sde.perturb(x, t, generator=keys(64, 99))[0], t)
        right.append(float((logits.argmax(1) == label).float().mean()))
    assert right[0] > 0.95 and right[1] < 0.8


def test_a_model_of_classes_draws_and_weighs_nothing() -> None:
    model = Model(SDE(EDM()), encoder(), EDMPreconditioner(), Identity(), shape=(2, 4, 4))
    x = torch.randn(2, 2, 4, 4)
    assert model.classes == 3 and model.denoiser(x, torch.tensor(0.5)).shape == (2, 3)
    for use in (
        lambda: model.sample(1),
        lambda: model.score(x, torch.tensor(0.5)),
        lambda: model.log_prob(x),
        lambda: model.encode(x),
    ):
        with pytest.raises(InputError, match="is a classifier"):
            use()
