"""Conversion of a backend's samples to a solution with recomputed energies."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from problems.scaling import coefficient_sum
from solvers.base import Outcome, Problem, Request, Solver, State
from solvers.solution import Solution, Status, Timing
from solvers.validation import is_plain

#: Tolerated rounding error of energies and bounds, as a share of all absolute coefficients.
ROUNDING = 1e-9


def finalize(
    solver: Solver, problem: Problem, request: Request, outcome: Outcome, seconds: float
) -> Solution:
    """Recompute energies, sort feasible samples first, and keep the best known state.

    Parameters
    ----------
    solver, problem, request
        The call that was made.
    outcome : Outcome
        The solver's outcome, after :func:`solvers.validation.validate_outcome`.
    seconds : float
        Wall time of the run, including the outcome's times for building and decoding.
    """
    begin = time.perf_counter()
    samples = outcome.samples
    if request.initial_state is not None and not len(samples):
        samples = request.initial_state[None]
    energies, feasible = _measure(problem, samples)
    repaired = np.zeros(len(samples), dtype=bool)
    if outcome.repaired is not None:
        repaired[: len(outcome.repaired)] = outcome.repaired
    if request.initial_state is not None:
        start = problem.energy(request.initial_state)
        if not (feasible & (energies <= start)).any():
            samples = np.concatenate([samples, request.initial_state[None]])
            energies, feasible = np.append(energies, start), np.append(feasible, True)
            repaired = np.append(repaired, False)
    order = np.lexsort((energies, ~feasible))
    samples, energies, feasible = samples[order], energies[order], feasible[order]
    repaired = repaired[order]
    found = bool(len(samples)) and bool(feasible[0])
    proven = found and outcome.proven and solver.capabilities.exact
    bound, refuted = outcome.bound, None
    if found and (proven or bound is not None):
        refuted = _refutation(problem, outcome, float(energies[0]), proven)
        proven, bound = proven and not refuted, None if refuted else bound
    status = Status.OPTIMAL if proven else Status.FEASIBLE if found else Status.NO_SOLUTION_FOUND
    spent = max(0.0, seconds - outcome.build_seconds - outcome.decode_seconds)
    decode = outcome.decode_seconds + time.perf_counter() - begin
    return Solution(
        x=samples[0] if found else None,
        energy=float(energies[0]) if found else float("inf"),
        status=status,
        stop=outcome.stop,
        bound=bound,
        samples=samples,
        energies=energies,
        feasible=feasible,
        repaired=repaired,
        timing=Timing(outcome.build_seconds, spent, decode),
        info=outcome.info
        | _record(solver, problem, request, outcome)
        | ({"refuted": refuted} if refuted else {}),
    )


def _refutation(problem: Problem, outcome: Outcome, energy: float, proven: bool) -> str | None:
    """Explain why a bound or a proof is wrong, if a feasible state of ``energy`` refutes it."""
    allowed = energy + ROUNDING * coefficient_sum(problem)
    if outcome.bound is not None and outcome.bound > allowed:
        return f"the bound {outcome.bound} lies above the energy {energy} of a feasible state"
    if proven:
        own = problem.energy(outcome.samples)[np.asarray(problem.is_feasible(outcome.samples))]
        if not len(own) or own.min() > allowed:
            return f"a state was claimed optimal, but another has the energy {energy}"
    return None


def _record(solver: Solver, problem: Problem, request: Request, outcome: Outcome) -> dict[str, Any]:
    """Record solver, options and request, so that an answer can be reproduced."""
    options = {name: getattr(solver, name) for name in solver.options()}
    return {
        "solver": solver.name,
        "versions": solver.versions(),
        "options": {k: v if is_plain(v) else type(v).__name__ for k, v in options.items()},
        # A hash needs the coefficients on the host; they are not copied from a device for it.
        "problem": problem.hash if problem.on_host else None,
        "seed": request.seed,
        "time_limit": request.time_limit,
        "num_reads": request.num_reads,
        "warm_start": request.initial_state is not None,
        "returned": len(outcome.samples),
    }


def _measure(
    problem: Problem, samples: State
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    if not len(samples):
        return np.zeros(0), np.zeros(0, dtype=bool)
    return problem.energy(samples), problem.is_feasible(samples)
