"""Entry points and registry: validation, answers, sequences."""

import dataclasses
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import solvers
from problems import CardinalityQUBO, IcbsError, InvalidProblemError
from solvers import (
    BackendError,
    CallbackError,
    Capabilities,
    MissingBackendError,
    OptionError,
    Outcome,
    Solver,
    SolverError,
    Status,
    Stop,
    UnknownSolverError,
    UnsupportedError,
    available,
    create,
    get,
    names,
    registry,
    solve,
)
from solvers.streams import spawn_seeds


def problem_of(n=8, k=3, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k=k, offset=0.5)


@dataclasses.dataclass(frozen=True)
class Scripted(Solver):
    """Returns a given answer."""

    answer: object = None

    name = "scripted"
    summary = "for tests"
    capabilities = Capabilities(callback=True)

    def run(self, problem, request):
        return self.answer(problem, request)


def scripted(answer, **capabilities):
    solver = Scripted(answer)
    if capabilities:
        can = Capabilities(**capabilities)
        solver = type("Declared", (Scripted,), {"capabilities": can})(answer)
    return solver


# -- callbacks --------------------------------------------------------------------------------


def broken(seconds, energy):
    raise ZeroDivisionError(f"at {seconds:g}")


@pytest.mark.parametrize("name", [n for n in available() if get(n).capabilities.callback])
@pytest.mark.parametrize("scale", [1.0, 2.0**90])
def test_an_error_of_a_callback_is_not_blamed_on_the_solver(name, scale):
    problem = problem_of(n=12, k=5)
    problem = CardinalityQUBO(scale * problem.Q, 5)
    with pytest.raises(CallbackError, match="^the callback failed: ZeroDivisionError: at") as told:
        solve(problem, name, time_limit=5, callback=broken)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert name not in str(told.value)


