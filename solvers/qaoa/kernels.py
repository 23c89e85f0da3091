"""Layers of a circuit on a state vector, compiled, in place.

Gates are given as in :class:`solvers.qaoa.space.Rotations`.
"""

from __future__ import annotations

import numpy as np

from solvers._numba import Array, jit


@jit
def apply_cost(psi: Array, energies: Array, gamma: float) -> None:
    """Multiply each amplitude by ``exp(-iγE)``."""
    for s in range(len(psi)):
        angle = gamma * energies[s]
        psi[s] *= complex(np.cos(angle), -np.sin(angle))


@jit
def apply_exchanges(psi: Array, parts: Array, rows: Array, columns: Array, beta: float) -> None:
    """Rotate each pair of amplitudes by ``exp(iβX)``, gate after gate."""
    cos, sin = np.cos(beta), np.sin(beta)
    for t in range(len(parts)):
        for r in range(parts[t, 0], parts[t, 1]):
            row_a, row_b = rows[r, 0], rows[r, 1]
            for c in range(parts[t, 2], parts[t, 3]):
                a, b = row_a + columns[c, 0], row_b + columns[c, 1]
                u, v = psi[a], psi[b]
                psi[a] = complex(cos * u.real - sin * v.imag, cos * u.imag + sin * v.real)
                psi[b] = complex(cos * v.real - sin * u.imag, cos * v.imag + sin * u.real)


@jit
def apply_flips(
    psi: Array, parts: Array, rows: Array, columns: Array, beta: float, tilts: Array
) -> None:
    """Rotate each pair by ``exp(iβ(sin θ X + cos θ Z))``, with the angle ``tilts[gate]`` as θ."""
    cos, sin = np.cos(beta), np.sin(beta)
    for t in range(len(parts)):
        along, across = sin * np.cos(tilts[parts[t, 4]]), sin * np.sin(tilts[parts[t, 4]])
        for r in range(parts[t, 0], parts[t, 1]):
            row_a, row_b = rows[r, 0], rows[r, 1]
            for c in range(parts[t, 2], parts[t, 3]):
                a, b = row_a + columns[c, 0], row_b + columns[c, 1]
                u, v = psi[a], psi[b]
                psi[a] = complex(cos, along) * u + complex(0.0, across) * v
                psi[b] = complex(0.0, across) * u + complex(cos, -along) * v
