"""Folders that commands write to: names that nobody else has, and masks that outlive a disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from icbs.errors import RunFolderError
from icbs.export.masks import save_masks


def new_folder(parent: Path, prefix: str = "") -> Path:
    """Make an empty folder called after the time; two made at once have two names."""
    parent.mkdir(parents=True, exist_ok=True)
    name, number = f"{prefix}{datetime.now():%Y%m%d-%H%M%S}", 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()  # fails where it exists: who makes it has it
        except FileExistsError:
            number += 1
        else:
            return folder


@contextmanager
def rescued_masks(name: str) -> Iterator[None]:
    """Save a finished run's masks elsewhere where its own folder could not be written.

    They go into a new folder here, or in the system's folder for temporary files.

    Raises
    ------
    RunFolderError
        The one of the run, with the place of the masks.
    """
    try:
        yield
    except RunFolderError as error:
        if error.result is None:
            raise
        for place in (Path.cwd(), Path(tempfile.gettempdir())):
            try:
                folder = Path(tempfile.mkdtemp(prefix=f"{name}-masks-", dir=place))
                save_masks(error.result.masks, folder / "masks.safetensors")
            except (OSError, RunFolderError):
                continue
            where = folder / "masks.safetensors"
            raise RunFolderError(f"the masks are in {where}: {error}", error.result) from error
        raise
