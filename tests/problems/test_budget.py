"""Problems with a budget against brute force."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from problems import BudgetQUBO, CardinalityQUBO, FormatError, Instance, InvalidProblemError
from problems.formats import coo, ommx, qplib, quadratic_program, read, write
from problems.knapsack import minimise_linear
from solvers import solve


@st.composite
def budgets(draw, most_n=9):
    n = draw(st.integers(1, most_n))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["integer", "real", "zero", "decimal"]))
    costs = {
        "integer": rng.integers(0, 9, n),
        "real": rng.random(n),
        "zero": np.zeros(n),
        "decimal": rng.integers(0, 9, n) / 10,
    }[kind]
    groups = rng.integers(0, 3, n)
    sizes = np.bincount(groups, minlength=3)
    most = rng.integers(0, sizes + 1)
    least = np.minimum(most, rng.integers(0, 2, 3))
    allowed = sum(np.sort(costs[groups == g])[::-1][: most[g]].sum() for g in range(3))
    share = draw(st.sampled_from([-0.5, 0.0, 0.3, 0.7, 1.0]))
    rest = {"groups": groups, "least": least, "most": most, "offset": float(rng.normal())}
    if draw(st.booleans()):
        A, linear = rng.normal(size=(3, n)), rng.normal(size=n)
        return BudgetQUBO.from_factors(A, linear, costs, share * allowed, **rest)
    Q = rng.normal(size=(n, n))
    return BudgetQUBO(Q + Q.T, costs, share * allowed, **rest)


def states_of(problem):
    return np.array(list(itertools.product([0, 1], repeat=problem.n)), np.uint8)


def feasible_by_sums(problem, X):
    """Feasibility from sums in float64, with room for their rounding."""
    counts = np.stack([X[:, problem.groups == g].sum(1) for g in range(problem.num_groups)], 1)
    kept = ((counts >= problem.least) & (counts <= problem.most)).all(axis=1)
    return kept & (X @ problem.costs >= problem.budget - 1e-9 * problem.costs.sum())


@given(budgets())
@settings(max_examples=60, deadline=None)
def test_feasibility_and_repair(problem):
    X = states_of(problem)
    feasible = problem.is_feasible(X)
    assert np.array_equal(feasible, feasible_by_sums(problem, X))
    assert feasible.any()
    repaired = problem.repair(X)
    assert problem.is_feasible(repaired).all()
    assert np.array_equal(repaired[feasible], X[feasible])
    for x, good in zip(X[:64], feasible[:64], strict=True):
        assert (problem.infeasibility(x) is None) == good


@given(budgets())
@settings(max_examples=60, deadline=None)
def test_forced_variables_are_those_equal_in_all_feasible_states(problem):
    X = states_of(problem)
    kept = X[problem.is_feasible(X)]
    zeros, ones = problem.forced_variables()
    assert np.array_equal(ones, (kept == 1).all(axis=0))
    assert np.array_equal(zeros, (kept == 0).all(axis=0))


@given(budgets(), st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_linear_costs_are_bounded(problem, seed):
    cost = np.random.default_rng(seed).normal(size=problem.n)
    X = states_of(problem)
    best = (X[problem.is_feasible(X)] @ cost).min()
    found = minimise_linear(problem, cost)
    assert problem.is_feasible(found.x)
    assert found.bound <= best + 1e-9
    assert found.x @ cost >= best - 1e-9


@given(budgets(most_n=8))
@settings(max_examples=25, deadline=None)
def test_solvers_against_enumeration(problem):
    X = states_of(problem)
    best = problem.energy(X[problem.is_feasible(X)]).min()
    for solver in ("exhaustive", "exact"):
        solution = solve(problem, solver, seed=0)
        assert solution.is_optimal
        assert solution.energy == pytest.approx(best, abs=1e-8)
        assert solution.bound <= best + 1e-8
    found = solve(problem, "anneal", seed=0)
    assert found.energy >= best - 1e-9
    assert not found.is_optimal


def test_sums_of_decimals_meet_a_budget():
    problem = BudgetQUBO(np.eye(2), [0.7, 0.1], 0.8)
    assert 0.7 + 0.1 < 0.8
    assert problem.is_feasible([1, 1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 14}, "budget is 14.*save only 13.*lower the budget"),
        ({"budget": 11, "most": 1}, "that most allows save only 8.*raise most"),
        ({"budget": np.nan}, "budget is nan; it must be finite"),
        ({"costs": [1, -1, 0]}, r"costs\[1\] is -1"),
        ({"costs": [1, 2]}, "costs has shape"),
        ({"most": [4]}, r"most of group 0 is 4; it must lie in \[0, 3\]"),
        ({"least": [3], "most": [1]}, "least of group 0 is 3, above its most of 1"),
        ({"groups": [0, 1, 5], "most": [1, 1]}, "groups holds the label 5"),
        ({"groups": [0, 1, 2**31 - 1]}, "number the groups from 0"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(InvalidProblemError, match=message):
        BudgetQUBO(np.eye(3), **({"costs": [2, 3, 8], "budget": 5} | change))


def test_cardinality_as_a_budget_problem():
    rng = np.random.default_rng(0)
    Q = rng.normal(size=(6, 6))
    plain = CardinalityQUBO(Q + Q.T, [1, 2], groups=[0, 0, 0, 1, 1, 1])
    budget = BudgetQUBO.from_cardinality(plain)
    X = states_of(plain)
    assert np.array_equal(plain.is_feasible(X), budget.is_feasible(X))
    assert np.array_equal(plain.energy(X), budget.energy(X))


@given(budgets())
@settings(max_examples=20, deadline=None)
def test_files(tmp_path_factory, problem):
    path = tmp_path_factory.mktemp("budget") / "p.npz"
    write(problem, path)
    assert read(path).hash == problem.hash == pickle.loads(pickle.dumps(problem)).hash
    assert Instance.load(path).problem.hash == problem.hash
    with pytest.raises(FormatError, match="BudgetQUBO.load"):
        CardinalityQUBO.load(path)
    with pytest.raises(FormatError, match="choose one of npz, lp, mps, cqm"):
        write(problem, path.with_suffix(".qplib"))


def test_rows_of_a_cqm_hold_the_constraint(tmp_path):
    dimod = pytest.importorskip("dimod")
    problem = BudgetQUBO(np.eye(4), [2, 4, 6, 8], 9, groups=[0, 0, 1, 1], least=[1, 0], most=[2, 1])
    write(problem, tmp_path / "p.cqm")
    with (tmp_path / "p.cqm").open("rb") as file:
        model = dimod.CQM.from_file(file)
    X = states_of(problem)
    feasible = [model.check_feasible(dict(enumerate(map(int, x)))) for x in X]
    assert feasible == problem.is_feasible(X).tolist()
    lp = dimod.lp.loads((write(problem, tmp_path / "p.lp"), (tmp_path / "p.lp").read_text())[1])
    names = [f"x{i}" for i in range(4)]
    found = [lp.check_feasible(dict(zip(names, map(int, x), strict=True))) for x in X]
    assert found == feasible


@given(budgets(most_n=6), st.sampled_from(["lp", "mps", "cqm"]))
@settings(max_examples=60, deadline=None)
def test_files_of_other_tools_keep_the_constraint(tmp_path_factory, problem, ending):
    if ending == "cqm":
        pytest.importorskip("dimod")
    path = tmp_path_factory.mktemp("budget") / f"p.{ending}"
    write(problem, path)
    kept, X = read(path), states_of(problem)
    assert isinstance(kept, BudgetQUBO)
    assert np.array_equal(kept.is_feasible(X), problem.is_feasible(X))
    assert np.allclose(kept.energy(X), problem.energy(X))
    assert np.array_equal(kept.costs, problem.costs)
    assert kept.budget == problem.budget


FOREIGN = {
    "kept at most": (" a: - 2 x0 - 3 x1 - x2 <= -4", [[1, 1, 0], [0, 1, 1], [1, 1, 1]]),
    "a named one": (" budget: x0 + x1 + x2 >= 2\n b: x0 + x1 <= 1", [[1, 0, 1], [0, 1, 1]]),
    "half counts": (" a: x0 + 2 x2 >= 2\n b: 2 x0 + 2 x1 >= 1", [[1, 0, 1], [0, 1, 1], [1, 1, 1]]),
    "both sides": (
        " b: x0 + x1 <= 1\n c: x0 + x1 >= 1\n a: x0 + 2 x2 >= 2", [[1, 0, 1], [0, 1, 1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOREIGN)
def test_rows_of_other_tools(tmp_path, case):
    rows, feasible = FOREIGN[case]
    problem = read(lp_text(tmp_path, rows))
    X = states_of(problem)
    assert sorted(X[problem.is_feasible(X)].tolist()) == sorted(feasible)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (" a: x0 + x1 >= 1", "is an inequality.*named 'budget' or has unequal"),
        (" a: x0 + 2 x1 <= 1", "is an inequality.*only a file with a budget"),
        (" a: x0 + 2 x1 >= 1\n b: 2 x0 + x2 >= 1", "row 'b' is not a count.*one budget"),
        (" a: x0 + 2 x1 >= 1\n b: x0 + x2 <= 1\n c: x0 <= 1", "'c' counts some of"),
        (" a: 2 x1 - x0 >= 1", r"costs\[0\] is -1"),
        (" a: x0 + 2 x1 >= 9", "budget is 9, but all variables save only 3"),
        (" a: x0 + 2 x1 >= 1\n b: x0 + x2 = 1.5", "'b' requires a count of 1.5"),
        (" a: x0 + 2 x1 >= 1\n b: x0 + x2 >= 1e300", "least of group 0"),
    ],
)
def test_rows_that_are_no_budget_are_named(tmp_path, rows, message):
    with pytest.raises(FormatError, match=message):
        read(lp_text(tmp_path, rows))
    with pytest.raises(FormatError):
        read(lp_text(tmp_path, rows), free=True)


def lp_text(folder, rows):
    path = folder / "p.lp"
    text = f"Minimize\n obj: x0 + x1 + x2\nSubject To\n{rows}\nBinary\n x0 x1 x2\nEnd\n"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda problem, path: ommx.write(problem, path),
        lambda problem, path: qplib.write(problem, path),
        lambda problem, path: coo.write(problem, path, dialect="qubo"),
        lambda problem, path: quadratic_program.to_quadratic_program(problem),
    ],
)
def test_writers_without_inequalities_name_those_with_them(tmp_path, write):
    pytest.importorskip("qiskit_optimization")
    problem = BudgetQUBO(np.eye(4), [1, 2, 3, 4], 5)
    with pytest.raises(FormatError, match=r"no budget.*npz, lp, mps, cqm.*to_cqm"):
        write(problem, tmp_path / "problem")
    assert not (tmp_path / "problem").exists()


def test_readers_without_inequalities_name_those_with_them(tmp_path):
    optimization = pytest.importorskip("qiskit_optimization")
    program = optimization.QuadraticProgram()
    program.binary_var("x")
    program.linear_constraint({"x": 1}, ">=", 1)
    with pytest.raises(FormatError, match="is an inequality.*npz, lp, mps, cqm"):
        quadratic_program.from_quadratic_program(program)
    qplib.write(CardinalityQUBO(np.eye(3), 1), tmp_path / "p.qplib")
    text = (tmp_path / "p.qplib").read_text()
    first, _, second = text.rpartition("1 1\n0.0 # default starting")
    (tmp_path / "p.qplib").write_text(f"{first}1 2\n0.0 # default starting{second}")
    with pytest.raises(FormatError, match="is an inequality.*npz, lp, mps, cqm"):
        qplib.read(tmp_path / "p.qplib")


def test_a_constrained_model_of_ocean_with_a_weighted_row():
    dimod = pytest.importorskip("dimod")
    from solvers.adapters.dimod import IcbsSampler

    cqm = dimod.ConstrainedQuadraticModel()
    a, b, c = dimod.Binaries("abc")
    cqm.set_objective(a + b + 3 * c + 2 * a * b)
    cqm.add_constraint(2 * a + 2 * b + 4 * c >= 4, label="saving")
    cqm.add_constraint(a + c <= 1)
    answer = IcbsSampler("exact").sample_cqm(cqm, seed=0)
    want = dimod.ExactCQMSolver().sample_cqm(cqm).filter(lambda row: row.is_feasible).first
    assert answer.first.energy == pytest.approx(want.energy)
    assert cqm.check_feasible(answer.first.sample)
