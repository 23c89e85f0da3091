"""Blocks before rounding: arrays of which their coefficients are made, in files."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from problems.files import atomic

Float = npt.NDArray[np.float64]


@dataclass
class Parts:
    """A block of the pruner, taken apart; arrays are float64."""

    problem: CardinalityQUBO
    """The pruner's own problem."""
    start: npt.NDArray[np.uint8]
    """Status quo, shape (n,), 1 = pruned."""
    slope: Float
    """-dE/du at the status quo, shape (n,)."""
    weights: Float
    """Dense weights w⁰, shape (n,)."""
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    """Output and input of each weight, shape (n,)."""
    factor: Float | None = None
    """F with ``½C = FᵀF``, shape (samples, n), of a Fisher."""
    deltas: Float | None = None
    inputs: Float | None = None
    """What F is the product of, shapes (samples, outputs) and (samples, inputs), where a
    sample has one position: ``F = scale · deltas · inputs · weights``."""
    scale: float = 1.0
    moments: Float | None = None
    """½ρH of the layer's inputs, shape (inputs, inputs)."""


def check(parts: Parts) -> None:
    """Check that the parts make the block's own energies."""
    rng = np.random.default_rng(0)
    start, problem = parts.start.astype(np.float64), parts.problem
    x = rng.integers(0, 2, (5, len(start)))
    assert np.allclose(energies(parts, x - start), problem.energy(x), rtol=1e-4, atol=1e-9)
    if parts.deltas is not None and parts.inputs is not None:
        assert parts.factor is not None
        made = parts.deltas[:, parts.rows] * parts.inputs[:, parts.columns] * parts.weights
        assert np.allclose(parts.scale * made, parts.factor, rtol=1e-4, atol=1e-9)


def energies(parts: Parts, moves: Float) -> Float:
    """Energies of moves u, shape (..., n), by parts that are not rounded."""
    total: Float = -(moves @ parts.slope)
    if parts.factor is not None:
        total += np.square(moves @ parts.factor.T).sum(axis=-1)
    if parts.moments is not None:
        matrix = parts.moments[np.ix_(parts.columns, parts.columns)]
        matrix = matrix * parts.weights[:, None] * parts.weights
        matrix[parts.rows[:, None] != parts.rows] = 0.0
        total += (moves @ matrix * moves).sum(axis=-1)
    return total


def save_parts(parts: Parts, path: Path) -> None:
    """Write a block to a file, which only this machine's own scripts read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        temporary.write_bytes(pickle.dumps(parts))


def load_parts(path: Path) -> Parts:
    """Read the output of :func:`save_parts`."""
    parts = pickle.loads(path.read_bytes())
    assert isinstance(parts, Parts)
    return parts


def parts_file(folder: Path, run: str, name: str) -> Path:
    """Return where the block of a problem is saved."""
    return folder / run / f"{name}.pickle"
