"""``icbs report``: the figures and the picture of a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from icbs.commands.errors import plain_errors
from icbs.errors import RunFolderError
from icbs.history import Row, read_history
from icbs.records.evaluations import FILE, read_evaluations
from icbs.records.figure import Curve, draw
from icbs.records.runfolder import RunFolder
from icbs.result import density_in_words


@plain_errors
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    figure: Annotated[
        Path | None, typer.Option(help="PNG to write; figure.png in the folder.")
    ] = None,
) -> None:
    """Print what a run did, layer by layer, and draw its figure."""
    folder = RunFolder(run)
    folder.config()
    rows = read_history(run / "history.csv")
    evaluations = read_evaluations(run / FILE)
    console = Console()
    console.print(layer_table(rows))
    try:
        words = density_in_words(folder.summary())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunFolderError(f"{run / 'summary.json'} is damaged: {error!r}") from error
    if words:
        console.print(words, markup=False, highlight=False)
    if evaluations:
        last = evaluations[-1]
        figures = ", ".join(f"{name} {value:.4f}" for name, value in last.figures.items())
        console.print(f"after {last.step} passes and {last.seconds:.1f} s: {figures}")
    dense = folder.about().get("dense", {})
    target = figure or run / "figure.png"
    draw([Curve(run.name, evaluations, rows)], {"dense": dense} if dense else {}, target)
    console.print(f"figure in {target}")


def layer_table(rows: list[Row]) -> Table:
    """Tabulate blocks, acceptance, predicted and actual change by layer."""
    table = Table(title="blocks by layer")
    for column in ("layer", "blocks", "kept", "moved", "predicted", "actual", "ms a solve"):
        table.add_column(column, justify="left" if column == "layer" else "right")
    for name in sorted({row.layer for row in rows}):
        own = [row for row in rows if row.layer == name]
        kept = [row for row in own if row.accepted]
        table.add_row(
            name,
            str(len(own)),
            f"{len(kept) / len(own):.0%}",
            f"{np.mean([row.moved for row in own]):.0f}",
            f"{sum(row.predicted for row in kept):.4f}",
            f"{sum(row.actual for row in kept):.4f}",
            f"{1000 * np.median([row.solver_seconds for row in own]):.1f}",
        )
    return table
