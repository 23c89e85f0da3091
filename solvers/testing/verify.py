"""Independent verification of one solution against its problem."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO
from solvers.base import Capabilities, Problem, State
from solvers.solution import Solution, Status, Stop

#: Share of the energy that a proof may leave open: backends compute in floating point, and an
#: honest bound is lowered by what their tolerances may add.
PROOF = 1e-6


def expect(kept: object, otherwise: str) -> None:
    """Raise AssertionError with a message unless a condition holds, also under ``-O``."""
    if not kept:
        raise AssertionError(otherwise)


def verify(solution: Solution, problem: Problem, can: Capabilities) -> None:
    """Check a solution against its problem.

    Raises
    ------
    AssertionError
        If an energy, a flag, an order, a status or a bound is wrong.
    """
    Q = problem.float64_matrix()
    X = solution.samples.astype(np.float64)
    expect(X.shape[1:] == (problem.n,), f"samples have shape {X.shape}, not (reads, {problem.n})")
    expect(np.isin(X, (0, 1)).all(), "a sample holds something else than 0 and 1")
    plain = ((X @ Q) * X).sum(axis=1) + problem.offset
    tolerance = 1e-10 * (np.abs(Q).sum() + abs(problem.offset))
    tolerance += 4 * np.finfo(float).smallest_subnormal  # resolution of bounds
    expect(np.allclose(plain, solution.energies, rtol=0, atol=tolerance), "energies are not honest")
    kept = _feasible(problem, X)
    expect((kept == solution.feasible).all(), "a feasibility flag is wrong")
    expect((np.diff(kept.astype(int)) <= 0).all(), "feasible samples do not come first")
    expect((np.diff(solution.energies[kept]) >= 0).all(), "samples are not sorted by energy")
    expect(isinstance(solution.stop, Stop), "stop is not a Stop")
    expect(min(vars(solution.timing).values()) >= 0, "a phase took negative time")
    expect("refuted" not in solution.info, str(solution.info.get("refuted")))
    for key in ("solver", "seed", "problem"):
        expect(key in solution.info, f"info has no {key!r}")
    if not kept.any():
        expect(solution.status is Status.NO_SOLUTION_FOUND, "a status promises a missing state")
        expect(solution.x is None, "x is infeasible")
        return
    expect(
        solution.x is not None and np.array_equal(solution.x, solution.samples[0]),
        "x is not the best sample",
    )
    expect(solution.energy == solution.energies[0], "energy is not that of x")
    expect(can.exact or not solution.is_optimal, "a heuristic claims optimality")
    if solution.bound is not None:
        expect(solution.bound <= solution.energy + tolerance, "the bound lies above the energy")
    if solution.is_optimal and solution.bound is not None:
        left = tolerance + PROOF * abs(solution.energy - problem.offset)
        expect(solution.bound >= solution.energy - left, "optimal, but with a gap")


def _feasible(problem: Problem, X: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Evaluate the constraint independently."""
    counts = np.stack([X[:, problem.groups == g].sum(1) for g in range(problem.num_groups)], 1)
    if not isinstance(problem, BudgetQUBO):
        return np.asarray((counts == problem.cardinalities).all(axis=1))
    kept = ((counts >= problem.least) & (counts <= problem.most)).all(axis=1)
    short = problem.budget - X @ problem.costs
    return np.asarray(kept & (short <= 1e-9 * problem.costs.sum()))


def lowest_energy(problem: Problem) -> float:
    """Return the lowest energy of a small problem by enumeration."""
    return float(problem.energy(optimum(problem)))


def optimum(problem: Problem) -> State:
    """Return an optimal state of a small problem by enumeration."""
    states = ((np.arange(1 << problem.n)[:, None] >> np.arange(problem.n)) & 1).astype(np.uint8)
    states = states[problem.is_feasible(states)]
    best: State = states[np.argmin(problem.energy(states))]
    return best


@contextmanager
def refused(error: type[Exception], what: str) -> Iterator[None]:
    """Assert that the block raises ``error`` with a message."""
    try:
        yield
    except error as raised:
        expect(str(raised), f"{what} was refused without a word")
        return
    raise AssertionError(f"{what} was not refused with {error.__name__}")
