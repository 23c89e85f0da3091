"""The library as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

COLUMNS = (
    *("name", "n", "k", "groups", "rank", "layer", "depth", "curvature", "constraint"),
    *("best energy", "bound"),
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells for a record of :func:`problems.library.table`."""
    return [
        row["name"],
        *(str(row[key]) for key in ("n", "k", "groups")),
        "dense" if row["rank"] is None else str(row["rank"]),
        row["layer"],
        f"{row['depth']:.2f}",
        row["curvature"],
        row["constraint"],
        "" if row["energy"] is None else f"{row['energy']:.6g}",
        bound_cell(row),
    ]


def bound_cell(row: Mapping[str, Any]) -> str:
    """Describe the lower bound relative to the best energy."""
    if row["proved"]:
        return "optimal"
    return "none" if row["bound"] is None else f"{row['bound']:.6g}"


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a Markdown table."""
    right = {"n", "k", "groups", "rank", "depth", "best energy", "bound"}
    lines = [COLUMNS, tuple("---:" if name in right else "---" for name in COLUMNS)]
    lines += [(f"`{line[0]}`", *line[1:]) for line in map(cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
