"""The largest distance between two fields, of all pairs, in bounded memory: fields may be many and lie on disk."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from scorefield.data.fields import FieldDataset

BLOCK = 2**26  # values of a block of fields, 256 MiB; a few blocks are held at once

Change = Callable[[Tensor], Tensor]


def largest_distance(normaliser: Change, fields: FieldDataset, indices: Tensor, block: int = BLOCK) -> float:
    """max ‖x_i − x_j‖ over all pairs of normalised fields (Song and Ermon 2020, technique 1); what a mask hides is 0.

    Fields are read in blocks and compared block by block, those farthest from the middle first: with ‖x_i − c‖ = r_i, no two
    are farther apart than r_i + r_j, so that blocks that cannot hold a larger distance are left out. Data with a few outliers
    take one pass, those of equal radii n²D/2 multiplications. Distances are found by products, ‖a‖² + ‖b‖² − 2ab with a and b
    centred: to about 1e-6 of the largest.

    Args:
        normaliser: from data units to the space of distances.
        fields: the data.
        indices: of which of them.
        block: values that are held at once, a few times.
    """
    if len(indices) < 2:
        return 0.0
    size = max(1, block // fields[int(indices[0])].x.numel())
    middle = read(normaliser, fields, indices[:size]).mean(0)
    radii = torch.cat([(read(normaliser, fields, part) - middle).norm(dim=1) for part in indices.split(size)])
    order = radii.argsort(descending=True)
    parts, reach = indices[order].split(size), radii[order].split(size)
    best = 0.0
    for i, first in enumerate(parts):
        if 2 * float(reach[i][0]) <= best:
            break
        a = read(normaliser, fields, first) - middle
        for j in range(i, len(parts)):
            if float(reach[i][0] + reach[j][0]) <= best:
                break
            b = a if i == j else read(normaliser, fields, parts[j]) - middle
            square = torch.addmm(reach[i][:, None] ** 2 + reach[j] ** 2, a, b.T, alpha=-2)
            best = max(best, float(square.max().clamp(min=0).sqrt()))
    return best


def read(normaliser: Change, fields: FieldDataset, indices: Tensor) -> Tensor:
    """Some normalised fields as rows."""
    batch = fields.gather(indices)
    x = normaliser(batch.x)
    return (x if batch.mask is None else x.where(batch.mask.bool(), 0.0)).flatten(1)
