"""Initial states: uniform, the status quo, or a warm start from the convex relaxation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO
from solvers.base import Request, State
from solvers.errors import UnsupportedError
from solvers.exact.convex import convexify
from solvers.exact.root import solve_root

Vector = npt.NDArray[np.float64]

#: Initial states of a circuit.
STARTS = ("dicke", "status-quo", "relaxation")


@dataclass(frozen=True)
class Start:
    """An initial state; uniform over all states if neither field is given."""

    state: State | None = None
    """A basis state, shape (n,)."""
    odds: Vector | None = None
    """Ratio of the probabilities of 1 and 0 of each variable, positive, shape (n,).

    A state's probability is proportional to the product of the odds of its ones: independent
    variables, conditioned on the cardinality where the circuit preserves it.
    """

    @property
    def tilts(self) -> Vector:
        """Angle θ with ``RY(θ)|0⟩`` as the state of a qubit alone, shape (n,)."""
        assert self.odds is not None
        return 2 * np.arctan(np.sqrt(self.odds))


def start_of(name: str, problem: CardinalityQUBO, request: Request, epsilon: float = 0.25) -> Start:
    """Return an initial state.

    Parameters
    ----------
    name : {"dicke", "status-quo", "relaxation"}
        *dicke* is uniform. *status-quo* is the request's initial state, as a basis state: it needs
        no gate but X, its energy is known, and the first cost layer acts as a phase only; shallow
        circuits hardly improve a good one (arXiv 2207.05089). *relaxation* gives each variable its
        probability in the optimum y of the convex relaxation over
        ``{Σx = k, 0 ≤ x ≤ 1}``, kept within ``[ε, 1 - ε]`` (arXiv 2009.10095, sections 2 and 3).
    problem : CardinalityQUBO
    request : Request
    epsilon : float
        In (0, 0.5]; 0.5 gives the uniform state.

    Raises
    ------
    UnsupportedError
        If the start is the status quo and the request has no initial state.
    """
    if name == "status-quo":
        if request.initial_state is None:
            raise UnsupportedError(
                "start is 'status-quo', but there is no initial state; pass initial_state, or "
                "start='relaxation'"
            )
        return Start(state=request.initial_state)
    if name == "relaxation":
        y = np.clip(relaxation_point(problem, request), epsilon, 1 - epsilon)
        return Start(odds=y / (1 - y))
    return Start()


def relaxation_point(problem: CardinalityQUBO, request: Request) -> Vector:
    """Solve the convex relaxation over ``{Σx = k, 0 ≤ x ≤ 1}`` in each group, shape (n,).

    A problem stored as factors is convex up to its linear part; the diagonal of another one is
    shifted until it is, which changes no energy of a feasible state (:mod:`solvers.exact`).
    """
    x = problem.minimise_linear(problem.diagonal)
    return solve_root(convexify(problem, request), problem.cardinalities, x, request).y
