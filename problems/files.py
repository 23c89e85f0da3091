"""Files that are written whole or not at all, and read only where reading ends."""

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
"""Names of the folders that :func:`atomic` makes, and of nothing else."""


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """Make a folder of an unguessable name that its owner alone can enter; remove it at the end.

    Whatever a library puts there beside the file asked for, such as a temporary file of its
    own, goes with it, also after a kill (:func:`remove_leftovers`).
    """
    folder = Path(tempfile.mkdtemp(prefix=".icbs-", suffix=".tmp", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
    """Yield a temporary path and move it to ``path`` if the body succeeds.

    Until then ``path`` keeps its old content, and an error leaves it as it was. The contents
    reach the disk before the name does, so that a crash leaves the old file or the new one. A
    link at ``path`` is replaced, and never written through. Permissions follow the umask.

    Parameters
    ----------
    path : str or Path
        Where the file shall be; its folder must exist.

    Raises
    ------
    OSError
        If the folder is missing, full or can't be written, or something is at ``path`` that is
        not a file.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} is no folder; make it first, or name another")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{target} exists and is not a plain file; name another")
    with private_folder(target.parent) as folder:
        temporary = folder / target.name
        yield temporary
        finish_files(folder)
        os.replace(temporary, target)


def finish_files(folder: Path) -> None:
    """Give a folder's files the permissions that the umask asks for, and put them on the disk.

    Some libraries write a temporary file of their own, which is for its owner alone, and move
    it over the one that they were asked for.
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
    """Remove what a killed process left of :func:`atomic`; nobody may be writing there now."""
    for path in folder.iterdir():
        if is_leftover(path):
            shutil.rmtree(path, ignore_errors=True)


def is_leftover(path: Path) -> bool:
    """Whether this is a folder that :func:`atomic` made."""
    return bool(_PRIVATE.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write bytes, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)
