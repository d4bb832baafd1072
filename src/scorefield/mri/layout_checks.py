"""Whether the axes of k-space are what they are taken for: the coils of a slice predict each other, slices do not. And whether
its images lie in the middle.

Files name no axes. But coils see one image through smooth sensitivities, so that a point of k-space follows from its neighbours
in all coils (see `noise.predicted_noise`), while slices, however thin, are images of their own.
"""

from __future__ import annotations

import numpy as np

from scorefield.foundation.errors import InputError
from scorefield.foundation.fourier import centred, fit_matrix
from scorefield.mri.kspace import ORDER, KSpace
from scorefield.mri.masks import calibration_box
from scorefield.mri.noise import AMPLE, neighbourhoods

CHANNELS = 8  # coils or slices that are compared
BOX = 48  # points of k-space along an axis
# Slices of a brain, 1 to 5 mm apart, leave 1.1 to 900 times as much unpredicted as its coils, noise 0 to 30 dB below the signal
EXCHANGED = 1.5
# Of what each coil leaves of itself 0.001 to 0.016 is left by all of them, noise 30 to 20 dB below the signal, 0.4 at 0 dB (0.006
# in a real scan); of slices 0.02 to 0.5 where their phase has nothing in common, 0.6 and more where it is the same
COILS, NOT_COILS = 0.012, 0.5
# Energy of the outer half of an image's height or width, divided by that of the middle: 0.04 to 0.76 of heads, also where the
# image ends with them, in three directions, of a real scan and at 7 T; with halves exchanged 1.3 and more. Two legs, or a spine
# before its coils, have as much, but not at both ends at once
WRAPPED = 1.1


def check_axes(scan: KSpace) -> str:
    """A warning, or nothing, of coils that seem to be slices.

    Raises:
        InputError: slices and coils are exchanged; or what has no axis of coils holds those of one slice.
    """
    if scan.labelled:
        return ""
    slices, coils, height, width = scan.shape
    count = min(CHANNELS, max(slices, coils) if 1 in (slices, coils) else min(slices, coils))
    region = _middle(scan, _spread(slices, count))
    if region is None:
        return ""
    region = region[:, _spread(coils, count)]
    if min(region.shape[:2]) > 1:
        if _unpredicted(region) > EXCHANGED * _unpredicted(region.swapaxes(0, 1)):
            raise InputError(
                f"{scan.origin} is taken as {slices} slices of {coils} coils, but its slices predict each other as coils do: "
                f"exchange the axes, numpy.swapaxes(kspace, 0, 1), for {ORDER}."
            )
    elif scan.guessed and len(region) > 2 and _together(region.swapaxes(0, 1)) < COILS:
        raise InputError(
            f"{scan.origin} has no axis of coils, and what would be slices of a single coil predict each other as coils do: "
            f"give (1, {slices}, {height}, {width}) of coils, ({slices}, 1, {height}, {width}) of slices."
        )
    elif scan.guessed and region.shape[1] > 2 and _together(region) > NOT_COILS:
        return (
            f"{scan.origin} is taken as one slice of {coils} coils, which predict little of each other: if they are slices of "
            f"a single coil, give ({coils}, 1, {height}, {width})."
        )
    return ""


def check_shift(scan: KSpace) -> str:
    """A warning where images lie about their corners, as of k-space from a transform without its shift; or nothing."""
    region = _middle(scan, _spread(scan.shape[0], CHANNELS))
    if region is None:
        return ""
    energy = (np.abs(centred(region, inverse=True)) ** 2).sum((0, 1))
    wrapped = []
    for axis, name in ((0, "height"), (1, "width")):
        profile = energy.sum(1 - axis)
        quarter, edge = len(profile) // 4, max(len(profile) // 16, 1)
        middle = profile[quarter : len(profile) - quarter].sum()
        ends = min(profile[:edge].mean(), profile[-edge:].mean())
        if profile.sum() - middle > WRAPPED * middle and ends > profile.mean():
            wrapped.append(name)
    if not wrapped:
        return ""
    return (
        f"the images of {scan.origin} are stronger at the edges of their {' and '.join(wrapped)} than in the middle, as if "
        "halves had changed places: k-space is to be F x with x centred, fftshift(fftn(ifftshift(x)))."
    )


def _spread(size: int, count: int) -> list[int]:
    return np.unique(np.linspace(0, size - 1, count).round().astype(int)).tolist()


def _middle(scan: KSpace, numbers: list[int]) -> np.ndarray | None:
    """The middle of k-space of some slices that can be read, (slices, coils, height, width), if enough of it is sampled."""
    found = []
    for number in numbers:
        try:
            found.append(scan.slice(number))
        except InputError:  # which is said when the slice is read for itself
            continue
    if not found:
        return None
    box = np.min([calibration_box(mask) for _, mask in found] + [(BOX, BOX)], axis=0)
    enough = box.min() > 2 and np.prod(box - 2) >= AMPLE * 8 * min(CHANNELS, max(len(found), len(found[0][0])))
    return np.stack([fit_matrix(kspace, tuple(box.tolist())) for kspace, _ in found]) if enough else None


def _unpredicted(region: np.ndarray) -> float:
    """What the eight neighbours in all channels leave of k-space (any, channels, height, width), as a share of its energy."""
    left = energy = 0.0
    for channels in region.astype(np.complex128):
        neighbours, target = neighbourhoods(channels, 1)
        weights, *_ = np.linalg.lstsq(neighbours, target, rcond=None)
        free = 1 - neighbours.shape[1] / len(neighbours)
        left += float((np.abs(target - neighbours @ weights) ** 2).sum()) / free
        energy += float((np.abs(target) ** 2).sum())
    return left / energy


def _together(region: np.ndarray) -> float:
    """What all channels leave of k-space, as a share of what each of them leaves of itself."""
    alone = region.reshape(-1, 1, *region.shape[2:])
    return _unpredicted(region) / _unpredicted(alone)
