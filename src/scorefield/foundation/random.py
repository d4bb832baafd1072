"""Randomness by name: the draws of sample i depend on its own key alone, never on its batch, rank or worker.

A key is a tuple of integers such as (seed, index, epoch). It is hashed to the seed of one generator per sample, so that
a batch is a *stack* of independent streams: computing samples one at a time, in another order, on more processes, or after
an interruption gives the same draws, bitwise. For tensors on the CPU they are made by numpy's generators, which are ten times as
fast there; on other devices by Philox on the device itself, so that nothing waits for the host: another noise than on the CPU,
but the same on every such device, see `scorefield.foundation.philox`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum, unique
from functools import cached_property

import numpy as np
import torch
from numpy.random import SFC64, Generator, SeedSequence
from torch import Size, Tensor

from scorefield.foundation.errors import InputError
from scorefield.foundation.philox import Philox
from scorefield.foundation.precision import product


@unique
class Stream(IntEnum):
    """What draws are for: the last part of their key, so that no two kinds of draws share one.

    A number, once in use, stays: the draws of stored runs follow from it.
    """

    SHUFFLE = 100  # the order of the data: (seed, epoch)
    FLIP = 101  # augmentation, like DEQUANTISE, DROP_LABEL, PHASE, GAIN and CROP: (seed, index, epoch)
    DEQUANTISE = 102
    DROP_LABEL = 103
    VORTICITY = 110  # the initial vorticity of a flow: (seed, index)
    VOLCANO = 111  # an interferogram: (seed, index)
    PHASE = 112
    GAIN = 113
    MASK = 114  # sampled points of k-space: (seed, number), (seed, number, attempt)
    SIMULATION = 115  # phase and noise of simulated k-space: (seed, number)
    UNDERSAMPLED = 116  # the noise of an example's k-space: (seed, split, index)
    CROP = 117
    MOTION = 118  # how a slice moves: (seed, split, index)
    AFFINE = 119  # augmentation: (seed, index, epoch)
    LOSS = 200  # times, noise and probes of training: (seed, index, epoch)
    CRITIC = 204  # the loss of a critic, whose draws are not those that it will judge: (seed, index, epoch)
    DROPOUT = 201  # (seed), with each sample's (index, epoch); of a user's own layers (seed, step, rank)
    RETURN = 203  # the seed of training after it went back: (seed, how often)
    WEIGHTS = 202  # the initial weights: (seed)
    SAMPLE = 300  # a sample: (seed, index), (seed, index, step of a rollout), (seed, member, key of the time)
    PROBE = 301  # probes of a likelihood: (0, index), (seed, index, repeat)
    DEGRADE = 302  # noise that is added before restoring: (seed, 0)
    NOISE = 303  # the noise of an example: (seed, split, index)
    NOISE_LEVEL = 304  # its standard deviation: (seed, split, index)
    CHANNEL = 305  # a channel of a radio link: (seed, split, index)
    POSTERIOR = 306  # a member of a reconstruction: (seed, slice, index)
    NOISE_PLOT = 307  # noise that is shown: (seed, index)
    PERSISTENT = 308  # what is new in a member at a step of time: (seed, member, step, ...)
    PARTICLE = 310  # a weighted particle: (seed, index)
    RESAMPLED = 311  # which of them go on, and which are drawn in the end: (seed, 0), (seed, 1)
    PILOT = 312  # a draw of the prior before particles start: (seed, index)
    CALIBRATED = 313  # noise and draws of a field that is known: (seed, index)
    COMPLETED = 314  # a field that is known in part: (seed, index)
    TUNING = 320  # images like that of a scan, and their noise: (number), (number, 1)
    HELD_OUT = 309  # which samples of a slice are held out, and noise of their predictions: (0 or 1, slice)


def sequence(*key: int) -> SeedSequence:
    """Hash a key of non-negative integers (O'Neill's seed sequence: near keys give unrelated streams)."""
    if wrong := [part for part in key if not 0 <= part < 2**64]:
        raise InputError(f"A seed is {wrong[0]}: give a number of at least 0 and below 2^64.")
    return SeedSequence((len(key), *key))  # without its length, (1,) and (1, 0) would be one key


def seed_of(*key: int) -> int:
    """The key as one number, for generators that take no other seed."""
    return int(sequence(*key).generate_state(1, np.uint64)[0]) >> 1


def odd_numbers(seed: int, key: Tensor, count: int) -> Tensor:
    """Some random odd numbers of 32 bits for each sample, int32 (count, batch), from its key alone.

    Each is a part of the key after the other through the finaliser of SplitMix64 (Steele et al. 2014, OOPSLA): for numbers that
    are wanted for every layer at every step, a generator each would take too long.

    Args:
        seed: of all of them.
        key: (batch, parts) int64.
        count: how many for each sample.
    """
    state = np.array([seed], np.uint64)
    for part in key.cpu().numpy().astype(np.uint64).T:
        state = _mixed(state + part)
    numbers = np.arange(1, count + 1, dtype=np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
    return torch.from_numpy((_mixed(state + numbers) >> np.uint64(32)).astype(np.uint32).view(np.int32) | 1)


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Generators:
    """A stack of generators, one per sample of a batch.

    They are numpy's, seeded with the full width of the hash: torch's own CPU generator uses 32 bits of a seed, and among
    10⁵ samples some would share their noise.

    Args:
        keys: one key of non-negative integers per sample.
        mixing: for samples that are not independent: (batch, keys), the weights with which the normal draws of the keys are added
            up to those of each sample; the squares of a row add up to 1. Uniform draws are then made of normal ones.
    """

    def __init__(self, keys: Iterable[Sequence[int]], mixing: Tensor | None = None) -> None:
        given = list(keys)
        self._seeds = [sequence(*key) for key in given]
        self._device: Philox | None = None
        self._parts: list[tuple[Tensor, Generators]] = []
        if mixing is None:
            return
        if mixing.shape[1] != len(given):
            raise ValueError(f"{len(given)} keys cannot be mixed by weights of the shape {tuple(mixing.shape)}.")
        size = max(len(mixing), 1)  # in parts, which need no more memory than a batch
        parts = (given[start : start + size] for start in range(0, len(given), size))
        self._parts = [(weight, Generators(part)) for weight, part in zip(mixing.split(size, 1), parts, strict=True)]

    @cached_property
    def _host(self) -> list[Generator]:
        return [Generator(SFC64(seed)) for seed in self._seeds]

    def __len__(self) -> int:
        return len(self._parts[0][0]) if self._parts else len(self._seeds)

    def randn(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        """Standard normal draws of the full shape (batch, ...), in the dtype and on the device of `like`."""
        if not self._parts:
            return self._drawn(Generator.standard_normal, Philox.randn, shape, like)
        if shape[0] != len(self):
            raise ValueError(f"{len(self)} generators cannot draw a batch of {shape[0]}: give one key per sample.")
        drawn = like.new_zeros((len(self), math.prod(shape[1:])))
        for weight, part in self._parts:
            drawn += product(weight.to(like), part.randn((len(part), drawn.shape[1]), like=like))
        return drawn.reshape(tuple(shape))

    def rand(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        """Uniform draws in [0, 1) of the full shape (batch, ...), in the dtype and on the device of `like`."""
        if not self._parts:
            return self._drawn(Generator.random, Philox.rand, shape, like)
        return torch.special.ndtr(self.randn(shape, like=like)).clamp(max=1 - torch.finfo(like.dtype).eps)

    def rademacher(self, shape: Sequence[int] | Size, *, like: Tensor) -> Tensor:
        """±1 with probability 1/2 each, of the full shape (batch, ...), in the dtype and on the device of `like`."""
        return torch.where(self.rand(shape, like=like) < 0.5, -1.0, 1.0).to(like)

    def _drawn(
        self,
        host: Callable[..., object],
        device: Callable[[Philox, Sequence[int] | Size, torch.dtype], Tensor],
        shape: Sequence[int] | Size,
        like: Tensor,
    ) -> Tensor:
        if shape[0] != len(self):
            raise ValueError(f"{len(self)} generators cannot draw a batch of {shape[0]}: give one key per sample.")
        wide = like.dtype == torch.float64
        if like.device.type != "cpu":
            if self._device is None:
                self._device = Philox([int(seed.generate_state(1, np.uint64)[0]) for seed in self._seeds], like.device)
            return device(self._device, shape, torch.float64 if wide else torch.float32).to(like)
        drawn = np.empty((len(self), math.prod(shape[1:])), np.float64 if wide else np.float32)
        for row, generator in zip(drawn, self._host, strict=True):
            host(generator, dtype=drawn.dtype, out=row)
        return torch.from_numpy(drawn).reshape(tuple(shape)).to(like)
