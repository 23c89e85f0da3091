"""A saving that is at least a budget, with bounds on the number of ones per group."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from problems.checks import as_array
from problems.errors import InvalidProblemError
from problems.groups import Array, Mask, State, VariableGroups

Integers = npt.NDArray[np.int64]

#: Real costs are rounded to multiples of about this share of their sum.
_RESOLUTION = 2.0**-50
#: Costs that are multiples of this are kept as they are.
_FRACTION = 2.0**-20
#: Largest sum of costs that are kept as they are: up to there, float64 holds all integers.
_EXACT = 2.0**53


class WholeNumbers(NamedTuple):
    """Costs and budget in whole units: a state is feasible if ``costs @ x >= budget``."""

    costs: Integers
    """Shape (n,)."""
    budget: int
    """At least 0."""
    unit: float


class BudgetConstraint(VariableGroups):
    """``Σ c_i x_i ≥ B`` and ``l_g ≤ Σ_{i∈g} x_i ≤ u_g``; base of :class:`BudgetQUBO`.

    Attributes
    ----------
    n : int
        Number of variables.
    groups : ndarray of int32, shape (n,)
        Group of each variable, ``0 … num_groups - 1``; a group may be empty.
    costs : ndarray of float64, shape (n,)
        ``c_i``, at least 0.
    budget : float
        ``B``.
    least, most : ndarray of int64, shape (num_groups,)
        Smallest and largest number of ones of each group.
    """

    costs: npt.NDArray[np.float64]
    budget: float
    least: Integers
    most: Integers

    @property
    def num_groups(self) -> int:
        """Number of disjoint groups."""
        return len(self.most)

    @cached_property
    def whole(self) -> WholeNumbers:
        """Costs and budget in whole units, in which feasibility is decided.

        Sums of integers don't depend on their order, so that all solvers agree on what is
        feasible. The unit of integer costs, and of multiples of a power of two, is
        their greatest common divisor. Real costs are
        rounded to multiples of about 2⁻⁵⁰ of their sum, and may fall short of the budget by n
        units, which is more than the rounding of a sum in float64.
        """
        return whole_numbers(self.costs, self.budget)

    def saving(self, x: Any) -> Any:
        """Return ``Σ c_i x_i`` of states.

        Parameters
        ----------
        x : array_like of 0/1, shape (n,) or (batch, n)

        Returns
        -------
        float or ndarray of float64, shape (batch,)
        """
        X = self.as_states(x)
        saved = X.astype(np.float64) @ self.costs
        return float(saved) if X.ndim == 1 else saved

    def _feasible(self, X: State) -> Mask:
        counts = self.count(X)
        kept = ((counts >= self.least) & (counts <= self.most)).all(axis=1)
        return np.asarray(kept & (X.astype(np.int64) @ self.whole.costs >= self.whole.budget))

    def infeasibility(self, state: State) -> str | None:
        """Say which constraint a state violates, shape (n,); None if it is feasible."""
        counts = self.count(state[None])[0]
        if len(wrong := np.flatnonzero((counts < self.least) | (counts > self.most))):
            g = wrong[0]
            return f"has {counts[g]} ones in group {g}; it takes {self.least[g]} to {self.most[g]}"
        if not self.is_feasible(state):
            return f"saves {self.saving(state):.10g}; the budget is {self.budget:.10g}"
        return None

    def forced_variables(self) -> tuple[Mask, Mask]:
        """Return masks of the variables that are 0, and that are 1, in every feasible state.

        A variable is forced if its other value lowers the largest possible saving below the
        budget, or its group has no choice.
        """
        costs, budget, _ = self.whole
        spare = _largest_saving(self, costs) - budget
        zeros, ones = np.zeros(self.n, bool), np.zeros(self.n, bool)
        for g, members in enumerate(self.group_members):
            most, size = int(self.most[g]), len(members)
            order = members[np.argsort(-costs[members], kind="stable")]
            chosen, rest = order[:most], order[most:]
            if len(chosen):
                following = costs[rest[0]] if len(rest) else 0
                ones[chosen] = costs[chosen] - following > spare
                zeros[rest] = costs[chosen[-1]] - costs[rest] > spare
            if most == 0:
                zeros[members] = True
            if self.least[g] == size:
                ones[members] = True
        return zeros, ones

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "whole"}

    @cached_property
    def is_counted(self) -> bool:
        """Whether the counts of the groups restrict anything."""
        return bool((self.least > 0).any() or (self.most < self.group_sizes).any())


def whole_numbers(costs: npt.NDArray[np.float64], budget: float) -> WholeNumbers:
    """Express costs and budget in whole units; see :attr:`BudgetConstraint.whole`."""
    total = float(costs.sum())
    for fine in (1.0, _FRACTION):  # integers, and multiples of a power of two
        scaled = costs / fine
        if total / fine <= _EXACT and (scaled == np.floor(scaled)).all():
            integers = scaled.astype(np.int64)
            factor = max(1, int(np.gcd.reduce(integers, initial=0)))
            unit = factor * fine
            return WholeNumbers(integers // factor, max(0, _ceiling(budget, unit)), unit)
    fine = 2.0 ** math.ceil(math.log2(total) + math.log2(_RESOLUTION))
    rounded = np.rint(costs / fine).astype(np.int64)
    return WholeNumbers(rounded, max(0, _ceiling(budget, fine) - len(costs)), fine)


def _ceiling(value: float, unit: float) -> int:
    return math.ceil(Fraction(value) / Fraction(unit))


def checked_costs(n: int, costs: Any, budget: Any) -> tuple[npt.NDArray[np.float64], float]:
    """Return finite costs of at least 0, shape (n,), and a finite budget.

    Raises
    ------
    InvalidProblemError
        The message names the value and the remedy.
    """
    values = as_array(costs, "costs")
    if values.shape != (n,) or values.dtype.kind not in "biuf":
        raise InvalidProblemError(
            f"costs has shape {values.shape} and dtype {values.dtype}; pass the saving of each "
            f"variable, shape ({n},)"
        )
    values = values.astype(np.float64)
    if len(bad := np.flatnonzero(~(np.isfinite(values) & (values >= 0)))):
        raise InvalidProblemError(
            f"costs[{bad[0]}] is {values[bad[0]]:g}; a saving must be finite and at least 0 (0 "
            "for a variable that saves nothing)"
        )
    if not np.isfinite(values.sum()):
        raise InvalidProblemError("the sum of costs overflows float64; choose a larger unit")
    try:
        wanted = float(budget)
    except (TypeError, ValueError):
        raise InvalidProblemError(
            f"budget is {budget!r}; it must be a number, in the unit of costs"
        ) from None
    if not math.isfinite(wanted):
        raise InvalidProblemError(f"budget is {wanted}; it must be finite, in the unit of costs")
    return values, wanted


def checked_counts(
    n: int, groups: Any, least: Any, most: Any
) -> tuple[npt.NDArray[np.int32], Integers, Integers]:
    """Return the group of each variable, and the bounds on the ones of each group.

    Raises
    ------
    InvalidProblemError
        The message names the value and the remedy.
    """
    if groups is None:
        labels = np.zeros(n, dtype=np.int32)
    else:
        labels = as_array(groups, "groups")
        if labels.shape != (n,) or labels.dtype.kind not in "iu" or (n and labels.min() < 0):
            raise InvalidProblemError(
                f"groups has shape {labels.shape} and dtype {labels.dtype}; it must be an integer "
                f"of at least 0 per variable, shape ({n},)"
            )
        labels = labels.astype(np.int32)
    given = [bound for bound in (least, most) if bound is not None]
    last = int(labels.max(initial=0))
    count = max(np.size(bound) for bound in given) if given else last + 1
    if last >= (count if given else max(n, 1)):
        known = f"least and most name {count} groups" if given else f"there are {n} variables"
        raise InvalidProblemError(
            f"groups holds the label {last}, but {known}; number the groups from 0 on"
        )
    sizes = np.bincount(labels, minlength=count).astype(np.int64)
    low = _counts(least, "least", count, np.zeros_like(sizes))
    high = _counts(most, "most", count, sizes)
    for name, values in (("least", low), ("most", high)):
        if len(bad := np.flatnonzero((values < 0) | (values > sizes))):
            g = bad[0]
            raise InvalidProblemError(
                f"{name} of group {g} is {values[g]}; it must lie in [0, {sizes[g]}], the number "
                "of its variables"
            )
    if len(bad := np.flatnonzero(low > high)):
        g = bad[0]
        raise InvalidProblemError(
            f"least of group {g} is {low[g]}, above its most of {high[g]}; lower least, or raise "
            "most"
        )
    return labels, low, high


def _counts(values: Any, name: str, count: int, otherwise: Integers) -> Integers:
    if values is None:
        return otherwise
    array = np.atleast_1d(as_array(values, name))
    if array.dtype.kind not in "iu" or array.shape != (count,):
        raise InvalidProblemError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; pass an integer for each of "
            f"the {count} groups, or None"
        )
    return array.astype(np.int64)


def check_attainable(constraint: BudgetConstraint) -> None:
    """Refuse a budget above the largest saving that the counts allow.

    Raises
    ------
    InvalidProblemError
        The message names both.
    """
    costs, budget, unit = constraint.whole
    largest = _largest_saving(constraint, costs)
    if largest < budget:
        allowed = " that most allows" if constraint.is_counted else ""
        raise InvalidProblemError(
            f"budget is {constraint.budget:.10g}, but all variables{allowed} save only "
            f"{largest * unit:.10g} together; lower the budget to that"
            + (", or raise most" if constraint.is_counted else "")
        )


def _largest_saving(constraint: BudgetConstraint, costs: Array) -> int:
    """Return the largest saving in whole units: that of the costliest variables of each group."""
    if not constraint.is_counted:
        return int(costs.sum())
    largest = 0
    for g, members in enumerate(constraint.group_members):
        ordered = np.sort(costs[members])[::-1]
        largest += int(ordered[: constraint.most[g]].sum())
    return largest
