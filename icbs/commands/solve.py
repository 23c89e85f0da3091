"""``icbs solve`` and ``icbs solvers``: any problem file, any registered solver."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import solvers as registry
from icbs.commands.answers import check_output, read_state, record, table, write_solution
from icbs.commands.errors import plain_errors
from icbs.records.settings import parse_assignments
from problems.formats import FORMATS, read
from solvers import Capabilities, Solver, SolverError
from solvers.errors import blaming

Problem = Annotated[
    Path, typer.Argument(exists=True, dir_okay=False, help="Problem; see 'icbs export'.")
]
Format = Annotated[
    str | None, typer.Option(help=f"One of {', '.join(FORMATS)}; told by the ending if omitted.")
]
Cardinality = Annotated[
    int | None, typer.Option("--k", help="Number of ones, for files that hold none.")
]
MaxN = Annotated[
    int | None, typer.Option(help="Read up to so many variables from a file small for them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@plain_errors
def solve(
    file: Problem,
    solver: Annotated[str, typer.Option(help="See 'icbs solvers'.")] = "anneal",
    time_limit: Annotated[float | None, typer.Option(help="Wall seconds.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness.")] = None,
    num_reads: Annotated[int, typer.Option(help="Independent starts.")] = 1,
    initial_state: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Start: a saved solution (.npz, .json) or an .npy."
        ),
    ] = None,
    option: Annotated[
        list[str], typer.Option(help="An option of the solver, as name=value (YAML); repeatable.")
    ] = [],  # noqa: B006
    output: Annotated[
        Path | None, typer.Option(help="Save the solution: .npz (all samples) or .json.")
    ] = None,
    format: Format = None,
    k: Cardinality = None,
    max_n: MaxN = None,
    as_json: AsJson = False,
) -> None:
    """Solve a problem file with any solver."""
    if output is not None:
        check_output(output)
    options = parse_assignments(option)
    problem = read(file, format, k=k, max_n=max_n)
    solution = registry.solve(
        problem,
        registry.create(solver, **options),
        time_limit=time_limit,
        seed=seed,
        num_reads=num_reads,
        initial_state=None if initial_state is None else read_state(initial_state),
    )
    if output is not None:
        write_solution(solution, output)
    if as_json:
        x = None if solution.x is None else solution.x.tolist()
        typer.echo(json.dumps(record(solution) | {"x": x}))
    else:
        groups = f" in {problem.num_groups} groups" if problem.num_groups > 1 else ""
        title = f"{file.name} (n = {problem.n}, k = {problem.k}{groups}) by {solver}"
        Console().print(table(solution, title))


@plain_errors
def solvers(as_json: AsJson = False) -> None:
    """List every registered solver: what it can do, and what it still needs."""
    found = [_describe(name) for name in registry.names()]
    if as_json:
        typer.echo(json.dumps(found))
        return
    result = Table(title="Solvers", caption="others join by the entry-point group icbs.solvers")
    result.add_column("solver", no_wrap=True)
    result.add_column("what it does and honours")
    result.add_column("ready", overflow="fold")
    for solver in found:
        if "error" in solver:
            result.add_row(Text(solver["name"]), Text(solver["error"]), "[red]broken[/red]")
            continue
        what = Text(solver["summary"]).append("\n" + _abilities(solver["capabilities"]), "dim")
        ready = solver["install"] or solver["setup"] or "yes"
        result.add_row(Text(solver["name"]), what, Text(ready))
        result.add_section()
    Console().print(result)


#: Shown in the table for each capability that a solver declares.
_HONOURS = {
    "time": "time_limit",
    "seed": "seed",
    "start": "initial_state",
    "reads": "num_reads",
    "callback": "callback",
    "batches": "batches",
}


def _describe(name: str) -> dict[str, Any]:
    """Return what a registered solver says of itself, or why it can't."""
    try:
        with blaming(name, "can't describe itself"):
            solver = registry.get(name)
            missing = solver.missing()
            return {
                "name": name,
                "summary": solver.summary,
                "available": not missing,
                "install": f"pip install {' '.join(map(repr, missing))}" if missing else None,
                "setup": None if missing else _setup(solver),
                "options": {key: _plain(value) for key, value in solver.options().items()},
                "capabilities": {
                    field: getattr(solver.capabilities, field)
                    for field in Capabilities.__dataclass_fields__
                },
            }
    except SolverError as error:
        return {"name": name, "available": False, "error": str(error)}


def _setup(solver: type[Solver]) -> str | None:
    """Say what is to be set up before it can run, if anything is."""
    try:
        usual = solver()
    except Exception:  # it has no defaults
        return None
    try:
        with blaming(solver.name, "is not ready"):
            usual.check_ready()
    except SolverError as error:
        return str(error)
    return None


def _abilities(can: dict[str, Any]) -> str:
    """Say in one line what a solver can do."""
    kind = "exact" if can["exact"] else "heuristic"
    size = "any n" if can["max_n"] is None else f"n ≤ {can['max_n']}"
    keeps = "k kept" if can["native_cardinality"] else "k by penalty"
    words = [kind, size, f"{keeps}, groups too" if can["groups"] else keeps]
    honours = [what for what, name in _HONOURS.items() if can[name]]
    words.append(f"honours {', '.join(honours)}" if honours else "")
    if can["hardware"] is not None:
        words.append(f"runs on: {can['hardware']}")
    return "; ".join(filter(None, words))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)
