"""Solver failures: logged once, recorded in the history; runs without any answer are stopped."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from icbs.errors import SolverFailureError
from icbs.formatting import counted
from icbs.run.history import BlockRecord
from solvers import SolverError
from solvers.errors import describe

#: Number of passes without any answer after which a run is stopped.
HOPELESS = 3
#: Maximum length of a recorded message, in characters.
_LONGEST = 500

log = logging.getLogger("icbs")


def failure_text(error: SolverError) -> str:
    """Return an error's type and message as one line of printable characters."""
    shown = "".join(c if c.isprintable() else " " for c in describe(error))
    line = " ".join(shown.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 2] + " …"


class Failures:
    """The solver's failures in one call of the pruner.

    Parameters
    ----------
    solver : str
        The solver's name.
    """

    def __init__(self, solver: str) -> None:
        self.solver = solver
        self.first: BlockRecord | None = None
        self._answered = False
        self._blocks = 0
        self._passes: set[int] = set()

    @property
    def without_answer(self) -> bool:
        """Whether blocks have been solved and none was answered."""
        return bool(self._blocks) and not self._answered

    def note(self, rows: Sequence[BlockRecord]) -> None:
        """Count the records of a pass; log the first failure of the run."""
        for row in rows:
            self._blocks += 1
            self._passes.add(row.step)
            self._answered = self._answered or not row.failure
            if row.failure and self.first is None:
                self.first = row
                log.warning(
                    "solver %r failed on a block of layer %r in pass %d: %s (further failures "
                    "are counted; the history has them all)",
                    *(self.solver, row.layer, row.step, row.failure),
                )

    def check(self, *, over: bool = False) -> None:
        """Stop a run whose first passes have no answer.

        Parameters
        ----------
        over : bool, default False
            Whether this was the last pass.

        Raises
        ------
        SolverFailureError
            Quoting the first failure.
        """
        if self.without_answer and (over or len(self._passes) >= HOPELESS):
            assert self.first is not None
            raise SolverFailureError(
                f"solver {self.solver!r} answered none of the {counted(self._blocks, 'block')} of "
                f"{counted(len(self._passes), 'pass')}, and the run was ended; the first failure: "
                f"{self.first.failure}. Mend that and resume the run, or choose another solver"
            )
