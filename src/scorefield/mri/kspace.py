"""k-space of a scan, slice by slice: (coils, height, width), frequency 0 at n // 2, the readout along the height."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from scorefield.foundation.errors import InputError, brief
from scorefield.foundation.fourier import centred, centred_box
from scorefield.mri.geometry import Slice
from scorefield.mri.trajectory import Trajectory

MOST_COILS = 256  # of any scanner: more of them are points of an image
LEAST = 1e-12  # of the largest number of k-space, below which single precision has no room for squares
SMALLEST = 16  # points along an axis of k-space, below which it is taken for another one
ORDER = "(slices, coils, height, width)"
NEAR = (
    1 / 16
)  # of an axis: the strongest point of k-space lies no further from n // 2, if nothing else tells that it is one
PEAKED = 0.5  # of the energy lies in the strongest hundredth of k-space, as in no image
UNEVEN = 1.5  # times the E e²/(E e)² of white noise: the energy e of anything else varies more


class EmptySliceError(InputError):
    """A slice is all zeros, as files are filled up at the ends of a volume. Nothing is wrong with the others."""


@dataclass(frozen=True, eq=False)
class KSpace:
    """The slices of one scan.

    Attributes:
        origin: what to call it.
        shape: (slices, coils, height, width).
        read: the k-space of a slice, (coils, height, width), complex64.
        mask: where it was sampled, (height, width), or (slices, height or 1, width), as far as the file says; else where it is
            not 0.
        noise_scan: samples of noise alone, (coils, samples).
        size: (height, width) of the image without readout oversampling, as far as the file says.
        maps: the coil sensitivities of a slice, where the file has them.
        note: what is to be said of how the file was taken.
        guessed: the file has an axis for slices or for coils, not for both.
        target: the magnitude image of a slice that the file has been given with, (height, width).
        target_name: what the file calls it.
        calibration: k-space of a slice that is for coil maps alone, (coils, height, width), 0 where there is none.
        labelled: the file says which of its axes are slices and coils.
        found_unit: finds `unit`.
        plane: where a slice is in the patient, as far as the file says.
        trajectory: where samples are that lie on no grid. k-space is (coils, samples, readouts) then, of an image of `size`.
    """

    origin: str
    shape: tuple[int, int, int, int]
    read: Callable[[int], np.ndarray]
    mask: np.ndarray | None = None
    noise_scan: np.ndarray | None = None
    size: tuple[int, int] | None = None
    maps: Callable[[int], np.ndarray] | None = None
    note: str = ""
    guessed: bool = False
    target: Callable[[int], np.ndarray] | None = None
    target_name: str = ""
    calibration: Callable[[int], np.ndarray] | None = None
    labelled: bool = False
    found_unit: Callable[[], float] | None = None
    plane: Callable[[int], Slice] | None = None
    trajectory: Trajectory | None = None

    @property
    def unit(self) -> float:
        """What k-space was divided by, and its noise scan is to be, see `in_ordinary_units`."""
        return 1.0 if self.found_unit is None else self.found_unit()

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def layout(self) -> str:
        """Which axis was taken for what, in a line."""
        slices, coils, height, width = self.shape
        if self.trajectory is None:
            return f"{self.origin}: slices {slices}, coils {coils}, height {height}, width {width}"
        matrix = "×".join(map(str, self.trajectory.matrix))
        return f"{self.origin}: slices {slices}, coils {coils}, {width} readouts of {height} samples off the grid, image {matrix}"

    def height(self, acquired: np.ndarray) -> int:
        """Of the image of a slice without readout oversampling, as far as the file says.

        It is that of k-space where the file has maps, which are of all of it, or where lines along it are not whole.

        Args:
            acquired: where the slice was sampled, (height, width).
        """
        if self.size is None or self.maps is not None or not (acquired == acquired.any(0)).all():
            return len(acquired)
        return min(self.size[0], len(acquired))

    def slice(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """k-space (coils, height, width) of a slice and where it was sampled, (height, width).

        Raises:
            EmptySliceError: it is all zeros.
            InputError: it cannot be read, or is no k-space.
        """
        if not 0 <= number < len(self):
            raise InputError(f"{self.origin} has slices 0 to {len(self) - 1}, no {number}.")
        try:
            kspace = np.ascontiguousarray(self.read(number), dtype=np.complex64)
        except (OSError, ValueError, KeyError) as error:
            raise InputError(
                f"Slice {number} of {self.origin} cannot be read ({brief(error)}): is the file complete?"
            ) from error
        if not np.isfinite(kspace).all():
            raise InputError(f"Slice {number} of {self.origin} holds NaN or infinite values.")
        sampled = np.any(kspace != 0, axis=0)
        if not sampled.any():
            raise EmptySliceError(f"Slice {number} of {self.origin} is all zeros: nothing was measured.")
        if not kspace.imag.any():
            raise InputError(
                f"Slice {number} of {self.origin} has no imaginary part: magnitudes are no k-space. Give it as it was measured."
            )
        given = self.mask if self.mask is None or self.mask.ndim < 3 else self.mask[number]
        mask = sampled if given is None else np.broadcast_to(given, sampled.shape) & sampled
        if not mask.any():
            raise InputError(
                f"Slice {number} of {self.origin} is 0 wherever its mask says that it was sampled: correct it."
            )
        if self.trajectory is None:
            check_centred(kspace, f"Slice {number} of {self.origin}")
        return kspace, mask


def in_ordinary_units(scan: KSpace) -> KSpace:
    """A scan whose numbers have squares in single precision: of others, such as 1e-30, all is divided by a power of 2.

    Args:
        scan: a slice of it, the first that holds anything from the middle on, says how large its numbers are. It is read for that
            only where another slice has numbers that are far from 1.
    """

    @cache
    def unit() -> float:
        for number in sorted(range(len(scan)), key=lambda n: abs(n - len(scan) // 2)):
            try:
                peak = float(np.abs(scan.read(number)).max())
            except (OSError, ValueError, KeyError, InputError):  # which is said when it is read for itself
                return 1.0
            if peak > 0:
                usual = not np.isfinite(peak) or LEAST < peak < 1 / LEAST
                return 1.0 if usual else float(2.0 ** np.floor(np.log2(peak)))
        return 1.0

    def divided(read: Callable[[int], np.ndarray]) -> Callable[[int], np.ndarray]:
        def ordinary(number: int) -> np.ndarray:
            values = read(number)
            if LEAST**0.5 < float(np.abs(values).max(initial=0.0)) < LEAST**-0.5 or unit() == 1.0:
                return values
            return (np.asarray(values, np.complex128) / unit()).astype(np.complex64)

        return ordinary

    calibration = None if scan.calibration is None else divided(scan.calibration)
    return replace(scan, read=divided(scan.read), calibration=calibration, found_unit=unit)


def remove_oversampling(kspace: np.ndarray, mask: np.ndarray, height: int) -> tuple[np.ndarray, np.ndarray]:
    """k-space (coils, height, width) of the middle `height` points of the image along the readout, and where that was sampled,
    (height, width). White noise keeps its strength.

    Raises:
        InputError: the readout is not sampled as a whole, so that its image is not known.
    """
    if height >= kspace.shape[1]:
        return kspace, mask
    lines = mask.any(0)
    if not (mask == lines).all():
        raise InputError(
            "Oversampling can be removed where whole lines along the height are sampled, not single points."
        )
    image = centred(kspace, (-2,), inverse=True)[:, centred_box((kspace.shape[1],), (height,))[0]]
    small = centred(image, (-2,)) * lines
    return small.astype(np.complex64), np.broadcast_to(lines, small.shape[1:]).copy()


def whole_readout(scan: KSpace, number: int, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """k-space of a slice with its oversampling, (coils, height, width), and what a mask without it, of whole lines, uses of that;
    None where there is none, or single points are used.
    """
    lines = mask.any(0)
    kspace, acquired = scan.slice(number)
    if len(acquired) == len(mask) or not (mask == lines).all():
        return None
    return kspace, acquired & lines


def _in_the_middle(profile: np.ndarray) -> float:
    """The share of a profile that lies in the middle quarter of its axis."""
    size = len(profile)
    return float(profile[np.abs(np.arange(size) - size // 2) <= size // 8].sum() / profile.sum())


def check_maps(shape: tuple[int, ...], dtype: np.dtype, origin: str) -> None:
    """Refuse what is no complex maps (coils, height, width), or one of these for each slice."""
    if dtype.kind != "c" or len(shape) not in (3, 4):
        raise InputError(f"The maps in {origin} are {dtype} {shape}: complex, (coils, height, width) are needed.")


def check_layout(shape: tuple[int, ...], dtype: np.dtype, origin: str) -> tuple[int, int, int, int]:
    """Refuse what is not complex k-space (slices, coils, height, width)."""
    if dtype.kind != "c":
        hint = ": its last axis may be real and imaginary parts, to be joined" if shape[-1:] == (2,) else ""
        raise InputError(f"{origin} holds {dtype}, where k-space is complex{hint}. Give complex64, {ORDER}.")
    if len(shape) != 4:
        raise InputError(f"{origin} has shape {shape}: k-space is {ORDER}, or without slices where there is but one.")
    slices, coils, height, width = shape
    if 0 in shape or min(height, width) < SMALLEST or coils > MOST_COILS:
        last = width < min(coils, height)
        hint = (
            f"if the last axis is that of its {width} coils, numpy.moveaxis(kspace, -1, 1)" if last else "move the axes"
        )
        raise InputError(
            f"{origin} has shape {shape}, which is not in the order {ORDER}, as {coils} coils of {height}×{width}: {hint}."
        )
    return slices, coils, height, width


def check_centred(kspace: np.ndarray, origin: str) -> None:
    """Refuse k-space (coils, height, width) whose energy lies at its corners instead of about n // 2, or whose last axes are not
    those of an image; and images. A slice of noise alone has its strongest point anywhere, and is taken.
    """
    each = np.abs(kspace / np.abs(kspace).max()) ** 2  # of tiny numbers the squares are no numbers any more
    energy = each.sum(0)
    total = float(energy.sum())
    coils, along = each.sum((1, 2)), energy.sum(0)
    if len(coils) >= SMALLEST and _in_the_middle(coils) > max(_in_the_middle(along), 0.5):
        raise InputError(
            f"{origin} is taken as {len(coils)} coils of {energy.shape[0]}×{energy.shape[1]}, but its energy is in the middle of "
            f"the coils and not of the width: if the last axis is that of coils, numpy.moveaxis(kspace, -1, 1) for {ORDER}."
        )
    for axis, name in ((0, "height"), (1, "width")):
        profile = energy.sum(1 - axis)
        size = len(profile)
        near = np.abs(np.arange(size) - size // 2) <= size // 4
        if float(profile[near].sum()) < 0.5 * total:
            raise InputError(
                f"{origin} has less than half of its energy in the middle of its {name}: shift frequency 0 to n // 2 "
                f"(numpy.fft.fftshift), and give the axes as {ORDER}; images are no k-space."
            )
    peak = [int(place) for place in np.unravel_index(int(energy.argmax()), energy.shape)]
    away = [abs(place - size // 2) > max(4, NEAR * size) for place, size in zip(peak, energy.shape, strict=True)]
    sampled = np.sort(energy[energy > 0].astype(np.float64))
    even = (sampled**2).mean() / sampled.mean() ** 2 < UNEVEN * (1 + 1 / len(kspace))
    if any(away) and not even and sampled[-max(len(sampled) // 100, 1) :].sum() < PEAKED * sampled.sum():
        middle = [size // 2 for size in energy.shape]
        raise InputError(
            f"{origin} is strongest at {peak}, where k-space is at {middle}: is it images? Give their Fourier transform, "
            "with frequency 0 at n // 2."
        )


def numbers_of(text: str | None, count: int, origin: str) -> list[int]:
    """`12`, `4:9` or `3,5,8`, or several of these such as `0:7,8:20`, as numbers of slices; all of them by default."""
    if text is None:
        return list(range(count))
    numbers: list[int] = []
    try:
        for part in text.split(","):
            first, colon, last = part.partition(":")
            numbers += range(int(first), int(last)) if colon else [int(first)]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"--slices {text} names no slices: give 12, 4:9, 3,5,8 or 0:7,8:20.")
    numbers = list(dict.fromkeys(numbers))
    if wrong := [number for number in numbers if not 0 <= number < count]:
        raise InputError(f"{origin} has slices 0 to {count - 1}, no {wrong[0]}.")
    return numbers
