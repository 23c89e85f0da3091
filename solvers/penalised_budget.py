"""The budget moved into the cost, for backends without constraints."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO, CardinalityQUBO
from problems.knapsack import minimise_linear
from problems.penalty import Penalty
from solvers.base import Outcome, Request, State
from solvers.solution import Stop
from solvers.streams import trial_seed

#: First strength, as a share of the typical cost of a flip.
_FIRST = 1 / 4

Sample = Callable[[CardinalityQUBO, Penalty, Request], Outcome]


@dataclass(frozen=True)
class _Unbalanced:
    """``E(x) - price·h + strength·h²`` with ``h = Σ c_i x_i - B`` in units of the mean cost."""

    problem: BudgetQUBO
    weights: npt.NDArray[np.float64]
    budget: float
    price: float
    strength: float

    @property
    def form(self) -> CardinalityQUBO:
        """The penalised cost, dense; its cardinality is that of the greedy state."""
        problem, a, b = self.problem, self.weights, self.budget
        Q = problem.float64_matrix() + self.strength * np.outer(a, a)
        Q[np.diag_indices(problem.n)] -= (self.price + 2 * self.strength * b) * a
        offset = problem.offset + self.price * b + self.strength * b * b
        wanted = int(np.clip(round(b / max(float(a.mean()), 1e-9)), 0, problem.n))
        return CardinalityQUBO(Q, wanted, offset=offset)

    @property
    def penalty(self) -> Penalty:
        """Strength and shift, as for one group."""
        mean = float(np.square(self.weights).mean())
        return Penalty(np.array([self.strength * mean]), np.array([-self.price]))

    def raised(self, short: float, growth: float) -> _Unbalanced:
        """Return the next penalty after the lowest state missed the budget by ``short``."""
        price = self.price + 2 * self.strength * max(0.0, short)
        return dataclasses.replace(self, price=price, strength=growth * self.strength)


def run_unbalanced(
    problem: BudgetQUBO,
    request: Request,
    sample: Sample,
    penalty: str | float,
    growth: float,
    raises: int,
    repair: bool,
) -> Outcome:
    """Sample with the policy *unbalanced*: a linear and a quadratic term, no slack variables.

    Unbalanced penalisation (Montañez-Barrera et al., Quantum Science and Technology 9, 2024,
    arXiv 2211.13914). The price starts at the multiplier of the linearised problem; while no
    sample is feasible, price and strength are raised as in the method of multipliers. Counts of
    groups are not penalised: samples that violate them, or the budget, are repaired.

    Parameters
    ----------
    problem, request
        As for :meth:`solvers.Solver.run_budget`.
    sample : callable
        :meth:`solvers.penalised.Penalised.sample`.
    penalty : str or float
        A number is the first strength; the names of policies for cardinalities are not used.
    growth, raises, repair
        As for :class:`solvers.penalised.Penalised`.
    """
    begin = time.perf_counter()
    costs, budget, _ = problem.whole
    unit = float(costs[costs > 0].mean()) if (costs > 0).any() else 1.0
    linear = minimise_linear(problem, problem.diagonal)
    fields = problem.fields(linear.x)
    price = max(0.0, minimise_linear(problem, fields).multiplier * unit)
    typical = float(np.abs(fields - price * costs / unit).mean())
    strength = _FIRST * typical if isinstance(penalty, str) else float(penalty)
    tried = _Unbalanced(problem, costs / unit, budget / unit, price, strength)
    build = time.perf_counter() - begin
    drawn: list[State] = []
    strengths = []
    for left in range(raises, -1, -1):
        limit = request.time_limit
        if limit is not None and left:
            limit -= request.remaining / 2
        trial = dataclasses.replace(
            request, seed=trial_seed(request.seed, len(drawn)), time_limit=limit
        )
        strengths.append(tried.strength)
        outcome = sample(tried.form, tried.penalty, trial)
        drawn.append(outcome.samples)
        if not len(outcome.samples) or problem.is_feasible(outcome.samples).any():
            break
        if request.remaining == 0:
            break
        lowest = outcome.samples[int(np.argmin(tried.form.energy(outcome.samples)))]
        tried = tried.raised((budget - int(costs[lowest == 1].sum())) / unit, growth)
    states = np.concatenate(drawn)
    repaired = np.zeros(len(states), bool)
    if repair and len(states):
        repaired = ~problem.is_feasible(states)
        states = problem.repair(states)
    order = np.lexsort((problem.energy(states), ~problem.is_feasible(states)))
    best = order[: request.num_reads]
    report: dict[str, Any] = {
        "policy": "unbalanced",
        "price": tried.price,
        "strength": tried.strength,
        "strengths": strengths,
    }
    return dataclasses.replace(
        outcome,
        samples=states[best],
        repaired=repaired[best],
        build_seconds=build + outcome.build_seconds,
        stop=Stop.TIME_LIMIT if request.remaining == 0 else outcome.stop,
        info={"penalty": report} | outcome.info,
    )
