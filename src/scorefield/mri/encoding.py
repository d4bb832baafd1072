"""What the readouts of a scan are, and where their counters put them into k-space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scorefield.foundation.errors import InputError

CARTESIAN = "cartesian"


def flag(number: int) -> int:
    """The bit of a flag, whose numbers count from 1."""
    return 1 << (number - 1)


REVERSED = flag(22)


@dataclass(frozen=True)
class Encoding:
    """What a header says of its first encoding.

    Attributes:
        matrix: points along readout, phase encoding 1 and 2.
        height: of the image along the readout, without oversampling.
        centres: the numbers of the central line along phase encoding 1 and 2.
        calibration: its mode, or "".
        trajectory: its kind: cartesian, radial, goldenangle, spiral, ...
        spacing: of the points of its image along readout, phase encoding 1 and 2, in mm; 0 where nothing is said.
    """

    matrix: tuple[int, int, int]
    height: int
    centres: tuple[int, int]
    calibration: str
    trajectory: str = CARTESIAN
    spacing: tuple[float, ...] = (0.0, 0.0, 0.0)


@dataclass(frozen=True, eq=False)
class Readouts:
    """The acquisitions of a file, and how they are put into k-space."""

    origin: str
    records: Any
    heads: np.ndarray
    encoding: Encoding
    coils: int

    def kspace(self, chosen: np.ndarray) -> np.ndarray:
        """(coils, readout, phase 1, phase 2) of some readouts, 0 where there is none, the mean where there are several."""
        height, *phases = self.encoding.matrix
        found, count = np.zeros((self.coils, height, *phases), np.complex64), np.zeros(phases)
        for line in chosen:
            record, head = self.records[int(line)], self.heads[line]
            place = tuple(
                int(head["idx"][f"kspace_encode_step_{axis}"]) + size // 2 - centre
                for axis, size, centre in zip((1, 2), phases, self.encoding.centres, strict=True)
            )
            samples, first = self._placed(samples_of(record, self.coils, self.origin), head, height)
            inside = all(0 <= at < size for at, size in zip(place, phases, strict=True))
            if first < 0 or first + samples.shape[1] > height or not inside:
                size = (height, *phases)
                raise InputError(
                    f"A line of {self.origin} lies outside of its encoded matrix {size}: the header is of another scan."
                )
            found[:, first : first + samples.shape[1], *place] += samples
            count[place] += 1
        return found / np.maximum(count, 1).astype(np.float32)

    @staticmethod
    def _placed(samples: np.ndarray, head: Any, height: int) -> tuple[np.ndarray, int]:
        """The samples (coils, n) that count, in the order of k-space, and where along it the first of them is."""
        names = head.dtype.names or ()
        before, after = (int(head[name]) if name in names else 0 for name in ("discard_pre", "discard_post"))
        samples = samples[:, before : samples.shape[1] - after]
        if turned := bool(int(head["flags"]) & REVERSED):
            samples = samples[:, ::-1]
        return samples, height // 2 - int(head["center_sample"]) + (after if turned else before)


def column(heads: np.ndarray, name: str) -> np.ndarray:
    """A column of the heads, 0 where there is none."""
    return heads[name] if name in (heads.dtype.names or ()) else np.zeros(len(heads), int)


def samples_of(record: Any, coils: int, origin: str) -> np.ndarray:
    """The samples (coils, samples) of one acquisition: pairs of floats, coil after coil."""
    values = np.asarray(record["data"], dtype=np.float32)
    if values.size % (2 * coils):
        raise InputError(f"A line of {origin} does not have {coils} coils, as the first one has.")
    return values.view(np.complex64).reshape(coils, -1)
