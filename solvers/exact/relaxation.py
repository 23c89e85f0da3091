"""Convex relaxation of a node by an active-set method, and its Lagrangian bound.

Minimise ``f(y) = yᵀPy + lᵀy`` over ``0 ≤ y ≤ 1`` with ``Σ_{i∈g} y_i = k_g`` in each group, for
positive definite ``P``. For any ``y`` and multipliers ``θ``, with the gradient
``r = 2Py + l - θ``, convexity gives the Lagrangian bound

    f(x) ≥ f(y) + Σ_g θ_g (k_g - Σ_{i∈g} y_i) + Σ_i min(-r_i y_i, r_i (1 - y_i))

for every feasible ``x``, and forcing ``x_i`` to the worse of its two values raises it by
``|r_i|`` (reduced-cost fixing). The bound does not depend on convergence of the method.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from solvers._numba import Array, jit
from solvers.exact.linalg import cholesky, solve

#: Values this close to a bound are set to it.
SNAP = 1e-11


class ConvexProblem(NamedTuple):
    """Minimise ``xᵀPx + linearᵀx`` with ``k_g`` ones in group ``g``; ``P`` positive definite."""

    P: Array
    """Shape (n, n)."""
    linear: Array
    """Shape (n,)."""
    group: Array
    """Label of each variable, int64, shape (n,)."""
    k: Array
    """Number of ones in each group, int64, shape (groups,)."""


class Iterate(NamedTuple):
    """A point of the relaxation with its gradient and multipliers; changed in place."""

    y: Array
    """Shape (n,)."""
    gradient: Array
    """``2Py + linear``, shape (n,)."""
    theta: Array
    """A multiplier for each group, shape (groups,)."""


@jit
def relax(
    problem: ConvexProblem, iterate: Iterate, tolerance: float, cutoff: float, steps: int
) -> float:
    """Move ``y`` to the minimum and return the bound proven there.

    Primal active set: Newton steps on the free variables, in their groups' planes, up to the
    first blocking bound; at a stationary point, the variable whose multiplier violates its sign
    most is freed (a pair, if its group has no free variable).

    Parameters
    ----------
    problem : ConvexProblem
    iterate : Iterate
        ``y`` is a feasible start. It is replaced by the last point, with its gradient and the
        multipliers of the bound.
    tolerance : float
        Largest ignored violation of a multiplier's sign.
    cutoff : float
        Stop when the bound reaches it.
    steps : int
        Newton steps at most, 2 or more: one frees a variable, the next moves it.
    """
    P, y, group = problem.P, iterate.y, problem.group
    gradient, theta = iterate.gradient, iterate.theta
    n, groups = len(y), len(problem.k)
    free = np.empty(n, np.int64)
    is_free = np.zeros(n, np.bool_)
    count = 0
    for i in range(n):
        if y[i] <= SNAP:
            y[i] = 0.0
        elif y[i] >= 1.0 - SNAP:
            y[i] = 1.0
        else:
            free[count] = i
            is_free[i] = True
            count += 1
    refresh(problem, iterate)
    step = np.zeros(n)
    has_free = np.zeros(groups, np.bool_)
    theta[:] = 0.0
    low, high = np.empty(groups, np.int64), np.empty(groups, np.int64)
    for _ in range(min(steps, 50 + 5 * n)):
        if count:
            if not newton(problem, iterate, free, count, step):
                break
            if advance(P, iterate, free, count, step):
                left = count
                count = 0
                for a in range(left):
                    i = free[a]
                    if 0.0 < y[i] < 1.0:
                        free[count] = i
                        count += 1
                    else:
                        is_free[i] = False
                continue
        has_free[:] = False
        for a in range(count):
            has_free[group[free[a]]] = True
        g = most_violated(iterate, group, is_free, has_free, low, high, tolerance)
        if g < 0 or bound(problem, iterate) >= cutoff:
            break
        if low[g] >= 0:
            free[count] = low[g]
            is_free[low[g]] = True
            count += 1
        if high[g] >= 0:
            free[count] = high[g]
            is_free[high[g]] = True
            count += 1
    # The gradient has accumulated rounding errors; the bound must not use them.
    refresh(problem, iterate)
    clip(gradient, group, theta)
    return float(bound(problem, iterate))


@jit
def most_violated(
    iterate: Iterate,
    group: Array,
    is_free: Array,
    has_free: Array,
    low: Array,
    high: Array,
    tolerance: float,
) -> int:
    """Find the group with the largest violation, -1 if all are within the tolerance.

    ``low[g]`` and ``high[g]`` are set to the variables to free: the one at 0 with the smallest
    gradient, and the one at 1 with the largest; -1 for none. ``theta`` is set for groups without
    a free variable.
    """
    y, gradient, theta = iterate
    low[:] = -1
    high[:] = -1
    for i in range(len(y)):
        g = group[i]
        if not is_free[i]:
            if y[i] == 0.0:
                if low[g] < 0 or gradient[i] < gradient[low[g]]:
                    low[g] = i
            elif high[g] < 0 or gradient[i] > gradient[high[g]]:
                high[g] = i
    worst, where = tolerance, -1
    for g in range(len(low)):
        wrong = 0.0
        if has_free[g]:
            down = theta[g] - gradient[low[g]] if low[g] >= 0 else 0.0
            up = gradient[high[g]] - theta[g] if high[g] >= 0 else 0.0
            wrong = max(down, up)
            if down >= up:
                high[g] = -1
            else:
                low[g] = -1
        elif low[g] >= 0 and high[g] >= 0:
            wrong = gradient[high[g]] - gradient[low[g]]
            theta[g] = 0.5 * (gradient[high[g]] + gradient[low[g]])
        elif low[g] >= 0:
            theta[g] = gradient[low[g]]
        elif high[g] >= 0:
            theta[g] = gradient[high[g]]
        if wrong > worst:
            worst, where = wrong, g
    return where


@jit
def clip(gradient: Array, group: Array, theta: Array) -> None:
    """Clip each multiplier to the range of its group's gradients.

    The optimal one is in that range, and the range limits the rounding error of the bound.
    """
    least, most = np.full(len(theta), np.inf), np.full(len(theta), -np.inf)
    for i in range(len(gradient)):
        least[group[i]] = min(least[group[i]], gradient[i])
        most[group[i]] = max(most[group[i]], gradient[i])
    for g in range(len(theta)):
        theta[g] = min(max(theta[g], least[g]), most[g]) if least[g] <= most[g] else 0.0


@jit
def refresh(problem: ConvexProblem, iterate: Iterate) -> None:
    """Recompute the gradient ``2Py + l``."""
    P, linear, y, gradient = problem.P, problem.linear, iterate.y, iterate.gradient
    n = len(y)
    for i in range(n):
        gradient[i] = linear[i]
    for j in range(n):
        if y[j] != 0.0:
            for i in range(n):
                gradient[i] += 2.0 * y[j] * P[j, i]


@jit
def bound(problem: ConvexProblem, iterate: Iterate) -> float:
    """Return the Lagrangian bound at ``y`` with multipliers ``theta``."""
    linear, group, k = problem.linear, problem.group, problem.k
    y, gradient, theta = iterate
    total = 0.0
    for g in range(len(k)):
        total += theta[g] * k[g]
    for i in range(len(y)):
        r = gradient[i] - theta[group[i]]
        # f(y) = ½ Σ y (2Py + l + l): half of it a variable.
        total += y[i] * (0.5 * (gradient[i] + linear[i]) - theta[group[i]])
        total -= r * y[i] if r > 0.0 else r * (y[i] - 1.0)
    return total


@jit
def newton(problem: ConvexProblem, iterate: Iterate, free: Array, count: int, step: Array) -> bool:
    """Compute a Newton step on the free variables in the planes of their groups; set ``theta``.

    ``2P_FF p = -(gradient_F - Bθ)`` with ``Bᵀp = 0``, through the Schur complement ``BᵀP_FF⁻¹B``.
    Returns False if ``P_FF`` is not numerically positive definite, or so small that the step
    overflows.
    """
    P, group, gradient, theta = problem.P, problem.group, iterate.gradient, iterate.theta
    H = np.empty((count, count))
    u = np.empty(count)
    local = np.full(len(theta), -1)
    present = 0
    for a in range(count):
        i = free[a]
        u[a] = gradient[i]
        for b in range(a + 1):
            H[a, b] = 2.0 * P[i, free[b]]
        if local[group[i]] < 0:
            local[group[i]] = present
            present += 1
    if not cholesky(H, count):
        return False
    solve(H, u, count)
    W = np.zeros((present, count))
    T = np.zeros((present, present))
    t = np.zeros(present)
    for a in range(count):
        c = local[group[free[a]]]
        W[c, a] = 1.0
        t[c] += u[a]
    for c in range(present):
        solve(H, W[c], count)
    for a in range(count):
        c = local[group[free[a]]]
        for e in range(present):
            T[c, e] += W[e, a]
    if not cholesky(T, present):
        return False
    solve(T, t, present)
    for a in range(count):
        p = -u[a]
        for c in range(present):
            p += t[c] * W[c, a]
        if not np.isfinite(p):
            return False
        step[a] = p
    for a in range(count):
        theta[group[free[a]]] = t[local[group[free[a]]]]
    return True


@jit
def advance(P: Array, iterate: Iterate, free: Array, count: int, step: Array) -> bool:
    """Take the step up to the first bound; return True if a variable reached its bound."""
    y, gradient = iterate.y, iterate.gradient
    length = 1.0
    blocking = -1
    for a in range(count):
        i = free[a]
        if y[i] + length * step[a] < 0.0:
            length = -y[i] / step[a]
            blocking = a
        elif y[i] + length * step[a] > 1.0:
            length = (1.0 - y[i]) / step[a]
            blocking = a
    met = blocking >= 0
    for a in range(count):
        i = free[a]
        old = y[i]
        new = old + length * step[a]
        if a == blocking:
            new = 0.0 if step[a] < 0.0 else 1.0
        elif new < SNAP:
            new, met = 0.0, True
        elif new > 1.0 - SNAP:
            new, met = 1.0, True
        y[i] = new
        move = 2.0 * (new - old)
        if move != 0.0:
            for j in range(len(y)):
                gradient[j] += move * P[i, j]
    return met
