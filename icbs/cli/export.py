"""``icbs export``: conversion of problem files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.cli.solve import FORMATS, Cardinality, Format, Free, MaxN, Problem


@plain_errors
def export(
    file: Problem,
    output: Annotated[Path, typer.Argument(dir_okay=False, help="File to write.")],
    format: Format = None,
    to: Annotated[
        str | None,
        typer.Option(
            help=f"Format of OUTPUT: {', '.join(FORMATS)}.",
            show_default="inferred from the file extension",
        ),
    ] = None,
    k: Cardinality = None,
    free: Free = False,
    max_n: MaxN = None,
) -> None:
    """Convert a problem file to another format."""
    from icbs.report.screen import Screen
    from problems import BudgetQUBO, formats
    from problems.free import original_problem

    target = formats.format_name(output, to)
    problem = formats.read(file, format, k=k, max_n=max_n, free=free)
    formats.write(problem, output, target, free=free)
    what = str(problem)
    if isinstance(problem, BudgetQUBO):  # in a format that holds it
        Screen(soft_wrap=True).print(f"{what} written to {output}", highlight=False)
        return
    if free:
        what = f"QUBO of {original_problem(problem).n} variables without a cardinality"
    screen = Screen(soft_wrap=True)
    screen.print(f"{what} written to {output}", highlight=False)
    if not (free or formats.FORMATS[target].cardinality):
        several = problem.num_groups > 1
        how = "k and groups to problems.formats.read" if several else f"--k {problem.k}"
        screen.print(
            f"the format {target} has no cardinality; pass {how} when reading the file",
            highlight=False,
        )
