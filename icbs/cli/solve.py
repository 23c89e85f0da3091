"""``icbs solve``: solution of a problem file by any solver."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from icbs.cli.console import plain_errors, plain_warnings

FORMATS = (
    *("npz", "ubqp", "mqlib", "qubo", "coo", "lp", "mps", "qplib", "bqm", "cqm", "json", "ommx"),
)
"""Keys of :data:`problems.formats.FORMATS`, which is slow to import."""
Problem = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Problem file in a format of --format.")
]
Format = Annotated[
    str | None,
    typer.Option(
        help=f"Format of FILE: {', '.join(FORMATS)}.",
        show_default="inferred from the file extension",
    ),
]
Cardinality = Annotated[
    int | None, typer.Option("--k", help="Cardinality, for formats without one.")
]
Free = Annotated[bool, typer.Option("--free", help="Read FILE as a QUBO without a cardinality.")]
MaxN = Annotated[
    int | None,
    typer.Option(help="Accept up to N variables even if FILE is small for so many.", metavar="N"),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@plain_errors
def solve(
    file: Problem,
    solver: Annotated[
        str, typer.Option(help="A name of 'icbs solvers', or your own module:Class.")
    ] = "anneal",
    time_limit: Annotated[float | None, typer.Option(help="Time limit in seconds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random choices.")] = None,
    num_reads: Annotated[int, typer.Option(help="Number of independent starts.")] = 1,
    initial_state: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Initial state: a saved solution (.npz, .json) or an array (.npy).",
            show_default="the start in the file, if any",
        ),
    ] = None,
    ignore_start: Annotated[
        bool, typer.Option("--ignore-start", help="Ignore the start in the file.")
    ] = False,
    option: Annotated[
        list[str],
        typer.Option(
            help="Option of the solver (see 'icbs solvers NAME'); repeatable.", metavar="NAME=VALUE"
        ),
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None,
        typer.Option(
            help="File for the solution: .npz (all samples), .json, or .txt (a line 'name value' "
            "per variable)."
        ),
    ] = None,
    format: Format = None,
    k: Cardinality = None,
    free: Free = False,
    max_n: MaxN = None,
    as_json: AsJson = False,
) -> None:
    """Solve a problem file with any solver, and print or save the solution."""
    import solvers as registry
    from icbs.cli.config_file import parse_assignments
    from icbs.cli.solution_io import (
        check_output,
        read_initial_state,
        record_with_state,
        table,
        without_partners,
        write_solution,
    )
    from icbs.cli.user_code import allow_local_imports
    from icbs.report.screen import Screen
    from problems import BudgetQUBO, CardinalityQUBO, npz
    from problems.formats import format_name, read
    from problems.free import add_partners, original_problem

    if output is not None:
        check_output(output)
    allow_local_imports(solver)
    options = parse_assignments(option)
    with plain_warnings(Screen(stderr=True, soft_wrap=True), logging.WARNING):
        problem = read(file, format, k=k, max_n=max_n, free=free)
        start = None if initial_state is None else read_initial_state(initial_state)
        whole = problem if isinstance(problem, CardinalityQUBO) else None  # without a budget
        if free and whole is not None and start is not None:
            start = add_partners(original_problem(whole).as_states(start))
        chosen = registry.create(solver, **options)
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
    if free and whole is not None:  # in the variables of the file
        problem, solution = original_problem(whole), without_partners(solution)
    if output is not None:
        write_solution(solution, output, problem.labels)
    if as_json:
        found = record_with_state(solution, problem.labels) | {"start_energy": start_energy}
        typer.echo(json.dumps(found))
    else:
        groups = f" in {problem.num_groups} groups" if problem.num_groups > 1 else ""
        if isinstance(problem, BudgetQUBO):
            limit = f"saving ≥ {problem.budget:g}"
        else:
            limit = "any k" if free else f"k = {problem.k}"
        size = f"n = {problem.n}, {limit}{'' if free else groups}"
        title = f"{file.name} ({size}) by {solver}"
        Screen().print(table(solution, title, problem.labels, start_energy))
