"""From a backend's samples to a solution: nothing is believed, nothing is lost."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from problems import CardinalityQUBO, InvalidProblemError
from solvers.base import Outcome, Request, Solver, State
from solvers.errors import BackendError
from solvers.solution import Solution, Status, Timing


def conclude(
    solver: Solver, problem: CardinalityQUBO, request: Request, outcome: Outcome, seconds: float
) -> Solution:
    """Recompute energies, put feasible samples first, and keep the best state known.

    Parameters
    ----------
    solver, problem, request
        Who was asked what.
    outcome : Outcome
        What the solver handed back; its own energies are never looked at.
    seconds : float
        Wall time of the run, of which the outcome names its share for building and decoding.

    Raises
    ------
    BackendError
        If the samples are no states of the problem.
    """
    begin = time.perf_counter()
    try:
        samples = np.atleast_2d(problem.as_states(outcome.samples))
    except InvalidProblemError as error:
        raise BackendError(f"solver {solver.name!r} returned no states: {error}") from error
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
    status = Status.OPTIMAL if proven else Status.FEASIBLE if found else Status.NO_SOLUTION_FOUND
    spent = max(0.0, seconds - outcome.build_seconds - outcome.decode_seconds)
    decode = outcome.decode_seconds + time.perf_counter() - begin
    return Solution(
        x=samples[0] if found else None,
        energy=float(energies[0]) if found else float("inf"),
        status=status,
        stop=outcome.stop,
        bound=outcome.bound,
        samples=samples,
        energies=energies,
        feasible=feasible,
        repaired=repaired,
        timing=Timing(outcome.build_seconds, spent, decode),
        info=_record(solver, problem, request) | outcome.info,
    )


def _record(solver: Solver, problem: CardinalityQUBO, request: Request) -> dict[str, Any]:
    """Say what was asked of whom, so that an answer can be traced and repeated."""
    options = {name: getattr(solver, name) for name in solver.options()}
    return {
        "solver": solver.name,
        "versions": solver.versions(),
        "options": {k: v if _is_plain(v) else type(v).__name__ for k, v in options.items()},
        # A hash needs the coefficients on the host; those on a device stay there.
        "problem": problem.hash if problem.device.type == "cpu" else None,
        "seed": request.seed,
        "time_limit": request.time_limit,
        "num_reads": request.num_reads,
        "warm_start": request.initial_state is not None,
    }


def _is_plain(value: Any) -> bool:
    """Whether an option can be written down; backends and samplers can't."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, str | int | float)


def _measure(
    problem: CardinalityQUBO, samples: State
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    if not len(samples):
        return np.zeros(0), np.zeros(0, dtype=bool)
    return problem.energy(samples), np.asarray(problem.is_feasible(samples))
