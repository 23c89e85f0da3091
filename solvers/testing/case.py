"""Test cases of the conformance suite."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO
from solvers.base import Capabilities, Outcome, Problem, Request, State
from solvers.errors import BackendError
from solvers.registry import create
from solvers.solution import Solution
from solvers.solve import solve
from solvers.testing.verify import expect, verify


@dataclass(frozen=True)
class Case:
    """A solver under test, and the sizes of its test problems."""

    solver: Any
    n: int = 8
    """Variables of most problems; at most 12, since all states are enumerated."""
    large_n: int = 300
    """Variables of the problem under a time limit, unless ``max_n`` is smaller."""
    time_limit: float = 0.2
    """Time limit in seconds that must be kept."""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.solver, str):
            object.__setattr__(self, "solver", create(self.solver, **self.options))

    @property
    def can(self) -> Capabilities:
        """The solver's capabilities."""
        capabilities: Capabilities = self.solver.capabilities
        return capabilities

    def problem(self, seed: int = 0, scale: float = 1.0, num_groups: int = 1) -> CardinalityQUBO:
        """Draw a random problem with a choice in every group."""
        rng = np.random.default_rng(seed)
        Q = rng.normal(size=(self.n, self.n))
        groups = np.arange(self.n) % num_groups
        k = np.bincount(groups) // 2
        return CardinalityQUBO(scale * (Q + Q.T), k, groups=groups, offset=scale * rng.normal())

    def budget_problem(self, seed: int = 0, scale: float = 1.0, real: bool = False) -> BudgetQUBO:
        """Draw a random problem with a budget, two groups, and a floor in one of them."""
        rng = np.random.default_rng(seed)
        Q = rng.normal(size=(self.n, self.n))
        costs = rng.random(self.n) if real else rng.integers(0, 9, self.n)
        groups = np.arange(self.n) % 2
        most = np.bincount(groups) - [1, 0]
        allowed = sum(np.sort(costs[groups == g])[::-1][: most[g]].sum() for g in (0, 1))
        return BudgetQUBO(
            scale * (Q + Q.T), costs, 0.6 * allowed, groups=groups, most=most,
            offset=scale * rng.normal(),
        )  # fmt: skip

    def solve(self, problem: Problem, **asked: Any) -> Solution:
        """Solve, with a seed if the solver supports one, and verify the solution."""
        if self.can.seed:
            asked.setdefault("seed", 1)
        before = problem.hash
        try:
            solution = solve(problem, self.solver, **asked)
        except BackendError as error:
            expect("read-only" not in str(error), f"the solver writes into its input: {error}")
            raise
        expect(fingerprint(problem) == before, "the solver changed the problem it was given")
        verify(solution, problem, self.can)
        return solution

    def run(self, problem: CardinalityQUBO, start: State | None = None) -> Outcome:
        """Call ``Solver.run`` directly, with the start if the solver supports one."""
        seed, start = (1 if self.can.seed else None), (start if self.can.initial_state else None)
        outcome: Outcome = self.solver.run(problem, Request(seed=seed, initial_state=start))
        return outcome


def fingerprint(problem: Problem) -> str:
    """Hash a problem's current content, ignoring its cached hash."""
    copy = pickle.loads(pickle.dumps(problem))
    copy.__dict__.pop("hash", None)
    found: str = copy.hash
    if problem.is_factored and "Q" in vars(problem):  # formed and cached: it must still match
        copy.__dict__.pop("Q", None)
        expect(np.array_equal(copy.Q, problem.Q), "the solver wrote into the problem's Q")
    return found
