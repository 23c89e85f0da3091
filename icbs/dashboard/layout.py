"""Blocks of HTML and grids of figures of the dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from bokeh.models import Column, InlineStyleSheet
from bokeh.models.widgets.markups import Div


def div(text: str) -> Any:
    """Return a block of HTML in the style of the dashboard."""
    css = files("icbs.dashboard").joinpath("tables.css").read_text(encoding="utf-8")
    sheets: list[Any] = [InlineStyleSheet(css=css)]
    return Div(text=text, stylesheets=sheets, sizing_mode="stretch_width", disable_math=True)


def grid(figures: Sequence[Any], width: str) -> Any:
    """Return figures in as many columns of at least a width as the page has room for."""
    columns = f"repeat(auto-fit, minmax(min(100%, {width}), 1fr))"
    css = f":host {{ display: grid !important; grid-template-columns: {columns}; gap: 1rem; }}"
    sheets: list[Any] = [InlineStyleSheet(css=css)]
    return Column(children=list(figures), stylesheets=sheets, sizing_mode="stretch_width")


def render(template: str, **content: Any) -> str:
    """Return a template of the dashboard as HTML.

    All texts are escaped, as names of runs, layers and solvers come from files.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    source = files("icbs.dashboard").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**content)
