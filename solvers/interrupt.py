"""Ctrl-C during calls of compiled code."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from solvers.base import Interrupt, Request

Answer = TypeVar("Answer")

#: Seconds between checks for an interruption.
_PACE = 0.05


def interruptible(
    search: Callable[[], Answer], stop: Callable[[], None], request: Request
) -> Answer:
    """Run a search in another thread, while this one waits for an interruption.

    Python raises KeyboardInterrupt between two of its own instructions, and only in the main
    thread: compiled code that is called there delays it until it returns.

    Parameters
    ----------
    search : callable
    stop : callable
        Asks the search to stop soon; called repeatedly after a KeyboardInterrupt here, or
        elsewhere in the same call of :func:`solvers.solve`.
    request : Request

    Raises
    ------
    KeyboardInterrupt
        After the search has stopped.
    """
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(search())
        except BaseException as error:
            answer.set_exception(error)

    # Not joined: in Python 3.11 an interrupted join considers the thread finished.
    threading.Thread(target=work, daemon=True).start()
    try:
        while not wait([answer], _PACE).done:
            if request.interrupted:
                stop()
    except BaseException:
        while not answer.done():
            stop()
            wait([answer], _PACE)
        raise
    return answer.result()


@contextmanager
def propagate_interrupt(interrupt: Interrupt | None) -> Iterator[None]:
    """Interrupt the searches of other threads (:attr:`Request.interrupt`) on an exception here.

    Enter it after the pool that they run in, which waits for them at its exit.
    """
    try:
        yield
    except BaseException:
        if interrupt is not None:
            interrupt.raised = True
        raise
