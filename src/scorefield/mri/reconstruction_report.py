"""What members of a posterior say together, what they are worth, and how they look beside the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.picture import save_panels
from scorefield.foundation.files import replacing
from scorefield.foundation.fourier import fit_matrix
from scorefield.metrics.image import error_by_spread, interval_coverage, spread_of, student_interval
from scorefield.mri.metrics import fastmri_figures, masked_psnr, nmse, object_mask, ssim
from scorefield.mri.predictive_check import inflated

LEVEL = 0.9
QUANTILES = (0.05, 0.5, 0.95)
FOR_COVERAGE = 8  # members below which their coverage says little
FEWEST = 19  # members for a quantile of 5 % to be one of their own values
MISFIT, OVERFIT = 1.6, 0.6  # χ²/N beyond which something other than chance is wrong
DIVERGED = 10  # times the χ² of CG-SENSE: it is the method that does not reach the data
IMAGES = {"zero_filled": "zero-filled", "CG_SENSE": "CG-SENSE", "L1_wavelet": "L1-wavelet", "mean": "posterior mean"}


def summary(members: Tensor, inflation: float = 1.0) -> dict[str, Tensor]:
    """Mean, its magnitude and phase, standard deviation, interval and quantiles of the magnitude, of complex members.

    A single member has no spread. The interval is mean ± q s √(1 + 1/n), q of Student's t, for any other n; quantiles are those
    of the members, from 19 on.

    Args:
        members: x_i.
        inflation: κ; standard deviation, interval and quantiles are those of x̄ + κ (x_i − x̄).
    """
    mean = members.mean(0)
    size = inflated(members, inflation).abs()
    found = {"members": members, "mean": mean, "magnitude": mean.abs(), "phase": mean.angle()}
    if len(members) > 1:
        found["std"] = spread_of(size)[0]
        low, high = student_interval(size, LEVEL)
        found["interval"] = torch.stack((low.clamp(min=0), high))
    if len(members) >= FEWEST:
        found["quantiles"] = torch.quantile(size, torch.tensor(QUANTILES), dim=0)
    return found


def misfit(fit: float, linear: float, measured: float = 1.0) -> str:
    """What may be wrong where the members explain k-space much worse or better than its noise allows; or nothing.

    Args:
        fit: χ²/N of the members.
        linear: χ²/N of CG-SENSE, which has no prior to be led astray by.
        measured: numbers for each unknown one. Members of few coils, which measure less than there is to know, fit that closely.
    """
    if fit > MISFIT and fit > DIVERGED * linear:
        return (
            f"the members do not fit k-space: χ²/N is {fit:.3g}, that of CG-SENSE {linear:.3g}. Take another --method, or "
            "more --steps."
        )
    if fit > MISFIT:
        return (
            f"the members do not fit k-space: χ²/N is {fit:.3g}, about 1 where they do. Are the maps of this scan, its coils in "
            "the same order? Is --noise right?"
        )
    if fit < OVERFIT * min(measured, 1.0):
        return (
            f"the members fit k-space better than their noise allows: χ²/N is {fit:.3g}. Either the noise is taken too strong "
            "(give --noise, or a noise scan), or k-space was filtered, or filled up with zeros."
        )
    return ""


def figures(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What a slice is worth against its reference: PSNR in dB of each image, SSIM and NMSE of the mean; of 8 members coverage."""
    unit = float(np.abs(found["reference"]).max()) or 1.0  # in which squares are numbers, whatever those of the file

    def magnitude(name: str) -> Tensor:
        return torch.from_numpy(np.abs(found[name]) / unit)

    truth = magnitude("reference")
    inside = object_mask(truth)
    result = {label: masked_psnr(magnitude(name), truth, inside) for name, label in IMAGES.items()}
    mean = magnitude("magnitude")
    result |= {"SSIM": ssim(mean, truth, float(truth.max())), "NMSE": nmse(mean, truth)}
    members = torch.from_numpy(found["members"])
    if len(members) >= FOR_COVERAGE:
        spread = inflated(members, float(found["held_out"][-1]) if "held_out" in found else 1.0).abs() / unit
        result["coverage"] = interval_coverage(spread[:, inside], truth[inside][None], LEVEL)
    return result


