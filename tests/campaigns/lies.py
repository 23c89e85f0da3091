"""Solvers that lie, crash, hang or meddle on half of the blocks they get.

They are importable, so that they can be sent to other processes.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from problems import CardinalityQUBO
from solvers import Capabilities, Outcome, Request, Solver, SolverError, Stop
from solvers.diagonal import Diagonal

Lie = Callable[[CardinalityQUBO, Request], Any]


def honest(problem: CardinalityQUBO, request: Request) -> Outcome:
    return Diagonal().run(problem, request)


def outcome(samples: Any, **claims: Any) -> Outcome:
    return Outcome(samples, Stop.CONVERGED, **claims)


def raising(error: BaseException) -> Lie:
    def lie(problem: CardinalityQUBO, request: Request) -> Any:
        raise error

    return lie


def claiming(**claims: Any) -> Lie:
    """Tell the truth about the states, and a lie about something else."""
    return lambda problem, request: replace(honest(problem, request), **claims)


class Unreadable(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise ValueError("no message either")


class UnpicklableError(SolverError):
    def __init__(self, one: object, two: object) -> None:
        super().__init__("of another module")


class Property(Outcome):
    """An outcome whose attributes raise."""

    @property
    def samples(self) -> Any:
        raise KeyError("samples")

    @samples.setter
    def samples(self, value: Any) -> None:
        pass


class Hostile:
    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("not an array")

    def __repr__(self) -> str:
        raise RuntimeError("not even a name")

    def __reduce__(self) -> Any:
        raise RuntimeError("not for others")


def recurse(problem: CardinalityQUBO, request: Request) -> Any:
    return recurse(problem, request)


def exhaust(problem: CardinalityQUBO, request: Request) -> Any:
    return np.empty(1 << 58)


def write_start(problem: CardinalityQUBO, request: Request) -> Any:
    start = request.initial_state
    assert start is not None
    start[:] = 1
    return outcome(start[None])


def write_problem(problem: CardinalityQUBO, request: Request) -> Any:
    for array in (problem.cardinalities, problem.groups, problem.linear):
        array[:] = 0
    return honest(problem, request)


def rebind(problem: CardinalityQUBO, request: Request) -> Any:
    found = honest(problem, request)
    problem.cardinalities = problem.cardinalities * 0
    problem.groups = problem.groups * 0
    problem.offset, problem.n = -1e9, 1
    problem._form = None  # type: ignore[assignment]
    return found


def change_later(problem: CardinalityQUBO, request: Request) -> Any:
    found = honest(problem, request)

    def change() -> None:
        for _ in range(200):
            found.samples[:] = 1
            time.sleep(1e-4)

    threading.Timer(0.001, change).start()
    return found


def swap_groups(problem: CardinalityQUBO, request: Request) -> Any:
    """Keep the sum, and break the groups, where there are several."""
    x = np.zeros(problem.n, np.uint8)
    x[np.argsort(problem.groups, kind="stable")[: problem.k + (problem.num_groups == 1)]] = 1
    return outcome(x[None])


def worst(problem: CardinalityQUBO, request: Request) -> Any:
    """Return a feasible state that is worse than the start, as often as not."""
    backwards = CardinalityQUBO(-problem.Q, problem.cardinalities, groups=problem.groups)
    return honest(backwards, replace(request, initial_state=None))


def hang(problem: CardinalityQUBO, request: Request) -> Any:
    time.sleep(3600)


def spin(problem: CardinalityQUBO, request: Request) -> Any:
    while True:
        pass


def abort(problem: CardinalityQUBO, request: Request) -> Any:
    faulthandler.disable()  # pytest's, which would print where
    os.abort()


def vanish(problem: CardinalityQUBO, request: Request) -> Any:
    os._exit(0)


#: Lies that cost their blocks, with a word of the reason that the history must give.
COSTLY: dict[str, tuple[Lie, str]] = {
    "None": (lambda p, r: None, "returned None"),
    "a dict": (lambda p, r: {"samples": [1]}, "returned a dict"),
    "a generator": (lambda p, r: (x for x in [1]), "returned a generator"),
    "the class": (lambda p, r: Outcome, "returned a type"),
    "no info": (claiming(info=None), "info is None"),
    "info a list": (claiming(info=[1]), "info is a list"),
    "info unreadable": (claiming(info={"x": Hostile()}), "not even a name"),
    "repaired too long": (claiming(repaired=np.zeros(9, bool)), "repaired is bool of shape (9,)"),
    "repaired text": (claiming(repaired=np.array(["yes"])), "repaired"),
    "a stop of its own": (claiming(stop="done"), "stop is"),
    "a proof by text": (claiming(proven="yes"), "proven is"),
    "a bound that is NaN": (claiming(bound=float("nan")), "bound is nan"),
    "negative seconds": (claiming(build_seconds=-1.0), "build_seconds is -1.0"),
    "StopIteration": (raising(StopIteration()), "StopIteration"),
    "GeneratorExit": (raising(GeneratorExit()), "GeneratorExit"),
    "CancelledError": (raising(asyncio.CancelledError()), "CancelledError"),
    "sys.exit(0)": (lambda p, r: sys.exit(0), "SystemExit: 0"),
    "an error without words": (raising(Unreadable()), "Unreadable"),
    "an error of its own": (raising(UnpicklableError(1, 2)), "of another module"),
    "RecursionError": (recurse, "RecursionError"),
    "MemoryError": (exhaust, "MemoryError"),
    "states too short": (lambda p, r: outcome(np.zeros((1, p.n - 1), np.uint8)), "has shape"),
    "states of text": (lambda p, r: outcome("states"), "no states"),
    "states NaN": (lambda p, r: outcome(np.full((1, p.n), np.nan)), "0 and 1 only"),
    "states of 2": (lambda p, r: outcome(np.full((1, p.n), 2)), "0 and 1 only"),
    "states of objects": (lambda p, r: outcome(np.full((1, p.n), None)), "0 and 1 only"),
    "states beyond memory": (
        lambda p, r: outcome(np.broadcast_to(np.uint8(0), (1 << 34, p.n))),
        "are more than",
    ),
    "states that raise": (lambda p, r: outcome(Hostile()), "not an array"),
    "attributes that raise": (lambda p, r: Property(None, Stop.CONVERGED), "KeyError"),
    "writes into its start": (write_start, "read-only"),
    "writes into the problem": (write_problem, "read-only"),
}

#: Lies that are seen through: the run is that of an honest solver.
HARMLESS: dict[str, Lie] = {
    "sets the problem's attributes": rebind,
    "a bound above the optimum": claiming(bound=1e9),
    "optimal, says a heuristic": claiming(proven=True, bound=0.0),
}

#: Lies that leave the start where it is: there is something better in what was said, or not.
CORRECTED: dict[str, Lie] = {
    "too many ones": lambda p, r: outcome(np.ones((3, p.n), np.uint8)),
    "the wrong groups": swap_groups,
    "no states": lambda p, r: outcome(np.zeros((0, p.n), np.uint8)),
    "worse than the start": worst,
}

#: What may or may not be seen, depending on who is first.
RACING: dict[str, Lie] = {"changes its answer later": change_later}

#: What only a time limit ends, with the word for where it ran.
ENDLESS: dict[str, tuple[Lie, str]] = {
    "sleeps": (hang, "its process was ended"),
    "spins": (spin, "its process was ended"),
}

#: What takes its process along: for executors of processes, or under a time limit.
DEADLY: dict[str, tuple[Lie, str]] = {
    "os.abort()": (abort, "its process ended by SIGABRT"),
    "os._exit(0)": (vanish, "its process ended with exit code 0"),
}

LIES: dict[str, Lie] = {
    **{name: lie for name, (lie, _) in (COSTLY | ENDLESS | DEADLY).items()},
    **HARMLESS,
    **CORRECTED,
    **RACING,
}


@dataclass(frozen=True)
class Liar(Solver):
    """Tells one lie about half of the problems, and the truth about the others."""

    lie: str | None = None

    name: ClassVar[str] = "liar"
    summary: ClassVar[str] = "for the campaign"
    capabilities: ClassVar[Capabilities] = Capabilities(groups=True)

    def lies(self, problem: CardinalityQUBO) -> bool:
        return self.lie is not None and int(problem.hash, 16) % 2 == 0

    def run(self, problem: CardinalityQUBO, request: Request) -> Outcome:
        if not self.lies(problem):
            return honest(problem, request)
        assert self.lie is not None
        found: Outcome = LIES[self.lie](problem, request)
        return found


@dataclass(frozen=True)
class BatchLiar(Liar):
    """Tells it to batches."""

    capabilities: ClassVar[Capabilities] = Capabilities(groups=True, batches=True)


#: What may be wrong with a batch as a whole, though each of its answers is right.
BATCHES: dict[str, Callable[[list[Outcome]], Any]] = {
    "too short": lambda found: found[:-1],
    "too long": lambda found: [*found, found[0]],
    "endless": lambda found: iter(lambda: found[0], None),
    "a generator": lambda found: (outcome for outcome in found),
    "None": lambda found: None,
    "one outcome": lambda found: found[0],
}


@dataclass(frozen=True)
class BadBatch(Liar):
    """Solves each problem rightly, and spoils the batch."""

    batch: str = field(default="too short", kw_only=True)
    capabilities: ClassVar[Capabilities] = BatchLiar.capabilities

    def run_batch(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
    ) -> list[Outcome]:
        found: list[Outcome] = BATCHES[self.batch](super().run_batch(problems, requests))
        return found
