"""Process that runs the solvers of a campaign, one run after another.

It is reused from run to run: modules are imported, kernels compiled and the problem read before
the clock starts. :mod:`solvers.comparison.places` starts and kills it.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from problems import CardinalityQUBO
from solvers import worker
from solvers.attempt import Answer, attempt
from solvers.base import Solver, State
from solvers.comparison.cases import Case, Source
from solvers.comparison.records import Run
from solvers.comparison.trace import Incumbent, Trace, improvements
from solvers.errors import (
    BackendError,
    CampaignError,
    SolverError,
    TimeLimitError,
    describe,
    to_solver_error,
)
from solvers.guard import is_own, is_trusted
from solvers.invoke import solver_name
from solvers.request import make_request
from solvers.solution import Solution, Status, Stop

#: Number of problems that are cached for later runs.
_MAX_PROBLEMS = 2
#: A solver is started again only while more than this share of the time limit is left.
_MIN_REST = 0.005


def serve() -> None:
    """Answer messages until the pipe is closed."""
    worker.serve(_Runner)


class _Runner:
    """Answers messages: prepares solvers, reads problems, runs solvers; errors are answers."""

    def __init__(self, tell: worker.Tell) -> None:
        self.tell = tell
        self.solvers: dict[bytes, Solver] = {}
        self.problems: dict[str, CardinalityQUBO] = {}

    def __call__(self, message: bytes) -> tuple[bool, Any]:
        """Return whether the step succeeded, and its result or the error."""
        try:
            step, *content = pickle.loads(message)
            return True, getattr(self, step)(*content)
        except BaseException as error:
            return False, _sendable(error)

    def prepare(self, code: bytes, path: list[str]) -> None:
        """Unpickle a solver, load its backend, and run it once as a warm-up."""
        sys.path[:] = path
        solver = pickle.loads(code)
        solver.require()
        if is_trusted(solver) and solver.capabilities.hardware is None:
            for problem in _specimens(solver.capabilities.max_n):
                run = Run("", "", "", 0, 0.05, start=solver.capabilities.initial_state)
                perform(solver, problem, (np.arange(problem.n) < problem.k).astype(np.uint8), run)
        self.solvers[code] = solver

    def read(self, source: Source, digest: str) -> None:
        """Read a problem and cache it."""
        if digest in self.problems:
            return
        problem = source.load()
        if problem.hash != digest:
            raise CampaignError(f"{source.place} has changed since the campaign started")
        while len(self.problems) >= _MAX_PROBLEMS:
            del self.problems[next(iter(self.problems))]
        self.problems[digest] = problem

    def measure(self, digest: str, found: list[Incumbent]) -> list[tuple[float, float, bytes]]:
        """Recompute the energies of the states that another process found before it ended."""
        return improvements(self.problems[digest], found)

    def run(self, code: bytes, case: Case, run: Run) -> dict[str, Any]:
        """Run a solver on a problem until it proves its answer or the time is over."""
        solver = self.solvers[code]
        # A copy: cached attributes, such as Q, must not save time for the next solver.
        problem = copy.copy(self.problems[case.hash])
        return perform(solver, problem, case.state(), run, self.tell)


def perform(
    solver: Solver,
    problem: CardinalityQUBO,
    start: State | None,
    run: Run,
    tell: Callable[[Incumbent], object] | None = None,
) -> dict[str, Any]:
    """Run a solver and describe the run in JSON's types.

    Parameters
    ----------
    solver : Solver
    problem : CardinalityQUBO
    start : ndarray of 0/1, shape (n,), optional
        The status quo, used if ``run.start``.
    run : Run
    tell : callable, optional
        Called with each incumbent as it is found.

    Returns
    -------
    dict
        ``trace`` (seconds and energies of the incumbents), ``x`` (the best state), and the
        columns of the table that belong to a run's end.
    """
    trace = Trace(problem.n, tell, trusted=is_own(solver))
    answers: list[Answer] = []
    for seed in _seeds(run.seed):
        trace.restarted()
        answer = _started(solver, problem, start, run, seed, trace)
        answers.append(answer)
        if isinstance(answer, Solution) and answer.x is not None and answer.info["returned"]:
            trace.answered(answer.energy, answer.x)
        if not _continues(answer, solver, run, trace):
            break
    seconds = trace.now
    return _record(problem, trace, answers, seconds)


def _started(
    solver: Solver,
    problem: CardinalityQUBO,
    start: State | None,
    run: Run,
    seed: int,
    trace: Trace,
) -> Answer:
    """Start a solver for the rest of the time."""
    can = solver.capabilities
    try:
        request = make_request(
            solver,
            problem,
            max(run.time_limit - trace.offset, 1e-3),
            seed if can.seed else None,
            start if run.start else None,
            run.num_reads,
            (lambda seconds, energy: False) if can.callback else None,
        )
        request = dataclasses.replace(request, observer=trace if can.callback else None)
        return attempt(solver, problem, request)
    except Exception as error:
        return to_solver_error(solver_name(solver), error)


def _seeds(seed: int) -> Any:
    """Yield the seed of a run, then a new one for each restart."""
    yield seed
    for number in range(1, sys.maxsize):
        yield int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)[0])


def _continues(answer: Answer, solver: Solver, run: Run, trace: Trace) -> bool:
    """Whether to start a solver again."""
    can = solver.capabilities
    draws = can.seed or not can.deterministic
    if not (run.restart and draws) or isinstance(answer, SolverError):
        return False
    if can.hardware in ("qpu", "cloud"):  # each start is paid for
        return False
    if answer.status is Status.OPTIMAL or answer.stop in (Stop.PROVEN, Stop.TIME_LIMIT):
        return False
    # Another start needs enough time to finish.
    return run.time_limit - trace.now > _MIN_REST * run.time_limit


def _record(
    problem: CardinalityQUBO, trace: Trace, answers: list[Answer], seconds: float
) -> dict[str, Any]:
    kept = improvements(problem, trace.found)
    solved = [answer for answer in answers if isinstance(answer, Solution)]
    error = next((answer for answer in answers if isinstance(answer, SolverError)), None)
    end: dict[str, Any] = {
        "seconds": seconds,
        "energy": kept[-1][1] if kept else None,
        "feasible": bool(kept),
        "status": "solved" if kept else "nothing",
        "error": "",
        "machine": machine(),
    }
    if error is not None:
        end["status"] = "timeout" if isinstance(error, TimeLimitError) else "failed"
        end["error"] = describe(error)
    if solved:
        last = solved[-1]
        bounds = [answer.bound for answer in solved if answer.bound is not None]
        end["stop"] = last.stop.value
        end["bound"] = max(bounds) if bounds else None
        proved = any(answer.is_optimal for answer in solved)
        end["known"] = "optimal" if proved else "bounded" if bounds else ""
        for phase in ("build", "solve", "decode"):
            end[f"{phase}_seconds"] = sum(getattr(answer.timing, phase) for answer in solved)
        end |= _samples(solved)
    shown = [[second, energy] for second, energy, _ in kept]
    return {"trace": shown, "end": end, "x": kept[-1][2] if kept else None}


def _samples(solved: list[Solution]) -> dict[str, Any]:
    """Summarise the solver's own samples before repair."""
    shares, raws, strengths = [], [], []
    for answer in solved:
        penalty = answer.info.get("penalty")
        if isinstance(penalty, dict):
            unit = -int(answer.info.get("exponent") or 0)
            if penalty.get("feasible_share") is not None:
                shares.append(penalty["feasible_share"])
            if penalty.get("raw_energy") is not None:
                raws.append(math.ldexp(penalty["raw_energy"], unit))
            strengths.append(math.ldexp(float(np.max(penalty["strength"])), unit))
        elif len(answer.samples):
            own = answer.feasible & ~answer.repaired
            shares.append(float(own.mean()))
            raws += [float(answer.energies[own].min())] if own.any() else []
    return {
        "feasible_share": float(np.mean(shares)) if shares else None,
        "raw_energy": min(raws) if raws else None,
        "penalty": strengths[-1] if strengths else None,
    }


@cache
def machine() -> str:
    """Name the processor and the system."""
    model = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return f"{model}, {platform.system()}, Python {platform.python_version()}"


def _specimens(most: int | None) -> list[CardinalityQUBO]:
    """Return a problem of each form, of at most ``most`` variables, for the warm-up."""
    n = 48 if most is None or most >= 48 else 8
    A = np.random.default_rng(0).normal(size=(8, n)).astype(np.float32)
    linear = -np.square(A).sum(axis=0)
    factored = CardinalityQUBO.from_factors(A, linear, n // 2)
    return [factored, CardinalityQUBO(A.T @ A + np.diag(linear), n // 2)]


def _sendable(error: BaseException) -> BaseException:
    """Return an error that another process can unpickle."""
    if type(error).__module__.startswith(("builtins", "solvers.", "problems.")):
        with suppress(Exception):
            return pickle.loads(pickle.dumps(error))
    return BackendError(describe(error))
