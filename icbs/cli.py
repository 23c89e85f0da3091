"""The console command ``icbs``."""

from __future__ import annotations

import typer

from icbs.commands.compress import compress, expand
from icbs.commands.demo import demo
from icbs.commands.export import export
from icbs.commands.fetch import fetch
from icbs.commands.prune import prune, resume
from icbs.commands.report import report
from icbs.commands.solve import solve, solvers

app = typer.Typer(
    name="icbs",
    help="Prune neural networks by combinatorial optimization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (prune, resume, demo, report, compress, expand, solve, solvers, export, fetch):
    app.command()(command)


def main() -> None:
    """Run the command line."""
    app()
