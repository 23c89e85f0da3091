"""Tiny problems, and solvers that hang, raise, kill their process, lie or report nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from problems import CardinalityQUBO
from solvers import Capabilities, Outcome, Solver, Stop


@dataclasses.dataclass(frozen=True)
class Odd(Solver):
    """Performs one of the actions below after a first incumbent, then returns the start.

    Parameters
    ----------
    deed : str
    place : str
        File that gets a line for each run.
    """

    deed: str = "answer"
    place: str = ""

    name: ClassVar[str] = "odd"
    summary: ClassVar[str] = "for tests"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, callback=True)

    def run(self, problem, request):
        if self.place:
            with Path(self.place).open("a") as file:
                file.write(f"{problem.n} {request.seed}\n")
        x = first_state(problem)
        request.report(problem.energy(x), x=x)
        return getattr(self, self.deed)(problem, request, x)

    def answer(self, problem, request, x):
        return Outcome(x[None], Stop.CONVERGED)

    def sleep(self, problem, request, x):
        time.sleep(3600)

    def spin(self, problem, request, x):
        while True:
            pass

    def spawn(self, problem, request, x):
        """Wait for a process of its own, which says where it is."""
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
        Path(self.place + ".pid").write_text(str(child.pid))
        child.wait()

    def abort(self, problem, request, x):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self, problem, request, x):
        os._exit(3)

    def error(self, problem, request, x):
        raise RuntimeError("no licence")

    def nothing(self, problem, request, x):
        return Outcome(np.zeros((0, problem.n), np.uint8), Stop.CONVERGED)

    def lie(self, problem, request, x):
        """Claim low energies, an infeasible state, a bound and a proof."""
        request.report(-1e9)
        request.report(-2e9, x=np.ones(problem.n, np.uint8))
        request.report(-3e9, at=request.started - 100, x=x[::-1].copy())
        return Outcome(x[None], Stop.PROVEN, proven=True, bound=1e9)


@dataclasses.dataclass(frozen=True)
class Claiming(Odd):
    """Claims any state as optimal, with a bound that only other runs refute."""

    name: ClassVar[str] = "claiming"
    capabilities: ClassVar[Capabilities] = Capabilities(exact=True, groups=True)

    def run(self, problem, request):
        x = first_state(problem)
        return Outcome(x[None], Stop.PROVEN, proven=True, bound=problem.energy(x))


@dataclasses.dataclass(frozen=True)
class Small(Odd):
    """Supports neither large problems nor starts nor seeds."""

    name: ClassVar[str] = "small"
    capabilities: ClassVar[Capabilities] = Capabilities(
        max_n=8, seed=False, initial_state=False, num_reads=False, callback=True
    )


@dataclasses.dataclass(frozen=True)
class Account(Odd):
    """Waits for an account."""

    name: ClassVar[str] = "account"

    def check_ready(self):
        raise RuntimeError("set up an account first")


def first_state(problem):
    """Return the state whose first variables of each group are 1."""
    x = np.zeros(problem.n, np.uint8)
    for group, k in enumerate(problem.cardinalities):
        x[np.flatnonzero(problem.groups == group)[:k]] = 1
    return x


def dense(n=8, k=3, seed=0):
    Q = np.random.default_rng(seed).normal(size=(n, n))
    return CardinalityQUBO(Q + Q.T, k, offset=0.25)


def grouped(seed=0):
    rng = np.random.default_rng(seed)
    A, linear = rng.normal(size=(4, 8)), rng.normal(size=8)
    return CardinalityQUBO.from_factors(A, linear, [1, 2], groups=[0, 0, 0, 1, 1, 1, 1, 1])
