"""Base class of backends without constraints: penalise, raise the strength, repair."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO, CardinalityQUBO, InvalidProblemError
from problems.penalty import LinearPenalty, Penalty, check_policy, penalised, penalty_for
from problems.repair import repair
from solvers.base import Outcome, Request, Solver, State
from solvers.errors import OptionError
from solvers.scaling import scale_option
from solvers.solution import Stop
from solvers.streams import trial_seed

#: Share of the energy that counts as nothing.
_FREE = 1e-9


@dataclass(frozen=True)
class Penalised(Solver):
    """A backend that minimises a cost that includes the cardinality as a penalty.

    Samples are drawn at the policy's strength. While none of them is feasible, the strength is
    raised by a step of the method of multipliers, and sampling is repeated. The samples of all
    strengths are then repaired and marked as such, and the best are returned. Under a time limit,
    each trial gets half of the remaining time, until a sample is feasible or the last trial.

    With the policy ``"linear"`` there is no strength to be raised: a multiplier of the count is
    bisected, and trials share the time evenly. It ends as well where a repair costs nothing:
    what is minimal with a multiplier bounds every feasible energy (weak duality), so that the
    repaired state can't be improved.

    Parameters
    ----------
    penalty : str or float
        A policy of :data:`problems.penalty.POLICIES`, or a strength.
    growth : float
        Factor of the strength from one trial to the next, at least 1.
    raises : int
        How often the strength may be raised, or the multiplier moved.
    repair : bool
        Whether infeasible samples are repaired (see :func:`problems.repair.repair`); else they
        are returned unchanged, after the feasible ones.
    """

    penalty: str | float = "adaptive"
    growth: float = 2.0
    raises: int = 8
    repair: bool = True

    def __post_init__(self) -> None:
        try:
            check_policy(self.penalty)
        except InvalidProblemError as error:
            raise OptionError(str(error)) from None
        if not (np.isfinite(self.growth) and self.growth >= 1):
            raise OptionError(f"growth is {self.growth}; it must be a finite number of 1 or more")
        if self.raises < 0:
            raise OptionError(f"raises is {self.raises}; it must be 0 or more")

    def scaled(self, exponent: int) -> Penalised:
        """Scale a numeric penalty."""
        if isinstance(self.penalty, str):
            return self
        return dataclasses.replace(self, penalty=scale_option(self.penalty, exponent))

    @abstractmethod
    def sample(self, form: CardinalityQUBO, penalty: Penalty, request: Request) -> Outcome:
        """Sample states of low energy of ``form``, with any cardinality.

        Parameters
        ----------
        form : CardinalityQUBO
            The penalised cost, dense and in float64; its cardinality is not enforced.
        penalty : Penalty
            The penalty in ``form``.
        request : Request
            With the seed and the time limit of this trial.
        """

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Sample, raise the strength while no sample is feasible, repair, and keep the best."""
        begin = time.perf_counter()
        penalty = penalty_for(problem, self.penalty)
        form = penalised(problem, penalty)
        build = time.perf_counter() - begin
        drawn: list[State] = []
        tried, settled = [penalty], False
        while True:
            left = 1 if settled else self.raises + 2 - len(tried)
            last = left <= 1
            share = 1 / max(left, 1) if isinstance(penalty, LinearPenalty) else 1 / 2
            trial = _trial(request, len(drawn), 1.0 if last else share)
            outcome = self.sample(form, penalty, trial)
            build += outcome.build_seconds
            drawn.append(outcome.samples)
            off = problem.count(outcome.samples) - problem.cardinalities
            feasible = (off == 0).all(axis=1)
            if last or not len(off) or request.remaining == 0:
                break
            if feasible.any():
                if outcome.stop is not Stop.TIME_LIMIT:
                    break
                settled = True  # spend the reserved time at the first feasible strength
                continue
            begin = time.perf_counter()
            lowest = int(np.argmin(form.energy(outcome.samples)))
            if self.repair and _closed(problem, form, penalty, outcome.samples[lowest]):
                break
            penalty = penalty.raised(off[lowest].astype(np.float64), self.growth)
            form = penalised(problem, penalty)
            tried.append(penalty)
            build += time.perf_counter() - begin

        states = np.concatenate(drawn)
        held = states[problem.is_feasible(states)]
        raw = float(problem.energy(held).min()) if len(held) else None
        states, repaired = self._repair(problem, states, request)
        best = best_of(problem, states, request.num_reads)
        report = {
            "policy": self.penalty if isinstance(self.penalty, str) else "fixed",
            "strength": _as_floats(penalty.strength),
            "shift": _as_floats(penalty.shift),
            "strengths": [_as_floats(each.strength) for each in tried],
            "shifts": [_as_floats(each.shift) for each in tried],
            "feasible_share": float(feasible.mean()) if len(feasible) else None,
            "raw_energy": raw,  # of the best sample that needed no repair
        }
        return dataclasses.replace(
            outcome,
            samples=states[best],
            repaired=repaired[best],
            build_seconds=build,
            info={"penalty": report} | outcome.info,
        )

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Sample with the budget as a penalty; see :mod:`solvers.penalised_budget`."""
        from solvers.penalised_budget import run_unbalanced

        return run_unbalanced(
            problem, request, self.sample, self.penalty, self.growth, self.raises, self.repair
        )

    def _repair(
        self, problem: CardinalityQUBO, states: State, request: Request
    ) -> tuple[State, npt.NDArray[np.bool_]]:
        """Repair the smallest violations first, at least one, and others until the time limit."""
        off = np.abs(problem.count(states) - problem.cardinalities).sum(axis=1)
        repaired = np.zeros(len(states), dtype=bool)
        if self.repair:
            for row in np.argsort(off, kind="stable")[np.count_nonzero(off == 0) :]:
                if request.remaining == 0 and (repaired.any() or (off == 0).any()):
                    break
                states[row] = repair(problem, states[row])
                repaired[row] = True
        return states, repaired


def _closed(
    problem: CardinalityQUBO, form: CardinalityQUBO, penalty: Penalty, state: State
) -> bool:
    """Whether bringing a minimum of a linear penalty to the cardinality costs nothing."""
    if not isinstance(penalty, LinearPenalty):
        return False
    repaired = problem.energy(repair(problem, state))
    return bool(repaired <= form.energy(state) + _FREE * abs(repaired - problem.offset))


def _trial(request: Request, number: int, share: float) -> Request:
    """Give each trial its own random stream and its share of the time left."""
    seed = trial_seed(request.seed, number)
    limit = request.time_limit
    if limit is not None:
        limit -= request.remaining * (1 - share)
    return dataclasses.replace(request, seed=seed, time_limit=limit)


def best_of(problem: CardinalityQUBO, states: State, count: int) -> Any:
    """Return the indices of the best states, feasible first."""
    if not len(states):
        return slice(None)
    return np.lexsort((problem.energy(states), ~problem.is_feasible(states)))[:count]


def _as_floats(values: Any) -> float | list[float]:
    numbers = [float(v) for v in values]
    return numbers[0] if len(numbers) == 1 else numbers
