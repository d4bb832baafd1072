"""Muon: steps whose matrices are orthogonal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

ITERATION = (3.4445, -4.7750, 2.0315)  # a, b, c of a x + b x³ + c x⁵, which brings singular values near 1
ROUNDS = 5
RMS = 0.2  # of a step's entries, per unit of the learning rate: about that of Adam, so that both take the same


class Orthogonal(torch.optim.Optimizer):
    """The orthogonal matrix nearest to the momentum as the step of each matrix of weights W (out, in); another way for the rest.

        M ← μ M + G,   W ← W (1 − lr · decay) − lr · 0.2 √max(out, in) · orthogonal(G + μ M)

    Args:
        matrices: weights of two axes or more; a kernel is a matrix (out, in × points).
        rest: of all other weights.
        momentum: μ.
        weight_decay: of the matrices, per step, times the learning rate.
    """

    _step_supports_amp_scaling = True  # torch's name: the device decides by `found_inf` whether the step is left out

    def __init__(
        self, matrices: Sequence[Parameter], rest: torch.optim.Optimizer, momentum: float, weight_decay: float
    ) -> None:
        super().__init__(matrices, {"lr": 0.0, "momentum": momentum, "weight_decay": weight_decay})
        self.rest, rest.state = rest, self.state
        self.param_groups += rest.param_groups
        self.grad_scale: Tensor | None = None
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        self.rest.grad_scale, self.rest.found_inf = self.grad_scale, self.found_inf  # type: ignore[attr-defined]
        self.rest.step()
        alike: dict[tuple[int, int], list[Parameter]] = {}
        for weight in self.param_groups[0]["params"]:
            if weight.grad is not None:
                alike.setdefault((len(weight), weight[0].numel()), []).append(weight)
        for shape, weights in alike.items():  # together, as small products are slow one by one
            self._update(shape, weights, **self.param_groups[0])

    def _update(
        self,
        shape: tuple[int, int],
        weights: list[Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        **_: Any,
    ) -> None:
        ahead = []
        for weight in weights:
            assert weight.grad is not None
            mean = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
            mean.copy_(self._sound(momentum * mean + weight.grad, mean))
            ahead.append((weight.grad + momentum * mean).reshape(shape))
        steps = orthogonalised(torch.stack(ahead)) * (RMS * max(shape) ** 0.5)
        for weight, step in zip(weights, steps, strict=True):
            weight.copy_(self._sound(weight * (1 - lr * weight_decay) - lr * step.view(weight.shape), weight))

    def _sound(self, new: Tensor, old: Tensor) -> Tensor:
        return new if self.found_inf is None else torch.where(self.found_inf > 0, old, new)


def orthogonalised(matrices: Tensor) -> Tensor:
    """About U Vᵀ of each matrix U S Vᵀ of (n, rows, columns): singular values of 0.7 to 1.2 for those above 1 % of the norm."""
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalised(matrices.mT).mT
    a, b, c = ITERATION
    x = matrices / matrices.flatten(1).norm(dim=1).clamp(min=1e-20)[:, None, None]
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
