"""The report of a run as a self-contained HTML page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from icbs.formatting import label, metrics, spell
from icbs.report.figure import run_figure
from icbs.report.layers import by_depth, by_kind
from icbs.report.optimum import optimum_columns, optimum_lines
from icbs.report.overview import Overview
from icbs.report.tables import MAX_ROWS, columns, facts, legend
from problems.files import write_text


def write_page(run: Overview, path: Path) -> None:
    """Write the report of a run as a self-contained HTML page.

    Parameters
    ----------
    run : Overview
    path : Path
        File to write; its folder must exist.
    """
    from jinja2 import Environment

    source = files("icbs.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    # Names of layers and figures come from files, so everything is escaped.
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        source
    )
    names = list(dict.fromkeys(name for stage in run.stages.values() for name in metrics(stage)))
    few = len(run.layers) <= MAX_ROWS
    groups = {} if few else {"Kinds of layer": by_kind(run.layers), "Depth": by_depth(run.layers)}
    write_text(
        path,
        template.render(
            title=run.path.name or str(run.path),
            facts=facts(run),
            stages={stage: [spell(n, f) for n in names] for stage, f in run.stages.items()},
            metrics=[f"test {label(name)}" for name in names],
            figure=_svg(run),
            groups={title: columns(found, run) for title, found in groups.items()},
            layers=columns(run.layers, run),
            few=few,
            legend=legend(run),
            settings=_flat({"task": run.task, **run.settings}),
            optimum=optimum_columns(run.optimum) if run.optimum else {},
            optimum_lines=optimum_lines(run.optimum) if run.optimum else [],
            rows=lambda table: list(zip(*table.values(), strict=True)),
        ),
    )


def _svg(run: Overview) -> str:
    """Return the run's figure as a data URL, in which markup of the SVG can't run scripts."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    references = {"dense": run.dense} if run.dense else {}
    buffer = io.BytesIO()
    FigureCanvasSVG(run_figure([run.curve], references)).print_figure(buffer, format="svg")
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _flat(settings: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    return [(name, str(value)) for name, value in settings.items()]
