"""Warnings that point at the user's line, wherever in this library they arise."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

OURS = ("icbs", "problems", "solvers")


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line that called this library.

    Python's ``stacklevel`` counts frames from the inside, and their number differs between callers
    (decorators of PyTorch, context managers, pydantic). This looks for the outermost frame of the
    library instead.

    Parameters
    ----------
    message : str
    category : type, default UserWarning
    """
    frame: FrameType | None = sys._getframe()
    level = found = 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] in OURS:
            found = level + 1
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=found)
