"""Worker processes for untrusted solvers, which can be killed at any time.

They don't use :mod:`multiprocessing`, which would run the caller's script again in each, or fork
it in an arbitrary state of its threads. A worker is started on demand, reused by later calls, and
exits with this process, or after a long idle time.
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

from solvers.background import Background
from solvers.base import Problem, Request, Solver
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
#: At most one worker per processor, in all calls together.
_slots = threading.BoundedSemaphore(usable_cpus())
#: Classes of solvers that workers could not load.
_not_loadable: set[type] = set()


class Peer:
    """Another process of this interpreter, which answers messages.

    Parameters
    ----------
    module : str
        Module whose function ``serve`` it runs.
    environment : dict, optional
        Variables that it has besides those of this process.
    cpus : sequence of int, optional
        CPUs that it may use, where the system binds processes to some (Linux).

    Raises
    ------
    OSError
        If the process can't be started.
    """

    def __init__(
        self,
        module: str,
        environment: dict[str, str] | None = None,
        cpus: Sequence[int] = (),
    ) -> None:
        arguments: list[Any] = [
            module,
            module_path(),
            list(cpus) if hasattr(os, "sched_setaffinity") else [],
        ]
        command = [sys.executable, "-P", "-c", _BOOT, *map(json.dumps, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        variables = os.environ | (environment or {})
        self._process = subprocess.Popen(command, env=variables, **pipes)  # type: ignore[call-overload]

    def ask(self, *message: Any, on_note: Callable[[Any], object] | None = None) -> Any:
        """Send a message and return the answer; raise it if it is an error.

        Parameters
        ----------
        *message
            Picklable objects.
        on_note : callable, optional
            Called with each note that the process sends before the answer.

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
                if on_note is not None:
                    on_note(answer)
        except (EOFError, OSError):
            self.kill()
            raise ChildProcessError(f"its process ended{self._exit_reason()}") from None
        if not ok:
            raise answer
        return answer

    def _exit_reason(self) -> str:
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
        """Whether the process is running."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process."""
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

    def invoke(self, problems: Sequence[Problem], requests: Sequence[Request], batch: bool) -> Any:
        """Run the solver in the worker; see :func:`solvers.invoke.invoke`."""
        return self.ask("invoke", problems, requests, batch)

    def release(self) -> None:
        """Return the worker to the idle pool, if it is alive, and free its slot."""
        if self.is_alive:
            with _lock:
                _idle.append(self)
        _slots.release()


def worker_for(
    solver: Solver, problems: Sequence[Problem], requests: Sequence[Request]
) -> Worker | None:
    """Return a worker with a solver loaded, or None if the solver must run in this process.

    That is the case for a solver that can't be pickled or imported elsewhere (such as one of
    ``__main__``), a callback, or a problem on a device. Waits for a slot if all workers are in
    use.
    """
    kind = type(solver)
    if kind.__module__ == "__main__" or kind in _not_loadable or not sys.executable:
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
        _not_loadable.add(kind)
        log.info("%s runs in this process: a worker can't load it (%s)", kind, describe(error))
        return None


def _loaded(kind: type, code: bytes) -> Worker:
    """Return a worker with a pickled solver loaded, or raise the error of loading it."""
    _slots.acquire()
    worker = None
    try:
        worker = _idle_worker(kind) or Worker()
        loading = Background(partial(worker.load, kind, code))
        if (error := loading.error(_LOADING)) is not None:
            raise error
    except BaseException:
        if worker is not None:
            worker.kill()
        _slots.release()
        raise
    return worker


def _idle_worker(kind: type) -> Worker | None:
    """Take an idle worker that is alive and has not imported an older version of a class."""
    with _lock:
        while _idle:
            worker = _idle.pop()
            if worker.is_alive and worker.is_current(kind):
                return worker
            worker.kill()
    return None


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def module_path() -> list[str]:
    """Import path with which another process finds the same modules."""
    return [entry for entry in sys.path if isinstance(entry, str)]


def _source(kind: type) -> object:
    """Return a key that changes with the class object and its source file."""
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    try:
        return kind, os.stat(file).st_mtime_ns if file else None
    except OSError:
        return kind, None


def _reset_after_fork() -> None:
    """Reset the pool in a forked process: the workers belong to the parent."""
    global _lock, _slots
    _lock, _slots = threading.Lock(), threading.BoundedSemaphore(usable_cpus())
    _idle.clear()


@atexit.register
def _end_all() -> None:
    with _lock:
        for worker in _idle:
            worker.kill()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
