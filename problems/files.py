"""Atomic writes, and checks that a path is a regular file."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from problems.errors import FormatError

_PRIVATE = re.compile(r"\.icbs-[a-z0-9_]{8}\.tmp")
"""Names of the temporary folders of :func:`atomic`."""


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Make a temporary folder that only its owner can enter; remove it at the end.

    Other files that a library writes there, such as temporary files of its own, are removed with
    it, also after a kill (:func:`remove_leftovers`).
    """
    folder = Path(tempfile.mkdtemp(prefix=".icbs-", suffix=".tmp", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def regular(path: str | Path) -> Path:
    """Return a path after checking that it is a regular file, or a link to one.

    Raises
    ------
    FormatError
        If it is a folder, a pipe, a socket or a device (reading might never end), or not a valid
        path.
    FileNotFoundError
        If there is no such file.
    """
    try:
        mode = os.stat(path).st_mode
    except ValueError as error:  # a NUL in the name
        raise FormatError(f"{str(path)!r:.80} is not a valid path: {error}") from error
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "pipe, socket or device"
        raise FormatError(f"{path} is a {kind}; copy its content to a file and read that")
    return Path(path)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path and move it to ``path`` if the body succeeds.

    Until then, and after an error, ``path`` keeps its old content. Data are flushed to disk
    before the file is renamed, so that a crash leaves either the old file or the new one. A link
    at ``path`` is replaced, not followed. Permissions follow the umask.

    Parameters
    ----------
    path : str or Path
        Path of the file; its folder must exist.

    Raises
    ------
    OSError
        If the folder is missing, full or not writable, or ``path`` exists and is not a file.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder {target.parent} does not exist; create it, or choose another"
        )
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} exists and is not a regular file; choose another path")
    with private_folder(target.parent) as folder:
        temporary = folder / target.name
        yield temporary
        finish_files(folder)
        os.replace(temporary, target)


def finish_files(folder: Path) -> None:
    """Set the permissions of a folder's files by the umask, and flush them to disk.

    Needed since some libraries write a temporary file that only its owner can read, and rename
    it.
    """
    probe = folder / folder.name
    probe.touch()  # the umask itself can't be read without changing it
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def remove_leftovers(folder: Path) -> None:
    """Remove temporary folders of killed processes; no process may be writing to ``folder``."""
    for path in folder.iterdir():
        if is_leftover(path):
            shutil.rmtree(path, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether a path is a temporary folder of :func:`atomic`."""
    return bool(_PRIVATE.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
