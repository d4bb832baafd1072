"""The prior that comes with scorefield is worth what its card says: on a head that it was not trained on, over CG-SENSE."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import scorefield
from scorefield.data.nifti import read_nifti
from scorefield.data.statistics import robust_maximum
from scorefield.foundation.fourier import fit_matrix
from scorefield.mri.coils import as_tensor
from scorefield.mri.masks import PoissonDisc, RandomLines
from scorefield.mri.metrics import masked_psnr, object_mask
from scorefield.mri.posterior import CENTRE, FEW, OWN_METHOD, Posterior
from scorefield.mri.scan import Baselines, Scan
from scorefield.mri.simulated import simulate

pytest.importorskip("sigpy")
pytestmark = pytest.mark.usefixtures("unchecked")
CELLS = {  # sampling, and settings of CG-SENSE that are best on slices of another head
    "R = 4": (RandomLines(4.0, 24, seed=100), Baselines(0.0, 20)),
    "R = 8": (RandomLines(8.0, 0.04, seed=100), Baselines(0.0, 40)),
    "R = 8 of points": (PoissonDisc(8.0, (24, 24), seed=100), Baselines(1e-3, 20)),
}


@cache
def volume(folder: Path) -> np.ndarray:
    """MNI152 by axial slices."""
    return fit_matrix(np.moveaxis(read_nifti(folder / "mri/mni_icbm152_t1_nlin_sym_09a.nii.gz"), 2, 0), (192, 224))


def gain(folder: Path, cell: str, number: int, members: int) -> float:
    """What the mean of some members is above CG-SENSE, in dB."""
    image, (sampling, baselines) = volume(folder)[number], CELLS[cell]
    simulated = simulate(image / robust_maximum(image), seed=0, number=number)
    mask, truth = torch.from_numpy(sampling((192, 224), number)), torch.from_numpy(np.abs(simulated.image))
    scan = Scan(as_tensor(simulated.kspace), mask, as_tensor(simulated.maps), simulated.noise, baselines)
    posterior = Posterior(scorefield.load("brain-t1"), OWN_METHOD, FEW, members, centre=CENTRE if members > 2 else 0)
    found = posterior.draw(scan, members, number=number)
    inside, linear = object_mask(truth), torch.linalg.vector_norm(scan.linear[0], dim=0)
    return masked_psnr(found.mean(0).abs(), truth, inside) - masked_psnr(linear, truth, inside)


def test_two_members_are_above_tuned_cg_sense(data_folder):
    assert gain(data_folder, "R = 4", 95, 2) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "least"), [("R = 4", 5.0), ("R = 8", 3.0), ("R = 8 of points", 4.5)])
def test_the_mean_of_eight_members_is_as_far_above_it_as_the_card_says(cell, least, data_folder):
    assert np.mean([gain(data_folder, cell, number, 8) for number in (65, 85, 115)]) > least
