"""``icbs solve`` and ``icbs solvers``: any problem file, any registered solver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors

Problem = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Problem; see 'icbs export'.")
]
FORMATS = ("npz", "ubqp", "mqlib", "qubo", "coo", "lp", "mps", "qplib", "bqm", "cqm", "json")
"""Keys of :data:`problems.formats.FORMATS`, which takes longer to import than to print."""
Format = Annotated[
    str | None,
    typer.Option(
        help=f"One of {', '.join(FORMATS)}.", show_default="inferred from the file extension"
    ),
]
Cardinality = Annotated[
    int | None, typer.Option("--k", help="Number of ones, for files that hold none.")
]
Free = Annotated[
    bool, typer.Option("--free", help="Any number may be 1: a QUBO without a cardinality.")
]
MaxN = Annotated[
    int | None, typer.Option(help="Read up to so many variables from a file small for them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@plain_errors
def solve(
    file: Problem,
    solver: Annotated[
        str, typer.Option(help="A name of 'icbs solvers', or module:Class of your own.")
    ] = "anneal",
    time_limit: Annotated[float | None, typer.Option(help="Wall seconds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    num_reads: Annotated[int, typer.Option(help="Independent starts.")] = 1,
    initial_state: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Start: a saved solution (.npz, .json) or an .npy.",
            show_default="the file's own, if it has one",
        ),
    ] = None,
    ignore_start: Annotated[
        bool, typer.Option("--ignore-start", help="Leave out the start that the file holds.")
    ] = False,
    option: Annotated[
        list[str], typer.Option(help="An option of the solver, as name=value (YAML); repeatable.")
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None,
        typer.Option(
            help="Save the solution: .npz (all samples), .json, or .txt (a line 'name value' for "
            "each variable)."
        ),
    ] = None,
    format: Format = None,
    k: Cardinality = None,
    free: Free = False,
    max_n: MaxN = None,
    as_json: AsJson = False,
) -> None:
    """Solve a problem file with any solver; print x where it is short, by name if it has names."""
    import solvers as registry
    from icbs.cli.config_file import parse_assignments
    from icbs.cli.solution_io import (
        check_output,
        halved,
        read_state,
        table,
        whole,
        write_solution,
    )
    from icbs.cli.user_code import look_here
    from icbs.report.screen import Screen
    from problems import npz
    from problems.formats import format_name, read
    from problems.free import add_partners, original_problem

    if output is not None:
        check_output(output)
    look_here(solver)
    options = parse_assignments(option)
    problem = read(file, format, k=k, max_n=max_n, free=free)
    chosen = registry.create(solver, **options)
    start = None if initial_state is None else read_state(initial_state)
    if free and start is not None:
        start = add_partners(original_problem(problem).as_states(start))
    own = start is None and not ignore_start and format_name(file, format) == "npz"
    if own and chosen.capabilities.initial_state:
        start = npz.read_known(file)["start"]
    solution = registry.solve(
        problem,
        chosen,
        time_limit=time_limit,
        seed=seed,
        num_reads=num_reads,
        initial_state=start,
    )
    start_energy = None if start is None else float(problem.energy(start))
    if free:  # in the file's own variables
        problem, solution = original_problem(problem), halved(solution)
    if output is not None:
        write_solution(solution, output, problem.labels)
    if as_json:
        said = whole(solution, problem.labels) | {"start_energy": start_energy}
        typer.echo(json.dumps(said))
    else:
        groups = f" in {problem.num_groups} groups" if problem.num_groups > 1 else ""
        size = f"n = {problem.n}, {'any k' if free else f'k = {problem.k}{groups}'}"
        title = f"{file.name} ({size}) by {solver}"
        Screen().print(table(solution, title, problem.labels, start_energy))
