"""Convex relaxation under a budget: a primal-dual active-set method, and its Lagrangian bound.

Minimise ``f(y) = yᵀPy + lᵀy`` over ``0 ≤ y ≤ 1`` with ``a·y ≥ b`` and ``l_g ≤ Σ_{i∈g} y_i ≤ u_g``.
For any ``y``, ``λ ≥ 0`` and ``μ``, with ``r = 2Py + l - λa - μ``, convexity gives

    f(x) ≥ f(y) + λ (b - a·y) + Σ_g (μ_g c_g - μ_g Σ_{i∈g} y_i) + Σ_i min(-r_i y_i, r_i (1 - y_i))

for every feasible ``x``, where ``c_g`` is ``l_g`` if ``μ_g > 0``, else ``u_g``; forcing ``x_i`` to
the worse of its values raises it by ``|r_i|``. The bound does not depend on convergence.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from solvers._numba import Array, jit
from solvers.exact.linalg import cholesky, solve


class BudgetProblem(NamedTuple):
    """A convex quadratic under a budget."""

    P: Array
    """Shape (n, n), positive definite."""
    linear: Array
    costs: Array
    """``a``, float64, shape (n,)."""
    budget: float
    groups: Array
    """int64, shape (n,)."""
    least: Array
    """float64, shape (groups,)."""
    most: Array


class Iterate(NamedTuple):
    """A point with multipliers; changed in place."""

    y: Array
    """Shape (n,)."""
    theta: Array
    """μ of each group, then λ: shape (groups + 1,)."""
    reduced: Array
    """r, shape (n,)."""


@jit
def relax(
    problem: BudgetProblem, fixed: Array, iterate: Iterate, cutoff: float, rounds: int
) -> float:
    """Improve a point and its multipliers; return the best bound found, of ``iterate``.

    Each round guesses which variables are at their bounds and which constraints are active from
    the signs of reduced costs and multipliers, and solves the optimality conditions for the rest
    (Hintermüller, Ito & Kunisch, SIAM J. Optim. 13, 2002). Rounds that make the bound worse are
    followed by coordinate descent from the best point.

    Parameters
    ----------
    problem : BudgetProblem
    fixed : int8, shape (n,)
        Value of each variable, -1 if it is free.
    iterate : Iterate
    cutoff : float
        Stop when the bound reaches it.
    rounds : int
    """
    P, linear, costs, budget, groups, least, most = problem
    n, num_groups = len(linear), len(least)
    y, theta, reduced = iterate
    for i in range(n):
        if fixed[i] >= 0:
            y[i] = fixed[i]
    g = np.empty(n)
    best_y, best_theta, best_r = y.copy(), theta.copy(), np.empty(n)
    best, worse = -np.inf, 0
    for round_ in range(rounds):
        _gradient(problem, y, g)
        value = _bound(problem, fixed, y, theta, g, reduced)
        if value > best + 1e-9 * abs(best) or best == -np.inf:
            best, worse = value, 0
            best_y[:], best_theta[:], best_r[:] = y, theta, reduced
        else:
            if value > best:
                best = value
                best_y[:], best_theta[:], best_r[:] = y, theta, reduced
            worse += 1
        if best >= cutoff or worse >= 3 or round_ == rounds - 1:
            break
        if worse:
            y[:], theta[:] = best_y, best_theta
            for i in range(n):
                y[i] = min(1.0, max(0.0, y[i]))
            _descend(problem, fixed, y, theta, 2 * worse)
            _gradient(problem, y, g)
        if not _newton(problem, fixed, y, theta, g):
            _descend(problem, fixed, y, theta, 2)
    y[:], theta[:], reduced[:] = best_y, best_theta, best_r
    for i in range(n):
        y[i] = min(1.0, max(0.0, y[i]))
    _gradient(problem, y, g)
    if best < cutoff and _excess(problem, y, g) - best > 1e-7 * abs(best):
        best = _ascend(problem, fixed, iterate, best, cutoff, rounds)
    return best


@jit
def _excess(problem: BudgetProblem, y: Array, g: Array) -> float:
    """Return ``f(y)``, or infinity if the point misses the budget or a count."""
    num_groups = len(problem.least)
    counts, saved, value = np.zeros(num_groups), 0.0, 0.0
    for i in range(len(y)):
        counts[problem.groups[i]] += y[i]
        saved += problem.costs[i] * y[i]
        value += 0.5 * y[i] * (g[i] + problem.linear[i])
    if saved < problem.budget - 1e-7:
        return np.inf
    for h in range(num_groups):
        if counts[h] < problem.least[h] - 1e-7 or counts[h] > problem.most[h] + 1e-7:
            return np.inf
    return value


@jit
def _ascend(
    problem: BudgetProblem, fixed: Array, iterate: Iterate, best: float, cutoff: float, rounds: int
) -> float:
    """Raise the bound by Newton steps of the dual with backtracking, from converged points."""
    y, theta, reduced = iterate
    g, guess, r = np.empty(len(y)), np.empty(len(y)), np.empty(len(y))
    _descend(problem, fixed, y, theta, 500)
    _gradient(problem, y, g)
    current = _bound(problem, fixed, y, theta, g, r)
    if current > best:
        best = current
        reduced[:] = r
    for _ in range(rounds):
        target, kept, before = theta.copy(), theta.copy(), y.copy()
        guess[:] = y
        _gradient(problem, y, g)
        if not _newton(problem, fixed, guess, target, g):
            break
        length, raised = 1.0, False
        for _ in range(8):
            theta[:] = kept + length * (target - kept)
            y[:] = before
            _descend(problem, fixed, y, theta, 500)
            _gradient(problem, y, g)
            value = _bound(problem, fixed, y, theta, g, r)
            if value > current:
                raised = value > current + 1e-9 * abs(current)
                current = value
                break
            length *= 0.25
        if current > best:
            best = current
            reduced[:] = r
        if not raised or best >= cutoff:
            break
    return best


@jit
def _gradient(problem: BudgetProblem, y: Array, g: Array) -> None:
    """Compute ``2Py + l``."""
    P = problem.P
    for i in range(len(g)):
        g[i] = problem.linear[i]
    for j in range(len(g)):
        if y[j] != 0.0:
            for i in range(len(g)):
                g[i] += 2.0 * y[j] * P[j, i]


@jit
def _bound(
    problem: BudgetProblem, fixed: Array, y: Array, theta: Array, g: Array, reduced: Array
) -> float:
    """Return the Lagrangian bound at a point, and set the reduced costs."""
    num_groups = len(problem.least)
    price = theta[num_groups]
    total = price * problem.budget
    for h in range(num_groups):
        total += theta[h] * (problem.least[h] if theta[h] > 0.0 else problem.most[h])
    for i in range(len(y)):
        charge = price * problem.costs[i] + theta[problem.groups[i]]
        r = g[i] - charge
        reduced[i] = r
        total += y[i] * (0.5 * (g[i] + problem.linear[i]) - charge)
        if fixed[i] < 0:
            total += -r * y[i] if r > 0.0 else r * (1.0 - y[i])
    return total


@jit
def _descend(problem: BudgetProblem, fixed: Array, y: Array, theta: Array, sweeps: int) -> None:
    """Minimise the Lagrangian over single coordinates, at fixed multipliers."""
    P, n = problem.P, len(y)
    g = np.empty(n)
    _gradient(problem, y, g)
    price = theta[len(problem.least)]
    for _ in range(sweeps):
        largest = 0.0
        for i in range(n):
            if fixed[i] < 0:
                r = g[i] - price * problem.costs[i] - theta[problem.groups[i]]
                new = min(1.0, max(0.0, y[i] - r / (2.0 * P[i, i])))
                step = new - y[i]
                if step != 0.0:
                    y[i] = new
                    largest = max(largest, abs(step))
                    for v in range(n):
                        g[v] += 2.0 * step * P[i, v]
        if largest < 1e-11:
            return


@jit
def _newton(problem: BudgetProblem, fixed: Array, y: Array, theta: Array, g: Array) -> bool:
    """Solve the optimality conditions on a guess of the active set; False if that fails."""
    P, linear, costs, budget, groups, least, most = problem
    n, num_groups = len(y), len(least)
    rows = num_groups + 1
    price = theta[num_groups]
    free, count = np.empty(n, np.int64), 0
    for i in range(n):
        if fixed[i] >= 0:
            continue
        r = g[i] - price * costs[i] - theta[groups[i]]
        guess = y[i] - r / (2.0 * P[i, i])
        if guess <= 0.0:
            y[i] = 0.0
        elif guess >= 1.0:
            y[i] = 1.0
        else:
            free[count] = i
            count += 1
    _gradient(problem, y, g)
    # What the active constraints still miss; a constraint is active if violated or priced.
    sums = np.zeros(rows)
    for i in range(n):
        sums[groups[i]] += y[i]
        sums[num_groups] += costs[i] * y[i]
    active, miss, local = np.empty(rows, np.int64), np.empty(rows), 0
    is_low = np.empty(rows, np.bool_)
    has_free = np.zeros(rows, np.bool_)
    for a in range(count):
        has_free[groups[free[a]]] = True
        has_free[num_groups] = has_free[num_groups] or costs[free[a]] > 0.0
    for c in range(rows):
        low = least[c] if c < num_groups else budget
        high = most[c] if c < num_groups else np.inf
        target = sums[c]
        if sums[c] < low - 1e-9 or theta[c] > 0.0:
            target = low
        elif sums[c] > high + 1e-9 or theta[c] < 0.0:
            target = high
        else:
            theta[c] = 0.0
            continue
        if has_free[c]:
            active[local], miss[local], is_low[local] = c, target - sums[c], target == low
            local += 1
        elif abs(target - sums[c]) > 1e-9:
            _reprice(problem, fixed, y, theta, g, c, target > sums[c])
    if count == 0:
        return True
    H, u = np.empty((count, count)), np.empty(count)
    for a in range(count):
        i = free[a]
        u[a] = g[i]
        for b in range(a + 1):
            H[a, b] = 2.0 * P[i, free[b]]
    if not cholesky(H, count):
        return False
    solve(H, u, count)
    R = np.zeros((local, count))
    for e in range(local):
        for a in range(count):
            i = free[a]
            if active[e] == num_groups:
                R[e, a] = costs[i]
            elif groups[i] == active[e]:
                R[e, a] = 1.0
    W = R.copy()
    T, t = np.zeros((local, local)), np.zeros(local)
    for e in range(local):
        solve(H, W[e], count)
    for e in range(local):
        t[e] = miss[e]
        for a in range(count):
            t[e] += R[e, a] * u[a]
        for d in range(local):
            for a in range(count):
                T[e, d] += R[e, a] * W[d, a]
        T[e, e] *= 1.0 + 1e-12
    if local:
        if not cholesky(T, local):
            return False
        solve(T, t, local)
    for a in range(count):
        step = -u[a]
        for e in range(local):
            step += t[e] * W[e, a]
        if not np.isfinite(step):
            return False
        y[free[a]] += step
    for e in range(local):
        c = active[e]
        theta[c] = t[e]
        if c == num_groups:
            theta[c] = max(0.0, t[e])
        elif least[c] < most[c] and (t[e] > 0.0) != is_low[e]:
            theta[c] = 0.0
    return True


@jit
def _reprice(
    problem: BudgetProblem, fixed: Array, y: Array, theta: Array, g: Array, c: int, up: bool
) -> None:
    """Move the multiplier of a constraint without free variables to where one becomes free."""
    num_groups = len(problem.least)
    price = theta[num_groups]
    found, edge = False, 0.0
    for i in range(len(y)):
        h = problem.groups[i]
        if fixed[i] >= 0 or (c < num_groups and h != c):
            continue
        if up != (y[i] == 0.0):
            continue
        if c == num_groups:
            if problem.costs[i] == 0.0:
                continue
            rate = (g[i] - theta[h]) / problem.costs[i]
        else:
            rate = g[i] - price * problem.costs[i]
        if not found or (rate < edge if up else rate > edge):
            found, edge = True, rate
    if found:
        theta[c] = max(0.0, edge) if c == num_groups else edge
