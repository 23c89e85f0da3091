"""Common parts of ``prune``, ``resume`` and ``demo``: loading a task, the run, its results."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from icbs.cli.console import plain_warnings
from icbs.cli.followers import Followers
from icbs.cli.live import Live
from icbs.cli.output_folders import rescued_masks
from icbs.cli.user_code import allow_local_imports
from icbs.config import brief
from icbs.errors import ConfigError, RunFolderError
from icbs.export.headers import TaskNotes
from icbs.export.pretrained import PRETRAINED
from icbs.formatting import byte_size, counted, duration
from icbs.model.coverage import density_in_words
from icbs.report.evaluations import Evaluator
from icbs.report.figure import Curve, draw
from icbs.report.overview import resume_command
from icbs.report.screen import Screen, visible
from icbs.report.tables import outcome_table
from icbs.run.locked_folder import CONFIG
from icbs.run.result import Progress, Result
from icbs.run.run_folder import RunFolder
from icbs.run.saved_blocks import FOLDER as BLOCKS
from icbs.zoo import Task, check_declared, load_task
from problems import IcbsError


def task_notes(run: Path, task: str | None) -> TaskNotes:
    """Read the task and its options from the folder of a run that is to be continued.

    Parameters
    ----------
    run : Path
    task : str, optional
        The task on the command line.

    Raises
    ------
    ConfigError
        If the run was not started by ``icbs prune``, or with another task; or if its task is a
        function that is not repeated on the command line.
    RunFolderError
        If there is no run, another process uses it, or its manifest is damaged.
    """
    about = RunFolder(run).about()
    if "task" not in about:
        raise ConfigError(
            f"{run} was not started by 'icbs prune'; resume it with icbs.Pruner.resume"
        )
    try:
        notes = TaskNotes.of(about)
    except ValueError as error:
        raise RunFolderError(f"the notes in the manifest of {run} are damaged: {error}") from error
    RunFolder(run).check_free()
    check_task(notes, task, run)
    return notes


def check_task(notes: TaskNotes, task: str | None, folder: Path) -> None:
    """Refuse another task than that of a folder, or a function that is not repeated.

    Raises
    ------
    ConfigError
    """
    if task is None:
        check_declared(notes.task, folder)
    elif task != notes.task:
        raise ConfigError(f"{folder} was started with the task {notes.task!r}, not {task!r}")


def new_notes(
    task: str, options: dict[str, Any], dense: Mapping[str, float], **more: Any
) -> dict[str, Any]:
    """Return notes on a task for the manifest of a run; see :class:`TaskNotes`."""
    notes = {"task": task, "task_options": options, "evaluate_every": 1, "dense": dict(dense)}
    return notes | more


def open_task(console: Console, name: str, options: dict[str, Any]) -> Task:
    """Load a task, after printing its options.

    A ``module:function`` may be in the current directory. Errors in it are printed with their
    traceback, without the frames of this package.
    """
    listed = ", ".join(f"{option} = {brief(value)}" for option, value in options.items())
    if listed:
        console.print(Text(f"task {name}: {listed}"), highlight=False)
    allow_local_imports(name)
    try:
        with console.status(
            Text(visible(f"loading task {name} (its model may be trained at first use)"))
        ):
            task = load_task(name, **options)
    except (IcbsError, OSError):
        raise
    except Exception as error:
        trace = _users_frames(error.__traceback__)
        text = "".join(traceback.format_exception(type(error), error, trace))
        Screen(stderr=True, soft_wrap=True).print(Text(visible(text)), highlight=False, end="")
        raise typer.Exit(1) from error
    if task.about:
        console.print(Text(task.about), highlight=False)
    return task


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback from the first frame outside this package and importlib."""
    own = str(Path(__file__).parents[1])
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith((own, "<frozen importlib")) or "importlib" in Path(file).parts):
            break
        trace = trace.tb_next
    return trace


@contextmanager
def continued_by_repetition(console: Console, run: Path) -> Iterator[None]:
    """After an interruption (Ctrl-C) say that the same command continues; exit with status 130."""
    try:
        yield
    except KeyboardInterrupt:
        line = f"interrupted; the same command, with --run {run}, continues"
        console.print(Text(line), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def prune_live(
    console: Console,
    title: str,
    evaluator: Evaluator,
    folder: Path,
    task: str,
    work: Callable[[Callable[[Progress], object]], Result],
    followers: Followers | None = None,
) -> Result:
    """Run ``work(callback)`` with a progress bar; print the command to resume if interrupted.

    Raises
    ------
    typer.Exit
        With status 130 after an interruption (Ctrl-C).
    """
    try:
        live = Live(console, title, evaluator)
        with plain_warnings(console), rescued_masks(folder.name), live as show:
            if followers is None:
                return work(show)
            with followers:
                return work(followers.after(show))
    except KeyboardInterrupt:
        if (folder / CONFIG).exists():
            found = RunFolder(folder)
            command = resume_command(folder, task, found.config().solver)
            status = found.status()
            done = counted(status.passes if status.finished else status.checkpoint, "pass")
            message = f"interrupted; {command} continues after {done}"
        else:
            message = "interrupted before the run started; run the same command again"
        console.print(Text(message), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def show_outcome(
    console: Console,
    task: Task,
    evaluator: Evaluator,
    result: Result,
    folder: Path,
    dense: dict[str, float],
    *,
    by_pass: bool,
) -> None:
    """Evaluate the final masks, draw the figure and print the results."""
    final = evaluator.add(result.passes, result.seconds, task.model)
    stages = {"dense": dense}
    if evaluator.rows[0].step == 0:
        stages["start"] = evaluator.rows[0].figures
    console.print(outcome_table(stages | {"pruned": final.figures}))
    if task.tokenizer is not None:
        task.tokenizer.save_pretrained(folder / PRETRAINED)
    curve = Curve("iCBS", evaluator.rows, result.history, result.initial_loss, by_pass)
    draw([curve], {"dense": dense}, folder / "figure.png")
    console.print(Text(density_in_words(result.summary())), highlight=False)
    failures = sum(bool(row.failure) for row in result.history)
    summary = (
        f"{counted(result.passes, 'pass')}, {counted(len(result.history), 'block')}, "
        f"{result.accepted:.0%} kept, {duration(result.seconds)}"
        + (f", {counted(failures, 'solver failure')}" if failures else "")
        + "; results in "
    )
    console.print(Text.assemble(summary, (str(folder), "bold")), highlight=False, soft_wrap=True)
    saved = list((folder / BLOCKS).glob("block-*.npz"))
    if saved:
        size = byte_size(sum(path.stat().st_size for path in saved))
        line = f"{counted(len(saved), 'block problem')} saved ({size}), see icbs blocks {folder}"
        console.print(Text(line), highlight=False, soft_wrap=True)
    if proof := result.proof:
        console.print(Text(str(proof)), highlight=False, soft_wrap=True)
    if (first := result.first_failure) is not None:
        where = f"pass {first.step}, layer {first.layer!r}"
        line = f"first solver failure, {where}: {first.failure}"
        console.print(Text(visible(line), "yellow"), highlight=False, soft_wrap=True)
