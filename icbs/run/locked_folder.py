"""A run folder that one process holds, from its beginning to its end."""

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
    """Folder that is made, held and given up.

    Where several processes work on one run, the first of them holds its folder.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FolderLock(path)

    @classmethod
    def reserve(cls, path: str | Path) -> Self:
        """Name a folder for a new run; nothing is written yet.

        Raises
        ------
        RunFolderError
            If something is there already.
        """
        target = Path(path)
        if target.exists() and not (target.is_dir() and _unborn(target)):
            raise RunFolderError(
                f"{target} exists already; choose another folder, or resume the run in it"
            )
        return cls(target)

    @classmethod
    @contextmanager
    def new(cls, path: str | Path) -> Iterator[Self]:
        """Make a folder, and hold it; without a run in it at the end, it is free again.

        Raises
        ------
        RunFolderError
            If something is there already, another process holds it, or it can't be made.
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
        """Hold the folder of a run, to go on with it.

        Raises
        ------
        RunFolderError
            If there is no run, or another process holds it.
        """
        folder = cls(Path(path))
        if not (folder.path / CONFIG).exists():
            raise RunFolderError(f"{path} holds no run (no {CONFIG})")
        parallel.on_rank0(folder._take)
        try:
            yield folder
        finally:
            folder.lock.release()

    def check_free(self) -> None:
        """Refuse a folder that another process holds.

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
            self.reserve(self.path)  # it may have become another's in between
        except RunFolderError:
            self.lock.release()
            raise

    def _take(self) -> None:
        self.lock.acquire()
        try:
            remove_leftovers(self.path)
        except OSError as error:
            self.lock.release()
            raise write_error(self.path, error) from error

    def abandon(self) -> None:
        """Give up a run that never began: its folder is free again."""
        with suppress(OSError, RunFolderError):
            self.lock.check()
            remove_leftovers(self.path)
            for name in (CONFIG, MANIFEST, INITIAL, LOCK):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()  # fails where something of the user's is in it


def _unborn(folder: Path) -> bool:
    """Whether a folder is empty, but for what a run leaves that was killed at its birth."""
    ours = (MANIFEST, INITIAL, LOCK)
    return all(file.name in ours or is_leftover(file) for file in folder.iterdir())
