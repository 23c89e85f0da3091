"""``icbs layers``: the prunable layers of a model, with types and sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from icbs.cli.console import plain_errors
from icbs.zoo import BUILTIN

if TYPE_CHECKING:
    from torch import nn

    from icbs.config import PrunerConfig

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
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="KINDS",
            help="List groups instead: heads, neurons, channels, blocks (several by commas), "
            "kernels, strided or tiles (4x1), with the parameters and MACs that each saves.",
            show_default=False,
        ),
    ] = None,
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
    """List the layers of a model that would be pruned, and the weights left dense.

    With --groups: the groups that can be pruned as a whole, and what is left whole with the reason.

    Examples
    --------
    icbs layers garment
    icbs layers sarcasm --groups heads,neurons
    """
    from icbs.cli.config_file import in_groups, parse_assignments
    from icbs.cli.user_code import allow_local_imports
    from icbs.config import PrunerConfig
    from icbs.model.coverage import Coverage
    from icbs.model.finding import find_layers
    from icbs.report.screen import Screen

    allow_local_imports(model)
    given = in_groups(parse_assignments(settings))
    if groups is not None:
        _list_groups(model, PrunerConfig.of(**{"density": 0.5} | given | {"groups": groups}), every)
        return
    config = PrunerConfig.of(**given)
    console = Screen()
    network, _ = _model(model)
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


def _list_groups(model: str, config: PrunerConfig, every: bool) -> None:
    from icbs.cli.layer_groups import group_lines, group_rows, group_table, summed
    from icbs.report.screen import Screen

    console = Screen()
    network, inputs = _model(model)
    rows, left = group_rows(network, inputs, config)
    console.print(group_table(rows if every or len(rows) <= MAX_ROWS else summed(rows)))
    for line in group_lines(rows, left, ",".join(config.groups or ())):
        console.print(line, highlight=False, soft_wrap=True)


def _model(name: str) -> tuple[nn.Module, Any]:
    """Load a task's model with inputs of one sample, or a language model without."""
    from icbs.data.samples import read_samples
    from icbs.zoo import declared, load_task

    if name in declared() or ":" in name:
        task = load_task(name)
        return task.model, read_samples(task.batches, 1)[:1].inputs
    if not (Path(name).exists() or "/" in name or name == "smollm2-135m"):
        load_task(name)  # raises an error that lists the tasks
    from icbs.lm import load_language_model

    model: Any = load_language_model(name)[0]
    return model, None


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
