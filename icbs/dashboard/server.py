"""A Bokeh server on 127.0.0.1 that shows the dashboard."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from bokeh.application import Application
from bokeh.application.handlers import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import Server
from tornado.ioloop import PeriodicCallback

from icbs.dashboard.board import Board
from icbs.dashboard.comparison_board import ComparisonBoard
from icbs.dashboard.page_file import page_template
from icbs.dashboard.watched import WatchedComparison, WatchedRuns, watch
from icbs.errors import ConfigError

ADDRESS, FIRST_PORT, TRIES = "127.0.0.1", 5006, 100
_IN_USE = (errno.EADDRINUSE, errno.EACCES)


def serve_board(
    runs: Sequence[Path],
    *,
    port: int | None,
    interval: float,
    parent: int | None,
    say: Callable[[str], object],
) -> None:
    """Serve the page of runs; see :func:`icbs.dashboard.serve`."""
    logging.getLogger("bokeh.server").setLevel(logging.ERROR)  # pages that are closed are usual
    watched = watch(runs)
    server = start_server(watched, port, interval)
    names = ", ".join(map(str, runs))
    say(f"watching {names} at http://{ADDRESS}:{server.port} (Ctrl-C ends it)")
    if sys.platform != "win32":  # The runs have precedence.
        with suppress(OSError):
            os.nice(10)
    reported: set[Path] = set()

    def look() -> None:
        if parent is not None and not psutil.pid_exists(parent):
            server.io_loop.stop()
        for folder in set(watched.deleted) - reported:
            reported.add(folder)
            say(f"the folder {folder} was deleted; the page keeps what was read before")

    timer = PeriodicCallback(look, 1000 * interval)
    timer.start()
    with suppress(KeyboardInterrupt):
        server.run_until_shutdown()
    timer.stop()


def start_server(
    watched: WatchedRuns | WatchedComparison, port: int | None, interval: float
) -> Server:
    """Start a server for runs or a comparison, whose readers all its pages share.

    Raises
    ------
    ConfigError
        If the port is in use.
    """

    def fill(document: Document) -> None:
        board = _board(watched)
        document.title = watched.heading
        document.template = page_template()  # type: ignore[assignment]  # a str is allowed too
        document.template_variables.update(heading=watched.heading, alone=False)
        document.add_root(board.root)
        document.add_periodic_callback(board.update, round(1000 * interval))

    # An application runs no code of the runs: it only reads their files.
    application = Application(FunctionHandler(fill))
    if port:
        return _bind(application, port)
    # A port that was free a moment ago may be taken by another process: then the next one is tried.
    first = range(FIRST_PORT, FIRST_PORT + TRIES)
    tried = first if port is None else (_free_port() for _ in range(TRIES))
    for candidate in tried:
        with suppress(ConfigError):
            return _bind(application, candidate)
    raise ConfigError(
        f"the ports {first[0]} to {first[-1]} are in use; use --port 0 for any free one"
        if port is None
        else f"no free port was found in {TRIES} tries; name one with --port"
    )


def _board(watched: WatchedRuns | WatchedComparison) -> Board | ComparisonBoard:
    if isinstance(watched, WatchedComparison):
        return ComparisonBoard(watched.standing)
    return Board(watched, live=True)


def _bind(application: Application, port: int) -> Server:
    # Browsers on other pages can't open the socket: their origin is not one of these.
    origins = [f"{name}:{port}" for name in (ADDRESS, "localhost")]
    try:
        return Server(
            {"/": application}, port=port, address=ADDRESS, allow_websocket_origin=origins
        )
    except OSError as error:
        if error.errno not in _IN_USE:
            raise
        raise ConfigError(
            f"port {port} is in use or not allowed ({error.strerror}); use --port 0 for any free "
            "one, or leave --port out for the next one"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])
