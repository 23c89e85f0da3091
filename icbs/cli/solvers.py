"""``icbs solvers``: every registered solver, or all about one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from solvers import Solver

#: Shown for each capability that a solver declares.
_HONOURS = {
    "time": "time_limit",
    "seed": "seed",
    "start": "initial_state",
    "reads": "num_reads",
    "callback": "callback",
    "batches": "batches",
}


@plain_errors
def solvers(
    name: Annotated[str | None, typer.Argument(help="A solver, for its options.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the solvers: what each can do and whether it can run here; or explain one."""
    from rich.table import Table
    from rich.text import Text

    import solvers as registry
    from icbs.report.screen import Screen

    if name is not None:
        registry.get(name)  # its error names the nearest
        found = describe(name)
        typer.echo(json.dumps(found)) if as_json else _explain(found)
        return
    every = [describe(each) for each in registry.names()]
    if as_json:
        typer.echo(json.dumps(every))
        return
    table = Table(
        title="Solvers",
        caption="'icbs solvers NAME' lists options; others join by the entry point icbs.solvers",
    )
    table.add_column("solver", no_wrap=True)
    table.add_column("what it does and honours")
    table.add_column("ready", overflow="fold")
    for solver in every:
        if "error" in solver:
            table.add_row(Text(solver["name"]), Text(solver["error"]), Text("broken", "red"))
            continue
        what = Text(solver["summary"]).append("\n" + _abilities(solver["capabilities"]), "dim")
        table.add_row(Text(solver["name"]), what, Text(_ready(solver)))
        table.add_section()
    Screen().print(table)


def describe(name: str) -> dict[str, Any]:
    """Return what a registered solver says of itself, or why it can't."""
    import solvers as registry
    from solvers.errors import wrap_errors

    try:
        with wrap_errors(name, "can't describe itself"):
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
                    for field in registry.Capabilities.__dataclass_fields__
                },
            }
    except registry.SolverError as error:
        return {"name": name, "available": False, "error": str(error)}


def _setup(solver: type[Solver]) -> str | None:
    """Say what is to be set up before it can run, if anything is."""
    from solvers import SolverError
    from solvers.errors import wrap_errors

    try:
        usual = solver()
    except Exception:  # it has no defaults
        return None
    try:
        with wrap_errors(solver.name, "is not ready"):
            usual.check_ready()
    except SolverError as error:
        return str(error)
    if solver.capabilities.hardware == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "no CUDA device here: it runs on the CPU, slowly"
    return None


def _explain(solver: dict[str, Any]) -> None:
    """Print all about one solver."""
    from rich.padding import Padding
    from rich.text import Text

    from icbs.report.screen import Screen
    from solvers import get

    console = Screen()
    if "error" in solver:
        console.print(Text(f"{solver['name']}: {solver['error']}", "red"))
        raise typer.Exit(2)
    console.print(Text(f"{solver['name']}: {solver['summary']}", "bold"))
    console.print(Text(_abilities(solver["capabilities"])))
    console.print(Text(f"ready: {_ready(solver)}"))
    if not solver["options"]:
        console.print(Text("it has no options"))
        return
    meanings: dict[str, str] = {}
    for parent in reversed(get(solver["name"]).__mro__):  # options may be inherited
        meanings |= _parameters(parent.__doc__ or "")
    console.print(Text("\noptions"))
    for option, default in solver["options"].items():
        console.print(Text(f"  {option}", "cyan").append(f" = {_written(default)}", "default"))
        if meaning := meanings.get(option):
            console.print(Padding(Text(meaning), (0, 0, 0, 6)))
    console.print(
        Text(
            f"\nset them: icbs solve FILE --solver {solver['name']} --option NAME=VALUE, or "
            "icbs prune --set 'solver_options={NAME: VALUE}'",
            "dim",
        )
    )


def _parameters(doc: str) -> dict[str, str]:
    """Read the descriptions of the section Parameters of a numpydoc docstring."""
    import inspect
    import re

    from icbs.config.listing import paragraphs

    found: dict[str, str] = {}
    _, _, body = inspect.cleandoc(doc).partition("Parameters\n----------\n")
    body = re.split(r"\n\w[\w ]*\n-+\n", body)[0]
    for entry in re.split(r"\n(?=\S)", body):
        head, *lines = entry.split("\n")
        for name in head.partition(" :")[0].split(", "):
            found[name.strip()] = paragraphs("\n".join(lines))
    return found


def _ready(solver: dict[str, Any]) -> str:
    return solver["install"] or solver["setup"] or "yes"


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


def _written(value: Any) -> str:
    return (
        "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )
