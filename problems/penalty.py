"""Penalties: the cardinality moved into the cost, for backends without constraints.

The penalised energy is ``E(x) + Σ_g λ_g (Σ_{i∈g} x_i - k_g)² + Σ_g μ_g (Σ_{i∈g} x_i - k_g)``.
Both terms vanish on feasible states, so feasible energies never change. The *strength* λ raises
the energy of infeasible states; the *shift* μ, a Lagrange multiplier, makes "one too many" and
"one too few" equally costly, so that less strength is needed. A shift alone adds no couplings
(:class:`LinearPenalty`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from problems.errors import InvalidProblemError
from problems.qubo import CardinalityQUBO

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Penalty:
    """Strength and shift of each cardinality group."""

    strength: Vector
    """λ, shape (num_groups,), at least 0."""
    shift: Vector
    """μ, shape (num_groups,)."""

    def scaled(self, factor: float) -> Penalty:
        """Return the penalty with its strength multiplied."""
        return Penalty(self.strength * factor, self.shift)

    def raised(self, violation: Vector, growth: float) -> Penalty:
        """Return the next penalty after the lowest known state violated the cardinality.

        The step of the method of multipliers (Hestenes 1969; Powell 1969): the shift moves
        by ``2λ`` times the ``violation`` of the minimiser, shape (num_groups,), positive for
        too many ones, and the strength grows.
        """
        return Penalty(self.strength * growth, self.shift + 2 * self.strength * violation)


@dataclass(frozen=True)
class LinearPenalty(Penalty):
    """A shift without strength, to be found by bisection.

    The minimum of ``E(x) + μ Σx`` is the best of all states with its own count, and that count
    falls as μ grows (Everett, Operations Research 11, 1963), so that a bracket of μ can be
    halved until the count is k. There need not be such a μ: counts at which the best energy is
    not convex are skipped, and the nearest states are left to be repaired. With several groups each
    has its own bracket, though their counts depend on each other.
    """

    low: Vector
    """Largest μ that gave too many ones, shape (num_groups,); -inf if there is none yet."""
    high: Vector
    """Smallest μ that gave too few; inf if there is none yet."""
    step: Vector
    """Next change of μ while one side of its bracket is missing."""

    def raised(self, violation: Vector, growth: float) -> Penalty:
        """Halve each bracket that missed its count, or extend it to find its other side."""
        low = np.where(violation > 0, self.shift, self.low)
        high = np.where(violation < 0, self.shift, self.high)
        closed = np.isfinite(low) & np.isfinite(high)
        with np.errstate(invalid="ignore"):
            middle = low + (high - low) / 2
        moved = np.where(closed, middle, self.shift + np.sign(violation) * self.step)
        return LinearPenalty(
            self.strength,
            np.where(violation == 0, self.shift, moved),
            low,
            high,
            np.where(closed | (violation == 0), self.step, growth * self.step),
        )


def penalised(problem: CardinalityQUBO, penalty: Penalty) -> CardinalityQUBO:
    """Move the cardinalities into the cost; feasible energies are unchanged.

    Parameters
    ----------
    problem : CardinalityQUBO
    penalty : Penalty
        From :func:`penalty_for`, or any other.

    Returns
    -------
    CardinalityQUBO
        With the same groups and cardinalities, which a backend may now ignore. Dense, since the
        square of the constraint couples all variables of a group; float64.
    """
    labels, k = problem.groups, problem.cardinalities.astype(np.float64)
    strength, shift = penalty.strength, penalty.shift
    Q = problem.Q.astype(np.float64)
    if problem.num_groups == 1:
        Q += strength[0]
    else:
        Q += np.where(labels[:, None] == labels[None, :], strength[labels], 0.0)
    Q[np.diag_indices(problem.n)] += (shift - 2 * strength * k)[labels]
    offset = problem.offset + float((strength * k * k - shift * k).sum())
    return CardinalityQUBO(Q, problem.cardinalities, groups=labels, offset=offset)


def penalty_for(problem: CardinalityQUBO, policy: str | float) -> Penalty:
    """Compute a penalty by a named policy, or with a number as the strength of every group.

    Parameters
    ----------
    problem : CardinalityQUBO
    policy : str or float
        One of :data:`POLICIES`, or a non-negative strength.

    Returns
    -------
    Penalty

    Raises
    ------
    InvalidProblemError
        If the name is unknown or the number is negative or not finite.
    """
    check_policy(policy)
    if isinstance(policy, str):
        return POLICIES[policy](problem)
    return _uniform(problem, float(policy))


def check_policy(policy: str | float) -> None:
    """Check a policy before :func:`penalty_for` is called with it.

    Raises
    ------
    InvalidProblemError
        If the name is unknown or the number is negative or not finite.
    """
    if isinstance(policy, str):
        if policy not in POLICIES:
            raise InvalidProblemError(
                f"unknown penalty policy {policy!r}; policies: {', '.join(POLICIES)}"
            )
    elif not (np.isfinite(policy) and policy >= 0):
        raise InvalidProblemError(
            f"the penalty is {policy}; it must be a finite number of 0 or more"
        )


def exchange_penalty(problem: CardinalityQUBO) -> Penalty:
    """Strength that provably suffices, from the largest cost of repairing a violation.

    Adding the cheapest absent variable to a state with fewer than ``k`` ones costs at most ``U``,
    the k-th smallest of ``u_i = Q_ii + 2·(the k - 1 largest positive couplings)``, since at most
    ``k - 1`` variables are present. Removing the cheapest variable from one with more than ``k``
    costs at most ``D``, the (n - k)-th smallest of
    ``d_i = -Q_ii - 2·(the least sum of k or more couplings)``. With ``μ = (D - U)/2`` both
    repairs cost at most ``λ = (U + D)/2``, and a violation of ``t`` saves at most ``tλ`` but
    costs ``t²λ``: every minimum of the penalised cost can be made feasible without a higher
    energy. Couplings to other groups enter both bounds at their worst case.
    """
    up, down = np.zeros(problem.num_groups), np.zeros(problem.num_groups)
    for g, members in enumerate(problem.group_members):
        up[g], down[g] = _repair_costs(problem, members, int(problem.cardinalities[g]))
    strength = np.maximum((up + down) / 2, _FLOOR * float(_moves(problem).mean()))
    return Penalty(strength, (down - up) / 2)


def _repair_costs(
    problem: CardinalityQUBO, members: npt.NDArray[np.intp], k: int
) -> tuple[float, float]:
    """Bound the cost of adding and of removing the best variable of one group."""
    size = len(members)
    if size == 0:
        return 0.0, 0.0
    rows = 2 * problem.Q[members].astype(np.float64)
    cross = np.delete(rows, members, axis=1)
    own = rows[:, members]
    own[np.diag_indices(size)] = np.inf
    own.sort(axis=1)  # moves the variable itself to the end
    diagonal = problem.diagonal[members]
    most = np.maximum(own[:, max(size - k, 0) : size - 1], 0).sum(axis=1)
    u = np.sort(diagonal + most + np.maximum(cross, 0).sum(axis=1))
    if k == size:  # the count can't be too high: only one direction needs a penalty
        return float(u[-1]), -float(u[-1])
    least = own[:, :k].sum(axis=1) + np.minimum(own[:, k:], 0).sum(axis=1)
    d = np.sort(-(diagonal + least + np.minimum(cross, 0).sum(axis=1)))
    return (float(u[k - 1]) if k else -float(d[-1])), float(d[size - k - 1])


def verma_lewis_penalty(problem: CardinalityQUBO) -> Penalty:
    """Largest change of the cost by one flip from any state (Verma and Lewis 2022)."""
    Q = _off_diagonal(problem)
    rise = problem.diagonal + 2 * np.maximum(Q, 0).sum(axis=1)
    fall = -problem.diagonal - 2 * np.minimum(Q, 0).sum(axis=1)
    return _uniform(problem, float(np.maximum(rise, fall).max()))


def max_coefficient_penalty(problem: CardinalityQUBO) -> Penalty:
    """Largest coefficient of the QUBO, a coupling counted once (MQC in arXiv 2206.11040)."""
    coupling = 2 * np.abs(_off_diagonal(problem)).max(initial=0)
    return _uniform(problem, float(max(np.abs(problem.diagonal).max(initial=0), coupling)))


def sum_abs_penalty(problem: CardinalityQUBO) -> Penalty:
    """Sum of all absolute coefficients: a loose strength that always suffices."""
    return _uniform(problem, float(np.abs(problem.Q).sum(dtype=np.float64)))


def mean_move_penalty(problem: CardinalityQUBO) -> Penalty:
    """Mean absolute change by one flip at the mean-field state; small, to be raised on demand."""
    return _uniform(problem, float(_moves(problem).mean()))


def balanced_penalty(problem: CardinalityQUBO) -> Penalty:
    """Mean-field multiplier with the mean distance from its threshold as strength.

    At the mean-field state ``x_i = k/n`` the flips cost ``f_i``; the multiplier puts the
    threshold between the k-th and the (k+1)-th smallest at zero, so that the cost itself already
    favours ``k`` ones, and a small strength suffices.
    """
    fields = _mean_fields(problem)
    strength, shift = np.zeros(problem.num_groups), np.zeros(problem.num_groups)
    for g, members in enumerate(problem.group_members):
        k, own = int(problem.cardinalities[g]), np.sort(fields[members])
        if len(own) == 0:
            continue
        shift[g] = -(own[max(k - 1, 0)] + own[min(k, len(own) - 1)]) / 2
        strength[g] = np.abs(own + shift[g]).mean()
    return Penalty(np.maximum(strength, _FLOOR * float(_moves(problem).mean())), shift)


def adaptive_penalty(problem: CardinalityQUBO) -> Penalty:
    """Start far below what suffices, for backends that raise the strength when needed.

    Near the smallest strength that gives feasible samples, the landscape is still that of the
    cost, which single flips can descend. Starts at 2⁻⁸ of the lower of ``exchange`` and
    ``balanced``, which eight doublings reach.
    """
    bounds = exchange_penalty(problem), balanced_penalty(problem)
    return min(bounds, key=lambda penalty: float(penalty.strength.sum())).scaled(2.0**-8)


def linear_penalty(problem: CardinalityQUBO) -> LinearPenalty:
    """Shift alone, which adds no couplings (Mirkarimi et al. 2024, arXiv 2404.05476).

    Bisection starts at the multiplier of ``balanced``, with an eighth of its strength as the
    first step. To be adjusted to samples.
    """
    start, none = balanced_penalty(problem), np.full(problem.num_groups, np.inf)
    return LinearPenalty(0.0 * start.strength, start.shift, -none, none, start.strength / 8)


#: Penalty policies by name.
POLICIES: dict[str, Callable[[CardinalityQUBO], Penalty]] = {
    "adaptive": adaptive_penalty,
    "exchange": exchange_penalty,
    "balanced": balanced_penalty,
    "linear": linear_penalty,
    "verma-lewis": verma_lewis_penalty,
    "max-coefficient": max_coefficient_penalty,
    "mean-move": mean_move_penalty,
    "sum-abs": sum_abs_penalty,
}

#: Smallest strength of policies that may compute 0, in units of the mean change by a flip.
_FLOOR = 1e-3


def _uniform(problem: CardinalityQUBO, strength: float) -> Penalty:
    return Penalty(np.full(problem.num_groups, strength), np.zeros(problem.num_groups))


def _off_diagonal(problem: CardinalityQUBO) -> Vector:
    Q = problem.Q.astype(np.float64)
    np.fill_diagonal(Q, 0)
    return Q


def _mean_fields(problem: CardinalityQUBO) -> Vector:
    """Local fields at the mean-field state, ``x_i = k_g / n_g`` in each group."""
    density = (problem.cardinalities / np.maximum(problem.group_sizes, 1))[problem.groups]
    return problem.diagonal + 2 * (_off_diagonal(problem) @ density)


def _moves(problem: CardinalityQUBO) -> Vector:
    return np.abs(_mean_fields(problem))
