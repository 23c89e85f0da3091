"""The other end of :mod:`solvers.isolation`: a process that runs solvers for another one.

Messages are pickles with their length before them. They come on the standard input, which
also says when the other process is gone, and go to what was the standard output.
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
    """Read one message, pickled still.

    Raises
    ------
    EOFError
        If the other end is gone.
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
    # What a solver prints, or reads, must not meet the messages.
    os.dup2(2, 1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    arrived: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen() -> None:
        try:
            while True:
                arrived.put(receive(questions))
        finally:
            os._exit(0)  # whatever the solver does: nobody is left to hear of it

    threading.Thread(target=listen, daemon=True).start()
    handle = _Handler() if make is None else make(lambda note: send(answers, (None, note)))
    while True:
        try:
            message = arrived.get(timeout=IDLE)
        except queue.Empty:
            sys.exit()
        send(answers, handle(message))


class _Handler:
    """Loads a solver, then runs it; an error is an answer as well."""

    solver: Any = None

    def __call__(self, message: bytes) -> tuple[bool, Any]:
        """Return whether it went well, and the answer or the error."""
        from solvers.errors import to_solver_error
        from solvers.invoke import solver_name

        try:
            name, *content = pickle.loads(message)
            step: Callable[..., Any] = getattr(self, name)
            return True, step(*content)
        except BaseException as error:
            return False, to_solver_error(solver_name(self.solver), error)

    def load(self, code: bytes, path: list[str]) -> None:
        """Unpickle a solver, found as there, and load what it stands on."""
        self.solver = None
        sys.path[:] = path
        self.solver = pickle.loads(code)
        self.solver.require()

    def invoke(self, problems: Any, requests: Any, batch: bool) -> Any:
        """Run it; see :func:`solvers.invoke.invoke`."""
        from solvers.invoke import invoke

        return invoke(self.solver, problems, requests, batch)
