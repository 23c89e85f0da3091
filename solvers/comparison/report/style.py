"""Colour, dash and marker of each solver, distinguishable without colours too."""

from __future__ import annotations

from dataclasses import dataclass

from solvers.comparison.palette import COLOURS, DASHES

#: Bokeh's names of markers, and their outlines for a legend in a box from -5 to 5.
MARKERS = {
    "circle": "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z",
    "square": "M-4-4H4V4H-4Z",
    "triangle": "M0-4.5L4.5 4H-4.5Z",
    "diamond": "M0-5L4 0L0 5L-4 0Z",
    "inverted_triangle": "M0 4.5L4.5-4H-4.5Z",
    "star": "M0-5L1.5-1.5H5L2 1L3 5L0 2.5L-3 5L-2 1L-5-1.5H-1.5Z",
    "hex": "M-2.5-4.3H2.5L5 0L2.5 4.3H-2.5L-5 0Z",
    "plus": "M-1.5-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5V-1.5H-1.5Z",
}


@dataclass(frozen=True)
class Style:
    """The look of one solver in every chart."""

    index: int
    name: str
    colour: str
    dash: tuple[int, ...]
    marker: str

    @property
    def dashes(self) -> str:
        """The dash as Bokeh reads it."""
        return " ".join(map(str, self.dash)) or "solid"

    @property
    def outline(self) -> str:
        """SVG path of the marker."""
        return MARKERS[self.marker]


def styles(solvers: list[str]) -> list[Style]:
    """Return a look for each solver; no two of the first 168 are the same."""
    markers = list(MARKERS)
    return [
        Style(
            index=i,
            name=name,
            colour=COLOURS[i % len(COLOURS)],
            dash=DASHES[i % len(DASHES)],
            marker=markers[i % len(markers)],
        )
        for i, name in enumerate(solvers)
    ]
