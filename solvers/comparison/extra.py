"""Error message for missing packages of the extra ``compare``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from solvers.errors import MissingBackendError


@contextmanager
def importing() -> Iterator[None]:
    """Import packages of the extra ``compare`` in this context.

    Raises
    ------
    MissingBackendError
        If one of them is not installed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingBackendError(
            f"comparing solvers needs {error.name or error}: pip install 'icbs-pruning[compare]'"
        ) from error
