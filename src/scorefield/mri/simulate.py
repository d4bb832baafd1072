"""Simulated k-space of several coils from an image: sensitivities, smooth phase, complex white noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from scorefield.foundation.errors import InputError
from scorefield.foundation.random import Stream, seed_of
from scorefield.mri.augment import smooth_phase
from scorefield.mri.masks import import_sigpy


@dataclass(frozen=True)
class Simulation:
    """What a scanner would have measured.

    Attributes:
        image: the complex image x, (height, width).
        maps: S, (coils, height, width), Σ|S|² = 1.
        kspace: F S x + noise, (coils, height, width).
        noise: standard deviation of the noise per real component.
    """

    image: np.ndarray
    maps: np.ndarray
    kspace: np.ndarray
    noise: float


def simulate(
    magnitude: np.ndarray, *, coils: int = 8, decibels: float = 30.0, phase: float = 1.5, seed: int = 0, number: int = 0
) -> Simulation:
    """Fully sampled k-space of a birdcage of coils.

    Args:
        magnitude: the image (height, width); a complex one keeps its phase and is given more.
        coils: how many.
        decibels: how far the energy of the noise lies below that of all coils' k-space.
        phase: strength of a smooth random phase in radians, see `RandomPhase`; 0 for none.
        seed: of phase and noise.
        number: of the image under that seed.
    """
    sigpy = import_sigpy("Simulated coils")
    if magnitude.ndim != 2 or not magnitude.any():
        raise InputError(
            f"k-space is simulated of an image with two axes that holds something, not of {magnitude.shape}."
        )
    rng = np.random.default_rng(seed_of(seed, number, Stream.SIMULATION))
    maps = sigpy.mri.birdcage_maps((coils, *magnitude.shape), r=1.5).astype(np.complex64)
    angle = np.zeros(magnitude.shape)
    if phase:
        u = torch.from_numpy(rng.random((1, 1 + 2 + 16)))
        angle = smooth_phase(u, magnitude.shape, phase, 256.0, 4)[0].numpy()
    image = magnitude * np.exp(1j * angle)
    kspace = centred(maps * image)
    noise = math.sqrt(float((np.abs(kspace) ** 2).sum()) * 10 ** (-decibels / 10) / (2 * kspace.size))
    white = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    return Simulation(image.astype(np.complex64), maps, (kspace + noise * white).astype(np.complex64), noise)


def centred(x: np.ndarray, *, inverse: bool = False, axes: tuple[int, ...] = (-2, -1)) -> np.ndarray:
    """The centred orthonormal Fourier transform over some axes: k-space of an image, or, inverse, the image."""
    from scipy.fft import fftn, fftshift, ifftn, ifftshift

    change = ifftn if inverse else fftn
    return fftshift(change(ifftshift(x, axes), axes=axes, norm="ortho"), axes)
