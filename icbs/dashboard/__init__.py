"""A page that follows runs, or a comparison of solvers, and the page of runs as a file.

:func:`serve` shows it on a local port (``icbs watch``), :func:`write_page` writes a
self-contained file (``icbs report --html``). Both only read the run folders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from icbs.downloads.optional import optional

__all__ = ["serve", "write_page"]


def write_page(runs: Sequence[str | Path], path: str | Path) -> Path:
    """Write the dashboard of runs as a self-contained file of HTML.

    Parameters
    ----------
    runs : sequence of path
        Folders of runs, finished or not, of searches, or of pruning in steps.
    path : path
        File to write; its folder must exist.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    RunFolderError
        If a folder has no run, or is damaged.
    MissingPackageError
        If Bokeh is not installed.
    """
    optional("bokeh")
    from icbs.dashboard.page_file import write_board

    return write_board(runs, Path(path))


def serve(
    runs: Sequence[str | Path],
    *,
    port: int | None = None,
    interval: float = 2.0,
    parent: int | None = None,
    say: Callable[[str], object] = print,
) -> None:
    """Serve the dashboard of runs on 127.0.0.1 until the process is interrupted.

    Parameters
    ----------
    runs : sequence of path
        Folders of runs, finished or not, of searches, or of pruning in steps; or the folder of
        one comparison of solvers.
    port : int, optional
        Port; 0 for any free one. By default the first free one from 5006.
    interval : float, default 2
        Seconds between updates.
    parent : int, optional
        Number of a process; the server ends when it does, even if it was killed.
    say : callable
        Called with the address, and with a line when a folder is deleted.

    Raises
    ------
    RunFolderError
        If a folder has no run, or is damaged; before the server starts.
    CampaignError
        If the folder of a comparison has no list of its runs, or is damaged.
    ConfigError
        If the port is in use or not a valid one, or a comparison is not the only folder.
    MissingPackageError
        If Bokeh is not installed.
    """
    optional("bokeh")
    from icbs.dashboard.server import serve_board

    serve_board([Path(run) for run in runs], port=port, interval=interval, parent=parent, say=say)
