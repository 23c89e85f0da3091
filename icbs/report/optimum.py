"""Tables and lines about the true optimum of a small model."""

from __future__ import annotations

from rich.table import Table

from icbs.enumeration.comparison import Comparison
from icbs.formatting import label, metrics, significant, spell
from icbs.report.screen import plain, plain_table


def optimum_columns(found: Comparison) -> dict[str, list[str]]:
    """Return the columns of a table of masks next to the true optimum, as text."""
    stages = found.stages
    columns = {
        "masks": [stage.name for stage in stages],
        "loss": [significant(stage.loss) for stage in stages],
        "gain": ["" if s.share is None else f"{s.share:.1%}" for s in stages],
        "rank": ["" if s.rank is None else f"{s.rank:,}" for s in stages],
    }
    names = dict.fromkeys(name for stage in stages for name in metrics(stage.figures))
    tests = {f"test {label(name)}": [spell(name, s.figures) for s in stages] for name in names}
    return columns | tests


def optimum_table(found: Comparison) -> Table:
    """Return a table with a row per stage of a comparison; see :func:`optimum_columns`."""
    columns = optimum_columns(found)
    table = plain_table()
    for name in columns:
        table.add_column(plain(name), justify="left" if name == "masks" else "right")
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(plain, row))
    return table


def optimum_lines(found: Comparison) -> list[str]:
    """Say how good the quadratic model is, and how good the solver."""
    proof = "proved optimal" if found.proved else "not proved optimal"
    lines = [
        f"all {found.num_masks:,} masks evaluated; loss: over all training samples; gain: share of "
        "the possible decrease, from the start to the true optimum",
        f"quadratic model of the start, at its optimum ({proof}): change of the loss "
        f"{significant(found.predicted)} predicted, {significant(found.actual)} actual",
    ]
    if found.solver_share is not None:
        lines.append(
            f"solver {found.solver}: {found.solver_share:.2%} of the energy of that optimum in its "
            "first solution"
        )
    return lines
