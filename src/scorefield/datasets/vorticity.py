"""Two-dimensional turbulence: the vorticity ω of a forced incompressible flow on the unit torus.

∂ω/∂t + u·∇ω = ν Δω + f,    u = (∂ψ/∂y, −∂ψ/∂x),    −Δψ = ω.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from scorefield.data.arrays import BROKEN
from scorefield.data.fields import ArrayFields, FieldDataset, Subset
from scorefield.data.source import Source, Split, hold_out
from scorefield.foundation.errors import InputError
from scorefield.foundation.files import replacing
from scorefield.foundation.random import Generators, Stream

MODES = 32  # the initial vorticity has modes below MODES/2, on any grid the same
TOGETHER = 16  # sequences that are computed at once

Spectrum = Complex[Tensor, "batch size half"]


@dataclass(frozen=True)
class Flow:
    """The equation, by a Fourier series with the products free of aliases (2/3 rule, Orszag 1971).

    Args:
        viscosity: ν.
        forcing: F in f = F (sin 2π(x + y) + cos 2π(x + y)), as Li et al. (2021) force theirs.
    """

    viscosity: float = 1e-4
    forcing: float = 0.1

    def run(
        self, vorticity: Float[Tensor, "batch size size"], duration: float, steps: int
    ) -> Float[Tensor, "batch size size"]:
        """ω after some time, by steps of the classical Runge-Kutta method, of order 4; the viscous term is exact."""
        size = vorticity.shape[-1]
        w = torch.fft.rfft2(vorticity, norm="forward")
        dt = duration / max(steps, 1)
        half = torch.exp(-self.viscosity * laplacian(size, vorticity.dtype) * dt / 2)
        force = self._force(size, vorticity)
        for _ in range(steps):
            k1 = advection(w) + force
            k2 = advection(half * (w + dt / 2 * k1)) + force
            k3 = advection(half * w + dt / 2 * k2) + force
            k4 = advection(half * (half * w + dt * k3)) + force
            w = half * (half * (w + dt / 6 * k1) + dt / 3 * (k2 + k3)) + dt / 6 * k4
        return torch.fft.irfft2(w, s=(size, size), norm="forward")

    def _force(self, size: int, like: Tensor) -> Tensor:
        at = torch.arange(size, dtype=like.dtype) / size
        phase = 2 * math.pi * (at[:, None] + at)
        return torch.fft.rfft2(self.forcing * (phase.sin() + phase.cos()), norm="forward")


def advection(w: Spectrum) -> Spectrum:
    """−u·∇ω of a spectrum, free of aliases."""
    size = w.shape[-2]
    x, y = wavenumbers(size, w.real.dtype)
    keep = ((x.abs() < size / 3) & (y.abs() < size / 3)).to(w)
    w = w * keep
    psi = w / laplacian(size, w.real.dtype).clamp(
        min=1
    )  # mode 0 of ω is 0 but for rounding: (2π)² is the least elsewhere
    factor = 2j * math.pi
    u, v, w_x, w_y = torch.fft.irfft2(
        torch.stack((factor * y * psi, -factor * x * psi, factor * x * w, factor * y * w)),
        s=(size, size),
        norm="forward",
    )
    return -keep * torch.fft.rfft2(u * w_x + v * w_y, norm="forward")


def budget(vorticity: Float[Tensor, "batch size size"]) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """Energy ½⟨|u|²⟩ and enstrophy ½⟨ω²⟩. Without forcing, dE/dt = −2νZ, and both are conserved where ν = 0."""
    size = vorticity.shape[-1]
    power = torch.fft.fft2(vorticity, norm="forward").abs().square()
    along = torch.fft.fftfreq(size, 1 / size, dtype=vorticity.dtype)
    square = (2 * math.pi) ** 2 * (along[:, None].square() + along.square())
    energy = power / torch.where(square > 0, square, torch.inf)
    return 0.5 * energy.sum((1, 2)), 0.5 * power.sum((1, 2))


@lru_cache(maxsize=8)
def wavenumbers(size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """k along rows (size, 1) and along columns (1, size // 2 + 1), in cycles per domain."""
    rows = torch.fft.fftfreq(size, 1 / size, dtype=dtype)
    columns = torch.fft.rfftfreq(size, 1 / size, dtype=dtype)
    return rows[:, None], columns[None]


def laplacian(size: int, dtype: torch.dtype) -> Tensor:
    """(2π|k|)², by which −Δ multiplies a mode."""
    x, y = wavenumbers(size, dtype)
    return (2 * math.pi) ** 2 * (x.square() + y.square())


def initial(size: int, seed: int, indices: range) -> Float[Tensor, "batch size size"]:
    """Gaussian vorticity of spectrum 7³ (4π²|k|² + 7²)^(−5/2) and mean 0 (Li et al. 2021, section 5.3), the same on any grid."""
    generator = Generators((seed, index, Stream.VORTICITY) for index in indices)
    white = generator.randn((len(indices), MODES, MODES), like=torch.empty(0, dtype=torch.float64))
    coarse = torch.fft.fft2(white, norm="ortho")
    kept = min(size, MODES) // 2  # the modes −kept + 1 .. kept − 1
    at = torch.cat((torch.arange(kept), torch.arange(1 - kept, 0)))
    full = torch.zeros(len(indices), size, size, dtype=coarse.dtype)
    full[:, at[:, None] % size, at % size] = coarse[:, at[:, None] % MODES, at % MODES]
    square = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64).square()
    decay = (7.0**3 * (4 * math.pi**2 * (square[:, None] + square) + 49) ** -2.5).sqrt()
    decay[0, 0] = 0
    return torch.fft.ifft2(full * decay, norm="forward").real


