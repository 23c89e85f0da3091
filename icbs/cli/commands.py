"""The application of the console command: subcommands in groups, and its version."""

from __future__ import annotations

from importlib.metadata import version
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from icbs.cli.blocks import blocks
from icbs.cli.compare import compare
from icbs.cli.compress import compress, expand
from icbs.cli.cut import cut
from icbs.cli.demo import demo
from icbs.cli.export import export
from icbs.cli.fetch import fetch
from icbs.cli.layers import layers
from icbs.cli.prune import prune
from icbs.cli.readiness import readiness
from icbs.cli.recover import ListsMethods, recover
from icbs.cli.report import report
from icbs.cli.resume import resume
from icbs.cli.search import search
from icbs.cli.settings import ListsSearchSettings, ListsSettings, settings
from icbs.cli.solve import solve
from icbs.cli.solvers import solvers
from icbs.cli.watch import watch
from icbs.docstrings import paragraphs

app = typer.Typer(
    name="icbs",
    help="Prune neural networks by combinatorial optimization.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"icbs {version('icbs-pruning')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Prune neural networks by combinatorial optimization."""


PANELS = {
    "Prune models": (
        prune,
        search,
        resume,
        recover,
        cut,
        report,
        watch,
        layers,
        settings,
        compress,
        expand,
    ),
    "Problems and solvers": (solve, solvers, compare, readiness, blocks, export),
    "Demonstration and data": (demo, fetch),
}
#: Commands whose help ends with a list of settings.
LISTS: dict[Any, type[TyperCommand]] = {
    prune: ListsSettings,
    search: ListsSearchSettings,
    recover: ListsMethods,
}
for panel, commands in PANELS.items():
    for command in commands:
        app.command(
            rich_help_panel=panel, cls=LISTS.get(command), help=paragraphs(getdoc(command) or "")
        )(command)


def main() -> None:
    """Run the command line."""
    app()