def test_an_error_of_a_callback_of_a_solver_of_ones_own():
    def report(problem, request):
        request.callback(0.0, 1.0)

    with pytest.raises(CallbackError, match="the callback failed: ZeroDivisionError"):
        solve(problem_of(), scripted(report), callback=broken)
    with pytest.raises(BackendError, match="solver 'scripted' failed: ZeroDivisionError"):
        solve(problem_of(), scripted(lambda problem, request: 1 // 0), callback=print)


# -- one problem ------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(1, 12), st.booleans())
def test_whatever_a_backend_returns_is_measured_and_sorted(seed, n, reads, warm):
    rng = np.random.default_rng(seed)
    problem = problem_of(n, int(rng.integers(1, n)), seed)
    states = rng.integers(0, 2, size=(reads, n)).astype(np.uint8)
    repaired = rng.integers(0, 2, size=reads).astype(bool)
    start = rng.permutation((np.arange(n) < problem.k).astype(np.uint8)) if warm else None
    solver = scripted(lambda p, r: Outcome(states, Stop.CONVERGED, repaired=repaired))
    answer = solve(problem, solver, initial_state=start)
    keys = [(not f, e) for f, e in zip(answer.feasible, answer.energies, strict=True)]
    assert keys == sorted(keys)
    np.testing.assert_allclose(answer.energies, problem.energy(answer.samples), atol=1e-12)
    marks = {(tuple(s), bool(m)) for s, m in zip(states, repaired, strict=True)}
    for state, mark in zip(answer.samples, answer.repaired, strict=True):
        assert (tuple(state), bool(mark)) in marks or (warm and not mark)
    if warm:
        assert answer.energy <= problem.energy(start)
    if answer.x is None:
        assert not problem.is_feasible(states).any()
        assert answer.energy == np.inf
        assert answer.gap is None


def test_no_samples_leave_the_start_or_nothing():
    def nothing(problem, request):
        return Outcome(np.zeros((0, problem.n), dtype=np.uint8), Stop.TIME_LIMIT)

    problem = problem_of()
    empty = solve(problem, scripted(nothing))
    assert empty.status is Status.NO_SOLUTION_FOUND
    start = [1, 1, 1, 0, 0, 0, 0, 0]
    kept = solve(problem, scripted(nothing), initial_state=start)
    np.testing.assert_array_equal(kept.x, start)
    assert kept.status is Status.FEASIBLE


def test_a_heuristic_that_claims_a_proof_is_not_believed():
    x = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=np.uint8)

    def boast(problem, request):
        return Outcome(x[None], Stop.PROVEN, proven=True)

    assert solve(problem_of(), scripted(boast)).status is Status.FEASIBLE
    assert solve(problem_of(), scripted(boast, exact=True)).status is Status.OPTIMAL


@pytest.mark.parametrize(
    "samples", [np.full((1, 8), 2), np.full((1, 8), np.nan), np.zeros((1, 7)), "text"]
)
def test_invalid_states_are_a_backend_error(samples):
    with pytest.raises(BackendError, match="returned invalid states"):
        solve(problem_of(), scripted(lambda p, r: Outcome(samples, Stop.CONVERGED)))


def test_vendor_errors_are_wrapped_and_ours_are_not():
    def fail(error):
        def run(problem, request):
            raise error

        return scripted(run)

    with pytest.raises(BackendError, match=r"scripted.*ZeroDivisionError.*oops") as caught:
        solve(problem_of(), fail(ZeroDivisionError("oops")))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value, IcbsError)
    with pytest.raises(UnsupportedError, match="mine"):
        solve(problem_of(), fail(UnsupportedError("mine")))
    with pytest.raises(KeyboardInterrupt):
        solve(problem_of(), fail(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("asked", "capability"),
    [
        ({"time_limit": 1.0}, "time_limit"),
        ({"seed": 0}, "seed"),
        ({"initial_state": [1, 1, 1, 0, 0, 0, 0, 0]}, "initial_state"),
        ({"num_reads": 2}, "num_reads"),
        ({"callback": print}, "callback"),
    ],
)
def test_what_a_solver_cannot_honour_is_refused_before_it_runs(asked, capability):
    def never(problem, request):
        raise AssertionError("ran")

    solver = scripted(never, **{capability: False})
    with pytest.raises(UnsupportedError, match=f"scripted.*{capability}"):
        solve(problem_of(), solver, **asked)


def test_size_and_groups_are_checked_before_the_solver_runs():
    def never(problem, request):
        raise AssertionError("ran")

    with pytest.raises(UnsupportedError, match="at most n = 7 variables, the problem has 8"):
        solve(problem_of(), scripted(never, max_n=7))
    two = CardinalityQUBO(np.eye(4), k=[1, 1], groups=[0, 0, 1, 1])
    with pytest.raises(UnsupportedError, match="2 groups"):
        solve(two, scripted(never))


@pytest.mark.parametrize(
    "asked",
    [
        {"time_limit": 0},
        {"time_limit": -1},
        {"time_limit": float("nan")},
        {"time_limit": float("inf")},
        {"time_limit": "1"},
        {"time_limit": True},
        {"time_limit": [1.0]},
        {"time_limit": 10**400},
        {"time_limit": 1j},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": "1"},
        {"seed": True},
        {"num_reads": 0},
        {"num_reads": 2.0},
        {"num_reads": "2"},
        {"num_reads": True},
        {"callback": "print"},
    ],
)
@pytest.mark.parametrize("many", [False, True])
def test_senseless_requests_are_refused(asked, many):
    name, value = next(iter(asked.items()))
    shown = "'1'" if value == "1" else ""
    with pytest.raises(OptionError, match=f"{name} is {shown}.*(must be|pass|omit)"):
        solve([problem_of()] if many else problem_of(), "anneal", **asked)


@pytest.mark.parametrize("number", [np.float32(0.5), np.int64(1), Fraction(1, 2), 1])
def test_numbers_of_any_kind_are_taken(number):
    info = solve(problem_of(), "anneal", time_limit=number, seed=np.uint8(3)).info
    assert (info["time_limit"], info["seed"]) == (float(number), 3)
    assert type(info["time_limit"]) is float


def test_other_objects_are_refused_as_problems():
    for thing in (np.eye(4), 3, [problem_of(), "text"], None):
        with pytest.raises(InvalidProblemError, match="CardinalityQUBO"):
            solve(thing, "anneal")
    with pytest.raises(InvalidProblemError, match="initial_state is a int"):
        solve([problem_of()], "anneal", initial_state=1)
    with pytest.raises(OptionError, match="executor is a int"):
        solve([problem_of()], "anneal", executor=4)


def test_options_of_another_kind_are_refused():
    for options in ({"num_sweeps": "10"}, {"penalty": object()}, {"growth": None}):
        with pytest.raises(OptionError):
            create("neal", **options)
        with pytest.raises(OptionError):
            solve(problem_of(), create("neal"), **options)


@pytest.mark.parametrize("state", [[1] * 8, [1, 1, 1], [[1, 1, 1, 0, 0, 0, 0, 0]], [2] * 8, None])
def test_bad_starts_are_refused(state):
    if state is None:
        assert solve(problem_of(), "diagonal", initial_state=None).x is not None
        return
    with pytest.raises(InvalidProblemError):
        solve(problem_of(), "diagonal", initial_state=state)


def test_one_feasible_state_needs_no_search():
    def never(problem, request):
        raise AssertionError("ran")

    for k in (0, 8):
        answer = solve(problem_of(k=k), scripted(never, exact=True))
        assert answer.x.sum() == k
        assert answer.status is Status.OPTIMAL
        assert answer.bound == answer.energy
        assert solve(problem_of(k=k), scripted(never)).status is Status.FEASIBLE


def test_the_answer_can_be_traced():
    problem = problem_of()
    info = solve(problem, "neal", seed=4, num_reads=2, num_sweeps=20).info
    assert info["solver"] == "neal"
    assert info["seed"] == 4
    assert info["num_reads"] == 2
    assert info["problem"] == problem.hash
    assert info["options"]["num_sweeps"] == 20
    assert set(info["versions"]) >= {"icbs-pruning", "dwave-neal", "dimod"}


def test_instances_take_options_too():
    solver = create("neal", num_sweeps=10)
    info = solve(problem_of(), solver, num_sweeps=30).info
    assert info["options"]["num_sweeps"] == 30
    assert solver.num_sweeps == 10
    with pytest.raises(OptionError, match="no option"):
        solve(problem_of(), solver, no_such=1)
    with pytest.raises(OptionError, match="num_sweeps"):
        solve(problem_of(), "neal", no_such=1)


# -- many problems ----------------------------------------------------------------------------

MANY = [problem_of(6 + i % 3, 2 + i % 2, seed=i) for i in range(7)]


def best_of(problems, **asked):
    return [answer.energy for answer in solve(problems, "exhaustive", **asked)]


def test_a_sequence_is_answered_in_order():
    expected = [solve(p, "exhaustive").energy for p in MANY]
    assert best_of(MANY) == pytest.approx(expected)
    assert best_of(tuple(MANY)) == pytest.approx(expected)
    assert best_of(p for p in MANY) == pytest.approx(expected)
    assert solve([], "exhaustive") == []


def test_a_batch_gets_only_open_problems_and_keeps_their_places():
    seen = []

    class Batched(Scripted):
        capabilities = Capabilities(batches=True)

        def run_batch(self, problems, requests):
            seen.append([p.n for p in problems])
            return [self.run(p, r) for p, r in zip(problems, requests, strict=True)]

    def first(problem, request):
        x = (np.arange(problem.n) < problem.k).astype(np.uint8)
        return Outcome(x[None], Stop.CONVERGED)

    mixed = [problem_of(5, 2), problem_of(6, 0), problem_of(7, 3), problem_of(4, 4)]
    answers = solve(mixed, Batched(first))
    assert seen == [[5, 7]]
    assert [int(a.x.sum()) for a in answers] == [2, 0, 3, 4]
    with ThreadPoolExecutor(1) as threads:
        solve(mixed, Batched(first), executor=threads)
    assert seen == [[5, 7]]  # the caller's executor takes precedence over the solver's batch


def test_each_problem_has_its_own_seed_start_and_clock():
    seen = {}

    def record(problem, request):
        seen[problem.n] = request
        return Outcome(request.initial_state[None], Stop.CONVERGED)

    problems = [problem_of(5, 2), problem_of(6, 2)]
    starts = [[1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1]]
    solve(problems, scripted(record), seed=9, initial_state=starts, time_limit=60)
    assert [seen[5].seed, seen[6].seed] == spawn_seeds(9, 2)
    assert seen[5].seed != seen[6].seed
    np.testing.assert_array_equal(seen[6].initial_state, starts[1])
    assert seen[6].started > 0
    with pytest.raises(InvalidProblemError, match="1 initial states for 2"):
        solve(problems, scripted(record), initial_state=starts[:1])


def test_threads_run_side_by_side():
    both = threading.Barrier(2, timeout=10)

    def meet(problem, request):
        both.wait()
        return Outcome(np.eye(1, problem.n, dtype=np.uint8), Stop.CONVERGED)

    with ThreadPoolExecutor(2) as threads:
        answers = solve([problem_of(5, 1)] * 2, scripted(meet), executor=threads)
    assert len(answers) == 2


def test_processes_and_dask_give_the_same_answers():
    expected = best_of(MANY)
    with ProcessPoolExecutor(1) as processes:
        assert best_of(MANY, executor=processes) == expected
    distributed = pytest.importorskip("dask.distributed")
    with (
        distributed.Client(
            processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None
        ) as client,
        client.get_executor() as executor,
    ):
        assert best_of(MANY, executor=executor) == expected


def test_an_error_in_one_problem_surfaces():
    def second(problem, request):
        if problem.n == 6:
            raise ValueError("this one")
        return Outcome(np.eye(1, problem.n, dtype=np.uint8), Stop.CONVERGED)

    with pytest.raises(BackendError, match="this one"):
        solve([problem_of(5, 1), problem_of(6, 1)], scripted(second))


def test_errors_and_answers_survive_pickling():
    answer = solve(problem_of(), "exhaustive")
    copy = pickle.loads(pickle.dumps(answer))
    assert copy.energy == answer.energy
    assert copy.status is answer.status
    error = pickle.loads(pickle.dumps(BackendError("text")))
    assert str(error) == "text"


# -- the registry -----------------------------------------------------------------------------


def test_every_registered_solver_is_described():
    assert {"anneal", "diagonal", "exhaustive", "neal", "qaoa", "qpu"} <= set(names())
    for name in names():
        solver = get(name)
        assert solver.name == name
        assert solver.summary
        assert isinstance(solver.capabilities, Capabilities)
        assert isinstance(solver.options(), dict)
    assert set(available()) <= set(names())


def test_unknown_names_list_the_known():
    with pytest.raises(UnknownSolverError, match=r"'nonsense'.*anneal"):
        solve(problem_of(), "nonsense")


class Homeless(Scripted):
    name = "homeless"
    requires = {"no_such_module.part": "no-such-thing>=1"}  # noqa: RUF012


class Damaged(Scripted):
    name = "damaged"
    requires = {"tests_damaged_backend": "damaged>=2"}  # noqa: RUF012


@pytest.fixture
def plugins(monkeypatch, tmp_path):
    """Register the classes above, and broken entry points."""
    (tmp_path / "tests_damaged_backend.py").write_text("raise ImportError('no libfoo')\n")
    monkeypatch.syspath_prepend(tmp_path)
    here = {name: f"{__name__}:{name.title()}" for name in ("homeless", "damaged")}
    here |= {"nowhere": "no_such_module:Thing", "nosolver": "math:sqrt"}
    entries = {name: EntryPoint(name, value, registry.GROUP) for name, value in here.items()}
    monkeypatch.setattr(registry, "_entries", lambda: entries)
    registry.get.cache_clear()
    yield
    registry.get.cache_clear()


@pytest.mark.usefixtures("plugins")
def test_missing_backends_name_their_pip_line():
    assert get("homeless").missing() == ["no-such-thing>=1"]
    with pytest.raises(MissingBackendError, match=r"pip install 'no-such-thing>=1'"):
        create("homeless")
    with pytest.raises(MissingBackendError, match="no-such-thing"):
        solve(problem_of(), Homeless())
    with pytest.raises(MissingBackendError, match=r"no libfoo.*reinstall"):
        create("damaged")
    assert issubclass(MissingBackendError, ImportError)


@pytest.mark.usefixtures("plugins")
def test_broken_plugins_are_named():
    with pytest.raises(SolverError, match=r"nowhere.*can't be imported"):
        get("nowhere")
    with pytest.raises(SolverError, match="not a solvers.Solver"):
        get("nosolver")
    assert available() == ["damaged"]  # its files exist; broken ones must not hide others


def test_importing_the_floors_loads_no_backend():
    # find_spec imports the (empty) parents of OR-Tools' module, never the module.
    heavy = ("dimod", "dwave.samplers", "dwave.system", "neal", "qiskit", "minorminer")
    heavy += ("ortools.sat.python.cp_model",)
    code = (
        "import sys, problems, solvers; solvers.available();"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_tree_of_errors():
    for name in solvers.__all__:
        thing = getattr(solvers, name)
        if isinstance(thing, type) and issubclass(thing, Exception):
            assert issubclass(thing, IcbsError)
