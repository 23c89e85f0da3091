"""The console command ``icbs``, with one module for each subcommand."""

from icbs.cli.commands import app, main

__all__ = ["app", "main"]
