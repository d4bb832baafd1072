"""Measurements of images: what their operator says, other points for each, and what is learnt from them alone."""

from dataclasses import replace

import pytest
import torch

from scorefield.core.denoiser import Denoiser, EDMPreconditioner
from scorefield.core.schedule import EDM
from scorefield.core.sde import SDE
from scorefield.data import Dequantise, Divide, DropLabel, Flip, Noisy, Tensors
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses import GSURE, SupervisedGSURE
from scorefield.losses.gsure import SampledKSpace
from scorefield.model import Model
from scorefield.mri import RandomCrop, RandomGain, RandomPhase, Undersampled
from scorefield.mri.masks import EquispacedLines, RandomLines
from scorefield.nn import NCSNv2
from scorefield.run import experiment as run

IMAGES = Tensors(torch.randn(20, 2, 24, 20, generator=torch.Generator().manual_seed(0)))
EVERY = torch.arange(18)


@pytest.mark.parametrize("coils", [1, 3])
def test_what_is_measured_is_what_the_operator_says(coils: int) -> None:
    if coils > 1:
        pytest.importorskip("sigpy")
    scan = Undersampled(IMAGES, RandomLines(2.0, 4), noise=0.1, coils=coils, truth=True)
    batch = scan.load("train").gather(EVERY)
    clean = IMAGES.load("train").gather(EVERY).x
    torch.testing.assert_close(batch.x, clean)
    A = SampledKSpace()(batch)
    noise = batch.y - A(clean)
    seen = batch.given["mask"][:, None].expand_as(noise)
    assert float(noise[~seen].abs().max()) == 0
    assert float(noise[seen].std()) == pytest.approx(0.1, rel=0.03)
    blind = Undersampled(IMAGES, RandomLines(2.0, 4), noise=0.1, coils=coils).load("train").gather(EVERY)
    torch.testing.assert_close(blind.x, A.adjoint(batch.y), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(blind.y, batch.y)
    some = scan.load("train").gather(torch.tensor([5, 2]))
    torch.testing.assert_close(some.y, batch.y[[5, 2]], rtol=0, atol=0)


def test_masks_vary_or_a_warning_is_given() -> None:
    model = Model(SDE(EDM()), NCSNv2(2, 2, channels=4), EDMPreconditioner(1.0), Divide(1.0))
    for scan, warned in (
        (Undersampled(IMAGES, RandomLines(2.0, 4)), False),
        (Undersampled(IMAGES, RandomLines(2.0, 4), vary=False), True),
        (Undersampled(IMAGES, EquispacedLines(2.0, 4)), True),
    ):
        fields = scan.load("train")
        model.normaliser = Divide(1.0).fit([fields.gather(EVERY)])
        assert any("same mask" in text for text in run.suspicions(model, fields)) == warned
    with pytest.raises(InputError, match="noise > 0"):
        Undersampled(IMAGES, noise=0.0)
    with pytest.raises(InputError, match="complex images"):
        Undersampled(Tensors(torch.randn(9, 1, 8, 8))).load("train").gather(torch.tensor([0]))


def test_a_step_of_training_by_gsure_goes_where_that_with_the_truth_goes() -> None:
    """The gradients of both agree in the mean over noise and probes: here over 18 examples, a few times."""
    torch.manual_seed(0)
    denoiser = Denoiser(NCSNv2(2, 2, channels=4), SDE(EDM()), EDMPreconditioner(1.0))
    batch = Undersampled(IMAGES, RandomLines(2.0, 4), noise=0.3, truth=True).load("train").gather(EVERY)

    def gradient(loss: GSURE | SupervisedGSURE, seed: int) -> torch.Tensor:
        value = loss(denoiser, batch, generator=Generators((seed, i) for i in range(18))).mean()
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, denoiser.net.parameters())])

    blind = sum(gradient(GSURE(norm="measured"), seed) for seed in range(3))
    seeing = gradient(SupervisedGSURE(norm="measured"), 0)
    assert float(torch.cosine_similarity(blind, seeing, dim=0)) > 0.8


def test_a_gain_changes_the_noise_with_the_field() -> None:
    batch = Noisy(IMAGES, 0.2).load("train").gather(EVERY)
    keyed = replace(batch, key=torch.stack((EVERY, EVERY), 1))
    louder = RandomGain(0.5, 2.0)(keyed, 0)
    gain = (louder.x / batch.x).flatten(1).median(1).values
    torch.testing.assert_close(louder.noise, 0.2 * gain)
    assert float(gain.max() / gain.min()) > 1.5


@pytest.mark.parametrize(
    ("augment", "allowed"),
    [
        (RandomGain(0.5, 2.0), True),
        (RandomPhase(strength=0.0), True),
        (DropLabel(1.0), True),
        (RandomPhase(), False),
        (RandomCrop((8, 8)), False),
        (Flip((-2,)), False),
        (Dequantise(0.1), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_augmented_field_is_still_what_was_measured(augment, allowed: bool) -> None:
    """y − A x stays the same white noise, as strong as the batch says, or the change is refused."""
    batch = Undersampled(IMAGES, RandomLines(2.0, 4), noise=0.1, truth=True).load("train").gather(EVERY)
    batch = replace(batch, key=torch.stack((EVERY, EVERY), 1), cond={"label": EVERY})
    if not allowed:
        with pytest.raises(InputError, match="remove"):
            augment(batch, 0)
        return
    changed = augment(batch, 0)
    A = SampledKSpace()(batch)
    before, after = (
        ((b.y - A(b.x)) / b.noise[:, None, None, None]).square().flatten(1).sum(1) for b in (batch, changed)
    )
    torch.testing.assert_close(after, before, rtol=1e-3, atol=0)
    same = torch.equal(changed.x, batch.x)
    assert same == isinstance(augment, DropLabel) and same == torch.equal(changed.y, batch.y)
