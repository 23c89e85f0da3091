"""The history of a run: one row per block."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from icbs.run.table_file import TableFile


@dataclass(frozen=True)
class BlockRecord:
    """The row of one block."""

    step: int
    """Pass, from 0."""
    samples: int
    """Number of samples of the pass."""
    layer: str
    n: int
    k: int
    """Number of weights in the block, and number of those that are pruned."""
    moved: int
    """Number of weights that the solution prunes or restores."""
    predicted: float
    """Change of the loss by the quadratic model, for the solution."""
    actual: float
    """Change of the held-out loss; NaN if not measured."""
    accepted: bool
    energy: float
    """Energy of the solution: the predicted change, the ridge term, and with ``fisher+gram`` the
    error of the layer's output."""
    failure: str
    """Type and message of the solver's error (only the type in histories of older runs); empty
    without an error."""
    solver_seconds: float
    seconds: float
    """Wall seconds since the start. Only the two times differ between repetitions of a run."""
    proved: bool = False
    """Whether the solver proved that the solution is optimal for the block's quadratic model."""
    bound: float | None = None
    """Lower bound on the energies of all solutions; None if the solver has none, and in histories
    of earlier releases."""
    attempt: int | None = None
    """Attempt at the pass, from 0: a pass that is undone is solved again. None in histories of
    earlier releases."""
    evaluations: int | None = None
    """Evaluations that the solver reports, such as circuits that were run; None if it reports
    none."""
    weights: float | None = None
    """Change of the held-out loss by a move of the kept weights after the pass, in its last row;
    0 if the move was undone, None without one."""

    repaired: bool = False
    """Whether the solver had a proof or bound, and the solution was changed afterwards to hold the
    budget: a block's problem has a linearised cost. ``proved`` and ``bound``, which are of that
    problem, are then left out."""

    @property
    def gap(self) -> float | None:
        """Relative gap ``(energy - bound) / |energy|``, or None.

        The absolute one if no weight moved, since the energy is then 0 up to rounding.
        """
        if self.bound is None:
            return None
        distance = max(0.0, self.energy - self.bound)
        return distance / abs(self.energy) if self.moved and self.energy else distance


Row = BlockRecord  # name in version 0.1
TIMES = ("solver_seconds", "seconds")


class HistoryFile(TableFile[BlockRecord]):
    """The history of a run on disk.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, BlockRecord, "history", "restore the file, or start a new run")


def read_history(path: Path) -> list[BlockRecord]:
    """Read all complete rows of a history.

    Raises
    ------
    RunFolderError
        If the file is missing or damaged.
    """
    return HistoryFile(path).read()
