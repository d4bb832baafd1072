"""A loss that learns from undersampled, noisy measurements alone by splitting them: y = A x + σ n.

A part Λ of what was measured is held out, and predicted from the rest Θ: SSDU (Yaman et al. 2020, Magn. Reson. Med. 84, eq. 7).
The noise in Λ is independent of all that h sees: no divergence is needed, one evaluation instead of two, in any precision.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from scorefield.core.denoiser import DenoiserProtocol
from scorefield.core.sde import expand_like
from scorefield.data.batch import Batch
from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Generators
from scorefield.losses.gsure import GSURE, Acquisition, SampledKSpace, input_of, measured
from scorefield.losses.loss import Loss, Metric


@dataclass(frozen=True)
class SSDU(Loss):
    """‖m (A h(v) − y)‖²/M − σ², v = Aᴴ(1 − m)y, h(v) = x̂(α v, t_w): m is 1 at a random part of what was measured, M numbers.

    Estimand: E ‖m A(h(v) − x)‖²/M, exactly, for every h: least for h = E[x | v] as far as A sees, the mean of x given the *rest*
    of the measurements. That is less than GSURE's E[x | Aᴴy] knows, the less the larger the part; after training v is of all
    that was measured, which h has not seen in training. Coils and both parts of a complex number are held out together. Every
    point is held out at times, so that an error anywhere counts, but where A never sees.

    Args:
        acquisition: A.
        part: the share of the measurements that is held out, on average.

    Raises:
        InputError: a part that is not in (0, 1).
    """

    acquisition: Acquisition = field(default_factory=SampledKSpace)
    part: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.part < 1:
            raise InputError(f"SSDU holds a part in (0, 1) of the measurements out, not {self.part}.")

    @property
    def figures(self) -> tuple[Metric, ...]:
        """NRMSE of noise and image from all that was measured, as far as A sees them: those of `GSURE`."""
        return GSURE(self.acquisition).figures

    def held_out(self, y: Tensor, generator: Generators) -> Tensor:
        """m of measurements (batch, channels, *grid), the same for all channels, or (batch, numbers)."""
        shape = (len(y), 1, *y.shape[2:]) if y.ndim > 2 else y.shape
        return (generator.rand(shape, like=y) < self.part).to(y).expand_as(y)

    def __call__(self, denoiser: DenoiserProtocol, batch: Batch, *, generator: Generators) -> Float[Tensor, " batch"]:
        y, A = measured(batch, self.acquisition)
        noise, h = input_of(denoiser, batch)
        m = self.held_out(y, generator)
        error = m * (A(h(A.adjoint((1 - m) * y))) - y)
        known = m * (y != 0).to(y)
        count = known.flatten(1).sum(1)
        error = error.square() - known * expand_like(noise.square(), y)
        return error.flatten(1).sum(1) / count.clamp(min=1)
