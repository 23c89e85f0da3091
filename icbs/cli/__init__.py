"""The console command ``icbs``: one file for each subcommand."""

from icbs.cli.commands import app, main

__all__ = ["app", "main"]
