"""``icbs report``: the course and results of a run as text, figure and HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from icbs.report.folders import FolderReport

MAX_WIDTH = 400
"""Largest number of characters in a line of a table in a file or a pipe."""


@plain_errors
def report(
    run: Annotated[
        Path,
        typer.Argument(help="Folder of a run, a search or pruning in steps, finished or not."),
    ],
    layers: Annotated[
        bool, typer.Option("--layers", help="One row per layer, with its full name.")
    ] = False,
    html: Annotated[
        bool,
        typer.Option("--html", help="Also write report.html, the page of 'icbs watch' as a file."),
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="Figure to write, .png or .svg.", show_default="figure.png in RUN"),
    ] = None,
) -> None:
    """Show what matters of a run: losses, test figures, times, best and worst layers.

    Of a search it shows the curve and the answer, of pruning in steps each step.
    """
    from icbs.errors import ConfigError
    from icbs.report.figure import draw
    from icbs.report.folders import FolderReport
    from icbs.report.optimum import optimum_lines, optimum_table
    from icbs.report.overview import Overview
    from icbs.report.recovery_figure import draw_recovery
    from icbs.report.screen import Screen
    from icbs.report.tables import extremes, facts, layer_table, legend, outcome_table

    console = Screen()
    several = FolderReport.of(run)
    if several is not None:
        if layers or figure is not None:
            raise ConfigError(
                f"--layers and --figure are for a single run, and {run} is a folder of several; "
                "leave them out" + (f", or name {several.runs[-1]}" if several.runs else "")
            )
        if html and not several.runs:
            raise ConfigError(
                f"--html shows the passes of iCBS, and there are none in {run}; leave it out"
            )
        _report_several(console, several)
        if html:
            from icbs.dashboard import write_page

            page = write_page([run], run / "report.html")
            console.print(f"written: {page}", highlight=False, soft_wrap=True)
        return
    found = Overview.of(run)
    for line in facts(found):
        console.print(line, highlight=False, soft_wrap=True)
    if found.stages:
        console.print(outcome_table(found.stages))
    if found.optimum is not None:
        console.print(optimum_table(found.optimum))
        for line in optimum_lines(found.optimum):
            console.print(line, highlight=False, soft_wrap=True)
    table = layer_table(found, every=layers)
    if table is not None:
        _print_table(console, table)
        for line in extremes(found):
            console.print(line, highlight=False, soft_wrap=True)
        if layers:
            console.print(legend(found), style="dim", highlight=False, soft_wrap=True)
    target = figure or run / "figure.png"
    draw([found.curve], {"dense": found.dense} if found.dense else {}, target)
    written = [target]
    if found.steps:
        written.append(target.with_stem(f"{target.stem}_recovery"))
        draw_recovery(found.steps, written[-1], dense_loss=found.dense_loss)
    if html:
        from icbs.dashboard import write_page

        written.append(write_page([run], run / "report.html"))
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


def _report_several(console: Console, found: FolderReport) -> None:
    """Print the lines and the table of a folder of several runs."""
    from icbs.report.screen import plain, plain_table

    if found.rows:
        table = plain_table()
        names = list(dict.fromkeys(name for row in found.rows for name in row))
        for name in names:
            table.add_column(plain(name), justify="right")
        for row in found.rows:
            table.add_row(*(plain(row.get(name, "")) for name in names))
        _print_table(console, table)
    for line in found.lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _print_table(console: Console, table: Table) -> None:
    """Print a table; a file or a pipe has no width, so names need not be folded there."""
    if not console.is_terminal:
        wide = console.options.update(max_width=MAX_WIDTH)
        console.width = max(console.width, console.measure(table, options=wide).maximum)
    console.print(table)
