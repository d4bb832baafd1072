"""Measurements y = A(x) of fields (batch, channels, *grid). Linear ones have an adjoint: ⟨A x, y⟩ = ⟨x, A* y⟩.

The inner product is the plain sum over all elements. A complex field is a pair of real channels per channel (real part, imaginary
part), for which that sum is the real part of the complex product: Fourier and coil operators are linear maps like any other.
"""

from scorefield.foundation.fourier import to_channels, to_complex
from scorefield.operators.blur import Blur, Boundary
from scorefield.operators.cosine import CosineCoarsen, FourierCoarsen
from scorefield.operators.function import as_operator
from scorefield.operators.kspace import Coils, Fourier, ParallelImaging, Sense, cg_sense, l1_wavelet, zero_filled
from scorefield.operators.masks import Coarsen, Grey, Hole, Mask
from scorefield.operators.nonlinear import Differentiable, FourierMagnitude, LinearMap, Moved, Operator, Saturated
from scorefield.operators.nonuniform import NonUniformFourier, NonUniformSense
from scorefield.operators.operator import Compose, Identity, LinearOperator, Scale
from scorefield.operators.solve import conjugate_gradients, largest_singular_value, least_squares, project_range

__all__ = [
    "Blur", "Boundary", "Coarsen", "Coils", "Compose", "CosineCoarsen", "Differentiable", "Fourier",
    "FourierCoarsen", "FourierMagnitude", "Grey", "Hole", "Identity", "LinearMap", "LinearOperator", "Mask", "Moved",
    "NonUniformFourier", "NonUniformSense", "Operator", "ParallelImaging", "Saturated", "Scale", "Sense",
    "as_operator", "cg_sense", "conjugate_gradients", "l1_wavelet", "largest_singular_value", "least_squares",
    "project_range", "to_channels", "to_complex", "zero_filled",
]  # fmt: skip
