"""Parts that all other formats share: polynomials, equality rows, and names.

The polynomial is ``Σ c_ij x_i x_j + Σ l_i x_i + offset`` with each pair named once and its
*whole* coefficient (``c_ij = 2 Q_ij`` for ``i < j``, ``l_i = Q_ii``): no halves and no implied
doubling. Each format converts between its own convention and this one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from problems.budget import BudgetQUBO
from problems.errors import FormatError, InvalidProblemError
from problems.qubo import CardinalityQUBO

Vector = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
#: Formats that hold a budget, and the remedy for the others.
BUDGET_FORMATS = ("npz", "lp", "mps", "cqm")
BUDGET_REMEDY = (
    f"problems.formats reads and writes problems with a budget as {', '.join(BUDGET_FORMATS)}, "
    "and problems.formats.bqm.to_cqm and from_cqm convert them to and from dimod"
)
NO_BUDGET = f"this format holds cardinalities, and no budget (an inequality); {BUDGET_REMEDY}"

Problem = TypeVar("Problem", CardinalityQUBO, BudgetQUBO)

#: Remedy for a file without a cardinality, for messages.
MISSING = "pass k (and groups if several), or free=True (--free) for a QUBO without one"
#: Number of variables up to which a dense Q is formed, however small the file (128 MiB).
FREE_DENSE = 4096
#: Number of variables of a problem without couplings, which needs no Q.
FREE_LINEAR = 1 << 20
#: Larger problems must list at least one in this many entries of Q.
SPARSEST = 64


@dataclass(frozen=True)
class Terms:
    """A quadratic polynomial of n binaries."""

    rows: Indices
    """First variable of each product, shape (number of products,)."""
    cols: Indices
    """Second variable of each product; equal to the first for ``x_i² = x_i``."""
    values: Vector
    """Whole coefficient of each product; repeated products add up."""
    linear: Vector
    """Coefficient of each variable, shape (n,)."""
    offset: float = 0.0

    @classmethod
    def of(cls, problem: CardinalityQUBO | BudgetQUBO) -> Terms:
        """Return the polynomial of a problem in float64, without zero products.

        Raises
        ------
        FormatError
            If a coefficient of a product overflows float64.
        """
        if problem.is_factored:
            A = problem.A.astype(np.float64)
            Q = A.T @ A
        else:
            Q = problem.Q
        rows, cols = np.nonzero(np.triu(Q, 1))
        with np.errstate(over="ignore"):
            values = _finite(2.0 * Q[rows, cols].astype(np.float64))
        return cls(rows, cols, values, problem.diagonal, problem.offset)

    @classmethod
    def of_spins(
        cls, rows: Indices, cols: Indices, values: Vector, linear: Vector, offset: float
    ) -> Terms:
        """Convert a polynomial of spins to binaries, with ``s = 2x - 1``.

        Products of a spin with itself are not allowed.
        """
        with np.errstate(all="ignore"):  # non-finite values are refused by :meth:`problem`
            shifted = 2 * linear
            np.subtract.at(shifted, rows, 2 * values)
            np.subtract.at(shifted, cols, 2 * values)
            constant = offset + float(values.sum()) - float(linear.sum())
            return cls(rows, cols, 4 * values, shifted, constant)

    def doubled(self) -> Vector:
        """Return twice the coefficients of the products, for formats with a factor of ½.

        Raises
        ------
        FormatError
            If one overflows float64.
        """
        with np.errstate(over="ignore"):
            return _finite(2.0 * self.values)

    def problem(
        self,
        k: Any,
        groups: Any = None,
        *,
        source: object,
        max_n: int | None = None,
        maximize: bool = False,
        labels: Sequence[Hashable] | None = None,
    ) -> CardinalityQUBO:
        """Build a problem with a cardinality; see :meth:`constrained`."""
        constraint = {"k": k, "groups": groups}
        return self.constrained(
            CardinalityQUBO, constraint, source=source, max_n=max_n, maximize=maximize,
            labels=labels,
        )  # fmt: skip

    def constrained(
        self,
        kind: type[Problem],
        constraint: Mapping[str, Any],
        *,
        source: object,
        max_n: int | None = None,
        maximize: bool = False,
        labels: Sequence[Hashable] | None = None,
    ) -> Problem:
        """Build the problem: dense, or factored with no rows if there is no coupling.

        Parameters
        ----------
        kind : type
            :class:`CardinalityQUBO` or :class:`BudgetQUBO`.
        constraint : mapping
            The arguments of the class that state the constraint.
        source : object
            Name of the source, for messages.
        max_n : int, optional
            Largest n to accept; derived by :func:`check_size` by default.
        maximize : bool
            Whether the polynomial is maximised; its sign is then changed.
        labels : sequence, optional
            As for :class:`CardinalityQUBO`.

        Raises
        ------
        FormatError
            If the problem is too large for the number of couplings, or is not valid.
        """
        n, sign = len(self.linear), -1.0 if maximize else 1.0
        between = self.rows != self.cols
        check_size(n, int(between.sum()), source, max_n)
        linear = sign * self.linear
        rest: dict[str, Any] = {**constraint, "offset": sign * self.offset, "labels": labels}
        try:
            with np.errstate(all="ignore"):  # non-finite values are refused below, with their index
                np.add.at(linear, self.rows[~between], sign * self.values[~between])
                if not between.any():
                    A = np.zeros((0, n))
                    return kind.from_factors(A, linear, **rest)
                first, second = self.rows[between], self.cols[between]
                low, high = np.minimum(first, second), np.maximum(first, second)
                halves = sign / 2 * self.values[between]
                Q = np.zeros((n, n))  # memory is allocated only where it is written
                np.add.at(Q, (low, high), halves)
                np.add.at(Q, (high, low), halves)
                Q[np.diag_indices(n)] = linear
                return kind(Q, **rest)
        except InvalidProblemError as error:
            raise FormatError(f"{source} is not a valid problem: {error}") from error


class Row(NamedTuple):
    """A linear row ``Σ coefficients · x[variables] (sense) value``, read or to be written."""

    variables: Sequence[int]
    coefficients: Sequence[float]
    value: float
    sense: str = "="
    """``=``, ``>=`` or ``<=``."""
    name: str = ""


def check_size(n: int, couplings: int, source: object, max_n: int | None = None) -> None:
    """Refuse a problem whose arrays would be far larger than its file.

    Without ``max_n``, n may reach :data:`FREE_DENSE` (:data:`FREE_LINEAR` without couplings),
    and more if at least one in :data:`SPARSEST` entries of the dense ``Q`` is listed.

    Raises
    ------
    FormatError
        The message says how to read the file anyway.
    """
    free = FREE_DENSE if couplings else FREE_LINEAR
    allowed = max(free, math.isqrt(SPARSEST * couplings)) if max_n is None else max_n
    if n > allowed:
        need = 8 * n * (n if couplings else 1) / 2**30
        raise FormatError(
            f"{source} claims {n} variables and lists {couplings} couplings, which would take "
            f"{need:.3g} GiB; at most {allowed} variables are accepted. If this is correct, "
            f"pass max_n={n}"
        )


def groups_from_rows(rows: Iterable[Row], n: int, source: object) -> tuple[Any, Any]:
    """Convert cardinality rows to ``(k, groups)`` of a :class:`CardinalityQUBO`.

    Rows are ``c·Σ x_i = c·k`` over disjoint sets that cover all variables; rows without a
    variable must be ``0 = 0`` and are dropped.

    Raises
    ------
    FormatError
        If rows overlap, miss a variable, have unequal coefficients, or a count is not an integer.
    """
    groups = np.full(n, -1, dtype=np.int64)
    wanted: list[int] = []
    for number, row in enumerate(rows):
        where = f"{source}: equality row {number}"
        used = [i for i, c in zip(row.variables, row.coefficients, strict=True) if c]
        weights = {c for c in row.coefficients if c}
        if not used:
            if row.value:
                raise FormatError(f"{where} has no variables, but its value is {row.value}")
            continue
        if len(weights) != 1 or not all(map(math.isfinite, weights)):
            raise FormatError(
                f"{where} has the coefficients {sorted(weights)[:2]}; the coefficients of a "
                "cardinality must be equal"
            )
        k = row.value / weights.pop()
        near = math.isfinite(k) and abs(k - round(k)) <= 1e-9 * abs(k)
        if not near or (row.value and not round(k)):  # 1e30 x = 1 has no solution
            raise FormatError(f"{where} requires a count of {k}; it must be an integer")
        if (groups[used] >= 0).any() or len(set(used)) != len(used):
            raise FormatError(
                f"{where} names a variable that is already in another; groups must be disjoint"
            )
        groups[used] = len(wanted)
        wanted.append(round(k))
    if (groups < 0).any():
        missing = int(np.flatnonzero(groups < 0)[0])
        raise FormatError(
            f"{source}: variable {missing} (counted from 0) is not in any row; each "
            "variable must be in one, or pass k if the file has no rows at all"
        )
    if not wanted:
        return 0, None  # there are no variables
    return (wanted[0], None) if len(wanted) == 1 else (wanted, groups)


def choose_cardinality(
    rows: Sequence[Row], n: int, k: Any, groups: Any, source: object
) -> tuple[Any, Any]:
    """Return the cardinality from the file's rows, or from the caller's ``k`` and ``groups``.

    Raises
    ------
    FormatError
        If both or neither are given, or the rows are not cardinalities. A problem without
        variables needs neither: its k is 0.
    """
    if rows and k is not None:
        raise FormatError(f"{source} contains a cardinality; omit k, groups and free")
    if rows:
        return groups_from_rows(rows, n, source)
    if k is None and n == 0:
        return 0, None
    if k is None:
        raise FormatError(f"{source} has no cardinality; {MISSING}")
    return k, groups


def cardinality_rows(
    problem: CardinalityQUBO | BudgetQUBO, free: bool = False
) -> list[tuple[int, list[int], int]]:
    """List label, members and cardinality of each group that has members; none if ``free``.

    Raises
    ------
    FormatError
        If the problem has a budget.
    """
    if isinstance(problem, BudgetQUBO):
        raise FormatError(NO_BUDGET)
    if free:
        return []
    counts = problem.cardinalities.tolist()
    return [
        (g, members.tolist(), counts[g])
        for g, members in enumerate(problem.group_members)
        if len(members)
    ]


def natural_order(names: Sequence[str]) -> list[int]:
    """Sort names by number if all have a common stem (``x0, x1, … x10``); else keep their order.

    Files list variables in the order of their use; this restores the original order.
    """
    matches = [re.fullmatch(r"(.*?)(\d{1,18})", name) for name in names]
    numbers = [int(match[2]) for match in matches if match]
    stems = {match[1] for match in matches if match}
    if len(numbers) == len(names) == len(set(numbers)) and len(stems) == 1:
        return sorted(range(len(names)), key=numbers.__getitem__)
    return list(range(len(names)))


def _finite(values: Vector) -> Vector:
    if not np.isfinite(values).all():
        raise FormatError("a coupling overflows when doubled; scale the problem down")
    return values
