"""Slices that are done as one file of images, which says of each array what it is, and what the whole is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scorefield.foundation.files import ErrorsKept, strict
from scorefield.inverse import warn_of_few
from scorefield.mri.reconstruction_report import LEVEL, QUANTILES, draw_all, figures, volume_figures
from scorefield.run.runner import JOB, Piece, digest

UNITS = "of k-space, whose Fourier transform is orthonormal"
GRID = "height, width"
DESCRIPTIONS = {  # what it is, its axes after that of slices, its units
    "members": ("draws of the complex image x from p(x | k-space)", f"member, {GRID}", UNITS),
    "mean": ("mean of the members, complex", GRID, UNITS),
    "magnitude": ("magnitude of the mean", GRID, UNITS),
    "phase": ("phase of the mean", GRID, "radians"),
    "std": ("standard deviation of the members' magnitudes, n − 1 degrees of freedom", GRID, UNITS),
    "interval": (
        f"{LEVEL:.0%} interval of the magnitude: mean ± q s √(1 + 1/n) of the members' magnitudes, q of Student's t",
        f"low and high, {GRID}",
        UNITS,
    ),
    "quantiles": ("quantiles of the members' magnitudes, at quantile_levels", f"level, {GRID}", UNITS),
    "zero_filled": ("Aᴴy/Σ|S|², complex: what was not sampled is 0", GRID, UNITS),
    "CG_SENSE": ("regularised least squares by conjugate gradients, complex", GRID, UNITS),
    "L1_wavelet": ("least squares with sparse wavelet coefficients, complex", GRID, UNITS),
    "reference": ("Σ s̄_c x_c/Σ|s_c|² of all of k-space, complex", GRID, UNITS),
    "target": ("the image that the file of k-space came with, magnitude", GRID, "of that file"),
    "chi_square": ("χ²/N of each member: about 1 where it explains k-space to its noise", "member", "1"),
    "log_evidence": (
        "log p(k-space), of white k-space in its units; of a volume that of all its slices, at each",
        "",
        "nats",
    ),
    "effective": ("of the weighted particles how many counted at the worst level", "", "1"),
    "mask": ("which points of k-space were used", GRID, "1"),
    "used": ("which samples off the grid were used", "sample, readout", "1"),
    "places": ("where samples off the grid are", "sample, readout, axis", "cycles per field of view"),
    "held_out_samples": ("which of these samples other members had to predict", "sample, readout", "1"),
    "held_out_mask": ("which of these points other members had to predict", GRID, "1"),
    "held_out": (
        f"share of held-out numbers in the members' {LEVEL:.0%} interval, least and most by chance, the factor on their spread "
        f"that makes it {LEVEL:.0%}, and the one that std, interval and quantiles have; NaN where it says nothing",
        "number",
        "1",
    ),
    "maps": (
        "sensitivities of the coils after whitening and compression, Σ|S|² = 1 of the coils before it",
        f"coil, {GRID}",
        "1",
    ),
    "noise": ("standard deviation of the noise of whitened k-space, per real component", "", UNITS),
    "baselines": ("damping and iterations of CG-SENSE, and weight of L1-wavelet", "setting", "1"),
    "scale": ("the 99th percentile of the foreground of the CG-SENSE image, which is 1 to the prior", "", UNITS),
}


WHOLE_BY_MAPS = "all of k-space by maps"


def assemble(
    identity: Mapping[str, Any], parts: Mapping[int, Piece], out: Path, *, target: str, pictures: Path
) -> None:
    """Write the file of images of some slices, and pictures of the middle one.

    Args:
        identity: what decides the result.
        parts: the arrays of each slice by its number; without images where nothing was measured.
        out: the file.
        target: what the file of k-space calls the images that it came with, if it has any.
        pictures: the file beside which the pictures are to be.
    """
    import h5py

    numbers = list(parts)
    held = [number for number in numbers if "members" in parts[number]]
    found: dict[str, dict[str, float]] = {}
    references = {"reference": WHOLE_BY_MAPS, "target": f"the file's {target}"}
    with ErrorsKept(out, "w+b") as opened, h5py.File(opened, "w") as file:
        slices = file.create_dataset("slices", data=np.array(numbers))
        _describe(slices, "number of each slice in the file of k-space, from 0", "", "1")
        for number in held:
            arrays = dict(parts[number])
            _store(file, arrays, numbers.index(number), len(numbers))
            references = {name: label for name, label in references.items() if name in arrays}
            found[str(number)] = figures(arrays) if "reference" in arrays else {}
            found[str(number)]["chi_square"] = float(arrays["chi_square"].mean())
            if np.isfinite(arrays["held_out"][0]):
                found[str(number)] |= {
                    "held_out": float(arrays["held_out"][0]),
                    "inflation": float(arrays["held_out"][3]),
                }
            for name in ("log_evidence", "effective"):
                found[str(number)] |= {name: float(arrays[name])} if name in arrays else {}
            if number == held[len(held) // 2]:
                draw_all(pictures, arrays)
        counted = {f"slice {number}": row["effective"] for number, row in found.items() if "effective" in row}
        warn_of_few(counted)
        places = [numbers.index(number) for number in held]
        volume = {label: volume_figures(file, name, places) for name, label in references.items()}
        file.attrs["record"], file.attrs[JOB] = json.dumps(strict(dict(identity))), digest(identity)
        file.attrs["figures"] = json.dumps(
            {"slices": found, "volume": {name: row for name, row in volume.items() if row}}
        )
        file.attrs["interval_level"], file.attrs["quantile_levels"] = LEVEL, QUANTILES


def _store(file: Any, arrays: Mapping[str, np.ndarray], place: int, count: int) -> None:
    """The arrays of a slice at its place; what no slice fills is 0, of χ² NaN."""
    for name, values in arrays.items():
        if name not in file:
            empty = np.nan if name in ("chi_square", "log_evidence", "effective") else None
            data = file.create_dataset(name, (count, *values.shape), values.dtype, fillvalue=empty)
            _describe(data, *DESCRIPTIONS[name])
        file[name][place] = values


def _describe(data: Any, description: str, axes: str, units: str) -> None:
    data.attrs["description"], data.attrs["units"] = description, units
    data.attrs["axes"] = f"slice, {axes}" if axes else "slice"
