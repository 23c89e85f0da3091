"""Untrusted solvers: read-only inputs, isolation, and abandoned calls."""

import dataclasses
import importlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from enum import Enum
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import dimod
import numpy as np
import pytest

from problems import CardinalityQUBO
from problems.read_only import read_only_problem
from solvers import (
    BackendError,
    Capabilities,
    Outcome,
    Solution,
    Solver,
    Stop,
    TimeLimitError,
    create,
    guard,
    solve,
    solve_each,
)
from solvers.attempt import attempt
from solvers.background import Background, DaemonThreads
from solvers.request import make_request

START = [1, 1, 1, 0, 0, 0, 0, 0]
#: Ends the loops of threads.
released = threading.Event()


def problem_of(seed=0, n=8, k=3):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k=k, offset=0.5)


def factored(seed=0, n=8, k=3):
    rng = np.random.default_rng(seed)
    return CardinalityQUBO.from_factors(rng.normal(size=(4, n)), rng.normal(size=n), k)


@dataclasses.dataclass(frozen=True)
class Stranger(Solver):
    """Misbehaves in one of the ways below."""

    deed: str = "answer"
    path: str = ""

    name: ClassVar[str] = "stranger"
    summary: ClassVar[str] = "for tests"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, callback=True)

    def run(self, problem, request):
        if self.path:
            Path(self.path).write_text(str(os.getpid()))
        getattr(self, self.deed)(problem, request)
        x = np.zeros(problem.n, np.uint8)
        x[np.random.default_rng(request.seed).permutation(problem.n)[: problem.k]] = 1
        return Outcome(x[None], Stop.CONVERGED, info={"process": os.getpid()})

    def answer(self, problem, request):
        request.report(1.0)

    def sleep(self, problem, request):
        time.sleep(3600)

    def spin(self, problem, request):
        while not released.is_set():
            pass

    def abort(self, problem, request):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self, problem, request):
        sys.exit(0)

    def half(self, problem, request):
        if problem.n == 6:
            self.abort(problem, request)

    def print(self, problem, request):
        print("noise on the standard output", flush=True)
        os.system("echo more noise")


@dataclasses.dataclass(frozen=True)
class Local(Stranger):
    """Can't be pickled, since it has a lambda."""

    hook: object = None

    def __post_init__(self):
        object.__setattr__(self, "hook", lambda: None)


@pytest.fixture
def little_grace(monkeypatch):
    monkeypatch.setattr(guard, "GRACE", 0.3)


# -- inputs -----------------------------------------------------------------------------------


def scripted(run, **capabilities):
    can = Capabilities(**capabilities)
    return type("Scripted", (Stranger,), {"run": run, "capabilities": can})()


@pytest.mark.parametrize("problem", [problem_of(), factored()], ids=["dense", "factored"])
def test_arrays_are_read_only_and_attributes_are_its_own(problem):
    seen = {}
    before, k = problem.hash, problem.k

    def run(self, given, request):
        arrays = [given.groups, given.cardinalities, request.initial_state]
        arrays += [given.A, given.linear] if given.is_factored else [given.Q]
        seen["writable"] = [array.flags.writeable for array in arrays]
        seen["shares"] = np.shares_memory(given.groups, problem.groups)
        given.cardinalities, given.groups = np.array([0]), None
        given.offset, given._form = -1e9, None
        return Outcome(np.array(START, np.uint8), Stop.CONVERGED)

    answer = solve(problem, scripted(run), initial_state=START)
    assert not any(seen["writable"])
    assert seen["shares"]  # large arrays are not copied
    assert problem.hash == before
    assert (problem.k, answer.energy) == (k, problem.energy(START))


def test_a_users_own_arrays_stay_writable():
    Q = np.eye(4)
    problem = CardinalityQUBO(Q, 2)
    copy = read_only_problem(problem)
    Q[0, 0] = 5.0
    assert problem.Q[0, 0] == copy.Q[0, 0] == 5.0
    with pytest.raises(ValueError, match="read-only"):
        copy.Q[0, 0] = 1
    assert copy.hash == problem.hash


def test_tensors_of_a_sealed_problem_are_copies():
    problem = factored()
    read_only_problem(problem).tensors().A[:] = 0
    assert np.abs(problem.A).min() > 0


@pytest.mark.parametrize("deed", ["start", "linear"])
def test_writing_is_an_error_that_says_so(deed):
    def run(self, problem, request):
        (request.initial_state if deed == "start" else problem.linear)[:] = 0

    problem = factored()
    before = problem.hash
    with pytest.raises(BackendError, match="stranger.*read-only"):
        solve(problem, scripted(run), initial_state=START)
    assert CardinalityQUBO.from_factors(problem.A, problem.linear, problem.k).hash == before


