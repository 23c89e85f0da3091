"""Random numbers of compiled kernels: xorshift64, seeded by one integer.

Setting up a generator of NumPy takes longer than solving a small block.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import numpy.typing as npt

from solvers.anneal.simd import Real, jit

Array = npt.NDArray[Any]


def seed_state(seed: int | None) -> Array:
    """Return a well mixed state for any seed: int64, shape (1,), never 0."""
    z = secrets.randbits(64) if seed is None else seed
    # SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) decorrelates close seeds.
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return np.array([(z ^ (z >> 31)) or 1], np.uint64).view(np.int64)


@jit
def uniform(state: Array) -> Real:
    """Draw from the open interval (0, 1)."""
    r = np.uint64(state[0])
    r ^= r << np.uint64(13)
    r ^= r >> np.uint64(7)
    r ^= r << np.uint64(17)
    state[0] = np.int64(r)
    return (np.float64(np.int64(r >> np.uint64(12))) + 0.5) * 2.0**-52


@jit
def uniforms(count: int, state: Array) -> Array:
    """Draw several from the open interval (0, 1)."""
    drawn = np.empty(count)
    for t in range(count):
        drawn[t] = uniform(state)
    return drawn


@jit
def exponential(state: Array) -> Real:
    """Draw from the exponential distribution of mean 1, positive."""
    return np.float32(-np.log(uniform(state)))
