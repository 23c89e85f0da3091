"""``icbs watch``: a local page that follows runs, or a comparison of solvers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors


@plain_errors
def watch(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN…",
            help="Folders of runs, of searches, or of pruning in steps; or that of a comparison.",
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(
            help="Port on 127.0.0.1; 0 for any free one.",
            min=0,
            max=65535,
            show_default="the first free one from 5006",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(help="Seconds between updates of the page.", min=0.2)
    ] = 2.0,
    parent: Annotated[
        int | None, typer.Option(help="Process with whose end the page ends too.", hidden=True)
    ] = None,
) -> None:
    """Show losses, moves, layers, times and memory of runs on a local page, while they go.

    Runs that a search starts later appear on it. 'icbs report RUN --html' writes the same page
    as a file. The page of a comparison of solvers ('icbs compare') has the runs done, the time
    left, and the present standing of the solvers.
    """
    from icbs.dashboard import serve
    from icbs.report.screen import Screen

    console = Screen()
    serve(
        runs,
        port=port,
        interval=interval,
        parent=parent,
        say=lambda line: console.print(line, highlight=False, soft_wrap=True),
    )