def test_an_answer_that_is_changed_later_was_copied():
    kept = []

    def run(self, problem, request):
        kept.append(np.array([START], dtype=np.uint8))
        repaired = np.array([True])
        kept.append(repaired)
        return Outcome(kept[0], Stop.CONVERGED, repaired=repaired, info={"array": kept[0]})

    problem = problem_of()
    answer = solve(problem, scripted(run))
    kept[0][:], kept[1][:] = 1, False
    assert answer.x.tolist() == START
    assert answer.samples.tolist() == [START]
    assert answer.info["array"].tolist() == [START]
    assert answer.repaired.all()


class Color(Enum):
    RED = 1


def test_what_is_reported_becomes_plain_data():
    loop: list = []
    loop.append(loop)
    said = {
        "kept": [None, True, 1, 2.5, "text", b"bytes", (1, 2), {"a": {"b": [1]}}],
        "array": np.arange(3),
        "scalar": np.float32(1.5),
        3: Path("a") / "b",
        "number": Fraction(1, 3),
        "kind": Color.RED,
        "objects": np.array([object()]),
        "set": {1},
        "function": len,
        "loop": loop,
    }
    info = solve(problem_of(), scripted(lambda s, p, r: reporting(said))).info
    assert info["kept"] == said["kept"]
    assert info["array"].tolist() == [0, 1, 2]
    assert (info["scalar"], info["3"], info["number"], info["set"]) == (1.5, "a/b", "1/3", [1])
    assert info["kind"] == "Color.RED"
    assert "object" in info["objects"]
    assert "len" in info["function"]
    pickle.loads(pickle.dumps(info))
    assert info["solver"] == "stranger"


def reporting(info):
    return Outcome(np.array(START, np.uint8), Stop.CONVERGED, info=info)


def test_no_answer_shares_memory_with_the_start():
    kept = []

    def run(self, problem, request):
        kept.append(request.initial_state)
        return Outcome(request.initial_state[None], Stop.CONVERGED)

    answer = solve(problem_of(), scripted(run), initial_state=START)
    assert not np.shares_memory(answer.samples, kept[0])


def test_refuted_proofs_and_bounds_are_dropped_and_recorded():
    def run(self, problem, request):
        worst = max(np.eye(8, dtype=np.uint8), key=problem.energy)
        return Outcome(worst, Stop.PROVEN, proven=True, bound=problem.energy(worst))

    problem = problem_of(k=1)
    solver = scripted(run, exact=True)
    alone = solve(problem, solver)
    assert alone.is_optimal  # nothing refutes it
    start = min(np.eye(8, dtype=np.uint8), key=problem.energy)
    better = solve(problem, solver, initial_state=start)
    assert not better.is_optimal
    assert better.bound is None
    assert "lies above the energy" in better.info["refuted"]


# -- abandoned calls --------------------------------------------------------------------------


def waited(call):
    begin = time.perf_counter()
    answer = call()
    return answer, time.perf_counter() - begin


@pytest.mark.usefixtures("little_grace")
@pytest.mark.parametrize("deed", ["sleep", "spin"])
def test_a_thread_that_hangs_is_left_behind(deed):
    """And a loop of Python code in it is stopped."""

    def fails():
        with pytest.raises(TimeLimitError, match=r"'stranger'.*time limit of 0.1 s.*thread"):
            solve(problem_of(), Local(deed), time_limit=0.1)

    solve(problem_of(), Local(), time_limit=10)
    before = threading.active_count()
    _, seconds = waited(fails)
    assert 0.4 <= seconds < 60
    if deed == "spin":
        if sys.gettrace() and sys.version_info < (3, 12):
            released.set()  # not stopped there, it would slow down all tests that follow
        deadline = time.monotonic() + 10
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert threading.active_count() <= before
        released.clear()


@pytest.mark.usefixtures("little_grace")
def test_a_process_that_hangs_is_ended(tmp_path):
    place = tmp_path / "process"
    for deed in ("sleep", "spin"):
        with pytest.raises(TimeLimitError, match="stranger.*its process was ended"):
            solve(problem_of(), Stranger(deed, str(place)), time_limit=0.1)
        process = int(place.read_text())
        assert process != os.getpid()
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_under_a_time_limit_it_runs_in_a_process_that_is_kept():
    problem = problem_of()
    here = solve(problem, Stranger(), seed=3)
    there = [solve(problem, Stranger(), seed=3, time_limit=5) for _ in range(2)]
    assert here.info["process"] == os.getpid()
    assert there[0].info["process"] == there[1].info["process"] != os.getpid()
    assert there[0].x.tolist() == there[1].x.tolist() == here.x.tolist()
    assert there[0].timing.total < 1  # starting the process does not count


