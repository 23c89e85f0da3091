"""``icbs report``: the course and results of a run as text, figure and HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors


@plain_errors
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    layers: Annotated[
        bool, typer.Option("--layers", help="One row per layer, with its full name.")
    ] = False,
    html: Annotated[
        bool, typer.Option("--html", help="Also write report.html, a self-contained page.")
    ] = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="Figure to write, .png or .svg.", show_default="figure.png in RUN"),
    ] = None,
) -> None:
    """Show losses, times and layers of a run, and draw its figure."""
    from icbs.report.figure import draw
    from icbs.report.optimum import optimum_lines, optimum_table
    from icbs.report.overview import Overview
    from icbs.report.page import write_page
    from icbs.report.recovery_figure import draw_recovery
    from icbs.report.screen import Screen
    from icbs.report.tables import (
        extremes,
        facts,
        layer_table,
        legend,
        outcome_table,
    )

    found = Overview.of(run)
    console = Screen()
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
        console.print(table)
        for line in [*extremes(found), legend(found)]:
            console.print(line, style="dim", highlight=False)
    target = figure or run / "figure.png"
    draw([found.curve], {"dense": found.dense} if found.dense else {}, target)
    written = [target]
    if found.steps:
        written.append(target.with_stem(f"{target.stem}_recovery"))
        draw_recovery(found.steps, written[-1], dense_loss=found.dense_loss)
    if html:
        write_page(found, run / "report.html")
        written.append(run / "report.html")
    console.print(f"written: {', '.join(map(str, written))}", highlight=False, soft_wrap=True)
