"""The dashboard as one file of HTML that makes no network requests."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from bokeh.embed import file_html
from bokeh.resources import Resources

from icbs.dashboard.board import Board
from icbs.dashboard.watched import WatchedRuns
from icbs.errors import RunFolderError
from problems.files import write_text


def page_template() -> str:
    """Return the template of the page, served or as a file."""
    return files("icbs.dashboard").joinpath("page.html.j2").read_text(encoding="utf-8")


def write_board(runs: Sequence[str | Path], path: Path) -> Path:
    """Write the page of runs; see :func:`icbs.dashboard.write_page`."""
    watched = WatchedRuns([Path(run) for run in runs])
    if not watched.readers:
        raise RunFolderError(f"no run has started yet in {runs[0]}; wait for the first one")
    board = Board(watched, live=False)
    text = file_html(
        board.root,
        Resources(mode="inline"),
        title=watched.heading,
        template=page_template(),
        template_variables={"heading": watched.heading, "alone": True},
    )
    write_text(path, text)
    return path
