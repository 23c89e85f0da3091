"""``icbs settings``: all settings of a run with defaults, ranges, units and descriptions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from icbs.cli.console import plain_errors


@plain_errors
def settings(
    name: Annotated[str | None, typer.Argument(help="Setting to describe in full.")] = None,
) -> None:
    """List the settings of a run by group, or describe one."""
    from rich.padding import Padding
    from rich.text import Text

    from icbs.config.listing import (
        FIELDS,
        GROUPS,
        default_of,
        explanation_of,
        summary_of,
        values_of,
    )
    from icbs.config.old_names import present_name
    from icbs.errors import ConfigError
    from icbs.report.screen import Screen
    from problems.suggest import did_you_mean

    console = Screen()
    if name is not None:
        if (present := present_name(name)) is not None:
            console.print(Text(f"{name} is now {present}", style="dim"))
            name = present
        if name not in FIELDS:
            raise ConfigError(
                f"unknown setting {name!r}{did_you_mean(name, FIELDS)}; 'icbs settings' lists them"
            )
        console.print(Text(f"{name} = {default_of(name)}", style="bold"))
        console.print(Text(f"values: {values_of(name)}"))
        console.print(Text(explanation_of(name)))
        console.print(
            Text(f"set it: icbs prune --set {name}=VALUE, or under 'pruner:' in a YAML file"),
            style="dim",
        )
        return
    for group, names in GROUPS.items():
        console.print(Text(f"\n{group}", style="bold"))
        for setting in names:
            head = Text(f"  {setting}", style="cyan").append(f" = {default_of(setting)}", "default")
            console.print(head.append(f"  ({values_of(setting)})", "dim"))
            console.print(Padding(Text(summary_of(setting)), (0, 0, 0, 6)))
    console.print("\n'icbs settings NAME' describes a setting in full", style="dim")


class ListsSettings(TyperCommand):
    """Command whose help also lists the settings without an option of their own, by group."""

    without: frozenset[str] = frozenset()
    """Settings that the command does not have."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print typer's help and the list."""
        super().format_help(ctx, formatter)
        _list_others({parameter.name or "" for parameter in self.params} | self.without)


class ListsSearchSettings(ListsSettings):
    """The same for a search, which chooses the density."""

    without = frozenset({"density"})


def _list_others(flags: Collection[str]) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from icbs.config.listing import GROUPS, default_of, values_of
    from icbs.report.screen import Screen

    table = Table.grid(padding=(0, 2, 0, 0))
    for group, names in GROUPS.items():
        others = [name for name in names if name not in flags]
        if others:
            table.add_row(Text(group, style="bold"))
        for name in others:
            values = Text(f"{values_of(name)} ").append(f"[default: {default_of(name)}]", "dim")
            table.add_row(Text(f"  {name}", style="cyan"), values)
    title = "--set NAME=VALUE; 'icbs settings NAME' describes one"
    Screen().print(Panel(table, title=title, title_align="left", border_style="dim"))
