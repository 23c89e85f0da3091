"""Modules and files that a user names on the command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def allow_local_imports(*names: str | None) -> None:
    """Add the current directory to the import path if a name is a ``module:attribute``."""
    if "" not in sys.path and any(":" in name for name in names if name):
        sys.path.insert(0, "")


def absolute_paths(value: Any) -> Any:
    """Make the paths in a source of texts or a model absolute; return other values unchanged.

    They are recorded in the run folder, and the run may be resumed from another directory.
    """
    from icbs.lm.corpora import CORPORA
    from icbs.lm.loading import PACKAGED

    if not isinstance(value, str) or "\0" in value or len(value) > 4096:
        return value
    if Path(value).exists() and value not in (*CORPORA, *PACKAGED):
        return str(Path(value).resolve())
    if "+" in value:
        return "+".join(absolute_paths(part) for part in value.split("+"))
    return value
