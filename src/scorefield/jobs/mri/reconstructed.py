"""What members of a posterior say together, what they are worth, and how they look beside the baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorefield.data.picture import save_panels
from scorefield.files import replacing
from scorefield.metrics.image import error_by_spread, interval_coverage, spread_of, student_interval
from scorefield.metrics.mri import fastmri_figures, masked_psnr, nmse, object_mask, ssim

LEVEL = 0.9
QUANTILES = (0.05, 0.5, 0.95)
JUDGED = 8  # members below which their coverage says little
FEWEST = 19  # members for a quantile of 5 % to be one of their own values
IMAGES = {"zero_filled": "zero-filled", "CG_SENSE": "CG-SENSE", "L1_wavelet": "L1-wavelet", "mean": "posterior mean"}


def summary(members: Tensor) -> dict[str, Tensor]:
    """Mean, its magnitude and phase, standard deviation, interval and quantiles of the magnitude, of complex members.

    The interval is mean ± q s √(1 + 1/n), q of Student's t, for any n; quantiles are those of the members, from 19 on.
    """
    mean, size = members.mean(0), members.abs()
    found = {
        "members": members,
        "mean": mean,
        "magnitude": mean.abs(),
        "phase": mean.angle(),
        "std": spread_of(size)[0],
    }
    if len(members) > 1:
        low, high = student_interval(size, LEVEL)
        found["interval"] = torch.stack((low.clamp(min=0), high))
    if len(members) >= FEWEST:
        found["quantiles"] = torch.quantile(size, torch.tensor(QUANTILES), dim=0)
    return found


def figures(found: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What a slice is worth against its reference: PSNR in dB of each image, SSIM and NMSE of the mean; of 8 members coverage."""
    truth = torch.from_numpy(np.abs(found["reference"]))
    inside = object_mask(truth)
    result = {
        label: masked_psnr(torch.from_numpy(np.abs(found[name])), truth, inside) for name, label in IMAGES.items()
    }
    mean = torch.from_numpy(found["magnitude"])
    result |= {"SSIM": ssim(mean, truth, float(truth.max())), "NMSE": nmse(mean, truth)}
    members = torch.from_numpy(np.abs(found["members"]))
    if len(members) >= JUDGED:
        result["coverage"] = interval_coverage(members[:, inside], truth[inside][None], LEVEL)
    return result


def volume_figures(found: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """PSNR, SSIM and NMSE of all slices as one volume, by fastMRI's definitions, of each kind of image.

    Args:
        found: (slices, height, width) by name, as in the file that `reconstruct` writes; `reference` is the truth.
    """

    def magnitude(name: str) -> Tensor:
        return torch.from_numpy(np.abs(found[name][()]).astype(np.float32))

    truth = magnitude("reference")
    return {label: fastmri_figures(magnitude(name), truth) for name, label in IMAGES.items()}


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
    show("standard deviation × 5", 5 * found["std"])
    if "reference" in found:
        show("|error| of the mean × 5", 5 * (found["magnitude"] - np.abs(found["reference"])))
    save_panels(path, panels)


def table(found: Mapping[str, Mapping[str, float]], volume: Mapping[str, Mapping[str, float]], members: int) -> str:
    """The figures of all slices, averaged, and those of the volume."""
    names = list(dict.fromkeys(name for row in found.values() for name in row))
    lines = []
    for name in names:
        values = [row[name] for row in found.values() if name in row and not math.isnan(row[name])]
        unit = " dB" if name in ("zero-filled", "CG-SENSE", "L1-wavelet", "posterior mean") else ""
        label = (
            f"{name} ({members} members)"
            if name == "posterior mean"
            else "χ²/N of a member"
            if name == "chi_square"
            else name
        )
        lines.append(f"  {label:28s}{np.mean(values):.4g}{unit}   (mean of {len(values)} slices)")
    for name, row in volume.items():
        label = f"{name} ({members} members)" if name == "posterior mean" else name
        lines.append(
            f"  {label:28s}{row['psnr']:.4g} dB, SSIM {row['ssim']:.4f}, NMSE {row['nmse']:.4g}   (as fastMRI has it)"
        )
    return "\n".join(lines)
