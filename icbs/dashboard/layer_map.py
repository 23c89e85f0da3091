"""Density, moves and gain of each layer: bars for few layers, a map for many."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bokeh.models import BasicTicker, BasicTickFormatter, ColumnDataSource, LinearColorMapper
from bokeh.models.annotations.legends import ColorBar
from bokeh.palettes import Viridis256

from icbs.dashboard.figures import label_ticks, new_figure, percent, wrapped
from icbs.dashboard.layer_sums import LayerSums
from icbs.dashboard.reader import RunReader
from icbs.report.layers import kind_name, natural
from icbs.report.screen import visible
from icbs.report.tables import common_prefix

MAX_BARS = 24
"""Number of layers up to which each is a bar with its name."""
MAX_KINDS = 40
"""Number of kinds of layers up to which each is a row of the map."""
_ACROSS = 24
"""Layers in a row, if there are too many kinds."""
_LABEL = 24
"""Largest number of characters in a line of a label; longer names have several lines."""
_LINE = 14
"""Height of a line of a label, in pixels."""
_TIPS = [
    ("layer", "@name"),
    ("density", "@density{0.0000}"),
    ("kept", "@accepted of @blocks blocks"),
    ("weights moved", "@moved{0,0}"),
    ("decrease of the loss", "@gain{0.[000000]}"),
]


@dataclass(frozen=True)
class Grid:
    """Positions of layers on a map, and labels of its rows and columns."""

    places: dict[str, tuple[int, int]]
    """Layer → column and row, from the top."""
    rows: dict[int, str]
    columns: dict[int, str]
    prefix: str = ""
    """Common beginning of the labels of the rows, which they lack."""

    @classmethod
    def of(cls, names: Sequence[str]) -> Grid:
        """Arrange layers in rows by kind and columns by block, or in their order.

        Parameters
        ----------
        names : sequence of str
            Dotted names, in natural order.
        """
        kinds = list(dict.fromkeys(map(kind_name, names)))
        blocks = sorted({_numbers(name) for name in names}, key=natural)
        across, down = {b: i for i, b in enumerate(blocks)}, {k: i for i, k in enumerate(kinds)}
        places = {name: (across[_numbers(name)], down[kind_name(name)]) for name in names}
        sparse = len(kinds) > MAX_KINDS or len(blocks) * len(kinds) > 4 * len(names)
        if sparse or len(set(places.values())) < len(names):
            places = {name: (i % _ACROSS, i // _ACROSS) for i, name in enumerate(names)}
            count = -(-len(names) // _ACROSS)
            return cls(places, {i: f"layer {i * _ACROSS}" for i in range(count)}, {})
        prefix = common_prefix(kinds)
        rows = {i: _label(kind.removeprefix(prefix)) for kind, i in down.items()}
        every = max(1, -(-len(blocks) // 10))
        columns = {i: block for block, i in across.items() if i % every == 0}
        return cls(places, rows, columns, prefix)


def _numbers(name: str) -> str:
    return ".".join(re.findall(r"(?<![^.])\d+(?![^.])", name)) or "–"


def _label(name: str) -> str:
    return wrapped(visible(name), _LABEL)


def _height(labels: Mapping[int, str], least: int) -> int:
    """Return the height of a row with room for the longest label, in pixels."""
    lines = max((text.count("\n") + 1 for text in labels.values()), default=1)
    return max(least, _LINE * lines + 4)


class LayerMap:
    """Three figures of the layers of a run."""

    def __init__(self, reader: RunReader, name: str = "") -> None:
        self._reader = reader
        self.names = reader.layer_names
        self.bars = len(self.names) <= MAX_BARS
        places = {layer: (0, i) for i, layer in enumerate(self.names)}
        self._grid = Grid(places, {}, {}) if self.bars else Grid.of(self.names)
        self._source = ColumnDataSource(self._columns())
        suffix = f" ({name})" if name else ""
        titles = {"density": "Density", "moved": "Weights moved", "gain": "Decrease of the loss"}
        self._mappers: dict[str, LinearColorMapper] = {}
        draw = self._bars if self.bars else self._map
        self.figures = [draw(column, title + suffix) for column, title in titles.items()]

    def _columns(self) -> dict[str, list[Any]]:
        sums = [self._reader.layers.get(name, LayerSums()) for name in self.names]
        places = [self._grid.places[name] for name in self.names]
        return {
            "x": [x for x, _ in places],
            "y": [-y for _, y in places],
            "name": [visible(name) for name in self.names],
            "density": [self._reader.density(name) for name in self.names],
            "blocks": [s.blocks for s in sums],
            "accepted": [s.accepted for s in sums],
            "moved": [s.moved for s in sums],
            "gain": [s.gain for s in sums],
        }

    def _bars(self, column: str, title: str) -> Any:
        labels = {-i: _label(name) for i, name in enumerate(self.names)}
        rows = max(2, len(labels))
        plot = new_figure(title, "", "", _TIPS, height=90 + _height(labels, 24) * rows)
        plot.hbar(y="y", right=column, height=0.7, source=self._source, color="#0072B2")
        label_ticks(plot.yaxis[0], labels)
        plot.ygrid.visible = False
        if column == "density":
            plot.x_range.start = 0
            percent(plot.xaxis)
        return plot

    def _map(self, column: str, title: str) -> Any:
        rows = self._grid.rows
        head = f"{title}: {self._grid.prefix}" if self._grid.prefix else title
        height = 150 + _height(rows, 22) * len(rows)
        plot = new_figure(head, "block", "", _TIPS, height=height)
        mapper = LinearColorMapper(palette=Viridis256, low=0.0, high=1.0, nan_color="#dddddd")
        self._mappers[column] = mapper
        plot.rect(
            "x", "y", 0.95, 0.95, source=self._source, line_color=None,
            fill_color={"field": column, "transform": mapper},
        )  # fmt: skip
        label_ticks(plot.yaxis[0], {-row: text for row, text in rows.items()})
        label_ticks(plot.xaxis[0], self._grid.columns)
        plot.grid.visible = False
        bar = ColorBar(
            color_mapper=mapper,
            height=10,
            ticker=BasicTicker(desired_num_ticks=4),
            formatter=BasicTickFormatter(use_scientific=False),
        )
        plot.add_layout(bar, "below")
        self._set_range(column)
        return plot

    def _set_range(self, column: str) -> None:
        known = [value for value in self._source.data[column] if math.isfinite(value)] or [0.0]
        low, high = min(known), max(known)
        if high - low <= 0.01 * abs(high) or column != "density":  # else small differences show
            low = min(0.0, low)
        mapper = self._mappers[column]
        mapper.low, mapper.high = low, high if high > low else low + 1.0

    def update(self) -> bool:
        """Show what the reader has read; return False if there are other layers than before."""
        if self._reader.layer_names != self.names:
            return False
        self._source.data = self._columns()
        for column in self._mappers:
            self._set_range(column)
        return True
