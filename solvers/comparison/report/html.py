"""Pages of HTML with charts, each one file that makes no network requests."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from solvers.comparison.extra import importing
from solvers.comparison.report.figures import Chart

with importing():
    from bokeh.embed import json_item
    from bokeh.resources import Resources

#: Package with the styles and the script of all pages.
_SHARED = "solvers.comparison.report"


def render(package: str, figures: Iterable[Chart], data: dict[str, Any], **content: Any) -> str:
    """Return the page of a package, from its ``page.html.j2`` and ``page.js``.

    Parameters
    ----------
    package : str
    figures : iterable of Chart
        Charts that the page's script draws.
    data : dict
        More data of the script, such that JSON can hold it.
    **content
        Variables of the template; all text is escaped, as names come from files.
    """
    drawn = {chart.key: json_item(chart.figure) for chart in figures if chart.figure is not None}
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_source(package, "page.html.j2")).render(
        bokeh=Markup("\n".join(Resources(mode="inline", components=["bokeh"]).js_raw)),
        css=Markup(_source(_SHARED, "page.css")),
        script=Markup(_source(_SHARED, "charts.js") + _source(package, "page.js")),
        data=_embedded(data | {"figures": drawn}),
        **content,
    )


def _embedded(data: dict[str, Any]) -> Markup:
    """Return JSON that may stand in an element ``script``: no ``<`` can end it."""
    return Markup(json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"))


def _source(package: str, name: str) -> str:
    return files(package).joinpath(name).read_text(encoding="utf-8")
