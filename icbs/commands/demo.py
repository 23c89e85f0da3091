"""``icbs demo``: the main job on real data, against every initial mask, in one table."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from icbs.commands.errors import plain_errors
from icbs.commands.prune import Set, open_task, plain_warnings
from icbs.config import PrunerConfig
from icbs.errors import ConfigError
from icbs.pruner import Pruner
from icbs.records.evaluations import Evaluator
from icbs.records.figure import Curve, draw
from icbs.records.live import Live
from icbs.records.settings import parse_assignments
from icbs.result import Result
from icbs.tasks import Task
from problems.files import write_text
from solvers import get

BASELINES = ("random", "magnitude", "gradient", "wanda")
STARTS = ("magnitude", "wanda")

#: Blocks that a slower backend answers in about a second.
SMALLER: dict[str, dict[str, Any]] = {
    "cpsat": {"block_size": 64, "solver_time_limit": 1.0},
    "exact": {"block_size": 64, "solver_time_limit": 1.0},
    "exhaustive": {"block_size": 20},
    "neal": {"block_size": 256, "solver_time_limit": 1.0},
    "qaoa": {"block_size": 12},
    "steepest": {"block_size": 256},
    "tabu": {"block_size": 256, "solver_time_limit": 0.2},
}


@dataclass
class Entry:
    """One line of the table."""

    name: str
    figures: dict[str, float]
    result: Result | None = None


@plain_errors
def demo(
    solver: Annotated[str, typer.Option(help="See 'icbs solvers'.")] = "anneal",
    density: Annotated[float, typer.Option(help="Share of weights kept.")] = 0.1,
    passes: Annotated[int, typer.Option(help="Passes from each start.")] = 60,
    time_limit: Annotated[float, typer.Option(help="Wall seconds from each start.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    task: Annotated[str, typer.Option(help="'garment', or module:function.")] = "garment",
    out: Annotated[Path | None, typer.Option(help="Folder to make for the results.")] = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Prune the garment classifier with iCBS and set it beside every initial mask."""
    console = Console()
    folder = out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    chosen = SMALLER.get(get(solver).name, {}) | parse_assignments(settings)
    if "initial" in chosen:
        raise ConfigError(f"the demo starts from {' and '.join(STARTS)}; leave initial out")
    common = {"solver": solver, "density": density, "seed": seed, **chosen}
    budget = {"passes": passes, "time_limit": time_limit}
    with console.status(f"loading solver {solver!r}; at first use it is compiled"):
        pruners = {start: Pruner(**(budget | common | {"initial": start})) for start in STARTS}
    work = open_task(console, task, {})
    dense = {name: value.clone() for name, value in work.model.state_dict().items()}
    entries = [Entry("dense", work.evaluate(work.model))]
    with plain_warnings(console, logging.WARNING):
        for name in BASELINES:
            entries.append(_baseline(work, dense, name, common))
        curves = []
        for start, pruner in pruners.items():
            entry, curve = _prune(console, work, dense, pruner, folder / start)
            entries.append(entry)
            curves.append(curve)
    baselines = {entry.name: entry.figures for entry in entries if entry.result is None}
    draw(curves, baselines, folder / "figure.png")
    _write(entries, folder / "results.json", pruners[STARTS[0]].config)
    console.print(_table(entries, density))
    console.print(_regained(entries))
    console.print(f"masks, models, histories and figure.png are in [bold]{folder}[/bold]")


def _baseline(task: Task, dense: dict[str, Tensor], name: str, settings: dict[str, Any]) -> Entry:
    """Set an initial mask and no more."""
    task.model.load_state_dict(dense)
    pruner = Pruner(**(settings | {"initial": name, "passes": 0}))
    pruner.prune(task.model, task.batches, task.loss)
    return Entry(name, task.evaluate(task.model))


def _prune(
    console: Console, task: Task, dense: dict[str, Tensor], pruner: Pruner, folder: Path
) -> tuple[Entry, Curve]:
    """Prune from one start, with live progress and a run folder."""
    start = pruner.config.initial
    task.model.load_state_dict(dense)
    evaluator = Evaluator(task.evaluate, max(1, pruner.config.passes // 12))
    with Live(console, f"from {start}", evaluator) as show:
        result = pruner.prune(task.model, task.batches, task.loss, run=folder, callback=show)
    evaluator.folder = folder
    final = evaluator.add(result.passes, result.seconds, task.model)
    name = f"iCBS from {start}"
    return Entry(name, final.figures, result), Curve(name, evaluator.rows, result.history)


def _table(entries: list[Entry], density: float) -> Table:
    table = Table(title=f"Test figures at density {density}")
    names = list(entries[0].figures)
    table.add_column("mask")
    for column in (*names, "density", "seconds", "blocks", "kept"):
        table.add_column(column, justify="right")
    for entry in entries:
        figures = [_format(name, entry.figures[name]) for name in names]
        run = ["", "", "", ""]
        if entry.result is not None:
            facts = entry.result.summary()
            run = [
                f"{facts['density']:.4f}",
                f"{facts['seconds']:.1f}",
                str(facts["blocks"]),
                f"{facts['accepted']:.0%}",
            ]
        table.add_row(entry.name, *figures, *run)
    return table


def _format(name: str, value: float) -> str:
    return f"{value:.2%}" if name == "accuracy" else f"{value:.4f}"


def _regained(entries: list[Entry]) -> str:
    """Share of the accuracy that the magnitude mask loses which iCBS wins back."""
    by_name = {entry.name: entry.figures for entry in entries}
    if "accuracy" not in by_name["dense"]:
        return ""
    dense, magnitude, icbs = (
        by_name[name]["accuracy"] for name in ("dense", "magnitude", "iCBS from magnitude")
    )
    if dense <= magnitude:
        return "magnitude pruning loses no accuracy at this density"
    share = (icbs - magnitude) / (dense - magnitude)
    return f"iCBS regains {share:.0%} of the accuracy that magnitude pruning loses"


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
    write_text(path, json.dumps(content, indent=2))
