"""Every solver of the conformance table at extreme scales: correct, or refused."""

import dataclasses
import time
from typing import ClassVar

import numpy as np
import pytest
from test_conformance import TABLE, case_of

from problems import CardinalityQUBO, InvalidProblemError
from solvers import BackendError, Outcome, Solver, Stop, get, names, solve
from solvers.base import Capabilities
from solvers.gpu import GpuFallbackWarning
from solvers.neal import Neal
from solvers.testing import verify
from solvers.testing.verify import lowest_energy

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{GpuFallbackWarning.__module__}.GpuFallbackWarning"
)

#: Baselines, mocks and short runs, which need not find the optimum.
WEAK = {"diagonal", "neal", "qpu", "steepest"}

#: (form, dtype): powers of two that the coefficients are multiplied by. Up to 2**-1070 and
#: 2**1000 in float64; in float32, as far as its factors, or entries, go.
SCALES = {
    ("dense", np.float64): (-1060, -1030, -500, -65, -40, 40, 65, 500, 1000),
    ("factored", np.float64): (-1060, -1022, -500, -66, -40, 40, 66, 500, 1000),
    ("dense", np.float32): (-148, -126, -65, -40, 40, 65, 120),
    ("factored", np.float32): (-290, -126, -66, -40, 40, 66, 240),
}


