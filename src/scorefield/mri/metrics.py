"""How near a reconstructed MR image is to the truth, in the definitions that the field uses: they differ by decibels.

All of them compare magnitudes. Slices: PSNR over the pixels of a mask, its peak the largest truth in the mask, decibels averaged
across slices. Volumes (fastMRI): the data range is the largest truth of the volume, cut to 320×320; errors are averages of it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from scorefield.foundation.errors import InputError

WINDOW = 7  # of SSIM, in pixels
FASTMRI_CROP = (320, 320)


def object_mask(truth: Float[Tensor, "height width"], threshold: float = 0.1) -> Bool[Tensor, "height width"]:
    """Where the object is: above a tenth of the 99.9th percentile, holes filled."""
    from scipy.ndimage import binary_fill_holes

    inside = truth > threshold * float(np.percentile(truth.numpy(), 99.9))
    return torch.from_numpy(np.asarray(binary_fill_holes(inside.numpy())))


def masked_psnr(
    x: Float[Tensor, "height width"], truth: Float[Tensor, "height width"], mask: Bool[Tensor, "height width"]
) -> float:
    """10 log₁₀(peak²/MSE) in dB, both within the mask. Of a mean of complex members x is the magnitude of the mean."""
    if not bool(mask.any()):
        raise InputError("The mask of the PSNR is empty: give one that holds the object.")
    error = (x.double() - truth.double())[mask].square().mean()
    return float(20 * truth[mask].max().double().log10() - 10 * error.log10())


def nmse(x: Float[Tensor, "*any"], truth: Float[Tensor, "*any"]) -> float:
    """‖x − truth‖²/‖truth‖²."""
    return float((x.double() - truth.double()).square().sum() / truth.double().square().sum())


def ssim(x: Float[Tensor, "height width"], truth: Float[Tensor, "height width"], data_range: float) -> float:
    """Structural similarity (Wang et al. 2004) in windows of 7×7 equal weights within the image, K = 0.01 and 0.03."""
    if min(x.shape) < WINDOW or not data_range > 0:
        raise InputError(f"SSIM needs images of at least {WINDOW}×{WINDOW} and a data range > 0, not {tuple(x.shape)}.")

    def average(image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image[None, None], WINDOW, stride=1)[0, 0]

    u, v, samples = x.double(), truth.double(), WINDOW**2
    mean_u, mean_v = average(u), average(v)
    unbiased = samples / (samples - 1)
    var_u = unbiased * (average(u * u) - mean_u**2)
    var_v = unbiased * (average(v * v) - mean_v**2)
    cov = unbiased * (average(u * v) - mean_u * mean_v)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    top = (2 * mean_u * mean_v + c1) * (2 * cov + c2)
    return float((top / ((mean_u**2 + mean_v**2 + c1) * (var_u + var_v + c2))).mean())


def fastmri_figures(
    volume: Float[Tensor, "slices height width"], truth: Float[Tensor, "slices height width"]
) -> dict[str, float]:
    """PSNR, SSIM and NMSE of a volume as the fastMRI challenge has them (Zbontar et al. 2018, section 7)."""
    if volume.shape != truth.shape:
        raise InputError(
            f"The volume is {tuple(volume.shape)} and the truth {tuple(truth.shape)}: give the same slices."
        )
    size = tuple(min(n, most) for n, most in zip(truth.shape[1:], FASTMRI_CROP, strict=True))
    top, left = ((n - s) // 2 for n, s in zip(truth.shape[1:], size, strict=True))
    cut = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    x, reference = volume[cut], truth[cut]
    peak = float(reference.max())
    error = float((x.double() - reference.double()).square().mean())
    similar = [ssim(a, b, peak) for a, b in zip(x, reference, strict=True)]
    return {
        "psnr": float(10 * np.log10(peak**2 / error)) if error else float("inf"),
        "ssim": float(np.mean(similar)),
        "nmse": nmse(x, reference),
    }
