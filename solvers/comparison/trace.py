"""What a run left behind: the states of its incumbents, and energies recomputed from them."""

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
    """A state as it came to hand."""

    seconds: float
    """Since the run began."""
    bits: bytes
    """The state, eight variables to a byte."""


class Trace:
    """Records incumbents as they are found; energies are evaluated after the run.

    Parameters
    ----------
    n : int
        Variables of the problem.
    tell : callable, optional
        Gets each :class:`Incumbent` at once, so that it outlives this process.
    trusted : bool
        Whether the solver's own times are taken; else those at which it reported.
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
        """Seconds since the run began."""
        return time.perf_counter() - self.began

    def restarted(self) -> None:
        """Count the solver's own times from here on."""
        self.offset = self.now

    def __call__(self, seconds: float, energy: float, x: State) -> None:
        """Take an incumbent, found ``seconds`` after the solver was last started.

        What a solver itself does not call an improvement on all its starts is left out.
        """
        if energy >= self.claimed:
            return
        self.claimed = energy
        now = self.now
        self._add(min(max(self.offset, self.offset + seconds), now) if self.trusted else now, x)

    def answered(self, energy: float, x: State) -> None:
        """Take what a solver came back with."""
        if energy < self.returned:
            self.returned = energy
            self._add(self.now, x)

    def _add(self, seconds: float, x: Any) -> None:
        state = np.asarray(x)
        if state.shape == (self.n,):  # else it is no state of this problem
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
            # The same state is no improvement, whatever the rounding of a batch.
            if held and energy < best and not (kept and kept[-1][2] == row.bits):
                best = energy
                kept.append((row.seconds, energy, row.bits))
    return kept
