"""Assertions shared by tests of damaged and hostile files."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest

from problems import CardinalityQUBO, FormatError
from problems.formats import FORMATS, read

#: Memory that may be allocated while a small bad file is refused.
MEMORY = 64 * 2**20


def refuse(tmp_path, content, format, match, **options):
    """Assert FormatError, the message, and that little memory was taken at any time."""
    path = tmp_path / "hostile"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=match):
            read(path, format, **options)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def reads_or_refuses(path, content, format):
    """Assert that reading gives a problem or FormatError, and nothing else."""
    path.write_bytes(content)
    with contextlib.suppress(FormatError):
        free = not FORMATS[format].cardinality
        assert isinstance(read(path, format, free=free), CardinalityQUBO)
