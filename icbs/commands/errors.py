"""How commands fail: one clear line and exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import typer
from safetensors import SafetensorError

from icbs.records.screen import Screen
from problems import IcbsError

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
        except (IcbsError, OSError, SafetensorError) as error:
            line = " ".join(f"{type(error).__name__}: {error}".split())
            Screen(stderr=True, soft_wrap=True).print(line, style="red", highlight=False)
            raise typer.Exit(2) from error

    return wrapped