def test_an_edited_solver_is_reloaded(tmp_path, monkeypatch):
    source = """
import numpy as np
from solvers import Capabilities, Outcome, Solver, Stop

class Edited(Solver):
    name, summary, capabilities = "edited", "", Capabilities()

    def run(self, problem, request):
        x = np.zeros(problem.n, np.uint8)
        x[: problem.k] = 1
        return Outcome(x, Stop.CONVERGED, info={"version": VERSION})
"""
    file = tmp_path / "edited_solver.py"
    monkeypatch.syspath_prepend(tmp_path)
    for version in (1, 2):
        file.write_text(source.replace("VERSION", str(version)))
        os.utime(file, (version, version))
        module = importlib.import_module("edited_solver")
        module = importlib.reload(module) if version == 2 else module
        assert solve(problem_of(), module.Edited(), time_limit=5).info["version"] == version


def test_output_of_a_solver_does_not_mix_with_answers():
    assert solve(problem_of(), Stranger("print"), time_limit=5).x is not None


def test_a_process_that_dies_costs_its_problem_alone():
    problems = [problem_of(n=5), problem_of(n=6), problem_of(n=7)]
    answers = solve_each(problems, Stranger("half"), time_limit=10)
    assert [isinstance(answer, Solution) for answer in answers] == [True, False, True]
    assert "'stranger' failed: ChildProcessError: its process ended by SIGKILL" in str(answers[1])


def test_a_callback_keeps_the_solver_here():
    calls = []
    answer = solve(
        problem_of(), Stranger(), time_limit=5, callback=lambda *call: calls.append(call)
    )
    assert answer.info["process"] == os.getpid()
    assert len(calls) == 1


def test_our_own_solvers_run_in_the_callers_thread(monkeypatch):
    from solvers.diagonal import Diagonal

    threads = []
    run = Diagonal.run
    spy = lambda self, *given: (threads.append(threading.current_thread()), run(self, *given))[1]  # noqa: E731
    monkeypatch.setattr(Diagonal, "run", spy)
    solve(problem_of(), "diagonal")
    assert threads == [threading.current_thread()]
    assert guard.is_trusted(create("anneal"))
    assert not guard.is_trusted(create("hybrid", sampler=dimod.ExactCQMSolver()))
    assert not guard.is_trusted(Stranger())


class Queue(dimod.Sampler):
    """A sampler that ignores its time limit."""

    parameters: ClassVar = {"time_limit": []}
    properties: ClassVar = {}

    def sample(self, bqm, time_limit=None):
        time.sleep(3600)


@pytest.mark.usefixtures("little_grace")
def test_a_foreign_sampler_that_hangs_is_left_behind():
    with pytest.raises(TimeLimitError, match="dimod:Queue.*thread is left behind"):
        solve(problem_of(), Queue(), time_limit=0.1)


def test_sys_exit_in_a_solver_ends_nothing():
    with pytest.raises(BackendError, match="'stranger' failed: SystemExit: 0"):
        solve(problem_of(), Stranger("leave"))


SCRIPT = r"""
import os, time
import numpy as np
from problems import CardinalityQUBO
from solvers import Capabilities, Solver, solve

class Endless(Solver):
    name, summary, capabilities = "endless", "", Capabilities(batches=BATCHES)
    def run(self, problem, request):
        os.write(1, b"running\n")  # whole, whatever other threads write
        while True:
            time.sleep(0.01)

problem = CardinalityQUBO(np.eye(6), 3)
try:
    solve(PROBLEM, Endless())
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("problem", "batches"), [("problem", 0), ("[problem] * 3", 0), ("[problem] * 3", 1)]
)
def test_an_interruption_ends_a_hanging_solver(problem, batches):
    script = SCRIPT.replace("PROBLEM", problem).replace("BATCHES", str(bool(batches)))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], **pipes)
    clock = threading.Timer(60, process.kill)
    clock.start()
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate()
    finally:
        clock.cancel()
        process.kill()
    assert said.replace("running\n", "") == "interrupted\n", errors
    assert process.returncode == 0


LEFT = """
import threading
deadline = time.monotonic() + 20
while threading.active_count() > 1 and time.monotonic() < deadline:
    time.sleep(0.05)
