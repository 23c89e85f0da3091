"""``icbs prune`` and ``icbs resume``: prune a task's model, with progress and a run folder."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from icbs.commands.errors import plain_errors
from icbs.errors import ConfigError
from icbs.layers.finding import find_layers
from icbs.pruner import Pruner
from icbs.records.evaluations import FILE, Evaluator, read_evaluations
from icbs.records.figure import Curve, draw
from icbs.records.live import Live
from icbs.records.runfolder import RunFolder
from icbs.records.settings import Settings, parse_assignments, read_yaml
from icbs.result import Result, density_in_words
from icbs.saving.folder import PRETRAINED
from icbs.tasks import BUILTIN, Task, load_task

LANGUAGE = "language_model"
DEFAULTS = Path(__file__).parents[1] / "tasks" / "language_model.yaml"
"""Settings for language models, where no file of settings is named."""

Set = Annotated[
    list[str], typer.Option("--set", help="Any setting of the pruner, as name=value (YAML).")
]


@plain_errors
def prune(
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(BUILTIN)}, or module:function of your own."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A causal language model: folder, .gguf file or hub name.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Its texts: file, folder, corpus or datasets:NAME.")
    ] = None,
    length: Annotated[int | None, typer.Option(help="Tokens in a window of text.")] = None,
    samples: Annotated[int | None, typer.Option(help="Windows of text for pruning.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of weights kept.")] = None,
    passes: Annotated[int | None, typer.Option(help="Forward and backward passes.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="Wall seconds.")] = None,
    solver: Annotated[str | None, typer.Option(help="See 'icbs solvers'.")] = None,
    block_size: Annotated[int | None, typer.Option(help="Weights in a block.")] = None,
    initial: Annotated[str | None, typer.Option(help="Score of the initial mask.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    run: Annotated[Path | None, typer.Option(help="Folder to make for the run.")] = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Prune a model with iCBS; leaves a run folder that 'icbs resume' can go on with."""
    about_text = {"model": model, "text": text, "length": length, "samples": samples}
    if any(value is not None for value in about_text.values()):
        if task not in (None, LANGUAGE):
            raise ConfigError(f"--model, --text, --length and --samples are not for task {task!r}")
        named = read_yaml(config).get("task", LANGUAGE) if config else LANGUAGE
        if named != LANGUAGE:
            raise ConfigError(
                f"--model, --text, --length and --samples are not for task {named!r} of {config}"
            )
        task = LANGUAGE
    if task == LANGUAGE:
        config = config or DEFAULTS
    flags = {
        "task": task,
        **{f"task_options.{name}": value for name, value in about_text.items()},
        "pruner.density": density,
        "pruner.passes": passes,
        "pruner.time_limit": time_limit,
        "pruner.solver": solver,
        "pruner.block_size": block_size,
        "pruner.initial": initial,
        "pruner.seed": seed,
        "run": run,
    }
    changes = {name: value for name, value in flags.items() if value is not None}
    changes |= {f"pruner.{name}": value for name, value in parse_assignments(settings).items()}
    chosen = Settings.read(config, changes)
    pruner = Pruner(chosen.pruner)
    folder = chosen.run or Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}"
    RunFolder.reserve(folder)
    console = Console()
    work = open_task(console, chosen.task, chosen.task_options)
    find_layers(work.model, chosen.pruner)  # what can't be pruned is refused before it is measured
    dense = work.evaluate(work.model)
    evaluator = Evaluator(work.evaluate, chosen.evaluate_every, folder)
    about = {
        "task": chosen.task,
        "task_options": chosen.task_options,
        "evaluate_every": chosen.evaluate_every,
        "dense": dense,
    }
    with plain_warnings(console), Live(console, "iCBS", evaluator) as show:
        result = pruner.prune(
            work.model, work.batches, work.loss, run=folder, callback=show, about=about
        )
    close(console, work, evaluator, result, folder, dense)


@plain_errors
def resume(
    run: Annotated[Path, typer.Argument(help="Folder of the run.")],
    passes: Annotated[int | None, typer.Option(help="A larger number of passes.")] = None,
    time_limit: Annotated[float | None, typer.Option(help="A longer time, in all.")] = None,
) -> None:
    """Go on with an interrupted run, from its last checkpoint."""
    folder = RunFolder(run)
    about = folder.about()
    try:
        name, options = about["task"], about["task_options"]
        every, dense = about["evaluate_every"], about["dense"]
    except KeyError:
        raise ConfigError(
            f"{run} was not begun by 'icbs prune'; resume it with icbs.Pruner.resume"
        ) from None
    changes: dict[str, Any] = {"passes": passes, "time_limit": time_limit}
    console = Console()
    work = open_task(console, name, options)
    evaluator = Evaluator(work.evaluate, every, run, read_evaluations(run / FILE))
    with plain_warnings(console), Live(console, "iCBS", evaluator) as show:
        result = Pruner.resume(
            run,
            work.model,
            work.batches,
            work.loss,
            callback=show,
            **{key: value for key, value in changes.items() if value is not None},
        )
    close(console, work, evaluator, result, run, dense)


def open_task(console: Console, name: str, options: dict[str, Any]) -> Task:
    """Load a task, with a word to whoever waits."""
    with console.status(f"loading task {name} (a first time trains or fetches its model)"):
        task = load_task(name, **options)
    if task.about:
        console.print(task.about, markup=False, highlight=False)
    return task


def close(
    console: Console,
    task: Task,
    evaluator: Evaluator,
    result: Result,
    folder: Path,
    dense: dict[str, float],
) -> None:
    """Evaluate the final masks, draw the figure and print what came out."""
    if task.tokenizer is not None:
        task.tokenizer.save_pretrained(folder / PRETRAINED)
    final = evaluator.add(result.passes, result.seconds, task.model)
    draw([Curve("iCBS", evaluator.rows, result.history)], {"dense": dense}, folder / "figure.png")
    table = Table(title=f"pruned to density {result.density:.4f}")
    for column in ("", *dense):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("dense", *(f"{value:.4f}" for value in dense.values()))
    table.add_row("pruned", *(f"{final.figures[name]:.4f}" for name in dense))
    console.print(table)
    facts = result.summary()
    console.print(density_in_words(facts), markup=False, highlight=False)
    console.print(
        f"{facts['passes']} passes, {facts['blocks']} blocks, {facts['accepted']:.0%} kept, "
        f"{facts['failures']} solver failures, {facts['seconds']:.1f} s; "
        f"results in [bold]{escape(str(folder))}[/bold]"
    )


@contextmanager
def plain_warnings(console: Console, level: int = logging.INFO) -> Iterator[None]:
    """Show warnings, and what the pruner notes at a level or above, as one line each."""

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        console.print(f"[yellow]{category.__name__}:[/yellow] {escape(str(message))}")

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(record.getMessage(), style="dim", markup=False, highlight=False)

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
