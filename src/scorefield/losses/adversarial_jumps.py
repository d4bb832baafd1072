"""A critic of the draws of a flow map: it sees what fixed distances do not, and remembers the data of all steps.

A distance between two small batches is blind to most differences of their laws; a network that is trained to classify data and
draws averages over all steps what it has seen. The game is that of relativistic pairs (Jolicoeur-Martineau 2019), with the
critic's slope penalised at data and at draws (Huang et al. 2024, The GAN is dead; long live the GAN!) and noise of a few levels
on both (Wang et al. 2023, Diffusion-GAN), so that laws of pictures overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.jump_score import JumpScore
from scorefield.losses.loss import Adversary, Loss, Metric
from scorefield.nn.network import Network

STEP = 0.05  # of the differences that stand for a slope, of data of about unit variance


@dataclass(frozen=True)
class AdversarialJumps(Loss):
    """`JumpScore` + λ log(1 + exp(D_k(x + σξ, σ) − D_k(X + σξ', σ))), X a draw of kind k: by one jump, or by two.

    D has a logit for every kind of draw, for the law of each is to be that of the data, not that of their mixture. It sees fields
    without their conditions: of data with classes it compares the laws of all classes together, and the scores those of each.
    Held-out fields are judged by the scores alone, since values of different critics cannot be compared.

    Args:
        critic: D, a network with as many logits as there are kinds: an `Encoder` with classes 1 + the number of levels.
        score: distillation, scores of draws and the levels of their second jumps; with one member.
        factor: λ.
        penalty: γ of the slope of D.
        noise: the σ, one of them for each field; a level may be there twice.
        rate: learning rate of the critic, in parts of the model's.
        rounds: steps of the critic before each of the map, among which a batch is shared out.
    """

    critic: Network
    score: JumpScore = field(default_factory=JumpScore)
    factor: float = 0.3
    penalty: float = 1.0
    noise: Sequence[float] = (0.0, 0.0, 0.3, 1.0)
    rate: float = 1.0
    rounds: int = 1
    jumps = True

    def __post_init__(self) -> None:
        if not (self.factor > 0 and self.penalty > 0 and self.rate > 0) or self.rounds < 1:
            raise InputError("AdversarialJumps needs factor > 0, penalty > 0, rate > 0 and rounds >= 1.")
        if not self.noise or not all(level >= 0 for level in self.noise):
            raise InputError(f"AdversarialJumps needs levels of noise of 0 or more, not {list(self.noise)}.")
        if self.score.members != 1:
            raise InputError(
                "AdversarialJumps tells draws from whole fields, one for each: leave train.loss.score.members 1."
            )
        if self.critic.logits != (kinds := 1 + len(self.score.levels)):
            raise InputError(
                f"AdversarialJumps needs a critic with a logit for each of {kinds} kinds of draws: take Encoder, and give "
                f"train.loss.critic.classes {kinds}."
            )

    @property
    def together(self) -> int:
        return self.score.together * self.rounds

    @property
    def adversary(self) -> Adversary:
        return JumpCritic(self)

    @property
    def held_out(self) -> Loss:
        return self.score

    @property
    def figures(self) -> tuple[Metric, ...]:
        return self.score.figures

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        distillation = self.score.distillation
        distilled = 0 if distillation is None else distillation(denoiser, batch, generator=generator)
        return distilled + self.of_draws(denoiser, batch, generator)

    def of_draws(self, denoiser: DenoiserProtocol, batch: Batch, generator: Generators) -> Float[Tensor, " batch"]:
        """All but the distillation."""
        kind = self.score.kinds(batch, generator)
        drawn = self.score.draw(denoiser, batch, kind, generator)
        level, first, second = self.noises(batch.x, generator)
        real, false = self.logit(batch.x + first, kind, level), self.logit(drawn + second, kind, level)
        return self.score.among_all(drawn, kind, batch) + self.factor * F.softplus(real - false)

    def noises(self, x: Tensor, generator: Generators) -> tuple[Float[Tensor, " batch"], Tensor, Tensor]:
        """σ of each sample, and two independent noises of that."""
        place = (generator.rand((len(x),), like=x) * len(self.noise)).long().clamp(max=len(self.noise) - 1)
        level = torch.tensor(self.noise, dtype=x.dtype, device=x.device)[place]
        first, second = (expand_like(level, x) * generator.randn(x.shape, like=x) for _ in range(2))
        return level, first, second

    def logit(self, x: Tensor, kind: Int[Tensor, " batch"], level: Tensor) -> Float[Tensor, " batch"]:
        """D_k(x, σ); its label is log(1 + σ/STEP)/4, which is 0 without noise."""
        logits = self.critic.evaluate(x, torch.log1p(level / STEP) / 4)
        return logits.gather(1, kind[:, None])[:, 0].to(x.dtype)


@dataclass(frozen=True)
class JumpCritic(Adversary):
    """log(1 + exp(D(X) − D(x))) + γ (‖∇D(x)‖² + ‖∇D(X)‖²)/2, what the critic minimises, X held fixed.

    ‖∇D(u)‖² is E ((D(u + hξ) − D(u))/h)², ξ ~ N(0, 1), which takes no second derivative (Lin et al. 2025, Diffusion adversarial
    post-training).

    Args:
        loss: of the map.
    """

    loss: AdversarialJumps
    jumps = True

    @property
    def network(self) -> Network:
        return self.loss.critic

    @property
    def steps(self) -> int:
        return self.loss.rounds

    @property
    def rate(self) -> float:
        return self.loss.rate

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        kind = self.loss.score.kinds(batch, generator)
        with torch.no_grad():
            drawn = self.loss.score.draw(denoiser, batch, kind, generator)
        level, first, second = self.loss.noises(batch.x, generator)
        found, slopes = [], []
        for x in (batch.x + first, drawn + second):  # one by one: dropout is that of the batch's samples
            shifted = x + STEP * generator.randn(x.shape, like=x)
            here, there = self.loss.logit(x, kind, level), self.loss.logit(shifted, kind, level)
            found.append(here)
            slopes.append(((there - here) / STEP).square())
        real, false = found
        return F.softplus(false - real) + self.loss.penalty * (slopes[0] + slopes[1]) / 2
