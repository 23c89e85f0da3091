"""``icbs resume``: go on with an interrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from icbs.cli.console import plain_errors


@plain_errors
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    passes: Annotated[
        int | None,
        typer.Option(help="Passes in all.", show_default="as the run was begun"),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Wall seconds in all.", show_default="as the run was begun"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The run's task again, where it is a module:function, which is run."),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(help="Another solver, or the run's again where it is a module:Class."),
    ] = None,
) -> None:
    """Go on with an interrupted run, from its last checkpoint."""
    from icbs.cli.session import close, open_task, prune_live, task_notes
    from icbs.cli.user_code import look_here
    from icbs.errors import ConfigError
    from icbs.pruner import Pruner
    from icbs.report.evaluations import FILE, Evaluator, read_evaluations
    from icbs.report.screen import Screen
    from icbs.run.run_folder import RunFolder
    from icbs.zoo import check_declared

    notes = task_notes(run)
    RunFolder(run).check_free()
    if task is None:
        check_declared(notes.task, run)
    elif task != notes.task:
        raise ConfigError(f"{run} was begun with task {notes.task!r}, not {task!r}")
    wanted = {"passes": passes, "time_limit": time_limit, "solver": solver}
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    look_here(solver)
    console = Screen()
    work = open_task(console, notes.task, notes.task_options)
    evaluator = Evaluator(work.evaluate, notes.evaluate_every, run, read_evaluations(run / FILE))
    result = prune_live(
        console,
        "iCBS",
        evaluator,
        run,
        notes.task,
        lambda show: Pruner.resume(
            run,
            work.model,
            work.batches,
            work.loss,
            callback=show,
            progress=False,
            **changes,
        ),
    )
    by_pass = RunFolder(run).config().acceptance == "pass"
    close(console, work, evaluator, result, run, notes.dense, by_pass=by_pass)
