"""``icbs recover``: new values of the weights that a run's masks keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from icbs.cli.console import plain_errors

OPTIONS = "task_options."


@plain_errors
def recover(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a finished run of 'icbs prune', or a file of masks, with --task."
        ),
    ],
    method: Annotated[
        str, typer.Option(help="Method, of those below, or auto: all that are feasible.")
    ] = "auto",
    task: Annotated[
        str | None,
        typer.Option(
            help="The run's task, to be repeated if it is a module:function; or that of the masks."
        ),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(
            help="Samples that the dense model generates itself, in addition; for language models.",
            show_default="0",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(help="Seconds after which no new step starts.", show_default="none"),
    ] = None,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any setting of those below, of the recovery or of its method, or "
            "task_options.NAME of a --task; repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints and results.",
            show_default="recovery in RUN; runs/DATE-TIME for masks",
        ),
    ] = None,
) -> None:
    """Change the weights that a run's masks keep, to make up for those that are pruned.

    The masks hold exactly, and the state with the lowest held-out loss is the result. An
    interrupted recovery is continued by the same command; that of a file of masks with its --out.

    For example: icbs recover runs/classifier --method least-squares, or
    icbs recover masks.safetensors --task garment --out runs/recovered
    """
    from icbs.cli.config_file import parse_assignments
    from icbs.cli.recovery import check_method, recover_live, recovery_config
    from icbs.cli.recovery_source import Source
    from icbs.cli.session import open_task
    from icbs.cli.user_code import absolute_paths
    from icbs.report.screen import Screen

    found = parse_assignments(settings)
    options = {name: value for name, value in found.items() if name.startswith(OPTIONS)}
    given = {name: value for name, value in found.items() if name not in options}
    given |= {"method": method}
    if generate is not None:
        given["generate"] = generate
    if time_limit is not None:
        given["time_limit"] = time_limit
    config = recovery_config(given)
    check_method(config)
    named = {name.removeprefix(OPTIONS): absolute_paths(value) for name, value in options.items()}
    source = Source.open(run, task, named)
    console = Screen()
    work = open_task(console, source.task, source.options)
    dense = work.evaluate(work.model) if source.dense is None else source.dense
    pruned = source.pruned(work.model)
    folder, again = (source.folder, source.again) if out is None else (out, "the same command")
    recover_live(
        console, work, pruned, source.masks, folder, config, dense, again, of_run=source.of_run
    )


class ListsMethods(TyperCommand):
    """Command whose help also lists the methods and their settings."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print typer's help and the list."""
        super().format_help(ctx, formatter)
        _list_methods()


def _list_methods() -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from icbs.docstrings import paragraphs
    from icbs.plugins import RECOVERIES
    from icbs.recovery.config import RecoveryConfig
    from icbs.report.screen import Screen

    table = Table.grid(padding=(0, 2, 0, 0))
    for name in RECOVERIES.names():
        kind = RECOVERIES.get(name)
        summary = paragraphs(kind.__doc__ or "").partition("\n")[0]
        table.add_row(Text(name, style="bold"), Text(summary.partition(": ")[2] or summary))
        for setting, field in kind.Settings.model_fields.items():
            table.add_row(Text(f"  {setting}", style="cyan"), _setting(field))
    table.add_row(Text("all methods", style="bold"), "")
    for setting, field in RecoveryConfig.model_fields.items():
        if setting not in ("method", "options", "time_limit"):
            table.add_row(Text(f"  {setting}", style="cyan"), _setting(field))
    title = "Methods, and settings for --set NAME=VALUE"
    Screen().print(Panel(table, title=title, title_align="left", border_style="dim"))


def _setting(field: Any) -> Any:
    """Return the first sentence about a setting, with its default."""
    from rich.text import Text

    from icbs.docstrings import paragraphs

    sentence = paragraphs(field.description or "").partition("\n")[0].partition(". ")[0]
    default = field.get_default(call_default_factory=True)
    shown = "none" if default is None else str(default)
    return Text(f"{sentence.rstrip('.')} ").append(f"[default: {shown}]", "dim")
