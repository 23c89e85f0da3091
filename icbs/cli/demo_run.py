"""The comparison of ``icbs demo``: iCBS from two initial masks, and all initial masks."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from icbs.cli.console import plain_warnings
from icbs.cli.live import Live
from icbs.cli.output_folders import new_folder, rescued_masks
from icbs.cli.session import open_task
from icbs.config import PrunerConfig
from icbs.errors import ConfigError
from icbs.formatting import metrics, spell
from icbs.pruner import Pruner
from icbs.report.evaluations import Evaluator
from icbs.report.figure import Curve, draw
from icbs.report.screen import Screen, plain_table
from icbs.run.result import Result
from icbs.run.run_folder import RunFolder
from icbs.zoo import Task
from problems.files import write_text
from solvers import get

INITIAL_MASKS = ("random", "magnitude", "gradient", "wanda")
STARTS = ("magnitude", "wanda")

#: Settings with which slower solvers take about a second per block.
SMALLER: dict[str, dict[str, Any]] = {
    "cpsat": {"block_size": 64, "solver_time_limit": 1.0},
    "exact": {"block_size": 64, "solver_time_limit": 1.0},
    "exhaustive": {"block_size": 20},
    "neal": {"block_size": 256, "solver_time_limit": 1.0},
    "qaoa": {
        "block_size": 14,
        "blocks_per_layer": 32,
        "curvature_weight": 1.0,
        "acceptance": "pass",
        "solver_options": {"optimizer": "ramp"},
    },
    "steepest": {"block_size": 256},
    "tabu": {"block_size": 256, "solver_time_limit": 0.2},
}


@dataclass
class Entry:
    """A row of the table."""

    name: str
    figures: dict[str, float]
    result: Result | None = None


def demonstrate(
    task: str,
    out: Path | None,
    budget: dict[str, Any],
    common: dict[str, Any],
    settings: dict[str, Any],
) -> None:
    """Prune a task's model from each start and print the table.

    Parameters
    ----------
    task : str
    out : Path, optional
        New folder for the results.
    budget : dict
        ``passes`` and ``time_limit`` of each run.
    common : dict
        ``solver``, ``density`` and ``seed``.
    settings : dict
        Further settings of the pruner.
    """
    console = Screen()
    if out is not None:
        for start in STARTS:
            RunFolder.reserve(out / start)
    chosen = SMALLER.get(_registered(common["solver"]), {}) | settings
    if "initial" in chosen:
        raise ConfigError(f"the demo starts from {' and '.join(STARTS)}; remove initial")
    common = common | chosen
    solver = common["solver"]
    with console.status(Text(f"loading solver {solver!r} (compiled at first use)")):
        pruners = {start: Pruner(**(budget | common | {"initial": start})) for start in STARTS}
    work = open_task(console, task, {})
    dense = {name: value.clone() for name, value in work.model.state_dict().items()}
    folder = out or new_folder(Path("runs"), "demo-")
    entries = [Entry("dense", work.evaluate(work.model))]
    with plain_warnings(console, logging.WARNING):
        for name in INITIAL_MASKS:
            entries.append(_initial_mask(work, dense, name, common))
        curves = []
        for start, pruner in pruners.items():
            entry, curve = _prune(console, work, dense, pruner, folder / start)
            entries.append(entry)
            curves.append(curve)
    references = {entry.name: entry.figures for entry in entries if entry.result is None}
    console.print(_table(entries, common["density"]))
    console.print(_regained(entries))
    draw(curves, references, folder / "figure.png")
    _write(entries, folder / "results.json", pruners[STARTS[0]].config)
    where = (str(folder), "bold")
    console.print(Text.assemble("masks, models, histories and figure.png are in ", where))


def _registered(solver: str) -> str:
    """Return a solver's current name; ``module:Class`` unchanged."""
    return solver if ":" in solver else get(solver).name


def _initial_mask(
    task: Task, dense: dict[str, Tensor], name: str, settings: dict[str, Any]
) -> Entry:
    """Evaluate an initial mask without any pass."""
    task.model.load_state_dict(dense)
    pruner = Pruner(**(settings | {"initial": name, "passes": 0, "save_blocks": None}))
    pruner.prune(task.model, task.batches, task.loss, progress=False)
    return Entry(name, task.evaluate(task.model))


def _prune(
    console: Console, task: Task, dense: dict[str, Tensor], pruner: Pruner, folder: Path
) -> tuple[Entry, Curve]:
    """Prune from one initial mask, with live progress and a run folder."""
    start = pruner.config.initial
    task.model.load_state_dict(dense)
    evaluator = Evaluator(task.evaluate, max(1, pruner.config.passes // 12))
    with (
        rescued_masks(f"{folder.parent.name}-{start}"),
        Live(console, f"from {start}", evaluator) as show,
    ):
        result = pruner.prune(
            task.model, task.batches, task.loss, run=folder, callback=show, progress=False
        )
    evaluator.folder = folder
    final = evaluator.add(result.passes, result.seconds, task.model)
    name = f"iCBS from {start}"
    return Entry(name, final.figures, result), Curve(
        name,
        evaluator.rows,
        result.history,
        result.initial_loss,
        pruner.config.acceptance == "pass",
    )


def _table(entries: list[Entry], density: float) -> Table:
    table = plain_table(
        f"Test figures at density {density}", "± one standard error over the test samples"
    )
    names = metrics(entries[0].figures)
    table.add_column("mask")
    for column in (*names, "seconds", "blocks", "kept"):
        table.add_column(column, justify="right", no_wrap=True)
    for entry in entries:
        figures = [spell(name, entry.figures) for name in names]
        run = ["", "", ""]
        if entry.result is not None:
            facts = entry.result.summary()
            run = [
                f"{facts['seconds']:.1f}",
                str(facts["blocks"]),
                f"{facts['accepted']:.0%}",
            ]
        table.add_row(entry.name, *figures, *run)
    return table


def _regained(entries: list[Entry]) -> str:
    """Describe which share of the accuracy lost by the magnitude mask iCBS recovers."""
    by_name = {entry.name: entry.figures for entry in entries}
    if "accuracy" not in by_name["dense"]:
        return ""
    dense, magnitude, icbs = (
        by_name[name]["accuracy"] for name in ("dense", "magnitude", "iCBS from magnitude")
    )
    if dense <= magnitude:
        return "magnitude pruning loses no accuracy at this density"
    share = (icbs - magnitude) / (dense - magnitude)
    return f"iCBS recovers {share:.0%} of the accuracy that magnitude pruning loses"


def _write(entries: list[Entry], path: Path, config: PrunerConfig) -> None:
    content = {
        "settings": config.model_dump(),
        "entries": [
            {
                "name": entry.name,
                **entry.figures,
                **(entry.result.summary() if entry.result is not None else {}),
            }
            for entry in entries
        ],
    }
    write_text(path, json.dumps(content, indent=2) + "\n")
