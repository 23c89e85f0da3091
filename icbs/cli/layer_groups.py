"""Tables of ``icbs layers --groups``: groups that can be pruned, and what is left whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import nn

    from icbs.config import PrunerConfig
    from icbs.structure.dimension import Dimension
    from icbs.structure.find import Left


@dataclass(frozen=True)
class Row:
    """A dimension, or several of equal names apart from numbers."""

    name: str
    groups: int
    """Number of groups of one dimension."""
    parameters: float
    """Saving of one group at the dense widths, in parameters."""
    macs: float
    """The same in multiply-accumulates of one sample."""
    dimensions: int = 1


def group_rows(model: nn.Module, inputs: Any, config: PrunerConfig) -> tuple[list[Row], Left]:
    """Return the groups of a model, and the parts that are left whole with the reason.

    Parameters
    ----------
    model : nn.Module
    inputs
        Inputs of one sample; None for small random ones if the model says its shape.
    config : PrunerConfig
        ``groups``, ``include`` and ``exclude``.

    Raises
    ------
    LayerError
        If there are no such groups, saying what is left whole.
    """
    from icbs.config.group_kinds import within_layer
    from icbs.groups.costs import count_costs
    from icbs.groups.finding import find_groups, prunable_dimensions
    from icbs.model.modes import evaluation_mode
    from icbs.structure.example_inputs import example_inputs_of

    assert config.groups is not None
    inputs = example_inputs_of(model) if inputs is None else inputs
    found: list[Dimension] | None = None
    left: Left = {}
    if not all(map(within_layer, config.groups)):
        found, left = prunable_dimensions(model, inputs, config.groups)
    with evaluation_mode(model) as plain:
        grouping = find_groups(plain, inputs, config, found)
        nothing = np.zeros(grouping.count, dtype=np.uint8)
        savings = [
            count_costs(grouping, plain, inputs, quantity).slopes(nothing)
            for quantity in ("parameters", "macs")
        ]
    rows = []
    for own, span in zip(grouping.sets, grouping.spans, strict=True):
        parameters, macs = (float(saving[span].mean()) for saving in savings)
        rows.append(Row(own.name, own.count, parameters, macs))
    return rows, left


def group_lines(rows: list[Row], left: Left, kinds: str) -> list[str]:
    """Return the lines under the table."""
    total = sum(row.groups * row.dimensions for row in rows)
    lines = [
        f"{total:,} groups; each saves these parameters, and MACs of one sample, in the layers "
        "that write and read it, while all others are kept"
    ]
    if left:
        lines.append("left whole:")
        lines += [f"  {name}: {reason}" for name, reason in left.items()]
    lines.append(f"prune them: icbs prune … --groups {kinds} --budget macs=0.5")
    return lines


def summed(rows: list[Row]) -> list[Row]:
    """Sum dimensions of equal names (except numbers), sizes and costs."""
    from icbs.report.layers import kind_name

    found: dict[Row, int] = {}
    for row in rows:
        head, _, kind = row.name.rpartition(" ")
        name = f"{kind_name(head)} {kind}" if head else kind_name(row.name)
        key = replace(row, name=name, dimensions=1)
        found[key] = found.get(key, 0) + row.dimensions
    return [replace(row, dimensions=count) for row, count in found.items()]


def group_table(rows: list[Row]) -> Any:
    """Return the table of the groups."""
    from icbs.report.screen import plain, plain_table

    table = plain_table()
    table.add_column("dimension", overflow="fold")
    several = any(row.dimensions > 1 for row in rows)
    names = ("groups", "parameters each", "MACs each", *(["dimensions"] if several else []))
    for name in names:
        table.add_column(name, justify="right")
    for row in rows:
        cells = [f"{row.groups:,}", f"{row.parameters:,.0f}", f"{row.macs:,.0f}"]
        table.add_row(plain(row.name), *cells, *([str(row.dimensions)] if several else []))
    return table
