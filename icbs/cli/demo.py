"""``icbs demo``: iCBS on real data, compared with all initial masks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.cli.options import Set


@plain_errors
def demo(
    solver: Annotated[
        str, typer.Option(help="Solver of the blocks; see 'icbs solvers'.")
    ] = "anneal",
    density: Annotated[float, typer.Option(help="Share of weights kept, between 0 and 1.")] = 0.1,
    passes: Annotated[int, typer.Option(help="Passes from each initial mask.")] = 60,
    time_limit: Annotated[float, typer.Option(help="Seconds from each initial mask.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    task: Annotated[str, typer.Option(help="'garment', or module:function.")] = "garment",
    out: Annotated[
        Path | None,
        typer.Option(help="New folder for the results.", show_default="runs/demo-DATE-TIME"),
    ] = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Prune the garment classifier with iCBS, and compare with all initial masks."""
    from icbs.cli.config_file import in_groups, parse_assignments
    from icbs.cli.demo_run import demonstrate
    from icbs.cli.user_code import allow_local_imports

    allow_local_imports(solver)
    budget = {"passes": passes, "time_limit": time_limit}
    common = {"solver": solver, "density": density, "seed": seed}
    demonstrate(task, out, budget, common, in_groups(parse_assignments(settings)))
