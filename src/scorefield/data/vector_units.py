"""The units of the numbers that fields are conditioned on."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from scorefield.data.batch import Batch
from scorefield.data.normalise import Standardise
from scorefield.data.vectors import check_rows
from scorefield.foundation.errors import InputError


class VectorUnits(nn.Module):
    """(v − mean)/std of each entry of `cond["vector"]`, learnt from the training data; a row of NaN, the null vector, stays one.

    Args:
        entries: how many.
    """

    def __init__(self, entries: int) -> None:
        super().__init__()
        self.entries, self.units = entries, Standardise()

    @property
    def fitted(self) -> bool:
        """Whether it can be used."""
        return self.units.fitted

    def fit(self, batches: Iterable[Batch]) -> None:
        """Learn from the vectors of training data. Raises InputError where there are none, or an entry never changes."""
        parts = [self.check(batch.cond["vector"]).double().cpu() for batch in batches if "vector" in batch.cond]
        known = torch.cat(parts) if parts else torch.empty(0, self.entries)
        known = known[~known.isnan().all(dim=1)]
        if len(known) == 0:
            raise InputError(f"The data bring no vectors of {self.entries} numbers: set model.net.vector to 0.")
        same = (known == known[0]).all(dim=0)
        if bool(same.any()):
            entry = int(same.nonzero()[0])
            raise InputError(
                f"Entry {entry} of the vectors is {float(known[0, entry]):g} for all fields, which teaches nothing: leave it out."
            )
        self.units.fit([Batch(known)])

    def forward(self, vector: Tensor) -> Float[Tensor, "batch entries"]:
        """Data units, (batch, entries) of any type, to about unit variance, in float64."""
        checked = self.check(vector).double()
        return self.units(checked.to(self.units.shift.device))

    def check(self, vector: Tensor) -> Tensor:
        """The vectors (batch, entries), or InputError where they have another number of entries, or some that are not finite."""
        if vector.ndim != 2 or vector.shape[1] != self.entries:
            raise InputError(
                f"cond['vector'] has shape {tuple(vector.shape)}: give (batch, {self.entries}), as the network was trained."
            )
        return check_rows(vector, "cond['vector']")
