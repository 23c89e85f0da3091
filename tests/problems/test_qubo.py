"""CardinalityQUBO against plain float64 sums, and all its refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from problem_cases import (
    all_states,
    any_problems,
    dense_problems,
    factored_problems,
    matrix,
    naive_energy,
    tolerance,
)

import problems.arrays
from problems import CardinalityQUBO, IcbsError, InvalidProblemError

few = settings(max_examples=50)

EYE = np.eye(3)


def states_of(data, problem):
    return data.draw(hnp.arrays(np.uint8, problem.n, elements=st.integers(0, 1)), label="x")


# -- energies and fields -----------------------------------------------------------------


@few
@given(any_problems())
def test_energy_is_the_double_sum_on_every_state(problem):
    states = all_states(problem.n)
    expected = [naive_energy(problem, x) for x in states]
    np.testing.assert_allclose(problem.energy(states), expected, rtol=0, atol=tolerance(problem))
    assert problem.energy(states[-1]) == pytest.approx(expected[-1], abs=tolerance(problem))


@few
@given(factored_problems())
def test_factored_and_dense_forms_agree(problem):
    dense = CardinalityQUBO(
        matrix(problem), problem.cardinalities, groups=problem.groups, offset=problem.offset
    )
    states = all_states(problem.n)
    atol = tolerance(problem)
    np.testing.assert_allclose(problem.energy(states), dense.energy(states), rtol=0, atol=atol)
    np.testing.assert_allclose(problem.diagonal, dense.diagonal, rtol=0, atol=atol)
    np.testing.assert_allclose(problem.Q, dense.Q, rtol=0, atol=atol)
    np.testing.assert_array_equal(problem.Q, problem.Q.T)
    for x in states[:: max(1, len(states) // 7)]:
        np.testing.assert_allclose(problem.fields(x), dense.fields(x), rtol=0, atol=atol)


@few
@given(any_problems(), st.data())
def test_fields_are_flip_differences(problem, data):
    x = states_of(data, problem)
    fields, start = problem.fields(x), problem.energy(x)
    assert fields.dtype == np.float64
    for i in range(problem.n):
        flipped = x.copy()
        flipped[i] ^= 1
        change = problem.energy(flipped) - start
        assert change == pytest.approx((1 - 2.0 * x[i]) * fields[i], abs=4 * tolerance(problem))


@few
@given(any_problems(min_n=2), st.data())
def test_swap_identity(problem, data):
    x = states_of(data, problem)
    ones, zeros = np.flatnonzero(x == 1), np.flatnonzero(x == 0)
    if not len(ones) or not len(zeros):
        return
    fields, Q = problem.fields(x), matrix(problem)
    for i in ones:
        for j in zeros:
            swapped = x.copy()
            swapped[i], swapped[j] = 0, 1
            change = problem.energy(swapped) - problem.energy(x)
            identity = fields[j] - fields[i] - 2 * Q[i, j]
            assert change == pytest.approx(identity, abs=4 * tolerance(problem))


@few
@given(any_problems(dtype=np.float32))
def test_float32_coefficients_are_kept_and_evaluated_in_float64(problem):
    assert problem.dtype == np.float32
    states = all_states(problem.n)
    expected = [naive_energy(problem, x) for x in states]
    energies = problem.energy(states)
    assert energies.dtype == np.float64
    # Far below float32's 1e-7: the products are those of float64.
    np.testing.assert_allclose(energies, expected, rtol=0, atol=tolerance(problem))


@pytest.mark.parametrize("shape", [(3, 40), (40, 3), (7, 7), (1, 40), (0, 5)])
@pytest.mark.parametrize("chunk", [1, 7, 50, 10**6])
def test_chunked_product_is_the_product(monkeypatch, shape, chunk):
    monkeypatch.setattr(problems.arrays, "_CHUNK", chunk)
    rng = np.random.default_rng(0)
    M, X = rng.normal(size=shape).astype(np.float32), rng.normal(size=(shape[1], 2))
    expected = M.astype(np.float64) @ X
    np.testing.assert_allclose(problems.arrays._product(M, X), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(
        problems.arrays._product(M.T, expected), M.T.astype(np.float64) @ expected, rtol=1e-12
    )


def test_large_scales_stay_finite_in_float64():
    problem = CardinalityQUBO(np.full((4, 4), 3e38, dtype=np.float32), 2)
    assert problem.energy([1, 1, 1, 1]) == pytest.approx(16 * float(np.float32(3e38)))
    tiny = CardinalityQUBO(np.full((2, 2), 1e-300), 1)
    assert tiny.energy([1, 1]) == pytest.approx(4e-300, rel=1e-12)


# -- shapes and degenerate sizes ---------------------------------------------------------


def test_one_variable():
    problem = CardinalityQUBO([[-2.5]], 1, offset=1.0)
    assert (problem.n, problem.k, problem.energy([1]), problem.energy([0])) == (1, 1, -1.5, 1.0)
    np.testing.assert_array_equal(problem.fields([1]), [-2.5])


def test_no_samples_is_a_linear_problem():
    problem = CardinalityQUBO.from_factors(np.zeros((0, 3)), [1.0, -2.0, 4.0], 2)
    assert problem.energy([1, 1, 0]) == -1.0
    np.testing.assert_array_equal(problem.Q, np.diag([1.0, -2.0, 4.0]))
    np.testing.assert_array_equal(problem.fields([0, 0, 0]), [1.0, -2.0, 4.0])


def test_no_variables():
    problem = CardinalityQUBO(np.zeros((0, 0)), 0, offset=2.0)
    assert problem.energy(np.zeros(0)) == 2.0
    assert problem.is_feasible(np.zeros(0))


def test_empty_batch():
    problem = CardinalityQUBO(EYE, 1)
    assert problem.energy(np.zeros((0, 3))).shape == (0,)
    assert problem.is_feasible(np.zeros((0, 3))).shape == (0,)


def test_single_state_gives_plain_numbers():
    problem = CardinalityQUBO(EYE, 1)
    assert type(problem.energy([1, 0, 0])) is float
    assert type(problem.is_feasible([1, 0, 0])) is bool


# -- feasibility and groups --------------------------------------------------------------


@few
@given(any_problems())
def test_feasible_means_every_group_count(problem):
    states = all_states(problem.n)
    expected = [
        all(x[problem.groups == g].sum() == k for g, k in enumerate(problem.cardinalities))
        for x in states
    ]
    np.testing.assert_array_equal(problem.is_feasible(states), expected)
    assert problem.k == problem.cardinalities.sum()
    assert problem.num_groups == len(problem.cardinalities)
    np.testing.assert_array_equal(problem.count(states).sum(axis=1), states.sum(axis=1))


def test_empty_group_is_allowed():
    problem = CardinalityQUBO(EYE, [1, 0], groups=[0, 0, 0])
    assert problem.is_feasible([0, 1, 0])
    assert not problem.is_feasible([1, 1, 0])


# -- hash, form, copies ------------------------------------------------------------------


@few
@given(any_problems())
def test_hash_survives_a_pickle(problem):
    again = pickle.loads(pickle.dumps(problem))
    assert again.hash == problem.hash
    states = all_states(problem.n)
    np.testing.assert_array_equal(again.energy(states), problem.energy(states))


def test_hash_depends_on_every_part():
    A, linear = np.ones((3, 3)), np.zeros(3)
    family = [
        CardinalityQUBO(EYE, 1),
        CardinalityQUBO(EYE, 2),
        CardinalityQUBO(2 * EYE, 1),
        CardinalityQUBO(EYE.astype(np.float32), 1),
        CardinalityQUBO(EYE, 1, offset=1.0),
        CardinalityQUBO(EYE, [1, 0], groups=[0, 0, 0]),
        CardinalityQUBO(EYE, [1, 0], groups=[0, 0, 1]),
        CardinalityQUBO(EYE, [0, 1], groups=[0, 0, 1]),
        CardinalityQUBO.from_factors(A, linear, 1),
        CardinalityQUBO.from_factors(A[:2], linear, 1),
        CardinalityQUBO.from_factors(A, linear + 1, 1),
    ]
    assert len({problem.hash for problem in family}) == len(family)
    assert CardinalityQUBO(EYE, 1).hash == CardinalityQUBO(np.asfortranarray(EYE), 1).hash


def test_repr_names_the_form():
    dense, factored = CardinalityQUBO(EYE, 1), CardinalityQUBO.from_factors(EYE, [0, 0, 0], 1)
    assert (dense.is_factored, factored.is_factored) == (False, True)
    with pytest.raises(InvalidProblemError, match="dense and has no factor A; use Q"):
        _ = dense.A
    with pytest.raises(InvalidProblemError, match="linear terms are Q's diagonal"):
        _ = dense.linear
    assert "dense" in repr(dense)
    assert "rank≤3" in repr(factored)
    assert "groups=2" in repr(CardinalityQUBO(EYE, [1, 1], groups=[0, 0, 1]))


def test_float64_input_is_not_copied():
    Q = np.eye(5)
    assert np.shares_memory(CardinalityQUBO(Q, 1).Q, Q)


# -- types of input ----------------------------------------------------------------------

KINDS = {
    "nested list": lambda Q: Q.tolist(),
    "int64": lambda Q: Q.astype(np.int64),
    "uint8": lambda Q: np.abs(Q).astype(np.uint8),
    "float16": lambda Q: Q.astype(np.float16),
    "float32": lambda Q: Q.astype(np.float32),
    "fortran": np.asfortranarray,
    "strided": lambda Q: np.repeat(np.repeat(Q, 2, 0), 2, 1)[::2, ::2],
    "torch float32": lambda Q: torch.tensor(Q, dtype=torch.float32),
    "torch float64": lambda Q: torch.tensor(Q),
    "torch float16": lambda Q: torch.tensor(Q, dtype=torch.float16),
    "torch bfloat16": lambda Q: torch.tensor(Q, dtype=torch.bfloat16),
    "torch int64": lambda Q: torch.tensor(Q, dtype=torch.int64),
    "torch with gradient": lambda Q: torch.tensor(Q, requires_grad=True),
    "torch sparse": lambda Q: torch.tensor(Q).to_sparse(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_coefficients(kind):
    Q = np.array([[2.0, 1.0, 0.0], [1.0, 4.0, 8.0], [0.0, 8.0, 1.0]])
    linear = np.array([1.0, 0.0, 3.0])
    dense = CardinalityQUBO(KINDS[kind](Q), 2)
    factored = CardinalityQUBO.from_factors(KINDS[kind](Q), linear, 2)
    assert dense.dtype == factored.dtype
    assert dense.dtype in (np.float32, np.float64)
    assert factored.linear.dtype == np.float64
    for x in all_states(3):
        assert dense.energy(x) == x @ Q @ x
        assert factored.energy(x) == x @ (Q.T @ Q + np.diag(linear)) @ x


@pytest.mark.parametrize(
    "x",
    [
        [1, 0, 1],
        (True, False, True),
        np.array([1.0, 0.0, 1.0], dtype=np.float16),
        np.array([1, 0, 1], dtype=np.int64),
        torch.tensor([1, 0, 1]),
        torch.tensor([1.0, 0.0, 1.0], dtype=torch.bfloat16),
        torch.tensor([1.0, 0.0, 1.0], requires_grad=True),
    ],
    ids=str,
)
def test_kinds_of_states(x):
    problem = CardinalityQUBO(EYE, 2)
    assert problem.energy(x) == 2.0
    states = problem.as_states(x)
    assert states.dtype == np.uint8
    np.testing.assert_array_equal(states, [1, 0, 1])


@pytest.mark.parametrize("k", [2, np.int64(2), np.uint8(2), np.array(2), torch.tensor(2)])
def test_kinds_of_k(k):
    assert CardinalityQUBO(EYE, k).k == 2


@pytest.mark.parametrize("groups", [[0, 0, 1], np.uint8([0, 0, 1]), torch.tensor([0, 0, 1])])
def test_kinds_of_groups(groups):
    problem = CardinalityQUBO(EYE, torch.tensor([1, 1]), groups=groups)
    np.testing.assert_array_equal(problem.groups, [0, 0, 1])


@few
@given(dense_problems(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**32 - 1))
def test_rounding_of_symmetry_is_averaged_away(problem, dtype, seed):
    noise = np.random.default_rng(seed).uniform(-1, 1, (problem.n, problem.n))
    noisy = (problem.Q * (1 + noise * np.finfo(dtype).eps)).astype(dtype)
    repaired = CardinalityQUBO(noisy, 0).Q
    np.testing.assert_array_equal(repaired, repaired.T)
    np.testing.assert_allclose(repaired, (noisy.astype(float) + noisy.T) / 2, rtol=1e-6)


def test_averaging_does_not_overflow():
    big = np.finfo(np.float64).max
    Q = np.array([[0.0, big], [np.nextafter(big, 0), 0.0]])
    assert np.isfinite(CardinalityQUBO(Q, 1).Q).all()


# -- refusals ----------------------------------------------------------------------------

ROW = [0.0, 0.0, 0.0]

REFUSED = {
    "ragged Q": (lambda: CardinalityQUBO([[1.0], [1.0, 2.0]], 1), "Q can't be read as an array"),
    "Q of one dimension": (lambda: CardinalityQUBO([1.0], 1), "Q has 1 dimensions, expected 2"),
    "Q not square": (lambda: CardinalityQUBO(np.ones((2, 3)), 1), "must be square"),
    "Q complex": (lambda: CardinalityQUBO(EYE + 0j, 1), "Q has dtype complex128; use float32"),
    "Q boolean": (lambda: CardinalityQUBO(EYE > 0, 1), "Q has dtype bool"),
    "Q text": (lambda: CardinalityQUBO([["a"]], 1), "Q has dtype <U1"),
    "Q objects": (lambda: CardinalityQUBO([[None]], 1), "Q has dtype object"),
    "Q asymmetric": (lambda: CardinalityQUBO(np.triu(np.ones((3, 3))), 1), "not symmetric"),
    "Q with NaN": (
        lambda: CardinalityQUBO(np.where(EYE > 0, np.nan, 0.0), 1),
        r"Q\[0, 0\] is nan; it must be finite",
    ),
    "A with infinity": (
        lambda: CardinalityQUBO.from_factors([[0.0, np.inf]], [0.0, 0.0], 1),
        r"A\[0, 1\] is inf",
    ),
    "A of one dimension": (
        lambda: CardinalityQUBO.from_factors(ROW, ROW, 1),
        "A has 1 dimensions",
    ),
    "linear of two dimensions": (
        lambda: CardinalityQUBO.from_factors([ROW], [ROW], 1),
        "linear has 2 dimensions, expected 1",
    ),
    "linear with NaN": (
        lambda: CardinalityQUBO.from_factors([ROW], [0.0, np.nan, 0.0], 1),
        r"linear\[1\] is nan",
    ),
    "A and linear apart": (
        lambda: CardinalityQUBO.from_factors([ROW], [0.0], 1),
        "A has 3 columns but linear has 1 entries",
    ),
    "k a float": (lambda: CardinalityQUBO(EYE, 1.0), "k is 1.0; it must be an integer"),
    "k a truth value": (lambda: CardinalityQUBO(EYE, True), "k is True; it must be an integer"),
    "k missing": (lambda: CardinalityQUBO(EYE, None), "k is None; it must be an integer"),
    "k empty": (lambda: CardinalityQUBO(EYE, [], groups=[0, 0, 0]), "one for each group"),
    "k ragged": (lambda: CardinalityQUBO(EYE, [[1], [1, 2]]), "k can't be read as an array"),
    "k of two dimensions": (lambda: CardinalityQUBO(EYE, [[1]]), "one for each group"),
    "k a sequence without groups": (
        lambda: CardinalityQUBO(EYE, [1, 1]),
        "k is a sequence of 2; pass groups with it",
    ),
    "k negative": (lambda: CardinalityQUBO(EYE, -1), r"k is -1; it must lie in \[0, 3\]"),
    "k too large": (lambda: CardinalityQUBO(EYE, 4), r"k is 4; it must lie in \[0, 3\]"),
    "k beyond int64": (lambda: CardinalityQUBO(EYE, 10**30), "must be an integer"),
    "k of a group too large": (
        lambda: CardinalityQUBO(EYE, [1, 2], groups=[0, 0, 1]),
        r"k of group 1 is 2; it must lie in \[0, 1\]",
    ),
    "groups of another length": (
        lambda: CardinalityQUBO(EYE, [1], groups=[0, 0]),
        r"groups has shape \(2,\)",
    ),
    "groups of floats": (
        lambda: CardinalityQUBO(EYE, [1], groups=ROW),
        "must be an integer per variable",
    ),
    "groups out of range": (
        lambda: CardinalityQUBO(EYE, [1, 1], groups=[0, 1, 2]),
        "labels 0 … 2, but k names 2 groups",
    ),
    "groups negative": (
        lambda: CardinalityQUBO(EYE, [1], groups=[0, -1, 0]),
        "labels must be 0 … 0",
    ),
    "offset infinite": (lambda: CardinalityQUBO(EYE, 1, offset=np.inf), "offset is inf"),
    "offset a word": (lambda: CardinalityQUBO(EYE, 1, offset="x"), "offset is 'x'"),
    "offset missing": (lambda: CardinalityQUBO(EYE, 1, offset=None), "offset is None"),
    "state too short": (
        lambda: CardinalityQUBO(EYE, 1).energy([1, 0]),
        r"state has shape \(2,\); this problem takes \(3,\) or \(batch, 3\)",
    ),
    "state of three dimensions": (
        lambda: CardinalityQUBO(EYE, 1).energy(np.zeros((1, 1, 3))),
        "state has shape",
    ),
    "state with 2": (lambda: CardinalityQUBO(EYE, 1).energy([0, 0, 2]), "0 and 1 only"),
    "state with -1": (lambda: CardinalityQUBO(EYE, 1).energy([0, 0, -1]), "0 and 1 only"),
    "state with 257": (lambda: CardinalityQUBO(EYE, 1).energy([0, 1, 257]), "0 and 1 only"),
    "state with a half": (lambda: CardinalityQUBO(EYE, 1).energy([0, 0.5, 1]), "0 and 1 only"),
    "state with NaN": (lambda: CardinalityQUBO(EYE, 1).energy([0, 1, np.nan]), "0 and 1 only"),
    "state of text": (lambda: CardinalityQUBO(EYE, 1).energy(["0", "1", "1"]), "0 and 1 only"),
    "state ragged": (lambda: CardinalityQUBO(EYE, 1).energy([[1], [1, 0]]), "state can't be read"),
    "fields of a batch": (
        lambda: CardinalityQUBO(EYE, 1).fields(np.zeros((2, 3))),
        r"fields takes one state of shape \(n,\), got \(2, 3\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("error")
def test_refusals_name_the_value(case):
    build, message = REFUSED[case]
    with pytest.raises(InvalidProblemError, match=message) as caught:
        build()
    assert isinstance(caught.value, IcbsError)
    assert isinstance(caught.value, ValueError)
