"""Folders of a dashboard: runs, among them those that start later, or a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from icbs.dashboard.comparison_reader import ComparisonReader
from icbs.dashboard.reader import RunReader
from icbs.density.folder import runs_within
from icbs.errors import ConfigError, RunFolderError
from icbs.report.folders import kind_of_folder, will_run
from icbs.run.locked_folder import CONFIG
from solvers.comparison.journal import is_comparison


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
        found = [run for path in self.paths for run in _runs(path)]
        self.readers = [RunReader(run) for run in found]
        """Runs in the order in which they were found."""

    @property
    def heading(self) -> str:
        """Heading of the page."""
        names = ", ".join(short_names(self.paths))
        return f"iCBS run{'s' * (len(self.readers) > 1)} {names}"

    @property
    def deleted(self) -> list[Path]:
        """Folders of runs that were deleted while they were watched."""
        folders = [reader.path for reader in self.readers]
        return [folder for folder in folders if not (folder / CONFIG).exists()]

    def look(self) -> None:
        """Add the runs that have started since the last call."""
        known = {reader.path for reader in self.readers}
        for path in self.paths:
            for run in runs_within(path):
                if run not in known:
                    with suppress(RunFolderError):  # deleted in between
                        self.readers.append(RunReader(run))


def _runs(path: Path) -> list[Path]:
    """Return the runs of a folder; none of a search, or of steps, before its first one.

    Raises
    ------
    RunFolderError
        If it is a search, or pruning in steps, that has no runs of iCBS.
    """
    found = runs_within(path)
    if found or not (kind := kind_of_folder(path)):
        return found or [path]
    if will_run(path):
        return []
    raise RunFolderError(
        f"{path} is {kind}, and has no run of iCBS whose passes can be followed; 'icbs report "
        f"{path}' shows what is done"
    )


class WatchedComparison:
    """A comparison of solvers.

    Parameters
    ----------
    path : Path

    Raises
    ------
    CampaignError
        If the list of its runs is missing or damaged.
    MissingBackendError
        If pandas is not installed.
    """

    def __init__(self, path: Path) -> None:
        from icbs.dashboard.standing import Standing

        self.reader = ComparisonReader(path)
        self.standing = Standing(self.reader)
        self.heading = f"Comparison of solvers {path.resolve().name}"
        """Heading of the page."""

    @property
    def deleted(self) -> list[Path]:
        """The folder if it was deleted while it was watched."""
        return [] if is_comparison(self.reader.path) else [self.reader.path]


def watch(paths: Sequence[Path]) -> WatchedRuns | WatchedComparison:
    """Return the runs, or the comparison, of some folders.

    Raises
    ------
    RunFolderError, CampaignError
        If a folder has no run, or is damaged.
    ConfigError
        If a comparison is not the only folder.
    """
    compared = [path for path in paths if is_comparison(path)]
    if not compared:
        return WatchedRuns(paths)
    if len(paths) > 1:
        raise ConfigError(
            f"{compared[0]} is a comparison of solvers, which has a page of its own; watch it alone"
        )
    return WatchedComparison(compared[0])


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return names of folders, or their paths if two have the same name."""
    short = [path.resolve().name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]
