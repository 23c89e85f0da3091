"""A lock on a run folder, which the operating system releases when the process ends."""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from icbs.errors import RunFolderError

LOCK = ".icbs.lock"
"""Locked file, which stays in the folder and names the process that holds the lock."""
_RELEASED = b"not in use\n"
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}
_CLOCKS = 5.0
"""Seconds by which the start of a process and the time of a file may differ."""
log = logging.getLogger("icbs")


class FolderLock:
    """Advisory lock of a folder for one process (``flock``, or ``msvcrt.locking`` on Windows).

    Parameters
    ----------
    folder : Path
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / LOCK
        # No fallback to a soft lock, which would stay after the process is killed.
        self._lock = FileLock(
            self.path,
            blocking=False,
            thread_local=False,
            fallback_to_soft=False,
            on_acquired=self._sign,
        )
        self._descriptor: int | None = None
        self._held: os.stat_result | None = None

    def acquire(self) -> None:
        """Acquire the lock.

        Raises
        ------
        RunFolderError
            If another run holds it, or the folder is missing or can't be written.
        """
        try:
            self._lock.acquire()
        except Timeout:
            raise RunFolderError(
                f"{self.folder} is in use by {self._holder()}; wait until it ends, or choose "
                "another folder"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                log.warning(
                    "the file system of %s has no locks (%s); don't use the folder in another "
                    "process",
                    self.folder,
                    error,
                )
                return
            raise RunFolderError(
                f"{self.folder} can't be written ({error}); make it writable, or copy the run to "
                "a writable folder"
            ) from error
        self._held = self.path.stat()

    def check(self) -> None:
        """Refuse to continue if the folder has been deleted or replaced.

        Raises
        ------
        RunFolderError
        """
        if self._held is None:
            return
        try:
            same = os.path.samestat(self._held, self.path.stat())
        except OSError:
            same = False
        if not same:
            raise RunFolderError(f"{self.folder} was deleted or replaced during the run")

    def release(self) -> None:
        """Release the lock."""
        self._held = None
        if self._descriptor is not None and self._lock.is_locked:
            _write(self._descriptor, _RELEASED)
        self._descriptor = None
        self._lock.release()

    def _holder(self) -> str:
        with suppress(OSError, UnicodeDecodeError):
            if holder := self.path.read_text().strip():
                return holder[:200]
        return "another process"

    def _sign(self, descriptor: int) -> None:
        """Write the process into the locked file."""
        self._descriptor = descriptor
        _write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _write(descriptor: int, text: bytes) -> None:
    with suppress(OSError):  # on a full disk the lock works without
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, text)


def in_use(folder: Path) -> bool | None:
    """Whether a process uses a folder, by the file of its lock, which is only read.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool or None
        None if that is not known here: the process is on another host, or the file system has no
        locks.
    """
    path = folder / LOCK
    try:
        text, written = path.read_bytes()[:200], path.stat().st_mtime
    except OSError:
        return None
    if text == _RELEASED:
        return False
    found = re.fullmatch(rb"process (\d{1,10}) on (.*)\n", text)
    if found is None or found[2] != socket.gethostname().encode():
        return None
    try:  # the number may belong to another, younger process by now
        return psutil.Process(int(found[1])).create_time() <= written + _CLOCKS
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:
        return None
