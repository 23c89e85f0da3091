"""Processes that run solvers which are not trusted, and that can be ended at any moment.

They are not made by :mod:`multiprocessing`, which would run the caller's script once more in
each, or fork it in whatever state its threads are. A worker is started when one is needed,
kept for later calls, and ends with this process, or when nobody has asked for long.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from problems import CardinalityQUBO
from solvers.background import Background
from solvers.base import Request, Solver
from solvers.cpus import usable_cpus
from solvers.errors import describe
from solvers.worker import receive, send

_BOOT = """
import json, os, sys
module, path, cpus = map(json.loads, sys.argv[1:])
if cpus:  # before any library counts them
    os.sched_setaffinity(0, cpus)
sys.path[:] = path
from importlib import import_module
import_module(module).serve()
"""
#: Longest time to start a worker and import a solver, in seconds.
_LOADING = 120.0

log = logging.getLogger("icbs")

_lock = threading.Lock()
_idle: list[Worker] = []
#: As many workers as processors, whatever asks for them.
_places = threading.BoundedSemaphore(usable_cpus())
#: Classes of solvers that no worker could load.
_resident: set[type] = set()


class Peer:
    """Another process of this interpreter, which answers messages.

    Parameters
    ----------
    module : str
        The one whose function ``serve`` it runs.
    environment : dict, optional
        Variables that it has besides those of this process.
    cpus : sequence of int, optional
        CPUs that it may use, where the system binds processes to some (Linux).

    Raises
    ------
    OSError
        If no process can be started.
    """

    def __init__(
        self,
        module: str,
        environment: dict[str, str] | None = None,
        cpus: Sequence[int] = (),
    ) -> None:
        told: list[Any] = [
            module,
            module_path(),
            list(cpus) if hasattr(os, "sched_setaffinity") else [],
        ]
        command = [sys.executable, "-P", "-c", _BOOT, *map(json.dumps, told)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        variables = os.environ | (environment or {})
        self._process = subprocess.Popen(command, env=variables, **pipes)  # type: ignore[call-overload]

    def ask(self, *message: Any, hear: Callable[[Any], object] | None = None) -> Any:
        """Send a message and return the answer; an error that is answered is raised.

        Parameters
        ----------
        *message
            What can be pickled.
        hear : callable, optional
            Called with each note that comes before the answer.

        Raises
        ------
        ChildProcessError
            If the process ended; the message says how.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, message)
            while True:
                ok, answer = pickle.loads(receive(self._process.stdout))
                if ok is not None:
                    break
                if hear is not None:
                    hear(answer)
        except (EOFError, OSError):
            self.end()
            raise ChildProcessError(f"its process ended{self._how()}") from None
        if not well:
            raise answer
        return answer

    def _how(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f" with exit code {code}"
        try:
            return f" by {signal.Signals(-code).name}"
        except ValueError:
            return f" by signal {-code}"

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()


class Worker(Peer):
    """One process with a loaded solver."""

    def __init__(self) -> None:
        super().__init__("solvers.worker")
        self._held = b""
        self._sources: dict[str, object] = {}

    def is_current(self, kind: type) -> bool:
        """Whether a class has not changed since the worker imported it."""
        source = _source(kind)
        return self._sources.get(_full_name(kind), source) == source

    def load(self, kind: type, code: bytes) -> None:
        """Load a pickled solver, unless it is loaded already."""
        if code != self._held:
            self.ask("load", code, module_path())
            self._held = code
            self._sources[_full_name(kind)] = _source(kind)

    def invoke(
        self, problems: Sequence[CardinalityQUBO], requests: Sequence[Request], batch: bool
    ) -> Any:
        """Run the solver in the worker; see :func:`solvers.invoke.invoke`."""
        return self.ask("invoke", problems, requests, batch)

    def release(self) -> None:
        """Keep it for another call, if it lives, and make room for the next."""
        if self.is_alive:
            with _lock:
                _idle.append(self)
        _places.release()


def worker_for(
    solver: Solver, problems: Sequence[CardinalityQUBO], requests: Sequence[Request]
) -> Worker | None:
    """Return a worker that holds a solver, or None where this process has to run it.

    That is: a solver that can't be pickled or imported elsewhere (one of ``__main__``), a
    callback, which belongs to this process, or a problem on a device. Waits while as many
    workers as there are processors are at work.
    """
    kind = type(solver)
    if kind.__module__ == "__main__" or kind in _resident or not sys.executable:
        return None
    if not all(problem.on_host for problem in problems):
        return None
    if any(request.callback is not None for request in requests):
        return None
    try:
        code = pickle.dumps(solver)
    except Exception:
        return None
    try:
        return _loaded(kind, code)
    except Exception as error:
        _resident.add(kind)
        log.info("%s is run in this process: another can't load it (%s)", kind, describe(error))
        return None


def _loaded(kind: type, code: bytes) -> Worker:
    """Return a worker that holds a pickled solver, or raise what keeps it from that."""
    _places.acquire()
    worker = None
    try:
        worker = _idle_worker(kind) or Worker()
        loading = Background(partial(worker.load, kind, code))
        if (error := loading.error(_LOADING)) is not None:
            raise error
    except BaseException:
        if worker is not None:
            worker.end()
        _places.release()
        raise
    return worker


def _idle_worker(kind: type) -> Worker | None:
    """Take one that lives still, and that has not imported an older version of a class."""
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.is_alive and worker.is_current(kind):
                return worker
            worker.end()
    return None


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def module_path() -> list[str]:
    """Where another process finds the modules that this one finds."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def _source(kind: type) -> object:
    """Tell a class from what another process imported before: another object, or an edited file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    try:
        return kind, os.stat(file).st_mtime_ns if file else None
    except OSError:
        return kind, None


def _forget() -> None:
    """Begin anew in a forked process: the workers are those of the other."""
    global _lock, _places
    _lock, _places = threading.Lock(), threading.BoundedSemaphore(usable_cpus())
    _idle.clear()


@atexit.register
def _end_all() -> None:
    with _lock:
        for worker in _idle:
            worker.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
