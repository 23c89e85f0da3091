"""Small random problems and their optimum by itertools, for the tests of exact solvers."""

from __future__ import annotations

import itertools

import numpy as np

from problems import CardinalityQUBO


def random_problem(
    n: int, num_groups: int, factored: bool, scale: float, seed: int
) -> CardinalityQUBO:
    """Draw coefficients, groups and cardinalities; some draws are integers, so that states tie."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, num_groups, n)
    sizes = np.bincount(groups, minlength=num_groups)
    k = rng.integers(0, sizes + 1)
    draw = (
        (lambda *s: rng.normal(size=s)) if seed % 3 else (lambda *s: rng.integers(-2, 3, s) * 1.0)
    )
    offset = scale * float(rng.normal())
    if factored:
        A, linear = np.sqrt(scale) * draw(max(1, n // 2), n), scale * draw(n)
        return CardinalityQUBO.from_factors(A, linear, k, groups=groups, offset=offset)
    Q = draw(n, n)
    return CardinalityQUBO(scale * (Q + Q.T), k, groups=groups, offset=offset)


def lowest_energy(problem: CardinalityQUBO) -> float:
    """Return the least energy over all feasible states of {0,1}ⁿ."""
    states = np.array(list(itertools.product([0, 1], repeat=problem.n)), dtype=np.uint8)
    states = states.reshape(-1, problem.n)
    return float(problem.energy(states[problem.is_feasible(states)]).min())
