"""``icbs resume``: continuation of an interrupted run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated, Any

import typer

from icbs.cli.console import plain_errors


@plain_errors
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    passes: Annotated[
        int | None,
        typer.Option(help="Total number of passes.", show_default="as at the start"),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Total time in seconds.", show_default="as at the start"),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(help="The run's task, to be repeated if it is a module:function."),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(help="Another solver; the run's must be repeated if it is a module:Class."),
    ] = None,
    log: Annotated[
        list[str],
        typer.Option(
            "--log",
            metavar="KIND:PLACE",
            help="Continue the log in tensorboard:DIR or mlflow:URI; repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    dashboard: Annotated[
        bool, typer.Option("--dashboard", help="Show the run on a local page while it lasts.")
    ] = False,
) -> None:
    """Continue an interrupted run from its last checkpoint."""
    from icbs.cli.followers import Followers
    from icbs.cli.recovery import recover_after, recovery_config
    from icbs.cli.session import open_task, prune_live, show_outcome, task_notes
    from icbs.cli.true_optimum import DenseTask
    from icbs.cli.user_code import allow_local_imports
    from icbs.model.finding import find_layers
    from icbs.pruner import Pruner
    from icbs.report.evaluations import FILE, Evaluator, read_evaluations
    from icbs.report.screen import Screen
    from icbs.run.run_folder import RunFolder

    notes = task_notes(run, task)
    wanted = {"passes": passes, "time_limit": time_limit, "solver": solver}
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    allow_local_imports(solver)
    console = Screen()
    followers = Followers(console, log, dashboard=dashboard)
    work = open_task(console, notes.task, notes.task_options)
    dense_task = None
    if notes.enumerate_masks:
        settings = RunFolder(run).config().model_copy(update=changes)
        dense_task = DenseTask.of(work, find_layers(work.model, settings), settings)
    recovery = None if notes.recovery is None else recovery_config(notes.recovery)
    kept = None if recovery is None else copy.deepcopy(work.model)
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
        followers.follow(run, evaluator, RunFolder(run).config().model_dump()),
    )
    by_pass = RunFolder(run).config().acceptance == "pass"
    show_outcome(console, work, evaluator, result, run, notes.dense, by_pass=by_pass)
    if dense_task is not None:
        dense_task.compare(console, result, run)
    if recovery is not None and kept is not None:
        recover_after(console, work, kept, result.masks, run, recovery, notes.dense)
