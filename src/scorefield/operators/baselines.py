"""Reconstructions that know no prior but smoothness or sparsity: what a learned one has to be better than."""

from __future__ import annotations

import torch
from torch import Tensor

from scorefield.foundation.errors import InputError
from scorefield.operators.coils import Sense
from scorefield.operators.fourier import to_complex
from scorefield.operators.solve import least_squares


def zero_filled(operator: Sense, y: Tensor) -> Tensor:
    """A* y: what was not sampled is taken for 0, and the coils are combined by their maps."""
    return operator.adjoint(y)


def cg_sense(operator: Sense, y: Tensor, *, damping: float = 0.0, iterations: int = 10) -> Tensor:
    """argmin ‖A x − y‖² + damping ‖x‖² by so many conjugate gradients (Pruessmann et al. 2001).

    Where the sampling is sparse, later iterations amplify the noise: both numbers regularise, and are to be chosen on other data.
    """
    return least_squares(operator, y, damping=damping, iterations=iterations, tolerance=0.0)


def l1_wavelet(operator: Sense, y: Tensor, *, weight: float, iterations: int = 60) -> Tensor:
    """argmin ½‖A x − y‖² + weight ‖W x‖₁, W Daubechies' wavelets (Lustig et al. 2007), by sigpy, for one field of two channels.

    Args:
        operator: A.
        y: k-space (1, 2 coils, height, width).
        weight: in the units of x.
        iterations: of the accelerated proximal gradient method.
    """
    try:
        import sigpy.mri
    except ImportError as error:
        raise InputError("The L1-wavelet baseline needs sigpy: pip install 'scorefield[mri]'.") from error
    grid = operator.maps.shape[1:]
    mask = operator.chosen.expand(grid)
    kspace = torch.where(mask, to_complex(y)[0], 0)
    options = {
        "max_iter": iterations,
        "alpha": 1.0,
        "show_pbar": False,
    }  # a step of 1, since Σ|S|² <= 1: sigpy's own is random
    app = sigpy.mri.app.L1WaveletRecon(
        kspace.numpy(), operator.maps.numpy(), weight, weights=mask.float().numpy(), **options
    )
    found = torch.from_numpy(app.run()).to(operator.maps.dtype)
    return torch.view_as_real(found).movedim(-1, 0)[None]
