"""Errors and warnings of commands as single lines, without tracebacks and code."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import typer

from problems.errors import IcbsError

if TYPE_CHECKING:
    from rich.console import Console

P = ParamSpec("P")
R = TypeVar("R")


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print the project's errors and errors of files as one line, and exit with status 2.

    Other errors are defects and keep their tracebacks.
    """

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            if not _expected(error):
                raise
            from icbs.report.screen import Screen

            line = " ".join(f"{type(error).__name__}: {error}".split())
            Screen(stderr=True, soft_wrap=True).print(line, style="red", highlight=False)
            raise typer.Exit(2) from error

    return wrapped


def _expected(error: Exception) -> bool:
    """Whether an error is caused by the input and not by a defect."""
    if isinstance(error, IcbsError | OSError):
        return True
    safetensors = sys.modules.get("safetensors")  # not imported just for this check
    return safetensors is not None and isinstance(error, safetensors.SafetensorError)


@contextmanager
def plain_warnings(console: Console, level: int = logging.INFO) -> Iterator[None]:
    """Print warnings, and log records from a level on, as one line each within the context."""
    from rich.text import Text

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        console.print(Text.assemble((f"{category.__name__}:", "yellow"), f" {message}"))

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            console.print(Text(record.getMessage()), style="dim", highlight=False)

    log, handler = logging.getLogger("icbs"), Handler()
    before = log.level
    log.setLevel(level)
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def rename_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pruner's settings by their current names; print a line for each old one.

    Raises
    ------
    ConfigError
        For an old setting without an equivalent.
    """
    from icbs.config.old_names import translate
    from icbs.report.screen import Screen

    present, notes = translate(settings)
    for note in notes:
        line = f"DeprecationWarning: {note}"
        Screen(stderr=True, soft_wrap=True).print(line, style="yellow", highlight=False)
    return present
