"""Files that are written whole or not at all, and read only where reading ends."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from problems.errors import FormatError


def regular(path: str | Path) -> Path:
    """Return the path of a regular file, or of a link to one.

    Raises
    ------
    FormatError
        If it is a folder, a pipe, a socket or a device, where reading may never end, or no
        path at all.
    FileNotFoundError
        If there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL in the name
        raise FormatError(f"{str(path)!r:.80} names no file: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise FormatError(f"{path} is a {kind}; copy what it holds to a file, and read that")
    return Path(path)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` and move it there if the body succeeds.

    Until then ``path`` keeps its old content, and an error leaves it as it was. The contents
    reach the disk before the name does, so that a crash leaves the old file or the new one.

    Parameters
    ----------
    path : str or Path
        Where the file shall be; its folder must exist.

    Raises
    ------
    OSError
        If the folder is missing or can't be written.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder; make it first, or name another")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
