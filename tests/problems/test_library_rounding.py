"""Rounding of blocks for the library: exact energies, and fine enough near the best states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from problems import CardinalityQUBO
from problems.library.recipe import fisher_factor, rebuild, start_of, unit_exponent
from problems.scaling import coefficient_sum
from scripts.library.fidelity import LARGEST_DEVIATION, Reference
from scripts.library.parts import Parts, check, energies, load_parts, save_parts
from scripts.library.rounding import LEVELS, Bits, recipe_of, rounded

COLUMNS, SAMPLES = 8, 20


@pytest.fixture(autouse=True)
def _short_searches(monkeypatch):
    """The blocks here are small."""
    monkeypatch.setattr("scripts.library.fidelity.SECONDS", 0.02)


def block(
    seed: int, *, kind: str = "factor", n: int = 40, spread: float = 1.0, first: float = 1.0
) -> Parts:
    """A random block; slopes and weights are lognormal; the first weight may be larger."""
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0, spread, n) * rng.choice([-1, 1], n)
    weights[0] *= first
    rows, columns = np.divmod(np.arange(n), COLUMNS)
    slope = rng.lognormal(-6, spread, n) * rng.choice([-1, 1], n)
    start = rng.permutation(np.arange(n) % 2).astype(np.uint8)
    parts = Parts(CardinalityQUBO(np.eye(n), n // 2), start, slope, weights, rows, columns)
    deltas = rng.normal(size=(SAMPLES, rows.max() + 1))
    inputs = rng.normal(size=(SAMPLES, COLUMNS))
    Q = np.zeros((n, n))
    if kind != "gram":
        parts.scale = 0.01
        parts.factor = 0.01 * deltas[:, rows] * inputs[:, columns] * weights
        Q += parts.factor.T @ parts.factor
        if kind == "outer":
            parts.deltas, parts.inputs = deltas, inputs
    if kind in ("gram", "sum"):
        parts.moments = 1e-3 * inputs.T @ inputs
        part = parts.moments[np.ix_(columns, columns)] * weights[:, None] * weights
        Q += np.where(rows[:, None] == rows, part, 0)
    x0 = start.astype(float)
    half = Q @ x0
    Q[np.diag_indices(n)] -= slope + 2 * half
    parts.problem = CardinalityQUBO(Q, n // 2, offset=float(slope @ x0 + half @ x0))
    check(parts)
    return parts


@pytest.mark.parametrize("kind", ["factor", "outer", "gram", "sum"])
@given(seed=st.integers(0, 10**6), level=st.sampled_from(LEVELS), spread=st.floats(0, 3))
@example(seed=566, level=10, spread=3.0)
@settings(max_examples=15, deadline=None)
def test_rounded_energies_are_exact_and_near(kind, seed, level, spread):
    parts = block(seed, kind=kind, spread=spread)
    recipe = recipe_of(parts, Bits(level))
    problem = rebuild(recipe)
    assert (start_of(recipe) == parts.start).all()
    assert problem.energy(parts.start) == 0.0
    assert np.ldexp(coefficient_sum(problem), -unit_exponent(recipe)) < 2**53
    rng = np.random.default_rng(seed)
    states = np.array([rng.permutation(parts.start) for _ in range(20)])
    got = problem.energy(states)
    whole = np.ldexp(got, -unit_exponent(recipe))
    assert (whole == np.rint(whole)).all()
    moves = states - parts.start.astype(float)
    # Entries of a factor are rounded relative to its largest one: (a + d)² - a² = 2ad + d².
    allowed = 16 * np.abs(moves) @ np.abs(parts.slope) / 2**level
    if parts.factor is not None:
        allowed += most_changed(moves, np.abs(parts.factor).max(axis=0), level) * SAMPLES
    if parts.moments is not None:
        root = np.sqrt(np.abs(parts.moments).max())
        allowed += most_changed(moves, np.abs(parts.weights) * root, level)
    assert (np.abs(got - energies(parts, moves)) <= allowed).all()


def most_changed(moves, sizes, level):
    a, d = np.abs(moves) @ sizes, np.abs(moves).sum(axis=1) * sizes.max() / 2**level
    return 2 * a * d + d**2


def test_slopes_may_be_finer_than_the_square_of_the_grid():
    parts = block(0, spread=0.5)
    parts.slope *= 1e-4
    recipe = recipe_of(parts, Bits(8))
    assert recipe["slope_shift"] < 0
    kept = np.ldexp(recipe["slope"].astype(float), unit_exponent(recipe))
    assert np.allclose(kept, parts.slope, rtol=0, atol=np.abs(parts.slope).max() / 2**14)


@pytest.mark.parametrize("kind", ["factor", "outer", "gram", "sum"])
def test_more_bits_are_nearer(kind):
    parts = block(1, kind=kind)
    reference = Reference.of(parts)
    found = [reference.compare(rebuild(recipe_of(parts, Bits(level))), level) for level in LEVELS]
    assert found[-1].at_best < found[0].at_best / 8
    assert found[-1].deviation < found[0].deviation / 8


def test_bits_are_the_fewest_that_suffice():
    """One large weight that no good state moves makes all others coarse."""
    assert rounded(block(2, n=24, spread=0.3))[2].bits == LEVELS[0]
    recipe, _, fidelity = rounded(block(2, n=24, spread=0.3, first=30))
    assert fidelity.bits > LEVELS[0]
    assert fidelity.at_best < LARGEST_DEVIATION
    factor = fisher_factor(recipe)
    assert factor is not None
    assert np.abs(factor).max() < 2**fidelity.bits


def test_blocks_are_kept_in_files(tmp_path):
    parts = block(3, kind="sum")
    save_parts(parts, tmp_path / "run" / "block.pickle")
    again = load_parts(tmp_path / "run" / "block.pickle")
    assert again.problem.hash == parts.problem.hash
    for name, value in vars(parts).items():
        if isinstance(value, np.ndarray):
            assert (getattr(again, name) == value).all(), name
