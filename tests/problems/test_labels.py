"""Names of variables: validation, and preservation by files and reduced problems."""

from __future__ import annotations

import subprocess
import sys

import dimod
import numpy as np
import pytest
from highs_reader import HighsReader
from hypothesis import given, settings
from hypothesis import strategies as st
from problem_cases import all_states

from problems import CardinalityQUBO, FormatError, InvalidProblemError, npz
from problems.formats import read, write
from problems.formats.bqm import from_bqm, from_cqm, to_bqm, to_cqm
from problems.formats.quadratic_program import from_quadratic_program, to_quadratic_program
from problems.labels import DEPTH, display_names
from problems.presolve import presolve
from problems.read_only import read_only_problem
from solvers import solve

Q = np.array([[1.0, -2.0, 0.5], [-2.0, 3.0, 0.0], [0.5, 0.0, -1.0]])
NAMES = ("gain", "cost", "b[1]")


def labelled(labels=NAMES, **options):
    return CardinalityQUBO(Q, [1, 1], groups=[0, 0, 1], offset=0.25, labels=labels, **options)


def named_energies(problem):
    """Energy and feasibility of each state, by the set of names that are 1 in it."""
    states = all_states(problem.n)
    rows = zip(states, problem.energy(states), problem.is_feasible(states), strict=True)
    return {
        frozenset(name for name, value in zip(problem.labels, row, strict=True) if value): (e, f)
        for row, e, f in rows
    }


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "there are 2 labels for 3 variables"),
        (["a", "b", "a"], "duplicate label 'a'"),
        ([1, 1.0, "a"], "duplicate label 1.0"),
        ("abc", "pass a sequence of 3 names"),
        (["a", "b", None], "is a NoneType; names are strings"),
        (["a", "b", ["c"]], "is a list"),
        (["a", "b", float("inf")], "finite numbers"),
        (["a", "b", (float("nan"),)], "finite numbers"),
        (["a", "b", b"c"], "is a bytes"),
    ],
)
def test_invalid_names_are_refused(labels, message):
    with pytest.raises(InvalidProblemError, match=message):
        labelled(labels)
    with pytest.raises(InvalidProblemError, match=message):
        CardinalityQUBO.from_factors(np.eye(3), np.zeros(3), 1, labels=labels)


def test_a_name_is_not_nested_without_end():
    deep = "a"
    for _ in range(DEPTH):
        deep = (deep,)
    assert labelled([deep, 1, 2]).labels == (deep, 1, 2)
    with pytest.raises(InvalidProblemError, match="nested deeper than 32"):
        labelled([(deep,), 1, 2])


def test_numbers_from_0_are_the_default_names():
    assert labelled(range(3)).labels is None
    assert labelled(np.arange(3)).labels is None
    assert labelled(np.arange(3)[::-1]).labels == (2, 1, 0)
    assert all(type(label) is int for label in labelled(np.array([7, 8, 9])).labels)


def test_names_do_not_count_for_the_hash():
    assert labelled().hash == labelled(None).hash


