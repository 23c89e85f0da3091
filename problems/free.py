"""QUBOs without a cardinality, as problems that every solver accepts.

Each of the n variables gets a partner without coefficients, and exactly one of each pair is 1: n
groups of two variables with k = 1. Any state of the first n variables is then feasible with its
own energy, and a swap within a pair is the flip of one variable. (One group of all 2n variables
with k = n is equivalent, but has ``C(2n, n)`` feasible states instead of ``2ⁿ``, most of them
duplicates.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from problems.errors import InvalidProblemError
from problems.lazy import attach
from problems.qubo import CardinalityQUBO


def free(problem: CardinalityQUBO) -> CardinalityQUBO:
    """Return a problem with the same energies and without the cardinality.

    Parameters
    ----------
    problem : CardinalityQUBO
        Of n variables; its k and groups are ignored.

    Returns
    -------
    CardinalityQUBO
        Of 2n variables, the first n of which are the problem's. :func:`original_states` takes
        those out of a state, :func:`add_partners` completes a state of n variables, and
        :func:`original_problem` undoes the conversion. The partner of a named variable is
        named ``("not", name)``.

    Examples
    --------
    >>> lifted = free(CardinalityQUBO([[1.0, -2.0], [-2.0, 1.0]], k=0))
    >>> lifted.energy(add_partners([1, 1]))
    -2.0
    """
    n = problem.n
    pairs: dict[str, Any] = {"k": 0, "groups": None}
    if n:
        pairs = {"k": np.ones(n, dtype=np.int64), "groups": np.tile(np.arange(n), 2)}
    if problem.labels is not None:
        pairs["labels"] = (*problem.labels, *(("not", label) for label in problem.labels))
    if problem.is_factored:
        A, linear = problem.A, _widened(problem.linear[None], 1)[0]
        A = _widened(A, len(A))
        return CardinalityQUBO.from_factors(A, linear, offset=problem.offset, **pairs)
    return CardinalityQUBO(_widened(problem.Q, 2 * n), offset=problem.offset, **pairs)


def original_problem(lifted: CardinalityQUBO) -> CardinalityQUBO:
    """Undo :func:`free`: return the problem of the first n variables, with k = 0.

    Raises
    ------
    InvalidProblemError
        If ``lifted`` was not made by :func:`free`.
    """
    n = lifted.n // 2
    partners = slice(n, None)
    held = (lifted.A[:, partners], lifted.linear[partners]) if lifted.is_factored else ()
    rest = held or (lifted.Q[partners],)
    pairs = lifted.n == 2 * n and np.array_equal(lifted.groups, np.tile(np.arange(n), 2))
    if n and not (pairs and (lifted.cardinalities == 1).all() and not any(r.any() for r in rest)):
        raise InvalidProblemError(
            f"{lifted!r} has a cardinality; pass a problem made by problems.free.free"
        )
    labels = None if lifted.labels is None else lifted.labels[:n]
    if lifted.is_factored:
        A, linear = lifted.A[:, :n], lifted.linear[:n]
        return CardinalityQUBO.from_factors(A, linear, 0, offset=lifted.offset, labels=labels)
    return CardinalityQUBO(lifted.Q[:n, :n], 0, offset=lifted.offset, labels=labels)


def original_states(states: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the first half of states of shape (…, 2n)."""
    return states[..., : states.shape[-1] // 2]


def add_partners(states: Any) -> npt.NDArray[np.uint8]:
    """Append the partners' values to states, array_like of 0/1 of shape (…, n)."""
    ones = np.asarray(states)
    if ones.dtype.kind not in "biuf" or not ((ones == 0) | (ones == 1)).all():
        raise InvalidProblemError("a state may hold 0 and 1 only")
    return np.concatenate([ones, 1 - ones.astype(np.int8)], axis=-1).astype(np.uint8)


def _widened(matrix: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Extend a matrix to ``rows`` rows and twice the columns, with zeros."""
    height, width = matrix.shape
    wide = np.zeros((rows, 2 * width), dtype=matrix.dtype)
    wide[:height, :width] = matrix
    return wide


#: Names of the first release.
_RENAMED = {
    "base": "problems.free.original_problem",
    "own": "problems.free.original_states",
    "paired": "problems.free.add_partners",
}
__getattr__, _ = attach(globals(), {}, _RENAMED)
