"""The record of a run: one row for each block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from icbs.run.table_file import TableFile


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
    """Type and message of the error that kept the solver from answering (its type alone in
    histories of older runs); empty as a rule."""
    solver_seconds: float
    seconds: float
    """Wall seconds since the run began. The two times alone differ between equal runs."""


TIMES = ("solver_seconds", "seconds")


class HistoryFile(TableFile[Row]):
    """The history of a run on disk.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, Row, "history", "restore the file, or begin the run anew")


def read_history(path: Path) -> list[Row]:
    """Read all rows of a history, without a last one that is still being written.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    return HistoryFile(path).read()
