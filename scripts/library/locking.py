"""Exclusive access to the library's index and best values, for several processes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from problems.library.catalogue import index

LOCK = FileLock(Path(tempfile.gettempdir()) / "icbs-library.lock")


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold the lock; the index is read again, since another process may have changed it."""
    with LOCK:
        index.cache_clear()
        yield
