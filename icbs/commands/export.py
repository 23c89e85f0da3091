"""``icbs export``: a problem from one file format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.commands.errors import plain_errors
from icbs.commands.solve import FORMATS, Cardinality, Format, MaxN, Problem


@plain_errors
def export(
    file: Problem,
    output: Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")],
    format: Format = None,
    to: Annotated[
        str | None,
        typer.Option(
            help=f"One of {', '.join(FORMATS)}.", show_default="inferred from the file extension"
        ),
    ] = None,
    k: Cardinality = None,
    max_n: MaxN = None,
) -> None:
    """Convert a problem between npz, coordinate texts, LP, MPS and QPLIB."""
    from icbs.records.screen import Screen
    from problems.formats import read, write

    problem = read(file, format, k=k, max_n=max_n)
    write(problem, output, to)
    Screen(soft_wrap=True).print(f"{problem} written to {output}", highlight=False)
