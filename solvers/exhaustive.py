"""Enumeration of all feasible states, one swap apart; the oracle for small problems."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from problems import BudgetQUBO, CardinalityQUBO
from solvers._numba import jit
from solvers.base import Capabilities, Outcome, Request, Solver
from solvers.errors import OptionError, UnsupportedError
from solvers.solution import Stop

Integers = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float64]

#: States visited between checks of the clock (about a millisecond). The energy and the fields are
#: recomputed at each, so that rounding errors don't accumulate.
_CHUNK = 1 << 15


@dataclass(frozen=True)
class Exhaustive(Solver):
    """Visit all ``Π_g C(n_g, k_g)`` feasible states and keep the best.

    Within a group the combinations follow the revolving-door order (W. H. Payne; Knuth, TAOCP
    7.2.1.3, Algorithm R), in which neighbours differ by one swap, including the last and the
    first. Groups are therefore advanced like the digits of a modular Gray code, and every step of
    the enumeration is one swap: O(1) to evaluate from the cached fields, and one row update of n
    to apply.

    The answer is optimal up to the rounding of float64 energies (about 1e-13 of Σ|Q|).

    Raises
    ------
    OptionError
        If ``max_states`` is below 1.
    UnsupportedError
        If there are more states than ``max_states``.
    """

    max_states: int = 1_000_000_000
    """Largest number of feasible states (about 40 million are visited per second)."""

    name: ClassVar[str] = "exhaustive"
    summary: ClassVar[str] = "every feasible state, by swaps in revolving-door order; n ≤ 32"
    capabilities: ClassVar[Capabilities] = Capabilities(
        exact=True, max_n=32, groups=True, budgets=True, num_reads=False, callback=True
    )

    def __post_init__(self) -> None:
        if self.max_states < 1:
            raise OptionError(f"max_states is {self.max_states}; it must be 1 or more")

    @classmethod
    @cache
    def warm_up(cls) -> None:
        """Compile the kernels, or load them from their cache."""
        cls().run(CardinalityQUBO(np.eye(4), 2), Request(seed=0))

    def check_size(self, sizes: Sequence[tuple[int, int]] | None, n: int) -> None:
        """Refuse more states than ``max_states``."""
        if sizes is None:
            from solvers.exhaustive_budget import check_states

            check_states(n, self.max_states)
        else:
            self._radices(sizes)

    def _radices(self, sizes: Iterable[tuple[int, int]]) -> list[int]:
        """Return the number of states of each group.

        Raises
        ------
        UnsupportedError
            If there are more states than ``max_states``.
        """
        radices = [math.comb(int(n), int(k)) for n, k in sizes]
        if (count := math.prod(radices)) > self.max_states:
            raise UnsupportedError(
                f"the problem has {count:,} feasible states, more than max_states = "
                f"{self.max_states:,}; use solver 'exact', smaller blocks or a larger max_states"
            )
        return radices

    def run_budget(self, problem: BudgetQUBO, request: Request) -> Outcome:
        """Enumerate all ``2ⁿ`` states by flips; see :mod:`solvers.exhaustive_budget`."""
        from solvers.exhaustive_budget import enumerate_flips

        return enumerate_flips(problem, request, self.max_states)

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        """Enumerate all states, until the time limit or the callback stops it."""
        radices = self._radices(zip(problem.group_sizes, problem.cardinalities, strict=True))
        count = math.prod(radices)
        walk = _Walk(problem, np.array(radices, dtype=np.int64))
        best, energy = walk.x.copy(), math.inf
        left, stop = count, Stop.PROVEN
        while left and stop is Stop.PROVEN:
            found, state = walk.visit(min(left, _CHUNK))
            left -= min(left, _CHUNK)
            if found < energy:
                best, energy = state, found
                if request.report(energy + problem.offset, x=best):
                    stop = Stop.INTERRUPTED
            if left and request.remaining <= 0:
                stop = Stop.TIME_LIMIT
        proven = left == 0
        return Outcome(
            samples=best[None],
            stop=Stop.PROVEN if proven else stop,
            proven=proven,
            bound=problem.energy(best) if proven else None,
            info={"states": count - left, "feasible_states": count},
        )


class _Combinations(NamedTuple):
    """Position in the enumeration: the combination of each group."""

    members: Integers
    """Variables of group g: ``members[g, :sizes[g]]``."""
    chosen: Integers
    """Combination of group g: ``chosen[g, 1:k+1]``, ascending, closed by the sentinel n_g."""
    sizes: Integers
    cardinalities: Integers
    digits: Integers
    """Number of the combination of each group."""
    radices: Integers
    """Number of combinations of each group."""


class _Walk:
    """The enumeration: the current state and its position."""

    def __init__(self, problem: CardinalityQUBO, radices: Integers) -> None:
        self.Q, sizes = problem.float64_matrix(), problem.group_sizes
        members = np.zeros((len(sizes), sizes.max()), dtype=np.int64)
        chosen = np.zeros((len(sizes), sizes.max() + 2), dtype=np.int64)
        self.x = np.zeros(problem.n, dtype=np.uint8)
        for g, (n, k) in enumerate(zip(sizes, problem.cardinalities, strict=True)):
            members[g, :n] = problem.group_members[g]
            chosen[g, 1 : k + 1] = np.arange(k)
            chosen[g, k + 1] = n
            self.x[members[g, :k]] = 1
        self.combinations = _Combinations(
            members, chosen, sizes, problem.cardinalities, np.zeros_like(radices), radices
        )

    def visit(self, states: int) -> tuple[float, npt.NDArray[np.uint8]]:
        """Visit ``states`` states from the current one on; return the best of them."""
        products = self.Q @ self.x.astype(np.float64)
        energy = float(products[self.x != 0].sum())
        best = np.empty_like(self.x)
        found = _visit(self.Q, self.x, 2 * products, energy, self.combinations, states, best)
        return float(found), best


@jit
def _visit(
    Q: Matrix,
    x: npt.NDArray[np.uint8],
    twice: npt.NDArray[np.float64],
    energy: float,
    combinations: _Combinations,
    states: int,
    best: npt.NDArray[np.uint8],
) -> float:
    """Visit ``states`` states, leaving ``x`` one step behind them; ``twice`` is 2Qx."""
    members, chosen, sizes, cardinalities, digits, radices = combinations
    lowest = np.inf
    for _ in range(states):
        if energy < lowest:
            lowest = energy
            best[:] = x
        g = 0
        while g < len(radices) and digits[g] == radices[g] - 1:
            digits[g] = 0
            g += 1
        if g == len(radices):
            break
        digits[g] += 1
        out, into = _advance(chosen[g], sizes[g], cardinalities[g])
        i, j = members[g, out], members[g, into]
        energy += twice[j] - twice[i] + Q[i, i] + Q[j, j] - 2 * Q[i, j]
        came, left = Q[j], Q[i]
        for v in range(len(twice)):  # a loop, since array expressions would allocate
            twice[v] += 2 * (came[v] - left[v])
        x[i], x[j] = 0, 1
    return lowest


@jit
def _advance(c: Integers, n: int, k: int) -> tuple[int, int]:
    """Advance a combination ``c[1:k+1]`` of ``range(n)``; return the indices removed and added."""
    if k % 2 and c[1] + 1 < c[2]:
        c[1] += 1
        return c[1] - 1, c[1]
    if k % 2 == 0 and c[1] > 0:
        c[1] -= 1
        return c[1] + 1, c[1]
    decrease = k % 2 == 1
    for j in range(2, k + 1):
        if decrease and c[j] >= j:
            out = c[j]
            c[j] = c[j - 1]
            c[j - 1] = j - 2
            return out, c[j - 1]
        if not decrease and c[j] + 1 < c[j + 1]:
            c[j - 1] = c[j]
            c[j] += 1
            return j - 2, c[j]
        decrease = not decrease
    # The last combination {0, …, k-2, n-1}: one swap returns to the first.
    c[k] = k - 1
    return n - 1, k - 1
