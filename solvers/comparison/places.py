"""Sets of CPUs for runs, each with one process that is reused from run to run.

A process that is still busy some time after its run's limit is killed, with all processes that
it started; the states found by then are kept. A process that dies is replaced.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import psutil

from solvers.background import Background
from solvers.comparison.cases import Case
from solvers.comparison.records import Run, without_states
from solvers.comparison.trace import Incumbent
from solvers.cpus import usable_cpus
from solvers.errors import BackendError, TimeLimitError, describe
from solvers.isolation import Peer, module_path
from solvers.worker import IDLE

#: Seconds that a process may take to load a solver, and to read a problem.
_LOADING, _READING = 120.0, 900.0

#: Variables that tell libraries how many threads to use.
_THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"),
)


@dataclass(frozen=True)
class Task:
    """A run, with the data that another process needs for it."""

    run: Run
    case: Case
    code: bytes = field(repr=False)
    """The solver, pickled."""
    cores: int
    grace: float
    """Seconds after 1.1 times the time limit at which it is killed."""


def carry_out(task: Task) -> dict[str, Any]:
    """Carry out a run in a place of this machine, once one is free.

    Returns
    -------
    dict
        As :func:`solvers.comparison.worker.perform`, also if the solver fails.
    """
    places = _places(task.cores)
    place = places.get()
    try:
        return place.carry_out(task)
    finally:
        places.put(place)


def room(cores: int) -> int:
    """Return the number of runs with this many cores that fit on this machine at once."""
    return usable_cpus() // cores


class Place:
    """A set of CPUs, and the process that uses them.

    Parameters
    ----------
    cpus : list of int
        Numbers of the CPUs that it is bound to; empty where the system binds none.
    cores : int
    """

    def __init__(self, cpus: list[int], cores: int) -> None:
        self.cpus, self.cores = cpus, cores
        self.peer: Peer | None = None
        self.used = 0.0
        self.interrupted = False
        """Whether the campaign was cancelled, so that its run's answer is discarded."""
        self.prepared: set[bytes] = set()
        self.unloadable: dict[bytes, str] = {}

    def carry_out(self, task: Task) -> dict[str, Any]:
        """Carry out a run; see :func:`carry_out`."""
        self.interrupted = False
        if (why := self._prepare(task.code)) is not None:
            return without_states("failed", why)
        try:
            self._read(task.case)
        except Exception as error:
            return without_states("failed", f"the problem can't be read: {describe(error)}")
        limit = 1.1 * task.run.time_limit + task.grace
        found: list[Incumbent] = []
        began = time.perf_counter()
        try:
            answer: dict[str, Any] = self._ask(
                limit, "run", task.code, task.case, task.run, on_note=found.append
            )
        except TimeoutError:
            seconds = time.perf_counter() - began
            why = (
                f"killed {seconds - task.run.time_limit:.2f} s after its time limit of "
                f"{task.run.time_limit:g} s"
            )
            return self._cut(task, "timeout", why, seconds, found)
        except ChildProcessError as error:
            return self._cut(task, "failed", str(error), time.perf_counter() - began, found)
        except Exception as error:
            return without_states("failed", describe(error), time.perf_counter() - began)
        if answer["end"]["status"] == "timeout":
            self.end()  # a thread of it is still running
        return answer

    def _prepare(self, code: bytes) -> str | None:
        """Load a solver once per process; return the reason if it fails."""
        if code in self.unloadable:
            return self.unloadable[code]
        if self._alive() and code in self.prepared:
            return None
        try:
            self._ask(_LOADING, "prepare", code, module_path())
        except Exception as error:
            late = isinstance(error, TimeoutError) and not isinstance(error, TimeLimitError)
            what = f"loading took more than {_LOADING:g} s" if late else describe(error)
            self.unloadable[code] = what
            return what
        self.prepared.add(code)
        return None

    def _read(self, case: Case) -> None:
        self._ask(_READING, "read", case.source, case.hash)

    def _cut(
        self, task: Task, status: str, why: str, seconds: float, found: list[Incumbent]
    ) -> dict[str, Any]:
        """Return the answer of a run whose process ended, with the states that it had found."""
        self.end()
        answer = without_states(status, why, seconds)
        if found and not self.interrupted:
            with suppress(Exception):
                self._read(task.case)
                kept = self._ask(_READING, "measure", task.case.hash, found)
                answer["trace"] = [[at, energy] for at, energy, _ in kept]
                if kept:
                    answer["x"] = kept[-1][2]
                    answer["end"] |= {"energy": kept[-1][1], "feasible": True}
        return answer

    def _alive(self) -> bool:
        if self.peer is not None and time.monotonic() - self.used > IDLE / 2:
            self.end()  # before its idle timeout, which would lose a message
        return self.peer is not None and self.peer.is_alive

    def _ask(
        self, limit: float, *message: Any, on_note: Callable[[Any], object] | None = None
    ) -> Any:
        """Ask the process, which is started if needed; kill it if it exceeds the limit.

        Raises
        ------
        TimeoutError
            After the kill.
        ChildProcessError
            If it ended by itself.
        """
        if not self._alive():
            self.prepared.clear()
            threads = dict.fromkeys(_THREADS, str(self.cores))
            passive = {"OMP_WAIT_POLICY": "PASSIVE"}
            self.peer = Peer("solvers.comparison.worker", threads | passive, self.cpus)
            self.used = time.monotonic()
        assert self.peer is not None
        asked = Background(partial(self.peer.ask, *message, on_note=on_note))
        try:
            error = asked.error(limit)
        except TimeoutError:
            self.end()
            raise
        finally:
            self.used = time.monotonic()
        if error is not None:
            raise error if isinstance(error, Exception) else BackendError(describe(error))
        return asked.result()

    def end(self) -> None:
        """Kill the process, and those that it started."""
        if self.peer is None:
            return
        with suppress(psutil.Error):
            for child in psutil.Process(self.peer.pid).children(recursive=True):
                with suppress(psutil.Error):
                    child.kill()
        self.peer.kill()


# -- the places of this machine ---------------------------------------------------------------

_lock = threading.Lock()
_known: dict[int, queue.LifoQueue[Place]] = {}
_all: list[Place] = []


def _places(cores: int) -> queue.LifoQueue[Place]:
    """Return the queue of free places with this many cores, last used first."""
    with _lock:
        if cores not in _known:
            _known[cores] = queue.LifoQueue()
            bound = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
            for number in reversed(range(max(1, room(cores)))):
                place = Place(bound[number * cores : (number + 1) * cores], cores)
                _all.append(place)
                _known[cores].put(place)
        return _known[cores]


@atexit.register
def end_all() -> None:
    """Kill the processes of all places; they are started again when they are needed."""
    with _lock:
        for place in _all:
            place.interrupted = True
            place.end()
