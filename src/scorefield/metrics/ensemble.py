"""Whether an ensemble is one that the truth could be a member of.

The fair scores estimate what an ensemble of endless members would score: their expectation does not depend on the number of
members (Ferro 2014), so that ensembles of different sizes can be compared. The plain ones favour large ensembles.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from scorefield.foundation.random import Generators


def fair_crps(members: Float[Tensor, "members *field"], truth: Float[Tensor, "*field"]) -> Float[Tensor, "*field"]:
    """The fair continuous ranked probability score of each element, in its units: mean|x_i − y| − Σ_ij |x_i − x_j| / (2M(M−1)).

    The double sum is one over members in order, Σ_ij |x_i − x_j| / 2 = Σ_i (2i − M − 1) x_(i), which costs a sort instead of M²
    differences. A single member is scored as a forecast without spread, by |x − y|: for it the fair score does not exist.
    NaN where any value is.

    Args:
        members: M draws.
        truth: what happened.
    """
    # By numpy, as torch sorts seven times more slowly; errors, not values, as temperatures in K would cancel in float32.
    error = torch.from_numpy(np.sort((members - truth).detach().cpu().numpy(), axis=0)).to(members.device)
    count = len(members)
    weight = torch.arange(1 - count, count, 2).double() / max(count * (count - 1), 1)
    spread = torch.tensordot(weight.to(error.device), error.double(), dims=1)
    return (error.abs().mean(0, dtype=torch.float64) - spread).to(error.dtype)


def spread_skill(variance: Tensor, squared_error: Tensor, members: int) -> Tensor:
    """√((M+1)/M · mean variance) / RMSE of the mean: 1 if truth and M members are exchangeable (Fortin et al. 2014, eq. 15).

    Args:
        variance: mean of the members' variance, with M − 1 in its denominator.
        squared_error: mean of (ensemble mean − truth)².
        members: M.
    """
    return ((members + 1) / members * variance / squared_error).sqrt()


def ranks(
    members: Float[Tensor, "members batch *field"], truth: Float[Tensor, "batch *field"], *, generator: Generators
) -> Int[Tensor, "batch *field"]:
    """How many members lie below the truth, 0 to M; among those equal to it, its place is drawn with equal chances.

    All ranks are equally frequent if truth and members are exchangeable, atoms such as dry pixels included (Hamill 2001).

    Args:
        members: M draws.
        truth: what happened.
        generator: for the ties, one stream for each element of the batch.
    """
    below = (members < truth).sum(0)
    ties = (members == truth).sum(0)
    places = generator.rand(truth.shape, like=truth).double() * (ties + 1)
    return below + places.long().clamp(max=ties)


def fair_energy_score(
    members: Float[Tensor, "members batch *field"],
    truth: Float[Tensor, "batch *field"],
    weight: Float[Tensor, "*field"],
) -> Float[Tensor, " batch"]:
    """The fair energy score of whole fields: mean‖x_i − y‖ − Σ‖x_i − x_j‖ / (2M(M−1)), ‖z‖² = Σ w z² / Σ w over the grid.

    It is the CRPS of many dimensions (Gneiting and Raftery 2007, eq. 22); unlike the mean CRPS it sees how the elements belong
    together.
    Elements where any is NaN weigh nothing; a field without any other gets NaN.

    Args:
        members: M draws.
        truth: what happened.
        weight: of each element of the grid, such as the area of its box.
    """
    valid = truth.isfinite() & members.isfinite().all(0)
    scale = (valid * weight).double()
    total = scale.flatten(1).sum(1)
    root = (scale.flatten(1) / total[:, None]).sqrt()
    x = torch.where(valid, members, 0.0).double().flatten(2) * root  # (members, batch, n)
    y = torch.where(valid, truth, 0.0).double().flatten(1) * root
    error = (x - y).norm(dim=2).mean(0)
    n = len(members)
    if n == 1:
        return error
    between = torch.stack([(x[i + 1 :] - x[i]).norm(dim=2).sum(0) for i in range(n - 1)]).sum(0)
    return error - between / (n * (n - 1))
