"""How commands fail: one clear line and exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer

from problems.errors import IcbsError

P = ParamSpec("P")
R = TypeVar("R")


def plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print the project's own errors, and files that can't be used, as one line; exit with 2.

    Anything else is a defect, and keeps its traceback.
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
    """Whether an error is of the input, which its message explains, and not a defect."""
    if isinstance(error, IcbsError | OSError):
        return True
    safetensors = sys.modules.get("safetensors")  # Without it nobody can have raised its error.
    return safetensors is not None and isinstance(error, safetensors.SafetensorError)
