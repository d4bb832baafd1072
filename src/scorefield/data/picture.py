"""Pictures of fields of any rank and number of channels, as one grid of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing

GAP = 2  # pixels between tiles
SMALL = 48  # tiles are enlarged to about this many pixels
CURVE = 64  # height of the tile of a field of rank 1, in pixels
MISSING = torch.tensor([200, 30, 120], dtype=torch.uint8)  # the colour of NaN, which no grey value has


def grid(x: Tensor, *, columns: int = 0, low: float | None = None, high: float | None = None) -> np.ndarray:
    """Draw fields as one uint8 picture (height, width, 3).

    Three channels are red, green and blue with one range of values; any other number are grey tiles side by side, each
    channel with a range of its own. Fields of rank 1 are curves, fields of rank 3 show their middle plane along the
    first axis. NaN is purple.

    Args:
        x: (batch, channels, *grid).
        columns: fields in a row; by default so many that the picture is about square.
        low: the value drawn black; by default the smallest.
        high: the value drawn white; by default the largest.
    """
    x = x.detach().cpu().double()
    if x.ndim == 5:
        x = x[:, :, x.shape[2] // 2]
    shared = x.shape[1] == 3 and x.ndim > 3
    x = unit(x, low, high, shared)
    panels = curves(x) if x.ndim == 3 else x
    rgb = (
        panels[:, None] if shared else panels[:, :, None].expand(-1, -1, 3, -1, -1)
    )  # (batch, panel, 3, height, width)
    pixels = (rgb.nan_to_num().clamp(0, 1) * 255).round().to(torch.uint8).movedim(2, -1)
    pixels[rgb.isnan().any(2)] = MISSING
    zoom = max(1, SMALL // max(pixels.shape[2:4]))
    pixels = pixels.repeat_interleave(zoom, dim=2).repeat_interleave(zoom, dim=3)
    return assemble(pixels.flatten(0, 1), columns * pixels.shape[1], pixels.shape[1])


def save_grid(
    path: Path | str, x: Tensor, *, columns: int = 0, low: float | None = None, high: float | None = None
) -> None:
    """Write the picture of `grid`, of x (n, channels, *grid), to an image file, which appears whole or not at all."""
    path = Path(path)
    form = Image.registered_extensions().get(path.suffix.lower())
    if form not in Image.SAVE:
        raise InputError(f"{path} names no kind of picture: give a name that ends in .png.")
    picture = Image.fromarray(grid(x, columns=columns, low=low, high=high))
    with replacing(path) as temporary:
        picture.save(temporary, format=form)


def save_panels(path: Path, panels: Sequence[tuple[str, Tensor, float, float]], *, columns: int = 4) -> None:
    """Write the pictures of `grid` side by side under their names, as .png, .pdf or .svg.

    Args:
        path: the picture.
        panels: each with a name, fields, and what is black and what is white.
        columns: panels in a row.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(len(panels), columns)
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, panel in zip(figure.subplots(rows, columns, squeeze=False).flat, panels, strict=False):
        name, x, low, high = panel
        axes.imshow(grid(x, low=low, high=high), interpolation="nearest")
        axes.set_title(name, fontsize=8)
    for axes in figure.axes:
        axes.axis("off")
    with replacing(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:], dpi=120)


def unit(x: Tensor, low: float | None, high: float | None, shared: bool) -> Tensor:
    """Known values of x (n, channels, *grid) scaled to [0, 1], with one range for all channels or one for each."""
    axes = tuple(axis for axis in range(x.ndim) if shared or axis != 1)
    finite = x.isfinite()
    lowest = torch.where(finite, x, torch.inf).amin(axes, keepdim=True) if low is None else x.new_tensor(low)
    highest = torch.where(finite, x, -torch.inf).amax(axes, keepdim=True) if high is None else x.new_tensor(high)
    width = highest - lowest
    return (x - lowest) / torch.where(width > 0, width, 1.0)


def curves(x: Tensor) -> Tensor:
    """Draw functions (..., length) with values in [0, 1] as bright connected curves (..., CURVE, length)."""
    row = (1 - x.clamp(0, 1)) * (CURVE - 1)
    before = torch.cat((row[..., :1], row[..., :-1]), dim=-1)
    top, bottom = torch.minimum(row, before)[..., None, :], torch.maximum(row, before)[..., None, :]
    height = torch.arange(CURVE, dtype=x.dtype)[:, None]
    drawn = ((height >= top - 0.5) & (height <= bottom + 0.5)).to(x.dtype)
    return torch.where(top.isnan() | bottom.isnan(), torch.nan, drawn)


def assemble(tiles: Tensor, columns: int, group: int) -> np.ndarray:
    """Set tiles (n, height, width, 3) in rows, a multiple of `group` in each."""
    n, height, width, _ = tiles.shape
    square = math.sqrt(n * height / width)
    columns = min(columns or max(1, round(square / group)) * group, n)
    rows = -(-n // columns)
    canvas = torch.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3), 40, dtype=torch.uint8)
    for i, tile in enumerate(tiles):
        y, x = GAP + i // columns * (height + GAP), GAP + i % columns * (width + GAP)
        canvas[y : y + height, x : x + width] = tile
    return canvas.numpy()
