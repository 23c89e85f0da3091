"""What ``prune``, ``resume`` and ``demo`` share: opening a task, showing a run, closing it."""

from __future__ import annotations

import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from icbs.cli.live import Live
from icbs.cli.output_folders import rescued_masks
from icbs.cli.user_code import look_here
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
from icbs.zoo import Task, load_task
from problems import IcbsError


def task_notes(run: Path) -> TaskNotes:
    """Read which task a run folder is of.

    Raises
    ------
    ConfigError
        If it was not begun by ``icbs prune``.
    RunFolderError
        If there is no run, or its manifest is damaged.
    """
    about = RunFolder(run).about()
    if "task" not in about:
        raise ConfigError(f"{run} was not begun by 'icbs prune'; resume it with icbs.Pruner.resume")
    try:
        return TaskNotes.of(about)
    except ValueError as error:
        raise RunFolderError(f"the notes in the manifest of {run} are damaged: {error}") from error


def open_task(console: Console, name: str, options: dict[str, Any]) -> Task:
    """Load a task, with a word to whoever waits; what it is loaded from is told first.

    A ``module:function`` is looked for in the current directory too. What goes wrong inside
    it keeps its traceback, from the first line that is not ours on.
    """
    said = ", ".join(f"{option} = {brief(value)}" for option, value in options.items())
    if said:
        console.print(Text(f"task {name}: {said}"), highlight=False)
    look_here(name)
    try:
        with console.status(
            Text(visible(f"loading task {name} (a first time may train its model)"))
        ):
            task = load_task(name, **options)
    except (IcbsError, OSError):
        raise
    except Exception as error:
        own = _foreign(error.__traceback__)
        text = "".join(traceback.format_exception(type(error), error, own))
        Screen(stderr=True, soft_wrap=True).print(Text(visible(text)), highlight=False, end="")
        raise typer.Exit(1) from error
    if task.about:
        console.print(Text(task.about), highlight=False)
    return task


def _foreign(trace: TracebackType | None) -> TracebackType | None:
    """Drop the frames above the first one outside this package and importlib."""
    own = str(Path(__file__).parents[1])
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith((own, "<frozen importlib")) or "importlib" in Path(file).parts):
            break
        trace = trace.tb_next
    return trace


def prune_live(
    console: Console,
    title: str,
    evaluator: Evaluator,
    folder: Path,
    task: str,
    work: Callable[[Callable[[Progress], object]], Result],
) -> Result:
    """Run ``work(callback)`` under a progress bar; an interruption says how to go on.

    Raises
    ------
    typer.Exit
        With status 130, as of any program that Ctrl-C ends.
    """
    try:
        watched = Live(console, title, evaluator)
        with plain_warnings(console), rescued_masks(folder.name), watched as show:
            return work(show)
    except KeyboardInterrupt:
        if (folder / CONFIG).exists():
            found = RunFolder(folder)
            command = resume_command(folder, task, found.config().solver)
            done = counted(found.facts().passes, "pass")
            said = f"interrupted; {command} goes on after {done}"
        else:
            said = "interrupted before the run began; the same command begins it again"
        console.print(Text(said), highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None


def close(
    console: Console,
    task: Task,
    evaluator: Evaluator,
    result: Result,
    folder: Path,
    dense: dict[str, float],
    *,
    by_pass: bool,
) -> None:
    """Evaluate the final masks, draw the figure and print what came out."""
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
    told = (
        f"{counted(result.passes, 'pass')}, {counted(len(result.history), 'block')}, "
        f"{result.accepted:.0%} kept, {duration(result.seconds)}"
        + (f", {counted(failures, 'block')} without an answer" if failures else "")
        + "; results in "
    )
    console.print(Text.assemble(told, (str(folder), "bold")), highlight=False, soft_wrap=True)
    saved = list((folder / BLOCKS).glob("block-*.npz"))
    if saved:
        size = byte_size(sum(path.stat().st_size for path in saved))
        line = f"{counted(len(saved), 'block problem')} saved ({size}); icbs blocks {folder}"
        console.print(Text(f"{line} lists them"), highlight=False, soft_wrap=True)
    if (first := result.first_failure) is not None:
        where = f"pass {first.step}, layer {first.layer!r}"
        line = f"the first solver failure, {where}: {first.failure}"
        console.print(Text(visible(line), "yellow"), highlight=False, soft_wrap=True)


@contextmanager
def plain_warnings(console: Console, level: int = logging.INFO) -> Iterator[None]:
    """Show warnings, and what the pruner notes at a level or above, as one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        console.print(Text.assemble((f"{category.__name__}:", "yellow"), f" {message}"))

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(Text(record.getMessage()), style="dim", highlight=False)

    log, notes = logging.getLogger("icbs"), Notes()
    before = log.level
    log.setLevel(level)
    log.addHandler(notes)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(notes)
        log.setLevel(before)
