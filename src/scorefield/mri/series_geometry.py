"""Where slices are in the patient by a series of the same slices: k-space says neither how images are turned nor where they lie.

Which of its axes a series calls rows, and which way they run, is found by comparing images: of all ways to turn the slices of the
series, the one that is most like the root sum of squares of the coils. What is not clearly the most alike is refused.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.foundation.lazy import require
from scorefield.mri.dicom import is_dicom, read_dicom
from scorefield.mri.geometry import Slice
from scorefield.mri.kspace import EmptySliceError, KSpace, remove_oversampling

log = logging.getLogger("scorefield")

ALIKE = 0.7  # the correlation of images that there has to be at least
CLEARER, CLOSE = (
    0.005,
    0.001,
)  # by how much it has to be less in other directions; and may be more in them in a single slice
NEAR = 3  # pixels by which images may be shifted against each other
COMPARED = 5  # slices
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class _Match:
    """One way in which slices may lie in a series: indices (row, column, slice) of the first to those of the second."""

    alike: tuple[float, ...]
    indices: np.ndarray
    turned: tuple[bool, ...]
    words: str


def series_planes(path: Path, scan: KSpace, height: int | None) -> Callable[[int], Slice]:
    """Where the slices of a scan are, by a DICOM series or NIfTI file of the same slices.

    Args:
        path: of the series.
        scan: on a grid.
        height: of its images, where the readout is oversampled; None for what the file says.

    Raises:
        InputError: it has another number of slices, or images that are not clearly like those of the scan in one way.
    """
    if scan.trajectory is not None:
        raise InputError("--geometry compares images of k-space on a grid: this scan is off it.")
    series, affine = _series(path)
    if series.shape[2] != len(scan):
        raise InputError(
            f"{path} has {series.shape[2]} slices, and {scan.origin} {len(scan)}: give the series of this scan."
        )
    images = _images(scan, height)
    shape = next(iter(images.values())).shape
    found = sorted(_matches(images, series, shape), key=lambda match: -np.mean(match.alike))
    best, others = found[0], [match for match in found if match.turned != found[0].turned]
    first, second = float(np.mean(best.alike)), float(np.mean(others[0].alike))
    each = all(ours > theirs - CLOSE for match in others for ours, theirs in zip(best.alike, match.alike, strict=True))
    if first < ALIKE or first - second < CLEARER or not each:
        raise InputError(
            f"The images of {path} are like those of {scan.origin} by a correlation of {first:.3f} in one direction and "
            f"{second:.3f} in another, where {ALIKE} and {CLEARER} less are needed, in every slice: is it a series of this scan?"
        )
    log.warning("%s: slices are placed by the series, %s, correlation %.2f", path, best.words, first)
    world = TO_LPS @ affine @ best.indices
    spacing = np.linalg.norm(world[:3, :3], axis=0)
    rows, columns, across = (float(size) for size in spacing)

    def plane(number: int) -> Slice:
        centre = (world @ [shape[0] // 2, shape[1] // 2, number, 1])[:3]
        return Slice(centre, (world[:3, :3] / spacing).T, (rows, columns, across))

    return plane


def _series(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes (row, column, slice), and the affine of these; the first volume of several, the last axis that of slices."""
    if is_dicom(path):
        volumes, affine = read_dicom(path)
        return np.abs(volumes[0]), affine
    nibabel = require("nibabel", "NIfTI files", "mri")
    try:
        image = nibabel.load(path)  # as it is stored: its last axis is that of slices
        values = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read as NIfTI ({brief(error)}): is it complete?") from error
    if values.ndim not in (3, 4) or values.dtype.kind not in "fiuc":
        raise InputError(f"{path} is {values.dtype} {values.shape}: --geometry takes a volume of slices.")
    return np.abs(values.reshape(*values.shape[:3], -1)[..., 0]).astype(np.float32), image.affine


def _images(scan: KSpace, height: int | None) -> dict[int, np.ndarray]:
    """The root sum of squares of some slices that hold anything."""
    found = {}
    for number in np.unique(np.linspace(0, len(scan) - 1, min(len(scan), 4 * COMPARED)).round().astype(int)).tolist():
        try:
            kspace, acquired = scan.slice(number)
        except EmptySliceError:
            continue
        kspace, _ = remove_oversampling(kspace, acquired, scan.height(acquired) if height is None else height)
        found[number] = np.sqrt((np.abs(centred(kspace, inverse=True)) ** 2).sum(0))
    if not found:
        raise InputError(f"The slices of {scan.origin} are all zeros.")
    middle = sorted(found, key=lambda number: abs(number - len(scan) // 2))[:COMPARED]
    return {number: found[number] for number in middle}


def _matches(images: Mapping[int, np.ndarray], series: np.ndarray, shape: tuple[int, ...]) -> Iterator[_Match]:
    """All ways of turning the series, with pixels of the same size and with the same field of view."""
    deep = series.shape[2]
    for turned in product((False, True), repeat=4):
        swap, rows, columns, back = turned
        if back and deep == 1:
            continue
        other = series.swapaxes(0, 1) if swap else series
        size = other.shape[:2]
        other = other[:: -1 if rows else 1, :: -1 if columns else 1, :: -1 if back else 1]
        ways = ("pixels of the same size", "the same field of view")
        for stretched in (False, True) if size != shape else (False,):
            pairs = [(image, _fitted(other[..., number], shape, stretched)) for number, image in images.items()]
            alike, shift = _correlation(pairs)
            # Indices of the scan to those of the turned series, then to those of the series as it is
            steps = [old / new if stretched else 1.0 for old, new in zip(size, shape, strict=True)]
            starts = [
                (0.5 - moved) * step - 0.5 if stretched else old // 2 - new // 2 - moved
                for old, new, step, moved in zip(size, shape, steps, shift, strict=True)
            ]
            inner = np.diag([*steps, 1.0, 1.0])
            inner[:2, 3] = starts
            flips = np.eye(4)
            for axis, (flip, length) in enumerate(zip((rows, columns, back), (*size, deep), strict=True)):
                if flip:
                    flips[axis, axis], flips[axis, 3] = -1, length - 1
            exchange = np.eye(4)[[1, 0, 2, 3]] if swap else np.eye(4)
            yield _Match(alike, exchange @ flips @ inner, turned, ways[stretched])


def _fitted(image: np.ndarray, shape: tuple[int, ...], stretched: bool) -> np.ndarray:
    """An image of a series in the matrix of the scan."""
    if not stretched:
        return fit_matrix(image, shape)
    x = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    return F.interpolate(x, shape, mode="bilinear", antialias=True, align_corners=False)[0, 0].numpy()


def _correlation(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[tuple[float, ...], tuple[int, int]]:
    """The correlation of pairs of images at the shift of a few pixels where their sum is largest, and that shift of the first."""
    near = [np.arange(-NEAR, NEAR + 1)] * 2
    found = []
    for one, other in pairs:
        a, b = (np.asarray(x, float) - np.mean(x) for x in (one, other))
        whole = np.fft.ifft2(np.fft.fft2(a) * np.fft.fft2(b).conj()).real
        found.append(whole[np.ix_(*near)] / max(float((a**2).sum() * (b**2).sum()) ** 0.5, 1e-30))
    row, column = np.unravel_index(int(np.sum(found, axis=0).argmax()), found[0].shape)
    return tuple(float(part[row, column]) for part in found), (int(near[0][row]), int(near[1][column]))
