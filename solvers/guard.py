"""Safe calls of solvers: third-party code runs where it can be abandoned.

Guarantees for a solver that is not part of this project, or calls an object of another library:

- It gets a copy of the problem with read-only arrays, and of the initial state.
- Any exception, including ``SystemExit``, and any invalid answer becomes an error with its name.
- With a time limit, it is abandoned a grace time after the limit. If it can be pickled and
  imported elsewhere, it runs in another process, which is killed. Samplers and algorithms of
  other libraries, which may have connections and state, run in a thread, which is left behind.
- Without a time limit, the call waits until it returns, but can be interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from solvers.background import Background
from solvers.base import Problem, Request, Solver
from solvers.errors import BackendError, TimeLimitError, to_solver_error
from solvers.invoke import CallResult, invoke, solver_name
from solvers.isolation import Worker, worker_for
from solvers.validation import is_plain

#: A solver is abandoned this many seconds, and a tenth of its time limit, after the limit.
GRACE = 5.0


def is_own(solver: Solver) -> bool:
    """Whether a solver's class is this project's."""
    return type(solver).__module__.partition(".")[0] == __package__


def is_trusted(solver: Solver) -> bool:
    """Whether a solver is this project's, and all its options are plain values."""
    return is_own(solver) and all(map(is_plain, vars(solver).values()))


def call(
    solver: Solver,
    problems: Sequence[Problem],
    requests: Sequence[Request],
    batch: bool = False,
    apart: bool = False,
) -> CallResult:
    """Call a solver directly if it is trusted, else in a thread or process.

    Parameters
    ----------
    solver : Solver
    problems : sequence of Problem
    requests : sequence of Request
    batch : bool, default False
        Whether to call ``run_batch``; else there is one problem.
    apart : bool, default False
        Whether it must run in another process, since it killed one before.

    Raises
    ------
    SolverError
        Any failure of the solver.
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
            f"solver {solver_name(solver)!r} killed the process that it ran in, and can't be "
            "loaded in another; solve in threads (without executor) to see the cause"
        )
    else:
        work = partial(invoke, solver, problems, requests, batch)
    return _awaited(solver, work, worker, limit, requests)


def _awaited(
    solver: Solver,
    work: Callable[[], CallResult],
    worker: Worker | None,
    limit: float | None,
    requests: Sequence[Request],
) -> CallResult:
    """Wait for a call in another thread or process, as long as its time limit allows.

    If another thread of the same sequence is interrupted, the solver is abandoned here too.
    """
    running, ended = None, False
    try:
        running = Background(work)
        error = running.error(
            None if limit is None else 1.1 * limit + GRACE,
            lambda: any(request.interrupted for request in requests),
        )
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
                worker.kill()
            worker.release()
        elif running is not None and not ended:
            running.abandon()
    if isinstance(error, KeyboardInterrupt):
        raise error
    if error is not None:
        raise to_solver_error(solver_name(solver), error)
    performance: CallResult = running.result()
    return performance
