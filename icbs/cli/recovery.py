"""Common parts of ``icbs recover`` and ``icbs prune --recover``."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text
from torch import Tensor, nn

from icbs.cli.compress import read_model_state
from icbs.cli.console import plain_warnings
from icbs.export.pretrained import PRETRAINED
from icbs.formatting import duration
from icbs.plugins import RECOVERIES
from icbs.recovery import FOLDER
from icbs.recovery.config import AUTO, RecoveryConfig
from icbs.recovery.folder import SUMMARY, RecoveryFolder
from icbs.recovery.progress import line
from icbs.recovery.recover import make_method, recover, recovery_settings
from icbs.recovery.result import OTHER_SAMPLES, RecoveryProgress, RecoveryResult
from icbs.report.evaluations import Evaluator
from icbs.report.overview import resume_command
from icbs.report.tables import outcome_table
from icbs.run.run_folder import RunFolder
from icbs.zoo import Task

_LINE_INTERVAL = 10.0
"""Seconds between two lines if the console is not a terminal."""


def recovery_config(settings: Mapping[str, Any]) -> RecoveryConfig:
    """Build a configuration from settings by name, of the recovery or of its method.

    Raises
    ------
    ConfigError
        For an unknown setting or method, or a value out of range.
    """
    return recovery_settings(None, None, dict(settings))


def check_method(config: RecoveryConfig) -> None:
    """Refuse unknown settings of the method before a model is loaded.

    Raises
    ------
    ConfigError
    """
    if config.method != AUTO:
        make_method(RECOVERIES.check(config.method), config.options)


def pruned_copy(dense: nn.Module, run: Path) -> nn.Module:
    """Return a copy of the dense model with the weights of a finished run.

    Raises
    ------
    RunFolderError
        If the run is not finished, or its model is damaged.
    """
    state = read_model_state(run)
    pruned = copy.deepcopy(dense)
    pruned.load_state_dict(state, strict=False)
    return pruned


def recover_live(
    console: Console,
    task: Task,
    pruned: nn.Module,
    masks: Mapping[str, Tensor],
    folder: Path,
    config: RecoveryConfig,
    dense_figures: Mapping[str, float],
    again: str = "the same command",
    *,
    of_run: bool = True,
) -> RecoveryResult:
    """Recover with live progress, evaluate on test samples, and print the results.

    Parameters
    ----------
    console : Console
    task : Task
        With the dense model.
    pruned : nn.Module
        The pruned model, which is changed.
    masks : mapping of str to Tensor
    folder : Path
        Folder of the recovery.
    config : RecoveryConfig
    dense_figures : mapping
        Test figures of the dense model.
    again : str
        Command that continues an interrupted recovery.
    of_run : bool, default True
        Whether the model is that of a run, whose held-out loss is of other samples.

    Raises
    ------
    typer.Exit
        With status 130 after an interruption (Ctrl-C).
    """
    if (folder / SUMMARY).exists():
        console.print(f"{folder} has a finished recovery; these are its results", highlight=False)
    evaluator = Evaluator(task.evaluate, 1)
    before = evaluator.add(0, 0.0, pruned)
    try:
        with plain_warnings(console), _Live(console) as show:
            result = recover(
                pruned,
                masks,
                task.batches,
                task.loss,
                dense=task.model,
                config=config,
                run=folder,
                callback=show,
                progress=False,
                about={"task": task.name},
            )
    except KeyboardInterrupt:
        said = Text(f"interrupted; {again} continues the recovery")
        console.print(said, highlight=False, soft_wrap=True)
        raise typer.Exit(130) from None
    evaluator.folder = folder
    after = evaluator.add(max(1, len(result.history)), result.seconds, pruned)
    stages = {"dense": dense_figures, "pruned": before.figures, "recovered": after.figures}
    console.print(outcome_table(stages))
    if task.tokenizer is not None:
        task.tokenizer.save_pretrained(folder / PRETRAINED)
    for text in (*str(result).splitlines(), *([OTHER_SAMPLES] if of_run else [])):
        console.print(Text(text), highlight=False, soft_wrap=True)
    kept = sum(int(mask.sum()) for mask in result.masks.values())
    summary = (
        f"{kept:,} weights kept (density {result.density:.4f}), "
        f"{duration(result.seconds)}; recovered model in "
    )
    console.print(Text.assemble(summary, (str(folder), "bold")), highlight=False, soft_wrap=True)
    return result


def recover_after(
    console: Console,
    task: Task,
    dense: nn.Module,
    masks: Mapping[str, Tensor],
    run: Path,
    config: RecoveryConfig,
    dense_figures: Mapping[str, float],
) -> RecoveryResult:
    """Recover the model of a task that was just pruned.

    Parameters
    ----------
    task : Task
        Its model is pruned by ``masks``.
    dense : nn.Module
        A copy of the model before pruning.
    run : Path
        Folder of the run. A recovery of earlier masks in it is replaced.
    console, masks, config, dense_figures
        As for :func:`recover_live`.
    """
    folder = run / FOLDER
    if RecoveryFolder.has_other_masks(folder, masks):
        shutil.rmtree(folder)  # the run has been continued since
    pruned, whole = task.model, replace(task, model=dense)
    again = resume_command(run, task.name, RunFolder(run).config().solver)
    return recover_live(console, whole, pruned, masks, folder, config, dense_figures, again)


class _Live:
    """Progress bar of a recovery; lines if the console is not a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.last_printed = float("-inf")
        self.pending: str | None = None
        self.bar = Progress(
            TextColumn("[bold]recovery"),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[figures]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("recovery", total=None, figures="")

    def __enter__(self) -> Any:
        self.bar.start()
        return self.show

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.pending is not None:
            self._print(self.pending)

    def show(self, progress: RecoveryProgress) -> None:
        text = line(progress)
        self.bar.update(self.task, total=progress.total, completed=progress.done, figures=text)
        if not self.console.is_terminal:
            self.pending = text
            if time.monotonic() - self.last_printed > _LINE_INTERVAL:
                self._print(text)

    def _print(self, text: str) -> None:
        self.last_printed, self.pending = time.monotonic(), None
        self.console.print(Text(text), soft_wrap=True)
