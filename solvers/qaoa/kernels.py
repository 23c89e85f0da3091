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


@jit
def undo_exchanges(
    psi: Array, adjoint: Array, parts: Array, rows: Array, columns: Array, beta: float
) -> float:
    """Undo a layer of :func:`apply_exchanges` on two vectors, gate after gate from the last.

    Returns the derivative by β of ``⟨ψ|D|ψ⟩``, where ``adjoint`` is ``Dψ`` after the layer.
    """
    cos, sin, slope = np.cos(beta), np.sin(beta), 0.0
    for t in range(len(parts) - 1, -1, -1):
        for r in range(parts[t, 0], parts[t, 1]):
            row_a, row_b = rows[r, 0], rows[r, 1]
            for c in range(parts[t, 2], parts[t, 3]):
                a, b = row_a + columns[c, 0], row_b + columns[c, 1]
                u, v, f, g = psi[a], psi[b], adjoint[a], adjoint[b]
                slope += f.imag * v.real - f.real * v.imag + g.imag * u.real - g.real * u.imag
                psi[a] = complex(cos * u.real + sin * v.imag, cos * u.imag - sin * v.real)
                psi[b] = complex(cos * v.real + sin * u.imag, cos * v.imag - sin * u.real)
                adjoint[a] = complex(cos * f.real + sin * g.imag, cos * f.imag - sin * g.real)
                adjoint[b] = complex(cos * g.real + sin * f.imag, cos * g.imag - sin * f.real)
    return 2 * slope


@jit
def undo_flips(
    psi: Array, adjoint: Array, parts: Array, rows: Array, columns: Array, beta: float, tilts: Array
) -> float:
    """Undo a layer of :func:`apply_flips`; see :func:`undo_exchanges`."""
    cos, sin, slope = np.cos(beta), np.sin(beta), 0.0
    for t in range(len(parts) - 1, -1, -1):
        along, across = np.cos(tilts[parts[t, 4]]), np.sin(tilts[parts[t, 4]])
        stay_a, stay_b = complex(cos, -sin * along), complex(cos, sin * along)
        swap = complex(0.0, -sin * across)
        for r in range(parts[t, 0], parts[t, 1]):
            row_a, row_b = rows[r, 0], rows[r, 1]
            for c in range(parts[t, 2], parts[t, 3]):
                a, b = row_a + columns[c, 0], row_b + columns[c, 1]
                u, v, f, g = psi[a], psi[b], adjoint[a], adjoint[b]
                turned_u, turned_v = along * u + across * v, across * u - along * v
                slope -= 2 * (f.real * turned_u.imag - f.imag * turned_u.real)
                slope -= 2 * (g.real * turned_v.imag - g.imag * turned_v.real)
                psi[a], psi[b] = stay_a * u + swap * v, swap * u + stay_b * v
                adjoint[a], adjoint[b] = stay_a * f + swap * g, swap * f + stay_b * g
    return slope


@jit
def undo_cost(psi: Array, adjoint: Array, energies: Array, gamma: float) -> float:
    """Undo a layer of :func:`apply_cost` on two vectors; return the derivative by γ."""
    slope = 0.0
    for s in range(len(psi)):
        angle = gamma * energies[s]
        phase = complex(np.cos(angle), np.sin(angle))
        u, f = psi[s], adjoint[s]
        slope += 2 * energies[s] * (f.real * u.imag - f.imag * u.real)
        psi[s], adjoint[s] = phase * u, phase * f
    return slope
