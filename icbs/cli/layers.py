"""``icbs layers``: the prunable layers of a model, with types and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors
from icbs.zoo import BUILTIN

if TYPE_CHECKING:
    from torch import nn

MAX_ROWS = 40
"""Number of layers up to which each layer has its own row."""
MAX_DENSE = 10
"""Number of parameters left dense that are listed."""


@plain_errors
def layers(
    model: Annotated[
        str,
        typer.Argument(
            help=f"Task ({', '.join(BUILTIN)}, or module:function, which is run) or language "
            "model (folder, .gguf file or hub name)."
        ),
    ],
    every: Annotated[
        bool, typer.Option("--all", help=f"One row per layer, also for more than {MAX_ROWS}.")
    ] = False,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Setting of the layers or densities, such as include=Conv2d; repeatable.",
            show_default=False,
        ),
    ] = [],  # noqa: B006
) -> None:
    """List the layers of a model that would be pruned, and the weights left dense."""
    from icbs.cli.config_file import in_groups, parse_assignments
    from icbs.cli.user_code import allow_local_imports
    from icbs.config import PrunerConfig
    from icbs.model.coverage import Coverage
    from icbs.model.finding import find_layers
    from icbs.report.screen import Screen

    allow_local_imports(model)
    config = PrunerConfig.of(**in_groups(parse_assignments(settings)))
    console = Screen()
    network = _model(model)
    found = find_layers(network, config)
    rows = [
        (layer.name, type(layer.module).__name__, layer.shape, layer.num_keep, 1) for layer in found
    ]
    console.print(_table(rows if every or len(rows) <= MAX_ROWS else _by_kind(rows)))
    coverage = Coverage.of(network, found)
    kept = sum(layer.num_keep for layer in found)
    lines = [
        f"{len(found)} layers with {coverage.pruned:,} weights; density {config.density:g} keeps "
        f"{kept:,} of them"
    ]
    left = coverage.left_dense
    if left:
        lines.append(f"left dense: {sum(left.values()):,} matrix weights:")
        shown = list(left.items())[: None if every else MAX_DENSE]
        for name, size in shown:
            reason = coverage.reason(name)
            lines.append(f"  {name} ({size:,}){': ' if reason else ''}{reason}")
        if len(left) > len(shown):
            lines.append(f"  and {len(left) - len(shown)} more; --all lists them")
    lines.append("choose layers by name or type: --set include=PATTERN, --set exclude=PATTERN")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _model(name: str) -> nn.Module:
    """Load a task's model, or a language model."""
    from icbs.zoo import declared, load_task

    if name in declared() or ":" in name:
        return load_task(name).model
    if not (Path(name).exists() or "/" in name or name == "smollm2-135m"):
        load_task(name)  # raises an error that lists the tasks
    from icbs.lm import load_language_model

    model: Any = load_language_model(name)[0]
    return model


def _by_kind(rows: list[Any]) -> list[Any]:
    """Sum layers of equal names (except numbers), types and shapes."""
    from icbs.report.layers import kind_name

    groups: dict[Any, Any] = {}
    for name, kind, shape, keep, count in rows:
        key = (kind_name(name), kind, shape)
        _, _, _, before, layers = groups.get(key, (*key, 0, 0))
        groups[key] = (*key, before + keep, layers + count)
    return list(groups.values())


def _table(rows: list[Any]) -> Any:
    from icbs.report.screen import plain, plain_table

    table = plain_table()
    table.add_column("layer", overflow="fold")
    several = any(count > 1 for *_, count in rows)
    for name in ("type", "shape", "weights", "kept", *(["layers"] if several else [])):
        table.add_column(name, justify="left" if name == "type" else "right", no_wrap=True)
    for name, kind, shape, keep, count in rows:
        size = shape[0] * shape[1] * count
        cells = [kind, f"{shape[0]} × {shape[1]}", f"{size:,}", f"{keep:,}"]
        table.add_row(plain(name), *cells, *([str(count)] if several else []))
    return table
