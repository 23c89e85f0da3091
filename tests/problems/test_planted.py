"""Planted optima against enumeration and swaps."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from problems import InvalidProblemError
from problems.planted import planted, tiled


def lowest(problem):
    states = np.zeros((0, problem.n), np.uint8)
    rows = [np.isin(np.arange(problem.n), c) for c in
            itertools.combinations(range(problem.n), problem.k)]  # fmt: skip
    return problem.energy(np.concatenate([states, np.array(rows, np.uint8)])).min()


@given(
    n=st.integers(1, 11),
    share=st.floats(0, 1),
    rank=st.integers(1, 5),
    slope=st.sampled_from([0.0, 0.1, 10.0]),
    seed=st.integers(0, 1000),
)
def test_planted_optimum_is_the_lowest(n, share, rank, slope, seed):
    found = planted(n, round(share * n), rank, slope=slope, seed=seed)
    assert found.problem.is_feasible(found.x)
    assert found.energy == found.problem.energy(found.x)
    assert found.energy == pytest.approx(0, abs=1e-5 * n)
    assert found.energy <= lowest(found.problem) + 1e-5 * n


@given(
    n=st.integers(1, 11),
    share=st.floats(0, 1),
    tile=st.integers(1, 5),
    rank=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_tiled_optimum_is_the_lowest(n, share, tile, rank, seed):
    found = tiled(n, round(share * n), tile=tile, rank=rank, seed=seed)
    assert found.problem.is_feasible(found.x)
    assert found.energy == pytest.approx(found.problem.energy(found.x), abs=1e-9)
    assert found.energy == pytest.approx(lowest(found.problem), abs=1e-9)


@pytest.mark.parametrize("make", [planted, tiled])
def test_same_seed_same_problem(make):
    options = {"rank": 3, "seed": 7}
    assert make(40, 20, **options).problem.hash == make(40, 20, **options).problem.hash


def test_bad_sizes_are_refused():
    with pytest.raises(InvalidProblemError, match="k = 9"):
        planted(8, 9, 2)
    with pytest.raises(InvalidProblemError, match="tile = 30"):
        tiled(8, 4, tile=30)
