"""``icbs solvers``: the registered solvers, or the options of one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors

if TYPE_CHECKING:
    from solvers import Solver

#: Words for the capabilities that a solver honours.
_HONOURS = {
    "time": "time_limit",
    "seed": "seed",
    "start": "initial_state",
    "reads": "num_reads",
    "callback": "callback",
    "batches": "batches",
}
REQUIRED = "(required)"
"""Default of an option without one."""


@plain_errors
def solvers(
    name: Annotated[
        str | None, typer.Argument(help="Solver to describe, also as module:Class.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the solvers with their capabilities, or describe one with its options."""
    from rich.text import Text

    import solvers as registry
    from icbs.cli.user_code import allow_local_imports
    from icbs.report.screen import Screen, plain_table

    if name is not None:
        allow_local_imports(name)
        solver = _find(name)
        found = describe(name, solver)
        typer.echo(json.dumps(found)) if as_json else _explain(found, solver)
        return
    every = [describe(each) for each in registry.names()]
    if as_json:
        typer.echo(json.dumps(every))
        return
    table = plain_table(
        title="Solvers",
        caption="'icbs solvers NAME' lists options; the entry points icbs.solvers add more",
    )
    table.add_column("solver", no_wrap=True)
    table.add_column("summary and capabilities")
    table.add_column("ready", overflow="fold")
    for row in every:
        if "error" in row:
            table.add_row(Text(row["name"]), Text(row["error"]), Text("broken", "red"))
            continue
        what = Text(row["summary"]).append("\n" + _abilities(row["capabilities"]), "dim")
        table.add_row(Text(row["name"]), what, Text(_ready(row)))
        table.add_section()
    Screen().print(table)


def _find(name: str) -> type[Solver] | Solver:
    """Return the class of a registered name, or an instance for ``module:Class``."""
    import solvers as registry

    return registry.create(name) if ":" in name else registry.get(name)


def describe(name: str, solver: type[Solver] | Solver | None = None) -> dict[str, Any]:
    """Return the description of a solver, or the error of a broken one.

    Parameters
    ----------
    name : str
    solver : Solver or its class, optional
        By default the class registered under the name.
    """
    import solvers as registry
    from solvers.errors import wrap_errors

    try:
        with wrap_errors(name, "can't describe itself"):
            found = registry.get(name) if solver is None else solver
            missing = found.missing()
            return {
                "name": name,
                "summary": found.summary,
                "available": not missing,
                "install": f"pip install {' '.join(map(repr, missing))}" if missing else None,
                "setup": None if missing else _setup(found),
                "options": {key: _plain(value) for key, value in _options(found).items()},
                "capabilities": {
                    field: getattr(found.capabilities, field)
                    for field in registry.Capabilities.__dataclass_fields__
                },
            }
    except registry.SolverError as error:
        return {"name": name, "available": False, "error": str(error)}


def _options(solver: type[Solver] | Solver) -> dict[str, Any]:
    """Return a solver's options with their defaults; of an instance, with its values."""
    import dataclasses

    found = {}
    for field in dataclasses.fields(solver):
        if not field.init:
            continue
        if not isinstance(solver, type):
            found[field.name] = getattr(solver, field.name)
        elif field.default is not dataclasses.MISSING:
            found[field.name] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            found[field.name] = field.default_factory()
        else:
            found[field.name] = REQUIRED
    return found


def _setup(solver: type[Solver] | Solver) -> str | None:
    """Return what must be set up before the solver can run; None if it is ready."""
    from solvers import SolverError
    from solvers.errors import wrap_errors

    try:
        instance = solver() if isinstance(solver, type) else solver
    except Exception:  # an option is required
        return None
    try:
        with wrap_errors(solver.name, "is not ready"):
            instance.check_ready()
    except SolverError as error:
        return str(error)
    if solver.name == "anneal-gpu":
        from solvers.gpu.device import find_device

        device = find_device()
        if isinstance(device, str):
            return f"{device}; the CPU solver 'anneal' is used instead"
    return None


def _explain(found: dict[str, Any], solver: type[Solver] | Solver) -> None:
    """Print the description of one solver."""
    from rich.padding import Padding
    from rich.text import Text

    from icbs.report.screen import Screen

    console = Screen()
    if "error" in found:
        console.print(Text(f"{found['name']}: {found['error']}", "red"))
        raise typer.Exit(2)
    console.print(Text(f"{found['name']}: {found['summary']}", "bold"))
    console.print(Text(_abilities(found["capabilities"])))
    console.print(Text(f"ready: {_ready(found)}"))
    if not found["options"]:
        console.print(Text("no options"))
        return
    documented: dict[str, tuple[str, str]] = {}
    kind = solver if isinstance(solver, type) else type(solver)
    for parent in reversed(kind.__mro__):  # options may be inherited
        documented |= _parameters(parent.__doc__ or "")
    console.print(Text("\noptions"))
    for option, default in found["options"].items():
        values, meaning = documented.get(option, ("", ""))
        head = Text(f"  {option}", "cyan").append(f" = {_yaml(default)}", "default")
        console.print(head.append(f"  ({values})" if values else "", "dim"))
        if meaning:
            console.print(Padding(Text(meaning), (0, 0, 0, 6)))
    console.print(
        Text(
            f"\nset options: icbs solve FILE --solver {found['name']} --option NAME=VALUE, or "
            "icbs prune --set 'solver_options={NAME: VALUE}'",
            "dim",
        )
    )


def _parameters(doc: str) -> dict[str, tuple[str, str]]:
    """Return type and description of each entry in a numpydoc section Parameters."""
    import inspect
    import re

    from icbs.docstrings import paragraphs

    found: dict[str, tuple[str, str]] = {}
    _, _, body = inspect.cleandoc(doc).partition("Parameters\n----------\n")
    body = re.split(r"\n\w[\w ]*\n-+\n", body)[0]
    for entry in re.split(r"\n(?=\S)", body):
        head, *lines = entry.split("\n")
        names, _, kind = head.partition(" :")
        kind = re.sub(r",? *(default .*|optional)$", "", kind).strip()
        values = kind[1:-1].replace('"', "") if re.fullmatch(r"\{.*\}", kind) else kind
        for name in names.split(", "):
            found[name.strip()] = values, paragraphs("\n".join(lines))
    return found


def _ready(solver: dict[str, Any]) -> str:
    return solver["install"] or solver["setup"] or "yes"


def _abilities(can: dict[str, Any]) -> str:
    """Describe capabilities in one line."""
    kind = "exact" if can["exact"] else "heuristic"
    size = "any n" if can["max_n"] is None else f"n ≤ {can['max_n']}"
    cardinality = "native cardinality" if can["native_cardinality"] else "penalised cardinality"
    extent = [name for name in ("groups", "budgets") if can[name]]
    words = [kind, size, ", ".join([cardinality, *extent])]
    honours = [what for what, name in _HONOURS.items() if can[name]]
    words.append(f"honours {', '.join(honours)}" if honours else "")
    if can["hardware"] is not None:
        words.append(f"runs on {can['hardware']}")
    return "; ".join(filter(None, words))


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _yaml(value: Any) -> str:
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
