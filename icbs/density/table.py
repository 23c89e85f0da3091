"""The curve of a density search as files: CSV, Markdown, PNG, and a self-contained page."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Sequence
from importlib.resources import files

from icbs.density.figure import draw_curve, svg_of
from icbs.density.folder import ANSWER, MakerFolder
from icbs.density.result import Curve, SearchResult
from icbs.errors import RunFolderError
from icbs.export.safetensors_files import write_error

CURVE = "curve"
_COLUMNS = ("density", "kept", "value", "low", "high", "met", "verdict")
_COSTS = ("size", "macs", "seconds", "start")


def write_tables(folder: MakerFolder, curve: Curve) -> None:
    """Write ``curve.csv``, with all digits, and ``curve.md``."""
    names = list(curve.dense)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_COLUMNS, *names, *_COSTS])
    for point in curve.points:
        own = point.model_dump()
        figures = [point.figures.get(name, "") for name in names]
        writer.writerow([*(own[c] for c in _COLUMNS), *figures, *(own[c] for c in _COSTS)])
    folder.write(f"{CURVE}.csv", text.getvalue())
    folder.write(f"{CURVE}.md", markdown(curve))


def write_answer(folder: MakerFolder, curve: Curve, lines: Sequence[str]) -> None:
    """Write the tables, the picture and the page.

    Parameters
    ----------
    folder : MakerFolder
    curve : Curve
    lines : sequence of str
        The answer, or the reason why there is none.
    """
    write_tables(folder, curve)
    try:
        draw_curve(curve, folder.path / f"{CURVE}.png")
    except OSError as error:
        raise write_error(folder.path, error) from error
    folder.write(f"{CURVE}.html", page(curve, lines))


def write_result(folder: MakerFolder, result: SearchResult) -> None:
    """Write the curve and ``answer.json``.

    Raises
    ------
    RunFolderError
        If a file can't be written; with the result as an attribute.
    """
    try:
        write_answer(folder, result.curve, result.lines())
        answer = result.summary() | {"lines": result.lines()}
        folder.write(ANSWER, json.dumps(answer, indent=2) + "\n")
    except RunFolderError as error:
        raise RunFolderError(str(error), result) from error


def markdown(curve: Curve) -> str:
    """Return the table in Markdown."""
    rows = curve.rows()
    columns = list(rows[0])
    lines = [f"| {' | '.join(columns)} |", f"|{' ---: |' * len(columns)}"]
    lines += [f"| {' | '.join(row[c] for c in columns)} |" for row in rows]
    return "\n".join([f"{_about(curve)}\n", *lines]) + "\n"


def page(curve: Curve, lines: Sequence[str]) -> str:
    """Return a self-contained HTML page."""
    from jinja2 import Environment

    source = files("icbs.density").joinpath("page.html.j2").read_text(encoding="utf-8")
    # Names of figures and tasks come from users, so everything is escaped.
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    rows = curve.rows()
    picture = base64.b64encode(svg_of(curve)).decode()
    return template.render(
        title=str(curve.target),
        about=_about(curve),
        lines=lines,
        figure=f"data:image/svg+xml;base64,{picture}",
        columns=list(rows[0]),
        rows=[list(row.values()) for row in rows],
    )


def _about(curve: Curve) -> str:
    return (
        f"Method: {curve.method}. Target: {curve.target}. Judged on {curve.judge}, which pruning "
        f"did not see; intervals of {curve.confidence:.0%}, ± one standard error elsewhere."
    )
