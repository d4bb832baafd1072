"""Linear measurements y = A x of fields (batch, channels, *grid), each with its adjoint: ⟨A x, y⟩ = ⟨x, A* y⟩.

The inner product is the plain sum over all elements. A complex field is a pair of real channels per channel (real part, imaginary
part), for which that sum is the real part of the complex product: Fourier and coil operators are linear maps like any other.
"""

from scorefield.operators.blur import Blur, Boundary
from scorefield.operators.operator import Compose, Identity, LinearOperator, Scale
from scorefield.operators.parts import Coarsen, Grey, Hole, Mask

__all__ = ["Blur", "Boundary", "Coarsen", "Compose", "Grey", "Hole", "Identity", "LinearOperator", "Mask", "Scale"]
