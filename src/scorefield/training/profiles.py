"""Averages of the weights over training of any width, from a few that were kept (Karras et al. 2024, section 3 and appendix C).

After T steps the power-function average with weights ∝ τᵞ gives step k the weight (k/T)ᵞ⁺¹ − ((k − 1)/T)ᵞ⁺¹: its profile. Every
average is linear in the weights of all steps, so that the combination of stored ones whose profile is nearest to a wanted one, by
least squares with coefficients that sum to 1, is the nearest average. A profile that is among the stored ones is met exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from scorefield.foundation.errors import InputError

WIDEST = 0.28  # of σ_rel; at 1/√12 all steps count alike
NARROWEST = 0.005
PIECES = 4096  # in which profiles are compared; steps, where there are fewer


class Profile(NamedTuple):
    """Which average: its width σ_rel, and the step at which it is."""

    width: float
    step: int


def exponent(width: float) -> float:
    """e = γ + 1 of a width σ: weights ∝ τᵞ on [0, 1] have the standard deviation √e/((e + 1)√(e + 2)).

    The only root above 1 of e³ + 4e² + (5 − 1/σ²)e + 2 = 0. InputError outside of [0.005, 0.28].
    """
    if not NARROWEST <= width <= WIDEST:
        raise InputError(f"The width of an average is {width:g}: give one from {NARROWEST:g} to {WIDEST:g}, as 0.1.")
    return float(np.roots([1, 4, 5 - width**-2, 2]).real.max())


def combination(stored: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """The coefficients of stored averages whose sum is nearest to a wanted one, and the distance of its profile in parts of that
    profile's norm; none of the stored ones may be later than it.
    """
    steps = [profile.step for profile in stored]
    edges = np.union1d(np.linspace(0, wanted.step, min(wanted.step, PIECES) + 1).round(), steps)
    known = np.stack([_density(profile, edges) for profile in stored], axis=1)
    target = _density(wanted, edges)
    if wanted in stored:
        found = np.array([float(profile == wanted) for profile in stored])
    else:  # of the others relative to the first, so that their sum is 1 and what all steps share stays as it is
        others = np.linalg.lstsq(known[:, 1:] - known[:, :1], target - known[:, 0], rcond=None)[0]
        found = np.concatenate([[1 - others.sum()], others])
    return found, float(np.linalg.norm(known @ found - target) / np.linalg.norm(target))


def _density(profile: Profile, edges: np.ndarray) -> np.ndarray:
    """The weight of each piece of time over the root of its length, whose products are those of profiles."""
    return np.diff((edges / profile.step).clip(max=1) ** exponent(profile.width)) / np.sqrt(np.diff(edges))
