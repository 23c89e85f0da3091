"""Top-k of the cost linearised at the start; a baseline without couplings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from problems import BudgetQUBO, CardinalityQUBO
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.solution import Stop


@dataclass(frozen=True)
class Diagonal(Solver):
    """Minimise the energy without couplings, exactly, by sorting.

    About a state ``x⁰``, dropping the couplings of the *move* ``u = x - x⁰`` leaves
    ``Σ u_i (f_i - …)``: flipping only ``i`` changes the energy by ``(1 - 2x⁰_i) f_i`` with the
    local field ``f`` at ``x⁰``, so that choosing in each group the ``k`` smallest *fields*
    minimises the linearised cost. Without an initial state the fields are those of ``x⁰ = 0``:
    the diagonal of ``Q``.

    Parameters
    ----------
    about : {"start", "nothing"}, default "start"
        The state at which the cost is linearised: the initial state, if given, or always
        ``x⁰ = 0``.
    """

    about: Literal["start", "nothing"] = "start"

    name: ClassVar[str] = "diagonal"
    summary: ClassVar[str] = "top-k of the linearised cost (no couplings); a baseline"
    capabilities: ClassVar[Capabilities] = Capabilities(
        groups=True, budgets=True, time_limit=False, num_reads=False
    )

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Choose the ``k`` smallest fields of each group."""
        start = request.initial_state if self.about == "start" else None
        fields = problem.diagonal if start is None else problem.fields(start)
        return Outcome(problem.minimise_linear(fields)[None], Stop.CONVERGED)

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Minimise the linearised cost by the multiplier of the budget, up to one variable.

        See :func:`problems.knapsack.minimise_linear`.
        """
        from problems.knapsack import minimise_linear

        start = request.initial_state if self.about == "start" else None
        fields = problem.diagonal if start is None else problem.fields(start)
        return Outcome(minimise_linear(problem, fields).x[None], Stop.CONVERGED)