def volume_figures(found: Mapping[str, Any], truth: str, places: Sequence[int]) -> dict[str, dict[str, float]]:
    """PSNR, SSIM and NMSE of slices as one volume, by fastMRI's definitions, of each kind of image; none where the truth is 0.

    Magnitudes are cut about their centre to the size of the truth, or filled up with zeros.

    Args:
        found: (slices, height, width) by name, as in the file that `reconstruct` writes.
        truth: the name of what is compared with.
        places: the slices that are compared.
    """

    def magnitude(name: str) -> np.ndarray:
        return np.abs(found[name][list(places)]).astype(np.float32)

    right = magnitude(truth)
    if not (np.isfinite(right).all() and right.any()):
        return {}
    unit = right.max()  # in which squares are numbers, whatever those of the file
    images = {label: fit_matrix(magnitude(name) / unit, right.shape[1:]) for name, label in IMAGES.items()}
    return {label: fastmri_figures(torch.from_numpy(x), torch.from_numpy(right / unit)) for label, x in images.items()}


def draw_all(out: Path, found: Mapping[str, np.ndarray]) -> None:
    """Beside a file of images, those of a slice; and, where there is a reference, error against uncertainty."""
    picture(out.with_suffix(".png"), found)
    if "reference" in found and len(found["members"]) >= 4:
        uncertainty_picture(out.with_name(f"{out.stem}-uncertainty.png"), found)


def uncertainty_picture(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Error against uncertainty within the object: on the diagonal, the members spread as much as their mean errs."""
    from matplotlib.figure import Figure

    truth = torch.from_numpy(np.abs(found["reference"]))
    inside, members = object_mask(truth), torch.from_numpy(np.abs(found["members"]))
    expected, errors = error_by_spread(members[:, inside], truth[inside][None], min(20, int(inside.sum())))
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes, most = figure.subplots(), 1.05 * float(max(expected.max(), errors.max()))
    axes.plot([0, most], [0, most], color="0.7")
    axes.plot(expected.numpy(), errors.numpy(), "o")
    axes.set(xlabel="expected error, from the spread of the members", ylabel="error of their mean")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def picture(path: Path, found: Mapping[str, np.ndarray]) -> None:
    """Reference, baselines, posterior mean, a member, standard deviation and error, side by side."""
    count = len(found["members"])
    white = float(np.percentile(found["magnitude"], 99.8))
    worth = figures(found) if "reference" in found else {}
    panels: list[tuple[str, Tensor, float, float]] = []

    def show(label: str, image: np.ndarray, high: float = white, key: str = "") -> None:
        title = f"{label}, {worth[key]:.1f} dB" if key in worth else label
        panels.append((title, torch.from_numpy(np.abs(image)).float()[None, None], 0.0, high))

    if "reference" in found:
        show("reference", found["reference"])
    show("zero-filled", found["zero_filled"], key="zero-filled")
    show("CG-SENSE", found["CG_SENSE"], key="CG-SENSE")
    show("L1-wavelet", found["L1_wavelet"], key="L1-wavelet")
    show(f"mean of {count} members", found["mean"], key="posterior mean")
    show("a member", found["members"][0])
    if "std" in found:
        show("standard deviation × 5", 5 * found["std"])
    if "reference" in found:
        show("|error| of the mean × 5", 5 * (found["magnitude"] - np.abs(found["reference"])))
    save_panels(path, panels)


def table(found: Mapping[str, Any], members: int) -> str:
    """The figures of all slices, averaged, and those of the volume, by what it is compared with."""
    slices, labels = found["slices"].values(), {"posterior mean": f"posterior mean ({members} members)"}
    labels |= {
        "chi_square": "χ²/N of a member",
        "held_out": "of held-out k-space covered",
        "inflation": "inflation for 90 %",
        "log_evidence": "log p(k-space) in nats",
        "effective": "effective particles",
    }
    lines = []
    for name in dict.fromkeys(name for row in slices for name in row):
        values = [row[name] for row in slices if name in row and not math.isnan(row[name])]
        if not values:
            continue
        unit = " dB" if name in IMAGES.values() else ""
        lines.append(f"  {labels.get(name, name):28s}{np.mean(values):.4g}{unit}   (mean of {len(values)} slices)")
    for against, rows in found["volume"].items():
        lines.append(f"the volume as fastMRI has it, against {against}:")
        for name, row in rows.items():
            worth = f"{row['psnr']:.4g} dB, SSIM {row['ssim']:.4f}, NMSE {row['nmse']:.4g}"
            lines.append(f"  {labels.get(name, name):28s}{worth}")
    return "\n".join(lines)
