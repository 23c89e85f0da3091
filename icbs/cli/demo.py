"""``icbs demo``: the main job on real data, against every initial mask, in one table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors
from icbs.cli.prune import Set


@plain_errors
def demo(
    solver: Annotated[
        str, typer.Option(help="Who solves the blocks; see 'icbs solvers'.")
    ] = "anneal",
    density: Annotated[float, typer.Option(help="Share of weights kept, between 0 and 1.")] = 0.1,
    passes: Annotated[int, typer.Option(help="Passes from each start, at most.")] = 60,
    time_limit: Annotated[float, typer.Option(help="Seconds from each start, at most.")] = 40.0,
    seed: Annotated[int, typer.Option(help="Seed of all randomness.")] = 0,
    task: Annotated[str, typer.Option(help="'garment', or module:function.")] = "garment",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to make for the results.", show_default="runs/demo-DATE-TIME"),
    ] = None,
    settings: Set = [],  # noqa: B006
) -> None:
    """Prune the garment classifier with iCBS and set it beside every initial mask."""
    from icbs.cli.config_file import in_groups, parse_assignments
    from icbs.cli.demo_run import demonstrate
    from icbs.cli.user_code import look_here

    look_here(solver)
    budget = {"passes": passes, "time_limit": time_limit}
    common = {"solver": solver, "density": density, "seed": seed}
    demonstrate(task, out, budget, common, in_groups(parse_assignments(settings)))
