"""What a user names on the command line: modules and files of their own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def look_here(*names: str | None) -> None:
    """Let modules of the current directory be imported, if one of the names is of a module."""
    if "" not in sys.path and any(":" in name for name in names if name):
        sys.path.insert(0, "")


def resolved(value: Any) -> Any:
    """Return a source of texts or a model with absolute paths; anything else as it is.

    A run folder keeps them, so that the run can be resumed from another directory.
    """
    from icbs.lm.corpora import CORPORA
    from icbs.lm.loading import PACKAGED

    if not isinstance(value, str) or "\0" in value or len(value) > 4096:
        return value
    if Path(value).exists() and value not in (*CORPORA, *PACKAGED):
        return str(Path(value).resolve())
    if "+" in value:
        return "+".join(resolved(part) for part in value.split("+"))
    return value
