"""A run folder that is created, locked for one process, and released."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from icbs import parallel
from icbs.errors import RunFolderError
from icbs.export.safetensors_files import write_error
from icbs.run.locking import LOCK, FolderLock
from problems.files import is_leftover, remove_leftovers

CONFIG, MANIFEST, INITIAL = "config.yaml", "manifest.json", "initial.safetensors"


class LockedFolder:
    """Folder that one process uses at a time.

    If several processes work on one run, rank 0 holds the lock.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FolderLock(path)

    @classmethod
    def reserve(cls, path: str | Path) -> Self:
        """Check that a new run can use a folder; nothing is written yet.

        Raises
        ------
        RunFolderError
            If the path exists already.
        """
        target = Path(path)
        if target.exists() and not (target.is_dir() and _has_no_run(target)):
            raise RunFolderError(
                f"{target} exists already; choose another folder, or resume the run in it"
            )
        return cls(target)

    @classmethod
    @contextmanager
    def new(cls, path: str | Path) -> Iterator[Self]:
        """Create and lock a folder for the context; remove it after an error if it has no run.

        Raises
        ------
        RunFolderError
            If the path exists already, another process uses it, or it can't be created.
        """
        folder = cls(Path(path))
        parallel.on_rank0(folder._claim)
        try:
            yield folder
        except BaseException:
            if parallel.rank() == 0 and not (folder.path / CONFIG).exists():
                folder.abandon()
            raise
        finally:
            folder.lock.release()

    @classmethod
    @contextmanager
    def existing(cls, path: str | Path) -> Iterator[Self]:
        """Lock the folder of an existing run for the context.

        Raises
        ------
        RunFolderError
            If there is no run, or another process uses it.
        """
        folder = cls(Path(path))
        if not (folder.path / CONFIG).exists():
            raise RunFolderError(f"{path} has no run (no {CONFIG})")
        parallel.on_rank0(folder._acquire)
        try:
            yield folder
        finally:
            folder.lock.release()

    def check_free(self) -> None:
        """Refuse a folder that another process uses.

        Raises
        ------
        RunFolderError
        """
        self.lock.acquire()
        self.lock.release()

    def _claim(self) -> None:
        self.reserve(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        self.lock.acquire()
        try:
            self.reserve(self.path)  # another process may have used it in between
        except RunFolderError:
            self.lock.release()
            raise

    def _acquire(self) -> None:
        self.lock.acquire()
        try:
            remove_leftovers(self.path)
        except OSError as error:
            self.lock.release()
            raise write_error(self.path, error) from error

    def abandon(self) -> None:
        """Remove the files and the folder of a run that never started."""
        with suppress(OSError, RunFolderError):
            self.lock.check()
            remove_leftovers(self.path)
            for name in (CONFIG, MANIFEST, INITIAL, LOCK):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()  # fails if there are files of the user


def _has_no_run(folder: Path) -> bool:
    """Whether a folder has no files, except those of a run that was killed at its start."""
    ours = (MANIFEST, INITIAL, LOCK)
    return all(file.name in ours or is_leftover(file) for file in folder.iterdir())
