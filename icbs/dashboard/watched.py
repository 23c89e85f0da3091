"""The runs that a dashboard shows, among them those that a search has not started yet."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from icbs.dashboard.reader import RunReader
from icbs.density.folder import runs_within
from icbs.errors import RunFolderError


class WatchedRuns:
    """Runs by their folders, and those within folders of searches and of pruning in steps.

    Parameters
    ----------
    paths : sequence of Path

    Raises
    ------
    RunFolderError
        If a folder has no run, or is damaged.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        found = [run for path in self.paths for run in runs_within(path) or [path]]
        self.readers = [RunReader(run) for run in found]
        """Runs in the order in which they were found."""

    @property
    def heading(self) -> str:
        """Heading of the page."""
        names = ", ".join(short_names(self.paths))
        return f"iCBS run{'s' * (len(self.readers) > 1)} {names}"

    def look(self) -> None:
        """Add the runs that have started since the last call."""
        known = {reader.path for reader in self.readers}
        for path in self.paths:
            for run in runs_within(path):
                if run not in known:
                    with suppress(RunFolderError):  # deleted in between
                        self.readers.append(RunReader(run))


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return names of folders, or their paths if two have the same name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
