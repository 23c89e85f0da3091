"""A search on disk: a manifest, a folder for each density, and the curve.

- ``search.json``: settings, and hashes of the model and of the samples
- ``density-D/``: the run, its recovery, the compressed model, and ``point.json``
- ``curve.csv``, ``curve.md``, ``curve.png``, ``curve.html``: the curve
- ``answer.json``: the answer; missing during a search, and if nothing reaches the target

All files are written under a temporary name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from icbs.density.result import Point
from icbs.errors import RunFolderError
from icbs.export.digests import described, digest, json_digest
from icbs.export.safetensors_files import read_text, write_error
from icbs.run.locked_folder import CONFIG
from icbs.run.locking import LOCK, FolderLock
from problems.files import is_leftover, remove_leftovers, write_text

SEARCH, STEPS = "search.json", "steps.json"
"""Manifests of a search, and of pruning in steps."""
ANSWER, SUMMARY = "answer.json", "summary-of-steps.json"
"""Their results."""
POINT = "point.json"


class MakerFolder:
    """Folder of several runs with the same settings, for one process at a time.

    Parameters
    ----------
    path : Path
    manifest : str
        Name of the manifest.
    """

    def __init__(self, path: Path, manifest: str) -> None:
        self.path, self.manifest = path, path / manifest

    def check(self) -> None:
        """Refuse a folder of other files; nothing is written.

        Raises
        ------
        RunFolderError
        """
        if self.manifest.exists() or not self.path.exists():
            return
        if not self.path.is_dir() or any(
            file.name != LOCK and not is_leftover(file) for file in self.path.iterdir()
        ):
            raise RunFolderError(
                f"{self.path} exists already, and has no {self.manifest.name}; choose another "
                "folder"
            )

    @contextmanager
    def opened(self, content: Mapping[str, Any]) -> Iterator[None]:
        """Create the folder, or check that it has the same settings; lock it for the context.

        Parameters
        ----------
        content : mapping
            Facts of the manifest, of JSON types.

        Raises
        ------
        RunFolderError
            If it has other files or settings, is in use, or can't be written.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error
        lock = FolderLock(self.path)
        lock.acquire()
        try:
            remove_leftovers(self.path)
            facts = json.loads(json.dumps(dict(content)))
            if self.manifest.exists():
                self._compare(facts)
            else:
                whole = {"version": version("icbs-pruning"), "digest": json_digest(facts), **facts}
                self.write(self.manifest.name, json.dumps(whole, indent=2) + "\n")
            yield
        finally:
            lock.release()

    def _compare(self, facts: Mapping[str, Any]) -> None:
        try:
            found = dict(json.loads(read_text(self.manifest)))
            stated = found.pop("digest", None)
            found.pop("version", None)
            if stated != json_digest(found):
                raise ValueError("its digest does not match its content")
        except (OSError, ValueError, TypeError) as error:
            raise RunFolderError(f"{self.manifest} is damaged: {error!s:.1000}") from error
        if other := sorted(k for k in {*facts, *found} if facts.get(k) != found.get(k)):
            raise RunFolderError(
                f"{self.path} was made with another {', '.join(other)}; use the same, or choose "
                "another folder"
            )

    def write(self, name: str, text: str) -> None:
        """Write a file, atomically.

        Raises
        ------
        RunFolderError
            If it can't be written.
        """
        try:
            write_text(self.path / name, text)
        except OSError as error:
            raise write_error(self.path, error) from error

    def remove(self, name: str) -> None:
        """Remove a file if it exists.

        Raises
        ------
        RunFolderError
            If it can't be removed.
        """
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.path, error) from error


def runs_within(folder: Path) -> list[Path]:
    """Return the runs of a search, or of pruning in steps, in the order of their start.

    There are none in another folder.
    """
    if not any((folder / manifest).exists() for manifest in (SEARCH, STEPS)):
        return []
    started = {path.parent: path.stat().st_mtime_ns for path in folder.glob(f"*/{CONFIG}")}
    return sorted(started, key=lambda run: started[run])


def density_folder(search: Path, density: float) -> Path:
    """Return the folder of a density in that of a search."""
    return search / f"density-{density:g}"


def read_points(search: Path) -> list[Point]:
    """Return the points of a search, in decreasing order of density.

    Raises
    ------
    RunFolderError
        If a file is damaged.
    """
    found = [read_point(path) for path in search.glob(f"density-*/{POINT}")]
    return sorted(found, key=lambda point: -point.density)


def read_point(path: Path) -> Point:
    """Read ``point.json``.

    Raises
    ------
    RunFolderError
        If the file is damaged.
    """
    try:
        return Point.from_json(read_text(path))
    except (OSError, ValueError) as error:
        raise RunFolderError(
            f"{path} is damaged: {error!s:.1000}; remove it, and the point is measured again"
        ) from error


def write_point(search: Path, point: Point) -> None:
    """Write a point into the folder of its density.

    Raises
    ------
    RunFolderError
        If it can't be written.
    """
    folder = density_folder(search, point.density)
    try:
        write_text(folder / POINT, json.dumps(point.model_dump(), indent=2) + "\n")
    except OSError as error:
        raise write_error(folder, error) from error


def tensors_digest_of(named: Mapping[str, Tensor] | Iterable[Tensor]) -> str:
    """Return a digest of tensors, with their names if they have any."""
    items = named.items() if isinstance(named, Mapping) else (("", t) for t in named)
    return digest(part for name, t in items for part in (name.encode(), *described(t)))
