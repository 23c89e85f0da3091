"""A registered solver of the project, as benchopt runs it."""

from __future__ import annotations

from typing import Any

from benchopt import BaseSolver

import solvers
from solvers.comparison.records import Run
from solvers.comparison.worker import perform


class RegisteredSolver(BaseSolver):
    """Run the solver :attr:`registered` once, and hand its incumbents back.

    It is the run of ``icbs compare``: the status quo as a start, starts again until the limit
    unless the answer is proved, and energies that are recomputed from the states.
    """

    registered = ""
    parameters = {"time_limit": [1.0]}  # noqa: RUF012

    def skip(self, problem: Any, start: Any) -> tuple[bool, str | None]:
        """Leave out problems that the solver does not take."""
        can = solvers.get(self.registered).capabilities
        if can.max_n is not None and problem.n > can.max_n:
            return True, f"{self.registered} takes at most {can.max_n} variables"
        if problem.num_groups > 1 and not can.groups:
            return True, f"{self.registered} holds one cardinality"
        return False, None

    def set_objective(self, problem: Any, start: Any) -> None:
        """Take the problem, and make the solver."""
        self.problem, self.state = problem, start
        self.solver = solvers.create(self.registered)
        self.seed = self.get_seed(use_repetition=True)

    def warm_up(self) -> None:
        """Load what the solver stands on, and compile its kernels."""
        self._run(0.05)

    def run(self, _: Any) -> None:
        """Search until the time limit."""
        self._run(self.time_limit)

    def _run(self, time_limit: float) -> None:
        run = Run(
            key="",
            problem="",
            solver=self.registered,
            seed=self.seed,
            time_limit=time_limit,
            start=self.solver.capabilities.initial_state,
            restart=True,
        )
        self.found = perform(self.solver, self.problem, self.state, run)

    def get_result(self) -> dict[str, Any]:
        """Return the incumbents and the end of the run."""
        return {"trace": self.found["trace"], "end": self.found["end"]}