@dataclass(frozen=True)
class NavierStokes(Source):
    """Sequences of vorticity fields of a turbulent flow, computed by a spectral method; the frames are the channels.

    Sequence i depends on (seed, i) alone, and starts from the same field on any grid. Computing takes about a millisecond per
    step and sequence at 64×64: with `cache` it is done once.

    Args:
        sequences: how many.
        frames: fields of a sequence.
        interval: time between fields.
        spin_up: time before the first one, in which the flow forgets its Gaussian start.
        size: points along each side.
        step: time step.
        viscosity: ν.
        forcing: F.
        cache: a .npz that keeps the sequences, written where there is none.
        valid: how many are held out (integer) or which fraction (float).
        seed: of the starts, and draws which ones are held out.
    """

    sequences: int = 64
    frames: int = 20
    interval: float = 1.0
    spin_up: float = 10.0
    size: int = 64
    step: float = 0.02
    viscosity: float = 1e-4
    forcing: float = 0.1
    cache: Path | None = None
    valid: int | float = 0.125
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.sequences, self.frames, self.size - 3) < 1 or not 0 < self.step <= self.interval:
            raise InputError(
                "NavierStokes needs sequences and frames >= 1, size >= 4 and 0 < step <= interval, not "
                f"{self.sequences}, {self.frames}, {self.size}, {self.step} and {self.interval}."
            )

    def load(self, split: Split) -> FieldDataset:
        chosen = hold_out(self.sequences, self.valid, self.seed, split)
        return Subset(ArrayFields(self._array(), "first", origin="NavierStokes"), chosen)

    def _array(self) -> np.ndarray:
        if self.cache is None:
            return simulate(self)
        path = Path(self.cache)
        if not path.is_file():
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, x=simulate(self), made=np.array(self._made))
        try:
            with np.load(path, allow_pickle=False) as found:
                made, x = str(found["made"]), found["x"]
        except (*BROKEN, KeyError) as error:
            raise InputError(
                f"{path} holds no sequences of ours ({error}): delete it, or give another cache."
            ) from error
        if made != self._made:
            raise InputError(f"{path} holds other sequences than those asked for: delete it, or give another cache.")
        return x

    @property
    def _made(self) -> str:
        """What decides the sequences."""
        numbers = (self.sequences, self.frames, self.size, self.seed)
        return f"{numbers} {(self.interval, self.spin_up, self.step, self.viscosity, self.forcing)}"


@lru_cache(maxsize=2)  # training and held-out sequences are asked for one after the other
def simulate(source: NavierStokes) -> np.ndarray:
    """All sequences, (sequences, frames, size, size), float32."""
    flow = Flow(source.viscosity, source.forcing)
    out = np.empty((source.sequences, source.frames, source.size, source.size), np.float32)
    for start in range(0, source.sequences, TOGETHER):
        rows = range(start, min(start + TOGETHER, source.sequences))
        w = flow.run(initial(source.size, source.seed, rows), source.spin_up, math.ceil(source.spin_up / source.step))
        for frame in range(source.frames):
            w = w if frame == 0 else flow.run(w, source.interval, math.ceil(source.interval / source.step - 1e-9))
            out[start : rows.stop, frame] = w.numpy()
    if not np.isfinite(out).all():
        raise InputError(
            f"The flow is unstable with time steps of {source.step}: give a smaller step or more viscosity."
        )
    return out