def draw(n, form, dtype, exponent, seed=0):
    """Draw integers times a power of two: every energy is exact, at any scale."""
    rng = np.random.default_rng(seed)
    A, linear = rng.integers(-3, 4, (3, n)).astype(float), rng.integers(-9, 10, n).astype(float)
    offset = np.ldexp(-7.0, exponent)
    if form == "dense":
        Q = np.ldexp(A.T @ A + np.diag(linear), exponent).astype(dtype)
        return CardinalityQUBO(Q, n // 2, offset=offset)
    A = np.ldexp(A, exponent // 2).astype(dtype)
    return CardinalityQUBO.from_factors(A, np.ldexp(linear, exponent), n // 2, offset=offset)


@pytest.mark.parametrize(("form", "dtype"), SCALES, ids=lambda v: getattr(v, "__name__", v))
@pytest.mark.parametrize("row", TABLE)
def test_scales(row, form, dtype):
    if row in names() and (missing := get(row).missing()):
        pytest.skip(f"needs {missing}")
    case = case_of(row)
    seed = {"seed": 1} if case.can.seed else {}
    for number, exponent in enumerate(SCALES[form, dtype]):
        plain = draw(case.n, form, dtype, 0, seed=number)
        problem = draw(case.n, form, dtype, exponent, seed=number)
        best = np.ldexp(lowest_energy(plain), exponent)
        assert lowest_energy(problem) == best
        answer = solve(problem, case.solver, **seed)
        verify(answer, problem, case.can)
        assert answer.x is not None
        assert answer.energy >= best
        if row not in WEAK:
            assert answer.energy == best, f"2**{exponent}"
        if answer.bound is not None:
            assert answer.bound <= best
            assert best - answer.bound <= max(np.ldexp(1e-6, exponent), 5e-324)
        assert answer.is_optimal == case.can.exact
        if case.can.deterministic and seed:  # only the exponent has changed
            np.testing.assert_array_equal(answer.samples, solve(plain, case.solver, **seed).samples)


@pytest.mark.parametrize("row", TABLE)
def test_both_ends_in_one_problem(row):
    """Compared with the largest coefficient the others are rounding errors, so that any state is
    fine."""
    if row in names() and (missing := get(row).missing()):
        pytest.skip(f"needs {missing}")
    case = case_of(row)
    seed = {"seed": 1} if case.can.seed else {}
    rng = np.random.default_rng(3)
    for number in range(6):
        ends = rng.choice([-300, 0, 300] if number % 2 else [-300, -150, 0], (case.n, case.n))
        Q = np.triu(rng.integers(-3, 4, (case.n, case.n)) * 10.0**ends)
        Q += np.triu(Q, 1).T
        problem = CardinalityQUBO(Q, case.n // 2)
        if number >= 3:
            A = Q[:3] / np.abs(Q[:3]).max() * 1e145
            problem = CardinalityQUBO.from_factors(A, Q[3], case.n // 2)
        answer = solve(problem, case.solver, **seed)
        assert problem.is_feasible(answer.x)
        assert answer.energy == pytest.approx(problem.energy(answer.x), rel=1e-12)
        rounding = 1e-6 * np.abs(problem.Q).sum()
        if row not in WEAK:
            assert answer.energy <= lowest_energy(problem) + rounding
        assert answer.bound is None or answer.bound <= lowest_energy(problem) + 1e-9 * rounding


@pytest.mark.parametrize("row", TABLE)
def test_energies_that_leave_float64_are_refused(row):
    if row in names() and (missing := get(row).missing()):
        pytest.skip(f"needs {missing}")
    case = case_of(row)
    A, linear = np.full((2, case.n), 1e200), np.zeros(case.n)
    with pytest.raises(InvalidProblemError, match="divide A by"):
        solve(CardinalityQUBO.from_factors(A, linear, 2), case.solver)
    with pytest.raises(InvalidProblemError, match="divide Q by"):
        solve(CardinalityQUBO(np.full((case.n, case.n), 1e308), 2), case.solver)


@pytest.mark.parametrize("solver", ["exact", "exhaustive", "anneal", "cpsat", "scip"])
@pytest.mark.parametrize("exponent", [-1060, 900])
def test_callbacks_see_energies_of_the_problem(solver, exponent):
    problem = draw(12, "dense", np.float64, exponent)
    seen = []
    answer = solve(problem, solver, seed=0, callback=lambda seconds, energy: seen.append(energy))
    assert seen[-1] == answer.energy
    assert seen == sorted(seen, reverse=True)
    stopped = solve(problem, solver, seed=0, callback=lambda seconds, energy: True)
    assert stopped.x is not None


def test_an_offset_far_from_the_coefficients():
    problem = draw(8, "factored", np.float64, -700)
    shifted = CardinalityQUBO.from_factors(problem.A, problem.linear, 4, offset=1.0)
    answer = solve(shifted, "exact", callback=lambda seconds, energy: energy != 1.0)
    assert answer.is_optimal
    assert (answer.energy, answer.bound) == (1.0, 1.0)
    assert problem.energy(answer.x) == lowest_energy(problem)  # although no energy shows it


@pytest.mark.parametrize("exponent", [-400, 400])
def test_options_that_are_energies_are_scaled(exponent):
    plain, problem = (draw(8, "dense", np.float64, e) for e in (0, exponent))
    options = {"penalty": 6.0, "beta_range": (0.01, 5.0), "num_sweeps": 50}
    scaled = {
        "penalty": np.ldexp(6.0, exponent),
        "beta_range": tuple(np.ldexp((0.01, 5.0), -exponent)),
        "num_sweeps": 50,
    }
    expected = solve(plain, "neal", seed=2, num_reads=4, **options)
    answer = solve(problem, "neal", seed=2, num_reads=4, **scaled)
    np.testing.assert_array_equal(answer.samples, expected.samples)
    strength = np.ldexp(answer.info["penalty"]["strengths"], -answer.info["exponent"])
    np.testing.assert_array_equal(
        np.ldexp(expected.info["penalty"]["strengths"], exponent), strength
    )


def test_options_out_of_all_proportion_stay_finite():
    solver = Neal(penalty=1.0, beta_range=(1e-3, 1e3)).scaled(1060)
    assert np.isfinite([solver.penalty, *solver.beta_range]).all()
    assert solver.penalty > 2.0**190
    assert 0 < solver.beta_range[0] <= solver.beta_range[1] < 2.0**-190
    assert Neal(penalty=0.0).scaled(1060).penalty == 0
    answer = solve(draw(6, "dense", np.float64, -1060), "neal", penalty=1.0, seed=0)
    assert answer.x is not None


def test_a_batch_holds_problems_of_all_sizes():
    problems = [draw(10, "factored", np.float64, e, seed=3) for e in (0, -1000, 20, 1000, -60)]
    answers = solve(problems, "anneal", seed=0)
    for problem, answer in zip(problems, answers, strict=True):
        assert answer.energy == lowest_energy(problem)
    assert ["exponent" in answer.info for answer in answers] == [False, True, False, True, False]


def test_a_solver_of_someone_else_sees_ordinary_coefficients():
    seen = []

    class Plain(Solver):
        name, summary = "plain", "for this test"
        capabilities = Capabilities(exact=True)

        def run(self, problem, request):
            seen.append(max(problem.peaks))
            x = np.zeros((1, problem.n), np.uint8)
            x[0, np.argsort(problem.diagonal)[: problem.k]] = 1
            return Outcome(x, Stop.PROVEN, proven=True, bound=problem.energy(x[0]))

    for exponent in (-1060, 0, 1000):
        problem = CardinalityQUBO(np.diag(np.ldexp([3.0, 1.0, 2.0], exponent)), 2, offset=0.0)
        answer = solve(problem, Plain())
        assert answer.energy == answer.bound == np.ldexp(3.0, exponent)
    assert all(0.25 < peak <= 4 for peak in seen)


@pytest.mark.parametrize("n", [25, 60])
@pytest.mark.parametrize("factored", [True, False])
@pytest.mark.parametrize("solver", ["exact", "cpsat", "scip", "anneal"])
def test_no_coefficients_at_all(solver, factored, n):
    zeros = np.zeros((n, n))
    problem = CardinalityQUBO(zeros, n // 2, offset=2.0)
    if factored:
        problem = CardinalityQUBO.from_factors(zeros, zeros[0], n // 2, offset=2.0)
    begin = time.perf_counter()
    answer = solve(problem, solver)
    assert answer.energy == 2.0
    assert answer.bound in (None, 2.0)
    assert answer.is_optimal == (solver != "anneal")
    assert time.perf_counter() - begin < 10


def test_cpsat_skips_the_search_if_all_states_tie():
    """Tiny coefficients with a large one: their states tie for the proof."""
    Q = np.full((40, 40), 1e-290)
    Q[0, 0] = -1.0
    answer = solve(CardinalityQUBO(Q, 20), "cpsat", workers=1)
    assert answer.is_optimal
    assert answer.energy == pytest.approx(-1.0)
    assert answer.bound <= answer.energy


@dataclasses.dataclass(frozen=True)
class Claims(Solver):
    """Returns the first states of its problem, with given claims."""

    claims: object = None

    name: ClassVar[str] = "claims"
    summary: ClassVar[str] = "for these tests"
    capabilities: ClassVar[Capabilities] = Capabilities(exact=True)

    def run(self, problem, request):
        if not isinstance(self.claims, dict):
            return self.claims
        assert not problem.Q.flags.writeable
        x = np.zeros((1, problem.n), np.uint8)
        x[0, np.argsort(problem.diagonal)[-problem.k :]] = 1  # the worst state of a diagonal Q
        return Outcome(x, Stop.CONVERGED, **self.claims)


def diagonal(exponent):
    return CardinalityQUBO(np.diag(np.ldexp([3.0, 1.0, 2.0], exponent)), 2)


@pytest.mark.parametrize("exponent", [-1060, -100, 0, 100, 1000])
def test_a_false_bound_is_refuted_at_every_scale(exponent):
    answer = solve(diagonal(exponent), Claims({"bound": 1e9, "proven": True}))
    assert answer.energy == np.ldexp(5.0, exponent)
    assert (answer.bound, answer.is_optimal) == (None, False)
    assert "lies above the energy" in answer.info["refuted"]


@pytest.mark.parametrize("exponent", [0, 300])
@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ("garbage", "returned a str; expected an Outcome"),
        ({"bound": "low"}, "bound"),
        ({"bound": np.nan}, "bound"),
        ({"info": [1]}, "info"),
    ],
)
def test_a_wrong_answer_is_named_at_every_scale(exponent, claims, said):
    with pytest.raises(BackendError, match=said):
        solve(diagonal(exponent), Claims(claims))