@given(
    st.lists(
        st.recursive(
            st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
            lambda inner: st.lists(inner, max_size=3).map(tuple),
        ),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
@settings(max_examples=60)
def test_npz_keeps_any_names(tmp_path_factory, labels):
    path = tmp_path_factory.getbasetemp() / "named.npz"
    problem = labelled(labels)
    problem.save(path)
    again = CardinalityQUBO.load(path)
    assert again.labels == problem.labels
    assert again.hash == problem.hash
    assert len({*display_names(problem.labels, 3)}) == 3
    assert all("\n" not in text for text in display_names(problem.labels, 3))


@pytest.mark.parametrize(
    "labels", ["[" * 10**5, "{}", '["a", "b", "a"]', '["a"]', "[0, 1, NaN]", ""]
)
def test_damaged_names_in_npz(tmp_path, labels):
    fields = {"cardinalities": np.array([1]), "offset": 0.0, "Q": Q, "labels": labels}
    npz.write(tmp_path / "bad.npz", fields)
    with pytest.raises(FormatError, match="label|names"):
        read(tmp_path / "bad.npz")


@pytest.mark.parametrize("format", ["npz", "lp", "mps", "cqm", "bqm", "json", "ommx"])
def test_formats_keep_names(tmp_path, format):
    problem = labelled()
    write(problem, tmp_path / "named", format)
    told = {} if format not in ("bqm", "json") else {"k": [1, 1]}
    if told:  # dimod sorts the labels in JSON
        lifted = read(tmp_path / "named", format, free=True)
        told["groups"] = [int(name == "b[1]") for name in lifted.labels[:3]]
    again = read(tmp_path / "named", format, **told)
    assert set(again.labels) == set(NAMES)
    assert named_energies(again) == named_energies(problem)
    if format != "json":
        assert again.labels == NAMES


def test_other_readers_find_the_names(tmp_path):
    problem, states = labelled(["gain", "cost", "b_1.x"]), all_states(3)
    write(problem, tmp_path / "named.lp")
    assert set(dimod.lp.load(str(tmp_path / "named.lp")).variables) == set(problem.labels)
    for ending in ("lp", "mps"):
        write(problem, tmp_path / f"named.{ending}")
        highs = HighsReader(tmp_path / f"named.{ending}", problem.labels)
        np.testing.assert_allclose(highs.energy(states), problem.energy(states))
        np.testing.assert_array_equal(highs.is_feasible(states), problem.is_feasible(states))


@pytest.mark.parametrize(
    ("format", "name"),
    [
        *(("lp", name) for name in ("st", "End", "free", "inf", "e5", "1x", "a b", "é", "a:b")),
        *(("lp", name) for name in ("", "a+b", "x^2", "min", "x" * 256, "Bounds", 3, ("a",))),
        *(("mps", name) for name in ("a b", "", "1.5", "'MARKER'", "*a", "#a", "a\nb", 3, ("a",))),
    ],
)
def test_names_that_a_text_cant_hold_become_numbers(tmp_path, format, name):
    problem = labelled(["a", name, "c"])
    write(problem, tmp_path / "plain", format)
    again = read(tmp_path / "plain", format)
    assert again.labels is None
    states = all_states(3)
    np.testing.assert_array_equal(again.energy(states), problem.energy(states))
    np.testing.assert_array_equal(again.is_feasible(states), problem.is_feasible(states))


def test_names_of_numbers_keep_their_order_in_lp(tmp_path):
    labels = [f"v{i}" for i in range(1, 13)]
    problem = CardinalityQUBO(np.diag(np.r_[np.zeros(11), 1.0]), 3, labels=labels)
    write(problem, tmp_path / "many.lp")
    assert read(tmp_path / "many.lp").labels == tuple(labels)
    plain = CardinalityQUBO(problem.Q, 3)
    write(plain, tmp_path / "many.lp")
    assert read(tmp_path / "many.lp").labels is None


def test_models_in_memory_keep_names():
    problem = labelled()
    assert from_bqm(to_bqm(problem), [1, 1], [0, 0, 1]).labels == NAMES
    assert from_cqm(to_cqm(problem)).labels == NAMES
    assert list(to_bqm(problem, range(3)).variables) == [0, 1, 2]
    words = labelled(["gain", "cost", "third"])
    again = from_quadratic_program(to_quadratic_program(words))
    assert again.labels == words.labels
    assert from_quadratic_program(to_quadratic_program(problem)).labels is None


def test_reduced_problems_keep_the_names_of_their_variables():
    problem = CardinalityQUBO(np.diag([5.0, -9.0, 0.0, 0.0]), 2, labels=["a", "b", "c", "d"])
    reduced = presolve(problem)
    assert reduced.problem.labels == tuple("abcd"[i] for i in reduced.free)
    assert read_only_problem(problem).labels == problem.labels


@pytest.mark.parametrize("solver", ["anneal", "exact", "cpsat", "neal", "tabu", "exhaustive"])
def test_solvers_take_named_problems(solver):
    assert solve(labelled(), solver).energy == solve(labelled(None), "exhaustive").energy


def test_importing_names_needs_no_torch():
    code = "import sys, problems.labels, problems.qubo; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
