"""Requirements of the conformance suite, one function each."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from problems import BudgetQUBO, CardinalityQUBO, InvalidProblemError
from solvers.base import Capabilities, Request, Solver, State
from solvers.errors import OptionError, UnsupportedError
from solvers.solve import solve
from solvers.streams import spawn_seeds
from solvers.testing.case import Case, fingerprint
from solvers.testing.verify import expect, lowest_energy, optimum, refused, verify


def check_declaration(case: Case) -> None:
    """Check name, summary, capabilities and pickling."""
    expect(isinstance(case.solver, Solver), "not a solvers.Solver")
    expect(case.solver.name, "the solver has no name")
    expect(isinstance(case.can, Capabilities), "capabilities is not a Capabilities")
    expect(not case.solver.missing(), f"not installed: {case.solver.missing()}")
    copy = pickle.loads(pickle.dumps(case.solver))
    expect(type(copy) is type(case.solver), "the solver can't go to another process")


def check_answers(case: Case) -> None:
    """Check that answers are feasible, and optimal if the solver is exact."""
    for seed in range(3):
        problem = case.problem(seed)
        solution = case.solve(problem)
        expect(solution.x is not None, "no feasible state was found")
        best, unit = lowest_energy(problem), float(np.abs(problem.Q).sum())
        if solution.bound is not None:
            expect(solution.bound <= best + 1e-9 * unit, "the bound is not a lower bound")
        if case.can.exact:
            expect(solution.is_optimal, f"an exact solver stopped with {solution.status}")
            expect(solution.energy <= best + 1e-9 * unit, "claimed optimal, but is not")


def check_inputs(case: Case) -> None:
    """Check that problem and start are unchanged after a direct call."""
    rng = np.random.default_rng(12)
    A, linear = rng.normal(size=(3, case.n)), rng.normal(size=case.n)
    start = (np.arange(case.n) % 2 == 0).astype(np.uint8)
    problems = {
        "a dense problem": CardinalityQUBO(case.problem(12).Q, int(start.sum()), offset=0.5),
        "a factored problem": CardinalityQUBO.from_factors(A, linear, int(start.sum())),
    }
    for what, problem in problems.items():
        before, given = problem.hash, start.copy()
        case.run(problem, given)
        expect(fingerprint(problem) == before, f"{what} was changed")
        expect(np.array_equal(given, start), f"the start was changed, with {what}")


def check_outputs(case: Case) -> None:
    """Check that the samples of a run are not changed by the next."""
    first = case.run(case.problem(13))
    kept = np.array(first.samples)
    for seed in (14, 15):
        case.run(case.problem(seed))
    expect(np.array_equal(first.samples, kept), "a later run changed the samples of an earlier")


def check_degenerate(case: Case) -> None:
    """Check degenerate problems: one variable, k = 0, k = n and two variables."""
    for n, k in ((1, 0), (1, 1), (2, 1), (case.n, 0), (case.n, case.n), (case.n, 1)):
        Q = case.problem(n).Q[:n, :n]
        solution = case.solve(CardinalityQUBO(Q, k))
        expect(solution.x is not None, f"nothing found for n = {n}, k = {k}")
        expect(solution.samples[0].sum() == k, f"{solution.samples[0].sum()} ones for k = {k}")


def check_equal_coefficients(case: Case) -> None:
    """Check problems whose states all have equal energy."""
    k = case.n // 2
    for value in (0.0, 1.0, -2.5):
        solution = case.solve(CardinalityQUBO(np.full((case.n, case.n), value), k))
        expected = value * k * k
        expect(np.isclose(solution.energy, expected), f"all coefficients {value}: wrong energy")


def check_scales(case: Case) -> None:
    """Check huge and tiny coefficients; exact solvers must still find the optimum."""
    for scale in (1e-300, 1e-12, 1e-6, 1e6, 1e12, 1e290):
        problem = case.problem(3, scale)
        solution = case.solve(problem)
        expect(np.isfinite(solution.energy), f"no finite energy at scale {scale}")
        if case.can.exact and solution.is_optimal:
            best = lowest_energy(problem)
            expect(
                solution.energy <= best + 1e-9 * np.abs(problem.Q).sum(),
                f"claimed optimal at scale {scale}, but is not",
            )
    mixed = case.problem(4).Q * np.outer(*[np.geomspace(1e-4, 1e4, case.n)] * 2)
    expect(case.solve(CardinalityQUBO(mixed, case.n // 2)).x is not None, "mixed scales")


def check_dtypes(case: Case) -> None:
    """Check integers, float32 and factors."""
    rng = np.random.default_rng(5)
    integers = rng.integers(-9, 10, size=(case.n, case.n))
    A, linear = rng.normal(size=(3, case.n)), rng.normal(size=case.n)
    k = case.n // 2
    problems = {
        "integer Q": CardinalityQUBO(integers + integers.T, k),
        "float32 Q": CardinalityQUBO((integers + integers.T).astype(np.float32), k),
        "float64 factors": CardinalityQUBO.from_factors(A, linear, k),
        "float32 factors": CardinalityQUBO.from_factors(A.astype(np.float32), linear, k),
        "no couplings": CardinalityQUBO.from_factors(A[:0], linear, k),
    }
    for what, problem in problems.items():
        expect(case.solve(problem).x is not None, f"nothing found for {what}")


def check_groups(case: Case) -> None:
    """Check that several cardinalities, also forced ones, are kept or refused."""
    problem = case.problem(6, num_groups=2)
    if not case.can.groups:
        with refused(UnsupportedError, "a problem of two groups"):
            case.solve(problem)
        return
    expect(case.solve(problem).x is not None, "nothing found for two groups")
    groups = np.arange(case.n) % 3
    forced = CardinalityQUBO(problem.Q, [0, 1, int(np.sum(groups == 2))], groups=groups)
    expect(case.solve(forced).x is not None, "nothing found where groups are forced")


def check_budgets(case: Case) -> None:
    """Check that budgets with integer and real costs are kept, or refused."""
    problem = case.budget_problem()
    if not case.can.budgets:
        with refused(UnsupportedError, "a budget"):
            case.solve(problem)
        return
    rng = np.random.default_rng(30)
    A, linear = rng.normal(size=(3, case.n)), rng.normal(size=case.n)
    problems = {
        "integer costs": problem,
        "real costs": case.budget_problem(1, real=True),
        "factors": BudgetQUBO.from_factors(A, linear, **problem.constraint),
        "equal coefficients": BudgetQUBO(np.ones((case.n, case.n)), **problem.constraint),
        "a budget of 0": BudgetQUBO(problem.Q, problem.costs, 0.0),
        "no costs": BudgetQUBO(problem.Q, np.zeros(case.n), 0.0),
        "a cardinality": BudgetQUBO.from_cardinality(case.problem(2, num_groups=2)),
        "tiny coefficients": case.budget_problem(3, scale=1e-200),
        "huge coefficients": case.budget_problem(4, scale=1e200),
        "every variable": BudgetQUBO(problem.Q, 1 + problem.costs, (1 + problem.costs).sum()),
    }
    for what, each in problems.items():
        solution = case.solve(each)
        expect(solution.x is not None, f"nothing found for {what}")
        best, unit = lowest_energy(each), float(np.abs(each.Q).sum())
        if solution.bound is not None:
            expect(solution.bound <= best + 1e-9 * unit, f"{what}: not a lower bound")
        if case.can.exact:
            expect(solution.is_optimal, f"{what}: an exact solver stopped with {solution.status}")
            expect(solution.energy <= best + 1e-9 * unit, f"{what}: claimed optimal, but is not")
    if case.can.initial_state:
        start = optimum(problem)
        again = case.solve(problem, initial_state=start)
        expect(again.energy <= problem.energy(start) + 1e-12, "an optimal start was worsened")
        with refused(InvalidProblemError, "an initial state that saves too little"):
            case.solve(problem, initial_state=np.zeros(case.n))
    if case.can.seed and case.can.deterministic:
        first, second = (case.solve(problem, seed=5) for _ in range(2))
        expect(np.array_equal(first.samples, second.samples), "equal seeds, different samples")
    _check_budget_in_time(case)


def _check_budget_in_time(case: Case) -> None:
    """Check the time limit on a larger problem with a budget.

    An enumeration has more states than with a cardinality, so n stays below ``max_n``.
    """
    if not case.can.time_limit:
        return
    n = min(case.large_n, (case.can.max_n or case.large_n) * 3 // 4)
    rng = np.random.default_rng(31)
    A, linear = rng.normal(size=(max(1, n // 4), n)), rng.normal(size=n)
    costs = rng.integers(1, 9, n)
    large = BudgetQUBO.from_factors(A, linear, costs, costs.sum() / 2)
    case.solve(large, time_limit=case.time_limit)  # loads and compiles what is needed once
    begin = time.perf_counter()
    solution = solve(large, case.solver, time_limit=case.time_limit)
    seconds = time.perf_counter() - begin
    verify(solution, large, case.can)
    allowed = 1.0 + 1.1 * case.time_limit
    expect(seconds <= allowed, f"{seconds:.2f} s for a time limit of {case.time_limit} s")


def check_seed(case: Case) -> None:
    """Check seeds: equal ones give equal answers if the solver is deterministic."""
    problem = case.problem(7)
    if not case.can.seed:
        with refused(UnsupportedError, "a seed"):
            case.solve(problem, seed=1)
        return
    for bad in (-1, 1.5, "1", True):
        with refused(OptionError, f"seed = {bad!r}"):
            case.solve(problem, seed=bad)
    case.solve(problem, seed=2**32 - 1)
    first, again = (case.solve(problem, seed=5) for _ in range(2))
    if case.can.deterministic:
        expect(np.array_equal(first.samples, again.samples), "equal seeds, different samples")


def check_initial_state(case: Case) -> None:
    """Check that the answer is never worse than the start, and bad starts are refused."""
    problem = case.problem(8)
    start = np.zeros(case.n, dtype=np.uint8)
    start[: problem.k] = 1
    if not case.can.initial_state:
        with refused(UnsupportedError, "an initial state"):
            case.solve(problem, initial_state=start)
        return
    for bad in (np.ones(case.n), start[1:], 2 * start, np.array([start, start])):
        with refused(InvalidProblemError, f"initial state {bad.tolist()}"):
            case.solve(problem, initial_state=bad)
    kept = start.copy()
    solution = case.solve(problem, initial_state=start)
    expect(np.array_equal(start, kept), "the caller's initial state was written to")
    expect(solution.energy <= problem.energy(start), "the answer is worse than its start")
    best = case.solve(problem, initial_state=optimum(problem))
    expect(best.energy <= lowest_energy(problem) + 1e-12, "an optimal start was worsened")


def check_num_reads(case: Case) -> None:
    """Check that there are at most ``num_reads`` samples."""
    problem = case.problem(9)
    if not case.can.num_reads:
        with refused(UnsupportedError, "two reads"):
            case.solve(problem, num_reads=2)
        return
    for bad in (0, -1, 1.5, "2", True):
        with refused(OptionError, f"num_reads = {bad!r}"):
            case.solve(problem, num_reads=bad)
    for reads in (1, 4):
        found = len(case.solve(problem, num_reads=reads).samples)
        expect(1 <= found <= reads, f"{found} samples for {reads} reads")


def check_time_limit(case: Case) -> None:
    """Check that time limits are kept within a second and a tenth of the limit."""
    n = min(case.large_n, case.can.max_n or case.large_n)
    rng = np.random.default_rng(10)
    A, linear = rng.normal(size=(max(1, n // 4), n)), rng.normal(size=n)
    problem = CardinalityQUBO.from_factors(A, linear, n // 2)
    if not case.can.time_limit:
        with refused(UnsupportedError, "a time limit"):
            case.solve(problem, time_limit=case.time_limit)
        return
    for bad in (0, -1.0, float("nan"), float("inf"), "1", True):
        with refused(OptionError, f"time_limit = {bad!r}"):
            case.solve(case.problem(), time_limit=bad)
    for once in (case.problem(), problem):  # loads and compiles what is needed once
        case.solve(once, time_limit=case.time_limit)
    asked: dict[str, Any] = {"num_reads": 10_000} if case.can.num_reads else {}
    begin = time.perf_counter()
    solution = solve(problem, case.solver, time_limit=case.time_limit, **asked)
    seconds = time.perf_counter() - begin
    verify(solution, problem, case.can)
    allowed = 1.0 + 1.1 * case.time_limit
    expect(seconds <= allowed, f"{seconds:.2f} s for a time limit of {case.time_limit} s")


def check_callback(case: Case) -> None:
    """Check that incumbents are reported in order, and the callback can stop the search."""
    problem = case.problem(11)
    if not case.can.callback:
        with refused(UnsupportedError, "a callback"):
            case.solve(problem, callback=lambda seconds, energy: None)
        return
    calls: list[tuple[float, float]] = []
    solution = case.solve(problem, callback=lambda *call: calls.append(call))
    expect(calls, "the callback was never called")
    seconds, energies = zip(*calls, strict=True)
    expect(min(seconds) >= 0, "an incumbent was found before the start")
    expect(list(seconds) == sorted(seconds), "incumbents are not in order of time")
    expect(list(energies) == sorted(energies, reverse=True), "an incumbent rose")
    tolerance = 1e-6 * np.abs(problem.Q).sum()
    expect(solution.energy <= energies[-1] + tolerance, "the last incumbent was lost")
    stopped = case.solve(problem, callback=lambda seconds, energy: True)
    expect(stopped.x is not None, "an interrupted search lost its incumbent")
    states: list[tuple[float, State]] = []
    request = Request(
        seed=1 if case.can.seed else None,
        callback=lambda seconds, energy: None,
        observer=lambda seconds, energy, x: states.append((energy, x.copy())),
    )
    case.solver.run(problem, request)
    for energy, x in states:  # that it handed on, which it need not
        expect(problem.is_feasible(x), "an incumbent's state misses the cardinality")
        expect(abs(problem.energy(x) - energy) <= tolerance, "an incumbent has another energy")


def check_limits(case: Case) -> None:
    """Check that problems beyond ``max_n`` and unknown options are refused."""
    if case.can.max_n is not None:
        n = case.can.max_n + 1
        wide = CardinalityQUBO.from_factors(np.zeros((0, n)), np.arange(n, dtype=float), n // 2)
        with refused(UnsupportedError, f"n = {n} with max_n = {case.can.max_n}"):
            solve(wide, case.solver)
    with refused(OptionError, "an unknown option"):
        solve(case.problem(), case.solver, no_such_option=1)


def check_batch(case: Case) -> None:
    """Check that sequences are answered in order, in a batch and through threads."""
    asked: dict[str, Any] = {"seed": 3} if case.can.seed else {}
    problems = [case.problem(20), CardinalityQUBO(case.problem(21).Q, 0), case.problem(22)]
    expect(solve([], case.solver, **asked) == [], "no problems, but answers")
    plain = solve(problems, case.solver, **asked)
    with ThreadPoolExecutor(2) as threads:
        threaded = solve(problems, case.solver, executor=threads, **asked)
    seeds = spawn_seeds(asked.get("seed"), len(problems))
    for i, problem in enumerate(problems):
        verify(plain[i], problem, case.can)
        verify(threaded[i], problem, case.can)
        if case.can.seed and case.can.deterministic:
            alone = solve(problem, case.solver, seed=seeds[i])
            expect(threaded[i].energy == alone.energy, "threads changed an answer")


#: Checks by name, in the order of execution.
CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
