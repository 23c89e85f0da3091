"""Loop over the passes of a run: budget, checkpoints, callbacks and results."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from icbs import parallel
from icbs.blocks.failures import Failures
from icbs.errors import SolverFailureError
from icbs.run.context import RunContext
from icbs.run.result import Progress, Result
from icbs.run.run_folder import RunFolder
from icbs.run.state import RunState
from icbs.run.weight_update import WeightUpdate, update_weights

log = logging.getLogger("icbs")
Callback = Callable[[Progress], object]


def run_passes(
    step: Callable[[RunContext, RunState], None],
    context: RunContext,
    state: RunState,
    *,
    solver: str,
    folder: RunFolder | None = None,
    callbacks: Sequence[Callback] = (),
    update: WeightUpdate | None = None,
    hint: bool = True,
) -> Result:
    """Do passes until the budget is spent or an exception occurs; set the best masks found.

    Parameters
    ----------
    step : callable
        ``step(context, state)`` does one pass.
    context, state
    solver : str
        The solver's name, for messages.
    folder : RunFolder, optional
        Folder for checkpoints and results.
    callbacks : sequence of callable
        Called at the start and after each pass; a true return value ends the run.
    update : callable, optional
        Replaces weights between passes; see :mod:`icbs.run.weight_update`.
    hint : bool, default True
        Log how to resume when the run is interrupted.
    """
    config = context.config
    limit = config.time_limit or math.inf
    failures = Failures(solver)
    if state.step == 0 and math.isnan(state.loss):  # resumed before its first pass was done
        state.loss = context.holdout.measure()
    ended = _follow(folder, callbacks if state.step == 0 else (), context, state)

    def more() -> bool:
        return not ended and state.step < config.passes and state.seconds < limit

    try:
        while parallel.broadcast_from_rank0(more):
            if state.step % config.checkpoint_every == 0 or math.isnan(state.loss):
                # Measured without the cache, as a resumed run does, so that both are identical.
                state.loss = context.holdout.measure()
                if folder is not None and not failures.without_answer:
                    folder.checkpoint(context, state)
            before = len(state.history)
            step(context, state)
            failures.note(state.history[before:])
            failures.check()
            if update is not None:
                update_weights(update, context, state)
            ended = _follow(folder, callbacks, context, state)
        failures.check(over=True)
    except KeyboardInterrupt:
        if folder is not None and hint:
            log.warning(
                "interrupted in pass %d; icbs.Pruner.resume(%r, …) continues from the last "
                "checkpoint, after pass %d",
                state.step + 1,
                str(folder.path),
                state.step - state.step % config.checkpoint_every,
            )
        raise
    except SolverFailureError:
        if folder is not None:  # The checkpoint is kept: a resumed run repeats these passes.
            folder.record(context, state)
        raise
    finally:
        state.best.apply(context.layers)
    result = Result.of(context, state)
    if folder is not None:
        folder.write_results(context, state, result)
    return result


def _follow(
    folder: RunFolder | None,
    callbacks: Sequence[Callback],
    context: RunContext,
    state: RunState,
) -> bool:
    """Note the progress, and run the callbacks off the clock; return whether the run should end."""
    now = Progress.of(context, state)
    if folder is not None:
        folder.note(now, state)
    seconds = state.seconds
    answers = [callback(now) for callback in callbacks]
    state.set_clock(seconds)
    return any(answers)
