"""Output folders of commands: unique names, and masks saved elsewhere if a folder fails."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from icbs.errors import RunFolderError
from icbs.export.masks import save_masks


def new_folder(parent: Path, prefix: str = "") -> Path:
    """Create an empty folder with the current time as its name, made unique by a number."""
    parent.mkdir(parents=True, exist_ok=True)
    name, number = f"{prefix}{datetime.now():%Y%m%d-%H%M%S}", 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()  # fails if another process has created it
        except FileExistsError:
            number += 1
        else:
            return folder


@contextmanager
def rescued_masks(name: str) -> Iterator[None]:
    """Save a finished run's masks elsewhere if its folder can't be written.

    They are saved in a new folder in the current directory, or else in the system's temporary
    directory.

    Raises
    ------
    RunFolderError
        The error of the run, with the path of the masks.
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
