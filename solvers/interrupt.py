"""Ctrl-C during calls of foreign compiled code, which know nothing of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from solvers.base import Interrupt, Request

Answer = TypeVar("Answer")

#: Seconds between two looks at whether the search is to be interrupted.
_PACE = 0.05


def interruptible(
    search: Callable[[], Answer], stop: Callable[[], None], request: Request
) -> Answer:
    """Return what a search answers, in a thread of its own while this one listens.

    Python raises KeyboardInterrupt between two of its own instructions, in the main thread
    alone: compiled code that is called there holds it up until it returns.

    Parameters
    ----------
    search : callable
    stop : callable
        Asks the search to end soon; called until it does, once a KeyboardInterrupt has
        arrived here, or elsewhere in the call of :func:`solvers.solve` that this is part of.
    request : Request

    Raises
    ------
    KeyboardInterrupt
        After the search has ended.
    """
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(search())
        except BaseException as error:
            answer.set_exception(error)

    # Not joined: in Python 3.11 an interrupted join takes the thread for ended.
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
    """Tell the searches of other threads (:attr:`Request.interrupt`) of an exception here.

    To be entered after the pool that they run in: the pool waits for them when it is left.
    """
    try:
        yield
    except BaseException:
        if interrupt is not None:
            interrupt.raised = True
        raise
