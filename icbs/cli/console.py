"""How commands fail: one clear line and exit code 2, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

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


def tell_renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the pruner's settings by their present names, with a line for each old one.

    Raises
    ------
    ConfigError
        For an old setting that nothing of today equals.
    """
    from icbs.config.old_names import translate
    from icbs.report.screen import Screen

    present, notes = translate(settings)
    for note in notes:
        line = f"DeprecationWarning: {note}"
        Screen(stderr=True, soft_wrap=True).print(line, style="yellow", highlight=False)
    return present
