"""Opening files that nobody vouches for: regular ones only, with errors by name."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from icbs.errors import RunFolderError

LARGEST_TEXT = 64 << 20
"""Bytes of a manifest or a file of settings; what is larger is neither."""


def regular(path: str | Path) -> Path:
    """Pass the path of a regular file, or of a link to one.

    Pipes and devices block whoever opens them, or never end.

    Raises
    ------
    OSError
        If it is missing or is anything else.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is not a regular file")
    return Path(path)


def text_of(path: str | Path, largest: int = LARGEST_TEXT) -> str:
    """Read a regular file of UTF-8 text, of bounded size.

    Raises
    ------
    OSError
        If it is missing, is not a regular file or can't be read.
    ValueError
        If it is larger, or not UTF-8.
    """
    with regular(path).open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise ValueError(f"it is larger than {largest} bytes")
    return content.decode("utf-8")


@contextmanager
def opened(path: str | Path, kind: str, form: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file and yield it with its header, if the header names the format.

    Parameters
    ----------
    path : path
    kind : str
        What the file should be, in words.
    form : str
        Its format's name in the header.

    Raises
    ------
    RunFolderError
        If it is missing, of another format, or if what is read from it inside is damaged.
    """
    try:
        with safe_open(regular(path), framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != form:
                found = f"{header.get('format')!r:.80}"
                raise RunFolderError(f"{path} is not a {kind} (format {found})")
            yield file, header
    except (OSError, SafetensorError, ValueError, LookupError, RuntimeError, TypeError) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is not a readable {kind}: {error!s:.1000}") from error
