"""Metrics of MR images in their definitions, against numbers worked out by hand or by another implementation."""

import math

import pytest
import torch

from scorefield.errors import InputError
from scorefield.metrics.mri import fastmri_figures, masked_psnr, nmse, object_mask, ssim


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


def test_nmse_and_ssim_of_a_volume_are_those_of_others():
    structural_similarity = pytest.importorskip("torchmetrics.functional.image").structural_similarity_index_measure
    x, truth = images(24, 30)
    assert nmse(x, truth) == pytest.approx(float(((x - truth) ** 2).sum() / (truth**2).sum()))
    assert ssim(truth, truth, 1.5) == pytest.approx(1)
    theirs = structural_similarity(
        x[None, None], truth[None, None], gaussian_kernel=False, kernel_size=7, data_range=1.5
    )
    assert ssim(x, truth, 1.5) == pytest.approx(float(theirs), abs=0.01)  # it divides variances by 49, not by 48
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
