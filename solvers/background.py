"""Calls on daemon threads, which can be abandoned and don't block the exit."""

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

#: Seconds between wake-ups while waiting.
_POLL = 0.5


class _Abandoned(SystemExit):
    """Raised inside an abandoned call; a thread that ends with it prints nothing."""


def error_of(
    future: Future[Any],
    seconds: float | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> BaseException | None:
    """Wait for a future to finish and return its error, if any.

    Waits in short steps, since an unlimited wait can miss an interruption at its start.

    Parameters
    ----------
    future : concurrent.futures.Future
    seconds : float, optional
        Longest wait.
    interrupted : callable, optional
        Asked in each step whether to stop waiting.

    Raises
    ------
    TimeoutError
        If it has not finished by then.
    KeyboardInterrupt
        If ``interrupted`` is true.
    """
    until = math.inf if seconds is None else time.monotonic() + seconds
    while (left := until - time.monotonic()) > _POLL:
        with suppress(TimeoutError):
            return future.exception(_POLL)
        if interrupted():
            raise KeyboardInterrupt
    return future.exception(max(0.0, left))


class Background:
    """One call on a thread of its own, started at once.

    It runs in a copy of the caller's context and on the caller's current CUDA device.

    Parameters
    ----------
    call : callable
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self._future: Future[Any] = Future()
        context = copy_context()
        torch = sys.modules.get("torch")  # not imported, so no device is selected
        device = torch.cuda.current_device() if torch and torch.cuda.is_initialized() else None

        def work() -> None:
            try:
                if torch is not None and device is not None:
                    torch.cuda.set_device(device)
                self._future.set_result(context.run(call))
            except BaseException as error:
                self._future.set_exception(error)

        self._thread = threading.Thread(target=work, daemon=True, name="icbs-background")
        try:
            self._thread.start()
        except BaseException:  # an interruption, perhaps after the thread has started
            self.abandon()
            raise

    def error(
        self, seconds: float | None = None, interrupted: Callable[[], bool] = lambda: False
    ) -> BaseException | None:
        """Wait for the call to finish and return its error, if any.

        Parameters
        ----------
        seconds : float, optional
            Longest wait.
        interrupted : callable, optional
            Asked now and then whether to stop waiting.

        Raises
        ------
        TimeoutError
            If the call is still running; a TimeoutError of the call itself is returned.
        KeyboardInterrupt
            If ``interrupted`` is true.
        """
        return error_of(self._future, seconds, interrupted)

    def result(self) -> Any:
        """Return the result of a finished call."""
        return self._future.result()

    def abandon(self) -> None:
        """Stop a call at its next Python instruction.

        Compiled code and system calls continue until they return, or until the process ends. Under
        a debugger or a measurement of coverage CPython 3.11 lets all calls continue: while such an
        exception is pending, its other threads would make no progress.
        """
        if sys.gettrace() is not None and sys.version_info < (3, 12):
            return
        if self._thread.is_alive() and self._thread.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._thread.ident), ctypes.py_object(_Abandoned)
            )


class DaemonThreads(Executor):
    """Threads like those of ``ThreadPoolExecutor``, except that nothing waits for them at exit.

    Parameters
    ----------
    most : int
        Number of parallel calls.
    """

    def __init__(self, most: int) -> None:
        self._most, self._running = most, 0
        self._lock = threading.Lock()
        self._queue: deque[tuple[Future[Any], Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Queue a call; threads are started on demand."""
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
        """Drop queued calls; running calls continue."""
        with self._lock:
            self._queue.clear()
