"""Steps that are orthogonal matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from scorefield.foundation.errors import InputError
from scorefield.losses import Denoising
from scorefield.training import Muon, Trainer
from scorefield.training.muon import orthogonalised


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 5, 30), (2, 30, 5)])
def test_singular_values_come_near_1_and_their_vectors_stay(shape: tuple[int, ...]) -> None:
    matrices = random(*shape)
    found = orthogonalised(1e-6 * matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inside = left.mT @ found @ right.mT
    values = inside.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.6 and values.max() < 1.3
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=1e-4, rtol=0)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 4, 1, dtype=torch.complex64), nn.Conv2d(6, 1, 3))


def test_a_kernel_moves_orthogonally_and_the_rest_as_by_adam() -> None:
    net, plan = network(), Muon(lr=0.1, momentum=0.0)
    before = [weight.detach().clone() for weight in net.parameters()]
    optimiser = plan.build(net.parameters(), fused=False)
    for group in optimiser.param_groups:
        group["lr"] = plan.lr
    for weight in net.parameters():
        weight.grad = torch.full_like(weight, 1e-3) + 1e-4 * random(*weight.shape).to(weight.dtype)
    optimiser.step()
    moved = [weight.detach() - old for weight, old in zip(net.parameters(), before, strict=True)]
    values = torch.linalg.svdvals(moved[0].flatten(1)) / (0.1 * 0.2 * 18**0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    for step in moved[
        1:
    ]:  # biases, complex numbers and a single row: Adam's first step is as long as the learning rate
        torch.testing.assert_close(step.abs(), torch.full_like(step.abs(), 0.1), rtol=1e-3, atol=0)


def test_a_step_that_is_left_out_changes_nothing() -> None:
    net = network()[0]
    optimiser = Muon().build(net.parameters(), fused=True)
    for group in optimiser.param_groups:
        group["lr"] = 1e-3

    def step(found_inf: float) -> list[Tensor]:
        for weight in net.parameters():
            weight.grad = torch.full_like(weight, torch.nan if found_inf else 1.0)
        optimiser.grad_scale, optimiser.found_inf = None, torch.tensor(found_inf)  # type: ignore[attr-defined]
        optimiser.step()
        kept = [value for weight in net.parameters() for value in optimiser.state[weight].values()]
        return [tensor.detach().clone() for tensor in (*net.parameters(), *kept)]

    good = step(0.0)
    for old, new in zip(good, step(1.0), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=0)


def test_shares_of_matrices_are_refused() -> None:
    with pytest.raises(InputError, match="whole matrices"):
        Trainer(loss=Denoising(), optimiser=Muon(), strategy="fsdp")
