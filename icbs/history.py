"""The record of a run: one row for each block."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from icbs.errors import RunFolderError
from problems.files import atomic


@dataclass(frozen=True)
class Row:
    """What happened to one block."""

    step: int
    """Pass, from 0."""
    samples: int
    """Samples of the pass."""
    layer: str
    n: int
    k: int
    """Weights in the block, and how many of them are pruned."""
    moved: int
    """Weights that the solver's answer moves, in either direction."""
    predicted: float
    """Change of the loss by the quadratic model, of the solver's answer."""
    actual: float
    """Change of the held-out loss; NaN where it was not measured."""
    accepted: bool
    energy: float
    """Energy of the solver's answer: the predicted change, the ridge, and with ``fisher+gram``
    the error of the layer's own output."""
    failure: str
    """Name of the error that kept the solver from answering; empty as a rule."""
    solver_seconds: float
    seconds: float
    """Wall seconds since the run began. The two times alone differ between equal runs."""


TIMES = ("solver_seconds", "seconds")


def write_history(rows: Iterable[Row], path: Path) -> None:
    """Write all rows as CSV, atomically."""
    names = [f.name for f in dataclasses.fields(Row)]
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for row in rows:
            # repr of a float is the shortest text that reads back to the same bits.
            writer.writerow([getattr(row, name) for name in names])


def read_history(path: Path) -> list[Row]:
    """Read what :func:`write_history` wrote.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_row(record) for record in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunFolderError(f"{path} is not a readable history: {error}") from error


def _row(record: dict[str, str]) -> Row:
    kinds = {"int": int, "float": float, "str": str, "bool": lambda text: text == "True"}
    return Row(**{f.name: kinds[str(f.type)](record[f.name]) for f in dataclasses.fields(Row)})  # type: ignore[operator]
