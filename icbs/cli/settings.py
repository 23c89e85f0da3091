"""``icbs settings``: all settings of a run with defaults, ranges and descriptions."""

from __future__ import annotations

from typing import Annotated

import typer

from icbs.cli.console import plain_errors


@plain_errors
def settings(
    name: Annotated[str | None, typer.Argument(help="Setting to describe in full.")] = None,
) -> None:
    """List the settings of a run by group, or describe one."""
    from rich.padding import Padding
    from rich.text import Text

    from icbs.config import PrunerConfig
    from icbs.config.listing import GROUPS, default_of, paragraphs, summary_of, values_of
    from icbs.errors import ConfigError
    from icbs.report.screen import Screen
    from problems.suggest import did_you_mean

    console, fields = Screen(), PrunerConfig.model_fields
    if name is not None:
        if name not in fields:
            raise ConfigError(
                f"unknown setting {name!r}{did_you_mean(name, fields)}; 'icbs settings' lists them"
            )
        console.print(Text(f"{name} = {default_of(name)}", style="bold"))
        console.print(Text(f"values: {values_of(name)}"))
        console.print(Text(paragraphs(fields[name].description or "")))
        console.print(
            Text(f"set it: icbs prune --set {name}=VALUE, or 'pruner: {name}:' in a YAML file"),
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
