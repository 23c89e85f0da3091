"""Main loop of the worker processes of :mod:`solvers.isolation`.

Messages are pickles, preceded by their length. They are read from the standard input, whose end
means that the parent has exited, and written to the original standard output.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

#: Seconds without a message after which the process ends.
IDLE = 300.0
_LENGTH = struct.Struct("<Q")


def send(file: BinaryIO, message: Any) -> None:
    """Write one message."""
    content = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    file.write(_LENGTH.pack(len(content)))
    file.write(content)
    file.flush()


def receive(file: BinaryIO) -> bytes:
    """Read one message, without unpickling it.

    Raises
    ------
    EOFError
        If the other process has exited.
    """
    header = file.read(_LENGTH.size)
    if len(header) == _LENGTH.size:
        (length,) = _LENGTH.unpack(header)
        if len(content := file.read(length)) == length:
            return content
    raise EOFError("the other process has ended")


#: Sends what is worth knowing before the answer.
Tell = Callable[[Any], None]


def serve(make: Callable[[Tell], Callable[[bytes], tuple[bool, Any]]] | None = None) -> None:
    """Answer messages until the input ends.

    Parameters
    ----------
    make : callable, optional
        Returns what answers a message, given a function that sends notes on the way; by
        default, what runs solvers for :mod:`solvers.isolation`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when to stop
    answers = os.fdopen(os.dup(1), "wb")
    questions = os.fdopen(os.dup(0), "rb")
    # A solver's own input and output must not mix with the messages.
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                arrived.put(receive(questions))
        finally:
            os._exit(0)  # also during a run: the parent has exited

    threading.Thread(target=listen, daemon=True).start()
    handle = _Handler() if make is None else make(lambda note: send(answers, (None, note)))
    while True:
        try:
            message = arrived.get(timeout=IDLE)
        except queue.Empty:
            sys.exit()
        send(answers, handle(message))


class _Handler:
    """Loads and runs a solver; errors are returned as answers."""

    solver: Any = None

    def __call__(self, message: bytes) -> tuple[bool, Any]:
        """Return whether the call succeeded, and its answer or error."""
        from solvers.errors import to_solver_error
        from solvers.invoke import solver_name

        try:
            name, *content = pickle.loads(message)
            step: Callable[..., Any] = getattr(self, name)
            return True, step(*content)
        except BaseException as error:
            return False, to_solver_error(solver_name(self.solver), error)

    def load(self, code: bytes, path: list[str]) -> None:
        """Unpickle a solver with the parent's module path, and import its requirements."""
        self.solver = None
        sys.path[:] = path
        self.solver = pickle.loads(code)
        self.solver.require()

    def invoke(self, problems: Any, requests: Any, batch: bool) -> Any:
        """Run the solver; see :func:`solvers.invoke.invoke`."""
        from solvers.invoke import invoke

        return invoke(self.solver, problems, requests, batch)
