"""Metrics of MR images in their definitions, against numbers worked out by hand or by another implementation."""

import math

import pytest
import torch

from scorefield.foundation.errors import InputError
from scorefield.mri.metrics import fastmri_figures, masked_psnr, nmse, object_mask, ssim


def images(*shape):
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(shape, generator=generator) + 0.5
    return truth + 0.1 * torch.randn(shape, generator=generator), truth


def test_psnr_is_of_the_mask_and_its_own_peak():
    truth = torch.zeros(10, 10)
    truth[2:8, 2:8], truth[0, 0] = 2.0, 50.0
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[2:8, 2:8] = True
    x = truth + 0.02
    x[~mask] = 1e3
    assert masked_psnr(x, truth, mask) == pytest.approx(20 * math.log10(2 / 0.02), abs=1e-3)
    with pytest.raises(InputError):
        masked_psnr(x, truth, torch.zeros_like(mask))


def test_the_object_has_no_holes():
    truth = torch.zeros(20, 20)
    truth[4:16, 4:16] = 1.0
    truth[8:10, 8:10] = 0.0
    assert object_mask(truth).sum() == 144


def ssim_by_windows(x, truth, data_range):
    """Wang et al. (2004), eq. 13, window by window: means, variances and covariance of its 49 pixels divided by 48."""
    c1, c2, found = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, []
    for i in range(len(x) - 6):
        for j in range(len(x[0]) - 6):
            u, v = (image[i : i + 7, j : j + 7].double().flatten() for image in (x, truth))
            cov = torch.cov(torch.stack((u, v)), correction=1)
            top = (2 * u.mean() * v.mean() + c1) * (2 * cov[0, 1] + c2)
            found.append(top / ((u.mean() ** 2 + v.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)))
    return float(torch.stack(found).mean())


def test_nmse_and_ssim_are_those_of_their_definitions():
    x, truth = images(11, 13)
    assert nmse(x, truth) == pytest.approx(float(((x - truth) ** 2).sum() / (truth**2).sum()))
    assert ssim(truth, truth, 1.5) == pytest.approx(1)
    assert ssim(x, truth, 1.5) == pytest.approx(ssim_by_windows(x, truth, 1.5), abs=1e-6)
    with pytest.raises(InputError):
        ssim(x[:6], truth[:6], 1.0)


def test_fastmri_takes_the_peak_of_the_volume_and_its_middle():
    x, truth = images(3, 330, 340)
    truth[1, 100, 100] = 4.0
    truth[0, 0, 0] = 1e3  # outside of the crop
    found = fastmri_figures(x, truth)
    middle, reference = x[:, 5:325, 10:330], truth[:, 5:325, 10:330]
    error = float((middle - reference).double().square().mean())
    assert found["psnr"] == pytest.approx(10 * math.log10(16 / error), abs=1e-4)
    assert found["ssim"] == pytest.approx(sum(ssim(a, b, 4.0) for a, b in zip(middle, reference, strict=True)) / 3)
    assert found["nmse"] == pytest.approx(nmse(middle, reference))
