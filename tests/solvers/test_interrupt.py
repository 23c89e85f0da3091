"""Ctrl-C during and after a solve, in a separate process."""

import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from problems import CardinalityQUBO
from solvers.base import Interrupt, Request
from solvers.interrupt import interruptible, propagate_interrupt

HEAD = """
import os, signal, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from problems import CardinalityQUBO
from solvers import available, create, solve

def problem(n):
    Q = np.random.default_rng(0).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, n // 2)

def press(seconds):
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
"""

AFTER = """
for name in available():
    if name not in ("hybrid", "qpu"):
        solve(problem(9), name)
press(0.2)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
finally:
    print("finally")
"""

DURING = """
def one(solver, **options):
    solve(problem(90), solver, **options)

def sequence(solver, **options):
    solve([problem(90)] * 3, solver, **options)

def executor(solver, **options):
    with ThreadPoolExecutor(2) as threads:
        solve([problem(90)] * 3, solver, executor=threads, **options)

for name in ("anneal", "cpsat", "exact", "scip"):
    solve(problem(9), name)  # loaded, and compiled
for call, solver, options in eval(sys.argv[1]):
    press(0.5)
    begin = time.perf_counter()
    try:
        globals()[call](solver, **options)
    except KeyboardInterrupt:
        late = time.perf_counter() - begin > 20
    deadline = time.perf_counter() + 5  # a thread that has answered has yet to end
    while threading.active_count() > 1 and time.perf_counter() < deadline:
        time.sleep(0.01)
    print(call, solver, "late" if late else "soon", threading.active_count() - 1)
"""

#: Without a limit (or with a long one), all of them would continue.
SEARCHES = [
    ("one", "cpsat", {"workers": 1}),
    ("sequence", "cpsat", {"workers": 2}),
    ("executor", "cpsat", {"relax": False}),
    ("one", "scip", {}),
    ("sequence", "scip", {"relax": False}),
    ("one", "exact", {}),
    ("sequence", "exact", {}),
    ("sequence", "anneal", {"time_limit": 60}),
]


def run(program: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", HEAD + program, *arguments],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    return done.stdout


def test_ctrl_c_after_every_solver():
    assert run(AFTER).split() == ["KeyboardInterrupt", "finally"]


def test_ctrl_c_during_a_search():
    """The call ends soon, without a thread left behind."""
    expected = [f"{call} {solver} soon 0" for call, solver, _ in SEARCHES]
    assert run(DURING, repr(SEARCHES)).splitlines() == expected


def test_the_search_has_ended_when_its_error_or_answer_comes():
    assert interruptible(lambda: 5, lambda: None, Request()) == 5
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 // 0, lambda: None, Request())


def test_an_interrupt_elsewhere_stops_the_search():
    interrupt, stopped = Interrupt(), threading.Event()
    request = Request(time_limit=1000.0, interrupt=interrupt)
    assert request.remaining > 100
    threading.Timer(0.1, setattr, (interrupt, "raised", True)).start()
    begin = time.perf_counter()
    assert interruptible(lambda: stopped.wait(60), stopped.set, request)
    assert time.perf_counter() - begin < 30
    assert request.interrupted
    assert request.remaining == 0


def test_a_request_goes_to_another_process():
    request = Request(seed=3, interrupt=Interrupt())
    copy = pickle.loads(pickle.dumps(request))
    assert copy == request
    assert not copy.interrupted


def test_an_error_is_announced_to_the_other_threads():
    interrupt = Interrupt()
    with propagate_interrupt(interrupt):
        pass
    assert not interrupt.raised
    with pytest.raises(KeyboardInterrupt), propagate_interrupt(interrupt):
        raise KeyboardInterrupt
    assert interrupt.raised


def test_callbacks_of_cpsat_may_fail():
    """Callbacks run in the thread of the search; their errors reach the caller."""
    from solvers import CallbackError, solve

    Q = np.random.default_rng(0).normal(size=(20, 20))

    def fail(seconds, energy):
        raise LookupError("mine")

    with pytest.raises(CallbackError, match="LookupError: mine"):
        solve(CardinalityQUBO(Q + Q.T, 10), "cpsat", callback=fail)
