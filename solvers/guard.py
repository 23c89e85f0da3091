"""How a solver is called: in this thread if it is ours, where it can be given up if it is not.

What is promised of a solver that is not part of this project, or that calls a foreign object:

- It gets a copy of the problem with read-only arrays, and a start of its own.
- What it raises or returns wrongly, ``SystemExit`` included, is an error that names it.
- Under a time limit it is waited for until a grace time after that. It then runs in another
  process, which is ended, if it can be pickled and imported there; foreign samplers and
  algorithms, which may hold connections and state, run in a thread of this process, which is
  left behind.
- Without a time limit it is waited for without an end, but can be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from problems import CardinalityQUBO
from solvers.background import Background
from solvers.base import Request, Solver
from solvers.errors import BackendError, TimeLimitError, to_solver_error
from solvers.invoke import CallResult, invoke, solver_name
from solvers.isolation import Worker, worker_for
from solvers.validation import is_plain

#: Seconds after the time limit, and a tenth of it, at which a solver is given up.
GRACE = 5.0


def is_own(solver: Solver) -> bool:
    """Whether a solver's class is this project's."""
    return type(solver).__module__.partition(".")[0] == __package__


def is_trusted(solver: Solver) -> bool:
    """Whether a solver is this project's, and calls no object that it was given."""
    return is_own(solver) and all(map(is_plain, vars(solver).values()))


def call(
    solver: Solver,
    problems: Sequence[CardinalityQUBO],
    requests: Sequence[Request],
    batch: bool = False,
    apart: bool = False,
) -> CallResult:
    """Call a solver as far as it is trusted.

    Parameters
    ----------
    solver : Solver
    problems : sequence of CardinalityQUBO
    requests : sequence of Request
    batch : bool, default False
        Whether to call ``run_batch``; else there is one problem.
    apart : bool, default False
        Whether it must run in another process, since it has ended one before.

    Raises
    ------
    SolverError
        Whatever kept a solver from answering.
    KeyboardInterrupt
    """
    if is_trusted(solver) and not apart:
        return invoke(solver, problems, requests, batch, trusted=True)
    limits = [request.time_limit for request in requests]
    limit = None if None in limits else sum(limit for limit in limits if limit is not None)
    worker = None
    if apart or (limit is not None and not is_own(solver)):
        worker = worker_for(solver, problems, requests)
    if worker is not None:
        work: Callable[[], CallResult] = partial(worker.invoke, problems, requests, batch)
    elif apart:
        raise BackendError(
            f"solver {solver_name(solver)!r} ended the process that it ran in, and can't be "
            "loaded in another; solve in threads (no executor) to see why"
        )
    else:
        work = partial(invoke, solver, problems, requests, batch)
    return _awaited(solver, work, worker, limit)


def _awaited(
    solver: Solver, work: Callable[[], CallResult], worker: Worker | None, limit: float | None
) -> CallResult:
    """Wait for work in another thread or process, no longer than its time limit allows."""
    running = Background(work)
    ended = False
    try:
        error = running.error(None if limit is None else 1.1 * limit + GRACE)
        ended = True
    except TimeoutError:
        how = "its thread is left behind" if worker is None else "its process was ended"
        raise TimeLimitError(
            f"solver {solver_name(solver)!r} was still running {GRACE:g} s and a tenth after its "
            f"time limit of {limit:g} s; {how}"
        ) from None
    finally:
        if worker is not None:
            if not ended:
                worker.end()
            worker.release()
        elif not ended:
            running.abandon()
    if isinstance(error, KeyboardInterrupt):
        raise error
    if error is not None:
        raise to_solver_error(solver_name(solver), error)
    performance: CallResult = running.result()
    return performance
