"""Tasks and solvers of the user's own, named as ``module:name`` on the command line."""

from __future__ import annotations

import sys


def look_here(*names: str | None) -> None:
    """Let modules of the current directory be imported, if one of the names is of a module."""
    if "" not in sys.path and any(":" in name for name in names if name):
        sys.path.insert(0, "")