print([thread.name for thread in threading.enumerate()], flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends Ctrl-C")
@pytest.mark.parametrize("batches", [0, 1])
def test_an_interruption_of_a_sequence_leaves_no_thread(batches):
    script = SCRIPT.replace("PROBLEM", "[problem] * 5").replace("BATCHES", str(bool(batches)))
    process = subprocess.Popen(
        [sys.executable, "-c", script + LEFT], stdout=subprocess.PIPE, text=True
    )
    clock = threading.Timer(60, process.kill)
    clock.start()
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        said = process.communicate()[0]
    finally:
        clock.cancel()
        process.kill()
    assert said.replace("running\n", "") == "interrupted\n['MainThread']\n"


# -- sequences --------------------------------------------------------------------------------


def test_an_executor_that_breaks_costs_the_problem_that_broke_it():
    problems = [problem_of(n=n) for n in (5, 6, 7, 8)]
    expected = solve([problems[0], problems[2], problems[3]], Stranger(), seed=None)
    with ProcessPoolExecutor(1) as processes:
        answers = solve_each(problems, Stranger("half"), executor=processes)
        again = solve_each(problems, Stranger("half"), executor=processes)  # already broken
    for found in (answers, again):
        assert [isinstance(answer, Solution) for answer in found] == [True, False, True, True]
        assert "SIGKILL" in str(found[1])
    assert len(expected) == 3


def test_what_no_process_can_take_is_said():
    with (
        ProcessPoolExecutor(1) as processes,
        pytest.raises(BackendError, match=r"could not run solver 'stranger'.*threads"),
    ):
        solve([problem_of()], Local(), executor=processes)


def test_errors_stand_where_their_answers_would():
    class Fails(Stranger):
        def run(self, problem, request):
            if problem.n == 6:
                raise ValueError("this one")
            return super().run(problem, request)

    problems = [problem_of(n=5), problem_of(n=6), problem_of(n=7)]
    with ThreadPoolExecutor(2) as threads:
        for executor in (None, threads):
            first, second, third = solve_each(problems, Fails(), executor=executor)
            assert isinstance(first, Solution)
            assert isinstance(third, Solution)
            assert isinstance(second, BackendError)
            assert isinstance(second.__cause__, ValueError)


@pytest.mark.usefixtures("little_grace")
def test_a_batch_that_hangs_is_solved_one_by_one():
    class Batched(Local):
        capabilities = dataclasses.replace(Stranger.capabilities, batches=True)

        def run_batch(self, problems, requests):
            time.sleep(3600)

    answers, seconds = waited(
        lambda: solve_each([problem_of(i) for i in range(3)], Batched(), time_limit=0.1)
    )
    assert all(isinstance(answer, Solution) for answer in answers)
    assert 0.6 <= seconds < 60


# -- background -------------------------------------------------------------------------------


def test_background_calls_keep_context_and_errors_apart():
    with np.errstate(divide="raise"):
        running = Background(lambda: np.geterr()["divide"])
    assert running.error(5) is None
    assert running.result() == "raise"
    failing = Background(lambda: int("x"))
    assert isinstance(failing.error(5), ValueError)
    waiting = Background(threading.Event().wait)
    with pytest.raises(TimeoutError):
        waiting.error(0.01)


def test_daemon_threads_run_so_many_at_a_time():
    both, most = threading.Barrier(2, timeout=10), []
    lock, running = threading.Lock(), [0]

    def meet(i):
        with lock:
            running[0] += 1
            most.append(running[0])
        both.wait()
        with lock:
            running[0] -= 1
        return i

    with DaemonThreads(2) as threads:
        futures = [threads.submit(meet, i) for i in range(6)]
        assert [future.result(10) for future in futures] == list(range(6))
    assert max(most) == 2


def test_an_attempt_never_raises(monkeypatch):
    class Nameless(Stranger):
        @property
        def name(self):
            raise KeyError("name")

        def run(self, problem, request):
            raise StopIteration

    solver, problem = Nameless(), problem_of()
    request = make_request(Stranger(), problem, None, None, None, 1, None)
    assert "'Nameless' failed: StopIteration" in str(attempt(solver, problem, request))


def test_reported_keys_can_be_written_as_json():
    said = {"counts": {np.int64(3): 5, (1, 2): 6, None: 7}}
    info = solve(problem_of(), scripted(lambda s, p, r: reporting(said))).info
    assert info["counts"] == {3: 5, "(1, 2)": 6, None: 7}
    json.dumps(info["counts"])


def test_the_record_of_a_request_cannot_be_overwritten():
    said = {"solver": "exact", "seed": "42", "own": 1}
    info = solve(problem_of(), scripted(lambda s, p, r: reporting(said), seed=True), seed=7).info
    assert (info["solver"], info["seed"], info["own"]) == ("stranger", 7, 1)
