"""Incumbents of a run, and their recomputed energies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from problems import CardinalityQUBO
from solvers.base import State

#: Entries of the states that are evaluated at once.
_CHUNK = 1 << 22


class Incumbent(NamedTuple):
    """A reported state."""

    seconds: float
    """Seconds since the run started."""
    bits: bytes
    """The state, eight variables to a byte."""


class Trace:
    """Records incumbents as they are found; energies are evaluated after the run.

    Parameters
    ----------
    n : int
        Variables of the problem.
    tell : callable, optional
        Called with each :class:`Incumbent` at once, so that it survives a kill of this process.
    trusted : bool
        Whether to use the solver's own times; else those of its reports.
    """

    def __init__(
        self, n: int, tell: Callable[[Incumbent], object] | None = None, trusted: bool = True
    ) -> None:
        self.n, self.tell, self.trusted = n, tell, trusted
        self.found: list[Incumbent] = []
        self.claimed = self.returned = np.inf
        self.began = time.perf_counter()
        self.offset = 0.0

    @property
    def now(self) -> float:
        """Seconds since the run started."""
        return time.perf_counter() - self.began

    def restarted(self) -> None:
        """Start counting the solver's own times from now."""
        self.offset = self.now

    def __call__(self, seconds: float, energy: float, x: State) -> None:
        """Record an incumbent, found ``seconds`` after the solver was last started.

        States that do not improve on all energies claimed before are left out.
        """
        if energy >= self.claimed:
            return
        self.claimed = energy
        now = self.now
        self._add(min(max(self.offset, self.offset + seconds), now) if self.trusted else now, x)

    def answered(self, energy: float, x: State) -> None:
        """Record the state that a solver returned."""
        if energy < self.returned:
            self.returned = energy
            self._add(self.now, x)

    def _add(self, seconds: float, x: Any) -> None:
        state = np.asarray(x)
        if state.shape == (self.n,):  # else not a state of this problem
            seconds = max(seconds, self.found[-1].seconds if self.found else 0.0)
            self.found.append(Incumbent(seconds, np.packbits(state != 0).tobytes()))
            if self.tell is not None:
                self.tell(self.found[-1])


def improvements(
    problem: CardinalityQUBO, found: list[Incumbent]
) -> list[tuple[float, float, bytes]]:
    """Return (seconds, energy, state) of the feasible states that improve on all before them.

    Energies are evaluated here, in float64, from the problem itself.
    """
    best, kept = np.inf, list[tuple[float, float, bytes]]()
    step = max(1, _CHUNK // max(problem.n, 1))
    for first in range(0, len(found), step):
        chunk = found[first : first + step]
        rows = np.frombuffer(b"".join(row.bits for row in chunk), np.uint8)
        states = np.unpackbits(rows.reshape(len(chunk), -1), axis=1, count=problem.n)
        energies, feasible = problem.energy(states), problem.is_feasible(states)
        for row, energy, held in zip(chunk, energies.tolist(), feasible.tolist(), strict=True):
            # An equal state is not an improvement, even if a batch rounds it differently.
            if held and energy < best and not (kept and kept[-1][2] == row.bits):
                best = energy
                kept.append((row.seconds, energy, row.bits))
    return kept
