"""Opening the safetensors files of this project: by their format, with errors by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from icbs.errors import RunFolderError


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
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != form:
                raise RunFolderError(f"{path} is not a {kind} (format {header.get('format')})")
            yield file, header
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        if isinstance(error, RunFolderError):
            raise
        raise RunFolderError(f"{path} is not a readable {kind}: {error}") from error
