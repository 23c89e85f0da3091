"""Calls that can be given up: on daemon threads, which end with the process at the latest."""

from __future__ import annotations

import ctypes
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from contextvars import copy_context
from typing import Any

#: Seconds of one turn of waiting.
_TURN = 0.5


class _Abandoned(SystemExit):
    """Raised inside a call that nobody waits for any more; a thread may end with it unsaid."""


def error_of(future: Future[Any], seconds: float | None = None) -> BaseException | None:
    """Wait for a future's end and return its error, if it has one.

    In short turns: a wait without an end misses an interruption that comes as it begins.

    Parameters
    ----------
    future : concurrent.futures.Future
    seconds : float, optional
        Longest wait.

    Raises
    ------
    TimeoutError
        If it has not ended by then.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    while (left := until - time.monotonic()) > _TURN:
        with suppress(TimeoutError):
            return future.exception(_TURN)
    return future.exception(max(0.0, left))


class Background:
    """One call on a thread of its own, begun at once.

    It runs in a copy of the caller's context and on the caller's current CUDA device.

    Parameters
    ----------
    call : callable
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        context = copy_context()
        torch = sys.modules.get("torch")  # Without it there is no device to go on with.
        device = torch.cuda.current_device() if torch and torch.cuda.is_initialized() else None

        def work() -> None:
            try:
                if torch is not None and device is not None:
                    torch.cuda.set_device(device)
                self._future.set_result(context.run(call))
            except BaseException as error:
                self._future.set_exception(error)

        self._thread = threading.Thread(target=work, daemon=True, name="icbs-background")
        self._thread.start()

    def error(self, seconds: float | None = None) -> BaseException | None:
        """Wait for the end and return what the call raised, if anything.

        Parameters
        ----------
        seconds : float, optional
            Longest wait.

        Raises
        ------
        TimeoutError
            If the call goes on; never of the call itself.
        """
        return error_of(self._future, seconds)

    def result(self) -> Any:
        """Return what an ended call returned."""
        return self._future.result()

    def abandon(self) -> None:
        """End a call that runs Python code, at its next instruction; nothing else can.

        Compiled code and system calls go on until they return, or until the process ends.
        """
        if self._thread.is_alive() and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Abandoned)
            )


class DaemonThreads(Executor):
    """Threads as of ``ThreadPoolExecutor``, but nothing waits for them, not even the exit.

    Parameters
    ----------
    most : int
        Calls that run side by side.
    """

    def __init__(self, most: int) -> None:
        self._most, self._running = most, 0
        self._lock = threading.Lock()
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; threads are started as they are needed."""
        future: Future[Any] = Future()
        with self._lock:
            self._queue.append((future, lambda: fn(*args, **kwargs)))
            if self._running < self._most:
                self._running += 1
                threading.Thread(target=self._work, daemon=True, name="icbs-daemon").start()
        return future

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._running -= 1
                    return
                future, call = self._queue.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Drop what is queued still; what runs is left to itself."""
        with self._lock:
            self._queue.clear()
